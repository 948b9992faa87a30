"""Tensor trains: accuracy, the canonical gauge, ranks of bonds, reports."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpkit.errors import InvalidDataError
from gpkit.kernels import MaternKernel
from gpkit.models import Continuous, FunctionalTensor
from tests.models.functional_tensor.tables import fitted, modes, signal, table


@pytest.fixture(scope="module")
def model():
    return fitted(table(), form="tensor-train", rank=2)


def test_predictions_are_accurate_and_calibrated(model):
    new = table(1500, seed=1)
    found = model.predict(new)
    assert np.sqrt(np.mean((found.mean - signal(new)) ** 2)) < 0.12 < 0.15 * new.y.std()
    low, high = found.interval(0.9)
    assert 0.86 < np.mean((new.y > low) & (new.y < high)) < 0.94
    few = found.sample(3000, seed=0)[:, :8]
    np.testing.assert_allclose(few.var(0), found.variance[:8], rtol=0.15)
    np.testing.assert_allclose(few.mean(0), found.mean[:8], atol=0.03)


def test_canonical_gauge_is_the_train_in_orthonormal_functions():
    model = fitted(table(), form="tensor-train", rank=2, main_effects=False, fit={"restarts": 1})
    gauge, state = model.train(), model._state
    shares = [count / count.sum() for count in state.counts]
    value, left = np.ones((state.entries, 1, 1)), np.ones((1, 1))
    for k, matrix in enumerate(gauge.matrices):
        value = value @ matrix[state.index[k]]
        left = np.einsum("j,jab,ac,jcd->bd", shares[k], matrix, left, matrix)
        if k < 2:
            np.testing.assert_allclose(left, np.eye(2), atol=1e-9)
    mean, _ = model.best.posterior.node_moments(state.index)
    np.testing.assert_allclose(value[:, 0, 0], state.unit * mean, atol=1e-9)
    assert gauge.bonds == (("x", "t"), ("t", "kind"))
    # Squares of singular values add up to the second moment of the function, across every bond.
    for values in gauge.singular_values:
        assert (values**2).sum() == pytest.approx(float(left[0, 0]), rel=1e-9)
    assert gauge.effective_rank == (2, 2)
    assert model.effective_rank["x | t"] == 2


def test_gauge_and_functions_do_not_depend_on_the_mixing():
    """A bond's states are turned by an orthogonal matrix, weights absorbed: only raw functions change."""
    model = fitted(table(200), form="tensor-train", rank=2, main_effects=False, fit={"restarts": 1, "sweeps": 10})
    form, (x, t, _) = model.best.posterior.form, model.best.posterior.modes
    form.weights[0].covariance = np.zeros((2, 2))  # certain weights on both sides of the comparison
    before, functions = model.train(), model.functions("t")
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    # u diag(g) w = (u diag(g) Q) diag(1) (Q^T w)
    for mode, mixing in ((x, (np.diag(form.weights[0].mean) @ turn).T), (t, np.kron(turn.T, np.eye(2)))):
        mode.factor.mean = mode.factor.mean @ mixing.T
        mode.factor.covariance = mixing @ mode.factor.covariance @ mixing.T
        mode.refresh()
    form.weights[0].mean = np.ones(2)
    after, turned = model.train(), model.functions("t")
    for a, b in zip(after.singular_values, before.singular_values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)
    for a, b in zip(after.matrices, before.matrices, strict=True):
        np.testing.assert_allclose(np.abs(a), np.abs(b), atol=1e-7)
    np.testing.assert_allclose(turned.main, functions.main, atol=1e-9)
    np.testing.assert_allclose(turned.share, functions.share, atol=1e-9)


def test_automatic_rank_and_several_modes():
    rng = np.random.default_rng(0)
    n = 1500
    frame = pd.DataFrame({name: rng.integers(0, 12, n) / 4.0 for name in "abcd"})
    a, b, c, d = (frame[name].to_numpy() for name in "abcd")
    truth = np.sin(2 * a) * np.cos(b) * np.exp(-c) * d + np.cos(a) * np.sin(2 * d)
    frame["y"] = truth + 0.1 * rng.standard_normal(n)
    parts = [Continuous(name, MaternKernel(1.5)) for name in "abcd"]
    model = FunctionalTensor(parts, rank="auto", form="tensor-train", main_effects=False)
    fit = model.fit(frame, "y", restarts=1, seed=1, sweeps=25, progress=False)
    assert fit.ranks == (2, 2, 2)
    assert np.sqrt(np.mean((model.predict(frame).mean - truth) ** 2)) < 0.07 * truth.std()
    assert fit.parameters["noise_variance"] == pytest.approx(0.01, rel=0.1)


def test_report_files_and_draws(model, tmp_path):
    html, numbers = model.report(tmp_path)
    assert "Tensor train" in html.read_text() and "x | t" in html.read_text() and numbers.exists()
    again = FunctionalTensor.load(model.save(tmp_path / "model.gpkit"))
    new = table(20, seed=9)
    np.testing.assert_array_equal(again.predict(new).mean, model.predict(new).mean)
    drawn = model.to_inference_data(draws=400, seed=0).posterior["main_kind"].to_numpy()[0]
    found = model.functions("kind")
    np.testing.assert_allclose(drawn.mean(0), found.main, atol=0.03)
    # Two states and those before and after a product; main effects are in the train, too.
    gauge, state = model.train(), model._state
    value = np.ones((state.entries, 1, 1))
    for matrix, index in zip(gauge.matrices, state.index, strict=True):
        value = value @ matrix[index]
    mean, _ = model.best.posterior.node_moments(state.index)
    np.testing.assert_allclose(value[:, 0, 0], state.unit * mean, atol=1e-7)
    assert model.core.shape == (2, 4)


def test_one_mode_is_one_function():
    model = FunctionalTensor([Continuous("x")], form="tensor-train", rank=3)
    model.fit(table(80), "y", restarts=1, progress=False)
    assert model.effective_rank == {"x": 1} and model.core.shape == (0, 0)


def test_ranks_that_do_not_fit():
    with pytest.raises(InvalidDataError, match="one for each of 2 bonds between modes"):
        FunctionalTensor(modes(), form="tensor-train", rank=(2, 2, 2))
    with pytest.raises(InvalidDataError, match="rank 6 for the bond after 't', on a side of which are 5"):
        FunctionalTensor(modes(), form="tensor-train", rank=(2, 6)).fit(table(60), "y", restarts=1, progress=False)
    with pytest.raises(InvalidDataError, match="no train"):
        fitted(table(60), fit={"restarts": 1, "sweeps": 3}).train()
