"""Questions that repeat get the answers of single ones."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError, NotSortedError
from gpkit.inference import state_space
from gpkit.inference.state_space import RepeatedPath
from gpkit.kernels import MaternKernel, PeriodicKernel
from tests.inference.state_space.problems import coordinates, sites

KERNELS = {
    "short": lambda: MaternKernel(1.5),
    "long": lambda: MaternKernel(2.5),
    "sum": lambda: MaternKernel(0.5) + PeriodicKernel(3.0),
    "unheard harmonics": lambda: PeriodicKernel(3.0, lengthscale=4.0, shortest=0.5),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("functions", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 9])
def test_answers_are_those_of_the_engine(name, functions, n, generator):
    kernel = KERNELS[name]()
    x = coordinates("ties" if n > 1 else "plain", n, generator)
    path = RepeatedPath(x.numpy(), functions)
    for round_ in range(3):
        precision, information = sites("singular", n, functions, generator)
        for parameter in kernel.parameters():
            parameter.data += 0.1 * round_
        with torch.no_grad():
            want = state_space.smooth(kernel, x, precision, information)
        path = pickle.loads(pickle.dumps(path)) if round_ == 1 else path
        evidence, mean, covariance = path.smooth(kernel, precision.numpy(), information.numpy())
        assert evidence == pytest.approx(float(want.log_evidence), rel=1e-10, abs=1e-10)
        np.testing.assert_allclose(mean, want.mean.numpy(), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(covariance, want.covariance.numpy(), rtol=1e-9, atol=1e-10)
        assert path.evidence(kernel, precision.numpy(), information.numpy()) == evidence


def test_what_cannot_be_used_is_refused():
    with pytest.raises(NotSortedError, match="that at 1 exceeds"):
        RepeatedPath(np.array([0.0, 2.0, 1.0]), 1)
    with pytest.raises(InvalidDataError, match="the one at 1"):
        RepeatedPath(np.array([0.0, np.nan]), 1)
    with pytest.raises(InvalidDataError, match="at least one function"):
        RepeatedPath(np.zeros(2), 0)
    path, kernel = RepeatedPath(np.array([0.0, 1.0]), 1), MaternKernel(0.5)
    with pytest.raises(InvalidDataError, match="do not have shapes"):
        path.evidence(kernel, np.zeros((2, 2, 2)), np.zeros((2, 2)))
    with pytest.raises(InvalidDataError, match="finite"):
        path.evidence(kernel, np.ones((2, 1, 1)), np.array([[0.0], [np.inf]]))
    with pytest.raises(NotPositiveDefiniteError, match="node 1"):
        path.evidence(kernel, np.array([[[1.0]], [[-5.0]]]), np.zeros((2, 1)))
    batched = MaternKernel(0.5, batch_shape=torch.Size([3]))
    with pytest.raises(InvalidDataError, match="takes one kernel"):
        path.evidence(batched, np.ones((2, 1, 1)), np.zeros((2, 1)))
