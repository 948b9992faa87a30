"""Differential equations, stated as mathematics and solved by conditioning Gaussian processes."""

from gpkit.models.pde.calculus import (
    Vector,
    apply,
    biharmonic,
    coordinates,
    cos,
    d,
    divergence,
    dot,
    dt,
    exp,
    gradient,
    laplacian,
    log,
    sin,
    sqrt,
    tanh,
)
from gpkit.models.pde.conditions import Condition, Dirichlet, Initial, Neumann, Observe, Periodic, Robin
from gpkit.models.pde.domain import Box
from gpkit.models.pde.expressions import Equation, Expression, Unknown
from gpkit.models.pde.fields import Field
from gpkit.models.pde.gridded import Noisy
from gpkit.models.pde.inverse import Inference
from gpkit.models.pde.problem import PDE
from gpkit.models.pde.solution import Draws, FieldSolution, Solution

__all__ = [
    "PDE",
    "Box",
    "Condition",
    "Dirichlet",
    "Draws",
    "Equation",
    "Expression",
    "Field",
    "FieldSolution",
    "Inference",
    "Initial",
    "Neumann",
    "Noisy",
    "Observe",
    "Periodic",
    "Robin",
    "Solution",
    "Unknown",
    "Vector",
    "apply",
    "biharmonic",
    "coordinates",
    "cos",
    "d",
    "divergence",
    "dot",
    "dt",
    "exp",
    "gradient",
    "laplacian",
    "log",
    "sin",
    "sqrt",
    "tanh",
]
