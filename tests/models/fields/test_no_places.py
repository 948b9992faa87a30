"""Predictions at no place at all, and vectors without a tangent part."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import DataWarning
from gpkit.models import VectorFieldGP
from tests.models.fields.conftest import Surface


@pytest.mark.parametrize("kernel", ["projected:rbf", "helmholtz:rbf", "intrinsic:heat"])
def test_no_places(sphere: Surface, kernel: str) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(sphere.vectors.shape)
    model = VectorFieldGP(sphere.cloud, kernel)
    model.fit(np.arange(0, 200, 3), (sphere.vectors + noise)[::3], progress=False)
    for nowhere in ([], np.zeros((0, 3)), np.zeros(200, dtype=bool)):
        found = model.predict(nowhere)
        assert found.mean.shape == (0, 3) and found.covariance.shape == (0, 2, 2) and found.far.shape == (0,)
        assert all(bound.shape == (0, 3) for bound in found.interval())


def test_vectors_that_are_nearly_normal(sphere: Surface) -> None:
    model = VectorFieldGP(sphere.cloud, "projected:rbf")
    with pytest.warns(DataWarning, match="which are left out: 100 % of their root mean square length"):
        model.fit(np.arange(200), sphere.cloud.points + 1e-3 * sphere.vectors, progress=False)
