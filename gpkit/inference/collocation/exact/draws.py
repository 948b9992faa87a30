"""Draws of a posterior on a grid: draws of the prior, corrected by what the equations say they are off.

References:
    Wilson, Borovitskiy, Terenin, Mostowsky & Deisenroth (2021), Pathwise Conditioning of Gaussian Processes, JMLR 22.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.priors import AxisPrior, FieldPrior
from gpkit.inference.collocation.exact.rows import Rows, apply, contract, jet_rows
from gpkit.inference.collocation.forms import Jet

__all__ = ["AxisDraws", "GridDraws"]

_REFINEMENT = 3
_DROPPED = 1e-13


class AxisDraws:
    """A process on an axis as functions with standard normal weights.

    The functions span what is known of the process from its values at a few times as many points as there are nodes and
    from its derivatives at the nodes; what happens between these points is left out.
    """

    def __init__(self, prior: AxisPrior, nodes: Tensor, orders: Sequence[int]) -> None:
        self._prior = prior
        steps = torch.linspace(0.0, 1.0, _REFINEMENT + 1, dtype=torch.float64)[:-1]
        fine = (nodes[:-1, None] + steps * nodes.diff()[:, None]).reshape(-1)
        outside = torch.stack([2.0 * nodes[0] - nodes[1], 2.0 * nodes[-1] - nodes[-2]])
        self._seen = [(0, torch.cat([fine, nodes[-1:], outside]))] + [(o, nodes) for o in sorted(orders) if o]
        lines = [torch.cat([prior.blocks(x, y, [(a, b)])[a, b] for b, y in self._seen], 1) for a, x in self._seen]
        gram = torch.cat(lines)
        self._scale = gram.diagonal().clamp_min(1e-300).rsqrt()
        values, vectors = torch.linalg.eigh(gram * self._scale[:, None] * self._scale)
        keep = values > _DROPPED * float(values[-1])
        self._root = vectors[:, keep] * values[keep].rsqrt()

    @property
    def size(self) -> int:
        """Number of functions."""
        return self._root.shape[1]

    def __call__(self, x: Tensor, order: int) -> Tensor:
        """Derivatives of the functions at points, (m, size)."""
        cross = torch.cat([self._prior.blocks(x, y, [(order, b)])[order, b] for b, y in self._seen], dim=1)
        return (cross * self._scale) @ self._root


class GridDraws:
    """Joint draws of all fields, as functions.

    Args:
        rows: Of the equations, on grids.
        priors: One per field.
        solve: The inverse covariance of the rows times (n, k).
        mean: Posterior mean of a jet at points.
        scale: Of the priors.
        n: Number of draws.
        generator: Source of randomness.
    """

    def __init__(
        self,
        rows: Sequence[Rows],
        priors: Sequence[FieldPrior],
        solve: Callable[[Tensor], Tensor],
        mean: Callable[[Jet, Tensor], Tensor],
        scale: float,
        n: int,
        generator: torch.Generator,
    ) -> None:
        """Draw priors and solve for their corrections."""
        self._rows, self._priors, self._mean, self._scale = tuple(rows), tuple(priors), mean, scale
        self._axes, self._weights = [], []
        for f, prior in enumerate(priors):
            own = [r for r in rows if f in r.fields()] or list(rows)
            axes = []
            for j, axis in enumerate(prior.axes):
                orders = {t.jet.orders[j] for r in own for t in r.terms if t.jet.field == f}
                axes.append(AxisDraws(axis, own[0].coordinates[j], sorted(orders)))
            self._axes.append(axes)
            shape = [a.size for a in axes]
            self._weights.append(torch.randn(*shape, n, generator=generator, dtype=torch.float64))
        self._parts = torch.split(solve(torch.cat([self._of_rows(r, generator) for r in rows])), [len(r) for r in rows])

    def _of_rows(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """What the prior draws say the rows are, with noise, (m, n)."""
        total: Tensor | None = None
        for t in rows.terms:
            factors = [a(x, o) for a, x, o in zip(self._axes[t.jet.field], rows.coordinates, t.jet.orders, strict=True)]
            part = contract(factors, self._weights[t.jet.field], True)
            part = part * (t.coefficient[..., None] if t.coefficient.dim() else t.coefficient)
            total = part if total is None else total + part
        assert total is not None
        flat = total.reshape(len(rows), -1)
        noise = torch.randn(flat.shape, generator=generator, dtype=torch.float64)
        return flat + (rows.noise / self._scale).sqrt().expand(len(rows))[:, None] * noise

    def __call__(self, jet: Jet, points: Tensor) -> Tensor:
        """Values (n, m) of a jet at points (m, d)."""
        at = jet_rows(jet, points)
        factors = [a(x, o) for a, x, o in zip(self._axes[jet.field], at.coordinates, jet.orders, strict=True)]
        move = contract(factors, self._weights[jet.field], at.is_grid).reshape(len(points), -1)
        for r, part in zip(self._rows, self._parts, strict=True):
            move = move - apply(at, r, self._priors, part)
        return (self._mean(jet, points)[:, None] + math.sqrt(self._scale) * move).T
