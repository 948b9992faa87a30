"""Updates: exact while everything is kept, near the fit to everything in bounded memory, for every likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import InvalidDataError
from tests.models.functional_tensor.tables import fitted, signal, table

NEW = table(400, seed=1)
ONE = {"restarts": 1}
LIMIT = {"student-t": 0.6, "poisson": 1.0}


def streamed(frame, keep, step=300, **options):
    model = fitted(frame[:600], fit=ONE, **options)
    for begin in range(600, len(frame), step):
        piece = frame.iloc[begin : begin + step]
        model.update(piece, piece.y, keep=keep, sweeps=6)
        assert len(model._state.y) <= keep
    return model


@pytest.mark.parametrize(("form", "limit"), [("tucker", 0.1), ("tensor-train", 0.3)])
def test_in_order_in_bounded_memory_agrees_with_one_fit(form, limit):
    """An eighth of the rows are kept; means are within a part of the noise of the whole fit, widths within 15 %."""
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


@pytest.mark.parametrize("likelihood", ["student-t", "poisson"])
def test_other_likelihoods_stream(likelihood):
    rng = np.random.default_rng(0)
    frame = table(900, noise=0.0)
    level = signal(frame)
    noise = 0.2 * rng.standard_t(3.0, 900)
    frame["y"] = level + noise if likelihood == "student-t" else rng.poisson(np.exp(level))
    whole = fitted(frame, likelihood=likelihood, fit={"restarts": 1, "sweeps": 60})
    stream = streamed(frame, 300, likelihood=likelihood)
    moments = []
    for model in (whole, stream):
        columns = [NEW[name].to_numpy(dtype=kind) for name, kind in (("x", float), ("t", float), ("kind", str))]
        numbers = [e.numbers([column]) for e, column in zip(model._state.encodings, columns, strict=True)]
        mean, square = model.best.posterior.moments_at(numbers)
        state = model._state
        moments.append((state.centre + state.unit * mean, state.unit * np.sqrt(square - mean**2)))
    (mean, sd), (found, other) = moments
    # In posterior standard deviations of the whole fit, root mean square.
    assert np.sqrt(np.mean(((found - mean) / sd) ** 2)) < LIMIT[likelihood]
    assert 0.75 < np.median(other / sd) < 1.25


def test_what_has_left_memory_is_not_forgotten_and_can_be():
    """A shift of later rows ends near the mean of everything without forgetting, at the new level with it."""
    first, second = table(600), table(200, seed=5)
    second["y"] += 2.0
    shift = {}
    for forgetting in (1.0, 0.01):
        model = fitted(first, fit=ONE)
        model.update(first[:1], first.y[:1], keep=300, sweeps=1)
        model.update(second, second.y, keep=300, forgetting=forgetting)
        shift[forgetting] = np.mean(model.predict(second).mean - signal(second))
    assert shift[1.0] == pytest.approx(0.5, abs=0.25)
    assert shift[0.01] > 1.7


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
    with pytest.raises(InvalidDataError, match="sweeps and keep"):
        model.update(frame[:2], frame.y[:2], keep=0)
    assert model._state is state
