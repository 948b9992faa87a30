"""Predictions of several fitted kernels, each at one or several values of its parameters, as one distribution."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.errors import DataWarning
from gpkit.inference.log_parameters import laplace_points, normal_draws
from gpkit.models.fields.averaged_posterior import AveragedPosterior, averaged_posterior
from gpkit.models.fields.calculus import FieldFunctional
from gpkit.models.fields.jackknife import inflation_of
from gpkit.models.fields.local_scale import LocalScale, local_scale
from gpkit.models.fields.observations import Observations
from gpkit.models.fields.posterior import FieldPosterior
from gpkit.models.fields.predictions import FieldPrediction
from gpkit.models.fields.selection import Candidate
from gpkit.models.fields.sites import Sites

__all__ = ["UNCERTAINTIES", "Component", "FieldMixture"]

Array = NDArray[np.float64]

UNCERTAINTIES = ("calibrated", "jackknife", "laplace", "map")
"""How predictions count that parameters are estimates, and that a kernel is not right everywhere."""

_COMPONENTS = 20
"""Draws of the parameters that predictions average over."""
_AROUND = 8
"""Points of Laplace's approximation that predictions average over."""
_KEPT_BYTES = 1e9
"""Memory for factorisations away from the fits that are kept for the next prediction."""
_ROUNDING = 1e-8
"""Standard deviation of what was observed exactly, in units of the values."""
_LOST = 0.1
"""Share of an intrinsic kernel's variance that may be missing between the nodes before somebody is told."""


@dataclass(frozen=True, eq=False)
class _Point:
    """A kernel at one value of its parameters, or with draws around it, its weight and the factors of its variances."""

    candidate: Candidate
    theta: Array
    weight: float
    inflation: float = 1.0
    local: LocalScale | None = None
    averaged: bool = False


@dataclass(frozen=True, eq=False)
class Component:
    """A posterior of the field in a mixture, around whose mean all variances are multiplied by a factor.

    Attributes:
        posterior: At one value of the parameters, or averaged.
        weight: In the mixture.
        inflation: Factor of the variances.
        local: Their factors by place, or None.
    """

    posterior: FieldPosterior | AveragedPosterior
    weight: float
    inflation: float
    local: LocalScale | None = None

    def factors(self, sites: Sites) -> Array:
        """Factors of the variances at places, (m,)."""
        if self.local is None or sites.points is None:
            return np.full(len(sites), self.inflation)
        return self.inflation * self.local.at(sites.points.numpy())

    def moments(self, sites: Sites) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) at each place by itself, noise not included."""
        mean, covariance = self.posterior.moments(sites)
        return mean, self.factors(sites)[:, None, None] * covariance

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """The same for one term's share of the field."""
        mean, covariance = self.posterior.part_moments(sites, index)
        return mean, self.factors(sites)[:, None, None] * covariance

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field."""
        if self.local is None:
            mean, deviation = self.posterior.functional(operator, sites)
            return mean, math.sqrt(self.inflation) * deviation
        spread = sparse.diags(np.repeat(np.sqrt(self.factors(sites)), sites.d))
        _, deviation = self.posterior.functional(sparse.csr_matrix(operator) @ spread, sites)
        return operator @ self.posterior.moments(sites)[0].ravel(), deviation

    def sampler(self, sites: Sites) -> Callable[[int, np.random.Generator], Array]:
        """Makes joint draws (count, m d) from a count and a generator."""
        return self.posterior.sampler(sites, np.repeat(self.factors(sites), sites.d))


class FieldMixture:
    """Fitted kernels with weights.

    Args:
        observations: What they were fitted to.
        members: Kernels with their weights, which add up to one.
        uncertainty: One of :data:`UNCERTAINTIES`.
        drawn: Draws of the parameters (chains, draws, P) of one of the kernels, by its name.
        noise: Standard deviation of the noise by all kernels that were compared; None leaves it to the members.
    """

    def __init__(
        self,
        observations: Observations,
        members: Sequence[tuple[Candidate, float]],
        uncertainty: str,
        drawn: dict[str, Array] | None = None,
        noise: float | None = None,
    ) -> None:
        self.observations = observations
        self.compared_noise = noise
        self.members = list(members)
        self.uncertainty = uncertainty
        self.drawn = {} if drawn is None else drawn
        self._cache: dict[bytes, FieldPosterior] = {}
        self._around: dict[str, tuple[Array, Array]] = {}
        self._inflation: dict[str, float] = {}
        self._local: LocalScale | None | bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Everything but cached factorisations."""
        return {**self.__dict__, "_cache": {}}

    # -- components -----------------------------------------------------------------------------------------------

    def components(self, draws: int | None = None) -> list[Component]:
        """Posteriors of the field with weights.

        Args:
            draws: Number of draws of the parameters to average over, where there are any.
        """
        return [self._component(point) for point in self._points(draws)]

    def _points(self, draws: int | None) -> list[_Point]:
        """Draws of the sampled kernel, points around the fits, or the fits."""
        out = []
        for candidate, weight in self.members:
            thetas, shares, inflation, averaged = candidate.fit.theta[None], np.ones(1), 1.0, False
            if candidate.name in self.drawn:
                flat = self.drawn[candidate.name].reshape(-1, len(candidate.fit.theta))
                count = min(len(flat), _COMPONENTS if draws is None else max(1, draws))
                thetas = flat[np.linspace(0, len(flat) - 1, count).astype(int)]
                shares = np.full(count, 1.0 / count)
            elif candidate.left_out.root is not None:
                averaged = self.uncertainty != "map"
                inflation = candidate.left_out.factor if averaged else 1.0
            elif self.uncertainty == "laplace":
                if candidate.name not in self._around:
                    self._around[candidate.name] = laplace_points(candidate.regression, candidate.fit, _AROUND)
                thetas, shares = self._around[candidate.name]
            elif self.uncertainty in ("calibrated", "jackknife"):
                inflation = self._inflation_of(candidate)
            pairs = zip(thetas, shares, strict=True)
            local = self.calibration
            out += [
                _Point(candidate, theta, float(weight * share), inflation, local, averaged) for theta, share in pairs
            ]
        return out

    def _inflation_of(self, candidate: Candidate) -> float:
        if candidate.left_out.inflation is not None:
            return candidate.left_out.inflation
        if candidate.name not in self._inflation:
            exact = self.observations.exact
            self._inflation[candidate.name] = inflation_of(candidate.regression, candidate.fit, exact=exact)
        return self._inflation[candidate.name]

    @property
    def calibration(self) -> LocalScale | None:
        """Factors of the variances by place, which left-out places ask for; None where they are not used."""
        if self.uncertainty != "calibrated" or self.drawn:
            return None
        if isinstance(self._local, bool):
            self._local = self._calibrated()
        return self._local

    def _calibrated(self) -> LocalScale | None:
        """From what the mixture predicts of each observed place from the others."""
        regression = self.members[0][0].regression
        points, d = regression.sites.points, regression.sites.d
        if points is None:
            return None
        means, covariances, noises = [], [], []
        for candidate, _ in self.members:
            posterior = self._posterior_at(candidate, candidate.fit.theta)
            mean, covariance = posterior.leave_one_out()
            level = posterior.noise**2 - self._unexplained(posterior)
            noise = (level * np.square(candidate.regression.rows)).reshape(-1, d)[:, :, None] * np.eye(d)
            inflation = self._inflation_of(candidate)
            if candidate.left_out.root is not None:  # parameters that have seen a place predict it too well
                mean = candidate.left_out.mean
            means.append(mean)
            covariances.append(inflation * covariance + (1.0 - inflation) * noise)
            noises.append(noise)
        weights = np.array([weight for _, weight in self.members])
        mean = np.tensordot(weights, means, 1)
        shift = np.stack(means) - mean
        total = np.tensordot(weights, covariances, 1) + np.einsum("s,smi,smj->mij", weights, shift, shift)
        rest = regression.values - mean
        # Places whose prediction rounding has spoilt say nothing.
        sound = np.isfinite(total).all((1, 2)) & np.isfinite(rest).all(1)
        inverse = np.linalg.pinv(np.where(sound[:, None, None], total, 0.0), hermitian=True)
        with np.errstate(all="ignore"):  # of spoilt places nothing is taken
            distances = np.einsum("mi,mij,mj->m", rest, inverse, rest)
            noise = np.trace(np.tensordot(weights, noises, 1), axis1=1, axis2=2)
            shares = 1.0 - noise / np.trace(total, axis1=1, axis2=2)
        return local_scale(points.numpy(), distances, shares, d)

    def _component(self, point: _Point) -> Component:
        candidate, root = point.candidate, point.candidate.left_out.root
        centre = self._posterior_at(candidate, point.theta)
        if not point.averaged or root is None:
            return Component(centre, point.weight, point.inflation, point.local)
        drawn = normal_draws(candidate.regression, point.theta, root, _AROUND)
        around = averaged_posterior(candidate.name, centre, drawn, functools.partial(self._posterior_at, candidate))
        return Component(around, point.weight, point.inflation, point.local)

    def _posterior_at(self, candidate: Candidate, theta: Array) -> FieldPosterior:
        key = candidate.name.encode() + np.asarray(theta).tobytes()
        if key in self._cache:
            return self._cache[key]
        found = candidate.regression.posterior(theta)
        room = _KEPT_BYTES / (8.0 * max(candidate.regression.sites.rows, 1) ** 2)
        if np.array_equal(theta, candidate.fit.theta) or room >= len(self.members) * _COMPONENTS:
            if len(self._cache) > 4 * len(self.members) * _COMPONENTS:
                self._cache.clear()
            self._cache[key] = found
        return found

    # -- predictions ----------------------------------------------------------------------------------------------

    def predict(self, sites: Sites, draws: int | None = None) -> FieldPrediction:
        """The field at places."""
        points = self._points(draws)
        leading = max(points, key=lambda point: point.weight).candidate
        _announce(sites, self._posterior_at(leading, leading.fit.theta))
        means, covariances, noise = [], [], []
        for point in points:
            component = self._component(point)
            mean, covariance = self._observed(sites, component, *component.moments(sites))
            means.append(mean)
            covariances.append(covariance)
            noise.append(self._noise_of(component.posterior))

        def draw(n: int, seed: int) -> Array:
            return self._draw(points, sites, n, seed)

        return FieldPrediction(
            frames=sites.frames.numpy(),
            component_means=np.stack(means),
            component_covariances=np.stack(covariances),
            noise=np.array(noise),
            far=sites.far,
            distance=sites.distance,
            weights=np.array([point.weight for point in points]),
            _draw=draw,
        )

    def functional(self, operator: Any, sites: Sites, draws: int | None = None) -> FieldFunctional:
        """Mean and standard deviation of linear functionals (q, m d) of the field's values at places."""
        mixture = self.components(draws)
        found = [component.functional(operator, sites) for component in mixture]
        weights = np.array([component.weight for component in mixture])
        means = np.stack([mean for mean, _ in found])
        mean = weights @ means
        variance = weights @ (np.square([deviation for _, deviation in found]) + np.square(means - mean))
        return FieldFunctional(mean, np.sqrt(variance), operator)

    def part(self, sites: Sites, index: int) -> FieldPrediction:
        """One term's share of the field."""
        mixture = self.components()
        found = [component.part_moments(sites, index) for component in mixture]
        return FieldPrediction(
            frames=sites.frames.numpy(),
            component_means=np.stack([mean for mean, _ in found]),
            component_covariances=np.stack([covariance for _, covariance in found]),
            noise=np.array([component.posterior.noise for component in mixture]),
            far=sites.far,
            distance=sites.distance,
            weights=np.array([component.weight for component in mixture]),
        )

    def leave_one_out(self, sites: Sites) -> FieldPrediction:
        """Predictions of each observed place from all the others, at the fits; covariances include the noise.

        Means of kernels with dozens of parameters are those of fits without the place, to first order.
        """
        found = [self._posterior_at(c, c.fit.theta).leave_one_out() for c, _ in self.members]
        means = [
            mean if c.left_out.root is None else c.left_out.mean
            for (mean, _), (c, _) in zip(found, self.members, strict=True)
        ]
        return FieldPrediction(
            frames=sites.frames.numpy(),
            component_means=np.stack(means),
            component_covariances=np.stack([covariance for _, covariance in found]),
            noise=np.zeros(len(found)),
            far=sites.far,
            distance=sites.distance,
            weights=np.array([weight for _, weight in self.members]),
        )

    def _noise_of(self, posterior: FieldPosterior | AveragedPosterior) -> float:
        """Standard deviation of an observation's error: none where observations are exact."""
        if posterior.regression.noise is not None:
            return math.nan
        return math.sqrt(posterior.noise**2 - self._unexplained(posterior))

    def _unexplained(self, posterior: FieldPosterior | AveragedPosterior) -> float:
        """What a kernel has learnt as noise and is the field's own variation between observed places, a variance.

        It is all of it where observations are exact. Noise belongs to the observations and not to a kernel: where
        several kernels are compared, what one of them calls noise beyond what they say together it has not explained.
        """
        if self.observations.exact:
            return posterior.noise**2
        if posterior.regression.noise is not None or self.uncertainty not in ("calibrated", "jackknife") or self.drawn:
            return 0.0
        return max(posterior.noise**2 - self._common_noise(), 0.0)

    def _common_noise(self) -> float:
        """Variance of the noise: the geometric mean of the members', at most what all kernels say together.

        Few noisy places do not tell a smooth field under much noise from a rough one under little. Members have been
        chosen for their means, which are better if smooth; variances have to count both.
        """
        levels = [float(candidate.regression.split(candidate.fit.theta)[0]) for candidate, _ in self.members]
        mixed = math.exp(np.average(levels, weights=[weight for _, weight in self.members]))
        return (mixed if self.compared_noise is None else min(mixed, self.compared_noise)) ** 2

    def _observed(self, sites: Sites, component: Component, mean: Array, covariance: Array) -> tuple[Array, Array]:
        """What a kernel has not explained varies from place to place, but for those that were observed exactly."""
        own = component.factors(sites) * self._unexplained(component.posterior)
        covariance = covariance + own[:, None, None] * np.eye(sites.d)
        if not self.observations.exact:
            return mean, covariance
        at, values = self.observations.known_at(sites)
        mean = mean.copy()
        mean[at] = values
        covariance[at] = (_ROUNDING * component.posterior.regression.scales.value) ** 2 * np.eye(sites.d)
        return mean, covariance

    def _draw(self, points: Sequence[_Point], sites: Sites, n: int, seed: int) -> Array:
        """Draws (n, m, d) of tangent coordinates, each from a component drawn by weight."""
        rng = np.random.default_rng(seed)
        weights = np.array([point.weight for point in points])
        chosen = rng.choice(len(points), size=n, p=weights / weights.sum())
        out = np.zeros((n, len(sites), sites.d))
        for index in np.unique(chosen):
            mine = np.flatnonzero(chosen == index)
            component = self._component(points[index])
            fields = component.sampler(sites)(len(mine), rng).reshape(len(mine), len(sites), sites.d)
            own = np.sqrt(component.factors(sites) * self._unexplained(component.posterior))
            if own.any():
                fields = fields + own[:, None] * rng.standard_normal(fields.shape)
            if self.observations.exact:
                at, values = self.observations.known_at(sites)
                fields[:, at] = values
            out[mine] = fields
        return out


def _announce(sites: Sites, posterior: FieldPosterior) -> None:
    """Warn of places about which the nodes say little."""
    if sites.far.any():
        warnings.warn(
            f"{int(sites.far.sum())} of {len(sites)} places are far from the nodes (the furthest by "
            f"{sites.distance.max():.4g}): they get the prior, or what an ambient kernel continues",
            DataWarning,
            stacklevel=4,
        )
    between = sites.take(np.flatnonzero((sites.nodes < 0) & ~sites.far)[:200])
    lost = posterior.lost_share(between)
    if lost > _LOST:
        warnings.warn(
            f"the nodes are too few for {100 * lost:.0f} % of the kernel's variance between them, about which they "
            "say nothing: give more nodes, or a smoother kernel",
            DataWarning,
            stacklevel=4,
        )
