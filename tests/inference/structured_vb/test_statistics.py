"""Packed statistics, sites, core statistics and squared errors against explicit sums of Kronecker products."""

from __future__ import annotations

import numpy as np
import pytest

from tests.inference.structured_vb.problems import posterior_of, products

FORMS = [("tucker", k, main) for k in (1, 2, 3, 4) for main in (False, True)] + [
    ("cp", k, main) for k in (1, 3, 4) for main in (False, True)
]


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
    assert posterior.form.squared_error(layout.squares, want_square, want_linear) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("form", "modes", "main"), FORMS)
def test_sites_are_derivatives_of_the_expected_squared_error(form, modes, main):
    """Lambda and eta of coordinate j give the part of the error that its functions are in, whatever their values."""
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    rng = np.random.default_rng(1)
    g, moment = posterior.form.mean, posterior.form.second_moment
    w = weights_of(layout)
    for k, mode in enumerate(posterior.modes):
        precision, information = posterior.form.sites(posterior.form.statistics(k, layout.groupings[k]))
        j = int(index[k][0])
        rows = index[k] == j
        u = rng.standard_normal(mode.rank)
        first, second = np.ones((rows.sum(), len(g))), np.ones((rows.sum(), len(g), len(g)))
        for other, own in enumerate(posterior.modes):
            column = posterior.form.coupling[:, other]
            mean = u if other == k else own.means()[index[other][rows]]
            square = np.outer(u, u) if other == k else own.seconds()[index[other][rows]]
            first = first * mean[..., column]
            second = second * square[..., column[:, None], column]
        want = np.einsum("n,n,ni,i->", w[rows], layout.target[rows], first, g)
        want -= 0.5 * np.einsum("n,nij,ij->", w[rows], second, moment)
        got = information[j] @ u - 0.5 * u @ precision[j] @ u
        assert got == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(("form", "modes", "main"), FORMS)
def test_moments_of_entries_are_the_kronecker_sums(form, modes, main):
    posterior, layout, index = posterior_of(form, modes, main_effects=main)
    first, second = products(posterior, index)
    mean, square = posterior.entry_moments(layout)
    np.testing.assert_allclose(mean, first @ posterior.form.mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(square, np.einsum("nij,ij->n", second, posterior.form.second_moment), rtol=1e-11)
    again = posterior.node_moments(index)
    np.testing.assert_allclose(again[0], mean, rtol=1e-12)
    np.testing.assert_allclose(again[1], square, rtol=1e-12)


def test_order_of_the_entries_does_not_matter():
    posterior, layout, index = posterior_of("tucker", 3)
    other, shuffled_layout, _ = posterior_of("tucker", 3)
    order = np.random.default_rng(3).permutation(layout.entries)
    observation = other.observation
    observation.y, observation.weight = observation.y[order], observation.weight[order]
    shuffled_layout.__init__([i[order] for i in index], [m.factor.size for m in other.modes], *observation.start())
    ours = posterior.fit(layout, sweeps=6).elbo
    theirs = other.fit(shuffled_layout, sweeps=6).elbo
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
