"""A layout at given sizes: bases and constrained axes of every field, nodes, jets of coefficients, lifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import Axis, along
from gpkit.inference.collocation.bases import Array, Basis, FourierBasis, LegendreBasis
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.picked.basis import PickedBasis, reduced_order
from gpkit.inference.collocation.spectral.parity import Folded, Unfolded

__all__ = ["Discretisation"]


class Discretisation:
    """Tensor bases for a layout.

    Args:
        layout: What is solved.
        sizes: Functions per axis, the same for every field; or the basis itself, where it is no broadband one.
        oversampling: Nodes per function.

    Attributes:
        bases: One per axis.
        axes: Constrained axis of each field and dimension, [field][axis].
        nodes: Quadrature nodes of each axis.
        weights: Their weights.
    """

    def __init__(self, layout: Layout, sizes: Sequence[int | Basis], oversampling: float = 1.0) -> None:
        self.layout = layout
        self.bases: list[Basis] = []
        for j, ((lower, upper), size) in enumerate(zip(layout.ends, sizes, strict=True)):
            if isinstance(size, Basis):
                self.bases.append(size)
            elif j in layout.problem.periodic:
                self.bases.append(FourierBasis(lower, upper, int(size)))
            else:
                self.bases.append(LegendreBasis(lower, upper, int(size)))
        self.sizes = tuple(b.size for b in self.bases)
        dense = [b.density if isinstance(b, PickedBasis) else 1.0 for b in self.bases]
        counts = [int(np.ceil(oversampling * d * b.size)) for b, d in zip(self.bases, dense, strict=True)]
        grids = [b.nodes(q) for b, q in zip(self.bases, counts, strict=True)]
        self.nodes, self.weights = [g[0] for g in grids], [g[1] for g in grids]
        tables = [b.at_nodes(q) for b, q in zip(self.bases, counts, strict=True)]
        self._synthesis: list[Any] = []
        self._analysis: list[Any] = []
        for basis, table, w in zip(self.bases, tables, self.weights, strict=True):
            if isinstance(basis, LegendreBasis):
                self._synthesis.append(Unfolded(table))
                self._analysis.append(Folded(table, w))
            else:
                self._synthesis.append(table)
                root = np.sqrt(w)
                picked = isinstance(basis, PickedBasis)
                self._analysis.append(np.linalg.pinv(root[:, None] * table) * root if picked else table.T * w)
        self._steep: dict[tuple[int, int], Array] = {}
        made: dict[object, Axis] = {}
        self.axes: list[list[Axis]] = []
        for f in range(layout.count):
            row = []
            for j, basis in enumerate(self.bases):
                ends = tuple(face.end for face in layout.faces_of(f, j))
                key = (basis, ends)
                if key not in made:
                    made[key] = Axis(basis, ends)
                if not made[key].is_determined:
                    name = layout.problem.box.names[j]
                    raise InvalidDataError(f"the conditions at the ends of axis {name} contradict or repeat each other")
                row.append(made[key])
            self.axes.append(row)

    def values(self, orders: Sequence[int], coefficients: Array) -> Array:
        """A jet on the nodes."""
        left = []
        for j, (basis, order) in enumerate(zip(self.bases, orders, strict=True)):
            coefficients, rest = reduced_order(basis, coefficients, j, order)
            left.append(rest)
        for j, rest in enumerate(left):
            coefficients = along(self._table(j, rest), coefficients, j)
        return coefficients

    def _table(self, axis: int, order: int) -> Any:
        """Derivatives of the functions of an axis at its nodes."""
        if order == 0:
            return self._synthesis[axis]
        if (axis, order) not in self._steep:
            self._steep[axis, order] = self.bases[axis].evaluate(self.nodes[axis], order)
        return self._steep[axis, order]

    def analyse(self, values: Array, skip: int = -1) -> Array:
        """Coefficients of values on the nodes; ``skip`` is an axis to leave alone."""
        for j, matrix in enumerate(self._analysis):
            if j != skip:
                values = along(matrix, values, j)
        return values

    def lift(self, which: int) -> tuple[Array, float]:
        """A field that has the boundary data of a field's faces (a Boolean sum), and the mismatch of these at corners.

        Returns:
            Coefficients (r_1, ..., r_d), and the largest disagreement of two faces on what they share, relative to
            the data.
        """
        d, axes = len(self.bases), self.axes[which]
        total = np.zeros(self.sizes)
        data: list[Array | None] = []
        size = 0.0
        for j in range(d):
            faces = self.layout.faces_of(which, j)
            if not faces:
                data.append(None)
                continue
            values: list[Array] = []
            for face in faces:
                grid = list(self.nodes)
                grid[j] = np.array([self.layout.ends[j][face.end.side]])
                on_face = face.value.on_grid(grid)
                values.append(np.asarray(np.take(self.analyse(on_face, skip=j), 0, axis=j)))
            scaled = np.moveaxis(axes[j].scaled_values(values), 0, j)
            data.append(scaled)
            if scaled.any() or total.any():
                total = total + along(axes[j].lift, scaled - along(axes[j].functional, total, j), j)
            size = max(size, float(np.abs(scaled).max(initial=0.0)))
        mismatch = 0.0
        for j in range(d):
            for k in range(j):
                first, second = data[j], data[k]
                if first is not None and second is not None and size > 0.0:
                    gap = along(axes[k].functional, first, k) - along(axes[j].functional, second, j)
                    mismatch = max(mismatch, float(np.abs(gap).max()) / size)
        return total, mismatch
