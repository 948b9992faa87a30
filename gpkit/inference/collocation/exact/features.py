"""Product processes in finite bases: features along each axis, conditioned on constraints, trimmed to what can matter.

A Gaussian spectral mixture on a box is, to rounding, a finite sum of waves; so is every process on a circle. In the
space of their weights there is no covariance matrix to be singular, and no jitter.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.priors import ConditionedAxis, Constraint, FieldPrior, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.inference.collocation.forms import Jet

__all__ = ["AxisFeatures", "FieldFeatures", "field_features", "projections"]

_TRIM = 1e-13


class AxisFeatures:
    """Functions of one variable with independent standard normal weights.

    Args:
        axis: The process.
        constraints: Functionals that are zero.
    """

    def __init__(self, axis: WaveAxis, constraints: Sequence[Constraint] = ()) -> None:
        """Find the weights that the constraints leave free."""
        self.axis = axis
        self.rotation: Tensor | None = None
        if constraints:
            rows = torch.stack([self._functional(c) for c in constraints])
            rows = rows / rows.norm(dim=1, keepdim=True)
            # Conditioning independent standard weights on rows being zero leaves them standard on the null space.
            complete, _ = torch.linalg.qr(rows.T, mode="complete")
            self.rotation = complete[:, len(rows) :]

    def _functional(self, constraint: Constraint) -> Tensor:
        total: Tensor = torch.zeros(())
        for x, o, c in zip(constraint.points, constraint.orders, constraint.coefficients, strict=True):
            total = total + c * self.axis.features(torch.tensor([x], dtype=torch.float64), o)[0]
        return total

    @property
    def count(self) -> int:
        """Number of functions."""
        return self.axis.count if self.rotation is None else self.rotation.shape[1]

    def __call__(self, x: Tensor, order: int) -> Tensor:
        """Derivative of every function at points, (m, r)."""
        features = self.axis.features(x, order)
        return features if self.rotation is None else features @ self.rotation

    def trimmed(self, x: Tensor, orders: Sequence[int], tolerance: float = _TRIM) -> Tensor:
        """Rotate to principal weights and drop those that no derivative of interest sees.

        Args:
            x: Where the derivatives are seen.
            orders: Of the derivatives.
            tolerance: Relative to the largest standard deviation.

        Returns:
            Standard deviations of the kept weights' effects, decreasing, (r,).
        """
        return self.trim([self(x, o) for o in orders], tolerance)

    def trim(self, tables: Sequence[Tensor], tolerance: float) -> Tensor:
        """:meth:`trimmed` by tables of the present functions' derivatives where they are seen, each (m, r)."""
        parts = [table / table.pow(2).sum(1).max().sqrt().clamp_min(1e-300) for table in tables]
        _, sizes, right = torch.linalg.svd(torch.cat(parts), full_matrices=False)
        keep = sizes > tolerance * float(sizes[0])
        rotation = right[keep].T
        self.rotation = rotation if self.rotation is None else self.rotation @ rotation
        return sizes[keep] / float(sizes[0])


class FieldFeatures:
    """Products of functions of one variable: the weights of one field.

    Attributes:
        axes: Functions along each axis.
        index: (W, d), which function of each axis a weight multiplies.
    """

    def __init__(self, axes: Sequence[AxisFeatures], index: Tensor) -> None:
        """Keep both."""
        self.axes = tuple(axes)
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def of_jet(
        self,
        jet: Jet,
        coordinates: Sequence[Tensor],
        is_grid: bool,
        projections: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Values of every product's derivative at points or on a grid, (m, W).

        Args:
            jet: The derivative.
            coordinates: Of the grid's axes or of the points.
            is_grid: Which of both.
            projections: Orthonormal columns for each axis of a grid, onto which its values are projected.
        """
        out: Tensor | None = None
        for j, (axis, x, order) in enumerate(zip(self.axes, coordinates, jet.orders, strict=True)):
            values = axis(x, order)
            if projections is not None:
                values = projections[j].T @ values
            factor = values[:, self.index[:, j]]
            if out is None:
                out = factor
            elif is_grid:
                out = (out[:, None] * factor[None]).reshape(-1, factor.shape[1])
            else:
                out = out * factor
        assert out is not None
        return out

    def on_line(self, jet: Jet, x: Tensor, weights: Tensor) -> Tensor:
        """A jet of the weighted sum (m,) on a line; costs no product of functions with functions."""
        axis, waves = self.axes[0], weights.new_zeros(self.axes[0].count)
        waves[self.index[:, 0]] = weights
        return axis.axis.features(x, jet.orders[0]) @ (waves if axis.rotation is None else axis.rotation @ waves)


def projections(rows: Rows, fields: Sequence[FieldFeatures]) -> list[Tensor] | None:
    """For each axis of a grid, an orthonormal basis of everything that the features and their derivatives can be.

    Rows on a grid are seen by the weights only through their projections on these bases: what is left over of the
    values is noise.

    Returns:
        None where nothing is saved: one axis, scattered rows, or coefficients that vary.
    """
    if not rows.is_grid or len(rows.coordinates) == 1 or any(t.coefficient.dim() for t in rows.terms):
        return None
    out = []
    for j, x in enumerate(rows.coordinates):
        seen = sorted({(t.jet.field, t.jet.orders[j]) for t in rows.terms})
        parts = []
        for f, order in seen:
            values = fields[f].axes[j](x, order)
            parts.append(values / values.norm().clamp_min(1e-300))
        basis, sizes, _ = torch.linalg.svd(torch.cat(parts, dim=1), full_matrices=False)
        out.append(basis[:, sizes > 1e-16 * float(sizes[0])])
    return out


def field_features(prior: FieldPrior, rows: Sequence[Rows], field: int, weights_limit: int) -> FieldFeatures | None:
    """The features of a field as rows see them.

    Args:
        prior: Its axes are `WaveAxis`, or such conditioned on constraints.
        rows: Whose derivatives matter.
        field: Number of the field.
        weights_limit: None is returned if there would be more weights.

    Returns:
        None as well where an axis has no finite basis.
    """
    axes = []
    spreads = []
    for j, axis in enumerate(prior.axes):
        base = axis.base if isinstance(axis, ConditionedAxis) else axis
        if not isinstance(base, WaveAxis):
            return None
        features = AxisFeatures(base, axis.constraints if isinstance(axis, ConditionedAxis) else ())
        if len(prior.axes) > 1:
            orders = {0} | {t.jet.orders[j] for r in rows for t in r.terms if t.jet.field == field}
            x = torch.cat([r.coordinates[j] for r in rows if field in r.fields()])
            spreads.append(features.trimmed(torch.unique(x), sorted(orders)))
        else:
            spreads.append(torch.ones(features.count, dtype=torch.float64))
        axes.append(features)
    size = spreads[0]
    for s in spreads[1:]:
        size = (size[:, None] * s).reshape(-1)
    keep = size > _TRIM
    if int(keep.sum()) > weights_limit:
        return None
    every = torch.tensor(list(itertools.product(*[range(len(s)) for s in spreads])), dtype=torch.long)
    return FieldFeatures(axes, every[keep])
