"""What is not known of a solution: Gaussian weights around its mean.

With exact sources nothing is random but the discretisation. Its error is estimated by one further solve on a finer
basis: the difference tells how large each coefficient of the error is. The posterior takes these sizes, smoothed over
neighbours, as standard deviations of independent coefficients, and widens them until they cover the difference itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from scipy import linalg, sparse
from scipy.ndimage import uniform_filter
from scipy.sparse.linalg import splu

from gpkit.inference.collocation.axes import Axis, along
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.rows import Columns

__all__ = ["CoefficientVariances", "DenseCovariance", "Uncertainty", "free_coefficients"]

_CHUNK = 2_000_000


@runtime_checkable
class Uncertainty(Protocol):
    """Distribution of fields around their mean."""

    def variance(self, jet: Jet, points: Array) -> Array:
        """Variance of a jet at points (m, d)."""
        ...

    def variance_on_grid(self, jet: Jet, axes: Sequence[Array]) -> Array:
        """Variance of a jet on a tensor grid."""
        ...

    def draw(self, count: int, generator: np.random.Generator) -> list[Array]:
        """Coefficients of draws, per field (n, r_1, ..., r_d), in the bases of the axes that it was made with."""
        ...


def free_coefficients(axes: Sequence[Axis], coefficients: Array) -> Array:
    """Free coefficients of a field that satisfies homogeneous conditions."""
    for j, axis in enumerate(axes):
        z = axis.constrained
        if not axis.conditions:
            continue
        if sparse.issparse(z):
            gram = splu(sparse.csc_matrix(z.T @ z))
            moved = np.moveaxis(coefficients, j, 0)
            flat = gram.solve(np.asarray(z.T @ moved.reshape(len(moved), -1)))
            coefficients = np.moveaxis(flat.reshape(z.shape[1], *moved.shape[1:]), 0, j)
        else:
            coefficients = along(np.linalg.pinv(z), coefficients, j)
    return coefficients


class CoefficientVariances:
    """Independent free coefficients, and a constant that covers errors of boundary data.

    Args:
        axes: Constrained axes of each field, [field][axis].
        variances: Of the free coefficients of each field.
        floors: Variance of a constant shift of each field.
    """

    def __init__(self, axes: Sequence[Sequence[Axis]], variances: Sequence[Array], floors: Sequence[float]) -> None:
        self._axes, self._variances, self._floors = axes, list(variances), list(floors)

    @classmethod
    def covering(
        cls, axes: Sequence[Sequence[Axis]], errors: Sequence[Array], floors: Sequence[float]
    ) -> CoefficientVariances:
        """Variances that cover estimated errors.

        Args:
            axes: Constrained axes of each field.
            errors: Coefficients of the estimated error of each field; under homogeneous conditions.
            floors: Size of errors of boundary data, per field.
        """
        variances = []
        for own, error in zip(axes, errors, strict=True):
            free = free_coefficients(own, error)
            smooth = uniform_filter(free**2, size=tuple(min(7, n) for n in free.shape), mode="nearest")
            if smooth.max() == 0.0:
                variances.append(smooth)
                continue
            smooth += 1e-6 * smooth.mean()
            # Twice as wide as covers the difference at 99 of 100 points: it is an estimate itself.
            grid = [axis.basis.nodes(max(8, axis.basis.size // 2))[0] for axis in own]
            values, spread = error, smooth
            for j, (axis, x) in enumerate(zip(own, grid, strict=True)):
                table = axis.basis.evaluate(x)
                values = along(table, values, j)
                spread = along(np.asarray(table @ axis.constrained) ** 2, spread, j)
            ratio = np.abs(values) / np.sqrt(np.maximum(spread, 1e-300))
            variances.append(smooth * (2.0 * max(1.0, float(np.quantile(ratio, 0.99)))) ** 2)
        return cls(axes, variances, [f * f for f in floors])

    def _tables(self, jet: Jet, points: Sequence[Array]) -> list[Array]:
        own = self._axes[jet.field]
        return [
            np.asarray(axis.basis.evaluate(x, order) @ axis.constrained) ** 2
            for axis, x, order in zip(own, points, jet.orders, strict=True)
        ]

    def _floor(self, jet: Jet) -> float:
        return 0.0 if any(jet.orders) else self._floors[jet.field]

    def variance_on_grid(self, jet: Jet, axes: Sequence[Array]) -> Array:
        """Variance of a jet on a tensor grid."""
        values = self._variances[jet.field]
        for j, table in enumerate(self._tables(jet, axes)):
            values = along(table, values, j)
        return values + self._floor(jet)

    def variance(self, jet: Jet, points: Array) -> Array:
        """Variance of a jet at points (m, d)."""
        out = np.empty(len(points))
        variances = self._variances[jet.field]
        step = max(16, _CHUNK // max(1, variances.size // variances.shape[0]))
        for start in range(0, len(points), step):
            part = points[start : start + step]
            tables = self._tables(jet, list(part.T))
            values: Array = tables[0] @ variances.reshape(len(variances), -1)
            for table in tables[1:]:
                values = np.einsum("mk,mkr->mr", table, values.reshape(len(part), table.shape[1], -1))
            out[start : start + step] = values.reshape(len(part)) + self._floor(jet)
        return out

    def draw(self, count: int, generator: np.random.Generator) -> list[Array]:
        """Coefficients of draws around zero, per field (n, r_1, ..., r_d)."""
        drawn = []
        for own, variances, floor in zip(self._axes, self._variances, self._floors, strict=True):
            free = generator.standard_normal((count, *variances.shape)) * np.sqrt(variances)
            for j, axis in enumerate(own):
                free = along(axis.constrained, free, j + 1)
            constant = np.sqrt(np.prod([a.basis.upper - a.basis.lower for a in own]))
            free = np.ascontiguousarray(free)
            free.reshape(count, -1)[:, 0] += generator.standard_normal(count) * np.sqrt(floor) * constant
            drawn.append(free)
        return drawn


class DenseCovariance:
    """Jointly Gaussian free coefficients of all fields, and a constant as in :class:`CoefficientVariances`.

    Args:
        columns: What the coefficients are of.
        root: S with covariance S S^T, (columns, k).
        floors: Standard deviation of a constant shift of each field.
    """

    def __init__(self, columns: Columns, root: Array, floors: Sequence[float] | None = None) -> None:
        self._columns, self._root = columns, root
        self._floors = list(floors) if floors is not None else [0.0] * len(columns.shapes)

    @classmethod
    def of_factor(
        cls, columns: Columns, factor: Array, scales: Array, size: float, floors: Sequence[float] | None = None
    ) -> DenseCovariance:
        """Covariance size^2 (R^T R)^{-1} in units of column scales."""
        inverse = linalg.solve_triangular(factor, np.eye(len(factor)))
        return cls(columns, size * inverse / scales[:, None], floors)

    def variance(self, jet: Jet, points: Array) -> Array:
        """Variance of a jet at points (m, d)."""
        root = self._root[self._columns.span(jet.field)]
        floor = 0.0 if any(jet.orders) else self._floors[jet.field] ** 2
        step = max(1, _CHUNK // max(1, root.shape[0]))
        out = np.empty(len(points))
        for i in range(0, len(points), step):
            out[i : i + step] = np.sum((self._columns.at(jet, points[i : i + step]) @ root) ** 2, axis=1)
        return out + floor

    def variance_on_grid(self, jet: Jet, axes: Sequence[Array]) -> Array:
        """Variance of a jet on a tensor grid."""
        mesh = np.meshgrid(*axes, indexing="ij")
        return self.variance(jet, np.stack([m.ravel() for m in mesh], axis=1)).reshape(mesh[0].shape)

    def draw(self, count: int, generator: np.random.Generator) -> list[Array]:
        """Coefficients of draws around zero, per field (n, r_1, ..., r_d)."""
        free = generator.standard_normal((count, self._root.shape[1])) @ self._root.T
        fields = [self._columns.fields(row) for row in free]
        drawn = [np.stack([f[i] for f in fields]) for i in range(len(self._columns.shapes))]
        bases = self._columns.bases
        constant = float(np.sqrt(np.prod([b.upper - b.lower for b in bases])))
        for values, floor in zip(drawn, self._floors, strict=True):
            values.reshape(count, -1)[:, 0] += generator.standard_normal(count) * floor * constant
        return drawn
