"""Predictions at no place at all, and vectors without a tangent part."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.errors import DataWarning, InvalidDataError
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
    """Their tangent part is a field until errors of the frames, or the noise, would explain it."""
    model = VectorFieldGP(sphere.cloud, "projected:rbf")
    where, size = np.arange(0, 200, 2), np.sqrt(np.square(sphere.vectors).sum(1).mean())
    normal, tangent = sphere.cloud.points[where], sphere.vectors[where] / size
    with pytest.warns(DataWarning, match="which are left out: 98.* % of their root mean square length"):
        model.fit(where, normal + 0.2 * tangent, progress=False)
    for share in (0.0, 1e-3):
        with pytest.raises(InvalidDataError, match="normal to the manifold.*errors of the tangent frames"):
            model.fit(where, normal + share * tangent)
    with pytest.raises(InvalidDataError, match="normal to the manifold.*the given noise"):
        model.fit(where, normal + 0.2 * tangent, noise=0.3)
