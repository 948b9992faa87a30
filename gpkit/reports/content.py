"""What a report is made of, as plain data: reports know nothing about the models that fill these in.

All numbers are in natural units (those of the light curve), never in the unconstrained units of an optimiser. What is
not known is NaN, None or empty, and the report leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gpkit.diagnostics.arrays import FloatArray
from gpkit.diagnostics.findings import Finding
from gpkit.diagnostics.information import ModelScore
from gpkit.errors import InvalidDataError

NAN = float("nan")
NORMAL_95 = 1.959963984540054  # half-widths of central intervals of N(0, 1): 95 %
NORMAL_68 = 0.9944578832097532  # and 68 %


def _empty() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class LightCurveSection:
    """The data that were fitted.

    Attributes:
        name: Name of the source.
        time: Times of the fitted points, ``n``, increasing.
        value: Their values as measured (not transformed), ``n``.
        error: Their errors, ``n``.
        time_unit: Unit of the times.
        value_unit: Unit of the values.
        time_label: What the time is, for axes ("Time", "MJD").
        value_label: What the value is ("Flux", "Magnitude").
        upper_limit_time: Times of upper limits that were left out of the fit, ``m``.
        upper_limit_value: Those limits, ``m``.
        exclusions: Rows that were dropped while reading, by reason.
        n_repeated_times: Points at the time of the point before.
        transform: "log" if the model is one of ln(value), else None.
        source: Where the data came from, such as a file name.
    """

    name: str
    time: FloatArray
    value: FloatArray
    error: FloatArray
    time_unit: str = "d"
    value_unit: str = ""
    time_label: str = "Time"
    value_label: str = "Value"
    upper_limit_time: FloatArray = field(default_factory=_empty)
    upper_limit_value: FloatArray = field(default_factory=_empty)
    exclusions: Mapping[str, int] = field(default_factory=dict)
    n_repeated_times: int = 0
    transform: Literal["log"] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Check lengths, so that a report is not half written when it fails."""
        if not len(self.time) == len(self.value) == len(self.error):
            raise InvalidDataError("time, value and error must have the same length")
        if len(self.time) == 0:
            raise InvalidDataError("a report needs at least one fitted point")
        if len(self.upper_limit_time) != len(self.upper_limit_value):
            raise InvalidDataError("upper_limit_time and upper_limit_value must have the same length")

    @property
    def n(self) -> int:
        """Number of points that were fitted."""
        return len(self.time)

    @property
    def n_upper_limits(self) -> int:
        """Number of upper limits, which were not fitted."""
        return len(self.upper_limit_value)

    @property
    def n_dropped(self) -> int:
        """Number of rows that were dropped while reading."""
        return sum(self.exclusions.values())

    @property
    def in_magnitudes(self) -> bool:
        """Whether smaller values are brighter."""
        return self.value_label == "Magnitude"

    @property
    def baseline(self) -> float:
        """Time from the first fitted point to the last."""
        return float(self.time[-1] - self.time[0])

    @property
    def median_cadence(self) -> float:
        """Median time between different neighbouring times; NaN if there is only one."""
        steps = np.diff(np.unique(self.time))
        return float(np.median(steps)) if len(steps) else NAN

    @property
    def model_value(self) -> FloatArray:
        """The values on the scale of the model, ``n``."""
        return np.log(self.value) if self.transform == "log" else self.value

    @property
    def model_error(self) -> FloatArray:
        """The errors on the scale of the model, to first order, ``n``."""
        return self.error / self.value if self.transform == "log" else self.error

    @property
    def model_unit(self) -> str:
        """The unit on the scale of the model: none after a logarithm."""
        return "" if self.transform == "log" else self.value_unit

    @classmethod
    def from_light_curve(cls, curve: Any, **options: Any) -> LightCurveSection:
        """Take a `gpkit.datasets.LightCurve`; upper limits are separated from the fitted points.

        Args:
            curve: The light curve, not transformed.
            **options: Any attribute of this class that the curve does not know: transform, labels, source.
        """
        limits = curve.upper_limit
        return cls(
            name=curve.name,
            time=np.array(curve.time[~limits]),
            value=np.array(curve.value[~limits]),
            error=np.array(curve.error[~limits]),
            time_unit=curve.time_unit,
            value_unit=curve.value_unit,
            upper_limit_time=np.array(curve.time[limits]),
            upper_limit_value=np.array(curve.value[limits]),
            exclusions=dict(curve.exclusions),
            n_repeated_times=curve.n_repeated_times,
            **options,
        )


@dataclass(frozen=True)
class Quantity:
    """A parameter or a time scale.

    Attributes:
        name: Its name.
        map: Value at the optimum.
        unit: Its unit.
        median: Posterior median; NaN without posterior.
        hdi_low: Lower end of the highest-density interval.
        hdi_high: Its upper end.
        rhat: R-hat (parameters only).
        ess: The smaller of the bulk and tail effective sample sizes (parameters only).
        on_bound: Whether the optimum is on the bound of the allowed range.
        note: What it is, in a few words: the prior of a parameter, the definition of a time scale.
    """

    name: str
    map: float
    unit: str = ""
    median: float = NAN
    hdi_low: float = NAN
    hdi_high: float = NAN
    rhat: float = NAN
    ess: float = NAN
    on_bound: bool = False
    note: str = ""


@dataclass(frozen=True)
class Band:
    """A function with its 68 % and 95 % intervals, ``m`` each."""

    x: FloatArray
    center: FloatArray
    low_68: FloatArray
    high_68: FloatArray
    low_95: FloatArray
    high_95: FloatArray

    @classmethod
    def from_normal(cls, x: FloatArray, mean: FloatArray, sd: FloatArray) -> Band:
        """Central intervals of normal distributions."""
        return cls(
            x,
            mean,
            mean - NORMAL_68 * sd,
            mean + NORMAL_68 * sd,
            mean - NORMAL_95 * sd,
            mean + NORMAL_95 * sd,
        )

    def exponentiated(self) -> Band:
        """From ln(value) to value: quantiles go over into quantiles, so the centre becomes the median."""
        with np.errstate(over="ignore"):  # what overflows is drawn as infinite
            return Band(
                self.x,
                np.exp(self.center),
                np.exp(self.low_68),
                np.exp(self.high_68),
                np.exp(self.low_95),
                np.exp(self.high_95),
            )


@dataclass(frozen=True)
class PowerSpectrum:
    """Power spectrum of a fitted kernel, one-sided in frequency f and normalised to the variance.

    Attributes:
        frequency: Frequencies, ``f``, increasing, in 1 / unit of time.
        median: P(f), ``f``: the posterior median, or that of the optimum without posterior.
        low: Lower end of the credible band, ``f``, or None.
        high: Its upper end, ``f``, or None.
        noise_floor: White noise level of errors and jitter; NaN: from the errors of the light curve alone.
        probability: Probability of the band.
        simulations: Series simulated from the model at the times of the data, with noise and on the scale of the
            model, ``s n`` (some 50 are enough); the report shows the mean of their periodograms, which is what that of
            the data should be compared with. Empty: not shown.
    """

    frequency: FloatArray
    median: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    noise_floor: float = NAN
    probability: float = 0.68
    simulations: FloatArray = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True)
class KernelSection:
    """One fitted kernel.

    Attributes:
        name: Short name, which is its key everywhere ("sho").
        title: Name in headings ("Damped harmonic oscillator (SHO)"); empty: the label.
        label: Name in sentences and legends ("SHO"); empty: the name.
        formula: The covariance function, as text.
        regime: Regime in words ("overdamped, Q = 0.31"), where there are several.
        log_likelihood: Maximum of the log-likelihood of the values as measured (with the Jacobian of a transform).
        n_parameters: Number of free parameters.
        parameters: The parameters.
        timescales: The time scales.
        hdi_probability: Probability of the intervals of parameters and time scales.
        loo_log_density: Exact leave-one-out log densities of the values as measured, ``n``; empty if not computed.
        loo_pit: PIT values of the leave-one-out predictions, ``n``; empty if not computed.
        residuals: Whitened residuals in time order, ``n``; empty if not computed.
        prediction: The fit on a grid of times, on the scale of the values as measured.
        psd: The power spectrum, on the scale of the model.
        posterior: An `arviz.InferenceData` for trace and pair plots, or None without sampling.
        plot_variables: Scalar variables of the posterior to plot, in order; empty: all.
        priors: Normalised log prior densities by variable, for the comparison with the posterior.
        divergences: Number of divergent transitions; None without sampling.
        converged: Whether the fit, and the sampler if there was one, may be used.
        seconds: Time that it took; NaN if not measured.
        findings: What the reader should know about this fit (and only this one).
    """

    name: str
    log_likelihood: float
    n_parameters: int
    title: str = ""
    label: str = ""
    formula: str = ""
    regime: str = ""
    parameters: tuple[Quantity, ...] = ()
    timescales: tuple[Quantity, ...] = ()
    hdi_probability: float = 0.68
    loo_log_density: FloatArray = field(default_factory=_empty)
    loo_pit: FloatArray = field(default_factory=_empty)
    residuals: FloatArray = field(default_factory=_empty)
    prediction: Band | None = None
    psd: PowerSpectrum | None = None
    posterior: Any = None
    plot_variables: tuple[str, ...] = ()
    priors: Mapping[str, Callable[[FloatArray], FloatArray]] = field(default_factory=dict)
    divergences: int | None = None
    converged: bool = True
    seconds: float = NAN
    findings: tuple[Finding, ...] = ()

    @property
    def heading(self) -> str:
        """The title, or the label where there is none."""
        return self.title or self.called

    @property
    def called(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name

    @property
    def sampled(self) -> bool:
        """Whether there is a posterior."""
        return any(np.isfinite(q.median) for q in (*self.parameters, *self.timescales))

    def score(self, n: int) -> ModelScore:
        """What the ranking table needs, for `n` points."""
        return ModelScore(self.log_likelihood, self.n_parameters, n, self.loo_log_density)


@dataclass(frozen=True)
class RunSection:
    """How the result was made, so that it can be made again.

    Attributes:
        command: The command line, or the call.
        seed: Seed of everything random.
        date: Date and time, with time zone, as text.
        versions: Versions of packages by name.
        settings: Settings by name.
    """

    command: str = ""
    seed: int | None = None
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportContent:
    """A whole light-curve report.

    Attributes:
        light_curve: The data.
        kernels: The fits, at least one, with different names.
        run: How they were made.
        findings: What the reader should know beyond what the kernels' own findings say.
    """

    light_curve: LightCurveSection
    kernels: tuple[KernelSection, ...]
    run: RunSection = field(default_factory=RunSection)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        """Check that names are unique and lengths agree."""
        names = [kernel.name for kernel in self.kernels]
        if not names or len(set(names)) < len(names):
            raise InvalidDataError(f"a report needs kernels with different names, not {names}")
        for kernel in self.kernels:
            for what in ("residuals", "loo_log_density", "loo_pit"):
                length = len(getattr(kernel, what))
                if length not in (0, self.light_curve.n):
                    raise InvalidDataError(
                        f"kernel {kernel.name!r}: {what} has {length} entries for {self.light_curve.n} points"
                    )
            shape = (0, 0) if kernel.psd is None else kernel.psd.simulations.shape
            if shape[0] and shape[1:] != (self.light_curve.n,):
                raise InvalidDataError(
                    f"kernel {kernel.name!r}: simulations have shape {shape} for {self.light_curve.n} points"
                )
