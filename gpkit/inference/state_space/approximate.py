"""Posteriors of Markov Gaussian processes under any likelihood: sites updated until they agree with the data.

Each datum is seen through one number, ``f_n = offset_n + loadings_n . u(x_n)``, and stood for by a Gaussian site that
its likelihood gives (:mod:`gpkit.likelihoods`). Both methods are approximations, named by the caller.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gpkit.errors import ConvergenceWarning, InvalidDataError
from gpkit.inference.state_space.engine import sample, smooth
from gpkit.inference.state_space.nodes import insert_nodes
from gpkit.inference.state_space.paths import MarkovPaths, markov_paths
from gpkit.inference.state_space.results import SmoothResult
from gpkit.likelihoods import Likelihood, likelihood_named
from gpkit.operators.structured import common_batch

__all__ = ["ApproximatePosterior", "approximate_posterior"]

_METHODS = ("variational", "laplace")
_ROUNDING = 1e-11
_HALVINGS = 30


class _Data(NamedTuple):
    """Sorted data: coordinates, y, loadings (*batch, N, R), offset, and the likelihood's order is that of y."""

    coordinates: Tensor
    y: Tensor
    loadings: Tensor
    offset: Tensor


class _State(NamedTuple):
    """Sites of f and what follows from them; all of the shape (*batch, N) but for the first two and the last."""

    smoothed: SmoothResult
    divergence: Tensor
    mean: Tensor
    variance: Tensor
    precision: Tensor
    information: Tensor
    pull: Tensor


@dataclass(frozen=True, eq=False)
class ApproximatePosterior:
    """A Gaussian posterior of R functions whose data are not Gaussian.

    Attributes:
        method: "variational" or "laplace".
        log_evidence: lower bound on the log-evidence, (*batch,), differentiable with respect to parameters of kernels
            and likelihood; with "laplace" Laplace's approximation of it, without gradients.
        trace: the bound (the log posterior of the path, with "laplace") after each iteration, (I, *batch).
        converged: whether the last iteration moved no mean by more than the tolerance.
        likelihood: the likelihood, with its parameters as they were learned.
        mean: posterior means of f at the data, in the order in which they were given, (*batch, N).
        variance: posterior variances of f, (*batch, N).
    """

    method: str
    log_evidence: Tensor
    trace: Tensor
    converged: bool
    likelihood: Likelihood
    mean: Tensor
    variance: Tensor
    _kernels: Any = field(repr=False)
    _sites: tuple[Tensor, Tensor, Tensor] = field(repr=False)

    def predict(self, coordinates: Tensor, loadings: Tensor | None = None, offset: Any = 0.0) -> tuple[Tensor, Tensor]:
        """Posterior means and variances of f at new coordinates, each (*batch, M).

        Args:
            coordinates: (*batch, M), in any order.
            loadings: (*batch, M, R); ones for one function.
            offset: (*batch, M) or one number.

        Raises:
            InvalidDataError: if there are several functions and no loadings.
        """
        nodes = insert_nodes(*self._sites, coordinates)
        with torch.no_grad():
            result = smooth(self._kernels, nodes.coordinates, nodes.precision, nodes.information)
            functions = result.mean.shape[-1]
            loadings = _loadings(loadings, coordinates, functions)
            where = nodes.new.expand(*result.mean.shape[:-2], nodes.new.shape[-1])
            mean = result.mean.gather(-2, where[..., None].expand(*where.shape, functions))
            index = where[..., None, None].expand(*where.shape, functions, functions)
            covariance = result.covariance.gather(-3, index)
            return offset + (loadings * mean).sum(-1), _quadratic(loadings, covariance)

    def sample(
        self,
        coordinates: Tensor,
        n: int = 1,
        loadings: Tensor | None = None,
        offset: Any = 0.0,
        *,
        seed: int | torch.Generator = 0,
    ) -> Tensor:
        """Joint draws of f at new coordinates, (n, *batch, M); arguments as those of :meth:`predict`."""
        nodes = insert_nodes(*self._sites, coordinates)
        draws = sample(self._kernels, nodes.coordinates, nodes.precision, nodes.information, n, seed=seed)
        functions = draws.shape[-1]
        where = nodes.new.expand(*draws.shape[:-2], nodes.new.shape[-1])
        values = draws.gather(-2, where[..., None].expand(*where.shape, functions))
        return offset + (_loadings(loadings, coordinates, functions) * values).sum(-1)


def _loadings(loadings: Tensor | None, coordinates: Tensor, functions: int) -> Tensor:
    if loadings is not None:
        return loadings
    if functions > 1:
        raise InvalidDataError(f"loadings (*batch, N, R) are needed where there are {functions} functions")
    return torch.ones(coordinates.shape[-1], 1, dtype=torch.float64)


def _quadratic(loadings: Tensor, covariance: Tensor) -> Tensor:
    value: Tensor = (loadings.unsqueeze(-2) @ covariance @ loadings.unsqueeze(-1))[..., 0, 0]
    return value


def _evaluate(paths: MarkovPaths, data: _Data, precision: Tensor, information: Tensor, backend: str) -> _State:
    """The posterior for sites ``exp(information * f - precision * f^2 / 2)``, and its divergence from the prior."""
    a = data.loadings
    lam = precision[..., None, None] * a.unsqueeze(-1) * a.unsqueeze(-2)
    eta = (information - precision * data.offset).unsqueeze(-1) * a
    result = smooth(paths, data.coordinates, lam, eta, backend=backend)
    mean = (a * result.mean).sum(-1)
    variance = _quadratic(a, result.covariance)
    own = information - precision * data.offset
    divergence = (own * mean - 0.5 * precision * (mean.square() + variance)).sum(-1) - result.log_evidence
    pull = (own - precision * mean) * mean
    return _State(result, divergence, data.offset + mean, variance, precision, information, pull.sum(-1))


def _target(method: str, likelihood: Likelihood, y: Tensor, state: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Sites that the likelihood asks for, and the value that is climbed at the current ones."""
    if method == "variational":
        site = likelihood.site(y, state.mean, state.variance)
        return site.precision, site.information, site.expected.sum(-1) - state.divergence
    slope, curvature = likelihood.derivatives(y, state.mean)
    value = likelihood.log_density(y, state.mean).sum(-1) - 0.5 * state.pull
    return curvature, slope + curvature * state.mean, value


def _arranged(
    coordinates: Any, y: Any, loadings: Tensor | None, offset: Any, likelihood: Likelihood, functions: int | None
) -> tuple[_Data, Tensor]:
    """Data in the order of their coordinates, and that order."""
    if not isinstance(coordinates, Tensor) or coordinates.dtype != torch.float64 or coordinates.dim() < 1:
        raise InvalidDataError("coordinates must be a float64 tensor (*batch, N)")
    y = likelihood.check(y)
    if y.dim() < 1 or y.shape[-1] != coordinates.shape[-1]:
        raise InvalidDataError(f"{coordinates.shape[-1]} coordinates but data of shape {tuple(y.shape)}")
    loadings = _loadings(loadings, coordinates, functions or 1)
    offset = torch.as_tensor(offset, dtype=torch.float64)
    batch = common_batch(coordinates.shape[:-1], y.shape[:-1], loadings.shape[:-2], offset.shape[:-1])
    n, r = loadings.shape[-2:]
    if n != y.shape[-1]:
        raise InvalidDataError(f"loadings of {n} data but {y.shape[-1]} data")
    x, order = coordinates.sort(stable=True)
    wide = order.expand(*batch, n)
    sorted_loadings = loadings.expand(*batch, n, r).gather(-2, wide.unsqueeze(-1).expand(*batch, n, r))
    sorted_y = y.expand(*batch, n).gather(-1, wide)
    return _Data(x, sorted_y, sorted_loadings, offset.expand(*batch, n).gather(-1, wide)), wide


def _in_order(likelihood: Likelihood, order: Tensor) -> Likelihood:
    """The likelihood with parameters of single data in the order of the data."""
    identity = torch.arange(order.shape[-1])
    if bool((order == identity).all()):
        return likelihood
    return likelihood.reordered(order)


def approximate_posterior(
    kernels: Any,
    coordinates: Tensor,
    y: Any,
    likelihood: str | Likelihood,
    *,
    method: str = "variational",
    loadings: Tensor | None = None,
    offset: Any = 0.0,
    learn: bool = False,
    tolerance: float = 1e-6,
    iterations: int = 200,
    backend: str = "sequential",
) -> ApproximatePosterior:
    """Gaussian posterior of latent Markov functions under any likelihood; O(N) time for each iteration.

    "variational" climbs a lower bound on the log-evidence by steps of the natural gradient, each of which replaces
    sites by those that the likelihood gives for the current posterior; a step that would lower the bound is halved.
    "laplace" finds the mode of the path by Newton's method and takes the curvature there.

    Args:
        kernels: one kernel with a state space, or a sequence of one for each function.
        coordinates: (*batch, N) float64, in any order; they may repeat.
        y: data, (*batch, N).
        likelihood: a :class:`gpkit.likelihoods.Likelihood`, or the name of one.
        method: "variational" or "laplace".
        loadings: how the R functions enter each datum, (*batch, N, R); ones for one function.
        offset: prior mean of f, (*batch, N) or one number.
        learn: update the likelihood's own parameters (noise scale, degrees of freedom, over-dispersion) as well; each
            update raises the bound. Only with "variational".
        tolerance: largest change of a mean, in standard deviations, at which to stop.
        iterations: the most iterations.
        backend: see :func:`gpkit.inference.state_space.smooth`.

    Raises:
        InvalidDataError: for arguments that do not fit, and values that the likelihood cannot give.

    Warns:
        ConvergenceWarning: if the tolerance was not met.

    References:
        Khan & Lin (2017), AISTATS, PMLR 54, 878; Chang, Wilkinson, Khan & Solin (2020), ICML, PMLR 119, 1447.
    """
    likelihood = likelihood_named(likelihood)
    if method not in _METHODS:
        raise InvalidDataError(f"method must be 'variational' or 'laplace', got {method!r}")
    if method == "laplace" and not likelihood.log_concave:
        raise InvalidDataError(
            f"{type(likelihood).__name__} is not log-concave, so that its posterior may have many modes; use "
            "method='variational'"
        )
    if learn and method == "laplace":
        raise InvalidDataError("parameters of the likelihood are learned with method='variational' only")
    several = len(kernels) if isinstance(kernels, list | tuple) else None
    data, order = _arranged(coordinates, y, loadings, offset, likelihood, several)
    likelihood = _in_order(likelihood, order)
    paths = markov_paths(kernels, data.coordinates, data.loadings.shape[-1])
    with torch.no_grad():
        state, likelihood, trace, converged = _climb(
            paths, data, likelihood, method, learn, tolerance, iterations, backend
        )
    if not converged:
        warnings.warn(
            f"the {method} posterior did not converge in {len(trace) - 1} iterations", ConvergenceWarning, stacklevel=2
        )
    if method == "variational":
        # The bound is stationary in the sites: its derivative at fixed sites is the whole derivative.
        final = _evaluate(paths, data, state.precision, state.information, backend)
        evidence = _target(method, likelihood, data.y, final)[2]
    else:
        precision, information = _target(method, likelihood, data.y, state)[:2]
        with torch.no_grad():
            final = _evaluate(paths, data, precision, information, backend)
            half = 0.5 * ((information - precision * data.offset) * (final.mean - data.offset)).sum(-1)
            evidence = trace[-1] + final.smoothed.log_evidence - half
        state = final
    back = order.argsort()
    a = data.loadings
    own = state.information - state.precision * data.offset
    sites = (
        data.coordinates,
        state.precision[..., None, None] * a.unsqueeze(-1) * a.unsqueeze(-2),
        own.unsqueeze(-1) * a,
    )
    return ApproximatePosterior(
        method,
        evidence,
        torch.stack(trace),
        converged,
        _in_order(likelihood, back),
        state.mean.gather(-1, back),
        state.variance.gather(-1, back),
        kernels,
        sites,
    )


def _climb(
    paths: MarkovPaths,
    data: _Data,
    likelihood: Likelihood,
    method: str,
    learn: bool,
    tolerance: float,
    iterations: int,
    backend: str,
) -> tuple[_State, Likelihood, list[Tensor], bool]:
    """Iterate to the sites that give themselves; returns the last state, likelihood, trace and whether it converged."""
    zero = torch.zeros_like(data.y + data.offset)
    batch = common_batch(paths.batch_shape, zero.shape[:-1])
    zero = zero.expand(*batch, zero.shape[-1])
    state = _evaluate(paths, data, zero, zero, backend)
    precision, information, value = _target(method, likelihood, data.y, state)
    trace = [value]
    step = torch.ones_like(value)
    for _ in range(iterations):
        before = state
        # Every element of the batch halves its own step, and keeps what has risen already.
        for attempt in range(_HALVINGS):
            s = step.unsqueeze(-1)
            trial = _evaluate(
                paths,
                data,
                (1.0 - s) * before.precision + s * precision,
                (1.0 - s) * before.information + s * information,
                backend,
            )
            next_precision, next_information, reached = _target(method, likelihood, data.y, trial)
            lower = ~(reached >= value - _ROUNDING * (1.0 + value.abs()))
            if not bool(lower.any()):
                break
            step = torch.where(lower, 0.0 if attempt == _HALVINGS - 2 else 0.5 * step, step)
        state, precision, information, value = trial, next_precision, next_information, reached
        if learn:
            likelihood = likelihood.fitted(data.y, state.mean, state.variance)
            precision, information, value = _target(method, likelihood, data.y, state)
        moved = (
            ((state.mean - before.mean).abs() / state.variance.clamp_min(1e-300).sqrt()).amax(-1)
            if zero.numel()
            else value
        )
        spread = (state.variance / before.variance.clamp_min(1e-300) - 1.0).abs().amax(-1) if zero.numel() else value
        gained = value - trace[-1]
        trace.append(value)
        still = (moved <= tolerance * step) & (spread <= tolerance * step) & (step > 0.0)
        if learn:
            still = still & (gained.abs() <= tolerance * (1.0 + value.abs()))
        if not zero.numel() or bool(still.all()):
            return state, likelihood, trace, True
        if bool((step == 0.0).all()):
            return state, likelihood, trace, False
        step = (2.0 * step).clamp_max(1.0)
    return state, likelihood, trace, False
