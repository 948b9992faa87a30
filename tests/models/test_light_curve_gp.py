"""Light-curve models: real curves, recovery, invariances, calibration, files and bad input."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.priors import LogNormalPrior

from gpkit.datasets import LightCurve, read_light_curve
from gpkit.errors import GpkitError, InvalidDataError
from gpkit.kernels import DRWKernel, MaternKernel, ScaleKernel, SHOKernel
from gpkit.models import LightCurveGP, compare_kernels
from tests import oracles
from tests.factories import DriverResponse, ThreeHalves
from tests.realdata import real_data_path

SHO = {"amplitude": 1.0, "frequency": 0.846, "quality": 0.4, "jitter": 0.02, "mean": 10.0}


def simulated(n=80, seed=0, kernel="sho", values=SHO, span=60.0, error=0.15, shift=0.0, scale=1.0):
    """A light curve drawn with dense matrices, with the true function at its times."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0.0, span, n))
    structure, params = {
        "sho": lambda v: ((("sho",),), [v["amplitude"] ** 2, v["frequency"], v["quality"]]),
        "drw": lambda v: ((("exponential",),), [v["amplitude"] ** 2, 1.0 / v["timescale"]]),
    }[kernel](values)
    matrix = oracles.covariance(structure, params, time, time) + 1e-12 * np.eye(n)
    truth = values["mean"] + np.linalg.cholesky(matrix) @ rng.standard_normal(n)
    errors = error * rng.uniform(0.5, 1.5, n)
    value = truth + np.hypot(errors, values["jitter"]) * rng.standard_normal(n)
    return LightCurve(time + shift, value * scale, errors * scale, time_unit="d"), truth


# ----------------------------------------------------------------------------------------- real curves


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "transform", "sho", "matern"),
    [
        ("3c454.3", None, 2.0, 18.7),
        ("3c454.3", "log", 2.0, 67.7),
        ("3c279", None, 2.0, 18.4),
        ("3c279", "log", 2.1, 58.7),
    ],
)
def test_published_differences_of_weekly_blazar_curves(name, transform, sho, matern):
    curve = read_light_curve(real_data_path("light_curves", f"{name}_fermi_lcr_weekly.csv"))
    fits = {k: LightCurveGP(curve, k, transform=transform).fit("ml") for k in ("sho", "drw", "matern32")}
    assert fits["sho"].aicc - fits["drw"].aicc == pytest.approx(sho, abs=0.5)
    assert fits["matern32"].aicc - fits["drw"].aicc == pytest.approx(matern, abs=0.5)
    assert fits["sho"].parameters["quality"] < 0.1


# -------------------------------------------------------------------------------------------- recovery


def test_a_flare_prefers_the_oscillator_and_recovers_its_quality():
    curve, _ = simulated(400, seed=3, span=120.0, error=0.05)
    table = compare_kernels(curve, ("sho", "drw", "matern32"), progress=False)
    aicc = table.table["aicc"]
    assert min(aicc["sho"], aicc["matern32"]) < aicc["drw"] - 10.0
    fit = table.models["sho"].fits["ml"]
    assert 0.2 < fit.parameters["quality"] < 0.8
    times = table.models["sho"].timescales(posterior=False)
    assert 1.5 < times["break"] < 4.0
    f = np.logspace(-2.0, 0.0, 20)
    one, two = (table.models[k].psd(f, posterior=False)[0] for k in ("sho", "matern32"))
    assert np.abs(np.log(one / two)).max() < 0.7
    residuals = table.models["sho"].residuals()
    assert residuals.shape == (400,)
    lagged = np.corrcoef(residuals[1:], residuals[:-1])[0, 1]
    assert abs(lagged) < 4.0 / np.sqrt(400) and abs(residuals.std() - 1.0) < 0.15


def test_parameters_of_a_damped_random_walk_are_recovered():
    found = []
    for seed in range(12):
        truth = {"amplitude": 1.0, "timescale": 3.0, "jitter": 0.05, "mean": 5.0}
        curve, _ = simulated(200, seed, "drw", truth, span=150.0, error=0.1)
        found.append(LightCurveGP(curve, "drw").fit("ml", starts=3).parameters)
    for name, want, width in (("amplitude", 1.0, 0.15), ("timescale", 3.0, 0.5), ("mean", 5.0, 0.15)):
        assert np.median([p[name] for p in found]) == pytest.approx(want, rel=width)


def test_intervals_cover():
    """Predictions at held-out times of 40 curves: 68 % and 95 % intervals hold about that share of the truth."""
    inside = {0.68: [], 0.95: []}
    for seed in range(40):
        curve, truth = simulated(60, 100 + seed, span=60.0)
        held = np.arange(60) % 6 == 3
        model = LightCurveGP(curve.select(~held), "sho")
        model.fit("map", starts=2)
        prediction = model.predict(curve.time[held])
        for level, store in inside.items():
            low, high = prediction.interval(level)
            store.append((low <= truth[held]) & (truth[held] <= high))
    assert 0.58 < np.mean(inside[0.68]) < 0.76
    assert 0.88 < np.mean(inside[0.95]) < 0.99


# ------------------------------------------------------------------------ agreement with dense algebra


def dense_parts(model, fit):
    p = fit.parameters
    t = model.detections.time
    k = oracles.covariance((("sho",),), [p["amplitude"] ** 2, p["frequency"], p["quality"]], t, t)
    return k, np.diag(model._error**2 + p["jitter"] ** 2), model._y - p["mean"]


@pytest.mark.parametrize("transform", [None, "log"])
def test_fit_and_leave_one_out_against_dense_matrices(transform):
    curve, _ = simulated(50)
    model = LightCurveGP(curve, "sho", transform=transform)
    fit = model.fit("ml")
    k, noise, y = dense_parts(model, fit)
    total = k + noise
    jacobian = -np.log(curve.value).sum() if transform else 0.0
    want = -0.5 * (y @ np.linalg.solve(total, y) + np.linalg.slogdet(total)[1] + 50 * np.log(2 * np.pi)) + jacobian
    assert fit.log_likelihood == pytest.approx(want, rel=1e-9)
    loo = model.leave_one_out("ml")
    for i in (0, 7, 49):
        rest = np.arange(50) != i
        solved = np.linalg.solve(total[np.ix_(rest, rest)], np.c_[y[rest], total[rest, i]])
        mean, variance = total[i, rest] @ solved[:, 0], total[i, i] - total[i, rest] @ solved[:, 1]
        assert loo.mean[i] - fit.parameters["mean"] == pytest.approx(mean, rel=1e-7, abs=1e-9)
        assert loo.variance[i] == pytest.approx(variance, rel=1e-8)
        log_density = -0.5 * ((y[i] - mean) ** 2 / variance + np.log(2 * np.pi * variance))
        log_density -= np.log(curve.value[i]) if transform else 0.0
        assert loo.log_density[i] == pytest.approx(log_density, rel=1e-7)
    whitened = np.linalg.solve(np.linalg.cholesky(total), y)
    np.testing.assert_allclose(model.residuals("ml"), whitened, rtol=1e-7, atol=1e-9)


def test_predictions_against_dense_matrices():
    curve, _ = simulated(50)
    model = LightCurveGP(curve, "sho")
    fit = model.fit("ml")
    k, noise, y = dense_parts(model, fit)
    new = np.array([70.0, -3.0, 20.0, 20.0, float(curve.time[4])])
    p = fit.parameters
    structure, params = (("sho",),), [p["amplitude"] ** 2, p["frequency"], p["quality"]]
    cross = oracles.covariance(structure, params, new, curve.time)
    prior = oracles.covariance(structure, params, new, new)
    covariance = prior - cross @ np.linalg.solve(k + noise, cross.T)
    prediction = model.predict(new)
    np.testing.assert_allclose(prediction.time, new, rtol=0, atol=1e-9)
    np.testing.assert_allclose(prediction.mean, p["mean"] + cross @ np.linalg.solve(k + noise, y), rtol=1e-8)
    np.testing.assert_allclose(prediction.variance, covariance.diagonal(), rtol=1e-6, atol=1e-10)
    draws = prediction.sample(20000, seed=1)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05 * covariance.diagonal().max())
    np.testing.assert_array_equal(prediction.sample(3, seed=4), prediction.sample(3, seed=4))


# ----------------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize(("shift", "scale"), [(5e4, 1.0), (0.0, 1e-7), (0.0, 1e6), (2.4e6, 1e-7)])
def test_units_do_not_matter(shift, scale):
    base, _ = simulated(60)
    other, _ = simulated(60, shift=shift, scale=scale)
    one, two = LightCurveGP(base, "sho"), LightCurveGP(other, "sho")
    for method in ("ml", "map"):
        a, b = one.fit(method), two.fit(method)
        assert b.log_likelihood == pytest.approx(a.log_likelihood - 60 * np.log(scale), abs=1e-3)
        for name in ("amplitude", "jitter", "mean"):
            assert b.parameters[name] / scale == pytest.approx(a.parameters[name], rel=2e-2, abs=2e-3)
        assert b.parameters["frequency"] == pytest.approx(a.parameters["frequency"], rel=2e-2)
    grid = np.linspace(0.0, 70.0, 5)
    np.testing.assert_allclose(two.predict(grid + shift).mean / scale, one.predict(grid).mean, rtol=1e-3)


def test_the_jacobian_makes_transforms_comparable():
    curve, _ = simulated(40)
    logged = LightCurveGP(curve, "drw", transform="log").fit("ml")
    by_hand = LightCurveGP(curve.to_log(), "drw").fit("ml")
    assert logged.log_likelihood == pytest.approx(by_hand.log_likelihood - np.log(curve.value).sum(), rel=1e-9)
    model = LightCurveGP(curve, "drw", transform="log")
    model.fit("map")
    prediction = model.predict(curve.time[:3])
    low, high = prediction.interval(0.95)
    assert (0 < low).all() and (low < prediction.median).all() and (prediction.median < high).all()


# ------------------------------------------------------------------------- means, priors, user kernels


class Trend(gpytorch.means.Mean):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(()))
        self.curvature = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.level + self.curvature * (x[..., 0] / 60.0) ** 2


class Bent(Trend):
    def forward(self, x):
        return self.level * torch.exp(self.curvature * x[..., 0])


class Mixed(Trend):
    """Looks linear where all parameters are zero, and where all are one."""

    def forward(self, x):
        return self.level + (self.level - self.curvature) * self.curvature + self.curvature * x[..., 0]


def test_means():
    curve, _ = simulated(60)
    ramp = LightCurve(curve.time, curve.value + 0.3 * curve.time, curve.error)
    linear = LightCurveGP(ramp, "drw", mean="linear")
    assert linear.fit("ml").parameters["slope"] == pytest.approx(0.3, abs=0.05)
    module = LightCurveGP(ramp, "drw", mean=Trend())
    assert {"level", "curvature"} <= set(module.parameter_names)
    module.fit("ml")
    assert np.isfinite(module.predict([10.0]).mean).all()
    assert LightCurveGP(ramp, "drw", mean="zero").parameter_names == ("amplitude", "timescale", "jitter")
    for nonlinear in (Bent(), Mixed()):
        with pytest.raises(InvalidDataError, match="is not linear in its parameters"):
            LightCurveGP(ramp, "drw", mean=nonlinear)


def test_priors():
    curve, _ = simulated(40)
    tight = LightCurveGP(curve, "sho", priors={"quality": LogNormalPrior(np.log(7.0), 0.01)})
    assert tight.fit("map").parameters["quality"] == pytest.approx(7.0, rel=0.1)
    registered = LightCurveGP(curve, SHOKernel(quality_prior=LogNormalPrior(np.log(7.0), 0.01)))
    assert registered.fit("map").parameters["quality"] == pytest.approx(7.0, rel=0.1)
    with pytest.raises(InvalidDataError, match="unknown parameters.*colour"):
        LightCurveGP(curve, "sho", priors={"colour": LogNormalPrior(0.0, 1.0)})


@pytest.mark.parametrize(
    "kernel",
    [ThreeHalves(), ScaleKernel(SHOKernel()) + ScaleKernel(DRWKernel()), DRWKernel() * SHOKernel(), MaternKernel(2.5)],
    ids=["closed form", "sum", "product", "matern 5/2"],
)
def test_kernels_of_users(kernel):
    curve, _ = simulated(40)
    model = LightCurveGP(curve, kernel)
    fit = model.fit("ml", starts=2)
    assert np.isfinite(fit.log_likelihood) and np.isfinite(model.predict([1.0]).variance).all()
    assert isinstance(model.timescales(posterior=False), dict)


def test_a_kernel_known_by_its_state_space_only_is_refused_in_one_line():
    curve, _ = simulated(40)
    with pytest.raises(GpkitError, match="DriverResponse") as error:
        LightCurveGP(curve, DriverResponse())
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------- simulate, forecast


def test_simulations_and_forecasts():
    curve, _ = simulated(60)
    model = LightCurveGP(curve, "sho")
    curves = model.simulate(2000, seed=1, times=[0.0, 5.0, 1.0], parameters=SHO)
    want = oracles.covariance((("sho",),), [1.0, 0.846, 0.4], np.array([0.0, 5.0, 1.0]), np.array([0.0, 5.0, 1.0]))
    np.testing.assert_allclose(np.cov(curves.T), want, atol=0.12)
    np.testing.assert_array_equal(model.simulate(2, seed=1), model.simulate(2, seed=1))
    ahead = model.forecast(500.0, n=11)
    assert ahead.time[0] == pytest.approx(curve.time[-1]) and ahead.time[-1] == pytest.approx(curve.time[-1] + 500.0)
    fit = model._fitted().parameters
    assert ahead.mean[-1] == pytest.approx(fit["mean"]) and ahead.variance[-1] == pytest.approx(fit["amplitude"] ** 2)
    with pytest.raises(InvalidDataError, match="horizon"):
        model.forecast(0.0)


# ---------------------------------------------------------------------------------- sampling and files


def summary(posterior, name):
    values = posterior.posterior[name].values.reshape(-1)
    return np.median(values), values.std()


def test_sampling_and_files(tmp_path):
    curve, _ = simulated(60)
    model = LightCurveGP(curve, "drw")
    idata = model.sample(draws=200, tune=200, chains=2, seed=3, progress=False)
    assert {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "posterior_predictive",
        "observed_data",
        "constant_data",
    } <= set(idata.groups())
    assert idata.log_likelihood["y"].dims == ("chain", "draw", "time")
    assert {"seed", "kernel", "log_likelihood_is"} <= set(idata.posterior.attrs) | set(idata.attrs)
    again = LightCurveGP(curve, "drw").sample(draws=200, tune=200, chains=2, seed=3, progress=False)
    for name in model.parameter_names:
        np.testing.assert_array_equal(idata.posterior[name].values, again.posterior[name].values)
    prediction = model.predict([5.0, 100.0])
    assert len(prediction.component_means) > 100
    path = model.save(tmp_path / "model.gpkit")
    loaded = LightCurveGP.load(path)
    np.testing.assert_allclose(loaded.predict([5.0, 100.0]).mean, prediction.mean, rtol=1e-12)
    assert loaded.fits.keys() == model.fits.keys() and loaded.parameter_names == model.parameter_names
    np.testing.assert_array_equal(loaded.posterior.posterior["jitter"], model.posterior.posterior["jitter"])
    times = model.timescales()
    assert times["decorrelation"].shape[0] > 100
    assert model.psd([0.1, 0.2]).shape == (200, 2)


@pytest.mark.slow
def test_both_samplers_agree():
    curve, _ = simulated(60)
    ours = LightCurveGP(curve, "drw").sample(draws=400, tune=300, chains=2, seed=3, progress=False)
    theirs = LightCurveGP(curve, "drw").sample(draws=250, tune=150, chains=1, seed=3, method="pyro", progress=False)
    for name in ours.posterior.data_vars:
        a, width = summary(ours, name)
        b, other = summary(theirs, name)
        assert abs(a - b) < 0.4 * width and 0.6 < other / width < 1.6, name


# ------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused_in_one_line():
    good, _ = simulated(20)
    t, y, e = np.array(good.time), np.array(good.value), np.array(good.error)
    limits = np.ones(20, dtype=bool)
    cases = [
        (lambda: LightCurveGP(LightCurve(t[:2], y[:2], e[:2])), "at least 3"),
        (lambda: LightCurveGP(LightCurve(t, np.full(20, 3.0), e)), "constant"),
        (lambda: LightCurveGP(LightCurve(t, y, e, upper_limit=limits)), "all 20 points are upper limits"),
        (lambda: LightCurveGP(LightCurve(t, y - y.mean(), e), transform="log"), "log"),
        (lambda: LightCurveGP(good, "squared"), "unknown kernel 'squared'"),
        (lambda: LightCurveGP(good, transform="sqrt"), "transform must be None or 'log'"),
        (lambda: LightCurveGP(good, mean="cubic"), "mean must be"),
        (lambda: LightCurveGP(good, gpytorch.kernels.RBFKernel()), "no state space"),
        (lambda: LightCurveGP(good, DRWKernel(batch_shape=torch.Size([2]))), "batch"),
        (lambda: LightCurveGP(good).fit("guess"), "'ml' or 'map'"),
        (lambda: LightCurveGP(good).sample(4, 1, 1, method="gibbs"), "'nuts' or 'pyro'"),
        (lambda: LightCurveGP(good).sample(0, 1, 1), "draws must be at least"),
        (lambda: LightCurveGP(good).predict([np.nan]), "finite"),
        (lambda: LightCurveGP(good).predict([1.0], posterior=True), "no posterior"),
        (lambda: compare_kernels(good, []), "no kernel"),
        (lambda: LightCurveGP.load("no such file"), "no file"),
    ]
    for make, message in cases:
        with pytest.raises(GpkitError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
