"""Hyper-parameters of largest marginal likelihood: L-BFGS on exact values and gradients.

The gradient with respect to a covariance matrix, ``(alpha alpha^T - G^-1) / 2``, and in the space of weights with
respect to the log variance of a wave, ``(mean^2 + variance - 1) / 2``, needs no differentiation through
factorisations; closed forms lead from there to weights, length scales and frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from gpkit.inference.collocation.exact.coordinates import MixtureCoordinates
from gpkit.inference.collocation.exact.dense import factorise
from gpkit.inference.collocation.exact.features import field_features
from gpkit.inference.collocation.exact.priors import NO_FACTOR, FieldPrior, MixtureAxis, WaveAxis
from gpkit.inference.collocation.exact.rows import Rows
from gpkit.inference.collocation.exact.weights import FeaturePosterior

__all__ = [
    "JITTER",
    "Evidence",
    "Learned",
    "Slopes",
    "feature_evidence",
    "gradients",
    "learn",
    "line_evidence",
    "profile_gain",
    "tracked_mixtures",
]

Array = NDArray[np.float64]
Slopes = Sequence[Sequence[Tensor]]
"""Derivatives in (weights, lengthscales, frequencies) of each of some mixtures."""

JITTER = 1e-11
_WALL = 1e12


@runtime_checkable
class Evidence(Protocol):
    """Log marginal likelihood as a function of mixtures."""

    def __call__(self, mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        """The value, and its gradient unless that is not asked for (then an empty list).

        Args:
            mixtures: One a field, or one for each of its axes with axes fastest.
            slopes: Whether to take the gradient.
        """
        ...


@dataclass(frozen=True, eq=False)
class Learned:
    """Result of learning.

    Attributes:
        mixtures: One a field.
        before: Log evidence at the start.
        after: Log evidence at the end.
        evaluations: Of value and gradient.
        message: Why the optimiser ended.
    """

    mixtures: tuple[MixtureAxis, ...]
    before: float
    after: float
    evaluations: int
    message: str


def tracked_mixtures(mixtures: Sequence[MixtureAxis]) -> tuple[list[MixtureAxis], list[list[Tensor]]]:
    """Copies that record gradients, and their (weights, lengthscales, frequencies)."""
    tracked, leaves = [], []
    for m in mixtures:
        frequencies = torch.zeros_like(m.weights) if m.frequencies is None else m.frequencies
        own = [t.detach().clone().requires_grad_() for t in (m.weights, m.lengthscales, frequencies)]
        tracked.append(MixtureAxis(m.envelope, own[0], own[1], own[2]))
        leaves.append(own)
    return tracked, leaves


def gradients(objective: Tensor, leaves: list[list[Tensor]]) -> list[list[Tensor]]:
    """Derivatives with respect to what :func:`tracked_mixtures` gave; zero where nothing depends on it."""
    flat = [t for own in leaves for t in own]
    filled = torch.autograd.grad(objective, flat, materialize_grads=True)
    out, position = [], 0
    for own in leaves:
        out.append(list(filled[position : position + len(own)]))
        position += len(own)
    return out


def _value(quadratic: float, logdet: float, n: int, profile: bool) -> tuple[float, float]:
    """Log evidence and the scale of the prior at which it is taken."""
    scale = max(quadratic / n, 1e-300) if profile else 1.0
    return -0.5 * (quadratic / scale + logdet + n * math.log(scale) + n * math.log(2.0 * math.pi)), scale


def profile_gain(quadratic: float, count: int) -> tuple[float, float]:
    """What the log density of values gains by the best scale of the priors, and one less the inverse of that scale.

    Args:
        quadratic: Quadratic form of the values at the given scale.
        count: Number of values.
    """
    best = max(quadratic / max(count, 1), 1e-300)
    return 0.5 * (quadratic - count - count * math.log(best)), 1.0 - 1.0 / best


def feature_evidence(rows: Sequence[Rows], length: float, profile: bool) -> Evidence:
    """Evidence of rows on one axis in the space of weights; for Gaussian mixtures, without jitter.

    Args:
        rows: With values.
        length: Of the interval.
        profile: As in :func:`dense_evidence`.
    """

    def evaluate(mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        tracked, leaves = tracked_mixtures(mixtures) if slopes else (list(mixtures), [])
        with torch.set_grad_enabled(slopes):
            circles = [WaveAxis.of_mixture(m, length) for m in tracked]
        fixed = [WaveAxis(c.frequencies, c.powers.detach()) for c in circles if c is not None]
        features = [field_features(FieldPrior((c,)), rows, f, 100_000) for f, c in enumerate(fixed)]
        posterior = FeaturePosterior(rows, [f for f in features if f is not None], fit_scale=False)
        total, position = torch.zeros((), dtype=torch.float64), 0
        value, scale = posterior.evidence(profile)
        if not slopes:
            return value, []
        second = posterior.second_moments(scale)
        for circle in circles:
            assert circle is not None
            k, constant = len(circle.frequencies), int(circle.has_constant)
            size = 2 * k - constant
            own = second[position : position + size] - 1.0
            slope = own[:k].clone()
            slope[constant:] += own[k:]
            # 0.5 (second moment - 1) per weight is the gradient in the logarithm of its variance.
            total = total + (0.5 * slope / circle.powers.detach() * circle.powers).sum()
            position += size
        return value, gradients(total, leaves)

    return evaluate


def line_evidence(x: Tensor, lines: Tensor, moments: Tensor, noise: float) -> Evidence:
    """Composite evidence of the lines of a gridded source along one axis, each taken on its own.

    The covariance along a line of ``sum_t c_t D^{o_t} u`` for a product prior is
    ``sum_ab M_ab cov(u^(a), u^(b))`` with the other axes' moments in M. Lines are not independent: their evidence is
    averaged, which weighs them as one line.

    Args:
        x: Grid along the axis.
        lines: (N, L).
        moments: M, (o, o), positive semi-definite.
        noise: Variance of the source's noise.
    """
    orders = range(len(moments))
    pairs = [(a, b) for a in orders for b in orders if float(moments[a, b]) != 0.0]

    def evaluate(mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        tracked, leaves = tracked_mixtures(mixtures) if slopes else (list(mixtures), [])
        with torch.set_grad_enabled(slopes):
            blocks = tracked[0].blocks(x, x, pairs)
            gram = sum((moments[a, b] * blocks[a, b] for a, b in pairs), torch.zeros(len(x), len(x), dtype=x.dtype))
            gram = gram + noise * torch.eye(len(x), dtype=x.dtype)
        factor = factorise(gram.detach(), JITTER)
        weights = factor.solve(lines)
        quadratic = float((lines * weights).sum()) / lines.shape[1]
        value, scale = _value(quadratic, float(factor.logdet()), len(x), noise == 0.0)
        if not slopes:
            return value, []
        inverse = torch.cholesky_inverse(factor.factor) * factor.scale[:, None] * factor.scale
        slope = 0.5 * (weights @ weights.T / (lines.shape[1] * scale) - inverse)
        return value, gradients((slope * gram).sum(), leaves)

    return evaluate


def learn(
    evidence: Evidence,
    start: Sequence[MixtureAxis],
    length: float | Sequence[float],
    step: float | Sequence[float],
    iterations: int = 25,
    tolerance: float = 1e-6,
) -> Learned:
    """Maximise an evidence over weights, length scales and frequencies.

    Args:
        evidence: Value and gradient.
        start: One mixture a field, or one for each of its axes.
        length: Of the interval, or of that of every mixture: length scales stay below five times it.
        step: Of the grid: length scales stay above one and a half steps, frequencies below half a cycle a step.
        iterations: Limit.
        tolerance: Relative gain of an iteration below which it ends.
    """
    lengths = [length] * len(start) if isinstance(length, float) else list(length)
    steps = [step] * len(start) if isinstance(step, float) else list(step)
    coordinates = MixtureCoordinates(start, lengths, steps)
    first, bounds = coordinates.start, coordinates.bounds
    record: dict[str, Any] = {"evaluations": 0, "best": -math.inf, "at": first, "first": None}

    def wall(packed: Array) -> tuple[float, Array]:
        """Where there is no evidence: as far above the best as its slope promised below, so that steps are halved."""
        if record["first"] is None:
            return _WALL, np.zeros_like(packed)
        promised = float(record["slope"] @ (packed - record["at"]))
        return 1.0 + abs(promised) - record["best"], -record["slope"] * math.copysign(1.0, promised)

    def objective(packed: Array) -> tuple[float, Array]:
        record["evaluations"] += 1
        try:
            value, derivatives = evidence(coordinates.mixtures(packed))
        except NO_FACTOR:
            return wall(packed)
        if not math.isfinite(value):
            return wall(packed)
        slope = -coordinates.gradient(packed, derivatives)
        if record["first"] is None:
            record["first"] = value
        if value > record["best"]:
            record["best"], record["at"], record["slope"] = value, packed.copy(), slope
        return -value, slope

    clipped = np.clip(first, bounds[:, 0], bounds[:, 1])
    options = {"maxiter": iterations, "maxcor": 20, "maxfun": 2 * iterations, "ftol": tolerance, "gtol": 1e-2}
    result = optimize.minimize(objective, clipped, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    before = record["first"] if record["first"] is not None else -math.inf
    found = tuple(coordinates.mixtures(record["at"]))
    return Learned(found, before, record["best"], record["evaluations"], str(result.message))
