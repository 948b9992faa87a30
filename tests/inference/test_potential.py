"""The compiled log density: against a dense Gaussian, its gradient against finite differences, its failures."""

from __future__ import annotations

import ctypes
import pickle

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from torch import distributions as td

from gpkit.errors import InvalidDataError
from gpkit.inference.potential import Compiled, ParameterSpec, UnsupportedKernelError, build_potential
from gpkit.recursions import potential as compiled_code
from gpkit.recursions.structure import GIVEN, parameter_count
from tests.inference.models import MATERN32, matern32, matern_potential, prior_only, simulate

STRUCTURES = {
    "exponential": (("exponential",),),
    "sho": (("sho",),),
    "matern32": (("matern32",),),
    "celerite": (("celerite",),),
    "sum": (("sho",), ("exponential",)),
}


def general_potential(structure, n=70):
    """Every part of a model at once: positive kernel parameters, two noises, a mean of three terms, a joint prior."""
    t, y, variance = simulate(n)
    names = [f"p{k}" for k in range(parameter_count(structure))]
    basis = np.stack([np.ones(n), t / 40.0, np.sin(t)], axis=1)
    band = (np.arange(n) % 2).astype(float)

    def kernel(v, ops):
        values = [v[name] for name in names]
        if structure == STRUCTURES["celerite"]:
            # (variance, a, b, c, d) with |b d| < a c, so that the covariance is positive.
            return [values[0], values[1], 0.1 * ops.tanh(values[2]) * values[1], values[3] + 0.3, values[4]]
        return values

    return build_potential(
        structure,
        kernel,
        [
            *(ParameterSpec(name, td.LogNormal(0.0, 1.0), init=1.0) for name in names),
            ParameterSpec("jitter", td.HalfCauchy(0.5)),
            ParameterSpec("excess", td.Uniform(0.0, 3.0)),
            ParameterSpec("c0", td.Normal(0.0, 2.0)),
            ParameterSpec("c1", td.StudentT(3.0)),
            ParameterSpec("c2", lower=-5.0, upper=5.0),
        ],
        t,
        y,
        variance,
        noise=lambda v, ops: [v["jitter"] ** 2, v["excess"] * v["p0"]],
        noise_basis=np.stack([np.ones(n), band], axis=1),
        mean=lambda v, ops: [v["c0"], v["c1"] * v["p0"], v["c2"]],
        mean_basis=basis,
        log_density=lambda v, ops: -0.5 * (ops.log(v["p0"]) - v["c0"]) ** 2,
    )


def numeric_gradient(function, z, step=1e-5):
    gradient = np.empty(z.size)
    for k in range(z.size):
        shift = np.zeros(z.size)
        shift[k] = step
        # Fourth order, so that the comparison is limited by rounding.
        outer, inner = function(z + 2 * shift) - function(z - 2 * shift), function(z + shift) - function(z - shift)
        gradient[k] = (8.0 * inner - outer) / (12.0 * step)
    return gradient


@pytest.mark.parametrize("n", [7, 70], ids=["sequential", "blocks"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_gradient_is_the_derivative_of_the_value(name, n, rng):
    spec = general_potential(STRUCTURES[name], n)
    for prior, jacobian in [(True, True), (True, False), (False, False)]:
        for z in spec.start + rng.normal(0.0, 0.7, (4, spec.dimension)):
            options = {"prior": prior, "jacobian": jacobian}
            value, gradient = spec.log_density(z, **options)
            assert np.isfinite(value)
            numeric = numeric_gradient(lambda x, o=options: spec.log_density(x, **o)[0], z, 3e-4)
            np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-5 * (1.0 + np.abs(gradient).max()))


def test_value_is_that_of_a_dense_gaussian(rng):
    spec = matern_potential()
    lag = spec.t[:, None] - spec.t
    for z in spec.start + rng.normal(0.0, 0.7, (5, 4)):
        v = {name: float(x) for name, x in spec.to_natural(z).items()}
        covariance = matern32(lag, v["variance"], v["rate"]) + np.diag(spec.variance + v["jitter"] ** 2)
        expected = multivariate_normal.logpdf(spec.y, np.full(spec.t.size, v["mean"]), covariance)
        assert spec.log_density(z, prior=False, jacobian=False)[0] == pytest.approx(expected, rel=1e-10)
        parts = spec.components(z[None])
        np.testing.assert_allclose(parts.parameters, [[v["variance"], v["rate"]]])
        np.testing.assert_allclose(parts.noise[0], spec.variance + v["jitter"] ** 2)
        np.testing.assert_allclose(parts.mean[0], v["mean"])
        total = expected + parts.log_prior[0] + parts.log_jacobian[0]
        assert spec.log_density(z)[0] == pytest.approx(total, rel=1e-10)


def test_missing_observations_count_for_nothing(rng):
    t, y, variance = simulate(40)
    hidden = rng.random(40) < 0.3
    arguments = (MATERN32, lambda v, ops: [v["a"], 0.6], [ParameterSpec("a", lower=0.0, init=1.3)])
    noise = {"noise": lambda v, ops: [0.1 * v["a"]]}
    masked = build_potential(*arguments, t, np.where(hidden, 99.0, y), np.where(hidden, np.inf, variance), **noise)
    short = build_potential(*arguments, t[~hidden], y[~hidden], variance[~hidden], **noise)
    value, gradient = masked.log_density([0.2])
    expected, slope = short.log_density([0.2])
    assert value == pytest.approx(expected, rel=1e-12)
    assert gradient == pytest.approx(slope, rel=1e-10)


def test_whitened_coordinates(rng):
    spec = matern_potential()
    centre, factor = rng.normal(0.0, 0.3, 4), np.tril(rng.normal(0.0, 0.3, (4, 4)))
    u = rng.normal(size=(3, 4))
    values, gradients, status = spec.compiled(centre=centre, factor=factor).rows(u)
    expected, slopes = spec.log_density_batch(centre + u @ factor.T)
    assert not status.any()
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(gradients, slopes @ factor, rtol=1e-9, atol=1e-9)


def test_the_c_function_gives_the_same_numbers(rng):
    spec = matern_potential()
    compiled = spec.compiled()
    pointer = ctypes.POINTER(ctypes.c_double)
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, pointer, pointer, pointer, ctypes.c_void_p)
    function = kind(compiled_code.callback().address)
    z, gradient, value = rng.normal(size=4), np.zeros(4), np.zeros(1)
    as_pointer = [a.ctypes.data_as(pointer) for a in (z, gradient, value)]
    assert function(4, *as_pointer, compiled.address) == 0
    expected, slope = spec.log_density(z)
    assert value[0] == expected
    assert gradient.tolist() == slope.tolist()
    z[0] = 1e4
    assert function(4, *as_pointer, compiled.address) == compiled_code.NOT_FINITE
    assert value[0] == -np.inf


def test_no_density_is_a_code_and_not_an_exception():
    t, y, _ = simulate(60)
    spec = build_potential(
        MATERN32,
        lambda v, ops: [1.0, 0.5],
        [ParameterSpec("noise")],
        t,
        y,
        noise=lambda v, ops: [v["noise"]],
    )
    values, gradients, status = spec.compiled().rows(np.array([[-5.0], [0.1], [np.nan], [np.inf]]))
    assert status.tolist() == [
        compiled_code.NOT_POSITIVE_DEFINITE,
        0,
        compiled_code.NOT_FINITE,
        compiled_code.NOT_FINITE,
    ]
    assert np.isfinite(values[1]) and np.all(values[[0, 2, 3]] == -np.inf)
    assert gradients[1] != 0.0 and not gradients[[0, 2, 3]].any()


def test_repeated_times_without_noise_have_no_density():
    t = np.array([0.0, 1.0, 1.0, 2.0])
    spec = build_potential(MATERN32, lambda v, ops: [v["a"], 1.0], [ParameterSpec("a", lower=0.0)], t, t)
    assert spec.log_density([0.0])[0] == -np.inf


def test_a_rounding_away_parameter_has_no_density():
    spec = prior_only()
    value, gradient = spec.log_density([0.0, 800.0, 0.0, 0.0])
    assert value == -np.inf and not gradient.any()


def test_natural_and_unconstrained_values_are_inverse(rng):
    spec = prior_only()
    z = rng.normal(size=(2, 3, 4))
    values = spec.to_natural(z)
    assert list(values) == ["normal", "gamma", "uniform", "half"]
    assert values["gamma"].shape == (2, 3)
    np.testing.assert_allclose(spec.to_unconstrained(values), z, rtol=1e-9, atol=1e-12)
    with pytest.raises(InvalidDataError, match="gamma must be in"):
        spec.to_unconstrained({**values, "gamma": -1.0})
    with pytest.raises(InvalidDataError, match="values are needed for"):
        spec.to_unconstrained({"normal": 1.0})


def test_starts_and_scales():
    spec = matern_potential()
    natural = spec.to_natural(spec.start)
    assert float(natural["variance"]) == pytest.approx(np.exp(0.5))
    assert float(natural["rate"]) == pytest.approx(1.0)
    assert spec.spread.tolist() == [1.0, 1.0, 1.0, 2.0]
    spec = build_potential(MATERN32, lambda v, ops: [1.0, 1.0], [ParameterSpec("a", lower=1.0, upper=3.0)], [], [])
    assert float(spec.to_natural(spec.start)["a"]) == 2.0


def test_a_description_survives_pickling():
    spec = matern_potential()
    z = np.full(4, 0.1)
    before = spec.log_density(z)
    again = pickle.loads(pickle.dumps(spec))
    assert again._compiled == {}
    assert again.log_density(z)[0] == before[0]


def test_the_compiled_density_outlives_its_description():
    compiled: Compiled = matern_potential().compiled()
    values, _, _ = compiled.rows(np.zeros((1, 4)))
    assert values[0] == matern_potential().log_density(np.zeros(4))[0]


def test_what_cannot_be_described_is_refused():
    t, y, variance = simulate(5)
    one = [ParameterSpec("a", lower=0.0)]

    def kernel(v, ops):
        return [v["a"], 1.0]

    with pytest.raises(InvalidDataError, match="names of parameters must differ"):
        build_potential(MATERN32, kernel, one * 2, t, y)
    with pytest.raises(InvalidDataError, match="has 2 parameters, got 1"):
        build_potential(MATERN32, lambda v, ops: [1.0], one, t, y)
    with pytest.raises(InvalidDataError, match=r"must be \(N,\)"):
        build_potential(MATERN32, kernel, one, t, y[:3])
    with pytest.raises(InvalidDataError, match=r"basis of the mean must be finite with shape \(5, 1\)"):
        build_potential(MATERN32, kernel, one, t, y, mean=lambda v, ops: [v["a"]], mean_basis=np.ones((4, 1)))
    with pytest.raises(InvalidDataError, match="2 coefficients of the noise need a basis"):
        build_potential(MATERN32, kernel, one, t, y, noise=lambda v, ops: [1.0, 2.0])
    with pytest.raises(InvalidDataError, match="parameter a: the interval"):
        build_potential(MATERN32, kernel, [ParameterSpec("a", td.Uniform(0.0, 1.0), lower=2.0)], t, y)
    with pytest.raises(UnsupportedKernelError, match="method='pyro'"):
        build_potential(GIVEN, kernel, one, t, y)
    with pytest.raises(InvalidDataError, match=r"points must have shape \(B, 1\)"):
        build_potential(MATERN32, kernel, one, t, y).log_density([0.0, 0.0])
