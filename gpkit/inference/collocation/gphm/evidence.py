"""Evidence of linearised equations with the values integrated out, and where it is largest.

The joint density that the paper maximises has no maximum in the precisions where the equations can be satisfied. With
the values integrated out it has: by the identity of Fisher the gradient of the log evidence is that of the log joint
density, averaged over the posterior of the values. The average of a quadratic form is its value at the mean and a sum
over the columns of a root of the covariance, which go through the same adjoints as the mean, as a batch.

References:
    MacKay (1992), Bayesian Interpolation, Neural Computation 4: determined numbers and the gradient of the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.gphm.axes import along_axes, fold
from gpkit.inference.collocation.gphm.covariances import Covariances
from gpkit.inference.collocation.gphm.jets import GridJets
from gpkit.inference.collocation.gphm.laplace import Laplace, LinearRows, add_gram
from gpkit.inference.collocation.gphm.objective import GphmObjective
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["KernelEvidence", "Precisions", "log_evidence", "most_likely_precisions", "rows_of_zero", "weighted"]

_CHUNK = 20_000_000
"""Numbers in a batch of columns."""
_SIZE_SPREAD = 2.0
"""Standard deviation of the logarithm of the variance of fields whose equations are exactly zero."""


@dataclass(frozen=True)
class Precisions:
    """What the squares of equations and conditions are weighted with.

    Attributes:
        rows: Of every equation and then of every condition.
        free: Numbers of those that are learned.
        highest: Of every row's.
        scales: Of each field's kernel.
    """

    rows: tuple[float, ...]
    free: tuple[int, ...]
    highest: tuple[float, ...]
    scales: tuple[float, ...]


def weighted(weights: Tensor, roots: Roots, rows: Sequence[LinearRows], precisions: Precisions) -> float:
    """Minus the log density of weights and rows, up to what does not depend on the weights."""
    total = 0.0
    for f, scale in enumerate(precisions.scales):
        total += 0.5 * float((weights[roots.span(f)] ** 2).sum()) / scale
    for r, v in zip(rows, precisions.rows, strict=True):
        total += 0.5 * v * float((r.residual**2).sum())
    return total


def log_evidence(value: float, laplace: Laplace, rows: Sequence[LinearRows], precisions: Precisions) -> float:
    """With the weights integrated out around their optimum, where :func:`weighted` is ``value``."""
    total = -value - 0.5 * laplace.log_determinant
    for field, scale in zip(laplace.roots.fields, precisions.scales, strict=True):
        total -= 0.5 * math.prod(field.shape) * math.log(scale)
    for r, v in zip(rows, precisions.rows, strict=True):
        total += 0.5 * r.residual.numel() * math.log(v / (2.0 * math.pi))
    return total


def _moved(roots: Roots, rows: LinearRows, step: Tensor) -> LinearRows:
    residual = rows.residual
    for jet, c in rows.slopes.items():
        residual = residual + c * roots.jet(jet, step, rows.face)
    return replace(rows, residual=residual)


def precision_bounds(given: Precisions) -> list[tuple[float, float]]:
    """Of the logarithms of the free precisions."""
    return [(math.log(given.highest[i]) - 32.0, math.log(given.highest[i])) for i in given.free]


def with_rows(given: Precisions, logs: Sequence[float]) -> Precisions:
    """The same with other free precisions, of these logarithms."""
    rows = list(given.rows)
    for i, value in zip(given.free, logs, strict=True):
        rows[i] = math.exp(value)
    return replace(given, rows=tuple(rows))


def rows_of_zero(objective: GphmObjective, wanted: Sequence[Tensor], given: Precisions) -> list[int]:
    """Numbers of the rows that say in which space the fields are, beside noisy data: exact rows that are zero."""
    noisy = objective.noisy_rows
    # sin(pi) is not quite zero.
    zero = [float((t**2).max()) * v <= 1.0 for t, v in zip(wanted, given.highest, strict=True)]
    return [i for i, is_zero in enumerate(zero) if is_zero and any(noisy) and not noisy[i]]


def most_likely_precisions(
    laplace: Laplace, weights: Tensor, given: Precisions, space: Sequence[int] = ()
) -> Precisions:
    """Free precisions and scales of largest evidence for a kernel.

    Args:
        laplace: Around the weights, whose rows stay linearised as they are.
        weights: Their optimum for the given precisions.
        given: To start from.
        space: Rows that are no data, as :class:`KernelEvidence` has them.
    """
    roots, free = laplace.roots, given.free
    grams = []
    for r in laplace.rows:
        gram = torch.zeros(len(roots), len(roots), dtype=torch.float64)
        add_gram(gram, roots, r, 1.0)
        grams.append(gram)
    zeros = [replace(laplace.rows[i], residual=torch.zeros_like(laplace.rows[i].residual)) for i in space]

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = replace(with_rows(given, x[: len(free)].tolist()), scales=tuple(np.exp(x[len(free) :]).tolist()))
        value, by_row, by_scale = _evidence_of_sizes(roots, laplace.rows, grams, weights, now)
        if zeros:
            own = replace(now, rows=tuple(now.rows[i] for i in space))
            taken, less, others = _evidence_of_sizes(
                roots, zeros, [grams[i] for i in space], torch.zeros_like(weights), own
            )
            value -= taken
            by_scale = by_scale - others
            by_row[list(space)] -= less
        return value, np.concatenate([by_row[list(free)], by_scale])

    start = [math.log(given.rows[i]) for i in free] + [math.log(s) for s in given.scales]
    bounds = precision_bounds(given) + [(math.log(s) - 25.0, math.log(s) + 25.0) for s in given.scales]
    options = {"maxiter": 40, "gtol": 0.05, "ftol": 1e-12}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return replace(with_rows(given, found[: len(free)].tolist()), scales=tuple(np.exp(found[len(free) :]).tolist()))


def _evidence_of_sizes(
    roots: Roots, rows: Sequence[LinearRows], grams: Sequence[Tensor], weights: Tensor, now: Precisions
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Minus the log evidence, and its derivatives in the logarithms of all precisions and of the scales.

    Args:
        roots: Of the fields.
        rows: Linearised at the weights.
        grams: ``J_i^T J_i`` of the rows.
        weights: (W,).
        now: Precisions of the rows, and scales.
    """
    own = Laplace(roots, rows, now.rows, now.scales, grams)
    step = -own.solve(own.gradient(weights))
    found = weights + step
    moved = [_moved(roots, r, step) for r in rows]
    value = -log_evidence(weighted(found, roots, moved, now), own, moved, now)
    inverse = own.inverse()
    by_row = []
    for r, gram, v in zip(moved, grams, now.rows, strict=True):
        left = r.residual.numel() - v * float((inverse * gram).sum())
        by_row.append(-0.5 * (left - v * float((r.residual**2).sum())))
    by_scale = []
    for f, scale in enumerate(now.scales):
        span = roots.span(f)
        determined = (span.stop - span.start) - float(inverse.diagonal()[span].sum()) / scale
        by_scale.append(-0.5 * (float((found[span] ** 2).sum()) / scale - determined))
    return value, np.array(by_row), np.array(by_scale)


class KernelEvidence:
    """Minus the log evidence of linear rows as a function of kernels and free precisions, with its gradient.

    Beside noisy rows those that are exactly zero say in which space the fields are, and are no data: what they say is
    taken away. Counted as data, edges on which a field is zero and equations without a source would reward kernels of a
    few functions that all vanish there.

    Args:
        objective: For grid and kernels.
        rows: Linearised, of all equations and then of all conditions; slopes and what they should be equal to stay.
        targets: What each row's linear part should be.
        given: Precisions; the scales are one.
    """

    def __init__(
        self, objective: GphmObjective, rows: Sequence[LinearRows], targets: Sequence[Tensor], given: Precisions
    ) -> None:
        """Keep the rows."""
        self._given, self._space = given, rows_of_zero(objective, targets, given)
        self._data = [i for i in range(len(targets)) if i not in self._space]
        # Where an equation only says in which space the fields are, the data alone say how large they are.
        is_sized = all(i >= len(objective.problem.equations) for i in self._space)
        largest = max((float((targets[i] ** 2).mean()) for i in self._data), default=0.0)
        self._size = None if is_sized or largest == 0.0 else math.log(largest)
        self._counts = [t.numel() for t in targets]
        self._every = _JointEvidence(objective, rows, targets)
        self._zero = _JointEvidence(objective, [rows[i] for i in self._space], [targets[i] for i in self._space])

    def __call__(self, kernel: Sequence[Tensor], logs: Sequence[float]) -> tuple[float, list[Tensor], list[float]]:
        """Value and gradients.

        Args:
            kernel: Log weights, log inverse lengths and frequencies, each (F, d, Q).
            logs: Of the free precisions.

        Returns:
            Minus the log evidence, its gradient with respect to the kernel, and to the logarithms.

        Raises:
            NotPositiveDefiniteError: A covariance is not definite, or rows of zero are so unlikely for this kernel that
                the data round away.
            ConvergenceError: The precision of the values is not.
        """
        now = with_rows(self._given, logs)
        value, gradients, slopes = self._every.with_slopes(kernel, now)
        if self._space:
            taken, others, less = self._zero.with_slopes(kernel, self._of_space(now))
            value = self._left(value, taken, now)
            gradients = [a - b for a, b in zip(gradients, others, strict=True)]
            for i, slope in zip(self._space, less, strict=True):
                slopes[i] -= slope
        if self._size is not None:
            value += 0.5 * float((self._off(kernel) ** 2).sum())
            shares = torch.softmax(kernel[0], -1)
            gradients[0] = gradients[0] + self._off(kernel)[:, None, None] / _SIZE_SPREAD * shares
        return value, gradients, [slopes[i] for i in now.free]

    def value(self, kernel: Sequence[Tensor], logs: Sequence[float]) -> float:
        """Minus the log evidence, as the call has it."""
        now = with_rows(self._given, logs)
        value = self._every.value(kernel, now)
        if self._space:
            value = self._left(value, self._zero.value(kernel, self._of_space(now)), now)
        return value if self._size is None else value + 0.5 * float((self._off(kernel) ** 2).sum())

    def _off(self, kernel: Sequence[Tensor]) -> Tensor:
        """How far the logarithm of each field's variance is from that of the data, in its standard deviations."""
        assert self._size is not None
        return (kernel[0].logsumexp(-1).sum(-1) - self._size) / _SIZE_SPREAD

    def _of_space(self, now: Precisions) -> Precisions:
        return Precisions(tuple(now.rows[i] for i in self._space), (), (), now.scales)

    def _left(self, every: float, taken: float, now: Precisions) -> float:
        most = sum(0.5 * self._counts[i] * math.log(now.rows[i] / (2.0 * math.pi)) for i in self._data)
        if taken - every > most + 1.0:
            raise NotPositiveDefiniteError("zeros are so unlikely for this kernel that the data round away")
        return every - taken


class _Solved(NamedTuple):
    covariances: Covariances
    roots: Roots
    laplace: Laplace
    mean: Tensor
    rows: list[LinearRows]
    value: float


class _JointEvidence:
    """Minus the log evidence of linear rows, all of which are data."""

    def __init__(self, objective: GphmObjective, rows: Sequence[LinearRows], targets: Sequence[Tensor]) -> None:
        self._objective, self._rows, self._targets = objective, tuple(rows), tuple(targets)
        self._cells, self._dim = math.prod(objective.shape), len(objective.shape)

    def value(self, kernel: Sequence[Tensor], now: Precisions) -> float:
        """Of a kernel."""
        return self._solved(kernel, now).value

    def with_slopes(self, kernel: Sequence[Tensor], now: Precisions) -> tuple[float, list[Tensor], list[float]]:
        """Value, its gradient with respect to the kernel, and to the logarithms of all precisions."""
        covariances, roots, laplace, mean, rows, value = self._solved(kernel, now)
        root = laplace.draw(torch.eye(len(roots), dtype=torch.float64))
        # The mean is the first column; only it has a target.
        squares = torch.zeros(len(rows), dtype=torch.float64)
        columns = torch.cat([mean[:, None], root], 1)
        step = max(1, _CHUNK // (len(roots) + 1))
        for start in range(0, columns.shape[1], step):
            squares += self._pull(roots, covariances, columns[:, start : start + step], start == 0, now)
        covariances.pull_determinant()
        pairs = zip(now.rows, squares.tolist(), rows, strict=True)
        return value, covariances.gradient(), [0.5 * (v * s - r.residual.numel()) for v, s, r in pairs]

    def _solved(self, kernel: Sequence[Tensor], now: Precisions) -> _Solved:
        covariances = self._objective.covariances(kernel)
        roots = Roots.of_covariances(covariances)
        zero = torch.zeros(len(roots), dtype=torch.float64)
        at_zero = [replace(r, residual=-t) for r, t in zip(self._rows, self._targets, strict=True)]
        laplace = Laplace(roots, at_zero, now.rows, now.scales)
        mean = -laplace.solve(laplace.gradient(zero))
        rows = [_moved(roots, r, mean) for r in at_zero]
        value = -log_evidence(weighted(mean, roots, rows, now), laplace, rows, now)
        return _Solved(covariances, roots, laplace, mean, rows, value)

    def _pull(
        self, roots: Roots, covariances: Covariances, columns: Tensor, with_target: bool, now: Precisions
    ) -> Tensor:
        """Add the gradients of the quadratic forms of a batch of weights; squares of the rows, one number each."""
        d = self._dim
        slopes = {j: torch.zeros(*self._objective.shape, columns.shape[1], dtype=torch.float64) for j in self._jets}
        squares = torch.zeros(len(self._rows), dtype=torch.float64)
        for i, (r, target, v) in enumerate(zip(self._rows, self._targets, now.rows, strict=True)):
            coefficients = {j: c.expand(target.shape)[..., None] if c.dim() else c for j, c in r.slopes.items()}
            found = sum(c * roots.jet(j, columns, r.face) for j, c in coefficients.items())
            assert isinstance(found, Tensor)
            if with_target:
                found[..., 0] -= target
            squares[i] = float((found**2).sum())
            for j, c in coefficients.items():
                slopes[j][r.face] += v * c * found
        zeros = (0,) * d
        folded = [along_axes(fold, roots.jet(Jet(f, zeros), columns), d) for f in range(len(covariances.fields))]
        jets = GridJets(folded, covariances)
        jets.pull_quadratic()
        for jet, g in slopes.items():
            jets.add_slope(jet, along_axes(fold, g, d))
        jets.pull()
        return squares

    @property
    def _jets(self) -> list[Jet]:
        return list(dict.fromkeys(j for r in self._rows for j in r.slopes))
