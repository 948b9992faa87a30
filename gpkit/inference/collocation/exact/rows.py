"""Rows of a conditioning problem, linear functionals of fields at points, and their covariances.

A row is ``sum_t c_t (D^{orders_t} u_{field_t})(x)``. Rows on a tensor grid keep its axes, so that covariances with them
are products along the axes and are never formed unless asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.priors import FieldPrior
from gpkit.inference.collocation.forms import Jet

__all__ = [
    "RowTerm",
    "Rows",
    "apply",
    "blocks_of_rows",
    "chunks",
    "contract",
    "dense",
    "gram_bytes",
    "grid_rows",
    "jet_rows",
    "prior_variance",
    "scattered",
]

_CHUNK = 4_000_000
"""Numbers in one block of a covariance that is only multiplied with."""


@dataclass(frozen=True, eq=False)
class RowTerm:
    """A coefficient times a jet.

    Attributes:
        jet: The derivative.
        coefficient: A scalar, or one value a row in the shape of :attr:`Rows.shape` (or one that broadcasts to it).
    """

    jet: Jet
    coefficient: Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear functionals with values.

    Attributes:
        terms: What is summed in each row.
        coordinates: One tensor per axis: of the grid's axes if ``is_grid``, else one coordinate a row.
        is_grid: Whether the rows are the tensor grid of the coordinates, last axis fastest.
        values: (m,), what the functionals were found to be; None for rows that are only predicted.
        noise: Variance of the values, (m,) or a scalar.
        label: Where they come from, for messages.
        size: Of the numbers that the values were computed from: their rounding is relative to it.
    """

    terms: tuple[RowTerm, ...]
    coordinates: tuple[Tensor, ...]
    is_grid: bool
    values: Tensor | None = None
    noise: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    label: str = ""
    size: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid, or (m,)."""
        return tuple(len(x) for x in self.coordinates) if self.is_grid else (len(self.coordinates[0]),)

    def __len__(self) -> int:
        return int(torch.Size(self.shape).numel())

    def fields(self) -> set[int]:
        """Numbers of the fields that appear."""
        return {t.jet.field for t in self.terms}


def grid_rows(
    terms: Sequence[RowTerm],
    axes: Sequence[Tensor],
    values: Tensor | None = None,
    noise: Tensor | None = None,
    label: str = "",
) -> Rows:
    """Rows on a tensor grid."""
    flat = None if values is None else values.reshape(-1)
    none = torch.zeros((), dtype=torch.float64)
    return Rows(tuple(terms), tuple(axes), True, flat, none if noise is None else noise, label)


def jet_rows(jet: Jet, points: Tensor) -> Rows:
    """Rows of one jet at points (m, d)."""
    one = torch.ones((), dtype=torch.float64)
    coordinates = tuple(points[:, j].contiguous() for j in range(points.shape[1]))
    return Rows((RowTerm(jet, one),), coordinates, points.shape[1] == 1)


def gram_bytes(rows: Sequence[Rows]) -> int:
    """Memory of a dense factorisation: the matrix, its factor and one temporary."""
    n = sum(len(r) for r in rows)
    return 3 * 8 * n * n


def _pairs(a: Rows, b: Rows) -> Iterator[tuple[RowTerm, RowTerm]]:
    for s, t in itertools.product(a.terms, b.terms):
        if s.jet.field == t.jet.field:
            yield s, t


def _blocks(a: Rows, b: Rows, priors: Sequence[FieldPrior]) -> dict[int, list[dict[tuple[int, int], Tensor]]]:
    """By field and axis, the covariance matrices that the terms need."""
    wanted: dict[int, list[set[tuple[int, int]]]] = {}
    for s, t in _pairs(a, b):
        per_axis = wanted.setdefault(s.jet.field, [set() for _ in a.coordinates])
        for have, i, j in zip(per_axis, s.jet.orders, t.jet.orders, strict=True):
            have.add((i, j))
    return {
        f: [
            axis.blocks(x, x if x is y else y, sorted(p))
            for axis, x, y, p in zip(priors[f].axes, a.coordinates, b.coordinates, pairs, strict=True)
        ]
        for f, pairs in wanted.items()
    }


def dense(a: Rows, b: Rows, priors: Sequence[FieldPrior]) -> Tensor:
    """Covariance of rows a with rows b, (len(a), len(b))."""
    blocks = _blocks(a, b, priors)
    d = len(a.coordinates)
    total: Tensor | None = None
    if d > 1 and a.is_grid and b.is_grid and blocks and not _is_recorded(a, b, blocks):
        return _by_slabs(a, b, blocks)
    for s, t in _pairs(a, b):
        factors = [m[i, j] for m, i, j in zip(blocks[s.jet.field], s.jet.orders, t.jet.orders, strict=True)]
        product = _product(factors, a.is_grid, b.is_grid)
        product = _scaled(product, s.coefficient, a, 0, d)
        product = _scaled(product, t.coefficient, b, 1, d)
        total = product if total is None else total + product
    if total is None:
        return torch.zeros(len(a), len(b), dtype=torch.float64)
    return total


def _is_recorded(a: Rows, b: Rows, blocks: dict[int, list[dict[tuple[int, int], Tensor]]]) -> bool:
    """Whether gradients are asked for."""
    if not torch.is_grad_enabled():
        return False
    coefficients = any(t.coefficient.requires_grad for r in (a, b) for t in r.terms)
    return coefficients or any(m.requires_grad for axes in blocks.values() for own in axes for m in own.values())


def _by_slabs(a: Rows, b: Rows, blocks: dict[int, list[dict[tuple[int, int], Tensor]]]) -> Tensor:
    """The covariance of two grids, the rows of one line of the last axis at a time.

    Terms with the same derivatives along the last axis share one product with its matrix, and the sum over their
    coefficients is a product of thin matrices: what is as large as the covariance is written once.
    """
    groups: dict[tuple[int, int, int], tuple[list[RowTerm], list[RowTerm]]] = {}
    for s, t in _pairs(a, b):
        left, right = groups.setdefault((s.jet.field, s.jet.orders[-1], t.jet.orders[-1]), ([], []))
        if not any(s is known for known in left):
            left.append(s)
        if not any(t is known for known in right):
            right.append(t)
    m, n = a.shape[-1], b.shape[-1]
    lines, others = len(a) // m, len(b) // n
    parts = []
    for (f, c, e), (left, right) in groups.items():
        outer = torch.stack([torch.stack([_outer(blocks[f], s.jet, t.jet) for t in right]) for s in left])
        own = torch.stack([s.coefficient.expand(a.shape).reshape(lines, m) for s in left], dim=2)
        weights = torch.stack([t.coefficient.expand(b.shape).reshape(others, n) for t in right])
        parts.append((own, outer, weights, blocks[f][-1][c, e]))
    out, buffer = torch.empty(lines, m, others, n, dtype=torch.float64), torch.empty(m, others * n, dtype=torch.float64)
    for x in range(lines):
        for k, (own, outer, weights, last) in enumerate(parts):
            inner = torch.einsum("pqy,qys->pys", outer[:, :, x], weights).reshape(own.shape[2], -1)
            slab = torch.mm(own[x], inner, out=buffer).view(m, others, n)
            if k:
                out[x].addcmul_(slab, last[:, None])
            else:
                torch.mul(slab, last[:, None], out=out[x])
    return out.reshape(len(a), len(b))


def _outer(blocks: list[dict[tuple[int, int], Tensor]], left: Jet, right: Jet) -> Tensor:
    """Covariance of two jets over all axes but the last."""
    pairs = zip(left.orders[:-1], right.orders[:-1], strict=True)
    return _product([blocks[j][pair] for j, pair in enumerate(pairs)], True, True)


def _product(factors: Sequence[Tensor], left_grid: bool, right_grid: bool) -> Tensor:
    """Entrywise product over axes: row indices run over a grid or together, and so do column indices."""
    out = factors[0]
    for k in factors[1:]:
        left = "ab" if left_grid else "a"
        right = "cd" if right_grid else "c"
        second = ("b" if left_grid else "a") + ("d" if right_grid else "c")
        rows = out.shape[0] * (k.shape[0] if left_grid else 1)
        out = torch.einsum(f"ac,{second}->{left}{right}", out, k).reshape(rows, -1)
    return out


def _scaled(matrix: Tensor, coefficient: Tensor, rows: Rows, side: int, dim: int) -> Tensor:
    if coefficient.dim() == 0:
        return matrix if float(coefficient) == 1.0 and not coefficient.requires_grad else matrix * coefficient
    flat = coefficient.expand(rows.shape).reshape(-1)
    return matrix * (flat[:, None] if side == 0 else flat[None, :])


def apply(a: Rows, b: Rows, priors: Sequence[FieldPrior], v: Tensor) -> Tensor:
    """Covariance of rows a with rows b, times v, without forming it where b is a grid.

    Args:
        a: Rows of the result.
        b: Rows that v belongs to.
        priors: One per field.
        v: (len(b), k).

    Returns:
        (len(a), k).
    """
    out = torch.zeros(len(a), v.shape[1], dtype=torch.float64)
    if not any(True for _ in _pairs(a, b)):
        return out
    if not b.is_grid or len(a.coordinates) == 1:
        step = max(1, _CHUNK // max(1, len(b)))
        for start, part in chunks(a, step):
            out[start : start + len(part)] = dense(part, b, priors) @ v
        return out
    blocks = _blocks(a, b, priors)
    k = v.shape[1]
    for t in b.terms:
        partners = [s for s in a.terms if s.jet.field == t.jet.field]
        if not partners:
            continue
        weights = (v.reshape(*b.shape, k) * t.coefficient[..., None]) if t.coefficient.dim() else v * t.coefficient
        weights = weights.reshape(*b.shape, k)
        for s in partners:
            factors = [m[i, j] for m, i, j in zip(blocks[t.jet.field], s.jet.orders, t.jet.orders, strict=True)]
            image = contract(factors, weights, a.is_grid)
            if s.coefficient.dim():
                image = image * s.coefficient.expand(a.shape)[..., None]
            else:
                image = image * s.coefficient
            out += image.reshape(len(a), k)
    return out


def contract(factors: Sequence[Tensor], tensor: Tensor, is_grid: bool) -> Tensor:
    """Multiply the modes of (n_1, ..., n_d, k) with factors whose rows are a grid's axes, or points one by one.

    Returns:
        (m_1, ..., m_d, k) for a grid, (m, k) for points.
    """
    if not is_grid:
        return _at_points(factors, tensor)
    for j, m in enumerate(factors):
        tensor = torch.tensordot(m, tensor, dims=([1], [j])).movedim(0, j)
    return tensor


def _at_points(factors: Sequence[Tensor], tensor: Tensor) -> Tensor:
    """``sum_{ij..} A_mi B_mj .. T_ij..k`` for scattered rows m, (m, k)."""
    m = factors[0].shape[0]
    inner = tensor[0].numel()
    step = max(1, _CHUNK // max(1, inner))
    parts = []
    for start in range(0, m, step):
        sl = slice(start, start + step)
        out = torch.tensordot(factors[0][sl], tensor, dims=([1], [0]))
        for f in factors[1:]:
            out = torch.einsum("mi...,mi->m...", out, f[sl])
        parts.append(out)
    return torch.cat(parts)


def scattered(rows: Rows) -> Rows:
    """The same rows one by one; those on one axis are so already."""
    if not rows.is_grid or len(rows.coordinates) == 1:
        return rows
    mesh = torch.meshgrid(*rows.coordinates, indexing="ij")
    terms = tuple(
        RowTerm(t.jet, t.coefficient.expand(rows.shape).reshape(-1) if t.coefficient.dim() else t.coefficient)
        for t in rows.terms
    )
    return dataclasses.replace(rows, terms=terms, coordinates=tuple(m.reshape(-1) for m in mesh), is_grid=False)


def chunks(rows: Rows, step: int) -> Iterator[tuple[int, Rows]]:
    """Consecutive parts of at most ``step`` rows; a grid is flattened unless it fits."""
    if len(rows) <= step:
        yield 0, rows
        return
    rows = scattered(rows)
    for start in range(0, len(rows), step):
        sl = slice(start, start + step)
        terms = tuple(
            RowTerm(t.jet, t.coefficient.expand(rows.shape)[sl] if t.coefficient.dim() else t.coefficient)
            for t in rows.terms
        )
        yield start, Rows(terms, tuple(x[sl] for x in rows.coordinates), rows.is_grid)


def blocks_of_rows(rows: Rows, count: int, side: int, generator: torch.Generator) -> Rows:
    """About ``count`` rows of a grid, in cubes of ``side`` neighbours along every axis at random places."""
    shape = rows.shape
    sides = [min(side, n) for n in shape]
    chosen: set[int] = set()
    strides = [math.prod(shape[j + 1 :]) for j in range(len(shape))]
    while len(chosen) < min(count, len(rows)):
        starts = [int(torch.randint(0, n - s + 1, (), generator=generator)) for n, s in zip(shape, sides, strict=True)]
        cube = itertools.product(*[range(a, a + s) for a, s in zip(starts, sides, strict=True)])
        chosen |= {sum(i * s for i, s in zip(index, strides, strict=True)) for index in cube}
    index = torch.tensor(sorted(chosen), dtype=torch.long)
    flat = scattered(rows)
    terms = tuple(
        RowTerm(t.jet, t.coefficient.expand(len(flat))[index] if t.coefficient.dim() else t.coefficient)
        for t in flat.terms
    )
    assert rows.values is not None
    return dataclasses.replace(
        flat,
        terms=terms,
        coordinates=tuple(x[index] for x in flat.coordinates),
        values=rows.values[index],
        noise=rows.noise[index] if rows.noise.dim() else rows.noise,
    )


def prior_variance(rows: Rows, priors: Sequence[FieldPrior]) -> Tensor:
    """Prior variance of every row, (m,)."""
    total = torch.zeros(rows.shape, dtype=torch.float64)
    d = len(rows.coordinates)
    for s, t in _pairs(rows, rows):
        part: Tensor = torch.ones((), dtype=torch.float64)
        for j, (axis, x) in enumerate(zip(priors[s.jet.field].axes, rows.coordinates, strict=True)):
            pair = (s.jet.orders[j], t.jet.orders[j])
            values = axis.variances(x, [pair])[pair]
            part = part * (values.reshape([-1 if i == j else 1 for i in range(d)]) if rows.is_grid else values)
        total = total + part * s.coefficient * t.coefficient
    return total.reshape(-1)
