"""Summaries of draws, and what they say about the sampler."""

from __future__ import annotations

from typing import Any

import arviz
import numpy as np
import pytest

from gpkit.diagnostics import convergence_warnings, summarise
from gpkit.errors import InvalidDataError


def inference(chains: int = 4, length: int = 500, offset: float = 0.0, **statistics: Any) -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, size=(chains, length)) + offset * np.arange(chains)[:, None]
    return arviz.from_dict(
        posterior={"x": x, "v": rng.normal(size=(chains, length, 2))}, sample_stats=statistics or None
    )


def test_numbers() -> None:
    data = inference()
    summary = summarise(data)
    assert [p.name for p in summary.parameters] == ["x", "v[0]", "v[1]"]
    x, draws = summary.parameters[0], np.asarray(data.posterior["x"])
    assert x.median == np.median(draws)
    assert x.hdi_high - x.hdi_low == pytest.approx(2 * 0.994 * 2, rel=0.05)  # the central interval of a normal
    table = arviz.summary(data, round_to="none")
    assert x.rhat == pytest.approx(table.loc["x", "r_hat"]) and x.ess_tail == pytest.approx(table.loc["x", "ess_tail"])
    assert (summary.n_chains, summary.n_draws, summary.divergences) == (4, 2000, 0) and len(summary.bfmi) == 0
    assert summary.converged and convergence_warnings(summary) == []
    assert [p.name for p in summarise(data, ["v"]).parameters] == ["v[0]", "v[1]"]


def test_chains_that_disagree_and_divergences() -> None:
    bad = summarise(inference(offset=1.0))
    assert not bad.converged and bad.max_rhat > 1.01
    found = convergence_warnings(bad, kernel="sho")
    assert [(f.level, f.code, f.kernel) for f in found] == [("error", "sampler-not-converged", "sho")]
    diverging = np.zeros((4, 500), dtype=bool)
    diverging[0, :3] = True
    some = summarise(inference(diverging=diverging, energy=np.random.default_rng(1).normal(size=(4, 500))))
    assert some.divergences == 3 and len(some.bfmi) == 4 and some.converged
    assert [f.code for f in convergence_warnings(some)] == ["divergences"]


def test_one_chain_and_very_few_draws() -> None:
    one = summarise(inference(chains=1, length=2000))
    assert np.isnan(one.max_rhat) and [f.code for f in convergence_warnings(one)] == ["one-chain"]
    few = summarise(inference(chains=2, length=3))
    assert np.isnan(few.min_ess) and not few.converged


def test_a_parameter_that_does_not_vary_does_not_spoil_the_verdict() -> None:
    data = inference()
    data.posterior["fixed"] = data.posterior["x"] * 0 + 2.0
    assert summarise(data).converged


def test_missing_group_and_variable() -> None:
    with pytest.raises(InvalidDataError, match="no posterior group"):
        summarise(arviz.from_dict(prior={"x": np.zeros((1, 5))}))
    with pytest.raises(InvalidDataError, match="'y'"):
        summarise(inference(), ["y"])
