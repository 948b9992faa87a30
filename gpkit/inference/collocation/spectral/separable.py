"""Direct solution of operators that are a sum of one-dimensional ones: L = p_1(d_1) + ... + p_d(d_d) + shift.

Each axis is reduced once: to a *diagonal* pencil where the operator is self-adjoint under its conditions (or the axis
is periodic), to a *triangular* one by a Schur decomposition where it is not, such as first-order transport. One axis
that is not self-adjoint, normally time, needs neither: it stays *banded*, and is solved once per mode of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.axes import Axis, along, dense
from gpkit.inference.collocation.bases import Array, FourierBasis
from gpkit.inference.collocation.picked.basis import PickedBasis
from gpkit.inference.collocation.spectral.parity import Split

__all__ = ["SeparableSolver"]

Symbol = Mapping[int, float]
Values = NDArray[Any]  # real, or complex where an axis has complex eigenvalues
Number = float | complex
_SINGULAR = 1e-12
_WELL_CONDITIONED = 1e5  # eigenvectors
_PROJECTED = 2e-15
_FLOOR = 2e-16  # masses of the highest modes, which nothing depends on, may round to less than zero


@dataclass
class _Reduced:
    """An axis in coordinates that decouple it.

    Attributes:
        kind: "diagonal", "triangular" or "banded".
        left: From coefficients of a right side to equations, (s, r).
        right: From unknowns to coefficients, (r, s).
        operator: (s,) or (s, s).
        mass: Likewise.
    """

    kind: str
    left: Any
    right: Any
    operator: Any
    mass: Any


def _periodic(axis: Axis, symbol: Symbol) -> _Reduced:
    basis = axis.basis
    assert isinstance(basis, FourierBasis)
    r, m = basis.size, basis.wavenumbers
    identity = sparse.identity(r, format="csr")
    if all(o % 2 == 0 for o, v in symbol.items() if v != 0.0):
        values = np.zeros(r)
        for order, value in symbol.items():
            values += value * (-1.0) ** (order // 2) * m**order
        return _Reduced("diagonal", identity, identity, values, np.ones(r))
    rotation = sparse.lil_matrix((r, r), dtype=complex)
    rotation[0, 0] = 1.0
    cos, sin, half = np.arange(1, r, 2), np.arange(2, r, 2), np.sqrt(0.5)
    rotation[cos, cos], rotation[sin, cos] = half, 1j * half  # the derivative turns (1, i) into i m (1, i)
    rotation[cos, sin], rotation[sin, sin] = half, -1j * half
    rotation = rotation.tocsr()
    signed = np.where(np.arange(r) % 2 == 1, m, -m)
    eigenvalues = np.zeros(r, dtype=complex)
    for order, value in symbol.items():
        eigenvalues += value * (1j * signed) ** order
    return _Reduced("diagonal", rotation.conj().T.tocsr(), rotation, eigenvalues, np.ones(r))


def _keeps_parity(mass: Array, axis: Axis) -> bool:
    """Whether a mass couples neighbours of equal parity only, as it does under the same condition at both ends."""
    if len(mass) < 8 or sparse.issparse(axis.constrained) is False:
        return False
    z = axis.constrained
    return bool(np.abs(np.diagonal(mass, 1)).max() < 1e-14 and np.abs(z.diagonal(-1)).max(initial=0.0) < 1e-14)


def _eigen(mass: Array, axis: Axis, scale: Array) -> tuple[Array, Array | Split]:
    """Eigenvalues of a symmetric mass, and the eigenvectors as coefficients: Z diag(scale) V, (r, s)."""
    z = axis.constrained
    if not _keeps_parity(mass, axis):
        values, vectors = np.linalg.eigh(mass)
        return values, np.asarray(z @ (vectors * scale[:, None]))
    n, r = len(mass), axis.basis.size
    parts: list[Array] = []
    blocks, rows = [], []
    for parity in (0, 1):
        part = slice(parity, n, 2)
        main = np.diagonal(mass)[part]
        if np.abs(np.diagonal(mass, 4)).max(initial=0.0) < 1e-14:
            w, v = linalg.eigh_tridiagonal(main, np.diagonal(mass, 2)[parity::2][: len(main) - 1])
        else:
            w, v = np.linalg.eigh(mass[part, part])
        parts.append(w)
        blocks.append(np.asarray(z[parity::2, part] @ (v * scale[part, None])))
        rows.append(slice(parity, r, 2))
    cut = len(parts[0])
    split = Split((blocks[0], blocks[1]), (rows[0], rows[1]), (slice(0, cut), slice(cut, n)), (r, n))
    return np.concatenate(parts), split


def _self_adjoint(axis: Axis, symbol: Symbol) -> _Reduced | None:
    """Simultaneous diagonalisation of operator and mass, or None where the operator is not self-adjoint."""
    order = max((o for o, v in symbol.items() if v != 0.0), default=0)
    if order % 2 or len(axis.conditions) != order or any(o % 2 and v != 0.0 for o, v in symbol.items()):
        return None
    operator, mass = axis.galerkin(symbol)
    sign = 1.0 if operator[-1, -1] > 0 else -1.0
    stiffness = sign * operator
    size = np.sqrt(np.abs(np.outer(np.diagonal(stiffness), np.diagonal(stiffness)))) + 1e-300
    floor = np.abs(np.diagonal(stiffness)).max() * 1e-15
    if (np.abs(stiffness - stiffness.T) > 1e-9 * size + floor).any():
        return None
    # Entries below the diagonal are short sums; those above it are long ones that cancel.
    lower = np.tril(stiffness)
    stiffness = lower + np.tril(lower, -1).T
    diagonal = np.diagonal(stiffness).copy()
    z = axis.constrained
    if np.abs(np.tril(stiffness, -1)).max(initial=0.0) == 0.0 and diagonal.min() > 0.0:
        scale = 1.0 / np.sqrt(diagonal)
        values, right = _eigen(mass * scale[:, None] * scale, axis, scale)
        return _Reduced(
            "diagonal", right.T, right, np.full(len(values), sign), np.maximum(values, _FLOOR * values.max())
        )
    shift = (2.0 / (axis.basis.upper - axis.basis.lower)) ** order * abs(symbol[order])
    for factor in (1.0, 100.0):
        try:
            values, vectors = linalg.eigh(mass, stiffness + factor * shift * mass)
        except np.linalg.LinAlgError:
            continue
        right = z @ vectors
        kept = sign * (1.0 - factor * shift * values)
        kept[np.abs(kept) < 1e-13] = 0.0  # a constant under Neumann conditions
        return _Reduced("diagonal", right.T, right, kept, values)
    return None


def _triangular(axis: Axis, symbol: Symbol) -> _Reduced:
    operator, mass = (m.toarray() for m in axis.petrov(symbol))
    order = max((o for o, v in symbol.items() if v != 0.0), default=0)
    test = axis.test(order)
    factor = linalg.lu_factor(operator)
    t, u = linalg.schur(linalg.lu_solve(factor, mass), output="complex")
    left = u.conj().T @ linalg.lu_solve(factor, test.toarray())
    return _Reduced("triangular", left, axis.constrained @ u, np.eye(len(t), dtype=complex), t)


def _banded(axis: Axis, symbol: Symbol) -> _Reduced:
    operator, mass = axis.petrov(symbol)
    order = max((o for o, v in symbol.items() if v != 0.0), default=0)
    return _Reduced("banded", axis.test(order), axis.constrained, operator, mass)


def _projected(axis: Axis, symbol: Symbol) -> _Reduced:
    """An axis of few functions, orthonormal under its conditions: the mass is the identity."""
    z = dense(axis.constrained)
    operator, _ = axis.galerkin(symbol)
    size = float(np.abs(operator).max(initial=0.0))
    if np.abs(operator - operator.T).max(initial=0.0) <= 1e-10 * size:
        values, vectors = np.linalg.eigh(0.5 * (operator + operator.T))
        values[np.abs(values) < 1e-13 * size] = 0.0  # a constant under Neumann conditions
        right = z @ vectors
        return _Reduced("diagonal", right.T, right, values, np.ones(len(values)))
    values, vectors = np.linalg.eig(operator)
    if np.linalg.cond(vectors) < _WELL_CONDITIONED:
        left = np.linalg.solve(vectors, z.T.astype(vectors.dtype))
        return _Reduced("diagonal", left, z @ vectors, values, np.ones(len(values)))
    try:
        # The form of the inverse is what is needed: that of the operator would have its largest modes right, and not
        # the slow ones that solutions are made of.
        t, u = linalg.schur(np.linalg.inv(operator), output="complex")
    except np.linalg.LinAlgError as error:
        raise InvalidDataError(
            "the operator of one axis is singular under its conditions, and its modes cannot be told apart:"
            " use the broadband basis"
        ) from error
    left = u.conj().T @ np.linalg.solve(operator, z.T)
    return _Reduced("triangular", left, z @ u, np.eye(len(t), dtype=complex), t)


class _Bands:
    """Solves (a M + t A) x = g for many pairs (a, t) with banded M and A."""

    def __init__(self, operator: sparse.spmatrix, mass: sparse.spmatrix) -> None:
        entries = [m.tocoo() for m in (operator, mass)]
        offsets = np.concatenate([e.row.astype(int) - e.col for e in entries] + [np.zeros(1, int)])
        self.lower, self.upper = int(offsets.max()), int(-offsets.min())
        self.n = operator.shape[0]
        self.bands = []
        for e in entries:
            band = np.zeros((self.lower + self.upper + 1, self.n))
            np.add.at(band, (self.upper + e.row - e.col, e.col), e.data)
            self.bands.append(band)

    def solve(self, on_mass: Number, on_operator: Number, rhs: Values) -> Values:
        band = on_mass * self.bands[1] + on_operator * self.bands[0]
        try:
            return np.asarray(linalg.solve_banded((self.lower, self.upper), band, rhs, check_finite=False))
        except np.linalg.LinAlgError as error:
            raise InvalidDataError(
                "the operator is singular under these boundary conditions: "
                "the solution is not unique (give a Dirichlet or Robin condition, or a gauge)"
            ) from error


class SeparableSolver:
    """Solver of sum_j p_j(d_j) u + shift u = f under homogeneous conditions.

    Args:
        axes: One per dimension.
        symbols: p_j, {order: coefficient}.
        shift: Coefficient of u.

    Attributes:
        kinds: How each axis is treated.
        gap: Smallest |eigenvalue| relative to the terms that it is the sum of (1 where nothing cancels); small at
            resonance, 0 where the operator is singular.

    Raises:
        InvalidDataError: The operator is singular.
    """

    def __init__(self, axes: Sequence[Axis], symbols: Sequence[Symbol], shift: float = 0.0) -> None:
        self._shapes = tuple(a.basis.size for a in axes)
        self._is_picked = any(isinstance(a.basis, PickedBasis) for a in axes)
        reduced: list[_Reduced | None] = []
        for j, (axis, symbol) in enumerate(zip(axes, symbols, strict=True)):
            same = next((i for i in range(j) if axes[i] is axis and symbols[i] == symbol), None)
            if same is not None:
                reduced.append(reduced[same])
            elif isinstance(axis.basis, FourierBasis):
                reduced.append(_periodic(axis, symbol))
            elif isinstance(axis.basis, PickedBasis):
                reduced.append(_projected(axis, symbol))
            else:
                reduced.append(_self_adjoint(axis, symbol) if len(axes) > 1 else None)
        open_axes = sorted((j for j, p in enumerate(reduced) if p is None), key=lambda j: axes[j].free)
        self._reduced = [
            p if p is not None else (_banded if j == open_axes[-1] else _triangular)(axes[j], symbols[j])
            for j, p in enumerate(reduced)
        ]
        # Diagonal axes first, then triangular ones; the banded one is last.
        rank = {"diagonal": 0, "triangular": 1, "banded": 2}
        self._order = sorted(range(len(axes)), key=lambda j: rank[self._reduced[j].kind])
        self.kinds = tuple(p.kind for p in self._reduced)
        self.gap = 1.0
        if shift != 0.0:
            j = self._order[-1]
            p = self._reduced[j]
            self._reduced[j] = _Reduced(p.kind, p.left, p.right, p.operator + shift * p.mass, p.mass)
        if all(k == "diagonal" for k in self.kinds):
            self._spectrum = self._denominator(shift)
        elif self.kinds[self._order[-1]] == "banded":
            last = self._reduced[self._order[-1]]
            self._bands = _Bands(last.operator, last.mass)

    @property
    def is_diagonal(self) -> bool:
        """Whether every axis is diagonal."""
        return all(k == "diagonal" for k in self.kinds)

    def _denominator(self, shift: float) -> Values:
        d = len(self._reduced)
        total: Any = 0.0
        size: Any = 0.0
        for j in range(d):
            factor: Any = 1.0
            for k, p in enumerate(self._reduced):
                shape = [-1 if i == k else 1 for i in range(d)]
                factor = factor * (p.operator if k == j else p.mass).reshape(shape)
            total = total + factor
            size = size + np.abs(factor)
        if shift != 0.0:
            extra: Any = abs(shift)
            for k, p in enumerate(self._reduced):
                extra = extra * p.mass.reshape([-1 if i == k else 1 for i in range(d)])
            size = size + 2.0 * extra
        largest = float(size.max())
        relative = np.abs(total) / np.where(size > 0.0, size, largest)
        where = np.unravel_index(int(np.argmin(relative)), relative.shape)
        self.gap = float(relative[where]) if float(size[where]) > 1e-30 * largest else 0.0
        if self._is_picked and float(np.abs(total).min()) < _PROJECTED * largest:
            self.gap = 0.0  # eigenvalues of projected operators are known to rounding of the largest
        if self.gap < _SINGULAR:
            raise InvalidDataError(
                "the operator is singular under these boundary conditions (an eigenvalue is zero"
                f" to {max(self.gap, 1e-16):.0e} of its terms): the solution is not unique, give a gauge or another"
                " condition"
            )
        return np.asarray(total)

    def solve(self, rhs: Array) -> Array:
        """Coefficients of u (r_1, ..., r_d) from those of the right side."""
        modes = self.to_modes(rhs)
        if self.is_diagonal:
            modes = modes / self._spectrum
        else:
            arranged = np.moveaxis(modes, self._order, range(modes.ndim))
            solved = self._descend(0, 0.0, 1.0, np.ascontiguousarray(arranged))
            modes = np.moveaxis(solved, range(modes.ndim), self._order)
        return self.from_modes(modes)

    def to_modes(self, rhs: Array) -> Values:
        """Right side in the coordinates that decouple the axes."""
        modes: Values = rhs
        for j, p in enumerate(self._reduced):
            modes = along(p.left, modes, j)
        return modes

    def from_modes(self, modes: Values) -> Array:
        """Coefficients of a field from those coordinates."""
        for j, p in enumerate(self._reduced):
            modes = along(p.right, modes, j)
        return np.ascontiguousarray(modes.real)

    def _descend(self, level: int, on_mass: Number, on_operator: Number, rhs: Values) -> Values:
        """Solve (on_mass M + on_operator L) x = rhs on the axes from ``level`` on."""
        p = self._reduced[self._order[level]]
        if level == len(self._order) - 1:
            if p.kind == "banded":
                return self._bands.solve(on_mass, on_operator, rhs)
            if p.kind == "diagonal":
                return np.asarray(rhs / (on_mass * p.mass + on_operator * p.operator))
            return np.asarray(linalg.solve_triangular(on_mass * p.mass + on_operator * p.operator, rhs))
        out = np.empty(rhs.shape, dtype=complex if self._is_complex else float)
        if p.kind == "diagonal":
            for i, (a, m) in enumerate(zip(p.operator, p.mass, strict=True)):
                out[i] = self._descend(level + 1, on_mass * m + on_operator * a, on_operator * m, rhs[i])
            return out
        for i in range(len(p.mass) - 1, -1, -1):
            right = rhs[i]
            if i + 1 < len(p.mass):
                # Couplings are those of the mass only: the operator of a triangular axis is diagonal.
                coupled = np.tensordot(p.mass[i, i + 1 :], out[i + 1 :], axes=1)
                right = right - self._apply(level + 1, on_mass, on_operator, coupled)
            a, m = p.operator[i, i], p.mass[i, i]
            out[i] = self._descend(level + 1, on_mass * m + on_operator * a, on_operator * m, right)
        return out

    @property
    def _is_complex(self) -> bool:
        return any(np.iscomplexobj(p.mass) or np.iscomplexobj(p.operator) for p in self._reduced)

    def _apply(self, level: int, on_mass: Number, on_operator: Number, x: Values) -> Values:
        """(on_mass M + on_operator L) x on the axes from ``level`` on."""
        parts = [self._reduced[j] for j in self._order[level:]]
        total: Any = 0.0
        for chosen in range(-1, len(parts)):
            factor = on_mass if chosen < 0 else on_operator
            if factor == 0.0:
                continue
            term = x
            for k, p in enumerate(parts):
                term = _times(p.operator if k == chosen else p.mass, term, k)
            total = total + factor * term
        return np.asarray(total)


def _times(matrix: Any, tensor: Values, axis: int) -> Values:
    """A matrix, or the diagonal of one, along an axis."""
    if getattr(matrix, "ndim", 2) == 1:
        return np.asarray(tensor * matrix.reshape([-1 if i == axis else 1 for i in range(tensor.ndim)]))
    return along(matrix, tensor, axis)
