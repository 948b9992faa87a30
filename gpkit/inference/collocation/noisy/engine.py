"""Noisy sources and observations: a Gaussian process prior in weight space, conditioned on every row with its noise.

Exact equations and conditions enter as rows of very small noise. The prior's spectrum, and noise that is not known, are
found by their marginal likelihood, whose gradient is that of a Gaussian linear model: what the posterior says of each
weight against what the prior says. Components that the data do not ask for are left out: kept, they would make
intervals as wide as what noise could hide in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.axes import Axis
from gpkit.inference.collocation.bases import Array, Basis, evaluate_points
from gpkit.inference.collocation.forms import Jet
from gpkit.inference.collocation.frequencies import clean
from gpkit.inference.collocation.layout import Layout
from gpkit.inference.collocation.noisy.averaging import averaged
from gpkit.inference.collocation.noisy.evidence import Evidence
from gpkit.inference.collocation.noisy.lattice import LatticeBasis
from gpkit.inference.collocation.noisy.levels import first_guess, has_unknown_noise
from gpkit.inference.collocation.noisy.rows import Statistics, data_grid, exact_rows, noisy_rows
from gpkit.inference.collocation.noisy.spectrum import TensorSpectrum
from gpkit.inference.collocation.rows import Rows
from gpkit.inference.collocation.spectral.weight_posterior import WeightPosterior
from gpkit.inference.collocation.uncertainty import DenseCovariance

__all__ = ["is_noisy", "solve_noisy"]

_MOST = 2400  # weights of all fields together
_NEWTON = 30
_SEARCH = (15, 25, 60, 15)  # iterations between which components that are worth nothing are left out
_TIGHTEST = 1e-8  # share of exact rows' size under the prior that rounding still leaves alone
_WORTH = 0.1  # nats by which tighter equations have to make the data more likely
_FULL = 0.95  # share of the weights that data determine above which functions are missing
_LOOSE = 0.05  # mean square misfit of exact rows, in units of their noise, above which functions are missing


def is_noisy(layout: Layout) -> bool:
    """Whether a prior is needed: data have noise, a field has no equation, or observations stand in for conditions."""
    problem = layout.problem
    noises = [s.data.noise for s in layout.sources] + [f.value.data.noise for f in layout.faces]
    noises += [right.data.noise for _, right in layout.others]
    if problem.free or any(n != 0.0 for n in noises) or has_unknown_noise(problem):
        return True
    return any(bool((o.noise > 0.0).any()) for o in problem.observations) and not _is_conditioned(layout)


def _is_conditioned(layout: Layout) -> bool:
    """Whether every field has as many conditions along every axis as its equations have derivatives."""
    for field, orders in enumerate(layout.orders):
        for axis, order in enumerate(orders):
            given = len(layout.faces_of(field, axis))
            given += sum(c.axis == axis and any(t.jet.field == field for t in c.terms) for c, _ in layout.others)
            if axis not in layout.problem.periodic and given < order:
                return False
    return True


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
            noise = first_guess(table) if math.isnan(source.data.noise) else source.data.noise
            picks = clean(x, lines[:, ::step], tolerance=1e-3, most=6, noise=noise)
            length = layout.ends[j][1] - layout.ends[j][0]
            complete = complete and picks.complete
            found[j] += [p for p in picks.frequencies if p > 1.5 / length]
    return found, complete


@dataclass
class _Fit:
    """A posterior with the prior found for it.

    Attributes:
        rows: What the weights are of.
        evidence: Of their priors.
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
        levels: Noise that was found where none was stated.
    """

    rows: Rows
    evidence: Evidence
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
    levels: list[float]


def solve_noisy(layout: Layout, grid: Sequence[int], *, hidden: bool = False) -> WeightPosterior:
    """Posterior of the fields of a problem with noise.

    Args:
        layout: The problem.
        grid: Points per axis, where a noisy source is a function.
        hidden: Whether intervals count on slow parts of the fields that the noise could hide.

    Raises:
        InvalidDataError: More weights than fit.
        ConvergenceError: The linearisation of a nonlinear problem does not settle.
    """
    picks, complete = _picks(layout, grid)
    low, reach = {1: (40, 12), 2: (9, 2)}.get(layout.dim, (3, 1))
    if not complete:
        low = {1: max(grid) // 2, 2: 14}.get(layout.dim, 5)
    share, fit, relative = 1e-4, None, 0.0
    before: _Fit | None = None
    held = 0
    for _ in range(6):
        bases = _bases(layout, grid, picks, low, reach)
        while bases is None and fit is not None and low > held + 1:
            low -= 1  # fewer than were wished for, and more than there were
            bases = _bases(layout, grid, picks, low, reach)
        if bases is None:
            break
        held = low
        before = fit = _fit(layout, grid, bases, picks, share, before)
        std, relative = _spread(layout, fit)
        spread = std / fit.scale
        missed = fit.exact > _LOOSE and math.sqrt(fit.exact) * share > 0.1 * spread
        full = fit.rank > _FULL * fit.rows.columns
        if (missed or full or fit.surprise > 5.0) and low < max(grid):
            low = int(1.4 * low) + 1  # the functions cannot follow the solution
            if full:
                before = None  # equations were met by large weights that cancel: no start for a search
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
    if any(source.data.noise == 0.0 for source in layout.sources):
        fit, share = _enforced(layout, grid, picks, share, fit)
        std, relative = _spread(layout, fit)
    if fit.rank < 1e-3 and fit.surprise > 20.0:
        raise ConvergenceError(
            "the search for the prior ended where fields vanish, which the noisy data contradict: state the noise, or"
            " give some of the values as Observe(...)"
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
        "components": _components(layout, fit, picks),
        "residual_tolerance": 0.1 * min(relative, 1.0),  # well below what is uncertain
    }
    if fit.levels:
        diagnostics["noise_levels"] = fit.levels
    mean, root, smooth = averaged(
        fit.evidence, fit.theta, (fit.mean, fit.root), fit.scale, linear=layout.problem.is_linear, hidden=hidden
    )
    diagnostics["components"]["averaged"] = smooth
    return WeightPosterior(own, rows.fields(mean), diagnostics, lambda: DenseCovariance(rows.bare(), root))


def _enforced(
    layout: Layout, grid: Sequence[int], picks: list[list[float]], share: float, fit: _Fit
) -> tuple[_Fit, float]:
    """The fit with exact equations as tight as makes the noisy data most likely, and how tight that is.

    The noise of exact rows is a share of their size under the prior. Of a rough prior that is large: the equation is
    then not enforced, and deviations are those of a field without one. Too tight a share asks of the functions what
    they cannot follow, and the evidence falls.
    """
    bases = [b for b in fit.rows.disc.bases if isinstance(b, LatticeBasis)]
    factors = [0.3, 0.1]
    while factors and factors[0] * share > _TIGHTEST:
        other = _fit(layout, grid, bases, picks, factors[0] * share, fit)
        if other.log_evidence < fit.log_evidence + _WORTH:
            del factors[0]  # a search may also have ended early: once more from further on
        else:
            fit, share = other, factors[0] * share
    return fit, share


def _components(layout: Layout, fit: _Fit, picks: list[list[float]]) -> dict[str, Any]:
    """Components of the spectra that were kept, and what noise could hide of a smooth one that was not.

    ``hidden`` is the standard deviation of a component at frequency zero that would change the evidence by two nats:
    fields may hold that much of it without showing, and intervals do not count on it.
    """
    centres = [[0.0, *sorted(own)] for own in picks]
    kept: list[list[float]] = []
    hidden, offered, at = [], 0, 0
    for spectrum in fit.evidence.spectra:
        offered += spectrum.alive.size
        kept += [[own[i] for own, i in zip(centres, place, strict=True)] for place in np.argwhere(spectrum.alive)]
        if not spectrum.alive.flat[0]:
            weight = fit.evidence.hidden(spectrum, at, fit.theta)
            hidden.append(math.sqrt(weight / 2.0**layout.dim))
        at += len(spectrum.start)
    return {"offered": offered, "kept": len(kept), "frequencies": kept, "hidden": max(hidden, default=0.0)}


def _spread(layout: Layout, fit: _Fit) -> tuple[float, float]:
    """Smallest typical standard deviation of a field inside the box, and the smallest relative to its size there."""
    generator = np.random.default_rng(0)
    points = np.stack([generator.uniform(*ends, size=64) for ends in layout.ends], axis=1)
    covariance = DenseCovariance(fit.rows.bare(), fit.root)
    means, found = fit.rows.fields(fit.mean), []
    for f in range(layout.count):
        jet = Jet(f, (0,) * layout.dim)
        std = float(np.sqrt(np.median(covariance.variance(jet, points))))
        size = float(np.sqrt(np.mean(evaluate_points(fit.rows.disc.bases, jet.orders, means[f], points) ** 2)))
        found.append((std, std / max(size, 1e-300)))
    return min(s for s, _ in found), min(r for _, r in found)


def _fit(
    layout: Layout,
    grid: Sequence[int],
    bases: list[LatticeBasis],
    picks: list[list[float]],
    share: float,
    before: _Fit | None,
) -> _Fit:
    """Find the prior and the posterior on given functions, from parameters of a fit before it if there was one."""
    rows = Rows(_Frame.of(layout, bases))
    spectra = [TensorSpectrum(bases, [[0.0, *sorted(own)] for own in picks]) for _ in range(layout.count)]
    values = np.concatenate([*(s.start for s in spectra), np.log(_noise_starts(layout, grid))])
    first = before is None
    if before is not None:
        values = before.theta
        for spectrum, old in zip(spectra, before.evidence.spectra, strict=True):
            spectrum.alive = old.alive
    state = [np.zeros(tuple(b.size for b in bases)) for _ in range(layout.count)]
    evaluations, steps = 0, []
    for step in range(1 if layout.problem.is_linear else _NEWTON):
        noisy, unknown = noisy_rows(layout, rows, state, grid)
        if first and step == 0:
            _start_scale(spectra, _with_levels(noisy, unknown, values), values)
        exact = exact_rows(layout, rows, state, _scale(spectra, values), share)
        evidence = Evidence(spectra, noisy, exact, unknown)
        for most in _SEARCH if first and step == 0 else _SEARCH[-1:]:
            values, log_evidence, used = evidence.maximise(values, most)
            evaluations += used
            if first and step == 0 and not evidence.prune(values) and used < most:
                break
        try:
            found = evidence.posterior(values)
            for _ in range(2):
                values = _consistent(spectra, values, found.mean)
                found = evidence.posterior(values)
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(
                "no prior was found under which the noise is told from rounding: noise of very different sizes, or an"
                " equation that nothing determines (values that are exact have noise 0)"
            ) from error
        moved = rows.fields(found.mean)
        change = math.sqrt(sum(float(np.vdot(a - b, a - b)) for a, b in zip(moved, state, strict=True)))
        size = math.sqrt(sum(float(np.vdot(a, a)) for a in moved)) or 1.0
        state = moved
        steps.append(change / size)
        if change <= 1e-8 * size:
            break
    if not layout.problem.is_linear and steps[-1] > 1e-4:
        raise ConvergenceError(f"the linearisation does not settle: relative steps {[f'{s:.1e}' for s in steps]}")
    everything = _with_levels(noisy, unknown, values)
    misfit = everything.misfit(found.mean)
    levels = np.exp(values[len(values) - len(unknown) :]).tolist()
    return _Fit(
        rows, evidence, found.mean, found.root, values, _scale(spectra, values), exact.misfit(found.mean), misfit,
        (misfit - 1.0) / math.sqrt(2.0 / max(everything.count, 1)), found.rank, log_evidence, evaluations, steps,
        levels,
    )  # fmt: skip


def _noise_starts(layout: Layout, grid: Sequence[int]) -> list[float]:
    """Where the search for every unknown noise begins, in the order of the rows."""
    starts = []
    for i, source in enumerate(layout.sources):
        if math.isnan(source.data.noise):
            values = source.data.values
            on_grid = source.on_grid(data_grid(layout, i, grid)) if values is None else np.asarray(values)
            starts.append(first_guess(on_grid))
    for face in layout.faces:
        if math.isnan(face.value.data.noise):
            given = face.value.data.values
            starts.append(first_guess(np.asarray(given) if given is not None else np.ones(1)))
    for observation in layout.problem.observations:
        unknown = np.isnan(np.asarray(observation.noise))
        if unknown.any():
            starts.append(0.3 * (float(np.std(np.asarray(observation.values)[unknown])) or 1.0))
    return starts


def _with_levels(known: Statistics, unknown: Sequence[Statistics], values: Array) -> Statistics:
    """All noisy rows, where the last parameters are logarithms of the noise of some."""
    total = known
    for s, log_noise in zip(unknown, values[len(values) - len(unknown) :], strict=True):
        total = total.plus(s.rescaled(float(log_noise)))
    return total


def _scale(spectra: Sequence[TensorSpectrum], theta: Array) -> float:
    """Size of the largest field under the prior."""
    total, at = 0.0, 0
    for s in spectra:
        total = max(total, float(s.weights(theta[at : at + len(s.start)]).sum()))
        at += len(s.start)
    return math.sqrt(total)


def _consistent(spectra: Sequence[TensorSpectrum], theta: Array, mean: Array) -> Array:
    """Weights of components no smaller than what the mean already takes of them, as exact conditions may demand."""
    raised, at, column = theta.copy(), 0, 0
    for s in spectra:
        own = raised[at : at + len(s.start)]
        taken = s.shares(own, mean[column : column + s.functions])
        weights = s.weights(own)
        raise_ = s.alive & (taken > weights)
        own[: s.size][raise_.ravel()] = np.log(taken[raise_])
        at, column = at + len(s.start), column + s.functions
    return raised


def _bases(
    layout: Layout, grid: Sequence[int], picks: list[list[float]], low: int, reach: int
) -> list[LatticeBasis] | None:
    """Functions of each axis, or None where they are too many together."""
    bases = []
    for j, (lower, upper) in enumerate(layout.ends):
        most = max(2, int(0.5 * grid[j]))
        bases.append(LatticeBasis.around(lower, upper, picks[j], low, reach, most, j in layout.problem.periodic))
    return bases if layout.count * math.prod(b.size for b in bases) <= _MOST else None


def _start_scale(spectra: Sequence[TensorSpectrum], statistics: Statistics, theta: Array) -> None:
    """Set the weights of all fields so that the prior makes noisy data of the size that they have."""
    made = float(np.concatenate([s.variances(s.start) for s in spectra]) @ np.diagonal(statistics.gram))
    if made <= 0.0 or statistics.square <= 0.0:
        return
    at = 0
    for s in spectra:
        theta[at : at + s.size] += math.log(statistics.square / made)
        at += len(s.start)
