"""NUTS: moments against a grid, the prior recovered without data, repeatability, and nutpie's private interface."""

from __future__ import annotations

import os
import signal
import threading
import warnings

import numpy as np
import pytest
from scipy import stats
from torch import distributions as td

from gpkit.errors import InvalidDataError
from gpkit.inference import _nutpie
from gpkit.inference.maximise import laplace, maximise
from gpkit.inference.nuts import sample_nuts
from gpkit.inference.potential import ParameterSpec, build_potential
from tests.inference.models import MATERN32, matern_potential, prior_only, simulate, two_parameter_potential

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of its next major version, said when it is imported
    import arviz


def ess(z):
    return min(float(arviz.ess(z[:, :, k])) for k in range(z.shape[2]))


@pytest.fixture(scope="module")
def grid_moments():
    """Mean and covariance of the two-parameter posterior, by quadrature on a dense grid."""
    spec = two_parameter_potential()
    mode = laplace(spec, maximise(spec, jacobian=True).z)
    sd = np.sqrt(np.diag(mode.covariance))
    axes = [np.linspace(c - 8.0 * s, c + 8.0 * s, 161) for c, s in zip(mode.centre, sd, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    log = spec.log_density_batch(points)[0]
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ points
    return mean, (points - mean).T @ (weight[:, None] * (points - mean))


@pytest.mark.parametrize("whitened", [True, False])
@pytest.mark.parametrize("low_rank", [False, True])
def test_moments_are_those_of_a_grid(grid_moments, whitened, low_rank):
    spec = two_parameter_potential()
    z, statistics = sample_nuts(
        spec, draws=1500, tune=400, seed=11, progress=False, low_rank=low_rank, init=None if whitened else spec.start
    )
    mean, covariance = grid_moments
    flat, size = z.reshape(-1, 2), ess(z)
    assert size > 500
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(flat.mean(0) - mean) < 4.5 * sd / np.sqrt(size))
    np.testing.assert_allclose(
        np.cov(flat.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=8.0 / np.sqrt(size)
    )
    assert statistics["diverging"].mean() < 0.01
    np.testing.assert_allclose(statistics["lp"].reshape(-1), spec.log_density_batch(flat)[0], rtol=1e-9, atol=1e-9)


def test_without_data_the_prior_comes_back():
    spec = prior_only()
    z, _ = sample_nuts(spec, draws=2000, tune=500, seed=2, progress=False)
    values = spec.to_natural(z)
    cdf = {
        "normal": stats.norm(1.0, 2.0).cdf,
        "gamma": stats.gamma(3.0, scale=1.0 / 1.5).cdf,
        "uniform": stats.uniform(-1.0, 5.0).cdf,
        "half": stats.halfnorm(scale=0.5).cdf,
    }
    for name, draws in values.items():
        thinned = draws[:, ::10].reshape(-1)
        assert stats.kstest(cdf[name](thinned), "uniform").pvalue > 1e-3, name


def test_ranks_of_true_parameters_are_uniform():
    """Simulation-based calibration at a small size: parameters from the prior, data from the model."""
    rng, ranks = np.random.default_rng(4), []
    for repeat in range(60):
        truth = rng.normal(0.0, 0.5)
        t, y, variance = simulate(25, variance=np.exp(truth), jitter=0.0, seed=1000 + repeat)
        spec = build_potential(
            MATERN32,
            lambda v, ops: [ops.exp(v["ln_variance"]), 0.6],
            [ParameterSpec("ln_variance", td.Normal(0.0, 0.5))],
            t,
            y,
            variance,
        )
        z, _ = sample_nuts(spec, draws=200, tune=100, chains=1, seed=repeat, progress=False)
        ranks.append((z[0, ::2, 0] < truth).mean())
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3


def test_the_same_seed_gives_the_same_draws():
    spec = matern_potential()
    options = {"draws": 60, "tune": 60, "chains": 3, "progress": False}
    first, first_statistics = sample_nuts(spec, seed=7, cores=2, **options)
    second, second_statistics = sample_nuts(spec, seed=7, cores=1, **options)
    other, _ = sample_nuts(spec, seed=8, cores=2, **options)
    assert first.shape == (3, 60, 4)
    assert np.array_equal(first, second)
    assert np.array_equal(first_statistics["n_steps"], second_statistics["n_steps"])
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_statistics_have_arviz_names():
    _, statistics = sample_nuts(matern_potential(), draws=30, tune=50, chains=2, progress=False)
    expected = {
        "acceptance_rate", "diverging", "energy", "energy_error", "lp", "n_steps", "reached_max_treedepth", "step_size",
        "tree_depth",
    }  # fmt: skip
    assert set(statistics) == expected
    assert all(values.shape == (2, 30) for values in statistics.values())


def test_chains_without_a_gradient_are_not_stopped_by_walls():
    """A density that ends abruptly (a negative variance is not positive definite) gives divergences, not an error."""
    t, y, variance = simulate(60)
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 0.6],
        [ParameterSpec("white", init=0.3, upper=1.0)],
        t,
        y,
        variance,
        noise=lambda v, ops: [v["white"]],
    )
    z, statistics = sample_nuts(spec, draws=300, tune=300, chains=2, seed=0, progress=False)
    assert np.all(np.isfinite(z))
    assert np.all(np.isfinite(statistics["lp"]))


def test_an_interrupt_stops_the_sampler_and_is_raised():
    spec = matern_potential(400)
    sample_nuts(spec, draws=5, tune=5, progress=False)
    # Processes that a shell starts in the background ignore interrupts unless they ask for them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            sample_nuts(spec, draws=2_000_000, tune=200, chains=1, progress=False)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def test_nutpies_private_interface_is_the_expected_one():
    assert _nutpie.has_compiled_interface()


def test_the_public_interface_gives_the_same_posterior(monkeypatch, grid_moments):
    monkeypatch.setattr(_nutpie, "has_compiled_interface", lambda: False)
    spec = two_parameter_potential()
    z, statistics = sample_nuts(spec, draws=600, tune=300, chains=2, seed=1, progress=False)
    mean, covariance = grid_moments
    assert np.all(np.abs(z.mean((0, 1)) - mean) < 5.0 * np.sqrt(np.diag(covariance) / ess(z)))
    assert statistics["diverging"].shape == (2, 600)


def test_points_without_density_diverge_through_the_public_interface(monkeypatch):
    monkeypatch.setattr(_nutpie, "has_compiled_interface", lambda: False)
    t, y, variance = simulate(60)
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 0.6],
        [ParameterSpec("white", init=0.3, upper=1.0)],
        t,
        y,
        variance,
        noise=lambda v, ops: [v["white"]],
    )
    z, _ = sample_nuts(spec, draws=100, tune=100, chains=1, seed=0, progress=False)
    assert np.all(np.isfinite(z))


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    spec = matern_potential()
    sample_nuts(spec, draws=20, tune=20, chains=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    sample_nuts(spec, draws=20, tune=20, chains=1)
    assert "40/40" in capsys.readouterr().err


def test_what_cannot_be_sampled_is_refused():
    spec = matern_potential()
    with pytest.raises(InvalidDataError, match="0 chains"):
        sample_nuts(spec, chains=0)
    with pytest.raises(InvalidDataError, match=r"init must have shape \(4,\)"):
        sample_nuts(spec, init=np.zeros(3))
    t, y, variance = simulate(10)
    with pytest.raises(InvalidDataError, match="0 parameters"):
        sample_nuts(build_potential(MATERN32, lambda v, ops: [1.0, 1.0], [], t, y, variance))
