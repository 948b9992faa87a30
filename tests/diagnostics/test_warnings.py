"""Every rule fires where it should and is silent where it should be."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.diagnostics import (
    Finding,
    check_residuals,
    collapse_findings,
    data_findings,
    jitter_findings,
    optimum_findings,
    residual_findings,
    sampler_findings,
    sort_findings,
    timescale_findings,
)


def codes(findings: list[Finding]) -> list[str]:
    for finding in findings:
        assert finding.message.strip().endswith(".") and "\n" not in finding.message and "  " not in finding.message
    return [finding.code for finding in findings]


def test_data() -> None:
    assert codes(data_findings(n_detections=30)) == []
    found = data_findings(n_upper_limits=1, exclusions={"NaN": 2, "none": 0}, n_repeated_times=3, n_detections=29)
    assert codes(found) == ["upper-limits-left-out", "rows-dropped", "repeated-times", "few-points"]
    assert found[0].message.startswith("1 upper limit was left out") and "(NaN: 2)" in found[1].message


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        (99.0, None, ["timescale-poorly-covered"]),
        (101.0, None, ["timescale-longer-than-baseline"]),
        (10.0, None, []),
        (10.1, None, ["timescale-poorly-covered"]),
        (0.9, None, ["timescale-shorter-than-sampling"]),
        (5.0, 0.5, ["fast-timescale-unresolved"]),
        (5.0, 1.5, []),
        (0.9, 0.1, ["timescale-shorter-than-sampling"]),
    ],
)
def test_timescales(slow: float, fast: float | None, expected: list[str]) -> None:
    assert codes(timescale_findings(slow=slow, fast=fast, baseline=100.0, median_cadence=1.0)) == expected


@pytest.mark.parametrize(
    ("quality", "fast", "gain", "fires"),
    [
        (0.013, 0.1, 0.0, True),
        (0.013, 0.1, 0.9, True),
        (0.013, 0.1, -0.2, True),
        (0.013, 0.1, 3.0, False),
        (0.05, 5.0, None, True),
        (0.4, 2.0, None, False),
        (0.4, 0.5, None, True),
        (0.4, 0.5, 4.0, False),
        (2.0, 0.1, None, False),
    ],
)
def test_collapse(quality: float, fast: float, gain: float | None, fires: bool) -> None:
    drw = None if gain is None else -100.0
    own = None if gain is None else -100.0 + gain
    found = collapse_findings(
        quality=quality, fast=fast, median_cadence=1.0, log_likelihood=own, drw_log_likelihood=drw
    )
    assert codes(found) == (["sho-collapsed-to-drw"] if fires else [])
    assert all("SHO has collapsed to DRW" in finding.message for finding in found)


def test_jitter_and_optimum() -> None:
    assert codes(jitter_findings(jitter=0.1, median_error=0.1)) == []
    assert codes(jitter_findings(jitter=0.11, median_error=0.1)) == ["jitter-dominates"]
    assert codes(jitter_findings(jitter=0.1, median_error=0.0)) == ["jitter-dominates"]
    assert codes(optimum_findings()) == []
    assert codes(optimum_findings(on_bound=["Q"], converged=False)) == ["fit-not-converged", "optimum-on-bound"]


def test_residuals() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(size=400)
    assert codes(residual_findings(check_residuals(white))) == []
    assert codes(residual_findings(check_residuals(white[:5]))) == []
    red = np.convolve(white, [1, 0.7], "valid") / np.hypot(1, 0.7)
    assert "residuals-not-white" in codes(residual_findings(check_residuals(red), kernel="drw"))
    assert codes(residual_findings(check_residuals(2 * white))) == ["residuals-not-normal"]
    assert codes(residual_findings(check_residuals(np.append(white, np.nan)))) == ["residuals-not-finite"]


GOOD = {"max_rhat": 1.005, "min_ess": 900.0, "divergences": 0, "n_draws": 4000, "n_chains": 4}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"max_rhat": 1.011}, ["sampler-not-converged"]),
        ({"max_rhat": float("nan")}, ["sampler-not-converged"]),
        ({"min_ess": 399.0}, ["sampler-not-converged"]),
        ({"min_ess": float("nan")}, ["sampler-not-converged"]),
        ({"divergences": 40}, ["divergences"]),
        ({"divergences": 41}, ["sampler-not-converged"]),
        ({"max_rhat": float("nan"), "n_chains": 1}, ["one-chain"]),
        ({"min_bfmi": 0.2}, ["low-bfmi"]),
    ],
)
def test_sampler(change: dict[str, float], expected: list[str]) -> None:
    found = sampler_findings(**(GOOD | change))
    assert codes(found) == expected
    if expected == ["sampler-not-converged"]:
        assert found[0].level == "error" and "do not use" in found[0].message


def test_sorting_puts_the_worst_first_and_drops_repetitions() -> None:
    a, b, c = Finding("note", "a", "A."), Finding("error", "b", "B."), Finding("warning", "c", "C.")
    assert sort_findings([a, c, b, a]) == [b, c, a]
