"""Equations and conditions at points, as one overdetermined system in coefficients, with all of its derivatives.

What no unknown and no field changes is summed up once: fixed terms are one matrix, and only coefficients that hold
unknowns and nonlinear remainders are evaluated again, by one autograd sweep over all points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import Jet, Parameters, Term

__all__ = ["Block", "Frame", "System"]

Parametric = Callable[[Sequence[Tensor], Parameters], Tensor]
Remainder = Callable[[Sequence[Tensor], Sequence[Tensor], Parameters], Tensor]


@dataclass(frozen=True)
class Frame:
    """Where the columns of a system are: of which fields and numbers.

    Attributes:
        names: Unknown numbers, the first columns of the derivatives by unknowns.
        determined: Fields that equations determine; their coefficients come one field after the other.
        free: Mean (r,) and whitened directions (r, q) of every other field, in the order of their coordinates.
    """

    names: tuple[str, ...]
    determined: tuple[int, ...]
    free: Mapping[int, tuple[Array, Array]]

    @property
    def unknowns(self) -> int:
        """Number of unknown numbers and of whitened coordinates together."""
        return len(self.names) + sum(directions.shape[1] for _, directions in self.free.values())

    def columns(self, number: int, size: int) -> slice:
        """Of a determined field, among coefficients of a size."""
        at = self.determined.index(number) * size
        return slice(at, at + size)

    def coordinates(self, number: int) -> slice:
        """Of a free field, among numbers and whitened coordinates."""
        at = len(self.names)
        for k, (_, directions) in self.free.items():
            if k == number:
                return slice(at, at + directions.shape[1])
            at += directions.shape[1]
        raise KeyError(number)


@dataclass(frozen=True)
class Block:
    """One equation or condition at points.

    Attributes:
        frame: What columns mean.
        coordinates: One tensor (m,) per axis.
        tables: Derivatives of the functions of a determined field, (m, r) by orders.
        others: Values (m,) of the mean and (m, q) of the directions of a free field, by jet.
        fixed: Matrix (m, columns) of the terms without unknowns.
        known: Their derivatives by numbers and whitened coordinates, (m, p + q).
        offset: What is left of them without any field, minus the right side, (m,).
        moving: Terms whose coefficients hold unknowns.
        parametric: Part of the right side that holds unknowns, or None.
        jets: That the remainder takes.
        remainder: The nonlinear part, or None.
    """

    frame: Frame
    coordinates: tuple[Tensor, ...]
    tables: Mapping[tuple[int, ...], Array]
    others: Mapping[Jet, tuple[Array, Array]]
    fixed: Array
    known: Array
    offset: Array
    moving: tuple[Term, ...]
    parametric: Parametric | None
    jets: tuple[Jet, ...]
    remainder: Remainder | None

    @classmethod
    def of(
        cls,
        frame: Frame,
        coordinates: Sequence[Tensor],
        table: Callable[[tuple[int, ...]], Array],
        terms: Sequence[Term],
        value: Tensor,
        parametric: Parametric | None,
        jets: tuple[Jet, ...] = (),
        remainder: Remainder | None = None,
    ) -> Block:
        """Sum up what is fixed.

        Args:
            frame: What columns mean.
            coordinates: Of the points.
            table: Derivatives of all functions there, by orders.
            terms: The linear part.
            value: The right side without ``parametric``, (m,).
            parametric: Part of the right side that holds unknowns.
            jets: That the remainder takes.
            remainder: The nonlinear part.
        """
        used = [*(t.jet for t in terms), *jets]
        full = {jet.orders: table(jet.orders) for jet in used}
        m, size = len(value), next(iter(full.values())).shape[1]
        others = {}
        for jet in used:
            if jet.field in frame.free:
                mean, directions = frame.free[jet.field]
                others[jet] = full[jet.orders] @ mean, full[jet.orders] @ directions
        fixed, known = np.zeros((m, len(frame.determined) * size)), np.zeros((m, frame.unknowns))
        offset = -value.numpy()
        moving = []
        for term in terms:
            if term.coefficient.unknowns:
                moving.append(term)
                continue
            coefficient = term.coefficient(coordinates, {}).expand(m).numpy()
            if term.jet in others:
                mean, directions = others[term.jet]
                known[:, frame.coordinates(term.jet.field)] += coefficient[:, None] * directions
                offset = offset + coefficient * mean
            else:
                fixed[:, frame.columns(term.jet.field, size)] += coefficient[:, None] * full[term.jet.orders]
        kept = {jet.orders for jet in [*(t.jet for t in moving), *jets] if jet not in others}
        return cls(
            frame, tuple(coordinates), {o: full[o] for o in kept}, others, fixed, known, offset, tuple(moving),
            parametric, jets, remainder,
        )  # fmt: skip

    @property
    def is_fixed(self) -> bool:
        """Whether no unknown and no remainder is in it."""
        return not self.moving and self.parametric is None and self.remainder is None

    def projected(self, basis: Array) -> Block:
        """The same rows for fields in the span of columns, (r, k)."""
        fixed = self.fixed.reshape(len(self.fixed), len(self.frame.determined), len(basis)) @ basis
        tables = {orders: table @ basis for orders, table in self.tables.items()}
        return replace(self, tables=tables, fixed=fixed.reshape(len(fixed), -1))

    def _at(self, jet: Jet, c: Array, white: Array) -> Tensor:
        if jet in self.others:
            mean, directions = self.others[jet]
            own = self.frame.coordinates(jet.field)
            shift = len(self.frame.names)
            return torch.from_numpy(mean + directions @ white[own.start - shift : own.stop - shift])
        table = self.tables[jet.orders]
        return torch.from_numpy(table @ c[self.frame.columns(jet.field, table.shape[1])])

    def values(self, c: Array, theta: Array, white: Array) -> Array:
        """Residuals, (m,)."""
        total = self.offset + self.fixed @ c + self.known[:, len(theta) :] @ white
        if self.is_fixed:
            return np.asarray(total)
        numbers = torch.from_numpy(np.array(theta, dtype=np.float64)).unbind()
        unknown = dict(zip(self.frame.names, numbers, strict=True))
        with torch.no_grad():
            moved = self._moved(c, white, unknown, {})[0]
        return np.asarray(total + moved.numpy())

    def _moved(
        self, c: Array, white: Array, unknown: Parameters, leaves: dict[Jet, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """What unknowns change, and the coefficients of moving terms; jets of the remainder become leaves."""
        total: Any = torch.zeros(len(self.offset), dtype=torch.float64)
        coefficients = []
        if self.parametric is not None:
            total = total - self.parametric(self.coordinates, unknown)
        for term in self.moving:
            coefficients.append(torch.as_tensor(term.coefficient(self.coordinates, unknown), dtype=torch.float64))
            total = total + coefficients[-1] * self._at(term.jet, c, white)
        if self.remainder is not None:
            for jet in self.jets:
                leaves[jet] = self._at(jet, c, white).requires_grad_(torch.is_grad_enabled())
            total = total + self.remainder(self.coordinates, [leaves[j] for j in self.jets], unknown)
        return total, coefficients

    def derivatives(self, c: Array, theta: Array, white: Array, by_unknowns: bool = True) -> tuple[Array, Array, Array]:
        """Residuals (m,), their derivatives by coefficients (m, columns), and by unknowns (m, p + q).

        Args:
            c: Coefficients, (columns,).
            theta: Values of the unknown numbers, (p,).
            white: Whitened coordinates of the free fields, (q,).
            by_unknowns: Whether the last are asked for; without a remainder they take a sweep of their own.
        """
        value = self.offset + self.fixed @ c + self.known[:, len(theta) :] @ white
        if self.is_fixed:
            return np.asarray(value), self.fixed, self.known
        moved, slopes, own = self._slopes(c, theta, white, by_unknowns or self.remainder is not None)
        jacobian, other = self.fixed.copy(), self.known.copy()
        other[:, : len(theta)] += own
        for jet, slope in slopes:
            if jet in self.others:
                other[:, self.frame.coordinates(jet.field)] += slope[:, None] * self.others[jet][1]
            else:
                table = self.tables[jet.orders]
                jacobian[:, self.frame.columns(jet.field, table.shape[1])] += slope[:, None] * table
        return np.asarray(value + moved), jacobian, other

    def pulled(self, c: Array, theta: Array, white: Array, left: Array) -> Array:
        """The transposed Jacobian at coefficients c times what is left (m,), without the Jacobian: (columns,)."""
        total = left @ self.fixed
        if self.is_fixed:
            return np.asarray(total)
        for jet, slope in self._slopes(c, theta, white, self.remainder is not None)[1]:
            if jet not in self.others:
                table = self.tables[jet.orders]
                total[self.frame.columns(jet.field, table.shape[1])] += (slope * left) @ table
        return np.asarray(total)

    def _slopes(
        self, c: Array, theta: Array, white: Array, swept: bool
    ) -> tuple[Array, list[tuple[Jet, Array]], Array]:
        """What unknowns change, its slopes in jets, and if swept in numbers (m, p)."""
        m = len(self.offset)
        # One copy of each unknown per point: everything is pointwise, so that one sweep gives all derivatives.
        unknown = {
            name: torch.full((m,), float(t), dtype=torch.float64, requires_grad=swept)
            for name, t in zip(self.frame.names, theta, strict=True)
        }
        leaves: dict[Jet, Tensor] = {}
        with torch.set_grad_enabled(swept):
            total, coefficients = self._moved(c, white, unknown, leaves)
            sources = [*leaves.values(), *unknown.values()]
            gradients: Sequence[Tensor | None] = [None] * len(sources)
            if total.requires_grad:
                gradients = torch.autograd.grad(total.sum(), sources, allow_unused=True)
        own = np.zeros((m, len(theta)))
        for k, gradient in enumerate(gradients[len(leaves) :]):
            if gradient is not None:
                own[:, k] = gradient.numpy()
        slopes = [(jet, g.numpy()) for jet, g in zip(leaves, gradients, strict=False) if g is not None]
        slopes += [(t.jet, a.detach().expand(m).numpy()) for t, a in zip(self.moving, coefficients, strict=True)]
        return total.detach().numpy(), slopes, own


@dataclass(frozen=True)
class System:
    """All equations and conditions.

    Attributes:
        blocks: Equations, then conditions.
        basis: The functions of every determined field are these combinations (r, k) of those of the axes, or None.
    """

    blocks: tuple[Block, ...]
    basis: Array | None = None

    @property
    def columns(self) -> int:
        """Number of coefficients of all determined fields."""
        return self.blocks[0].fixed.shape[1]

    def projected(self, basis: Array) -> System:
        """The same equations for fields in the span of the columns of a basis, (r, k)."""
        return System(tuple(b.projected(basis) for b in self.blocks), basis)

    def lifted(self, own: Array) -> Array:
        """Coefficients in the functions of the axes, from those of the system: (columns,) or (columns, n)."""
        if self.basis is None:
            return own
        lifted = self.basis @ own.reshape(-1, self.basis.shape[1], math.prod(own.shape[1:]))
        return np.asarray(lifted.reshape(-1, *own.shape[1:]))

    def lowered(self, coefficients: Array) -> Array:
        """The nearest coefficients of the system; its basis is orthonormal."""
        if self.basis is None:
            return coefficients
        return np.asarray((coefficients.reshape(-1, len(self.basis)) @ self.basis).ravel())

    def values(self, c: Array, theta: Array, white: Array) -> Array:
        """Residuals, (m,)."""
        return np.concatenate([b.values(c, theta, white) for b in self.blocks])

    def derivatives(self, c: Array, theta: Array, white: Array, by_unknowns: bool = True) -> tuple[Array, Array, Array]:
        """Residuals (m,), their derivatives by coefficients (m, columns), and by unknowns (m, p + q)."""
        parts = [b.derivatives(c, theta, white, by_unknowns) for b in self.blocks]
        return (
            np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]),
            np.concatenate([p[2] for p in parts]),
        )

    def pulled(self, c: Array, theta: Array, white: Array, left: Array) -> Array:
        """The transposed Jacobian times what is left (m,): (columns,)."""
        total, at = np.zeros(self.columns), 0
        for b in self.blocks:
            total += b.pulled(c, theta, white, left[at : at + len(b.offset)])
            at += len(b.offset)
        return total
