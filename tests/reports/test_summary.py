"""The numbers beside the report, and the sentences made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from gpkit.diagnostics import Finding
from gpkit.errors import InvalidDataError
from gpkit.reports import Band, LightCurveSection, PowerSpectrum, ReportContent, headline, summary, to_json
from gpkit.reports.summary import all_findings, ranking
from tests.reports.simulated import content

NUMBER = {"type": ["number", "null"]}


def exactly(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def mapping(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


SPREAD = {"map": NUMBER, "median": NUMBER, "hdi_low": NUMBER, "hdi_high": NUMBER}
NAME = {"type": ["string", "null"]}
SCHEMA = exactly(
    light_curve=exactly(
        name={"type": "string"},
        n={"type": "integer"},
        n_upper_limits={"type": "integer"},
        n_dropped={"type": "integer"},
        baseline=NUMBER,
    ),
    kernels=mapping(
        exactly(
            log_likelihood=NUMBER,
            n_parameters={"type": "integer"},
            aicc=NUMBER,
            bic=NUMBER,
            elpd_loo=NUMBER,
            elpd_loo_se=NUMBER,
            parameters=mapping(exactly(**SPREAD, rhat=NUMBER, ess=NUMBER)),
            timescales=mapping(exactly(**SPREAD)),
            divergences={"type": ["integer", "null"]},
            converged={"type": "boolean"},
            seconds=NUMBER,
        )
    ),
    best=exactly(aicc=NAME, elpd_loo=NAME),
    warnings={
        "type": "array",
        "items": exactly(
            level={"enum": ["error", "warning", "note"]},
            code={"type": "string"},
            kernel=NAME,
            message={"type": "string"},
        ),
    },
)


@pytest.mark.parametrize("sampled", [True, False])
def test_schema_and_values(sampled: bool) -> None:
    made = content(60, sampled=sampled)
    got = json.loads(to_json(summary(made)))
    jsonschema.validate(got, SCHEMA)
    assert got["light_curve"] == {
        "name": "Simulated source",
        "n": 60,
        "n_upper_limits": 3,
        "n_dropped": 2,
        "baseline": pytest.approx(made.light_curve.baseline),
    }
    drw, fit = got["kernels"]["drw"], made.kernels[0]
    assert drw["aicc"] == pytest.approx(-2 * fit.log_likelihood + 8 + 2 * 4 * 5 / 55)
    assert drw["elpd_loo"] == pytest.approx(fit.loo_log_density.sum())
    assert drw["parameters"]["tau"]["map"] == 30.0 and drw["timescales"]["tau"]["map"] == 30.0
    assert (drw["parameters"]["tau"]["median"] is None) is not sampled
    assert drw["divergences"] == (6 if sampled else None)
    assert got["best"]["aicc"] == ranking(made)[0]["name"]


def codes(made: ReportContent) -> list[str]:
    return [finding.code for finding in all_findings(made)]


def test_findings_about_data_and_residuals_are_added_once() -> None:
    made = content(60)
    assert "upper-limits-left-out" in codes(made) and "rows-dropped" in codes(made)
    brought = replace(made, findings=(Finding("warning", "rows-dropped", "Two rows."),))
    assert codes(brought).count("rows-dropped") == 1
    drw = made.kernels[0]
    noisy = replace(made, kernels=(replace(drw, residuals=3 * drw.residuals), *made.kernels[1:]))
    assert ("residuals-not-normal", "drw") in [(f.code, f.kernel) for f in all_findings(noisy)]
    clean = content(60, n_limits=0, exclusions={}, sampled=False)
    assert not {"upper-limits-left-out", "rows-dropped"} & set(codes(clean))


def test_a_fit_that_did_not_converge_is_said_so() -> None:
    made = content(60, sampled=False)
    bad = replace(made, kernels=(replace(made.kernels[0], converged=False, findings=()), made.kernels[1]))
    assert all_findings(bad)[0].level == "error"
    assert "Not converged, and not to be used: DRW." in headline(bad)


def with_likelihoods(first: float, second: float, extra: int = 1) -> ReportContent:
    made = content(200, sampled=False)
    pointwise = made.kernels[0].loo_log_density
    drw = replace(made.kernels[0], log_likelihood=first, n_parameters=4)
    sho = replace(made.kernels[1], log_likelihood=second, n_parameters=4 + extra, loo_log_density=pointwise - 1e-3)
    return replace(made, kernels=(drw, sho))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (-100.0, -100.0, "DRW is preferred by AICc (SHO 2.1 behind); SHO fits no better, so its additional parameter"),
        (-100.0, -99.0, "No kernel is preferred by AICc: DRW is lowest, but by less than 2"),
        (-100.0, -96.0, "SHO is preferred by AICc (DRW 5.9 behind); the preference is not decisive."),
        (-100.0, -80.0, "SHO is preferred by AICc (DRW 37.9 behind)."),
    ],
)
def test_headline_claims_what_the_numbers_say(first: float, second: float, expected: str) -> None:
    sentences = headline(with_likelihoods(first, second))
    assert sentences[0].startswith(expected)
    assert "does not separate DRW from SHO" in sentences[1]


def test_headline_with_nothing_to_compare() -> None:
    assert headline(content(60, kernels=("drw",)))[0] == "One kernel was fitted, DRW; nothing is compared."
    assert "too few points" in headline(content(5, sampled=False))[0]
    assert summary(content(5, sampled=False))["best"]["aicc"] is None
    assert codes(content(5, sampled=False)).count("aicc-undefined") == 2


def test_content_is_checked() -> None:
    made = content(30, sampled=False)
    with pytest.raises(InvalidDataError, match="different names"):
        replace(made, kernels=(made.kernels[0], made.kernels[0]))
    with pytest.raises(InvalidDataError, match="residuals has 3 entries for 30 points"):
        replace(made, kernels=(replace(made.kernels[0], residuals=np.zeros(3)),))
    wrong = PowerSpectrum(np.ones(2), np.ones(2), simulations=np.zeros((5, 29)))
    with pytest.raises(InvalidDataError, match="simulations have shape"):
        replace(made, kernels=(replace(made.kernels[0], psd=wrong),))
    with pytest.raises(InvalidDataError, match="same length"):
        LightCurveSection("x", np.zeros(2), np.zeros(3), np.zeros(2))
    with pytest.raises(InvalidDataError, match="at least one"):
        LightCurveSection("x", np.zeros(0), np.zeros(0), np.zeros(0))


def test_light_curve_section_separates_upper_limits() -> None:
    from gpkit.datasets import LightCurve

    curve = LightCurve([0.0, 1.0, 2.0], [1.0, 2.0, 4.0], [0.1, np.nan, 0.4], upper_limit=[False, True, False], name="x")
    section = LightCurveSection.from_light_curve(curve, transform="log", value_label="Flux")
    assert section.n == 2 and section.upper_limit_value.tolist() == [2.0] and section.baseline == 2.0
    np.testing.assert_allclose(section.model_value, np.log([1.0, 4.0]))
    np.testing.assert_allclose(section.model_error, [0.1, 0.1])


def test_bands_hold_their_probability() -> None:
    from scipy.stats import norm

    band = Band.from_normal(np.zeros(1), np.array([1.0]), np.array([2.0]))
    assert norm.cdf(band.high_95, 1, 2) - norm.cdf(band.low_95, 1, 2) == pytest.approx(0.95)
    assert norm.cdf(band.high_68, 1, 2) - norm.cdf(band.low_68, 1, 2) == pytest.approx(0.68)
    assert band.exponentiated().center[0] == pytest.approx(np.e)
