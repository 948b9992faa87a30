"""Boundary value problems as they are stated, and solved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation import forms
from gpkit.models.pde.conditions import FaceCondition, Initial, Observe, Periodic, prior_fields
from gpkit.models.pde.expressions import Equation, Expression, Unknown
from gpkit.models.pde.fields import Field
from gpkit.models.pde.inverse import Inference, infer
from gpkit.models.pde.noise import noise_found
from gpkit.models.pde.normal import equation_form, fields_of
from gpkit.models.pde.solution import Solution
from gpkit.models.pde.solving import solve
from gpkit.models.pde.wellposed import check_problem

__all__ = ["PDE"]


class PDE:
    """Equations on a box, with the conditions that make their solution unique.

    Args:
        equations: One equation, or several for coupled fields: ``laplacian(u) + u * (u**2 - 1) == source``.
        conditions: Any of `Dirichlet`, `Neumann`, `Robin`, `Periodic`, `Initial`, `Observe`, and linear expressions on
            faces, ``d(u, "x", 2).on("x=0") == 0``.

    Attributes:
        fields: The fields, in the order in which they appear.
        form: The normal form, which engines solve.

    Raises:
        InvalidDataError: The problem is not well posed as stated; the sentence says why.

    Example:
        >>> from math import pi
        >>> import torch
        >>> from gpkit.models.pde import PDE, Box, Dirichlet, Field, laplacian
        >>> u = Field("u", Box(x=(0, 2 * pi)))
        >>> PDE(laplacian(u) == (lambda x: -torch.sin(x)), Dirichlet(u, 0))
        PDE(u_xx = f on Box(x=(0, 6.28319)), 2 conditions)
    """

    def __init__(self, equations: Any, conditions: Any = ()) -> None:
        self.equations = _equations(equations)
        self.conditions = list(conditions) if isinstance(conditions, Sequence) else [conditions]
        self.fields: list[Field] = fields_of(self.equations)
        if not self.fields:
            raise InvalidDataError(f"the equation {self.equations[0]!r} holds no field")
        self.box = self.fields[0].box
        self.form = self._normal()
        if self.form.free:  # unknown coefficients come after the fields that are solved for
            self.fields.sort(key=lambda field: self.form.fields.index(field.name) in self.form.free)
            self.form = self._normal()
        check_problem(self.form)

    def _normal(self) -> forms.Problem:
        box, numbers = self.box, {field.name: k for k, field in enumerate(self.fields)}
        faces: list[FaceCondition] = []
        observations: list[forms.Observation] = []
        periodic: frozenset[int] = frozenset()
        for given in self.conditions:
            if isinstance(given, FaceCondition):
                faces.append(given)
            elif isinstance(given, Periodic):
                periodic |= given.numbers(box)
            elif isinstance(given, Observe):
                observations.append(given.normal(box, numbers))
            else:
                raise InvalidDataError(
                    f"{type(given).__name__} is not a condition: use Dirichlet, Neumann, Robin, Periodic, Initial, "
                    "Observe, or an expression on a face"
                )
        initial = {
            jet.field.name: box.names.index(f.place.axis)
            for f in faces
            if isinstance(f, Initial) and f.place is not None and f.place.axis in box.names
            for jet in f.target.jets
        }
        conditions = []
        for face in faces:
            own = {initial[jet.field.name] for jet in face.target.jets if jet.field.name in initial}
            conditions += face.on_faces(box, numbers, periodic | own)
        equations = tuple(equation_form(e, box, numbers) for e in self.equations)
        if len(equations) > len(self.fields):
            raise InvalidDataError(f"there are {len(equations)} equations for {len(self.fields)} fields")
        return forms.Problem(
            box=box,
            fields=tuple(numbers),
            equations=equations,
            conditions=tuple(conditions),
            periodic=periodic,
            observations=tuple(observations),
            unknowns=_unknowns(self.equations, faces),
            free=prior_fields(self.fields, conditions, equations),
        )

    def solve(
        self,
        grid: Any = None,
        *,
        kernel: Any = "auto",
        method: str = "auto",
        parameters: Mapping[str, float] | None = None,
        progress: bool = True,
        seed: int = 0,
        basis: str = "auto",
        **options: Any,
    ) -> Solution:
        """Condition Gaussian processes on the equations, conditions and observations.

        Args:
            grid: Number of collocation points along each axis, or one number for all.
            kernel: "auto", or a kernel that the method takes.
            method: "spectral" (weight space), "exact" (function space), "gphm" (the model of Fang et al. 2024, with
                Adam or ``optimiser="gauss-newton"``), or "auto": spectral, and exact where the residual off the grid
                says that the former is not enough.
            parameters: Values of unknowns, for a solution with these given.
            progress: Whether bars are shown where stderr is a terminal.
            seed: Of everything random.
            basis: Of the spectral method: "broadband" (polynomials, enough of them for the highest frequency), "picked"
                (waves of the frequencies that sources, boundary data and residuals show; their number does not depend
                on how high they are), or "auto": the cheaper one, and the other where its residual is not small.
                ``diagnostics["basis"]`` has both residuals and the reason.
            **options: For the chosen engine, see its ``solve``; such as ``hidden=True``, with which intervals of noisy
                problems count on slow parts of the solution that the noise could hide.

        Warns:
            ConvergenceWarning: The residual off the grid is large, or the grid has too few points per period.

        Raises:
            InvalidDataError: The grid is too small or would not fit into memory, or the operator is singular.
            ConvergenceError: A nonlinear problem seems to have no solution.

        References:
            S. Fang, M. Cooley, D. Long, S. Li, R. Kirby, S. Zhe. Solving High Frequency and Multi-Scale PDEs with
            Gaussian Processes. ICLR 2024.
        """
        stated, levels = noise_found(self, grid, parameters)
        solution = solve(
            stated,
            grid,
            kernel=kernel,
            method=method,
            parameters=parameters,
            progress=progress,
            seed=seed,
            basis=basis,
            **options,
        )
        if levels:
            solution.diagnostics["noise_levels"] = levels
        return solution

    def infer(
        self,
        grid: Any = None,
        *,
        method: str = "laplace",
        draws: int = 1000,
        tune: int = 300,
        chains: int = 4,
        starts: int = 3,
        seed: int = 0,
        progress: bool = True,
    ) -> Inference:
        """Infer unknown numbers (`Unknown`) and unknown coefficients (fields without an equation) from observations.

        The fields are eliminated by their equations and conditions, so that the posterior is one of the unknowns; its
        gradients are exact.

        Args:
            grid: Number of functions along each axis; grown until the fields are resolved if not given.
            method: "laplace", the normal approximation at the mode, or "nuts".
            draws: Per chain.
            tune: Draws per chain that adapt the sampler, for "nuts".
            chains: Number of chains.
            starts: Of the search for the mode.
            seed: Of everything random.
            progress: Whether a bar is shown where stderr is a terminal.

        Warns:
            ConvergenceWarning: The fields are not resolved, the mode was not reached, or draws diverged.

        Raises:
            InvalidDataError: There is nothing unknown, there are no observations with noise, or the fields need more
                than 2600 coefficients, for which dense factors are taken at every step.
            ConvergenceError: The equations cannot be solved at any start.
            NotPositiveDefiniteError: The data and the priors leave a direction open, for "laplace".
        """
        return infer(
            self,
            grid,
            method=method,
            draws=draws,
            tune=tune,
            chains=chains,
            starts=starts,
            seed=seed,
            progress=progress,
        )

    def __repr__(self) -> str:
        equations = "; ".join(map(repr, self.equations))
        count = len(self.form.conditions) + len(self.form.periodic)
        return f"PDE({equations} on {self.box!r}, {count} condition{'s' * (count != 1)})"


def _equations(given: Any) -> list[Equation]:
    equations = [given] if isinstance(given, Equation) else given
    if isinstance(equations, list | tuple) and equations and all(isinstance(e, Equation) for e in equations):
        return list(equations)
    raise InvalidDataError(
        "PDE needs an equation, such as laplacian(u) == source, or a list of them; got "
        f"{type(given).__name__} {str(given)[:60]}"
    )


def _unknowns(equations: Iterable[Equation], conditions: Iterable[FaceCondition]) -> dict[str, Any]:
    found: dict[str, Unknown] = {}
    sides = [side for equation in equations for side in (equation.left, equation.right)]
    for part in [*sides, *(part for condition in conditions for part in condition.parts())]:
        for node in part.walk() if isinstance(part, Expression) else ():
            if isinstance(node, Unknown) and found.setdefault(node.name, node) is not node:
                raise InvalidDataError(f"two different unknowns are called {node.name!r}")
    return {name: node.prior for name, node in found.items()}
