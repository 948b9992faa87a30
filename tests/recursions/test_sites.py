"""One site against 60-digit arithmetic, and the compiled variants of the passes against each other."""

from __future__ import annotations

import mpmath
import numba
import numpy as np
import pytest

from gpkit.recursions import site_draws, site_smoother, sites
from gpkit.recursions.compilation import ENTRY
from gpkit.recursions.site_gain import ROOM, gain


@numba.njit(**{**ENTRY, "cache": False})
def _call(shape, lam, s, r, k, w, room):
    return gain(shape, lam, s, r, k, w, room)


def one_site(lam, s, r):
    n = len(r)
    k, w = np.empty((n, n), r.dtype), np.empty(n, r.dtype)
    marker = np.zeros(n)
    logdet, good = _call((marker, marker, marker), lam, s, r, k, w, np.empty((ROOM, n + 2, n)))
    return k, w, logdet, good


def exact(lam, s, r):
    """K, w and the log-determinant in 60 digits."""
    with mpmath.workdps(60):
        lam, s, r = mpmath.matrix(lam.tolist()), mpmath.matrix(s.tolist()), mpmath.matrix(r.tolist())
        inverse = (mpmath.eye(len(r)) + lam * s) ** -1
        k, w = inverse * lam, inverse * r
        logdet = -mpmath.log(mpmath.det(inverse))
        n = len(r)
        return (
            np.array([[float(k[i, j]) for j in range(n)] for i in range(n)]),
            np.array([float(w[i]) for i in range(n)]),
            float(logdet),
        )


def matrices(kind, n, rng):
    """Precision and covariance of a kind, representable exactly enough for rank to be what it says."""
    root = rng.integers(-4, 5, size=(n, n)).astype(float)
    if kind == "zero":
        root[:] = 0.0
    elif kind == "rank one":
        root[:, 1:] = 0.0
    elif kind == "rank deficient":
        root[:, -1] = 0.0
    elif kind == "empty rows":
        root[0] = 0.0
    lam = root @ root.T
    if kind == "graded":
        scale = np.diag(10.0 ** np.linspace(-6.0, 6.0, n))
        lam = scale @ (lam + np.eye(n)) @ scale
    base = rng.normal(size=(n, n))
    return lam, base @ base.T


@pytest.mark.parametrize("kind", ["full", "zero", "rank one", "rank deficient", "empty rows", "graded"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_one_site_in_60_digits(kind, n, scale, rng):
    lam, s = matrices(kind, n, rng)
    lam = scale * lam
    r = lam @ rng.normal(size=n)
    if kind in ("zero", "rank one"):
        r = r + rng.normal(size=n)
    k, w, logdet, good = one_site(lam, s, r)
    want = exact(lam, s, r)
    assert good
    # A rounding error of a singular Lam is a precision where there is none.
    noise = 1e-15 * np.abs(lam).max() if kind in ("rank one", "rank deficient", "empty rows") else 0.0
    np.testing.assert_allclose(k, want[0], rtol=0.0, atol=1e-11 * max(np.abs(want[0]).max(), 1e-300) + noise)
    np.testing.assert_allclose(logdet, want[2], rtol=1e-12, atol=1e-13 + noise * np.trace(s))
    # What w can lose is decided by r, whose part outside the range of Lam is amplified.
    blur = np.abs(np.linalg.inv(np.eye(n) + lam @ s)).sum(1).max() * 1e-15 * np.abs(r).max()
    np.testing.assert_allclose(w, want[1], rtol=0.0, atol=1e-11 * np.abs(want[1]).max() + blur)
    np.testing.assert_array_equal(k, k.T)


def test_a_singular_covariance_is_a_function_that_is_known(rng):
    lam, _ = matrices("full", 3, rng)
    r = rng.normal(size=3)
    k, w, logdet, good = one_site(lam, np.zeros((3, 3)), r)
    assert good
    np.testing.assert_allclose(k, lam, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(w, r, rtol=1e-12, atol=1e-12)
    assert logdet == 0.0


@pytest.mark.parametrize(
    "matrix", [[[-1.0]], [[1.0, 2.0], [2.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, -1.0]]]
)
def test_negative_precisions_are_noticed(matrix):
    lam = np.array(matrix)
    assert not one_site(lam, np.eye(len(lam)), np.ones(len(lam)))[3]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rounding_errors_of_singular_precisions_are_not(rank, rng):
    for graded in (0.0, 1.0, 6.0):
        for _ in range(300):
            root = rng.normal(size=(5, rank)) * 10.0 ** (graded * rng.uniform(-1, 1, size=(5, 1)))
            assert one_site(root @ root.T, np.eye(5), np.ones(5))[3]
            many = rng.normal(size=(40, 5)) @ (root @ root.T)
            assert one_site(many.T @ many, np.eye(5), np.ones(5))[3]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_directions_are_derivatives(n, rng):
    lam, s = matrices("full", n, rng)
    lam = lam + np.eye(n)
    r = rng.normal(size=n)
    d_lam, d_s, d_r = rng.normal(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    d_lam, d_s = d_lam + d_lam.T, d_s + d_s.T
    tiny, step = 1e-100, 1e-5
    turned = one_site(lam + 1j * tiny * d_lam, s + 1j * tiny * d_s, r + 1j * tiny * d_r)
    ends = [one_site(lam + h * d_lam, s + h * d_s, r + h * d_r) for h in (step, -step)]
    for value, plus, minus, centre in zip(turned[:3], *(e[:3] for e in ends), one_site(lam, s, r)[:3], strict=True):
        np.testing.assert_allclose(np.real(value), centre, rtol=1e-14)
        np.testing.assert_allclose(np.imag(value) / tiny, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-7)


def problem(rng, functions=2, n=25):
    """Two functions of two-dimensional blocks."""
    angle = rng.uniform(0.0, 2.0, size=n)
    turn = np.stack([np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([-np.sin(angle), np.cos(angle)], -1)], -2)
    transitions = (0.8 * turn)[:, None]
    first = np.tile([1.0, 0.0], functions)[None]
    which, owner = np.zeros(functions, dtype=np.int64), np.arange(functions)
    root = rng.normal(size=(n, functions, functions))
    return transitions, which, owner, first, root @ root.transpose(0, 2, 1), rng.normal(size=(n, functions))


def run(shape, transitions, which, owner, first, lam, eta):
    prior = sites.Prior(shape, transitions, which, owner, first)
    n, functions = eta.shape
    d = first.shape[1]
    stored = sites.stored_for(n, functions, d, True, np.float64)
    room = sites.room_for(functions, d, transitions.shape[-1], transitions.shape[1], np.float64)
    evidence = np.zeros(1)
    bad = sites.forward(prior, lam, eta, stored, room, evidence)
    out = [evidence, np.empty((n, functions)), np.empty((n, functions, functions))]
    out += [np.empty((n - 1, functions, functions)), np.zeros(transitions.shape), np.zeros(first.shape)]
    site_smoother.backward(prior, stored, room, *out[1:])
    return bad, out, prior, stored


def test_unrolled_loops_are_the_general_ones(rng):
    arrays = problem(rng)
    unrolled = run(((0, 0), (0, 0), (0, 0)), *arrays)
    general = run((np.zeros(2), np.zeros(2), np.zeros(2)), *arrays)
    assert unrolled[0] == general[0] == -1
    for one, other in zip(unrolled[1], general[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_the_first_bad_node_is_named(rng):
    transitions, which, owner, first, lam, eta = problem(rng)
    lam[[7, 11]] = -np.eye(2)
    assert run((np.zeros(2), np.zeros(2), np.zeros(2)), transitions, which, owner, first, lam, eta)[0] == 7


def test_means_for_other_informations(rng):
    shape = (np.zeros(2), np.zeros(2), np.zeros(2))
    transitions, which, owner, first, lam, eta = problem(rng)
    _, _, prior, stored = run(shape, transitions, which, owner, first, lam, eta)
    others = rng.normal(size=(3, *eta.shape))
    found = np.empty((3, *eta.shape))
    site_draws.means(prior, lam, others, stored, found)
    for information, means in zip(others, found, strict=True):
        want = run(shape, transitions, which, owner, first, lam, information)[1][1]
        np.testing.assert_allclose(means, want, rtol=1e-10, atol=1e-12)
