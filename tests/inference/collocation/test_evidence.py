"""Gradients of the evidences against finite differences, and what learning finds."""

from __future__ import annotations

import math

import pytest
import torch

from gpkit.inference.collocation.exact.covariance_evidence import covariance_evidence
from gpkit.inference.collocation.exact.lbfgs import feature_evidence, learn, line_evidence
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.exact.rows import RowTerm, grid_rows
from gpkit.inference.collocation.exact.start import pick_frequencies
from gpkit.inference.collocation.forms import Jet
from gpkit.kernels.stationary import GaussianEnvelope

X = torch.linspace(0, 1, 25, dtype=torch.float64)
WAVES = torch.stack([torch.sin(9 * X), torch.cos(9 * X)], 1)
NOISE = torch.tensor(4.0, dtype=torch.float64)


def mixture(frequency=2.0):
    values = ([0.8, 0.5], [0.4, 0.5], [0.0, frequency])
    return MixtureAxis(GaussianEnvelope(), *(torch.tensor(v, dtype=torch.float64) for v in values))


def rows():
    one = torch.ones((), dtype=torch.float64)
    terms = [RowTerm(Jet(0, (2,)), one), RowTerm(Jet(0, (0,)), 1.0 + X)]
    values = -((4 * math.pi) ** 2) * torch.sin(4 * math.pi * X)
    return [grid_rows(terms, [X], values, NOISE)]


def dense(profile):
    return covariance_evidence([], 1, 1, rows(), profiled=True) if profile else covariance_evidence(rows(), 1, 1)


LINES = {
    "dense": dense,
    "features": lambda profile: feature_evidence(rows(), 1.0, profile),
    # Without noise a Gaussian covariance is singular to rounding and differences of its evidence mean nothing.
    "lines": lambda profile: line_evidence(X, WAVES, torch.eye(3, dtype=torch.float64), 0.1 if not profile else 1e-3),
}


@pytest.mark.parametrize("profile", [True, False])
@pytest.mark.parametrize("kind", LINES)
def test_gradients_are_finite_differences(kind, profile):
    evidence = LINES[kind](profile)
    start = mixture()
    _, (gradients,) = evidence([start])
    for position, name in enumerate(("weights", "lengthscales", "frequencies")):
        for q in range(2):
            if name == "frequencies" and q == 0:
                continue  # the covariance is even in a frequency of zero
            changed = []
            for sign in (1.0, -1.0):
                values = [start.weights.clone(), start.lengthscales.clone(), start.frequencies.clone()]
                values[position][q] += sign * 1e-5
                changed.append(evidence([MixtureAxis(start.envelope, *values)])[0])
            numeric = (changed[0] - changed[1]) / 2e-5
            assert float(gradients[position][q]) == pytest.approx(numeric, rel=2e-3, abs=2e-2)


def test_dense_and_weights_agree():
    for profile in (True, False):
        values = [LINES[k](profile)([mixture()])[0] for k in ("dense", "features")]
        if not profile:
            assert values[0] == pytest.approx(values[1], abs=1e-3)


def test_learning_raises_the_evidence_and_finds_the_frequency():
    found = learn(dense(False), [mixture(2.6)], 1.0, 1 / 24)
    assert found.after > found.before + 1.0
    near = found.mixtures[0].frequencies
    assert float((near - 2.0).abs().min()) < 0.5


def test_frequencies_are_picked_to_many_digits():
    x = torch.linspace(0, 2 * math.pi, 400, dtype=torch.float64)
    lines = torch.stack([(1 + x) * torch.sin(100 * x) + 0.3 * torch.cos(37 * x), torch.sin(100 * x)], dim=1)
    picked = pick_frequencies(x, lines)
    assert picked.residual < 1e-4
    assert sorted(picked.frequencies) == pytest.approx([37 / (2 * math.pi), 100 / (2 * math.pi)], rel=1e-4)
    assert pick_frequencies(x, 0.0 * lines).frequencies == ()
