"""FunctionalTensor on simulated tables: accuracy, calibration, consistency, files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from gpkit.errors import DataWarning
from gpkit.models import Categorical, Continuous, FunctionalTensor, Spatial
from tests.models.functional_tensor.tables import fitted, modes, signal, table


@pytest.fixture(scope="module")
def model():
    return fitted(table())


def test_predictions_are_accurate_and_calibrated(model):
    new = table(1500, seed=1)
    found = model.predict(new)
    error = new.y.to_numpy() - found.mean
    baseline = new.y.std()
    assert np.sqrt(np.mean(error**2)) < 0.24 < 0.4 * baseline
    low, high = found.interval(0.9)
    assert 0.86 < np.mean((new.y > low) & (new.y < high)) < 0.94
    assert np.sqrt(np.mean((found.mean - signal(new)) ** 2)) < 0.1


def test_noise_is_recovered():
    model = fitted(table(4000), rank=3, fit={"combine": "best"})
    assert model.fitted.parameters["noise_variance"] == pytest.approx(0.04, rel=0.05)


def test_variance_is_that_of_draws(model):
    new = table(6, seed=3)
    found = model.predict(new)
    drawn = found.sample(4000, seed=0)
    np.testing.assert_allclose(drawn.mean(0), found.mean, atol=0.03)
    np.testing.assert_allclose(drawn.var(0), found.variance, rtol=0.12)
    np.testing.assert_array_equal(drawn, found.sample(4000, seed=0))
    assert not np.array_equal(drawn, found.sample(4000, seed=1))


def test_tables_of_every_kind_are_the_same(model):
    new = table(5, seed=4)
    want = model.predict(new).mean
    columns = {name: new[name].to_numpy() for name in ("x", "t", "kind")}
    np.testing.assert_array_equal(model.predict(columns).mean, want)
    records = np.rec.fromarrays(list(columns.values()), names="x,t,kind")
    np.testing.assert_array_equal(model.predict(records).mean, want)
    numbers = FunctionalTensor(modes()[:2], rank=1)
    frame = table(80)
    numbers.fit(
        torch.tensor(frame[["x", "t"]].to_numpy()), torch.tensor(frame.y.to_numpy()), restarts=1, progress=False
    )
    again = FunctionalTensor(modes()[:2], rank=1)
    again.fit(frame, frame.y, restarts=1, progress=False)
    np.testing.assert_array_equal(numbers.elbo, again.elbo)


def test_functions_do_not_depend_on_the_mixing(model):
    """Principal functions and main effects stay when the factor is mixed and the core unmixed."""
    before = model.functions("x")
    assert before.share.sum() == pytest.approx(1.0)
    counts = model._state.counts[0]
    share = counts / counts.sum()
    np.testing.assert_allclose(
        np.einsum("j,ja,jb->ab", share, before.functions, before.functions), np.eye(2), atol=1e-8
    )
    posterior = model.best.posterior
    mixing = np.array([[2.0, 0.3], [-0.4, 0.7]])
    own, form = posterior.modes[0], posterior.form.coefficients
    kept = own.factor.mean, own.factor.covariance, form.mean, form.covariance
    try:
        own.factor.mean = kept[0] @ mixing.T
        own.factor.covariance = mixing @ kept[1] @ mixing.T
        full = np.eye(3)
        full[1:, 1:] = np.linalg.inv(mixing).T
        change = np.kron(full, np.eye(9))
        form.mean, form.covariance = change @ kept[2], change @ kept[3] @ change.T
        own.refresh()
        after = model.functions("x")
    finally:
        own.factor.mean, own.factor.covariance, form.mean, form.covariance = kept
        own.refresh()
    np.testing.assert_allclose(after.main, before.main, atol=1e-9)
    np.testing.assert_allclose(after.main_sd, before.main_sd, atol=1e-9)
    np.testing.assert_allclose(after.share, before.share, atol=1e-9)
    np.testing.assert_allclose(after.functions, before.functions, atol=1e-6)


def test_automatic_rank_finds_the_truth():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.integers(0, 40, 3000) / 10.0, "t": rng.integers(0, 40, 3000) / 10.0})
    x, t = frame.x.to_numpy(), frame.t.to_numpy()
    frame["y"] = np.sin(x) * np.cos(t) + np.cos(2 * x) * np.sin(1.5 * t) + 0.1 * rng.standard_normal(3000)
    model = FunctionalTensor([Continuous("x"), Continuous("t")], rank="auto", main_effects=False, core_prior="ard")
    fit = model.fit(frame, "y", restarts=1, progress=False)
    assert fit.ranks == (2, 2)
    assert model.effective_rank == {"x": 2, "t": 2}
    assert fit.parameters["noise_variance"] == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("form", "main_effects"), [("tucker", False), ("cp", True)])
def test_automatic_rank_of_every_mode(form, main_effects):
    """Ranks that differ, and functions that are no draws of the model; main effects are not counted."""
    rng = np.random.default_rng(3)
    grids = [np.sort(rng.uniform(0.0, 6.0, 14)) for _ in range(3)]
    index = rng.integers(0, 14, (3, 1000))
    shapes = [
        np.stack([np.sin(1.1 * g + k), np.tanh(g - 3.0), np.exp(-((g - 2.0) ** 2))], 1) for k, g in enumerate(grids)
    ]
    bases = [np.linalg.qr(np.column_stack([np.ones(14), own]))[0][:, 1:] * np.sqrt(14.0) for own in shapes]
    a, b, c = (basis[at] for basis, at in zip(bases, index, strict=True))
    if form == "cp":
        f, want = a[:, 0] * b[:, 0] * c[:, 0] + 0.8 * a[:, 1] * b[:, 1] * c[:, 1], (2, 2, 2)
    else:
        f, want = (a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1]) * c[:, 0], (2, 2, 1)
    if main_effects:
        f = f + 1.0 + a[:, 0] - b[:, 1]
    y = f + 0.2 * rng.standard_normal(1000)
    x = np.stack([grid[at] for grid, at in zip(grids, index, strict=True)], 1)
    model = FunctionalTensor([Continuous(name) for name in "xyz"], rank="auto", form=form, main_effects=main_effects)
    fit = model.fit(x, y, restarts=1, sweeps=25, progress=False)
    assert fit.ranks == want
    assert np.sqrt(np.mean((model.predict(x).mean - f) ** 2)) < 0.08


def test_a_search_for_the_rank_goes_on(tmp_path, monkeypatch):
    """Fits that were made before an interruption are not made again, and the outcome is the same."""
    from gpkit.models.functional_tensor import checkpoint, rank_choice

    frame = table(150)
    monkeypatch.setattr(checkpoint, "_BETWEEN_SAVES", 0.0)
    options = {"restarts": 1, "sweeps": 10, "progress": False}
    want = FunctionalTensor(modes(), rank="auto").fit(frame, "y", **options)
    begin, made = rank_choice.begin_resized, []

    def killed(*args):
        if made:
            raise KeyboardInterrupt
        made.append(args)
        begin(*args)

    monkeypatch.setattr(rank_choice, "begin_resized", killed)
    file = tmp_path / "fit.part"
    with pytest.raises(KeyboardInterrupt):
        FunctionalTensor(modes(), rank="auto").fit(frame, "y", checkpoint=file, **options)
    assert file.exists()
    again = []
    monkeypatch.setattr(rank_choice, "begin_resized", lambda *args: again.append(args) or begin(*args))
    found = FunctionalTensor(modes(), rank="auto").fit(frame, "y", checkpoint=file, **options)
    assert found.ranks == want.ranks
    np.testing.assert_allclose(found.elbo, want.elbo, rtol=1e-9)
    assert not file.exists()
    made.clear()
    monkeypatch.setattr(rank_choice, "begin_resized", lambda *args: made.append(args) or begin(*args))
    FunctionalTensor(modes(), rank="auto").fit(frame, "y", **options)
    assert len(again) == len(made) - 1


def test_counts_that_vary_more_than_poisson_counts_are_named():
    """The fit warns with the likelihood for them, which is as good; no prediction is far above every count."""
    frame, rng, new = table(400, noise=0.0), np.random.default_rng(0), table(400, noise=0.0, seed=1)
    rate = np.exp(1.0 + signal(frame))
    frame["y"] = rng.negative_binomial(1, 1.0 / (1.0 + rate)).astype(float)
    with pytest.warns(DataWarning, match="times the variance of Poisson counts: likelihood='negative-binomial'"):
        model = fitted(frame, likelihood="poisson")
    assert model.fitted.overdispersion(frame.y.to_numpy()) > 2.0
    assert np.all(model.predict(new).mean <= 2.0 * (frame.y.max() + 1.0))
    better = fitted(frame, likelihood="negative-binomial")
    assert better.fitted.overdispersion(frame.y.to_numpy()) < 1.6
    error = better.predict(new).mean - np.exp(1.0 + signal(new))
    assert np.sqrt(np.mean(error**2)) < 0.8 * np.exp(1.0 + signal(new)).std()


@pytest.mark.parametrize("likelihood", ["poisson", "negative-binomial", "bernoulli"])
def test_other_likelihoods(likelihood):
    rng = np.random.default_rng(0)
    frame = table(900)
    f = signal(frame) - 0.5
    frame["y"] = {
        "poisson": lambda: rng.poisson(np.exp(f)),
        "negative-binomial": lambda: rng.negative_binomial(4, 1 / (1 + np.exp(f) / 4)),
        "bernoulli": lambda: (rng.uniform(size=900) < 1 / (1 + np.exp(-2 * f))).astype(int),
    }[likelihood]()
    model = fitted(frame, likelihood=likelihood)
    found = model.predict(frame)
    constant = {"poisson": frame.y.mean(), "negative-binomial": frame.y.mean(), "bernoulli": frame.y.mean()}[likelihood]
    assert np.mean((found.mean - frame.y) ** 2) < 0.85 * np.mean((constant - frame.y) ** 2)
    low, high = found.interval(0.9)
    assert np.mean((frame.y >= low) & (frame.y <= high)) > 0.87
    drawn = found.sample(2000, seed=0)
    np.testing.assert_allclose(drawn.mean(0), found.mean, atol=0.25 * np.sqrt(found.variance.max()))
    assert (
        model.fitted.left_out is not None and np.isfinite(model.fitted.left_out.log_density(frame.y.to_numpy())).all()
    )


def test_student_t_resists_outliers():
    frame = table(500)
    bad = np.random.default_rng(1).choice(500, 25, replace=False)
    frame.loc[bad, "y"] += 15.0
    new = table(400, seed=2)
    errors = {}
    for likelihood in ("gaussian", "student-t"):
        found = fitted(frame, likelihood=likelihood).predict(new)
        errors[likelihood] = np.sqrt(np.mean((found.mean - signal(new)) ** 2))
    assert errors["student-t"] < 0.5 * errors["gaussian"]


def test_cp_and_spatial_and_many_modes():
    rng = np.random.default_rng(0)
    n = 700
    frame = pd.DataFrame({name: rng.integers(0, 9, n) / 3.0 for name in "abc"})
    frame["u"], frame["v"] = rng.integers(0, 5, n) / 4.0, rng.integers(0, 5, n) / 4.0
    frame["k"] = rng.choice(["p", "q", "r"], n)
    truth = np.sin(frame.a) * (frame.u + frame.v) * (1 + 0.3 * frame.b) + (frame.k == "q") + 0.2 * frame.c
    frame["y"] = truth + 0.1 * rng.standard_normal(n)
    parts = [Continuous("a"), Continuous("b"), Continuous("c"), Spatial("place", ("u", "v")), Categorical("k")]
    model = FunctionalTensor(parts, rank=2, form="cp")
    model.fit(frame, "y", restarts=2, sweeps=40, progress=False)
    error = np.sqrt(np.mean((model.predict(frame).mean - truth) ** 2))
    assert error < 0.4 * truth.std()
    one = FunctionalTensor([Spatial("place", ("u", "v"))], rank=1)
    one.fit(frame, "y", restarts=1, progress=False)
    assert np.isfinite(one.predict({"u": [0.1], "v": [2.0]}).mean).all()


def test_updates_in_order_end_where_one_fit_does():
    frame = table(600)
    whole = fitted(frame, fit={"restarts": 1, "sweeps": 60})
    parts = fitted(frame.iloc[:300], fit={"restarts": 1, "sweeps": 20})
    for start in range(300, 600, 100):
        piece = frame.iloc[start : start + 100]
        parts.update(piece, piece.y, sweeps=15)
    new = table(300, seed=7)
    gap = parts.predict(new).mean - whole.predict(new).mean
    assert np.sqrt(np.mean(gap**2)) < 0.05
    assert parts.fitted.n == 600


def test_forgetting_follows_a_change():
    frame = table(400)
    changed = table(400, seed=5)
    changed["y"] += 2.0
    means = {}
    for forgetting in (1.0, 0.05):
        model = fitted(frame, fit={"restarts": 1})
        model.update(changed, changed.y, forgetting=forgetting)
        means[forgetting] = model.predict(changed).mean.mean() - signal(changed).mean()
    assert means[1.0] == pytest.approx(1.0, abs=0.15)
    assert means[0.05] > 1.8


def test_files(model, tmp_path):
    path = model.save(tmp_path / "model.gpkit")
    again = FunctionalTensor.load(path)
    new = table(20, seed=9)
    np.testing.assert_array_equal(again.predict(new).mean, model.predict(new).mean)
    np.testing.assert_array_equal(again.predict(new).sample(3, seed=2), model.predict(new).sample(3, seed=2))
    assert again.elbo == model.elbo


def test_inference_data(model):
    data = model.to_inference_data(draws=400, seed=0)
    found = model.functions("kind")
    drawn = data.posterior["main_kind"].to_numpy()[0]
    np.testing.assert_allclose(drawn.mean(0), found.main, atol=0.03)
    assert set(data.posterior["kind_coordinate"].to_numpy()) == set("abcde")
    functions = data.posterior["function_x"].to_numpy()[0].mean(0)
    np.testing.assert_allclose(functions, model.functions("x").functions, atol=0.2)


def test_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    from gpkit.inference.structured_vb import LowRankPosterior
    from gpkit.models.functional_tensor import checkpoint

    frame = table(200)
    want = fitted(frame, rank=1).fitted.elbo
    monkeypatch.setattr(checkpoint, "_BETWEEN_SAVES", 0.0)
    sweep, made = LowRankPosterior.sweep, []

    def killed(self, layout):
        if len(made) == 33:
            raise KeyboardInterrupt
        made.append(self.sweeps)
        return sweep(self, layout)

    monkeypatch.setattr(LowRankPosterior, "sweep", killed)
    file = tmp_path / "fit.part"
    with pytest.raises(KeyboardInterrupt):
        fitted(frame, rank=1, fit={"checkpoint": file})
    assert file.exists()
    monkeypatch.setattr(LowRankPosterior, "sweep", lambda self, layout: made.append(self.sweeps) or sweep(self, layout))
    again = fitted(frame, rank=1, fit={"checkpoint": file}).fitted.elbo
    np.testing.assert_allclose(again, want, rtol=1e-12)
    assert len(made) == 50 and not file.exists()
