"""Figures are drawn for every input that a report can hand over, without touching pyplot or matplotlib's settings."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from gpkit.diagnostics import bin_periodogram, check_residuals, periodogram, plots, posterior_plots
from gpkit.diagnostics.style import new_figure, plain
from gpkit.errors import InvalidDataError
from tests.reports.simulated import draws


def rendered(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_settings_and_pyplot_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    ax = plots.plot_light_curve([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    assert dict(matplotlib.rcParams) == before
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
    assert plots.plot_light_curve([0.0], [1.0], ax=ax) is ax


@pytest.mark.parametrize("n", [1, 20, 3000])
@pytest.mark.parametrize("log_scale", [False, True])
def test_light_curve_and_band(n: int, log_scale: bool) -> None:
    t = np.arange(float(n))
    y = 2 + np.sin(t)
    ax = plots.plot_light_curve(t, y, 0.1 + 0 * t, upper_limit_time=[0.5], upper_limit_value=[1.0], log_scale=log_scale)
    plots.plot_band(t, y, y - 0.1, y + 0.1, y - 0.2, y + 0.2, ax=ax)
    assert ax.get_yscale() == ("log" if log_scale else "linear")
    texts = [label for label in ax.get_legend_handles_labels()[1]]
    assert "upper limits (not fitted)" in texts and "95 %" in texts
    assert len(rendered(ax.figure)) > 1000


@pytest.mark.parametrize("n", [0, 1, 9, 300])
def test_residual_plots(n: int) -> None:
    z = np.random.default_rng(0).normal(size=n)
    checks = check_residuals(z)
    figure = new_figure()
    axes = figure.subplots(2, 3).ravel()
    plots.plot_residual_series(np.arange(float(n)), z, ax=axes[0])
    plots.plot_residual_histogram(z, ax=axes[1])
    plots.plot_qq(z, ax=axes[2])
    plots.plot_acf(checks, ax=axes[3])
    plots.plot_acf(checks, squared=True, ax=axes[4])
    plots.plot_pit(np.linspace(0.01, 0.99, n), ax=axes[5])
    assert rendered(figure)


def test_psd_shows_what_it_is_given() -> None:
    t = np.arange(200.0)
    spectrum = periodogram(t, np.random.default_rng(0).normal(size=200))
    f = np.geomspace(1e-3, 1, 50)
    ax = plots.plot_psd(
        f,
        1 / f,
        0.5 / f,
        2 / f,
        noise=0.1,
        spectrum=spectrum,
        binned=bin_periodogram(spectrum),
        limits=(0.005, 0.5),
        time_unit="d",
        value_unit="mJy",
    )
    assert ax.get_xlabel() == "Frequency f (1/d)" and ax.get_ylabel() == "P(f) ((mJy)² d)"
    shown = set(ax.get_legend_handles_labels()[1])
    assert {"model", "68 %", "measurement noise", "model + noise", "periodogram", "periodogram, binned"} == shown
    assert [text.get_text() for text in ax.texts] == ["1/T", "1/(2 median Δt)"]
    sampled = plots.plot_psd(f, 1 / f, noise=0.1, expected=bin_periodogram(spectrum))
    assert "model + noise, as sampled" in sampled.get_legend_handles_labels()[1]
    bare = plots.plot_psd(f, 1 / f)
    assert bare.get_legend_handles_labels()[1] == ["model"] and bare.get_xlabel() == "Frequency f"
    assert rendered(ax.figure) and rendered(bare.figure)


def test_posterior_plots() -> None:
    data = draws({"sigma": 1.0, "tau": 30.0}, seed=0, length=200)
    data.posterior["fixed"] = data.posterior["tau"] * 0 + 1.0
    assert posterior_plots.scalar_names(data) == ["sigma", "tau", "fixed"]
    trace = posterior_plots.plot_trace_rank(data)
    assert len(trace.axes) == 9 and rendered(trace)
    pairs = posterior_plots.plot_pairs(data)
    assert len([ax for ax in pairs.axes if ax.get_visible()]) >= 3 and rendered(pairs)
    wide = np.exp(2 * np.random.default_rng(0).normal(size=2000))
    ax = posterior_plots.plot_prior_posterior(wide, lambda x: -x, name="tau", unit="d")
    assert "log" in ax.get_xlabel()
    # The prior exp(-x) keeps its unit area after the change to the logarithm.
    x, density = (line := ax.get_lines()[-1]).get_xdata(), line.get_ydata()
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(InvalidDataError, match="at least two"):
        posterior_plots.plot_pairs(data, ["sigma"])
    with pytest.raises(InvalidDataError, match="no scalar"):
        posterior_plots.plot_trace_rank(data, [])


def test_dollar_signs_are_text() -> None:
    ax = plots.plot_light_curve([0.0, 1.0], [1.0, 2.0], time_label="t $", value_label=r"$\frac{ $")
    assert rendered(ax.figure) and plain("a$b") == r"a\$b"
