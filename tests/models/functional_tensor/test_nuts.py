"""Variational Bayes beside NUTS on a table that is small enough."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpkit.errors import InvalidDataError
from gpkit.kernels import MaternKernel
from gpkit.models import Continuous, FunctionalTensor
from tests.models.functional_tensor.tables import fitted, table


@pytest.mark.slow
def test_means_and_widths_are_near_those_of_nuts():
    """Means within 0.4 of a standard deviation, widths within 40 %: products of independent modes can be wide, too."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.integers(0, 6, 50) / 3.0, "t": rng.integers(0, 5, 50) / 2.0})
    frame["y"] = np.sin(2.0 * frame.x) * (1.0 + frame.t) + 0.3 * rng.standard_normal(50)
    parts = [Continuous("x", MaternKernel(1.5)), Continuous("t", MaternKernel(1.5))]
    model = FunctionalTensor(parts, rank=1, main_effects=False)
    model.fit(frame, "y", restarts=1, progress=False)
    new = pd.DataFrame({"x": np.linspace(0.1, 1.6, 9), "t": np.linspace(2.1, 0.0, 9)})
    data = model.sample(new, draws=120, tune=100, chains=1, seed=0, progress=False)
    draws = data.posterior["f_new"].to_numpy()[0]
    found = model.predict(new)
    assert np.all(np.abs(found.mean - draws.mean(0)) < 0.4 * draws.std(0))
    ratio = np.sqrt(found.function_variance) / draws.std(0)
    assert 0.7 < np.median(ratio) < 1.4
    noise = data.posterior["noise_variance"].to_numpy().mean()
    assert model.fitted.parameters["noise_variance"] == pytest.approx(noise, rel=0.25)
    assert data.posterior["f"].shape == (1, 120, 50) and data.observed_data["y"].shape == (50,)


@pytest.mark.parametrize("form", ["tucker", "cp", "tensor-train"])
def test_program_is_the_model(form):
    """The function of the sampler's variables at the posterior mean is the products of posterior means."""
    from gpkit.models.functional_tensor import nuts

    model = fitted(table(60), form=form, fit={"restarts": 1, "sweeps": 4})
    program, nodes, more = nuts._arranged(model, model._state, model.best, table(5, seed=2))
    posterior = model.best.posterior
    means = [mode.factor.at(at)[0] for mode, at in zip(posterior.modes, nodes, strict=True)]
    z = program.start(means, None)
    np.testing.assert_allclose(
        program.values(z, program.index), posterior.node_moments(model._state.index)[0], atol=1e-7
    )
    columns = [
        table(5, seed=2)[name].to_numpy(dtype=kind) for name, kind in (("x", float), ("t", float), ("kind", str))
    ]
    numbers = [e.numbers([c]) for e, c in zip(model._state.encodings, columns, strict=True)]
    np.testing.assert_allclose(program.values(z, more), posterior.moments_at(numbers)[0], atol=1e-7)


def test_what_nuts_is_not_for():
    model = fitted(table(60), fit={"restarts": 1, "sweeps": 3})
    with pytest.raises(InvalidDataError, match="draws, tune and chains"):
        model.sample(draws=0)
    model.update(table(30, seed=1), table(30, seed=1).y, keep=20)
    with pytest.raises(InvalidDataError, match="hold all their entries"):
        model.sample(draws=2)
