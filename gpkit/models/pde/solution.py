"""Solutions: fields with their uncertainty at any points, what is known about their accuracy, files and reports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Box, Jet
from gpkit.inference.collocation.posterior import FieldDraws, FieldPosterior, GridVariances
from gpkit.models.payload import PayloadFormat
from gpkit.models.pde.evaluation import Remainder
from gpkit.models.pde.expressions import Expression
from gpkit.models.pde.gridded import values_tensor
from gpkit.models.pde.residuals import Residuals

__all__ = ["Draws", "FieldSolution", "Solution"]

_FILE = PayloadFormat("gpkit solution of a differential equation", 1, "a solution of a differential equation")
LARGE_RESIDUAL = 1e-5
"""Relative residual above which a solution says that it is not to be trusted; ten times that from third order on,
where rounding in the highest derivatives alone can be larger."""


def _points(points: Any, box: Box) -> Tensor:
    """Points (m, d) inside a box.

    Raises:
        InvalidDataError: The shape does not fit, something is not finite, or a point lies outside.
    """
    tensor = values_tensor(points, "points")
    if box.dim == 1 and tensor.dim() <= 1:
        tensor = tensor.reshape(-1, 1)
    if tensor.dim() != 2 or tensor.shape[1] != box.dim:
        raise InvalidDataError(
            f"points have shape (m, {box.dim}), a column for each of {', '.join(box.names)}; got {tuple(tensor.shape)}"
        )
    for k, name in enumerate(box.names):
        slack = 1e-9 * box.lengths[k]
        outside = (tensor[:, k] < box.lower[k] - slack) | (tensor[:, k] > box.upper[k] + slack)
        if bool(outside.any()):
            row = int(torch.nonzero(outside)[0])
            raise InvalidDataError(
                f"point {row} lies outside the box: {name}={float(tensor[row, k]):.6g} is not between "
                f"{box.lower[k]:.6g} and {box.upper[k]:.6g}"
            )
    return tensor


class Draws:
    """Joint draws of all fields: functions that can be evaluated anywhere in the box.

    Args:
        draws: Of the engine.
        n: Their number.
        box: The domain.
        names: Names of the fields.
    """

    def __init__(self, draws: FieldDraws, n: int, box: Box, names: Sequence[str]) -> None:
        self._draws, self.n, self._box, self._names = draws, n, box, tuple(names)

    def __call__(self, points: Any, field: str | None = None, orders: Sequence[int] | None = None) -> Tensor:
        """Values (n, m) of a field, or of a derivative of it, at points (m, d)."""
        number = 0 if field is None else _number(field, self._names)
        jet = Jet(number, tuple(orders) if orders is not None else (0,) * self._box.dim)
        return self._draws(jet, _points(points, self._box))

    def __len__(self) -> int:
        return self.n


def _number(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise InvalidDataError(f"there is no field {name!r}: the fields are {', '.join(names)}")
    return list(names).index(name)


@dataclass(frozen=True, eq=False)
class FieldSolution:
    """One field of a solution."""

    posterior: FieldPosterior
    box: Box
    number: int
    name: str

    def _jet(self, along: Sequence[Any] = ()) -> Jet:
        orders = [0] * self.box.dim
        index = 0
        while index < len(along):
            axis = along[index]
            if axis not in self.box.names:
                raise InvalidDataError(f"there is no axis {axis!r}: the axes are {', '.join(self.box.names)}")
            index += 1
            order = 1
            if index < len(along) and not isinstance(along[index], str):
                order = int(along[index])
                index += 1
            orders[self.box.names.index(axis)] += order
        return Jet(self.number, tuple(orders))

    def mean(self, points: Any) -> Tensor:
        """Posterior mean (m,) at points (m, d); (m,) in one dimension is taken as (m, 1)."""
        return self.posterior.mean(self._jet(), _points(points, self.box))

    def variance(self, points: Any) -> Tensor:
        """Posterior variance (m,)."""
        return self.posterior.variance(self._jet(), _points(points, self.box)).clamp_min(0.0)

    def std(self, points: Any) -> Tensor:
        """Posterior standard deviation (m,)."""
        return torch.sqrt(self.variance(points))

    def interval(self, points: Any, probability: float = 0.95) -> tuple[Tensor, Tensor]:
        """Central interval (low, high), each (m,).

        Raises:
            InvalidDataError: Unless 0 < probability < 1.
        """
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        half = math.sqrt(2.0) * float(torch.erfinv(torch.tensor(probability, dtype=torch.float64)))
        mean, std = self.mean(points), self.std(points)
        return mean - half * std, mean + half * std

    def gradient(self, points: Any) -> Tensor:
        """Gradient of the posterior mean, (m, d), along every axis of the box."""
        at = _points(points, self.box)
        return torch.stack([self.posterior.mean(self._jet((name,)), at) for name in self.box.names], -1)

    def derivative(self, points: Any, *along: Any) -> Tensor:
        """A derivative of the posterior mean (m,): ``derivative(points, "x", 2)``."""
        return self.posterior.mean(self._jet(along), _points(points, self.box))

    def on_grid(self, axes: Sequence[Any]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) on a tensor grid, quicker than at its points one by one."""
        return self.posterior.mean_on_grid(self._jet(), self._grid(axes))

    def std_on_grid(self, axes: Sequence[Any]) -> Tensor:
        """Posterior standard deviation (N_1, ..., N_d) on a tensor grid, by its products where there are any."""
        grid = self._grid(axes)
        if isinstance(self.posterior, GridVariances):
            variance = self.posterior.variance_on_grid(self._jet(), grid)
        else:
            mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*grid, indexing="ij")], -1)
            variance = self.posterior.variance(self._jet(), mesh).reshape([len(a) for a in grid])
        return variance.clamp_min(0.0).sqrt()

    def _grid(self, axes: Sequence[Any]) -> list[Tensor]:
        grid = [values_tensor(a, "axes") for a in axes]
        for k, a in enumerate(grid):
            corner = torch.tensor(self.box.lower, dtype=torch.float64).repeat(len(a), 1)
            corner[:, k] = a
            _points(corner, self.box)
        return grid


@dataclass(frozen=True, eq=False)
class Solution:
    """Solution of a problem: a Gaussian process posterior over its fields.

    Methods without a field's name are about the first field; ``solution["v"]`` is field v.

    Attributes:
        posterior: Of the engine.
        box: The domain.
        names: Names of the fields.
        grid: Number of collocation points along each axis.
        residuals: Measured off the grid, by no engine.
        diagnostics: Everything that is known about the solution: "method" says what was chosen and why.
        parameters: Values of unknowns, by name.
        text: The equations.
        seconds: CPU time of the solution.
        findings: What the user should know, in sentences.
    """

    posterior: FieldPosterior
    box: Box
    names: tuple[str, ...]
    grid: tuple[int, ...]
    residuals: Residuals
    diagnostics: dict[str, Any]
    parameters: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    seconds: float = math.nan
    findings: tuple[str, ...] = ()
    problem: Any = None

    def __getitem__(self, name: str) -> FieldSolution:
        number = _number(name, self.names)
        return FieldSolution(self.posterior, self.box, number, name)

    @property
    def _first(self) -> FieldSolution:
        return self[self.names[0]]

    def mean(self, points: Any) -> Tensor:
        """Posterior mean (m,) at points (m, d); (m,) in one dimension is taken as (m, 1)."""
        return self._first.mean(points)

    def variance(self, points: Any) -> Tensor:
        """Posterior variance (m,)."""
        return self._first.variance(points)

    def std(self, points: Any) -> Tensor:
        """Posterior standard deviation (m,)."""
        return self._first.std(points)

    def interval(self, points: Any, probability: float = 0.95) -> tuple[Tensor, Tensor]:
        """Central interval (low, high), each (m,)."""
        return self._first.interval(points, probability)

    def gradient(self, points: Any) -> Tensor:
        """Gradient of the posterior mean, (m, d)."""
        return self._first.gradient(points)

    def derivative(self, points: Any, *along: Any) -> Tensor:
        """A derivative of the posterior mean (m,): ``derivative(points, "x", 2)``."""
        return self._first.derivative(points, *along)

    def on_grid(self, axes: Sequence[Any]) -> Tensor:
        """Posterior mean (N_1, ..., N_d) on a tensor grid."""
        return self._first.on_grid(axes)

    def value(self, expression: Expression, points: Any) -> Tensor:
        """An expression of the fields (m,), computed from posterior means: ``value(u * d(u, "x"), points)``."""
        at = _points(points, self.box)
        jets = expression.jets
        keys = tuple((jet.field.name, jet.orders) for jet in jets)
        values = [self.posterior.mean(Jet(_number(name, self.names), orders), at) for name, orders in keys]
        given = {name: torch.tensor(v, dtype=torch.float64) for name, v in self.parameters.items()}
        found = Remainder(expression, self.box, keys=keys)(list(at.T), values, given)
        return torch.as_tensor(found, dtype=torch.float64).expand(len(at))

    def sample(self, n: int = 1, seed: int | torch.Generator = 0) -> Draws:
        """Joint draws of all fields, as functions: ``solution.sample(8, seed=0)(points)`` is (8, m).

        Raises:
            InvalidDataError: n is not a positive whole number.
        """
        if isinstance(n, bool) or n < 1:
            raise InvalidDataError(f"the number of draws is a positive whole number, got {n!r}")
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
        return Draws(self.posterior.sample(n, generator), n, self.box, self.names)

    def held_out_scores(self, count: int = 200, draws: int = 100, seed: int = 0) -> Tensor:
        """Standardised residuals of every equation (equations, count) at random points, see `held_out`."""
        from gpkit.models.pde.held_out import held_out_scores

        return held_out_scores(self, count, draws, seed)

    @property
    def is_trustworthy(self) -> bool:
        """Whether nothing that is known speaks against it."""
        return not self.findings

    def to_inference_data(self, axes: Sequence[Any] | None = None, draws: int = 200, seed: int = 0) -> Any:
        """Draws of every field on a tensor grid, as an ``arviz.InferenceData``.

        Args:
            axes: Coordinates along each axis; 201 points in one dimension, 41 in two, 15 in three if not given.
            draws: Number of draws.
            seed: Of the draws.
        """
        from gpkit.inference.inference_data import provenance, to_inference_data

        count = {1: 201, 2: 41, 3: 15}[self.box.dim]
        grid = (
            [values_tensor(a, "axes") for a in axes]
            if axes is not None
            else [
                torch.linspace(a, b, count, dtype=torch.float64)
                for a, b in zip(self.box.lower, self.box.upper, strict=True)
            ]
        )
        mesh = torch.stack([m.reshape(-1) for m in torch.meshgrid(*grid, indexing="ij")], -1)
        shape = tuple(len(g) for g in grid)
        sampled = self.sample(draws, seed)
        posterior = {name: sampled(mesh, name).reshape(1, draws, *shape).numpy() for name in self.names}
        return to_inference_data(
            posterior,
            coords={name: g.numpy() for name, g in zip(self.box.names, grid, strict=True)},
            dims={name: self.box.names for name in self.names},
            attrs=provenance(seed=seed, equations=self.text, residual=self.residuals.equation),
        )

    def report(self, path: str | Path, exact: Any = None, **run: Any) -> tuple[Path, Path]:
        """Write the report, a single HTML file, and the numbers in it as JSON.

        Args:
            path: HTML file, or a folder for ``report.html`` and ``summary.json``.
            exact: The true solution of the first field, if it is known: a function of one tensor per axis.
            run: ``command`` and ``settings``, to record.
        """
        from gpkit.models.pde.reporting import write_report

        return write_report(self, path, exact=exact, **run)

    def save(self, path: str | Path) -> Path:
        """Write the solution to one file, complete or not at all; `Solution.load` reads it without the problem.

        Raises:
            InvalidDataError: The solution cannot be written.
        """
        names = ("posterior", "box", "names", "grid", "residuals", "diagnostics", "text", "seconds", "findings")
        return _FILE.write(path, {name: getattr(self, name) for name in names} | {"parameters": dict(self.parameters)})

    @classmethod
    def load(cls, path: str | Path) -> Solution:
        """Read what `save` wrote. Files hold Python objects: load only those that you trust.

        Raises:
            InvalidDataError: The file is not there, or is not a solution.
        """
        return cls(**_FILE.read(path))

    def as_arrays(self, axes: Sequence[Tensor] | None = None) -> dict[str, np.ndarray]:
        """Coordinates, mean and standard deviation of every field on a tensor grid, for files.

        A standard deviation that costs a linear system a point is on coordinates of its own, ``std_x`` and so on, where
        none are given.

        Args:
            axes: Coordinates along each axis; as many as the solution's grid has, at most 2000, 300 x 300 or
                40 x 40 x 40, if not given.

        Returns:
            By name: the axes, and of each field ``u_mean`` and ``u_std``; without the latter where the method has none
            for so many values.

        Raises:
            InvalidDataError: A point lies outside.
        """
        few: list[Tensor] | None = None
        if axes is None:
            most = {1: 2000, 2: 300, 3: 40}[self.box.dim]
            ends = list(zip(self.grid, self.box.lower, self.box.upper, strict=True))
            axes = [torch.linspace(a, b, min(n, most), dtype=torch.float64) for n, a, b in ends]
            if not isinstance(self.posterior, GridVariances):
                most = {1: 401, 2: 31, 3: 9}[self.box.dim]
                few = [torch.linspace(a, b, min(n, most), dtype=torch.float64) for n, a, b in ends]
        arrays = {name: x.numpy() for name, x in zip(self.box.names, axes, strict=True)}
        for name in self.names:
            arrays[f"{name}_mean"] = self[name].on_grid(axes).numpy()
            with contextlib.suppress(InvalidDataError):  # of more values than the method has an uncertainty for
                arrays[f"{name}_std"] = self[name].std_on_grid(few or axes).numpy()
        if few is not None:
            arrays |= {f"std_{name}": x.numpy() for name, x in zip(self.box.names, few, strict=True)}
        return arrays

    def __repr__(self) -> str:
        grid = " x ".join(map(str, self.grid))
        says = f"residual {self.residuals.equation:.1e}, conditions {self.residuals.condition:.1e}"
        warning = f"; NOT TO BE TRUSTED: {self.findings[0]}" if self.findings else ""
        return f"Solution({', '.join(self.names)} on {self.box!r}, grid {grid}, {says}{warning})"
