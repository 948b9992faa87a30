"""What models of vector fields, functions and edge flows share: fits, draws of parameters, predictions."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
from numpy.typing import NDArray

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import SpectralBasis
from gpkit.inference.inference_data import provenance, to_inference_data
from gpkit.inference.log_parameters import laplace_points, sample_log
from gpkit.models.fields.calculus import FieldFunctional
from gpkit.models.fields.comparing import full_rank_members, kernels_that_fit, notes_of, sums_worth_trying
from gpkit.models.fields.fit_result import FieldFit
from gpkit.models.fields.kernel_term import bases_of_terms, terms_of_kernel
from gpkit.models.fields.kernels import Setting, candidates, make_terms
from gpkit.models.fields.observations import Observations
from gpkit.models.fields.predictions import FieldPrediction
from gpkit.models.fields.regression import FieldPosterior, FieldRegression
from gpkit.models.fields.selection import Candidate, KernelComparison, fit_candidates
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.storage import load_field, save_field
from gpkit.models.fields.terms import Scales, Term

__all__ = ["FieldGP"]

Array = NDArray[np.float64]

_COMPONENTS = 20
"""Draws of the parameters that predictions average over."""
_AROUND = 8
"""Points of Laplace's approximation that predictions average over."""
_KEPT_ROWS = 500
"""Observed coordinates up to which posteriors away from the fit are kept for the next prediction."""
_ROUNDING = 1e-8
"""Standard deviation of what was observed exactly, in units of the values."""
_LOST = 0.1
"""Share of an intrinsic kernel's variance that may be missing between the nodes before somebody is told."""


class FieldGP(ABC):
    """Base of the field models.

    Args:
        kernel: A name (see :mod:`gpkit.models.fields.kernels`), a GPyTorch kernel, or terms.
        combine: What predictions are made of when several kernels were compared: "stacking", their mixture with the
            weights that predict left-out places best, or "best", the one with the highest evidence.
        rank: Number of basis functions of intrinsic kernels; all if there are at most ``full_below`` coordinates.
        full_below: Up to this many coordinates (n d) intrinsic kernels have full rank.
        dense_rows: Up to this many observed coordinates kernels with a dense covariance are used; "auto" leaves
            them out above and says so.
        sparse_unknowns: Up to this many coordinates "auto" and "intrinsic" go on to kernels with all modes where k
            modes are too few; above they say so.
        length_unit: For reports.
        value_unit: For reports.
        uncertainty: "map" for predictions with the fitted parameters; "laplace" to average over eight parameters
            around each fit (points of Laplace's approximation, weighted by the posterior), at eight times the cost.
    """

    _what = "values"

    def __init__(
        self,
        kernel: Any = "auto",
        *,
        combine: str = "stacking",
        rank: int = 300,
        full_below: int = 2500,
        dense_rows: int = 6000,
        sparse_unknowns: int = 30_000,
        length_unit: str = "",
        value_unit: str = "",
        uncertainty: str = "map",
    ) -> None:
        known = isinstance(kernel, str | gpytorch.kernels.Kernel)
        if not known and not (kernel and all(isinstance(term, Term) for term in kernel)):
            raise InvalidDataError(f"kernel must be a name, a GPyTorch kernel or a list of terms, got {kernel!r}")
        sizes = {"rank": rank, "full_below": full_below, "dense_rows": dense_rows, "sparse_unknowns": sparse_unknowns}
        for name, value in sizes.items():
            if value != int(value) or value < (1 if name == "rank" else 0):
                raise InvalidDataError(f"{name} must be a positive integer, got {value!r}")
        if combine not in ("stacking", "best"):
            raise InvalidDataError(f"combine must be 'stacking' or 'best', got {combine!r}")
        if uncertainty not in ("laplace", "map"):
            raise InvalidDataError(f"uncertainty must be 'laplace' or 'map', got {uncertainty!r}")
        self.kernel = kernel
        self.combine = combine
        self.uncertainty = uncertainty
        self.rank = rank
        self.full_below = full_below
        self.dense_rows = dense_rows
        self.sparse_unknowns = sparse_unknowns
        self.length_unit = length_unit
        self.value_unit = value_unit
        self.observations: Observations | None = None
        self.result: FieldFit | None = None
        self.posterior: Any = None
        self._draws: Array | None = None
        self._best: Candidate | None = None
        self._comparison: KernelComparison | None = None
        self._mixture: list[tuple[Candidate, float]] = []
        self._cache: dict[bytes, FieldPosterior] = {}
        self._around: dict[str, tuple[Array, Array]] = {}
        self._bases: dict[str, SpectralBasis] = {}

    def _adopt(self, nodes: int, components: int) -> None:
        """Take a GPyTorch kernel apart, with the bases that it brings; refuse a name that this field cannot have."""
        if isinstance(self.kernel, gpytorch.kernels.Kernel):
            self.kernel = terms_of_kernel(self.kernel, nodes, components)
            self._bases.update(bases_of_terms(self.kernel))
        self._setting(Scales(1.0, 1.0)).check(self.kernel)

    # -- what the kinds of field differ in ------------------------------------------------------------------------

    @abstractmethod
    def _setting(self, scales: Scales) -> Setting:
        """What kernels are built for."""

    @abstractmethod
    def sites(self, where: Any = None) -> Sites:
        """Places by node numbers, a mask, or points; all nodes if None."""

    @abstractmethod
    def _size(self) -> float:
        """Length by which length scales are measured."""

    # -- fitting --------------------------------------------------------------------------------------------------

    def _fit(self, observations: Observations, starts: int, seed: int, progress: bool) -> FieldFit:
        self.observations = observations
        self.result = self.posterior = self._draws = self._best = self._comparison = None
        self._cache, self._around = {}, {}
        if isinstance(self.kernel, str):
            unscaled = self._setting(Scales(1.0, 1.0))
            unscaled.prepare_bases(candidates(self.kernel, unscaled))
        scales = Scales(self._size(), self._value_scale(observations.coordinates))
        setting = self._setting(scales)
        sites = self.sites(observations.where)
        rows = sites.rows
        names, skipped = kernels_that_fit(self.kernel, setting, rows, self.dense_rows)
        complete = not skipped

        def make(name: str) -> FieldRegression:
            if isinstance(self.kernel, str):
                terms = make_terms(name, setting)
            else:
                terms = [t for made in self.kernel for t in (made.make(scales) if hasattr(made, "make") else [made])]
            terms += self._extra_terms(scales)
            return FieldRegression(terms, sites, observations.coordinates, scales, observations.noise)

        def further(fitted: Sequence[Candidate]) -> list[str]:
            sums = sums_worth_trying(fitted) if self.kernel == "auto" and complete else []
            if self.kernel not in ("auto", "intrinsic"):
                return sums
            return [*full_rank_members(fitted, setting, skipped, self.sparse_unknowns), *sums]

        comparison = fit_candidates(
            names, make, combine=further, left_out=skipped, starts=starts, seed=seed, progress=progress
        )
        best = comparison.best
        self._comparison = comparison
        self.use()
        self.result = FieldFit(
            kernel=best.name,
            parameters=best.fit.values,
            log_likelihood=best.fit.log_likelihood,
            log_evidence=best.fit.log_evidence,
            n=len(observations),
            converged=best.fit.converged,
            at_bound=best.fit.at_bound,
            trace=best.fit.trace,
            comparison=comparison,
            notes=tuple(notes_of(best, skipped)),
            seconds=best.fit.seconds,
        )
        for note in self.result.notes:
            warnings.warn(note, DataWarning, stacklevel=3)
        return self.result

    def _value_scale(self, values: Array) -> float:
        """Size of the values by which amplitudes are measured."""
        return float(np.sqrt(np.square(values).mean()))

    def _extra_terms(self, scales: Scales) -> list[Term]:
        return []

    def _fitted(self) -> Candidate:
        if self._best is None:
            raise InvalidDataError(f"{type(self).__name__} has not been fitted: call fit(where, {self._what}) first")
        return self._best

    # -- the parameters' posterior --------------------------------------------------------------------------------

    def sample(
        self,
        draws: int = 500,
        tune: int = 300,
        chains: int = 4,
        seed: int = 0,
        *,
        progress: bool = True,
    ) -> Any:
        """Draw the chosen kernel's parameters from their posterior by NUTS; returns an ``arviz.InferenceData``.

        Predictions average over these draws from then on.

        Args:
            draws: Per chain, after tuning.
            tune: Tuning steps per chain, discarded.
            chains: Number of chains.
            seed: Of everything random.
            progress: Whether a bar is shown.

        Raises:
            InvalidDataError: not fitted yet, or nothing to draw.
        """
        best = self._fitted()
        theta, stats = sample_log(
            best.regression, best.fit, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress
        )
        self._draws = theta
        names = [p.name for p in best.regression.parameters]
        assert self.observations is not None
        self.posterior = to_inference_data(
            {name: np.exp(theta[:, :, k]) for k, name in enumerate(names)},
            stats,
            groups={"observed_data": {"coordinates": self.observations.coordinates}},
            dims={"coordinates": ["place", "coordinate"]},
            attrs=provenance(seed=seed, kernel=best.name, sampler="nutpie", tune=tune),
        )
        return self.posterior

    def _weighted(self, draws: int | None) -> list[tuple[Candidate, Array, float]]:
        """Kernels with parameters and weights: draws of the sampled kernel, points around the fits, or the fits."""
        best = self._fitted()
        out: list[tuple[Candidate, Array, float]] = []
        for candidate, weight in self._mixture:
            thetas, shares = candidate.fit.theta[None], np.ones(1)
            if self._draws is not None and candidate is best:
                flat = self._draws.reshape(-1, self._draws.shape[-1])
                count = min(len(flat), _COMPONENTS if draws is None else max(1, draws))
                thetas = flat[np.linspace(0, len(flat) - 1, count).astype(int)]
                shares = np.full(count, 1.0 / count)
            elif self.uncertainty == "laplace":
                if candidate.name not in self._around:
                    self._around[candidate.name] = laplace_points(candidate.regression, candidate.fit, _AROUND)
                thetas, shares = self._around[candidate.name]
            out += [(candidate, theta, float(weight * share)) for theta, share in zip(thetas, shares, strict=True)]
        return out

    def _components(self, draws: int | None) -> list[tuple[FieldPosterior, float]]:
        """Posteriors of the field with weights."""
        return [(self._posterior_at(c, theta), weight) for c, theta, weight in self._weighted(draws)]

    def _posterior_at(self, candidate: Candidate, theta: Array) -> FieldPosterior:
        key = candidate.name.encode() + np.asarray(theta).tobytes()
        if key in self._cache:
            return self._cache[key]
        found = candidate.regression.posterior(theta)
        if np.array_equal(theta, candidate.fit.theta) or candidate.regression.sites.rows <= _KEPT_ROWS:
            if len(self._cache) > 4 * _COMPONENTS:
                self._cache.clear()
            self._cache[key] = found
        return found

    # -- predictions ----------------------------------------------------------------------------------------------

    def _predict(self, sites: Sites, draws: int | None = None) -> FieldPrediction:
        points = self._weighted(draws)
        leading = max(points, key=lambda point: point[2])[0]
        self._announce(sites, self._posterior_at(leading, leading.fit.theta))
        means, covariances, noise = [], [], []
        for candidate, theta, _ in points:
            component = self._posterior_at(candidate, theta)
            mean, covariance = self._observed(sites, component, *component.moments(sites))
            means.append(mean)
            covariances.append(covariance)
            noise.append(self._noise_of(component))

        def draw(n: int, seed: int) -> Array:
            return self._draw_fields(points, sites, n, seed)

        return FieldPrediction(
            frames=sites.frames.numpy(),
            component_means=np.stack(means),
            component_covariances=np.stack(covariances),
            noise=np.array(noise),
            far=sites.far,
            distance=sites.distance,
            weights=np.array([weight for _, _, weight in points]),
            _draw=draw,
        )

    def _noise_of(self, component: FieldPosterior) -> float:
        """Standard deviation of an observation's error: none where observations are exact."""
        assert self.observations is not None
        if self.observations.exact:
            return 0.0
        return math.nan if component.regression.noise is not None else component.noise

    def _observed(self, sites: Sites, component: FieldPosterior, mean: Array, covariance: Array) -> tuple[Array, Array]:
        """Exact observations: what was learnt as noise is the field's own variation between observed places."""
        assert self.observations is not None
        if not self.observations.exact:
            return mean, covariance
        at, values = self.observations.known_at(sites)
        mean, covariance = mean.copy(), covariance + component.noise**2 * np.eye(sites.d)
        mean[at] = values
        covariance[at] = (_ROUNDING * component.regression.scales.value) ** 2 * np.eye(sites.d)
        return mean, covariance

    @staticmethod
    def _announce(sites: Sites, component: FieldPosterior) -> None:
        """Warn of places about which the nodes say little."""
        if sites.far.any():
            warnings.warn(
                f"{int(sites.far.sum())} of {len(sites)} places are far from the nodes (the furthest by "
                f"{sites.distance.max():.4g}): they get the prior, or what an ambient kernel continues",
                DataWarning,
                stacklevel=4,
            )
        between = sites.take(np.flatnonzero((sites.nodes < 0) & ~sites.far)[:200])
        lost = component.lost_share(between)
        if lost > _LOST:
            warnings.warn(
                f"the nodes are too few for {100 * lost:.0f} % of the kernel's variance between them, about which they "
                "say nothing: give more nodes, or a smoother kernel",
                DataWarning,
                stacklevel=4,
            )

    def _draw_fields(self, points: Sequence[tuple[Candidate, Array, float]], sites: Sites, n: int, seed: int) -> Array:
        """Draws (n, m, d) of tangent coordinates, each from a component drawn by weight."""
        assert self.observations is not None
        rng = np.random.default_rng(seed)
        weights = np.array([weight for _, _, weight in points])
        chosen = rng.choice(len(points), size=n, p=weights / weights.sum())
        out = np.zeros((n, len(sites), sites.d))
        for index in np.unique(chosen):
            mine = np.flatnonzero(chosen == index)
            component = self._posterior_at(*points[index][:2])
            fields = component.sampler(sites)(len(mine), rng).reshape(len(mine), len(sites), sites.d)
            if self.observations.exact:
                fields = fields + component.noise * rng.standard_normal(fields.shape)
                at, values = self.observations.known_at(sites)
                fields[:, at] = values
            out[mine] = fields
        return out

    def _functional(self, operator: Any, draws: int | None = None) -> FieldFunctional:
        """Mean and standard deviation of linear functionals (q, n d) of the field at all nodes."""
        self._fitted()
        sites = self.sites()
        mixture = self._components(draws)
        found = [component.functional(operator, sites) for component, _ in mixture]
        weights = np.array([weight for _, weight in mixture])
        means = np.stack([mean for mean, _ in found])
        mean = weights @ means
        variance = weights @ (np.square([deviation for _, deviation in found]) + np.square(means - mean))
        return FieldFunctional(mean, np.sqrt(variance), operator)

    def leave_one_out(self) -> FieldPrediction:
        """Predictions of each observed place from all the others; covariances include the noise."""
        self._fitted()
        assert self.observations is not None
        sites = self.sites(self.observations.where)
        found = [self._posterior_at(c, c.fit.theta).leave_one_out() for c, _ in self._mixture]
        return FieldPrediction(
            frames=sites.frames.numpy(),
            component_means=np.stack([mean for mean, _ in found]),
            component_covariances=np.stack([covariance for _, covariance in found]),
            noise=np.zeros(len(found)),
            far=sites.far,
            distance=sites.distance,
            weights=np.array([weight for _, weight in self._mixture]),
        )

    def use(self, kernel: str | None = None) -> None:
        """Predict with one of the kernels that were compared; None goes back to what ``combine`` says.

        Raises:
            InvalidDataError: not fitted, or the kernel was not among them.
        """
        comparison = self._comparison
        if comparison is None:
            raise InvalidDataError(f"{type(self).__name__} has not been fitted: call fit(where, {self._what}) first")
        by_name = {candidate.name: candidate for candidate in comparison.candidates}
        if kernel is not None and kernel not in by_name:
            raise InvalidDataError(f"kernel {kernel!r} was not compared; there are {', '.join(by_name)}")
        weights = {kernel: 1.0} if kernel is not None else comparison.weights
        if kernel is None and self.combine == "best":
            weights = {comparison.best.name: 1.0}
        self._mixture = [(by_name[name], weight) for name, weight in weights.items()]
        chosen = comparison.best if kernel is None else by_name[kernel]
        if chosen is not self._best:
            self._best, self._draws, self.posterior, self._cache = chosen, None, None, {}

    # -- files ----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Everything but cached factorisations."""
        return {**self.__dict__, "_cache": {}}

    def save(self, path: str | Path) -> Path:
        """Write the model, its manifold, data, fits and draws to one file."""
        return save_field(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Read what :meth:`save` wrote; nothing else is needed.

        Raises:
            InvalidDataError: not such a file.
        """
        return load_field(path, cls)
