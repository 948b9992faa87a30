"""From fitted light-curve models to a report: everything the report shows is computed here, once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.diagnostics import (
    Finding,
    PosteriorSummary,
    collapse_findings,
    convergence_warnings,
    jitter_findings,
    optimum_findings,
    summarise,
    timescale_findings,
)
from gpkit.errors import InvalidDataError
from gpkit.models.light_curve_gp import KERNELS, LightCurveGP

__all__ = ["report_content", "write_report"]

Array = NDArray[np.float64]

_GRID = 1200
_BAND_DRAWS = 100
_HDI = 0.68
_SIMULATIONS = 30


def write_report(
    models: Sequence[LightCurveGP], path: str | Path, *, progress: bool = True, **run: Any
) -> tuple[Path, Path]:
    """Write the HTML report and the JSON beside it; returns both paths.

    Args:
        models: fitted models of one light curve.
        path: HTML file, or a folder for ``report.html`` and ``summary.json``.
        progress: whether a bar is shown where stderr is a terminal.
        run: ``command``, ``seed``, ``settings``, ``source`` and ``seconds`` by kernel, to record.
    """
    from gpkit.reports import light_curve_report

    return light_curve_report(report_content(models, **run), path, progress=progress)


def report_content(
    models: Sequence[LightCurveGP],
    *,
    command: str = "",
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str = "",
    seconds: Mapping[str, float] | None = None,
) -> Any:
    """Everything that a report shows, as plain data (a ``gpkit.reports.ReportContent``).

    Raises:
        InvalidDataError: if there is no model, or models are of different light curves.
    """
    from gpkit.inference.inference_data import provenance
    from gpkit.reports import LightCurveSection, ReportContent, RunSection

    if not models:
        raise InvalidDataError("a report needs at least one model")
    first = models[0]
    if any(model.light_curve != first.light_curve for model in models[1:]):
        raise InvalidDataError("the models of one report must be of the same light curve")
    attributes = provenance()
    versions = attributes["versions"]
    versions = json.loads(versions) if isinstance(versions, str) else dict(versions)
    versions["gpkit"] = versions.pop("gpkit-bayes", "unknown")
    drw = next((m._fitted("ml").log_likelihood for m in models if m.name == "drw"), None)
    took = dict(seconds or {})
    return ReportContent(
        light_curve=LightCurveSection.from_light_curve(
            first.light_curve, transform=first.transform, source=source, **_labels(first)
        ),
        kernels=tuple(_kernel_section(model, drw, took.get(model.name, math.nan)) for model in models),
        run=RunSection(
            command=command,
            seed=seed,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            versions=versions,
            settings=dict(settings or {}),
        ),
    )


def _labels(model: LightCurveGP) -> dict[str, str]:
    unit = model.light_curve.value_unit
    magnitudes = re.fullmatch(r"(ab|st|vega|inst(rumental)? )?mag(nitude)?s?(\(.*\))?", unit.strip(), re.IGNORECASE)
    return {"value_label": "Magnitude" if magnitudes else ("Flux" if unit else "Value")}


def _kernel_section(model: LightCurveGP, drw_log_likelihood: float | None, seconds: float) -> Any:
    from gpkit.reports import Band, KernelSection, PowerSpectrum

    ml, best = model._fitted("ml"), model._fitted("map")
    summary = None if model.posterior is None else summarise(model.posterior, hdi_probability=_HDI)
    loo = model.leave_one_out("ml")
    scales = _Timescales(model)
    findings = _findings(model, summary, scales, drw_log_likelihood)
    grid = _grid(model)
    prediction = model.predict(grid, draws=_BAND_DRAWS)
    low_68, high_68 = prediction.interval(0.68)
    low_95, high_95 = prediction.interval(0.95)
    frequency = _frequencies(model)
    power = model.psd(frequency, draws=_BAND_DRAWS)
    sampled = len(power) > 1
    label, title, formula = KERNELS.get(model.name, (model.name, model.name, str(model.kernel.structure)))
    posterior_converged = summary is None or not any(f.level == "error" for f in convergence_warnings(summary))
    return KernelSection(
        name=model.name,
        label=label,
        title=title,
        formula=formula,
        regime=scales.regime_in_words(best.parameters.get("quality")),
        log_likelihood=ml.log_likelihood,
        n_parameters=ml.n_parameters,
        parameters=_parameters(model, summary),
        timescales=scales.quantities(),
        hdi_probability=_HDI,
        loo_log_density=loo.log_density,
        loo_pit=loo.pit,
        residuals=model.residuals("ml"),
        prediction=Band(grid, prediction.median, low_68, high_68, low_95, high_95),
        psd=PowerSpectrum(
            frequency=frequency,
            median=np.median(power, axis=0),
            low=np.quantile(power, 0.16, axis=0) if sampled else None,
            high=np.quantile(power, 0.84, axis=0) if sampled else None,
            noise_floor=_noise_floor(model, best.parameters),
            simulations=_simulations(model),
        ),
        posterior=model.posterior,
        plot_variables=model.parameter_names,
        priors={spec.name: _log_prior(spec.prior) for spec in model.specs if spec.prior is not None},
        divergences=None if summary is None else summary.divergences,
        converged=ml.converged and posterior_converged,
        seconds=seconds,
        findings=tuple(findings),
    )


def _log_prior(prior: Any) -> Callable[[Array], Array]:
    def density(x: Array) -> Array:
        values = torch.as_tensor(np.asarray(x, dtype=np.float64))
        inside = prior.support.check(values) if prior.support is not None else torch.ones_like(values, dtype=torch.bool)
        safe = torch.where(inside, values, torch.as_tensor(prior.mean, dtype=values.dtype).expand_as(values))
        out = torch.where(inside, prior.log_prob(safe), torch.full_like(values, -torch.inf))
        return out.detach().numpy()

    return density


def _prior_words(prior: Any) -> str:
    if prior is None:
        return "flat prior"
    name = type(prior).__name__.removesuffix("Prior")
    numbers = []
    for attribute in ("loc", "scale", "concentration", "rate", "low", "high", "df"):
        value = getattr(prior, attribute, None)
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            numbers.append(f"{float(value):.3g}")
    return f"{name}({', '.join(numbers)})"


def _parameters(model: LightCurveGP, summary: PosteriorSummary | None) -> tuple[Any, ...]:
    from gpkit.reports import Quantity

    ml, best, units = model._fitted("ml"), model._fitted("map"), model.units()
    drawn = {} if summary is None else {p.name: p for p in summary.parameters}
    out = []
    for spec in model.specs:
        p = drawn.get(spec.name)
        known: dict[str, Any] = (
            {}
            if p is None
            else {
                "median": p.median,
                "hdi_low": p.hdi_low,
                "hdi_high": p.hdi_high,
                "rhat": p.rhat,
                "ess": min(p.ess_bulk, p.ess_tail),
            }
        )
        out.append(
            Quantity(
                name=spec.name,
                map=best.parameters[spec.name],
                unit=units[spec.name],
                on_bound=spec.name in ml.at_bound,
                note=_prior_words(spec.prior),
                **known,
            )
        )
    return tuple(out)


_NOTES = {
    "slow": "slow decay time",
    "fast": "fast decay time",
    "break": "1 / angular frequency at half the PSD's zero-frequency value",
    "integral": "integral of the autocorrelation",
    "damping": "2 Q / w0",
    "period": "of the damped oscillation",
    "decorrelation": "e-folding time of the autocorrelation",
    "lengthscale": "Matern length scale",
}


class _Timescales:
    """Time scales of a model at the maximum a posteriori and over the posterior."""

    def __init__(self, model: LightCurveGP) -> None:
        self.model = model
        self.point = model.timescales(posterior=False)
        self.draws = model.timescales(posterior=True) if model.posterior is not None else {}

    def typical(self, *names: str) -> float:
        """Posterior median (or point value) of the first of the names that exists; NaN if none does."""
        for name in names:
            if isinstance(self.point.get(name), float):
                return float(np.median(self.draws[name])) if name in self.draws else self.point[name]
        return math.nan

    def regime_in_words(self, quality: float | None) -> str:
        regime = self.point.get("regime")
        if not isinstance(regime, str):
            return ""
        return regime if quality is None else f"{regime}, Q = {quality:.3g}"

    def quantities(self) -> tuple[Any, ...]:
        import arviz

        from gpkit.reports import Quantity

        out = []
        for name, value in self.point.items():
            if isinstance(value, str) or (not math.isfinite(value) and name not in self.draws):
                continue
            known: dict[str, Any] = {}
            if name in self.draws:
                drawn = self.draws[name]
                if not np.isfinite(drawn).all():
                    continue
                low, high = arviz.hdi(drawn, hdi_prob=_HDI)
                known = {"median": float(np.median(drawn)), "hdi_low": float(low), "hdi_high": float(high)}
            unit = self.model.light_curve.time_unit
            out.append(Quantity(name=name, map=float(value), unit=unit, note=_NOTES.get(name, ""), **known))
        return tuple(out)


def _findings(
    model: LightCurveGP, summary: PosteriorSummary | None, scales: _Timescales, drw: float | None
) -> list[Finding]:
    ml = model._fitted("ml")
    name, unit = model.name, model.light_curve.time_unit
    baseline, cadence = model.scale.baseline, model.scale.cadence
    found = optimum_findings(on_bound=ml.at_bound, converged=ml.converged, kernel=name)
    slow, fast = scales.typical("slow", "decorrelation", "lengthscale", "damping"), scales.typical("fast")
    if math.isfinite(slow):
        known_fast = fast if math.isfinite(fast) else None
        found += timescale_findings(
            slow=slow, fast=known_fast, baseline=baseline, median_cadence=cadence, unit=unit, kernel=name
        )
    if model.name == "sho":
        # Whether the likelihood prefers the limit is a question about the maximum of the likelihood.
        quality = ml.parameters["quality"]
        w = ml.parameters["frequency"]
        beta = 0.5 / quality
        fast_ml = 1.0 / (w * (beta + math.sqrt(max((beta - 1.0) * (beta + 1.0), 0.0))))
        collapsed = collapse_findings(
            quality=quality,
            fast=fast_ml,
            median_cadence=cadence,
            log_likelihood=ml.log_likelihood,
            drw_log_likelihood=drw,
            unit=unit,
            kernel=name,
        )
        if collapsed:  # which says it more exactly than the fast time scale below the sampling does
            found = [f for f in found if f.code != "fast-timescale-unresolved"] + collapsed
    if "jitter" in ml.parameters:
        found += jitter_findings(jitter=ml.parameters["jitter"], median_error=model.scale.error, kernel=name)
    if summary is not None:
        found += convergence_warnings(summary, kernel=name)
    return found


def _grid(model: LightCurveGP) -> Array:
    """Times of the fit's curve: even, with the data times where they are few."""
    time = np.array(model.detections.time)
    grid = np.linspace(time[0], time[-1], _GRID)
    return np.unique(np.concatenate([grid, time])) if model.n <= _GRID else grid


def _frequencies(model: LightCurveGP) -> Array:
    low, high = 1.0 / model.scale.baseline, 0.5 / model.scale.cadence
    return np.geomspace(0.3 * low, max(3.0 * high, 10.0 * low), 300)


def _simulations(model: LightCurveGP) -> Array:
    """Curves (S, N) from the fit, on the scale of the model: what its periodogram looks like at these times."""
    curves = model.simulate(_SIMULATIONS if model.n <= 5000 else 8, seed=1)
    return np.log(curves) if model.transform else curves


def _noise_floor(model: LightCurveGP, parameters: Mapping[str, float]) -> float:
    """One-sided white-noise level 2 <R> T / N of errors and jitter, on the scale of the model."""
    variance = float(np.mean(model._error**2)) + parameters.get("jitter", 0.0) ** 2
    return 2.0 * variance * model.scale.baseline / model.n
