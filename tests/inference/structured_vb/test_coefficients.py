"""Sites that a difference of statistics has made improper."""

from __future__ import annotations

import numpy as np

from gpkit.inference.structured_vb.coefficients import Coefficients, nonnegative


def test_proper_sites_stay_as_they_are(rng):
    root = rng.standard_normal((4, 3, 3))
    precision, information = root @ np.swapaxes(root, 1, 2), rng.standard_normal((4, 3))
    found = nonnegative(precision, information, np.zeros((4, 3)))
    assert found[0] is precision and found[1] is information


def test_directions_of_negative_precision_hold_the_mean(rng):
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    precision = turn @ np.diag([2.0, 1.0, -0.5]) @ turn.T
    mean = rng.standard_normal(3)
    found, information = nonnegative(precision, precision @ np.ones(3), mean)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), [0.5, 1.0, 2.0])
    solution = turn.T @ np.linalg.solve(found, information)
    np.testing.assert_allclose(solution[:2], (turn.T @ np.ones(3))[:2])
    np.testing.assert_allclose(solution[2], turn[:, 2] @ mean)


def test_weak_priors_do_not_let_coefficients_run_away():
    coefficients = Coefficients(2)
    coefficients.mean = np.array([1.0, -2.0])
    coefficients.carry(np.diag([3.0, -1.0]), np.array([3.0, 5.0]))
    coefficients.update(np.zeros((2, 2)), np.zeros(2), np.full(2, 1e-12))
    np.testing.assert_allclose(coefficients.mean, [1.0, -2.0])
