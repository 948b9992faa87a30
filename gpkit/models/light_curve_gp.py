"""Gaussian-process models of light curves: fit, sample, predict, simulate, forecast, check, report."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.datasets import LightCurve
from gpkit.errors import GpkitError, InvalidDataError, NotPositiveDefiniteError
from gpkit.inference.maximise import MaximiseResult, maximise
from gpkit.inference.potential import ParameterSpec, PotentialSpec, build_potential
from gpkit.kernels.state_space import state_space_of
from gpkit.models.kernel_values import batched_kernel, write_values
from gpkit.models.light_curve_checks import leave_one_out, whitened_residuals
from gpkit.models.light_curve_results import KERNELS, FitResult, LeaveOneOut, light_curve_kernel
from gpkit.models.parameters import (
    DataScale,
    KernelParameter,
    jitter_spec,
    kernel_parameters,
    mean_model,
)
from gpkit.models.predictions import Prediction
from gpkit.recursions import draws as _draws
from gpkit.recursions import series

__all__ = ["KERNELS", "FitResult", "LeaveOneOut", "LightCurveGP"]

Array = NDArray[np.float64]


class LightCurveGP:
    """A Gaussian process for one light curve with known errors.

    Args:
        light_curve: the data; upper limits are left out of the fit and counted in ``n_upper_limits``.
        kernel: "sho", "drw", "matern32", "matern52", or a state-space kernel (wrapped in a ``ScaleKernel`` if it has
            no amplitude of its own).
        mean: "constant", "linear", "zero", or a GPyTorch mean that is linear in its parameters.
        jitter: whether white noise is fitted in addition to the errors.
        transform: None, or "log" to model ln(value); likelihoods then include the Jacobian, so that fits with and
            without can be compared.
        priors: GPyTorch priors by parameter name; see :mod:`gpkit.models.parameters` for the defaults.

    Raises:
        InvalidDataError: for fewer than three detections, a constant light curve, a value that is not positive under
            the log transform, or unknown names.
    """

    def __init__(
        self,
        light_curve: LightCurve,
        kernel: str | Any = "sho",
        mean: Any = "constant",
        jitter: bool = True,
        transform: str | None = None,
        priors: Mapping[str, Any] | None = None,
    ) -> None:
        if transform not in (None, "none", "log"):
            raise InvalidDataError(f"transform must be None or 'log', got {transform!r}")
        self.light_curve = light_curve
        self.transform = "log" if transform == "log" else None
        detections = light_curve.detections()
        detections.require_at_least(3, purpose="a Gaussian-process fit")
        self.detections = detections
        modelled = detections.to_log() if self.transform else detections
        if modelled.is_constant:
            raise InvalidDataError("the light curve is constant: there is no variability to model")
        self.reference_time = float(modelled.time[0])
        self._t = np.ascontiguousarray(modelled.time - self.reference_time)
        self._y = np.array(modelled.value)
        self._error = np.array(modelled.error)
        self._log_jacobian = -float(np.log(detections.value).sum()) if self.transform else 0.0
        self.scale = DataScale.of(self._t, self._y, self._error)
        self.name, self.kernel = light_curve_kernel(kernel)
        given = dict(priors or {})
        self._kernel_parameters: tuple[KernelParameter, ...] = kernel_parameters(self.kernel, self.scale, given)
        self._mean = mean_model(mean, self._t, self.scale, given)
        self._jitter: ParameterSpec | None = jitter_spec(self.scale, given) if jitter else None
        unknown = set(given) - set(self.parameter_names)
        if unknown:
            raise InvalidDataError(
                f"priors for unknown parameters {sorted(unknown)}; there are {list(self.parameter_names)}"
            )
        self.potential: PotentialSpec = self._build()
        self.fits: dict[str, FitResult] = {}
        self.posterior: Any = None
        self._draws: Array | None = None
        self._arguments = {
            "kernel": kernel,
            "mean": mean,
            "jitter": jitter,
            "transform": self.transform,
            "priors": given,
        }

    # -- description ----------------------------------------------------------------------------------------------

    @property
    def specs(self) -> tuple[ParameterSpec, ...]:
        """Priors, bounds and starts of all free parameters."""
        noise = () if self._jitter is None else (self._jitter,)
        return (*(p.spec for p in self._kernel_parameters), *noise, *self._mean.specs)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of all free parameters."""
        return tuple(spec.name for spec in self.specs)

    @property
    def n(self) -> int:
        """Number of fitted points."""
        return int(self._t.size)

    @property
    def label(self) -> str:
        """Short name for sentences and legends."""
        return KERNELS[self.name][0] if self.name in KERNELS else self.name

    def units(self) -> dict[str, str]:
        """Unit of each parameter."""
        time, value = self.light_curve.time_unit, "" if self.transform else self.light_curve.value_unit
        known = {"time": time, "rate": f"rad/{time}" if time else "", "value": value, "": ""}
        out = {p.name: known[p.unit] for p in self._kernel_parameters}
        out.update({"jitter": value, "mean": value, "slope": f"{value}/{time}" if value else f"1/{time}"})
        return {name: out.get(name, "") for name in self.parameter_names}

    def __repr__(self) -> str:
        state = "sampled" if self.posterior is not None else ("fitted" if self.fits else "not fitted")
        log = ", ln(value)" if self.transform else ""
        return f"LightCurveGP({self.light_curve.name or 'light curve'}, {self.label}{log}, {self.n} points, {state})"

    def _natural(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The kernel's natural values from the readable ones."""
        out = {}
        for p in self._kernel_parameters:
            value = values[p.name]
            out[p.path] = value * value if p.squared else value
        return out

    def _build(self) -> PotentialSpec:
        kernel = self.kernel
        jitter = self._jitter
        names = self._mean.names
        return build_potential(
            kernel.structure,
            lambda values, ops: kernel.structure_parameters(self._natural(values), ops),
            self.specs,
            self._t,
            self._y,
            self._error**2,
            noise=None if jitter is None else lambda values, ops: [values["jitter"] * values["jitter"]],
            mean=(lambda values, ops: [values[name] for name in names]) if names else None,
            mean_basis=self._mean.basis(self._t) if names else None,
        )

    def set_parameters(self, values: Mapping[str, float]) -> None:
        """Write kernel parameters into ``self.kernel`` (the rest has no module)."""
        write_values(self.kernel, self._natural(values))

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(
        self, method: str = "ml", *, starts: int = 5, seed: int = 0, init: Mapping[str, float] | None = None
    ) -> FitResult:
        """Multi-start L-BFGS on the exact evidence with exact gradients.

        Args:
            method: "ml" (maximum likelihood, what information criteria need) or "map" (with the priors).
            starts: number of starts, scattered around the data's own scales.
            seed: of the scattered starts.
            init: values to start from instead.

        Raises:
            InvalidDataError: for another method.
            ConvergenceError: if no start finds a finite density.
        """
        if method not in ("ml", "map"):
            raise InvalidDataError(f"method must be 'ml' or 'map', got {method!r}")
        begun = clock.perf_counter()
        first = None if init is None else self.potential.to_unconstrained(init)
        found: MaximiseResult = maximise(self.potential, starts=starts, seed=seed, prior=method == "map", init=first)
        log_likelihood, _ = self.potential.log_density(found.z, prior=False, jacobian=False)
        result = FitResult(
            parameters=found.values,
            log_likelihood=log_likelihood + self._log_jacobian,
            n_parameters=len(self.specs),
            n=self.n,
            converged=found.converged,
            at_bound=found.at_bound,
            agreeing=found.agreeing,
            starts=len(found.starts),
            trace=found.trace,
            method=method,
            seconds=clock.perf_counter() - begun,
        )
        self.fits[method] = result
        self.set_parameters(result.parameters)
        return result

    def _fitted(self, method: str | None = None) -> FitResult:
        """A fit that is there, or the maximum a posteriori made now."""
        if method is not None:
            return self.fits.get(method) or self.fit(method)
        return self.fits.get("map") or self.fits.get("ml") or self.fit("map")

    def sample(
        self,
        draws: int = 1000,
        tune: int = 500,
        chains: int = 4,
        seed: int = 0,
        *,
        method: str = "nuts",
        progress: bool = True,
        cores: int | None = None,
    ) -> Any:
        """Draw from the posterior; returns and keeps an ``arviz.InferenceData``.

        Args:
            draws: per chain, after tuning.
            tune: tuning steps per chain, discarded.
            chains: number of chains.
            seed: of everything random; the same seed gives the same draws.
            method: "nuts" (compiled) or "pyro" (Pyro's NUTS on the same model, slow, for comparison).
            progress: whether a bar is shown.
            cores: threads.
        """
        from gpkit.models.sampling import sample_light_curve

        z, self.posterior = sample_light_curve(self, draws, tune, chains, seed, method, progress, cores)
        self._draws = z
        return self.posterior

    # -- evaluation at parameters ---------------------------------------------------------------------------------

    def _points(self, posterior: bool | None, limit: int = 200) -> Array:
        """Unconstrained points (S, D) to average over: thinned draws if there are any, else the fit."""
        if posterior is None:
            posterior = self._draws is not None
        if not posterior:
            return self.potential.to_unconstrained(self._fitted().parameters)[None]
        if self._draws is None:
            raise GpkitError("there is no posterior yet: call sample() first, or ask with posterior=False")
        flat = self._draws.reshape(-1, self._draws.shape[-1])
        step = max(1, len(flat) // limit)
        return np.ascontiguousarray(flat[::step][:limit])

    def _times(self, times: Any) -> tuple[Array, NDArray[np.int64]]:
        """Sorted times relative to the reference, and the permutation that sorted them."""
        array = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if array.ndim != 1 or not np.isfinite(array).all():
            raise InvalidDataError("times must be a one-dimensional array of finite numbers")
        order = np.argsort(array, kind="stable")
        return np.ascontiguousarray(array[order] - self.reference_time), order

    def predict(self, times: Any, *, posterior: bool | None = None, draws: int = 200) -> Prediction:
        """The noise-free light curve at new times (M,), O(N + M) per posterior draw.

        Args:
            times: (M,) in any order, in the units and zero point of the light curve.
            posterior: average over posterior draws (default: if there are any) or use the point fit.
            draws: number of (thinned) posterior draws to average over.
        """
        sorted_times, order = self._times(times)
        z = self._points(posterior, draws)
        parts = self.potential.components(z)
        mean, variance, failed = series.posterior(
            self.kernel.structure, parts.parameters, self._t, self._y - parts.mean, parts.noise, sorted_times
        )
        if (failed >= 0).any():
            raise NotPositiveDefiniteError("the covariance of the data is not positive definite at these parameters")
        mean = mean + parts.mean_coefficients @ self._mean.basis(sorted_times).T
        means, variances = np.empty_like(mean), np.empty_like(variance)
        means[:, order], variances[:, order] = mean, variance

        def draw(n: int, seed: int) -> Array:
            rng = np.random.default_rng(seed)
            out = np.empty((n, sorted_times.size))
            which = rng.integers(len(z), size=n)
            for k in np.unique(which):
                rows = np.flatnonzero(which == k)
                residual = self._y - parts.mean[k]
                latent, _ = _draws.posterior_draws(
                    self.kernel.structure,
                    parts.parameters[k],
                    self._t,
                    residual,
                    parts.noise[k],
                    sorted_times,
                    rows.size,
                    rng,
                )
                trend = self._mean.basis(sorted_times) @ parts.mean_coefficients[k]
                out[rows[:, None], order] = latent + trend
            return out

        time = sorted_times[np.argsort(order)] + self.reference_time
        return Prediction(time, means, variances, self.transform, draw)

    def forecast(self, horizon: float, n: int = 100, **options: Any) -> Prediction:
        """Prediction at ``n`` times from the last datum to ``horizon`` time units after it."""
        if not horizon > 0:
            raise InvalidDataError(f"the horizon must be positive, got {horizon}")
        end = self.reference_time + self._t[-1]
        return self.predict(np.linspace(end, end + horizon, n), **options)

    def simulate(
        self,
        n: int = 1,
        seed: int = 0,
        *,
        times: Any = None,
        noise: bool = True,
        parameters: Mapping[str, float] | None = None,
    ) -> Array:
        """New light curves (n, M) from the model, not conditioned on the data.

        Args:
            n: number of curves.
            seed: of the random numbers.
            times: (M,), the observed times if not given.
            noise: whether measurement errors and jitter are added (observed times only).
            parameters: values to simulate with, the fit if not given.
        """
        rng = np.random.default_rng(seed)
        values = self._fitted().parameters if parameters is None else parameters
        parts = self.potential.components(self.potential.to_unconstrained(values)[None])
        sorted_times, order = (self._t, np.arange(self.n)) if times is None else self._times(times)
        curves = _draws.prior_draws(self.kernel.structure, parts.parameters[0], sorted_times, n, rng)
        curves = curves + self._mean.basis(sorted_times) @ parts.mean_coefficients[0]
        if noise and times is None:
            curves = curves + np.sqrt(parts.noise[0]) * rng.standard_normal(curves.shape)
        out = np.empty_like(curves)
        out[:, order] = curves
        return np.exp(out) if self.transform else out

    def residuals(self, method: str | None = None) -> Array:
        """Whitened one-step-ahead residuals (N,): white N(0, 1) if the model is right."""
        parts = self.potential.components(self.potential.to_unconstrained(self._fitted(method).parameters)[None])
        return whitened_residuals(
            self.kernel.structure, parts.parameters[0], self._t, self._y - parts.mean[0], parts.noise[0]
        )

    def leave_one_out(self, method: str | None = None) -> LeaveOneOut:
        """Exact leave-one-out predictions at the fit, from one evaluation of value and gradient."""
        out = self._leave_one_out(self.potential.to_unconstrained(self._fitted(method).parameters)[None])
        return LeaveOneOut(out.mean[0], out.variance[0], out.log_density[0], out.pit[0])

    def _leave_one_out(self, z: Array) -> LeaveOneOut:
        """Leave-one-out predictions (S, N) at unconstrained points (S, D)."""
        parts = self.potential.components(z)
        jacobian = -np.log(self.detections.value) if self.transform else np.zeros(self.n)
        return leave_one_out(
            self.kernel.structure, parts.parameters, self._t, self._y, parts.mean, parts.noise, jacobian
        )

    def psd(
        self, frequency: Any, *, posterior: bool | None = None, draws: int = 200, convention: str = "one-sided"
    ) -> Array:
        """Power spectral density (S, F) at ordinary frequencies, one row per (thinned) posterior draw."""
        f = torch.as_tensor(np.asarray(frequency, dtype=np.float64))
        parts = self.potential.components(self._points(posterior, draws))
        space = state_space_of(self.kernel.structure, torch.as_tensor(parts.parameters))
        return space.psd(f, convention).detach().numpy()

    def timescales(self, *, posterior: bool | None = None, draws: int = 1000) -> dict[str, Any]:
        """Characteristic times by name: (S,) over posterior draws, or numbers at the fit; "regime" in words."""
        z = self._points(posterior, draws)
        values = self._natural(self.potential.to_natural(z))
        batch = batched_kernel(self.kernel, values, len(z))
        out: dict[str, Any] = {}
        for name, value in batch.timescales().items():
            name = name.replace("base_kernel.", "").replace("kernels.", "")
            out[name] = value if isinstance(value, str) else value.detach().double().numpy()
        single = len(z) == 1
        return {k: v if isinstance(v, str) or not single else float(v[0]) for k, v in out.items()}

    # -- output ---------------------------------------------------------------------------------------------------

    def report(self, path: str | Path, **options: Any) -> tuple[Path, Path]:
        """Write a self-contained HTML report and its JSON; returns both paths."""
        from gpkit.models.light_curve_report import write_report

        return write_report([self], path, **options)

    def save(self, path: str | Path) -> Path:
        """Write the model, its data, fits and posterior draws to one file."""
        from gpkit.models.storage import save_model

        return save_model(self, path)

    @classmethod
    def load(cls, path: str | Path) -> LightCurveGP:
        """Read what :meth:`save` wrote; nothing else is needed."""
        from gpkit.models.storage import load_model

        return load_model(path)
