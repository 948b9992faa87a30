"""Gaussian process priors of fields on a box: a product of one-variable covariances with all their derivatives.

Everything that conditioning needs of an axis is one family of matrices, ``cov(u^(a)(x_i), u^(b)(y_j))``. A stationary
axis has them in closed form; an axis conditioned on homogeneous linear constraints (values, slopes or differences at
the ends are zero) is again of this family, so that a product of conditioned axes is the product prior conditioned on
whole faces of the box.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.kernels.stationary import Envelope, GaussianEnvelope, mixture_derivatives, require_order

__all__ = [
    "NO_FACTOR",
    "AxisPrior",
    "ConditionedAxis",
    "Constraint",
    "FieldPrior",
    "MixtureAxis",
    "NuggetAxis",
    "WaveAxis",
]

NO_FACTOR = (NotPositiveDefiniteError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""Raised where a prior's covariance has no Cholesky factor; torch's own error is missing from its exports."""

Pair = tuple[int, int]

_DROPPED = 1e-34
_REPEATED = 10_000
_REACH = 8.3
_BAND = 11.0
"""A Gaussian is 1e-15 at 8.3 standard deviations and 5e-27 at 11, of a variance."""


@runtime_checkable
class AxisPrior(Protocol):
    """Covariance of a process of one variable and of its derivatives."""

    def blocks(self, x: Tensor, y: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """``cov(u^(a)(x_i), u^(b)(y_j))``, shape (m, p), for each pair (a, b)."""
        ...

    def variances(self, x: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """``cov(u^(a)(x_i), u^(b)(x_i))``, shape (m,), for each pair (a, b)."""
        ...


@dataclass(frozen=True, eq=False)
class MixtureAxis:
    """``sum_q w_q g(z; l_q) cos(2 pi mu_q z)``, with z the difference of coordinates.

    Attributes:
        envelope: g.
        weights: (Q,), variances.
        lengthscales: (Q,), in units of the coordinate.
        frequencies: (Q,), in cycles per unit of the coordinate; None where all are zero.
    """

    envelope: Envelope
    weights: Tensor
    lengthscales: Tensor
    frequencies: Tensor | None = None

    def times(self, factor: float) -> MixtureAxis:
        """The same process with another variance."""
        return MixtureAxis(self.envelope, self.weights * factor, self.lengthscales, self.frequencies)

    def plus(self, other: MixtureAxis, share: float) -> MixtureAxis:
        """The sum with a share of another mixture of the same envelope."""
        mine, theirs = (torch.zeros_like(m.weights) if m.frequencies is None else m.frequencies for m in (self, other))
        return MixtureAxis(
            self.envelope,
            torch.cat([self.weights, share * other.weights]),
            torch.cat([self.lengthscales, other.lengthscales]),
            torch.cat([mine, theirs]),
        )

    def table(self, lag: Tensor, order: int) -> Tensor:
        """Derivatives 0..order of the covariance at lags, (order + 1, *lag.shape)."""
        require_order(self.envelope, order, "conditioning on the equations")
        return mixture_derivatives(self.envelope, lag, self.weights, self.lengthscales, self.frequencies, order)

    def blocks(self, x: Tensor, y: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`; points of one uniform grid cost one evaluation per distinct lag."""
        order = max(a + b for a, b in pairs)
        index = _lag_index(x, y)
        if index is None:
            if len(x) * len(y) > _REPEATED:
                few_x, which_x = torch.unique(x, return_inverse=True)
                few_y, which_y = torch.unique(y, return_inverse=True)
                if 4 * len(few_x) * len(few_y) < len(x) * len(y):
                    # Points scattered over a grid share their coordinates.
                    few = self.blocks(few_x, few_y, pairs)
                    return {p: m.index_select(0, which_x).index_select(1, which_y) for p, m in few.items()}
            tables = self.table(x[:, None] - y[None, :], order)
            return {(a, b): tables[a + b] * (-1.0) ** b for a, b in pairs}
        step, low, high, positions = index
        column = self.table(torch.arange(low, high + 1, dtype=x.dtype) * step, order)
        shape = (len(x), len(y))
        gathered = {o: column[o].index_select(0, positions).reshape(shape) for o in sorted({a + b for a, b in pairs})}
        return {(a, b): gathered[a + b] if b % 2 == 0 else -gathered[a + b] for a, b in pairs}

    def variances(self, x: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        at_zero = self.table(torch.zeros(1, dtype=x.dtype), max(a + b for a, b in pairs))[:, 0]
        return {(a, b): (at_zero[a + b] * (-1.0) ** b).expand(len(x)) for a, b in pairs}


@dataclass(frozen=True, eq=False)
class WaveAxis:
    """Independent waves with random amplitudes: every stationary process whose spectrum is a set of lines.

    Attributes:
        frequencies: (K,), in cycles per unit, not negative.
        powers: (K,), variances of the waves; a frequency of zero is a constant.
    """

    frequencies: Tensor
    powers: Tensor

    @classmethod
    def wrapped(cls, axis: MixtureAxis, period: float, highest: float) -> WaveAxis:
        """A mixture wrapped around a circle, ``sum_m k(z + m period)``: the periodic process of the same spectrum.

        Poisson's formula gives the variances from the spectral density; nothing is summed over images.

        Args:
            axis: k.
            period: Of the circle.
            highest: Where the spectrum is cut off, in cycles per unit.
        """
        f = torch.arange(math.ceil(highest * period) + 1, dtype=torch.float64) / period
        variances = _line_variances(axis, f, period)
        keep = variances > _DROPPED * float(variances.detach().max())
        return cls(f[keep], variances[keep])

    @classmethod
    def of_mixture(cls, axis: MixtureAxis, length: float) -> WaveAxis | None:
        """A Gaussian mixture on an interval as a finite sum of waves, equal to it to rounding.

        On a circle that is longer than the interval by the reach of the covariance the images do not meet. Components
        of similar length scales share a circle.

        Args:
            axis: The mixture.
            length: Of the interval.

        Returns:
            None for envelopes whose spectrum does not end.
        """
        if not isinstance(axis.envelope, GaussianEnvelope):
            return None
        centres = torch.zeros_like(axis.weights) if axis.frequencies is None else axis.frequencies
        groups: dict[int, list[int]] = {}
        for q, lengthscale in enumerate(axis.lengthscales.detach().tolist()):
            groups.setdefault(math.floor(math.log2(lengthscale / length)), []).append(q)
        frequencies, powers = [], []
        for members in groups.values():
            part = MixtureAxis(axis.envelope, axis.weights[members], axis.lengthscales[members], centres[members])
            scales, centre = part.lengthscales.detach(), centres[members].detach().abs()
            period = length + _REACH * float(scales.max())
            band = _BAND / (2.0 * math.pi * scales)
            k = torch.arange(math.ceil(float((centre + band).max()) * period) + 1, dtype=torch.float64)
            seen = ((k[:, None] / period - centre).abs() <= band).any(1)
            f = k[seen] / period
            frequencies.append(f)
            powers.append(_line_variances(part, f, period))
        f, v = torch.cat(frequencies), torch.cat(powers)
        still = f == 0.0
        if int(still.sum()) > 1:
            # Constants of several circles are one constant.
            f = torch.cat([f[still][:1], f[~still]])
            v = torch.cat([v[still].sum()[None], v[~still]])
        order = torch.argsort(f)
        return cls(f[order], v[order])

    @property
    def has_constant(self) -> bool:
        """Whether the first wave is a constant, which has one weight instead of two."""
        return len(self.frequencies) > 0 and float(self.frequencies[0]) == 0.0

    @property
    def count(self) -> int:
        """Number of weights."""
        return 2 * len(self.powers) - int(self.has_constant)

    def features(self, x: Tensor, order: int) -> Tensor:
        """Derivative of the waves times their standard deviations, (m, 2 K), or one fewer if the mean is among them."""
        return self.derivatives(x, [order])[order]

    def derivatives(self, x: Tensor, orders: Iterable[int]) -> dict[int, Tensor]:
        """:meth:`features` of several orders."""
        rate = 2.0 * math.pi * self.frequencies
        # Reduced by whole turns first: the phase of a high frequency would lose digits.
        turns = torch.remainder(x[:, None] * self.frequencies, 1.0)
        cos, sin = torch.cos(2.0 * math.pi * turns), torch.sin(2.0 * math.pi * turns)
        deviations, skipped, out = self.powers.sqrt(), int(self.has_constant), {}
        for order in orders:
            first, second = ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[order % 4]
            scale = deviations * rate**order
            out[order] = torch.cat([first * scale, second[:, skipped:] * scale[skipped:]], dim=1)
        return out

    def blocks(self, x: Tensor, y: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        if y is x:
            left = right = self.derivatives(x, {o for pair in pairs for o in pair})
        else:
            left = self.derivatives(x, {a for a, _ in pairs})
            right = self.derivatives(y, {b for _, b in pairs})
        return {(a, b): left[a] @ right[b].T for a, b in pairs}

    def variances(self, x: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        f = self.derivatives(x[:1], {o for pair in pairs for o in pair})
        return {(a, b): (f[a] * f[b]).sum(1).expand(len(x)) for a, b in pairs}


@dataclass(frozen=True)
class Constraint:
    """A linear functional of a function of one variable: ``sum_i c_i u^(o_i)(x_i)``.

    Attributes:
        points: x.
        orders: o.
        coefficients: c.
    """

    points: tuple[float, ...]
    orders: tuple[int, ...]
    coefficients: tuple[float, ...]


class ConditionedAxis:
    """A process conditioned on constraints being zero.

    Args:
        base: The process.
        constraints: Functionals that are zero, linearly independent.
    """

    def __init__(self, base: AxisPrior, constraints: Sequence[Constraint]) -> None:
        """Factorise the covariance of the constraints."""
        self.base = base
        self.constraints = tuple(constraints)
        gram = torch.stack([self._of_constraint(self._rows(c)) for c in self.constraints])
        self._scale = gram.diagonal().rsqrt()
        scaled = gram * self._scale[:, None] * self._scale
        self._factor = torch.linalg.cholesky(scaled + 1e-14 * torch.eye(len(gram), dtype=gram.dtype))

    def _rows(self, constraint: Constraint) -> tuple[Tensor, Constraint]:
        return torch.tensor(constraint.points, dtype=torch.float64), constraint

    def _of_constraint(self, row: tuple[Tensor, Constraint]) -> Tensor:
        """Covariance of one constraint with every constraint."""
        points, constraint = row
        values = []
        for other in self.constraints:
            pairs = sorted({(a, b) for a in constraint.orders for b in other.orders})
            table = self.base.blocks(points, torch.tensor(other.points, dtype=torch.float64), pairs)
            values.append(
                sum(
                    (
                        ci * cj * table[a, b][i, j]
                        for i, (a, ci) in enumerate(zip(constraint.orders, constraint.coefficients, strict=True))
                        for j, (b, cj) in enumerate(zip(other.orders, other.coefficients, strict=True))
                    ),
                    torch.zeros((), dtype=torch.float64),
                )
            )
        return torch.stack(values)

    def with_constraints(self, x: Tensor, orders: Sequence[int]) -> dict[int, Tensor]:
        """``cov(u^(a)(x_i), constraint_c)`` of the base, (m, C), for each order a."""
        out: dict[int, list[Tensor]] = {a: [] for a in orders}
        for c in self.constraints:
            points = torch.tensor(c.points, dtype=torch.float64)
            table = self.base.blocks(x, points, sorted({(a, b) for a in orders for b in c.orders}))
            for a in orders:
                terms = zip(c.orders, c.coefficients, strict=True)
                out[a].append(sum((w * table[a, b][:, i] for i, (b, w) in enumerate(terms)), torch.zeros_like(x)))
        return {a: torch.stack(columns, dim=1) for a, columns in out.items()}

    def _whitened(self, x: Tensor, orders: set[int]) -> dict[int, Tensor]:
        """``L^-1 cov(constraints, u^(a)(x))``, (C, m)."""
        cross = self.with_constraints(x, sorted(orders))
        return {
            a: torch.linalg.solve_triangular(self._factor, (c * self._scale).T, upper=False) for a, c in cross.items()
        }

    def interpolation(self, x: Tensor, orders: Sequence[int]) -> dict[int, Tensor]:
        """Derivatives of the functions by which the mean depends on the constraints' values, (m, C).

        The mean of ``u`` given that the constraints have values v is ``interpolation(x, [0])[0] @ v``.
        """
        whitened = self._whitened(x, set(orders))
        return {
            a: (torch.linalg.solve_triangular(self._factor.T, w, upper=True) * self._scale[:, None]).T
            for a, w in whitened.items()
        }

    def blocks(self, x: Tensor, y: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        base = self.base.blocks(x, y, pairs)
        left = self._whitened(x, {a for a, _ in pairs})
        right = self._whitened(y, {b for _, b in pairs})
        return {(a, b): base[a, b] - left[a].T @ right[b] for a, b in pairs}

    def variances(self, x: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        base = self.base.variances(x, pairs)
        white = self._whitened(x, {o for pair in pairs for o in pair})
        return {(a, b): base[a, b] - (white[a] * white[b]).sum(0) for a, b in pairs}


class NuggetAxis:
    """A process with a small one added that is independent from node to node.

    The small process has the sign pattern of a wave, ``u'' ~ -u``, and variances proportional to those of the large
    one, order by order. Numerically singular covariances of smooth processes become definite, and the values at the
    nodes keep determining most of the derivatives, which a white nugget on each order would spoil.

    Args:
        base: The process.
        nodes: Where it is added: in blocks of these nodes with themselves.
        size: Its variance relative to the largest of the base at the nodes.
    """

    def __init__(self, base: AxisPrior, nodes: Tensor, size: float) -> None:
        """Nothing is computed yet."""
        self.base = base
        self.nodes = nodes
        self.size = size

    def blocks(self, x: Tensor, y: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`."""
        base = self.base.blocks(x, y, pairs)
        if x is not self.nodes or y is not self.nodes or self.size == 0.0:
            return base
        orders = sorted({o for pair in pairs for o in pair})
        variances = self.base.variances(x, [(o, o) for o in orders])
        scale = {o: float(variances[o, o].max()) ** 0.5 for o in orders}
        eye = torch.eye(len(x), dtype=x.dtype)
        return {(a, b): m + self.size * scale[a] * scale[b] * _wave_sign(a, b) * eye for (a, b), m in base.items()}

    def variances(self, x: Tensor, pairs: Sequence[Pair]) -> dict[Pair, Tensor]:
        """See :class:`AxisPrior`; without the small process."""
        return self.base.variances(x, pairs)


def _line_variances(axis: MixtureAxis, frequencies: Tensor, period: float) -> Tensor:
    """Variances of the waves of a wrapped mixture, (K,)."""
    f = frequencies[:, None]
    centre = torch.zeros_like(axis.weights) if axis.frequencies is None else axis.frequencies
    density = axis.envelope.spectral_density
    both = density(f - centre, axis.lengthscales) + density(f + centre, axis.lengthscales)
    line = (axis.weights * both).sum(-1) / period
    return torch.where(frequencies == 0.0, 0.5 * line, line)


def _wave_sign(a: int, b: int) -> float:
    if a == b:
        return 1.0
    if (a - b) % 2:
        return 0.0
    return 0.995 * (-1.0) ** ((a - b) // 2)


@dataclass(frozen=True, eq=False)
class FieldPrior:
    """Zero-mean process on a box whose covariance is a product over the axes.

    Attributes:
        axes: One covariance per axis.
    """

    axes: tuple[AxisPrior, ...]


def _lag_index(x: Tensor, y: Tensor) -> tuple[float, int, int, Tensor] | None:
    """Step, smallest and largest multiple, and flat position of every lag, if x and y lie on one uniform grid."""
    if len(x) * len(y) < 64:
        return None
    longer = x if len(x) >= len(y) else y
    step = float(longer[-1] - longer[0]) / (len(longer) - 1)
    if step <= 0.0:
        return None
    scaled = (x[:, None] - y[None, :]) / step
    nearest = torch.round(scaled)
    if float((scaled - nearest).abs().max()) > 1e-9 * len(longer):
        return None
    low, high = int(nearest.min()), int(nearest.max())
    if high - low + 1 >= len(x) * len(y):
        return None
    return step, low, high, (nearest - low).long().reshape(-1)
