"""Changes of basis: the function stays, the prior's part of the bound is that of dense algebra, and none is larger."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpkit.inference.structured_vb.rotations import best_rotation
from tests.inference.structured_vb.problems import factor_of, posterior_of


@pytest.mark.parametrize("kind", [0, 1, 3])
def test_spread_is_that_of_dense_gaussians(kind):
    rng = np.random.default_rng(kind)
    factor = factor_of(kind, 6, 2)
    assert factor.spread() is None  # nothing has been updated
    root = rng.standard_normal((6, 2, 2))
    factor.set_sites(root @ root.transpose(0, 2, 1), rng.standard_normal((6, 2)))
    factor.update()
    gram = np.eye(6)
    if kind != 1:
        with torch.no_grad():
            gram = factor.kernel(torch.from_numpy(factor.coordinates)).to_dense().numpy()
    inverse = np.linalg.inv(gram)
    precision = np.kron(inverse, np.eye(2))
    for j in range(6):
        precision[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] += factor.precision[j]
    covariance = np.linalg.inv(precision).reshape(6, 2, 6, 2)
    second = covariance + np.einsum("ia,jb->iajb", factor.mean, factor.mean)
    spread = factor.spread()
    np.testing.assert_allclose(spread.square, np.einsum("ij,iajb->ab", inverse, second), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(spread.sum, inverse.sum(0) @ factor.mean, rtol=1e-6, atol=1e-8)
    assert spread.constant == pytest.approx(inverse.sum(), rel=1e-3)
    factor.carry(factor.precision, factor.information)
    assert factor.spread() is None  # sites of entries that are gone do not turn


def _part_of_the_bound(spread, second, count, free, constant, ard, matrix, shift):
    """The formula at the head of the module, with dense matrices."""
    change = np.eye(len(second))
    change[free[:, None], free] = matrix
    if len(constant):
        change[free, constant[0]] = shift
    inverse = np.linalg.inv(change)
    squares = np.diag(inverse.T @ second @ inverse)
    value = (spread.degrees - count) * np.linalg.slogdet(matrix)[1] - 0.5 * np.trace(matrix @ spread.square @ matrix.T)
    value -= shift @ matrix @ spread.sum + 0.5 * spread.constant * shift @ shift
    if ard is None:
        return value - 0.5 * squares.sum()
    return value - (ard[0] + 0.5 * count) * np.log(ard[1] + 0.5 * squares).sum()


@pytest.mark.parametrize("main", [False, True])
@pytest.mark.parametrize("ard", [None, (1e-9, 1e-9)])
def test_no_change_of_basis_is_better(main, ard):
    rng = np.random.default_rng(3)
    posterior, layout, _ = posterior_of("tucker", 3, entries=200, main_effects=main)
    posterior.fit(layout, sweeps=3, tolerance=0.0)
    mode = posterior.modes[0]
    spread = mode.factor.spread()
    root = rng.standard_normal((mode.rank, 12))
    second, count = root @ root.T, 12
    found = best_rotation(spread, second, count, mode.free, mode.constant, ard)
    assert found is not None
    matrix = np.linalg.inv(found.inverse)
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(matrix)[1])

    def value(a, c):
        return _part_of_the_bound(spread, second, count, mode.free, mode.constant, ard, a, c)

    rank = len(mode.free)
    best = value(matrix, found.shift)
    assert best > value(np.eye(rank), np.zeros(rank))
    for _ in range(50):
        nudge = 0.05 * rng.standard_normal((rank, rank))
        assert value(matrix @ (np.eye(rank) + nudge), found.shift) < best + (1e-6 if not main else 0.05 * abs(best))
        if main:
            assert value(matrix, found.shift + 0.1 * rng.standard_normal(rank)) < best + 1e-6


@pytest.mark.parametrize("ard", [True, False])
def test_the_function_stays(ard):
    """Turning the coefficients and, by hand, the functions leaves mean and second moment of f."""
    posterior, layout, _ = posterior_of("tucker", 3, entries=100, ard=ard)
    posterior.fit(layout, sweeps=4, tolerance=0.0)
    before = posterior.entry_moments(layout)
    mode, form = posterior.modes[1], posterior.form
    ranks = [m.rank for m in posterior.modes]
    old = np.moveaxis(form.mean.reshape(ranks), 1, 0).reshape(mode.rank, -1).copy()
    bound = posterior.form.divergence()
    form.rotate(1)
    new = np.moveaxis(form.mean.reshape(ranks), 1, 0).reshape(mode.rank, -1)
    change = new @ np.linalg.pinv(old)  # L^-T
    turn = np.linalg.inv(change).T
    assert np.abs(turn - np.eye(mode.rank)).max() > 1e-4
    full_mean = mode.means() @ turn.T
    full = turn @ (mode.seconds() - mode.means()[:, :, None] * mode.means()[:, None, :]) @ turn.T
    mode.factor.mean, mode.factor.covariance = full_mean[:, mode.free], full[:, mode.free[:, None], mode.free]
    mode.refresh()
    for one, two in zip(before, posterior.entry_moments(layout), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-10)
    assert np.isfinite(posterior.form.divergence()) and posterior.form.divergence() != bound
