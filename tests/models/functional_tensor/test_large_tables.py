"""Tables read in pieces: the same fit, stochastic steps near it, chunks from files and iterators."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.models import FunctionalTensor
from tests.models.functional_tensor.tables import fitted, modes, signal, table

FRAME, NEW = table(1500), table(400, seed=1)
ONE = {"restarts": 1, "sweeps": 30}


@pytest.fixture(scope="module")
def whole():
    return fitted(FRAME, fit=ONE)


def gap(model, other):
    return np.sqrt(np.mean((model.predict(NEW).mean - other.predict(NEW).mean) ** 2))


def test_sweeps_over_pieces_are_sweeps_over_the_table(whole):
    parts = fitted(FRAME, fit={**ONE, "batch_size": 200, "epochs": 0})
    np.testing.assert_allclose(parts.elbo, whole.elbo, rtol=1e-9)
    assert gap(parts, whole) < 1e-8


def test_pieces_with_rows_left_out():
    fits = [fitted(FRAME[:500], fit={"sweeps": 8, **more}) for more in ({}, {"batch_size": 130, "epochs": 0})]
    np.testing.assert_allclose(fits[0].fitted.elbo, fits[1].fitted.elbo, rtol=1e-9)
    np.testing.assert_allclose(fits[0].fitted.left_out.mean, fits[1].fitted.left_out.mean, atol=1e-8)


def test_stochastic_steps_end_near_the_fit_to_everything(whole):
    """One sweep after two stochastic passes: within a tenth of the noise of the whole fit; so is the truth."""
    stochastic = fitted(FRAME, fit={"restarts": 1, "sweeps": 1, "batch_size": 150})
    assert gap(stochastic, whole) < 0.1 * 0.2
    assert np.sqrt(np.mean((stochastic.predict(NEW).mean - signal(NEW)) ** 2)) < 0.06
    longer = fitted(FRAME, fit={**ONE, "batch_size": 150})
    assert np.all(np.diff(longer.fitted.traces[0]) >= -1e-8 * np.abs(longer.elbo))


@pytest.mark.parametrize("likelihood", ["student-t", "poisson"])
def test_other_likelihoods_in_pieces(likelihood):
    frame = FRAME[:600].copy()
    if likelihood == "poisson":
        frame["y"] = np.random.default_rng(0).poisson(np.exp(signal(frame) - 0.5))
    parts = [
        fitted(frame, likelihood=likelihood, fit={**ONE, "sweeps": 12, **more})
        for more in ({}, {"batch_size": 170, "epochs": 0})
    ]
    np.testing.assert_allclose(parts[0].elbo, parts[1].elbo, rtol=1e-9)
    stochastic = fitted(frame, likelihood=likelihood, fit={**ONE, "sweeps": 3, "batch_size": 100})
    spread = np.sqrt(parts[0].predict(NEW).variance.mean())
    assert gap(stochastic, parts[0]) < 0.15 * spread


@pytest.mark.parametrize("kind", ["file", "function", "iterator"])
def test_tables_in_chunks_are_the_table(whole, kind, tmp_path):
    path = tmp_path / "table.csv"
    FRAME.to_csv(path, index=False)
    chunks = (FRAME.iloc[k : k + 400] for k in range(0, len(FRAME), 400))
    source = {"file": path, "function": lambda: chunks, "iterator": chunks}[kind]
    model = FunctionalTensor(modes(), rank=2)
    fit = model.fit(source, "y", **ONE, batch_size=300, epochs=0, keep=250, progress=False)
    assert fit.n == len(FRAME) and len(model._state.y) == 250
    np.testing.assert_allclose(fit.elbo, whole.fitted.elbo, rtol=1e-8)
    assert gap(model, whole) < 1e-7
    more = table(100, seed=5)
    model.update(more, more.y)
    assert model.fitted.n == len(FRAME) + 100
    assert gap(model, whole) < 0.1


def test_chunks_that_cannot_be_used(tmp_path):
    model = FunctionalTensor(modes(), rank=2)
    bad = table(60)
    bad.loc[33, "x"] = np.nan
    with pytest.raises(InvalidDataError, match="in the chunk that begins at row 30: row 3 of 'x' is nan"):
        model.fit(iter([bad[:30], bad[30:]]), "y", restarts=1, progress=False)
    with pytest.raises(InvalidDataError, match="y must be the name of its column"):
        model.fit(iter([bad]), bad.y, progress=False)
    with pytest.raises(InvalidDataError, match="there is no file"):
        model.fit(tmp_path / "none.csv", "y", progress=False)
    bad.to_csv(tmp_path / "table.csv")
    with pytest.raises(InvalidDataError, match="no such columns"):
        model.fit(tmp_path / "table.csv", "z", progress=False)
    with pytest.raises(InvalidDataError, match="0 of 0 rows have a target"):
        model.fit(iter([]), "y", progress=False)
    with pytest.raises(InvalidDataError, match="needs the table in memory"):
        FunctionalTensor(modes(), residual="local").fit(iter([bad]), "y", progress=False)
    with pytest.raises(InvalidDataError, match="batch_size must be an integer of at least 1"):
        model.fit(bad, "y", batch_size=0, progress=False)
