"""Whitened coordinates of grid values: independent standard normal weights, one tensor of them a field.

With ``C_j = V L V^T`` along each axis the values are ``U = (x)_j V L^(1/2) w``, and a derivative that the kernel takes
of them is ``(x)_j T_j w`` with ``T_j = K_j^(o) V L^(-1/2)``: every jet is a product along the axes, and the weights are
independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gpkit.inference.collocation.exact.rows import contract
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm.axes import AxisColumns
from gpkit.inference.collocation.gphm.covariances import Covariances

__all__ = ["FieldRoot", "Roots"]


class _AxisRoot:
    """One axis of one field.

    Attributes:
        carry: Whitens: from covariances with the nodes' values, and its transpose from the values themselves, (N, N).
    """

    def __init__(self, covariance: AxisColumns) -> None:
        values, vectors = covariance.eigen()
        self._covariance = covariance
        self.carry = vectors * values.rsqrt()
        self._tables = {0: vectors * values.sqrt()}

    def table(self, order: int) -> Tensor:
        """Derivative at the nodes as a function of the weights, (N, N)."""
        if order not in self._tables:
            self._tables[order] = self._covariance.matrix(order) @ self.carry
        return self._tables[order]


class FieldRoot:
    """One field.

    Args:
        covariances: Of each axis.

    Attributes:
        shape: Of the weights, which is that of the grid.
    """

    def __init__(self, covariances: Sequence[AxisColumns]) -> None:
        """Diagonalise every axis."""
        self._axes = [_AxisRoot(c) for c in covariances]
        self.shape = tuple(len(a.carry) for a in self._axes)

    def tables(self, jet: Jet, face: tuple[slice, ...] | None = None) -> list[Tensor]:
        """Factors of a jet on the grid, or on a part of it."""
        found = [a.table(o) for a, o in zip(self._axes, jet.orders, strict=True)]
        return found if face is None else [t[part] for t, part in zip(found, face, strict=True)]

    def carried(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Factors of a jet elsewhere, from the kernel's covariances with the nodes."""
        return [k @ a.carry for k, a in zip(factors, self._axes, strict=True)]

    def weights(self, values: Tensor) -> Tensor:
        """Weights of values on the grid."""
        return contract([a.carry.T for a in self._axes], values[..., None], True)[..., 0]


class Roots:
    """All fields; their weights are one vector.

    Args:
        fields: One root each.
    """

    def __init__(self, fields: Sequence[FieldRoot]) -> None:
        """Number the weights."""
        self.fields = tuple(fields)
        ends = [0]
        for f in self.fields:
            ends.append(ends[-1] + math.prod(f.shape))
        self._ends = ends

    @classmethod
    def of_covariances(cls, covariances: Covariances) -> Roots:
        """From the covariances of every field and axis."""
        return cls([FieldRoot(line) for line in covariances.fields])

    def __len__(self) -> int:
        return self._ends[-1]

    def span(self, field: int) -> slice:
        """Where a field's weights are."""
        return slice(self._ends[field], self._ends[field + 1])

    def weights(self, values: Tensor) -> Tensor:
        """Weights (W,) of values (F, N_1, ..., N_d)."""
        return torch.cat([f.weights(u).reshape(-1) for f, u in zip(self.fields, values, strict=True)])

    def jet(self, jet: Jet, weights: Tensor, face: tuple[slice, ...] | None = None) -> Tensor:
        """A jet on the grid, or on a part of it, of weights (W,), or of each of (W, k)."""
        root = self.fields[jet.field]
        own = weights[self.span(jet.field)].reshape(*root.shape, -1)
        found = contract(root.tables(jet, face), own, True)
        return found[..., 0] if weights.dim() == 1 else found

    def jets(self, wanted: Iterable[Jet], weights: Tensor) -> dict[Jet, Tensor]:
        """Jets on the grid."""
        return {j: self.jet(j, weights) for j in dict.fromkeys(wanted)}

    def values(self, weights: Tensor) -> Tensor:
        """Values on the grid, (F, N_1, ..., N_d)."""
        zeros = (0,) * len(self.fields[0].shape)
        return torch.stack([self.jet(Jet(f, zeros), weights) for f in range(len(self.fields))])
