"""Noisy sources and observations: a Gaussian process prior in weight space, conditioned on every row with its noise.

Exact equations and conditions enter as rows of very small noise. The prior's spectrum is found by its marginal
likelihood, whose gradient is that of a Gaussian linear model: what the posterior says of each weight against what the
prior says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import linalg, optimize

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.axes import Axis
from gpkit.inference.collocation.bases import Array, Basis
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.lattice import LatticeBasis, MixtureSpectrum
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.noisy_rows import Statistics, data_grid, exact_rows, noisy_rows
from gpkit.inference.collocation.rows import Rows
from gpkit.inference.collocation.uncertainty import DenseCovariance
from gpkit.inference.collocation.weight_posterior import WeightPosterior

__all__ = ["is_noisy", "solve_noisy"]

_MOST = 2400  # weights of all fields together
_NEWTON = 30
_REFUSED = 1e30
_COSTLY = 600  # weights above which the search for the prior ends at a thousandth of a nat
_LOOSE = 0.05  # mean square misfit of exact rows, in units of their noise, above which functions are missing


def is_noisy(layout: Layout) -> bool:
    """Whether equations or conditions have noise, or a field has no equation: then a prior is needed."""
    problem = layout.problem
    noises = [s.data.noise for s in layout.sources] + [f.value.data.noise for f in layout.faces]
    noises += [right.data.noise for _, right in layout.others]
    return bool(problem.free or any(n > 0.0 for n in noises))


@dataclass
class _Frame:
    """Lattice bases in the shape of a discretisation: no conditions are built into them."""

    layout: Layout
    bases: list[Basis]
    axes: list[list[Axis]]
    nodes: list[Array]
    weights: list[Array]

    @classmethod
    def of(cls, layout: Layout, bases: Sequence[Basis]) -> _Frame:
        row = [Axis(b) for b in bases]
        grids = [b.nodes(int(1.3 * b.size) + 4) for b in bases]
        return cls(layout, list(bases), [row] * layout.count, [g[0] for g in grids], [g[1] for g in grids])


def _picks(layout: Layout, grid: Sequence[int]) -> tuple[list[list[float]], bool]:
    """Frequencies of sources along each axis that stand out of their noise, and whether they explain the rest."""
    complete = True
    found: list[list[float]] = [[] for _ in range(layout.dim)]
    for i, source in enumerate(layout.sources):
        axes = data_grid(layout, i, grid)
        values = source.data.values
        table = np.asarray(values, dtype=np.float64) if values is not None else source.on_grid(axes)
        for j, x in enumerate(axes):
            if len(x) < 16 or np.ptp(np.diff(x)) > 1e-6 * (x[1] - x[0]):
                continue
            lines = np.moveaxis(table, j, 0).reshape(len(x), -1)
            step = max(1, lines.shape[1] // 200)
            picks = clean(x, lines[:, ::step], tolerance=1e-3, most=6, noise=source.data.noise)
            length = layout.ends[j][1] - layout.ends[j][0]
            complete = complete and picks.complete
            found[j] += [p for p in picks.frequencies if p > 1.5 / length]
    return found, complete


class _Evidence:
    """Likelihood of the spectra of all fields: of noisy rows given the exact ones.

    Exact rows are constraints and no data. Counted as data they would reward any prior that makes fields small, since a
    residual of zero at many places is then no surprise.
    """

    def __init__(self, spectra: Sequence[MixtureSpectrum], noisy: Statistics, exact: Statistics | None = None) -> None:
        self.spectra, self._exact = spectra, exact if exact is not None and exact.count else None
        self._all = noisy if self._exact is None else noisy.plus(self._exact)
        self._cuts = np.cumsum([len(s.start) for s in spectra])[:-1]

    def log_variances(self, theta: torch.Tensor) -> torch.Tensor:
        parts = torch.tensor_split(theta, torch.as_tensor(self._cuts))
        return torch.cat([s.log_variances(t) for s, t in zip(self.spectra, parts, strict=True)])

    def weights(self, log_variances: Array) -> tuple[Array, Array, Array, float]:
        """Posterior mean and covariance root of the weights, moments over prior variances, log density of all rows."""
        return self._condition(self._all, log_variances)

    @staticmethod
    def _condition(s: Statistics, log_variances: Array) -> tuple[Array, Array, Array, float]:
        root = np.exp(0.5 * log_variances)
        precision = root[:, None] * s.gram * root
        precision[np.diag_indices_from(precision)] += 1.0
        factor = linalg.cholesky(precision, lower=True, overwrite_a=True, check_finite=False)
        half = linalg.solve_triangular(factor, root * s.projected, lower=True, check_finite=False)
        inverse, _ = linalg.lapack.dtrtri(factor, lower=1)
        white = inverse.T @ half
        moments = white**2 + np.sum(inverse**2, axis=0)
        quadratic = s.square - float(half @ half)
        log_det = 2.0 * float(np.log(np.diagonal(factor)).sum())
        evidence = -0.5 * (quadratic + log_det + s.log_noise + s.count * math.log(2.0 * math.pi))
        return root * white, root[:, None] * inverse.T, moments, evidence

    def objective(self, values: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(values).requires_grad_()
        log_variances = self.log_variances(theta)
        parts = torch.tensor_split(theta, torch.as_tensor(self._cuts))
        prior = torch.stack([s.log_prior(t) for s, t in zip(self.spectra, parts, strict=True)]).sum()
        try:
            _, _, moments, evidence = self.weights(log_variances.detach().numpy())
            given = np.ones_like(moments)
            if self._exact is not None:
                _, _, given, density = self._condition(self._exact, log_variances.detach().numpy())
                evidence -= density
        except np.linalg.LinAlgError:  # a prior so wide that the noise rounds away: the line search steps back
            return _REFUSED, np.zeros_like(values)
        slopes = torch.from_numpy(0.5 * (moments - given))
        ((log_variances * slopes).sum() + prior).backward()
        assert theta.grad is not None
        return -(evidence + float(prior.detach())), -theta.grad.numpy()

    def maximise(self, start: Array, iterations: int) -> tuple[Array, float, int]:
        bounds = [b for s in self.spectra for b in s.bounds]
        result = optimize.minimize(
            self.objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": iterations, "ftol": 1e-7 if len(self._all.gram) > _COSTLY else 2e-9},
        )
        return np.asarray(result.x), -float(result.fun), int(result.nfev)


@dataclass
class _Fit:
    """A posterior with the prior found for it.

    Attributes:
        rows: What the weights are of.
        mean: Of the weights.
        root: Of their covariance.
        theta: Parameters of the spectra.
        scale: Size of the fields under the prior.
        exact: Mean square misfit of exact rows in units of the noise they were given.
        noisy: That of noisy rows.
        surprise: By how many standard deviations it is above one.
        rank: Number of weights that the data determine.
        log_evidence: At the maximum.
        evaluations: Of the evidence.
        steps: Relative steps of the linearisation.
    """

    rows: Rows
    mean: Array
    root: Array
    theta: Array
    scale: float
    exact: float
    noisy: float
    surprise: float
    rank: float
    log_evidence: float
    evaluations: int
    steps: list[float]


def solve_noisy(layout: Layout, grid: Sequence[int]) -> WeightPosterior:
    """Posterior of the fields of a problem with noise.

    Args:
        layout: The problem.
        grid: Points per axis, where a noisy source is a function.

    Raises:
        InvalidDataError: More weights than fit.
        ConvergenceError: The linearisation of a nonlinear problem does not settle.
    """
    picks, complete = _picks(layout, grid)
    low, reach = {1: (40, 12), 2: (9, 2)}.get(layout.dim, (3, 1))
    if not complete:
        low = {1: max(grid), 2: 14}.get(layout.dim, 5)
    share, theta, fit = 1e-3, None, None
    for _ in range(6):
        bases = _bases(layout, grid, picks, low, reach)
        if bases is None:
            break
        fit = _fit(layout, grid, bases, picks, share, theta)
        theta = fit.theta
        spread = _spread(layout, fit) / fit.scale
        if (fit.exact > _LOOSE or fit.surprise > 5.0) and low < max(grid):
            low = int(1.4 * low) + 1  # the functions cannot follow the solution
        elif spread < 10.0 * share and share > 1e-6:
            share *= 0.1  # what counts as exact has to be far below what is uncertain
        else:
            break
    if fit is None:
        columns = layout.count * (2 * low) ** layout.dim
        raise InvalidDataError(
            f"the posterior of this noisy problem needs about {columns} weights ({8e-6 * columns**2:.0f} MB per"
            f" matrix); at most {_MOST} are taken: use fewer dimensions or a smoother source"
        )
    rows, own = fit.rows, list(fit.rows.disc.bases)
    diagnostics: dict[str, Any] = {
        "method": (
            f"spectral: weight-space regression on {' x '.join(str(b.size) for b in own)} harmonics with a"
            " spectral-mixture prior found by marginal likelihood, because sources or observations are noisy"
        ),
        "sizes": tuple(b.size for b in own),
        "frequencies": tuple(tuple(p) for p in picks),
        "log_evidence": fit.log_evidence,
        "evidence_evaluations": fit.evaluations,
        "effective_rank": fit.rank,
        "exact_misfit": math.sqrt(fit.exact) * share,
        "noise_misfit": math.sqrt(fit.noisy),
        "newton_steps": fit.steps,
    }
    root = fit.root
    return WeightPosterior(own, rows.fields(fit.mean), diagnostics, lambda: DenseCovariance(rows.bare(), root))


def _spread(layout: Layout, fit: _Fit) -> float:
    """Smallest typical standard deviation of a field inside the box."""
    generator = np.random.default_rng(0)
    points = np.stack([generator.uniform(*ends, size=64) for ends in layout.ends], axis=1)
    covariance = DenseCovariance(fit.rows.bare(), fit.root)
    zero = (0,) * layout.dim
    return min(float(np.sqrt(np.median(covariance.variance(Jet(f, zero), points)))) for f in range(layout.count))


def _fit(
    layout: Layout,
    grid: Sequence[int],
    bases: list[LatticeBasis],
    picks: list[list[float]],
    share: float,
    theta: Array | None,
) -> _Fit:
    """Find the prior and the posterior on given functions, from parameters of a fit before it if there was one."""
    rows = Rows(_Frame.of(layout, bases))
    spectra = [MixtureSpectrum(bases, [[0.0, *sorted(own)] for own in picks]) for _ in range(layout.count)]
    first = theta is None
    values = np.concatenate([s.start for s in spectra]) if theta is None else theta
    state = [np.zeros(tuple(b.size for b in bases)) for _ in range(layout.count)]
    evaluations, steps = 0, []
    for step in range(1 if layout.problem.is_linear else _NEWTON):
        noisy = noisy_rows(layout, rows, state, grid)
        if first and step == 0:
            _start_scale(spectra, noisy, values)
        scale = math.exp(0.5 * float(values[0]))
        exact = exact_rows(layout, rows, state, scale, share)
        evidence = _Evidence(spectra, noisy, exact)
        values, log_evidence, used = evidence.maximise(values, 80 if first and step == 0 else 15)
        evaluations += used
        log_variances = evidence.log_variances(torch.from_numpy(values)).detach().numpy()
        try:
            mean, root, _, _ = evidence.weights(log_variances)
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(
                "no prior was found under which the noise is told from rounding: noise of very different sizes, or an"
                " equation that nothing determines (values that are exact have noise 0)"
            ) from error
        moved = rows.fields(mean)
        change = math.sqrt(sum(float(np.vdot(a - b, a - b)) for a, b in zip(moved, state, strict=True)))
        size = math.sqrt(sum(float(np.vdot(a, a)) for a in moved)) or 1.0
        state = moved
        steps.append(change / size)
        if change <= 1e-8 * size:
            break
    if not layout.problem.is_linear and steps[-1] > 1e-4:
        raise ConvergenceError(f"the linearisation does not settle: relative steps {[f'{s:.1e}' for s in steps]}")
    misfit = noisy.misfit(mean)
    rank = rows.columns - float(np.sum((root / np.exp(0.5 * log_variances)[:, None]) ** 2))
    return _Fit(
        rows, mean, root, values, math.exp(0.5 * float(values[0])), exact.misfit(mean), misfit,
        (misfit - 1.0) / math.sqrt(2.0 / max(noisy.count, 1)), rank,
        log_evidence, evaluations, steps,
    )  # fmt: skip


def _bases(
    layout: Layout, grid: Sequence[int], picks: list[list[float]], low: int, reach: int
) -> list[LatticeBasis] | None:
    """Functions of each axis, or None where they are too many together."""
    bases = []
    for j, (lower, upper) in enumerate(layout.ends):
        most = max(2, int(0.5 * grid[j]))
        bases.append(LatticeBasis.around(lower, upper, picks[j], low, reach, most, j in layout.problem.periodic))
    return bases if layout.count * math.prod(b.size for b in bases) <= _MOST else None


def _start_scale(spectra: Sequence[MixtureSpectrum], statistics: Statistics, theta: Array) -> None:
    """Set the variances of all fields so that the prior makes noisy data of the size that they have."""
    with torch.no_grad():
        shapes = [s.log_variances(torch.from_numpy(s.start)).numpy() for s in spectra]
    made = float(np.exp(np.concatenate(shapes)) @ np.diagonal(statistics.gram))
    if made <= 0.0 or statistics.square <= 0.0:
        return
    at = 0
    for s in spectra:
        theta[at] += math.log(statistics.square / made)
        at += len(s.start)
