"""The local residual against dense algebra, and what it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gpkit.inference.nearest_neighbours import NearestNeighbourProcess, krige
from gpkit.likelihoods import Poisson
from gpkit.models import Continuous, FunctionalTensor
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.noise_law import NoiseLaw
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.reporting import tensor_content
from gpkit.models.functional_tensor.unseen_rows import UnseenRows
from tests.models.functional_tensor.tables import fitted, table
from tests.recursions.test_nearest_neighbours import gram


def test_all_neighbours_are_the_exact_process():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(size=(50, 2)), rng.integers(0, 3, 50)])
    y = rng.standard_normal(50)
    process = NearestNeighbourProcess.start(points, y, np.array([False, False, True]), neighbours=200)
    queries = np.column_stack([rng.uniform(size=(5, 2)), [0, 1, 2, 0, 1]]).astype(float)
    near, weights, left = process.condition(points, np.ones(50), queries)
    args = (process.category, process.variance, process.rate)
    full = gram(points, points, *args) + process.noise * np.eye(50)
    cross = gram(queries, points, *args)
    # One row fewer than all: the least correlated one has no weight worth the name at a distance.
    want = cross @ np.linalg.solve(full, y)
    np.testing.assert_allclose(krige(near, weights, y), want, atol=0.05)
    assert np.all(left <= process.variance.sum())


def test_learning_raises_the_left_out_density():
    rng = np.random.default_rng(1)
    day = rng.integers(0, 60, 500).astype(float)
    level = np.cumsum(rng.standard_normal(60))
    points = np.column_stack([day, rng.uniform(size=500)])
    y = level[day.astype(int)] + 0.1 * rng.standard_normal(500)
    y -= y.mean()
    process = NearestNeighbourProcess.start(points, y, np.zeros(2, bool), neighbours=20)
    begin = process.learn(points, y, np.ones(500), rounds=1, iterations=0, scan=False)
    end = process.learn(points, y, np.ones(500))
    assert end > begin + 0.3
    near, weights, left = process.condition(points, np.ones(500), points, np.arange(500))
    error = y - krige(near, weights, y)
    assert error.std() < 0.2
    assert np.mean(error**2 / (left + process.noise)) == pytest.approx(1.0, abs=0.3)


def test_rows_far_out_do_not_decide_what_is_learned():
    rng = np.random.default_rng(4)
    points = np.sort(rng.uniform(0.0, 30.0, 600))[:, None]
    truth = np.sin(points[:, 0])
    y = truth + 0.05 * rng.standard_normal(600)
    y[rng.permutation(600)[:25]] += 8.0
    noise = {}
    for degrees in (np.inf, 4.0):
        process = NearestNeighbourProcess.start(points, y, np.zeros(1, bool), neighbours=20)
        process.learn(points, y, np.ones(600), degrees=degrees)
        noise[degrees] = process.noise
    assert noise[4.0] < 0.1 * noise[np.inf]


def test_intervals_do_not_depend_on_what_else_is_asked():
    rng = np.random.default_rng(5)
    points, y = rng.uniform(0.0, 5.0, (300, 2)), rng.standard_normal(300)
    unseen = UnseenRows(points, np.zeros(2, bool), y, 0.3 * y, np.full(300, 0.1), neighbours=10)
    fit = LocalResidual.fit(unseen, heavy=True)
    new, low_rank, spread = rng.uniform(0.0, 9.0, (40, 2)), rng.standard_normal(40), rng.uniform(size=40)
    together = fit.predict(new, low_rank, spread)
    alone = fit.predict(new[:1], low_rank[:1], spread[:1])
    assert alone.scale[0, 0] == pytest.approx(together.scale[0, 0], rel=1e-12)
    assert alone.mean[0] == pytest.approx(together.mean[0], rel=1e-12)
    low, high = together.interval(0.9)
    np.testing.assert_allclose(alone.interval(0.9), np.stack([low, high])[:, :1], rtol=1e-12)


@pytest.mark.parametrize("likelihood", ["gaussian", "student-t"])
def test_intervals_hold_where_months_are_missing(likelihood):
    """Rows that the law is fitted to nearly all have neighbours; those of a gap have none."""
    rng = np.random.default_rng(5)
    level = np.zeros(400)
    for day in range(1, 400):
        level[day] = 0.6 * level[day - 1] + 0.8 * rng.standard_normal()
    day, x = rng.integers(0, 400, 2400), rng.uniform(0.0, 3.0, 2400)
    frame = pd.DataFrame({"x": x, "day": day.astype(float)})
    frame["y"] = level[day] + 0.3 * np.sin(2.0 * x) + 0.1 * rng.standard_t(4, 2400)
    gap = (frame.day // 25 % 3 == 1).to_numpy()
    model = FunctionalTensor([Continuous("x"), Continuous("day")], rank=1, residual="local", likelihood=likelihood)
    model.fit(frame[~gap], "y", restarts=2, progress=False)
    law, y = model.predict(frame[gap]), frame.y[gap].to_numpy()
    for p, least, most in ((0.9, 0.85, 0.95), (0.5, 0.42, 0.6)):
        low, high = law.interval(p)
        assert least < np.mean((y > low) & (y < high)) < most


@pytest.mark.parametrize("heavy", [False, True])
def test_noise_law_finds_scale_and_tails(heavy):
    rng = np.random.default_rng(2)
    mean = rng.uniform(0.0, 3.0, 6000)
    scale = 0.1 * np.exp(0.6 * mean)
    white = rng.standard_t(4.0, 6000) if heavy else rng.standard_normal(6000)
    law = NoiseLaw.fit(scale * white, mean, [np.ones(6000)], heavy=heavy)
    assert np.max(np.abs(np.log(law.scale(mean, [np.ones(6000)]) / scale))) < 0.15
    assert law.degrees == (pytest.approx(4.0, rel=0.2) if heavy else np.inf)


def test_a_large_table_is_judged_by_a_random_part_of_its_rows():
    def judging(count, seed):
        y = np.zeros(count)
        return UnseenRows(np.zeros((count, 1)), np.zeros(1, bool), y, y, y, seed=seed).judging

    np.testing.assert_array_equal(judging(700, 0), np.arange(700))
    rows = judging(100_000, 0)
    assert len(rows) == 5000 and np.all(np.diff(rows) > 0) and rows[-1] < 100_000
    # No pattern of a sorted table, of seven days say, is seen more than others.
    assert np.bincount(rows % 7).min() > 0.9 * len(rows) / 7
    assert not np.array_equal(rows, judging(100_000, 1))


def test_mixture_quantiles_densities_and_moments():
    law = TensorPrediction(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[1.0, 0.5], [0.3, 0.5]]), 5.0, np.zeros(2))
    for p in (0.05, 0.5, 0.9):
        np.testing.assert_allclose(law.cdf(law.quantile(p)), p, atol=1e-8)
    rng = np.random.default_rng(0)  # narrow laws among wide ones, where Newton steps go to and fro
    degrees, places, scales = rng.uniform(1, 9, 500), rng.normal(0, 50, (4, 500)), np.exp(rng.normal(0, 3, (4, 500)))
    odd = TensorPrediction(places, scales, degrees, np.zeros(500))
    for p in (1e-6, 0.5, 0.99):
        np.testing.assert_allclose(odd.cdf(odd.quantile(p)), p, atol=1e-8)
    y = np.linspace(-40.0, 40.0, 80_001)
    each = TensorPrediction(
        np.tile(law.location[:, :1], len(y)), np.tile(law.scale[:, :1], len(y)), 5.0, np.zeros(len(y))
    )
    density = np.exp(each.log_density(y))
    assert np.trapezoid(density, y) == pytest.approx(1.0, abs=1e-6)
    assert np.trapezoid(density * y, y) == pytest.approx(law.mean[0], abs=1e-5)
    assert np.trapezoid(density * (y - law.mean[0]) ** 2, y) == pytest.approx(law.variance[0], rel=1e-3)


@pytest.mark.parametrize("family", ["poisson", "bernoulli", "negative-binomial"])
def test_discrete_laws_add_up(family):
    law = DiscretePrediction(np.array([[0.3, 1.0]]), np.array([[0.4, 0.0]]), family, 3.0)
    counts = np.arange(400)
    each = DiscretePrediction(np.full((1, 400), 0.3), np.full((1, 400), 0.4), family, 3.0)
    probability = np.exp(each.log_density(counts))
    assert probability.sum() == pytest.approx(1.0, abs=1e-6)
    assert probability @ counts == pytest.approx(law.mean[0], rel=1e-6)
    assert probability @ counts**2 - law.mean[0] ** 2 == pytest.approx(law.variance[0], rel=1e-5)
    q = law.quantile(0.9)
    assert np.all(law.cdf(q) >= 0.9) and np.all(law.cdf(q - 1) < 0.9)
    if family == "poisson":
        assert law.mean[1] == pytest.approx(stats.poisson(np.e).mean())


def test_residual_helps_where_low_rank_cannot():
    """Bumps that are local in both modes are no product of functions."""
    rng = np.random.default_rng(3)
    n = 1200
    frame = pd.DataFrame({"x": rng.uniform(0, 10, n).round(1), "t": rng.uniform(0, 10, n).round(1)})
    centres = rng.uniform(0, 10, (40, 2))
    heights = rng.standard_normal(40)

    def truth(f):
        gap = (f.x.to_numpy()[:, None] - centres[:, 0]) ** 2 + (f.t.to_numpy()[:, None] - centres[:, 1]) ** 2
        return np.exp(-gap) @ heights

    frame["y"] = truth(frame) + 0.05 * rng.standard_normal(n)
    new = pd.DataFrame({"x": rng.uniform(0, 10, 600), "t": rng.uniform(0, 10, 600)})
    errors = {}
    for residual in (None, "local"):
        model = FunctionalTensor([Continuous("x"), Continuous("t")], rank=2, residual=residual)
        model.fit(frame, "y", restarts=2, sweeps=20, progress=False)
        found = model.predict(new)
        errors[residual] = np.sqrt(np.mean((found.mean - truth(new)) ** 2))
    assert errors["local"] < 0.6 * errors[None]
    law = model.fitted.left_out
    low, high = law.interval(0.9)
    assert 0.86 < np.mean((frame.y > low) & (frame.y < high)) < 0.94


def ridges(likelihood, n, seed):
    """Counts or binary values of a function of no low rank, and their predictor."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.uniform(0, 3, n).round(2), "t": rng.uniform(0, 3, n).round(2)})
    f = (0.8 + 1.2 * np.sin(4 * (frame.x + frame.t)) * np.cos(3 * (frame.x - frame.t))).to_numpy()
    frame["y"] = {
        "poisson": lambda: rng.poisson(np.exp(f)),
        "bernoulli": lambda: rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-3.0 * (f - 0.8))),
        "negative-binomial": lambda: rng.negative_binomial(5, 1.0 / (1.0 + np.exp(f) / 5.0)),
    }[likelihood]().astype(float)
    return frame


@pytest.mark.parametrize("likelihood", ["poisson", "bernoulli", "negative-binomial"])
def test_residual_of_counts_and_binary_tables(likelihood, tmp_path):
    """Better than low rank on rows of a surface that it cannot hold, calibrated, and it takes in more rows."""
    frame, new = ridges(likelihood, 900, 0), ridges(likelihood, 1100, 1)
    y, scores, model = new.y.to_numpy(), {}, None
    for residual in (None, "local"):
        model = FunctionalTensor(
            [Continuous("x"), Continuous("t")], rank=1, likelihood=likelihood, residual=residual, neighbours=20
        )
        model.fit(frame, "y", restarts=2, sweeps=12, progress=False)
        scores[residual] = model.predict(new).log_density(y).mean()
    assert scores["local"] > scores[None] + 0.02
    law, shares = model.predict(new), np.random.default_rng(0).uniform(size=len(y))
    transform = shares * law.cdf(y) + (1.0 - shares) * law.cdf(y - 1.0)
    assert 0.87 < np.mean(np.abs(transform - 0.5) < 0.45) < 0.93
    assert np.isfinite(model.fitted.left_out.log_density(frame.y.to_numpy())).all()
    if likelihood == "bernoulli":
        html, _ = model.report(tmp_path)
        assert "belief in the local residual" in html.read_text()
    model.update(new[:600], new.y[:600], keep=1400)
    rest = new[600:]
    assert len(model._state.residual.points) == 1400
    # Half as many rows more: no worse than before by more than the rows' own scatter.
    assert model.predict(rest).log_density(rest.y.to_numpy()).mean() > law.log_density(y)[600:].mean() - 0.01


def test_where_there_is_nothing_but_noise_the_residual_takes_no_part(tmp_path):
    """Around a low-rank part that is right no process is believed, around one that is not it is; reports say which."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.0, 3.0, (600, 2))
    mean, rest = np.sin(2.0 * points[:, 0]), np.sin(4.0 * points[:, 0] * points[:, 1])
    white, category, variance = rng.standard_normal(600), np.zeros(2, bool), np.full(600, 0.01)
    noise = LocalResidual.fit(UnseenRows(points, category, mean + white, mean, variance), heavy=False)
    assert noise.belief == noise.weight == 0.0
    np.testing.assert_array_equal(noise.predict(points, mean, variance).mean, mean)
    assert LocalResidual.fit(UnseenRows(points, category, mean + rest + white, mean, variance), heavy=False).belief
    model = fitted(table(200), residual="local", fit={"sweeps": 5})
    text = "The local residual explains nothing"
    content = tensor_content(model, title="", target="y", command="", seed=0, settings={})
    assert not any(text in finding.message for finding in content.findings)
    model._state.residual = replace(model._state.residual, belief=0.0, weight=0.0)
    assert text in model.report(tmp_path)[0].read_text()


@pytest.mark.parametrize(("n", "heavy"), [(5, True), (20, False), (60, True)])
def test_few_rows_of_noise_are_not_explained(n, heavy):
    """Two dozen parameters learned from them claim next to nothing for the scale of the noise."""
    shortfall = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        points, white = rng.uniform(0.0, 3.0, (n, 3)), rng.standard_normal(n)
        fit = LocalResidual.fit(UnseenRows(points, np.zeros(3, bool), white, np.zeros(n), np.zeros(n)), heavy=heavy)
        new, y = rng.uniform(0.0, 3.0, (200, 3)), rng.standard_normal(200)
        law = fit.predict(new, np.zeros(200), np.zeros(200))
        shortfall.append(stats.norm.logpdf(y).mean() - law.log_density(y).mean())
    assert np.mean(shortfall) < {5: 1.5, 20: 0.1, 60: 0.05}[n]


def test_counts_that_vary_more_than_poisson_counts_keep_their_mean():
    """Scatter of single counts is nothing for a process; laws become wider, what they predict does not become more."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0.0, 3.0, (500, 2))
    mean, variance = 1.0 + np.sin(2.0 * points[:, 0]), rng.uniform(0.05, 0.15, 500)
    y = rng.poisson(np.exp(mean) * rng.gamma(0.7, 1.0 / 0.7, 500)).astype(float)
    unseen = UnseenRows(points, np.zeros(2, bool), y, mean, variance, neighbours=10)
    fit = LatentResidual.fit(unseen, family="poisson", likelihood=Poisson())
    assert fit.belief == 0.0
    assert fit.law.width > 2.0
    assert fit.left_out.mean.sum() == pytest.approx(y.sum(), rel=0.01)
    ratio = fit.left_out.mean / np.exp(mean + 0.5 * variance)  # rates are cut far above the largest count
    assert ratio.std() < 0.1 * ratio.mean()
    starts = fit.predict(points[:3], np.stack([mean, mean])[:, :3], np.stack([variance] * 2)[:, :3], np.full(2, 0.5))
    np.testing.assert_allclose(starts.mean, fit.left_out.mean[:3], rtol=1e-12)
