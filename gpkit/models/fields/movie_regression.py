r"""Regression on fields in space and time: covariance in space times a Markov covariance in time, linear in frames.

With the same places in every frame, the eigenvectors of the spatial covariance C = Q diag(g) Q^T of the data turn the
movie into independent series, one per eigenvector, with covariance g_j k(t, t') and white noise: each is a
state-space Gaussian process with scalar sites, and the whole is exact. With other places in every frame the weights of
the basis functions are the states, and each frame is one site; that costs O(k^3) per frame.

The derivative with respect to C needs no derivative of eigenvectors: with alpha_j the solved series,

.. math:: \partial \ln p / \partial C = Q M Q^T, \quad
   M_{ij} = \tfrac12 \alpha_i^T K_t \alpha_j - \tfrac12 \delta_{ij} \mathrm{tr}[(g_j K_t + s^2)^{-1} K_t].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError
from gpkit.inference import state_space
from gpkit.inference.dense_evidence import semidefinite_root
from gpkit.inference.eigenbasis_evidence import EigenbasisStatistics
from gpkit.inference.log_parameters import LogParameter
from gpkit.kernels.base import StateSpaceKernel
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.terms import Scales, Term, starting_points

__all__ = ["MoviePosterior", "MovieRegression", "TimeKernel"]

Array = NDArray[np.float64]

_TINY = 1e-13
"""Eigenvalues of the spatial covariance below this share of the largest are rounding."""


@dataclass(frozen=True, eq=False)
class TimeKernel:
    """A state-space kernel of unit variance, its parameters as logarithms.

    Attributes:
        kernel: The kernel.
        parameters: One for each of its positive parameters.
    """

    kernel: StateSpaceKernel
    parameters: tuple[LogParameter, ...]

    @classmethod
    def of(cls, kernel: StateSpaceKernel, span: float, step: float) -> TimeKernel:
        """Parameters that are times range from a fraction of a step to many spans; others around where they are."""
        out = []
        for name, value in kernel.natural_parameters().items():
            leaf = name.rpartition(".")[2]
            if leaf in ("lengthscale", "timescale", "period"):
                low, high, start, unit = 0.01 * step, 100.0 * span, math.sqrt(span * step), "time"
            elif leaf == "frequency":
                low, high, start, unit = 0.01 / span, 100.0 / step, 2.0 * math.pi / math.sqrt(span * step), ""
            else:
                here = float(value.detach())
                low, high, start, unit = 1e-4 * here, 1e4 * here, here, ""
            out.append(LogParameter(f"time.{name}", start, low, high, start, 1.5, unit))
        return cls(kernel, tuple(out))

    def set(self, theta: Array) -> list[Tensor]:
        """Write values into the kernel; returns its natural parameters, in the graph of its raw ones."""
        for parameter, value in zip(self.parameters, np.exp(theta), strict=True):
            *steps, leaf = parameter.name.removeprefix("time.").split(".")
            module: Any = self.kernel
            for part in steps:
                module = module[int(part)] if part.isdigit() else getattr(module, part)
            setattr(module, leaf, float(value))
        return list(self.kernel.natural_parameters().values())

    def slopes(self, naturals: Sequence[Tensor], value: Tensor, retain: bool) -> Array:
        """Derivative of a number with respect to the logarithms, through the raw parameters."""
        raws = [p for p in self.kernel.parameters() if p.requires_grad]
        outer: Any = torch.autograd.grad(value, raws, retain_graph=retain, allow_unused=True)
        total = {id(r): torch.zeros_like(r) if g is None else g for r, g in zip(raws, outer, strict=True)}
        out = []
        for natural in naturals:
            inner: Any = torch.autograd.grad(natural.sum(), raws, allow_unused=True, retain_graph=True)
            raw, slope = next((r, g) for r, g in zip(raws, inner, strict=True) if g is not None)
            out.append(float((total[id(raw)] / slope * natural).sum().detach()))
        return np.array(out)


class MovieRegression:
    """The likelihood of frames of a field.

    Args:
        terms: Spatial terms; their amplitudes are those of the field.
        sites: The observed places, m of them.
        times: (F,), increasing.
        values: Tangent coordinates (F, m, d); NaN where a place was not observed in a frame.
        scales: Units of the problem.
        time: Kernel in time.

    Raises:
        InvalidDataError: places differ between frames and a term has no basis functions.
    """

    def __init__(
        self, terms: Sequence[Term], sites: Sites, times: Array, values: Array, scales: Scales, time: TimeKernel
    ) -> None:
        self.terms, self.sites, self.times, self.values = tuple(terms), sites, times, values
        self.scales, self.time = scales, time
        self.spectral = all(isinstance(term, SpectralTerm) for term in terms)
        self.seen: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(2))
        self.fixed = bool(self.seen.all())
        if not self.fixed and not self.spectral:
            raise InvalidDataError(
                "places differ between frames, which only kernels with basis functions can do: choose 'intrinsic'"
            )
        self._t = torch.from_numpy(np.asarray(times, dtype=np.float64))

    @functools.cached_property
    def parameters(self) -> tuple[LogParameter, ...]:
        """Noise, kernel in time, terms."""
        prefixed = len(self.terms) > 1
        out = [self.scales.noise(), *self.time.parameters]
        for term in self.terms:
            for p in term.parameters:
                name = f"{term.name}.{p.name}" if prefixed else p.name
                out.append(LogParameter(name, p.start, p.low, p.high, p.centre, p.width, p.unit))
        return tuple(out)

    def split(self, theta: Any) -> tuple[Any, Any, list[Any]]:
        """Logarithm of the noise, parameters of the kernel in time, and of each term."""
        at = 1 + len(self.time.parameters)
        parts = []
        for term in self.terms:
            parts.append(theta[at : at + len(term.parameters)])
            at += len(term.parameters)
        return theta[0], theta[1 : 1 + len(self.time.parameters)], parts

    # -- spatial covariance of the data ---------------------------------------------------------------------------

    def features(self, sites: Sites) -> Tensor:
        """Basis functions of all terms (m d, k)."""
        # Type: terms of this algebra have it; torch.nn.ModuleList knows modules only.
        return torch.cat([term.features(sites) for term in self.terms], dim=1)  # type: ignore[attr-defined]

    def log_spectrum(self, parts: Sequence[Tensor]) -> Tensor:
        """Logarithms of the variances of all weights, (k,)."""
        return torch.cat([t.log_spectrum(p) for t, p in zip(self.terms, parts, strict=True)])  # type: ignore[attr-defined]

    @functools.cached_property
    def statistics(self) -> EigenbasisStatistics:
        """Triangular factor of features and frames; without basis functions, the frames themselves."""
        y = self.values.reshape(len(self.times), -1).T
        if self.spectral:
            return EigenbasisStatistics.of(self.features(self.sites).numpy(), y)
        return EigenbasisStatistics(np.zeros((len(y), 0)), np.ascontiguousarray(y), np.zeros(y.shape[1]), len(y))

    @functools.cached_property
    def _prepared(self) -> list[tuple[Tensor, ...]]:
        return [term.prepare(self.sites, self.sites) for term in self.terms]

    def spatial(self, parts: Sequence[Tensor]) -> Tensor:
        """Covariance (p, p) of the compressed data in space, without noise."""
        if self.spectral:
            factor = torch.from_numpy(self.statistics.factor)
            return (factor * torch.exp(self.log_spectrum(parts))) @ factor.mT
        blocks = [t.evaluate(p, made) for t, p, made in zip(self.terms, parts, self._prepared, strict=True)]
        return functools.reduce(torch.add, blocks)

    # -- evidence -------------------------------------------------------------------------------------------------

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood and its gradient at logarithms of the parameters.

        Raises:
            NotPositiveDefiniteError: the covariance of the data has no factor.
        """
        return self._fixed_places(np.asarray(theta)) if self.fixed else self._changing_places(np.asarray(theta))

    def _fixed_places(self, theta: Array) -> tuple[float, Array]:
        at = torch.tensor(theta, requires_grad=True)
        log_noise, time, parts = self.split(at)
        covariance = self.spatial(parts)
        values, vectors = _spectrum(covariance.detach().numpy())
        naturals = self.time.set(np.asarray(time.detach()))
        statistics, frames = self.statistics, len(self.times)
        p, n = len(values), statistics.n_rows
        series = torch.tensor(vectors.T @ statistics.projected, requires_grad=True)
        gains = torch.tensor(values, requires_grad=True)
        noise = torch.tensor(math.exp(2.0 * float(log_noise.detach())), dtype=torch.float64, requires_grad=True)
        precision = (gains / noise)[:, None].expand(p, frames)[:, :, None, None]
        information = (torch.sqrt(gains)[:, None] * series / noise)[:, :, None]
        found = state_space.smooth(self.time.kernel, self._t.expand(p, -1), precision, information)
        rest = (series.square().sum() + float(statistics.residual.sum())) / noise
        total = found.log_evidence.sum() - 0.5 * (rest + n * frames * torch.log(2.0 * math.pi * noise))
        slope_time = self.time.slopes(naturals, total, retain=True)
        slope_gain, slope_series, slope_noise = torch.autograd.grad(total, (gains, series, noise))
        alpha = -slope_series
        middle = 0.5 * alpha @ (self.time.kernel(self._t[:, None]) @ alpha.mT).detach()
        middle.diagonal().copy_(slope_gain)
        q = torch.from_numpy(vectors)
        covariance.backward(q @ (0.5 * (middle + middle.mT)) @ q.mT)
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        gradient[0] += 2.0 * float(slope_noise) * float(noise.detach())
        gradient[1 : 1 + len(slope_time)] += slope_time
        return float(total.detach()), gradient

    @functools.cached_property
    def _frame_statistics(self) -> tuple[Tensor, Tensor, float, int]:
        """Phi^T Phi (F, k, k), Phi^T y (F, k), y^T y and the number of values over what each frame has seen."""
        phi = self.features(self.sites).reshape(len(self.sites), self.sites.d, -1).numpy()
        grams, projections, square, count = [], [], 0.0, 0
        for frame, seen in zip(self.values, self.seen, strict=True):
            rows, y = phi[seen].reshape(-1, phi.shape[2]), frame[seen].ravel()
            grams.append(rows.T @ rows)
            projections.append(rows.T @ y)
            square, count = square + float(y @ y), count + y.size
        return torch.from_numpy(np.stack(grams)), torch.from_numpy(np.stack(projections)), square, count

    def _sites_of_frames(self, parts: Sequence[Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        gram, projection, _, _ = self._frame_statistics
        root = torch.exp(0.5 * self.log_spectrum(parts))
        return gram * root[:, None] * root / noise, projection * root / noise

    def _changing_places(self, theta: Array) -> tuple[float, Array]:
        at = torch.tensor(theta, requires_grad=True)
        log_noise, time, parts = self.split(at)
        naturals = self.time.set(np.asarray(time.detach()))
        noise = torch.exp(2.0 * log_noise)
        precision, information = self._sites_of_frames(parts, noise)
        _, _, square, count = self._frame_statistics
        found = state_space.smooth(self.time.kernel, self._t, precision, information)
        total = found.log_evidence - 0.5 * (square / noise + count * torch.log(2.0 * math.pi * noise))
        slope_time = self.time.slopes(naturals, total, retain=True)
        total.backward()
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        gradient[1 : 1 + len(slope_time)] += slope_time
        return float(total.detach()), gradient

    def starts(self) -> list[Array]:
        """Points worth trying (:func:`gpkit.models.fields.terms.starting_points`)."""
        head = [math.log(p.start) for p in self.parameters[: 1 + len(self.time.parameters)]]
        return starting_points(head, self.terms, noise=True)

    def posterior(self, theta: Array) -> MoviePosterior:
        """The posterior at given parameters."""
        return MoviePosterior(self, np.asarray(theta, dtype=np.float64))


def _spectrum(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues, those that are rounding set to a floor, and eigenvectors."""
    if not np.isfinite(covariance).all():
        raise NotPositiveDefiniteError("the covariance of the data in space is not finite")
    values, vectors = eigh(covariance, check_finite=False)
    top = max(float(values[-1]), 1e-300)
    if values[0] < -1e-6 * top:
        raise NotPositiveDefiniteError("the covariance of the data in space is not positive semidefinite", row=0)
    return np.maximum(values, _TINY * top), vectors


class MoviePosterior:
    """A movie given the frames and the parameters.

    Args:
        regression: Frames and terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, regression: MovieRegression, theta: Array) -> None:
        self.regression, self.theta = regression, theta
        log_noise, self._time, self._parts = regression.split(torch.from_numpy(theta))
        self.noise = math.exp(float(log_noise))
        noise = torch.tensor(self.noise**2, dtype=torch.float64)
        with torch.no_grad():
            if regression.fixed:
                values, vectors = _spectrum(regression.spatial(self._parts).numpy())
                kept = values > 10.0 * _TINY * values[-1]
                self._gains, self._vectors = values[kept], vectors[:, kept]
                gains = torch.from_numpy(self._gains)
                series = torch.from_numpy(self._vectors.T @ regression.statistics.projected)
                shape = (len(gains), len(regression.times))
                self._precision = (gains / noise)[:, None].expand(shape)[:, :, None, None].clone()
                self._information = (torch.sqrt(gains)[:, None] * series / noise)[:, :, None]
            else:
                self._precision, self._information = regression._sites_of_frames(self._parts, noise)

    def _nodes(self, times: Array) -> tuple[Any, Any]:
        regression = self.regression
        regression.time.set(np.asarray(self._time))
        new = torch.from_numpy(np.array(times, dtype=np.float64))
        return state_space.insert_nodes(regression._t, self._precision, self._information, new), regression.time.kernel

    def _weights(self, sites: Sites) -> Tensor:
        """How the series (or weights) act at places, (m' d, p)."""
        regression = self.regression
        if not regression.fixed:
            return regression.features(sites) * torch.exp(0.5 * regression.log_spectrum(self._parts))
        if regression.spectral:
            spectrum = torch.exp(regression.log_spectrum(self._parts))
            factor = torch.from_numpy(regression.statistics.factor)
            cross = (regression.features(sites) * spectrum) @ factor.mT
        else:
            pairs = zip(regression.terms, self._parts, strict=True)
            cross = functools.reduce(torch.add, [t.evaluate(p, t.prepare(sites, regression.sites)) for t, p in pairs])
        return cross @ torch.from_numpy(self._vectors / np.sqrt(self._gains))

    def _prior(self, sites: Sites) -> Tensor:
        blocks = [t.marginal(p, sites) for t, p in zip(self.regression.terms, self._parts, strict=True)]
        return functools.reduce(torch.add, blocks)

    def moments(self, times: Array, sites: Sites) -> tuple[Array, Array]:
        """Means (T, m, d) and covariances (T, m, d, d) at each time and place by itself."""
        nodes, kernel = self._nodes(times)
        m, d = len(sites), sites.d
        with torch.no_grad():
            at = nodes.coordinates.expand(nodes.information.shape[:-1])
            found = state_space.smooth(kernel, at, nodes.precision, nodes.information)
            weights = self._weights(sites)
            blocks = weights.reshape(m, d, -1)
            if self.regression.fixed:
                mean = found.mean[:, nodes.new, 0].mT @ weights.mT
                variance = found.covariance[:, nodes.new, 0, 0]
                covariance = torch.einsum("mip,pt,mjp->tmij", blocks, variance, blocks)
            else:
                mean = found.mean[nodes.new] @ weights.mT
                covariance = torch.einsum("mip,tpq,mjq->tmij", blocks, found.covariance[nodes.new], blocks)
            # What the data's places cannot tell of these has the prior's variance at every time.
            covariance = covariance + (self._prior(sites) - blocks @ blocks.mT)
        out = covariance.numpy()
        diagonal = np.einsum("tmii->tmi", out)
        diagonal[:] = np.maximum(diagonal, 0.0)
        return mean.reshape(len(times), m, d).numpy(), out

    def draw(self, times: Array, sites: Sites, n: int, seed: int) -> Array:
        """Joint draws (n, T, m, d)."""
        nodes, kernel = self._nodes(times)
        with torch.no_grad():
            weights = self._weights(sites)
            at = nodes.coordinates.expand(nodes.information.shape[:-1])
            drawn = state_space.sample(kernel, at, nodes.precision, nodes.information, n, seed=seed)
            if self.regression.fixed:
                states = drawn[:, :, nodes.new, 0].mT
            else:
                states = drawn[:, nodes.new]
            fields = states @ weights.mT
            pairs = zip(self.regression.terms, self._parts, strict=True)
            prior = functools.reduce(torch.add, [t.evaluate(p, t.prepare(sites, sites)) for t, p in pairs])
            rest = (prior - weights @ weights.mT).numpy()
            root = semidefinite_root(0.5 * (rest + rest.T), float(prior.diagonal().max()))
            if root.shape[1]:
                shape = (root.shape[1], len(times))
                nothing = torch.zeros(*shape, 1, dtype=torch.float64)
                order = np.argsort(times, kind="stable")
                at = torch.from_numpy(np.asarray(times, dtype=np.float64)[order]).expand(shape)
                free = state_space.sample(kernel, at, nothing[..., None], nothing, n, seed=seed + 1)[..., 0]
                extra = torch.einsum("rp,npt->ntr", torch.from_numpy(root), free).numpy()
                back = np.empty_like(order)
                back[order] = np.arange(len(order))
                fields = fields + torch.from_numpy(extra[:, back])
        return fields.reshape(n, len(times), len(sites), sites.d).numpy()
