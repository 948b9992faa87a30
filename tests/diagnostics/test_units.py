"""Units, powers of ten and offsets for labels; findings told once for several kernels."""

from __future__ import annotations

import pytest

from gpkit.diagnostics import Finding, group_findings, plots
from gpkit.diagnostics.style import tidy_axes
from gpkit.diagnostics.units import power_of_ten, pretty_unit, round_offset


@pytest.mark.parametrize(
    ("unit", "power", "expected"),
    [
        ("photons cm-2 s-1", 0, "photons cm⁻² s⁻¹"),
        ("photons cm-2 s-1", -6, "10⁻⁶ photons cm⁻² s⁻¹"),
        ("1e-6 ph cm^-2", -1, "10⁻⁷ ph cm⁻²"),
        ("10**-8 * erg s**-1", 0, "10⁻⁸ erg s⁻¹"),
        ("e-/s", 0, "e-/s"),
        ("rad/d", 0, "rad/d"),
        ("", 3, "10³"),
    ],
)
def test_units(unit: str, power: int, expected: str) -> None:
    assert pretty_unit(unit, power) == expected


def test_powers_and_offsets() -> None:
    assert [power_of_ten(0.0, x) for x in (0.0, 2e-6, 0.02, 99999.0, 3e7)] == [0, -6, 0, 0, 7]
    assert round_offset(2454687.0, 2460721.0) == 2450000.0
    assert [round_offset(*ends) for ends in ((54000.0, 60000.0), (0.0, 1e6), (1e5, 9e5), (-1e6, 1e6))] == [0.0] * 4


def test_labels_of_axes_tell_power_and_offset() -> None:
    ax = plots.plot_light_curve(
        [2454687.0, 2460721.0], [1e-6, 5e-6], time_label="Time (d)", value_label="Flux (ph cm⁻²)"
    )
    tidy_axes(ax.figure)  # type: ignore[arg-type]
    assert ax.get_xlabel() == "Time − 2450000 (d)" and ax.get_ylabel() == "Flux (10⁻⁶ ph cm⁻²)"
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert ax.yaxis.get_offset_text().get_text() == "" and "5.0" in [t.get_text() for t in ax.get_yticklabels()]


def test_findings_are_told_once() -> None:
    said = "Jitter dominates ({}, {} times the median error of 0.1)."
    findings = [
        Finding("warning", "jitter-dominates", said.format("7e-07", "1.5"), "sho"),
        Finding("warning", "other", "Only this.", "sho"),
        Finding("warning", "jitter-dominates", said.format("8e-07", "1.5"), "drw"),
        Finding("error", "jitter-dominates", said.format("8e-07", "1.5"), "matern32"),
        Finding("warning", "other", "Only that.", "drw"),
    ]
    groups = group_findings(findings)
    assert [group.kernels for group in groups] == [("matern32",), ("sho", "drw"), ("sho",), ("drw",)]
    assert groups[1].message == said.format("7e-07 / 8e-07", "1.5")
