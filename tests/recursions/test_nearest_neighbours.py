"""Conditioning on neighbours against dense linear algebra; derivatives by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpkit.recursions.covariance_tree import largest_covariances
from gpkit.recursions.nearest_neighbours import condition
from gpkit.recursions.neighbour_gradients import LeftOut, leave_one_out_gradient
from gpkit.recursions.neighbour_lanes import Covariance


def test_lanes_do_not_mix():
    """A query's answer does not depend on which others are asked for."""
    points, category, variance, rate, relative, _, _, near = problem()
    queries, covariance = np.random.default_rng(9).uniform(size=(12, 3)).round(1), Covariance(category, variance, rate)

    def answer(rows):
        weights, left = np.empty((len(rows), near.shape[1])), np.empty(len(rows))
        condition(points, 0.3 * relative, queries[rows], near[rows], covariance, weights, left)
        return weights, left

    together = answer(np.arange(12))
    for i in range(12):
        alone = answer(np.array([i]))
        np.testing.assert_array_equal(alone[0][0], together[0][i])
        assert alone[1][0] == together[1][i]


def problem(seed=0, n=40, width=6):
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(size=(n, 2)), rng.integers(0, 3, n)])
    category = np.array([False, False, True])
    variance, rate = np.array([1.0, 0.5]), rng.uniform(0.2, 2.0, (2, 3))
    relative, target = rng.uniform(0.5, 2.0, n), rng.standard_normal(n)
    rows = np.arange(12)
    near = np.array([[j for j in rng.permutation(n) if j != i][:width] for i in rows])
    near[3, 4:] = -1
    return points, category, variance, rate, relative, target, rows, near


def gram(points, others, category, variance, rate):
    out = np.zeros((len(points), len(others)))
    for v, r in zip(variance, rate, strict=True):
        exponent = np.zeros_like(out)
        for k in range(points.shape[1]):
            gap = np.abs(points[:, None, k] - others[None, :, k])
            exponent += r[k] * ((gap > 0) if category[k] else gap)
        out += v * np.exp(-exponent)
    return out


def test_weights_and_variances():
    points, category, variance, rate, relative, _, _, near = problem()
    queries = np.random.default_rng(9).uniform(size=(12, 3)).round(1)
    weights, left = np.empty(near.shape), np.empty(12)
    condition(points, 0.3 * relative, queries, near, Covariance(category, variance, rate), weights, left)
    for i in range(12):
        rows = near[i][near[i] >= 0]
        matrix = gram(points[rows], points[rows], category, variance, rate) + 0.3 * np.diag(relative[rows])
        cross = gram(points[rows], queries[i : i + 1], category, variance, rate)[:, 0]
        want = np.linalg.solve(matrix, cross)
        np.testing.assert_allclose(weights[i, : len(rows)], want, atol=1e-12)
        assert np.all(weights[i, len(rows) :] == 0.0)
        assert left[i] == pytest.approx(variance.sum() - cross @ want, rel=1e-10)


@pytest.mark.parametrize("degrees", [np.inf, 4.0])
def test_density_and_its_derivatives(degrees):
    points, category, variance, rate, relative, target, rows, near = problem()

    def value(v, r, level):
        to_v, to_r = np.empty_like(v), np.empty_like(r)
        left_out = LeftOut(points, relative, target, rows, near)
        out, to_level = leave_one_out_gradient(left_out, Covariance(category, v, r), level, degrees, to_v, to_r)
        return out, to_v, to_r, to_level

    got, to_v, to_r, to_level = value(variance, rate, 0.3)
    total = 0.0
    for i in rows:
        own = near[i][near[i] >= 0]
        matrix = gram(points[own], points[own], category, variance, rate) + 0.3 * np.diag(relative[own])
        cross = gram(points[own], points[i : i + 1], category, variance, rate)[:, 0]
        spread = variance.sum() + 0.3 * relative[i] - cross @ np.linalg.solve(matrix, cross)
        error = target[i] - cross @ np.linalg.solve(matrix, target[own])
        total -= stats.t.logpdf(error, degrees, scale=np.sqrt(spread))
    assert got == pytest.approx(total / len(rows), rel=1e-12)
    step = 1e-6
    for t in range(2):
        d = step * np.eye(2)[t]
        assert to_v[t] == pytest.approx(
            (value(variance + d, rate, 0.3)[0] - value(variance - d, rate, 0.3)[0]) / 2 / step, abs=1e-7
        )
        for k in range(3):
            d = np.zeros((2, 3))
            d[t, k] = step
            slope = (value(variance, rate + d, 0.3)[0] - value(variance, rate - d, 0.3)[0]) / 2 / step
            assert to_r[t, k] == pytest.approx(slope, abs=1e-7)
    slope = (value(variance, rate, 0.3 + step)[0] - value(variance, rate, 0.3 - step)[0]) / 2 / step
    assert to_level == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("n", [1, 5, 40, 900])
def test_rows_of_largest_covariance_are_found(n):
    """In order, whatever the boxes: ties, categories, queries far away, more asked for than there are."""
    points, category, variance, rate, *_ = problem(n=max(n, 12))
    points = points[:n].round(2)
    queries = np.concatenate([points[:3], [[0.33, 0.5, 1.0], [1e9, -1e9, 7.0]]])
    own = np.append(np.arange(len(queries) - 2), [-1, -1])
    for scale in (1.0, 30.0):
        out = np.empty((len(queries), min(n, 30) + 1), np.int64)
        largest_covariances(points, queries, own, Covariance(category, variance, scale * rate), out)
        full = gram(queries, points, category, variance, scale * rate)
        for i, found in enumerate(out):
            allowed = np.delete(np.arange(n), own[i]) if own[i] >= 0 else np.arange(n)
            count = min(len(allowed), out.shape[1])
            assert np.all(found[count:] == -1) and len(set(found[:count])) == count
            assert set(found[:count]) <= set(allowed)
            np.testing.assert_allclose(full[i, found[:count]], np.sort(full[i, allowed])[::-1][:count], rtol=1e-12)
