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

__all__ = ["KernelEvidence", "Precisions", "log_evidence", "most_likely_precisions", "weighted"]

_CHUNK = 20_000_000
"""Numbers in a batch of columns."""


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


def most_likely_precisions(laplace: Laplace, weights: Tensor, given: Precisions) -> Precisions:
    """Free precisions and scales of largest evidence for a kernel.

    Args:
        laplace: Around the weights, whose rows stay linearised as they are.
        weights: Their optimum for the given precisions.
        given: To start from.
    """
    roots, free = laplace.roots, given.free
    grams = []
    for r in laplace.rows:
        gram = torch.zeros(len(roots), len(roots), dtype=torch.float64)
        add_gram(gram, roots, r, 1.0)
        grams.append(gram)
    spans = [roots.span(f) for f in range(len(given.scales))]

    def with_logs(x: NDArray[np.float64]) -> Precisions:
        now = with_rows(given, [float(v) for v in x[: len(free)]])
        return replace(now, scales=tuple(math.exp(v) for v in x[len(free) :]))

    def objective(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = with_logs(x)
        own = Laplace(roots, laplace.rows, now.rows, now.scales, grams)
        step = -own.solve(own.gradient(weights))
        found = weights + step
        rows = [_moved(roots, r, step) for r in laplace.rows]
        value = -log_evidence(weighted(found, roots, rows, now), own, rows, now)
        inverse = own.inverse()
        slopes = []
        for i in free:
            left = rows[i].residual.numel() - now.rows[i] * float((inverse * grams[i]).sum())
            slopes.append(-0.5 * (left - now.rows[i] * float((rows[i].residual ** 2).sum())))
        for span, scale in zip(spans, now.scales, strict=True):
            determined = (span.stop - span.start) - float(inverse.diagonal()[span].sum()) / scale
            slopes.append(-0.5 * (float((found[span] ** 2).sum()) / scale - determined))
        return value, np.array(slopes)

    start = [math.log(given.rows[i]) for i in free] + [math.log(s) for s in given.scales]
    bounds = precision_bounds(given) + [(math.log(s) - 25.0, math.log(s) + 25.0) for s in given.scales]
    options = {"maxiter": 40, "gtol": 0.05, "ftol": 1e-12}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return with_logs(found.x)


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
        self._given, noisy = given, objective.noisy_rows
        # sin(pi) is not quite zero.
        zero = [float((t**2).max()) * v <= 1.0 for t, v in zip(targets, given.highest, strict=True)]
        self._space = [i for i, is_zero in enumerate(zero) if is_zero and any(noisy) and not noisy[i]]
        self._data = [i for i in range(len(targets)) if i not in self._space]
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
        return value, gradients, [slopes[i] for i in now.free]

    def value(self, kernel: Sequence[Tensor], logs: Sequence[float]) -> float:
        """Minus the log evidence, as the call has it."""
        now = with_rows(self._given, logs)
        value = self._every.value(kernel, now)
        return self._left(value, self._zero.value(kernel, self._of_space(now)), now) if self._space else value

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
