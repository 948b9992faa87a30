"""Packed statistics, sites, core statistics and squared errors against explicit sums of Kronecker products."""

from __future__ import annotations

import numpy as np
import pytest

from gpkit.inference.structured_vb.forms import ard_prior
from tests.inference.structured_vb.problems import coupling_of, posterior_of, products

FORMS = [("tucker", k, main) for k in (1, 2, 3, 4) for main in (False, True)] + [
    ("cp", k, main) for k in (1, 3, 4) for main in (False, True)
]
TRAINS = [("tensor-train", k, main) for k in (1, 2, 3, 4) for main in (False, True)]


def weights_of(layout):
    return np.broadcast_to(layout.weight, layout.target.shape)


@pytest.mark.parametrize(("form", "modes", "main"), FORMS)
def test_core_statistics_and_squared_error_are_the_kronecker_sums(form, modes, main):
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    first, second = products(posterior, index)
    w = weights_of(layout)
    want_square = np.einsum("n,nij->ij", w, second)
    want_linear = np.einsum("n,n,ni->i", w, layout.target, first)
    for k in range(modes):
        statistics = posterior.form.statistics(k, layout.groupings[k])
        square, linear = posterior.form.coefficient_statistics(statistics)
        np.testing.assert_allclose(square, want_square, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(linear, want_linear, rtol=1e-11, atol=1e-11)
    moment = posterior.form.second_moment
    want = (w * layout.target**2).sum() - 2 * posterior.form.mean @ want_linear + (want_square * moment).sum()
    assert posterior.form.error(layout.squares, statistics) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("form", "modes", "main"), TRAINS)
def test_weights_and_squared_error_of_a_train_are_the_sums_over_paths(form, modes, main):
    """One mode's weights after the other: normal equations and errors against all paths through the bonds."""
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    w, train = weights_of(layout), posterior.form
    for k in range(modes):
        statistics = train.statistics(k, layout.groupings[k])
        coupling, mean, moment = coupling_of(posterior)
        first, second = products(posterior, index)
        f, squares = first @ mean, np.einsum("nij,ij->n", second, moment)
        want = (w * (layout.target**2 - 2 * layout.target * f + squares)).sum()
        assert train.error(layout.squares, statistics) == pytest.approx(want, rel=1e-11)
        if not train.weights[k].size:
            continue
        # The expected error is a quadratic function of a mode's weights: its minimum under the prior is the update.
        size = train.weights[k].size
        train.weights[k].covariance = np.zeros((size, size))
        points = np.random.default_rng(k).standard_normal((1 + size * (size + 3) // 2, size))
        design, values = [], []
        for g in points:
            train.weights[k].mean = g
            _, mean, moment = coupling_of(posterior)
            f, squares = first @ mean, np.einsum("nij,ij->n", second, moment)
            values.append((w * (squares - 2 * layout.target * f)).sum())
            design.append(np.concatenate([[1.0], g, np.outer(g, g)[np.triu_indices(size)]]))
        found = np.linalg.solve(np.array(design), np.array(values))
        hessian = np.zeros((size, size))
        hessian[np.triu_indices(size)] = found[1 + size :]
        hessian = hessian + hessian.T
        train.precisions[k] = ard_prior(size)
        train.update(train.statistics(k, layout.groupings[k]), 2.0)
        want = np.linalg.solve(hessian + np.eye(size), -found[1 : 1 + size])
        np.testing.assert_allclose(train.weights[k].mean, want, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(train.weights[k].covariance, np.linalg.inv(hessian + np.eye(size)), rtol=1e-7)


@pytest.mark.parametrize(("form", "modes", "main"), FORMS + TRAINS)
def test_sites_are_derivatives_of_the_expected_squared_error(form, modes, main):
    """Lambda and eta of coordinate j give the part of the error that its functions are in, whatever their values."""
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    rng = np.random.default_rng(1)
    coupling, g, moment = coupling_of(posterior)
    w = weights_of(layout)
    for k, mode in enumerate(posterior.modes):
        precision, information = posterior.form.sites(posterior.form.statistics(k, layout.groupings[k]))
        j = int(index[k][0])
        rows = index[k] == j
        u = rng.standard_normal(mode.rank)
        first, second = np.ones((rows.sum(), len(g))), np.ones((rows.sum(), len(g), len(g)))
        for other, own in enumerate(posterior.modes):
            column = coupling[:, other]
            mean = u if other == k else own.means()[index[other][rows]]
            square = np.outer(u, u) if other == k else own.seconds()[index[other][rows]]
            first = first * mean[..., column]
            second = second * square[..., column[:, None], column]
        want = np.einsum("n,n,ni,i->", w[rows], layout.target[rows], first, g)
        want -= 0.5 * np.einsum("n,nij,ij->", w[rows], second, moment)
        got = information[j] @ u - 0.5 * u @ precision[j] @ u
        assert got == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(("form", "modes", "main"), FORMS + TRAINS)
def test_moments_of_entries_are_the_kronecker_sums(form, modes, main):
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    first, second = products(posterior, index)
    mean, square = posterior.entry_moments(layout)
    _, g, moment = coupling_of(posterior)
    np.testing.assert_allclose(mean, first @ g, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(square, np.einsum("nij,ij->n", second, moment), rtol=1e-11)
    again = posterior.node_moments(index)
    np.testing.assert_allclose(again[0], mean, rtol=1e-12)
    np.testing.assert_allclose(again[1], square, rtol=1e-12)


def test_order_of_the_entries_does_not_matter():
    posterior, layout, index = posterior_of("tucker", 3)
    other, shuffled_layout, _ = posterior_of("tucker", 3)
    order = np.random.default_rng(3).permutation(layout.entries)
    sizes = [m.factor.size for m in other.modes]
    shuffled_layout.__init__([i[order] for i in index], sizes, layout.y[order], layout.power[order])
    ours = posterior.fit(layout, sweeps=6).elbo
    theirs = other.fit(shuffled_layout, sweeps=6).elbo
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
