"""Dense evidence, leave-out formulas and semidefinite roots against plain linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.dense_evidence import DenseFactor, dense_log_likelihood, semidefinite_root


def covariance(n: int, seed: int = 0) -> torch.Tensor:
    root = torch.as_tensor(np.random.default_rng(seed).standard_normal((n, n + 2)))
    return root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("sets", [1, 3])
def test_value_and_gradients(sets: int) -> None:
    c = covariance(6)
    y = torch.as_tensor(np.random.default_rng(1).standard_normal((6, sets)))
    expected = sum(stats.multivariate_normal(np.zeros(6), c.numpy()).logpdf(column) for column in y.numpy().T)
    assert float(dense_log_likelihood(c, y)) == pytest.approx(float(expected), rel=1e-12)
    root = torch.linalg.cholesky(c).requires_grad_()
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda r, t: dense_log_likelihood(r @ r.mT, t), (root, y))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_leave_out(size: int) -> None:
    c = covariance(12)
    y = torch.as_tensor(np.random.default_rng(2).standard_normal(12))
    means, covariances = DenseFactor.of(c, y).leave_out(size)
    for block in range(12 // size):
        out = np.arange(block * size, (block + 1) * size)
        rest = np.setdiff1d(np.arange(12), out)
        gain = np.linalg.solve(c.numpy()[np.ix_(rest, rest)], c.numpy()[np.ix_(rest, out)]).T
        np.testing.assert_allclose(means[block], gain @ y.numpy()[rest], atol=1e-10)
        expected = c.numpy()[np.ix_(out, out)] - gain @ c.numpy()[np.ix_(rest, out)]
        np.testing.assert_allclose(covariances[block], expected, atol=1e-10)


def test_roots() -> None:
    rng = np.random.default_rng(3)
    low_rank = rng.standard_normal((20, 4))
    root = semidefinite_root(low_rank @ low_rank.T, 10.0)
    assert root.shape == (20, 4)
    np.testing.assert_allclose(root @ root.T, low_rank @ low_rank.T, atol=1e-12)
    assert semidefinite_root(np.zeros((3, 3)), 1.0).shape == (3, 0)
    assert semidefinite_root(np.zeros((0, 0)), 1.0).shape == (0, 0)
    with pytest.raises(NotPositiveDefiniteError):
        semidefinite_root(np.diag([1.0, -0.5]), 1.0)


def test_refuses_indefinite() -> None:
    with pytest.raises(NotPositiveDefiniteError):
        dense_log_likelihood(torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)), torch.zeros(2).double())
    with pytest.raises(NotPositiveDefiniteError):
        DenseFactor.of(torch.full((2, 2), torch.nan, dtype=torch.float64), torch.zeros(2).double())
