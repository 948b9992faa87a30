"""Updates: exact while everything is kept, near the fit to everything in bounded memory, for every likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from gpkit.models.functional_tensor import memory
from tests.models.functional_tensor.tables import fitted, signal, table

NEW = table(400, seed=1)
ONE = {"restarts": 1}
OTHERS = {
    "student-t": lambda f, rng: f + 0.2 * rng.standard_t(3.0, len(f)),
    "poisson": lambda f, rng: rng.poisson(np.exp(f)),
    "bernoulli": lambda f, rng: rng.uniform(size=len(f)) < 1.0 / (1.0 + np.exp(1.0 - f)),
    "negative-binomial": lambda f, rng: rng.negative_binomial(4, 1.0 / (1.0 + np.exp(f) / 4.0)),
}


@pytest.fixture
def small_sample(monkeypatch):
    """As few remembered rows as rows are kept, so that small tables are not wholly remembered."""
    monkeypatch.setattr(memory, "LEAST_SAMPLE", 0)


def streamed(frame, keep, step=300, **options):
    model = fitted(frame[:600], fit=ONE, **options)
    for begin in range(600, len(frame), step):
        piece = frame.iloc[begin : begin + step]
        model.update(piece, piece.y, keep=keep, sweeps=6)
        assert len(model._state.y) <= keep
    return model


@pytest.mark.parametrize(("form", "limit"), [("tucker", 0.1), ("tensor-train", 0.2)])
def test_in_order_in_bounded_memory_agrees_with_one_fit(form, limit, monkeypatch):
    """An eighth of the rows are kept; means are within a part of the noise of the whole fit, widths within 15 %."""
    monkeypatch.setattr(memory, "LEAST_SAMPLE", 1000)
    frame = table(2400)
    whole = fitted(frame, form=form, fit={"restarts": 1, "sweeps": 60}).predict(NEW)
    stream = streamed(frame, 300, form=form)
    found = stream.predict(NEW)
    assert np.sqrt(np.mean((found.mean - whole.mean) ** 2)) < limit * 0.2
    ratio = np.sqrt(np.median(found.function_variance / whole.function_variance))
    assert 0.85 < ratio < 1.15
    low, high = found.interval(0.9)
    assert 0.86 < np.mean((NEW.y > low) & (NEW.y < high)) < 0.94
    assert stream.fitted.n == 2400 and sum(stream._state.counts[2]) == 2400


@pytest.mark.parametrize("form", ["tucker", "cp"])
def test_long_streams_do_not_run_away(form, small_sample):
    """One row in eighty is remembered: its sites are far from those of what has gone."""
    frame = table(16_000, seed=2)
    model = fitted(frame[:800], form=form, fit=ONE)
    for begin in range(800, len(frame), 800):
        model.update(frame[begin : begin + 800], "y", keep=200, sweeps=5)
    assert np.sqrt(np.mean((model.predict(NEW).mean - signal(NEW)) ** 2)) < 0.15 * 0.2
    assert model.fitted.parameters["noise_variance"] == pytest.approx(0.04, rel=0.05)


@pytest.mark.parametrize("likelihood", OTHERS)
def test_other_likelihoods_stream(likelihood, small_sample):
    """Half of what has gone is remembered."""
    frame = table(900, noise=0.0)
    frame["y"] = np.asarray(OTHERS[likelihood](signal(frame), np.random.default_rng(0)), dtype=float)
    whole = fitted(frame, likelihood=likelihood, fit={"restarts": 1, "sweeps": 40})
    stream = streamed(frame, 300, step=150, likelihood=likelihood)
    assert len(stream._state.memory.y) == 300 and stream._state.memory.gone == 600
    moments = []
    for model in (whole, stream):
        columns = [NEW[name].to_numpy(dtype=kind) for name, kind in (("x", float), ("t", float), ("kind", str))]
        numbers = [e.numbers([column]) for e, column in zip(model._state.encodings, columns, strict=True)]
        mean, square = model.best.posterior.moments_at(numbers)
        state = model._state
        moments.append((state.centre + state.unit * mean, state.unit * np.sqrt(square - mean**2)))
    (mean, sd), (found, other) = moments
    # In posterior standard deviations of the whole fit, root mean square.
    assert np.sqrt(np.mean(((found - mean) / sd) ** 2)) < 0.8
    assert 0.75 < np.median(other / sd) < 1.25


def test_what_has_left_memory_is_not_forgotten_and_can_be(small_sample):
    """Rows with a shift of two: it is found as far as the powers of the rows say, whatever has left memory."""
    first, second = table(600), table(200, seed=5)
    second["y"] += 2.0
    for forgetting, tolerance in ((1.0, 0.15), (0.5, 0.2), (0.01, 0.2)):
        model = fitted(first, fit=ONE)
        model.update(first[:1], first.y[:1], keep=300, sweeps=1)
        model.update(second, second.y, keep=300, forgetting=forgetting)
        shift = np.mean(model.predict(second).mean - signal(second))
        assert shift == pytest.approx(2.0 * 200 / (200 + 600 * forgetting), abs=tolerance)


def test_what_is_remembered_whole_is_not_approximated():
    """All rows that are gone are in the sample: the sweeps are those over everything."""
    frame = table(500)
    models = []
    for keep in (100, 500):
        model = fitted(frame[:300], fit=ONE)
        for begin in (300, 400):
            model.update(frame[begin : begin + 100], frame.y[begin : begin + 100], keep=keep)
        models.append(model)
    few, all_kept = models
    assert len(few._state.y) == 100 and few._state.memory.complete
    np.testing.assert_allclose(few.predict(NEW).mean, all_kept.predict(NEW).mean, atol=1e-7)
    assert few.elbo == pytest.approx(all_kept.elbo, rel=1e-9)


def test_samples_stand_for_what_has_gone(small_sample):
    """Rows are remembered in proportion to their powers; weights never exceed half of what has gone at a coordinate."""
    rng = np.random.default_rng(0)
    index = [rng.integers(0, 5, 4000).astype(np.int32), rng.integers(0, 900, 4000).astype(np.int32)]
    part, places = np.full(2000, -1, np.int16), [np.arange(5, dtype=np.int32), np.arange(900, dtype=np.int32)]
    found = memory.Memory.empty([5, 900])
    found = found.joined([column[:2000] for column in index], np.zeros(2000), part, np.ones(1), 500, seed=0)
    found = found.forgotten(0.25, places, [5, 900])
    found = found.joined([column[2000:] for column in index], np.ones(2000), part, np.ones(1), 500, seed=0)
    assert len(found.y) == 500 and found.gone == 4000 and found.total == pytest.approx(2500.0)
    assert found.y.mean() == pytest.approx(0.8, abs=0.08)  # 2000 of 2500
    for column, covered in zip(found.index, found.covered, strict=True):
        assert np.all(np.bincount(column, found.weight, len(covered)) <= 0.5 * covered + 1e-9)
    assert 0.15 * 2500 < found.weight.sum() <= 0.5 * 2500.0 + 1e-9


def test_local_residual_streams_with_the_kept_rows_as_neighbours():
    frame = table(700)
    model = fitted(frame[:400], residual="local")
    before = model._state.residual
    model.update(frame[400:], frame.y[400:], keep=500)
    after = model._state.residual
    assert len(after.points) == 500 and after.processes is before.processes
    error = model.predict(NEW).mean - signal(NEW)
    assert np.sqrt(np.mean(error**2)) < 0.12
    extra = table(60, seed=3).replace({"kind": {"a": "aa"}})  # a level that comes before others
    model.update(extra, extra.y, keep=500)
    codes = model._state.residual.points[-60:, 2].astype(int)
    assert list(model._state.encodings[2].labels()[codes]) == list(extra.kind)


def test_updates_that_cannot_be_used():
    frame = table(80)
    frame["y"] = np.random.default_rng(0).poisson(2.0, 80)
    model = fitted(frame, likelihood="poisson", fit={**ONE, "sweeps": 3})
    state = model._state
    with pytest.raises(InvalidDataError, match="counts must be non-negative integers"):
        model.update(frame[:2], [1.5, 2.0])
    with pytest.raises(InvalidDataError, match="keep must be an integer of at least 1"):
        model.update(frame[:2], frame.y[:2], keep=0)
    assert model._state is state
