"""gpkit's kernels recorded as expressions: the posterior of each is that of its own dense covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from gpkit import kernels
from gpkit.inference.potential import ParameterSpec, build_potential
from tests.inference.models import simulate

KERNELS = {
    "sho": kernels.SHOKernel,
    "drw": kernels.DRWKernel,
    "matern32": lambda: kernels.MaternKernel(1.5),
    "matern52": lambda: kernels.MaternKernel(2.5),
    "rotation": kernels.RotationKernel,
    "lorentzian": kernels.LorentzianKernel,
    "scaled": lambda: kernels.ScaleKernel(kernels.SHOKernel()),
    "sum": lambda: kernels.ScaleKernel(kernels.SHOKernel()) + kernels.ScaleKernel(kernels.DRWKernel()),
    "product": lambda: kernels.ScaleKernel(kernels.DRWKernel() * kernels.CosineKernel()),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_density_is_that_of_the_dense_kernel(name):
    kernel = KERNELS[name]()
    values = {key: float(value.detach()) for key, value in kernel.natural_parameters().items()}
    t, y, variance = simulate(20)
    spec = build_potential(
        kernel.structure,
        kernel.structure_parameters,
        [ParameterSpec(key, lower=0.0, init=value) for key, value in values.items()],
        t,
        y,
        variance,
    )
    x = torch.from_numpy(t)[:, None]
    covariance = kernel(x).to_dense().detach().numpy() + np.diag(variance)
    expected = multivariate_normal.logpdf(y, np.zeros(20), covariance)
    z = spec.to_unconstrained(values)
    assert spec.log_density(z, jacobian=False)[0] == pytest.approx(expected, rel=1e-9)
