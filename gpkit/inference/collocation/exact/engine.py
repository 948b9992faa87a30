"""Exact conditioning of Gaussian process priors on differential equations, conditions and observations.

References:
    Cockayne, Oates, Sullivan & Girolami (2016), Probabilistic Numerical Methods for Partial Differential Equations.
    Pfortner, Steinwart, Hennig & Wenger (2022), Physics-Informed Gaussian Process Regression Generalizes Linear PDE
    Solvers.
    Chen, Hosseini, Owhadi & Stuart (2021), J. Comput. Phys. 447, 110668 (Gauss-Newton for nonlinear equations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gpkit.inference.collocation.exact.linear import LinearEngine
from gpkit.inference.collocation.exact.nonlinear import gauss_newton
from gpkit.inference.collocation.exact.problem import collocation_axes
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.posterior import FieldPosterior

__all__ = ["solve"]


def solve(
    problem: Problem,
    grid: Sequence[int],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    kernel: Any = "auto",
    learn: bool = True,
    progress: bool = False,
) -> FieldPosterior:
    """Condition on the equations at the points of a grid.

    Args:
        problem: Equations, conditions and observations.
        grid: Points along each axis, ends included (on a periodic axis without the upper end).
        parameters: Values of unknown coefficients.
        kernel: "auto" (a Gaussian spectral mixture at the frequencies of the data), "gaussian", "matern52", "matern72"
            or "matern92" (the same mixtures with other envelopes), a `MixtureAxis`, one per axis, a GPyTorch kernel, or
            a mapping from names of fields to any of these.
        learn: Whether hyper-parameters are moved to a maximum of the marginal likelihood; kernels given as objects
            keep theirs and only their scale is fitted.
        progress: Whether to show bars.

    Raises:
        InvalidDataError: Something in the problem cannot be used, or would not fit into memory.
        NotPositiveDefiniteError: Two conditions say the same.
        ConvergenceError: An iteration found no answer.
    """
    axes = collocation_axes(problem.box, grid, problem.periodic)
    engine = LinearEngine(problem, axes, parameters or {}, kernel, learn, progress)
    posterior = engine.condition() if problem.is_linear else gauss_newton(engine, progress)
    return engine.covering(posterior)
