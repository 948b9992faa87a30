"""Marginal likelihood of Gaussian linear models in weight space, with exact rows as constraints, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.noisy.rows import Statistics
from gpkit.inference.collocation.noisy.spectrum import TensorSpectrum

__all__ = ["REFUSED", "Evidence", "Posterior"]

REFUSED = 1e30
"""Minus the log evidence where there is none."""
_COSTLY = 600  # weights above which the search for the prior ends when a step gains a hundredth of a nat
_IDLE = 1e-9  # nats: what weights that take no part in the algebra may change together
_SEARCHING = 1e-4  # the same while the prior is searched, whose end is not known better
_UNSEEN = 1e-12  # share of the prior variance below which weights that nothing constrains are nothing
_OCCAM = 2.0  # nats a component has to be worth: the logarithm of prior range over posterior range of its weight


@dataclass
class Posterior:
    """Of the weights.

    Attributes:
        mean: (m,).
        root: S with covariance S S^T, (m, k).
        moments: Second moments over prior variances, (m,).
        rank: Number of weights that the data determine.
        density: Log density of the rows.
    """

    mean: Array
    root: Array
    moments: Array
    rank: float
    density: float


class _Compressed:
    """Log density of rows of small rank under a prior, and its derivatives with respect to prior variances."""

    def __init__(self, s: Statistics) -> None:
        size = np.diagonal(s.gram).copy()
        scale = 1.0 / np.sqrt(np.maximum(size, 1e-300 + 1e-30 * size.max()))
        factor, pivots, rank, _ = linalg.lapack.dpstrf(s.gram * scale[:, None] * scale, tol=1e-13)
        order, lower = pivots - 1, np.triu(factor)[:rank]
        self._rows = np.zeros((rank, len(size)))
        self._rows[:, order] = lower / scale[order]
        head = lower[:, :rank] / scale[order[:rank]]
        self._rhs = linalg.solve_triangular(head, s.projected[order[:rank]], trans="T")
        self._left = max(s.square - float(self._rhs @ self._rhs), 0.0)
        self._constant = s.log_noise + s.count * math.log(2.0 * math.pi)

    def density(self, variances: Array) -> tuple[float, Array]:
        """Value, and variance times derivative with respect to each variance."""
        scaled = self._rows * np.sqrt(variances)
        gram = scaled @ scaled.T
        gram[np.diag_indices_from(gram)] += 1.0
        factor = linalg.cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
        white = linalg.solve_triangular(factor, self._rhs, lower=True, check_finite=False)
        half = linalg.solve_triangular(factor, scaled, lower=True, check_finite=False)
        value = -0.5 * (self._left + float(white @ white) + self._constant)
        value -= float(np.log(np.diagonal(factor)).sum())
        return value, 0.5 * ((white @ half) ** 2 - np.einsum("ri,ri->i", half, half))


class Evidence:
    """Likelihood of the spectra of all fields: of noisy rows given the exact ones.

    Exact rows are constraints and no data. Counted as data they would reward any prior that makes fields small, since a
    residual of zero at many places is then no surprise.

    Args:
        spectra: Of each field.
        noisy: Rows whose noise is known.
        exact: Rows of equations and conditions that are exact, with a small noise; or None.
        free: Groups of rows in units of a noise that is itself unknown, one parameter each: its logarithm.
    """

    def __init__(
        self,
        spectra: Sequence[TensorSpectrum],
        noisy: Statistics,
        exact: Statistics | None = None,
        free: Sequence[Statistics] = (),
    ) -> None:
        self.spectra, self._free = list(spectra), list(free)
        self._exact = None if exact is None or not exact.count else _Compressed(exact)
        self._known = noisy if exact is None or not exact.count else noisy.plus(exact)
        sizes = [len(s.start) for s in spectra]
        self._cuts = np.cumsum(sizes).tolist()

    def _parts(self, theta: Array) -> tuple[list[Array], Array]:
        *own, noises = np.split(theta, self._cuts)
        return own, noises

    def variances(self, theta: Array) -> Array:
        """Prior variances of the weights of all fields."""
        own, _ = self._parts(theta)
        return np.concatenate([s.variances(t) for s, t in zip(self.spectra, own, strict=True)])

    def _all(self, noises: Array) -> Statistics:
        total = self._known
        for s, log_noise in zip(self._free, noises, strict=True):
            total = total.plus(s.rescaled(float(log_noise)))
        return total

    def posterior(self, theta: Array) -> Posterior:
        """Of the weights at given parameters.

        Raises:
            numpy.linalg.LinAlgError: The prior is so wide that the noise rounds away.
        """
        return self._condition(self._all(self._parts(theta)[1]), self.variances(theta), _IDLE)

    @staticmethod
    def _condition(s: Statistics, variances: Array, idle: float) -> Posterior:
        told = variances * np.diagonal(s.gram)
        order = np.argsort(told)
        active: NDArray[np.bool_] = np.ones(len(told), dtype=bool)
        active[order[np.cumsum(told[order]) < idle]] = False
        active |= variances >= _UNSEEN * variances.sum()
        for _ in range(3):
            root = np.sqrt(variances[active])
            precision = root[:, None] * s.gram[np.ix_(active, active)] * root
            precision[np.diag_indices_from(precision)] += 1.0
            factor = linalg.cholesky(precision, lower=True, overwrite_a=True, check_finite=False)
            half = linalg.solve_triangular(factor, root * s.projected[active], lower=True, check_finite=False)
            white = linalg.solve_triangular(factor, half, lower=True, trans="T", check_finite=False)
            mean = np.zeros(len(variances))
            mean[active] = root * white
            # What data still ask of weights that were left out, to first order in their variances.
            asked = variances * (s.projected - s.gram[:, active] @ mean[active]) ** 2
            asked[active] = 0.0
            if asked.sum() < 100.0 * idle:
                break
            active |= asked > idle
        inverse, _ = linalg.lapack.dtrtri(factor, lower=1)
        rest = float(asked.sum() - told[~active].sum())  # theirs to first order
        moments = 1.0 + asked - told
        moments[active] = white**2 + np.einsum("ij,ij->j", inverse, inverse)
        full = np.zeros((len(variances), len(root)))
        full[active] = root[:, None] * inverse.T
        rank = len(root) - float(np.einsum("ij,ij->", inverse, inverse))
        quadratic = s.square - float(half @ half)
        log_det = 2.0 * float(np.log(np.diagonal(factor)).sum())
        density = -0.5 * (quadratic + log_det - rest + s.log_noise + s.count * math.log(2.0 * math.pi))
        return Posterior(mean, full, moments, rank, density)

    def value(self, theta: Array) -> float:
        """Log evidence without priors of the parameters; minus infinity where it cannot be had."""
        try:
            variances = self.variances(theta)
            total = self._condition(self._all(self._parts(theta)[1]), variances, _SEARCHING).density
            return total - (self._exact.density(variances)[0] if self._exact is not None else 0.0)
        except np.linalg.LinAlgError:
            return -math.inf

    def objective(self, theta: Array) -> tuple[float, Array]:
        """Minus log evidence and log prior of the parameters, and its gradient."""
        own, noises = self._parts(theta)
        variances, everything = self.variances(theta), self._all(noises)
        try:
            found = self._condition(everything, variances, _SEARCHING)
            value, slopes = found.density, 0.5 * (found.moments - 1.0)
            if self._exact is not None:
                density, given = self._exact.density(variances)
                value, slopes = value - density, slopes - given
        except np.linalg.LinAlgError:  # a prior so wide that the noise rounds away: the line search steps back
            return REFUSED, np.zeros_like(theta)
        slopes = slopes / np.maximum(variances, 1e-300)
        gradient, at = [], 0
        for spectrum, t in zip(self.spectra, own, strict=True):
            prior, by_prior = spectrum.log_prior(t)
            gradient.append(spectrum.gradient(t, slopes[at : at + spectrum.functions]) + by_prior)
            value, at = value + prior, at + spectrum.functions
        for s, log_noise in zip(self._free, noises, strict=True):
            left = s.expected_square(found.mean, found.root) * math.exp(-2.0 * float(log_noise))
            gradient.append(np.array([left - s.count]))
        return -value, -np.concatenate(gradient)

    def maximise(
        self, start: Array, iterations: int, noise_bounds: float = 7.0, held: Sequence[int] = ()
    ) -> tuple[Array, float, int]:
        """Parameters, the log evidence there, and evaluations.

        Args:
            start: Where to begin.
            iterations: At most.
            noise_bounds: How far the logarithm of an unknown noise may move.
            held: Parameters that stay as they are.
        """
        bounds = [b for s in self.spectra for b in s.bounds]
        bounds += [(float(n) - noise_bounds, float(n) + noise_bounds) for n in self._parts(start)[1]]
        for k in held:
            bounds[k] = (float(start[k]), float(start[k]))
        begun, _ = self.objective(start)
        gain = 1e-2 if len(self._known.gram) > _COSTLY else 1e-5
        result = optimize.minimize(
            self.objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": iterations, "ftol": gain / max(abs(begun), 1.0)},
        )
        return np.asarray(result.x), -float(result.fun), int(result.nfev)

    def prune(self, theta: Array) -> int:
        """Take out components that are worth less than their parameters cost; returns how many.

        A weight without information on its size has its posterior at zero: it is kept only where the evidence says so.
        The least worthy goes first, and what remains is asked again.
        """
        removed, evaluated = 0, self.value(theta)
        for spectrum in self.spectra:
            candidates = {tuple(int(i) for i in place) for place in np.argwhere(spectrum.alive)}
            worth: dict[tuple[int, ...], float] = {}
            for place in candidates:
                worth[place] = evaluated - self._without(spectrum, place, theta)
            for place in sorted(worth, key=lambda p: worth[p]):
                if worth[place] > 2.0 * _OCCAM or spectrum.alive.sum() < 2:
                    break
                left = self._without(spectrum, place, theta)
                if evaluated - left < _OCCAM:
                    spectrum.alive[place] = False
                    evaluated, removed = left, removed + 1
        return removed

    def _without(self, spectrum: TensorSpectrum, place: tuple[int, ...], theta: Array) -> float:
        spectrum.alive[place] = False
        try:
            return self.value(theta)
        finally:
            spectrum.alive[place] = True

    def hidden(self, spectrum: TensorSpectrum, at: int, theta: Array) -> float:
        """Weight that the first component of a spectrum, now left out, may have at a cost of no more than two nats.

        Args:
            spectrum: One of the spectra.
            at: Where its parameters begin.
            theta: All parameters.
        """
        without = self.value(theta)
        trial, place = theta.copy(), (0,) * len(spectrum.counts)
        spectrum.alive[place] = True
        try:
            low, high = (math.log(float(np.exp(theta[at : at + spectrum.size]).max())) + s for s in (-60.0, 30.0))
            for _ in range(12):
                trial[at] = 0.5 * (low + high)
                small = self.value(trial) > without - _OCCAM
                low, high = (trial[at], high) if small else (low, trial[at])
            return math.exp(low)
        finally:
            spectrum.alive[place] = False
