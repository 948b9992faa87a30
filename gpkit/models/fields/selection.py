"""Which kernel a field gets: every candidate is fitted, and the Laplace evidence decides."""

from __future__ import annotations

import functools
import math
import sys
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from gpkit.errors import ConvergenceError, NotPositiveDefiniteError
from gpkit.inference.log_parameters import LogFit, log_prior, maximise_log
from gpkit.inference.threads import one_blas_thread
from gpkit.models.fields.jackknife import LeftOut, predict_left_out, predict_refitted
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.speed_term import SPEED
from gpkit.models.fields.stacking import EVIDENCE_POWER, stacking_weights

__all__ = ["Candidate", "KernelComparison", "best_start", "fit_candidates", "fit_regression"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fitted kernel.

    Attributes:
        name: Of the kernel.
        regression: Data and terms.
        fit: The maximum a posteriori.
        left_out: Each observed place given all others; for kernels with many parameters by those that a fit without
            it would have.
    """

    name: str
    regression: FieldRegression
    fit: LogFit
    left_out: LeftOut

    @property
    def elpd(self) -> float:
        """Sum of the leave-one-place-out log predictive densities."""
        return float(self.left_out.density.sum())


@dataclass(frozen=True, eq=False)
class KernelComparison:
    """Fitted kernels, best first, and those that were not fitted with the reason.

    Attributes:
        candidates: Sorted by evidence.
        left_out: Reason by name.
        exact: Whether what they were fitted to has no noise.
    """

    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    exact: bool = False

    @functools.cached_property
    def weights(self) -> dict[str, float]:
        """Stacking weights by kernel (:mod:`gpkit.models.fields.stacking`); those without weight are left out."""
        weights = stacking_weights(
            np.stack([c.left_out.density for c in self.candidates]),
            self.best.regression.values,
            np.stack([c.left_out.mean for c in self.candidates]),
            np.array([c.left_out.variance for c in self.candidates]),
            np.array([c.fit.log_evidence for c in self.candidates]),
            exact=self.exact,
        )
        return {c.name: float(w) for c, w in zip(self.candidates, weights, strict=True) if w > 0.0}

    @functools.cached_property
    def noise(self) -> float | None:
        """Standard deviation of the noise: the kernels' mean by powers of the evidence; None where it is known."""
        if self.best.regression.noise is not None:
            return None
        deviations = [math.exp(float(c.regression.split(c.fit.theta)[0])) for c in self.candidates]
        evidences = np.array([c.fit.log_evidence for c in self.candidates])
        return float(np.average(deviations, weights=np.exp(EVIDENCE_POWER * (evidences - evidences.max()))))

    @property
    def best(self) -> Candidate:
        """The one with the highest evidence."""
        return self.candidates[0]

    @property
    def table(self) -> pd.DataFrame:
        """Scores by kernel: log evidence, log likelihood, leave-one-out density, parameters, convergence, seconds."""
        top = self.best.fit.log_evidence
        return pd.DataFrame(
            {
                "log_evidence": [c.fit.log_evidence for c in self.candidates],
                "delta": [c.fit.log_evidence - top for c in self.candidates],
                "log_likelihood": [c.fit.log_likelihood for c in self.candidates],
                "elpd_loo": [c.elpd for c in self.candidates],
                "weight": [self.weights.get(c.name, 0.0) for c in self.candidates],
                "n_parameters": [len(c.fit.theta) for c in self.candidates],
                "converged": [c.fit.converged for c in self.candidates],
                "seconds": [c.fit.seconds for c in self.candidates],
            },
            index=pd.Index([c.name for c in self.candidates], name="kernel"),
        )

    def verdict(self) -> str:
        """Who won, in a sentence."""
        if len(self.candidates) == 1:
            return f"{self.best.name} was fitted; nothing was compared."
        second = self.candidates[1]
        lead = self.best.fit.log_evidence - second.fit.log_evidence
        how = "decisively" if lead > 5.0 else ("clearly" if lead > 2.3 else "by little")
        shares = sorted(self.weights.items(), key=lambda item: -item[1])
        mixture = ", ".join(f"{100 * w:.0f} % {name}" for name, w in shares)
        return (
            f"{self.best.name} has the highest evidence, {how}: {second.name} is {lead:.1f} behind in ln evidence. "
            f"Stacking weights: {mixture}."
        )

    def __repr__(self) -> str:
        return f"{self.verdict()}\n{self.table.round(2).to_string()}"


def fit_regression(regression: FieldRegression, *, starts: int = 1, seed: int = 0, init: Array | None = None) -> LogFit:
    """Fit from the best point of a coarse scan of length scales (or from a given one), then from further starts.

    Raises:
        ConvergenceError: no start found a finite density.
    """
    return maximise_log(regression, starts=starts, seed=seed, init=[best_start(regression) if init is None else init])


def best_start(regression: Any) -> Array:
    """The best by log posterior of the points that a regression thinks worth trying.

    Args:
        regression: A :class:`gpkit.inference.log_parameters.LogDensity` with ``starts()``.
    """
    points = regression.starts()
    scores = []
    for point in points:
        try:
            scores.append(regression.value_and_gradient(point)[0] + log_prior(regression.parameters, point)[0])
        except NotPositiveDefiniteError:
            scores.append(-np.inf)
    best: Array = points[int(np.argmax(scores))]
    return best


def _warm_start(regression: FieldRegression, name: str, fitted: Sequence[Candidate]) -> Array | None:
    """Where a sum begins: at the fits of its parts, with equal shares of the variance; None for other kernels.

    A kernel with speeds begins with one speed, at the fit of the same kernel without.
    """
    plain = next((c for c in fitted if SPEED in name and c.name == name.replace(SPEED, "")), None)
    if plain is not None:
        known = dict(zip((p.name for p in plain.regression.parameters), plain.fit.theta, strict=True))
        return np.array([known.get(p.name.replace(SPEED, ""), math.log(p.start)) for p in regression.parameters])
    parts = [next((c for c in fitted if c.name == part), None) for part in name.split(" + ")]
    if len(parts) < 2 or any(part is None for part in parts):
        return None
    given = [part for part in parts if part is not None]
    learnt = int(given[0].regression.noise is None)
    point = [given[0].fit.theta[:learnt]]
    for part in given:
        share = np.array([p.unit == "value" for p in part.regression.parameters[learnt:]])
        point.append(part.fit.theta[learnt:] - 0.5 * np.log(len(given)) * share)
    start = np.concatenate(point)
    return start if len(start) == len(regression.parameters) else None


def _candidate(
    name: str, regression: FieldRegression, starts: int, seed: int, fitted: Sequence[Candidate], *, exact: bool
) -> Candidate:
    fit = fit_regression(regression, starts=starts, seed=seed, init=_warm_start(regression, name, fitted))
    if regression.flexible:
        return Candidate(name, regression, fit, predict_refitted(regression, fit, exact=exact))
    return Candidate(name, regression, fit, predict_left_out(regression, fit.theta))


def fit_candidates(
    names: Sequence[str],
    make: Callable[[str], FieldRegression],
    *,
    further: Sequence[Callable[[Sequence[Candidate]], Sequence[str]]] = (),
    left_out: dict[str, str] | None = None,
    starts: int = 1,
    seed: int = 0,
    progress: bool = True,
    exact: bool = False,
) -> KernelComparison:
    """Fit kernels one after the other, and those that rounds of ``further`` make of the fitted ones.

    Args:
        names: Kernels.
        make: The regression of a kernel.
        further: Each gives names of kernels worth trying, from the candidates so far, best first.
        left_out: Reasons of those that were not tried; those that ``further`` and the fits leave out are added.
        starts: Starts of each fit.
        seed: Of the starts.
        progress: Whether a bar is shown where stderr is a terminal.
        exact: Whether the data have no noise.

    Raises:
        ConvergenceError: no candidate could be fitted.
    """
    skipped = {} if left_out is None else left_out
    fitted: list[Candidate] = []
    begun = clock.perf_counter()
    with tqdm(
        total=len(names), unit="kernel", desc="comparing", leave=False, disable=not (progress and sys.stderr.isatty())
    ) as bar:

        def run(name: str) -> None:
            try:
                regression = make(name)
                with one_blas_thread():
                    fitted.append(_candidate(name, regression, starts, seed, fitted, exact=exact))
            except (ConvergenceError, NotPositiveDefiniteError) as error:
                skipped[name] = str(error)
            bar.update()

        for name in names:
            run(name)
        for propose in further:
            fitted.sort(key=lambda c: -c.fit.log_evidence)
            more = propose(fitted) if fitted else []
            bar.total += len(more)
            for name in more:
                run(name)
    if not fitted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ConvergenceError(f"no kernel could be fitted in {clock.perf_counter() - begun:.1f} s ({reasons})")
    fitted.sort(key=lambda c: -c.fit.log_evidence)
    return KernelComparison(tuple(fitted), skipped, exact)
