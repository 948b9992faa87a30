"""One-variable priors against automatic differentiation and dense conditioning."""

from __future__ import annotations

import math

import pytest
import torch

from gpkit.inference.collocation.exact.features import AxisFeatures
from gpkit.inference.collocation.exact.priors import (
    ConditionedAxis,
    Constraint,
    MixtureAxis,
    NuggetAxis,
    WaveAxis,
)
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope

PAIRS = [(a, b) for a in range(3) for b in range(3)]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def mixture(envelope=None):
    return MixtureAxis(envelope or GaussianEnvelope(), tensor(0.7, 0.4), tensor(0.4, 0.3), tensor(0.0, 2.0))


def by_autograd(x, y, a, b):
    """Derivatives of the Gaussian mixture written out, without the closed forms."""
    p, q = torch.meshgrid(x, y, indexing="ij")
    p, q = p.clone().requires_grad_(), q.clone().requires_grad_()
    z = p - q
    out = 0.7 * torch.exp(-0.5 * (z / 0.4) ** 2) + 0.4 * torch.exp(-0.5 * (z / 0.3) ** 2) * torch.cos(4 * math.pi * z)
    for leaf, order in ((p, a), (q, b)):
        for _ in range(order):
            out = torch.autograd.grad(out.sum(), leaf, create_graph=True)[0]
    return out.detach()


@pytest.mark.parametrize("points", ["uniform", "scattered"])
def test_blocks_are_derivatives_of_the_covariance(points):
    x = torch.linspace(0, 1, 12, dtype=torch.float64)
    y = x[2:9] if points == "uniform" else tensor(0.03, 0.4, 0.41, 0.99)
    blocks = mixture().blocks(x, y, PAIRS)
    for pair in PAIRS:
        expected = by_autograd(x, y, *pair)
        torch.testing.assert_close(blocks[pair], expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_a_gaussian_mixture_is_a_finite_sum_of_waves():
    x = torch.linspace(-0.3, 0.7, 23, dtype=torch.float64)
    waves = WaveAxis.of_mixture(mixture(), 1.0)
    pairs = [(0, 0), (1, 2), (2, 2)]
    exact, found = mixture().blocks(x, x, pairs), waves.blocks(x, x, pairs)
    for pair in pairs:
        assert float((exact[pair] - found[pair]).abs().max()) < 1e-12 * float(exact[pair].abs().max())
    assert WaveAxis.of_mixture(mixture(MaternEnvelope(2.5)), 1.0) is None


def test_a_wrapped_covariance_is_the_sum_of_its_images():
    x = torch.linspace(0, 1.5, 9, dtype=torch.float64)
    axis = mixture(MaternEnvelope(4.5))
    lag = x[:, None] - x[None, :]
    images = sum(axis.table(lag + 1.5 * m, 0)[0] for m in range(-60, 61))
    found = WaveAxis.wrapped(axis, 1.5, 200.0).blocks(x, x, [(0, 0)])[0, 0]
    torch.testing.assert_close(found, images, rtol=1e-9, atol=1e-9)
    periodic = WaveAxis.wrapped(axis, 1.5, 40.0)
    ends = periodic.blocks(tensor(0.0, 1.5), x, [(1, 0)])[1, 0]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-10)


ROBIN = (Constraint((0.0,), (0,), (1.0,)), Constraint((1.0, 1.0), (0, 1), (2.0, 0.5)))


@pytest.mark.parametrize("envelope", [GaussianEnvelope(), MaternEnvelope(3.5)])
def test_conditioning_on_constraints_is_dense_conditioning(envelope):
    axis, x = mixture(envelope), tensor(0.2, 0.55, 0.8)
    conditioned = ConditionedAxis(axis, ROBIN)
    ends = tensor(0.0, 1.0)
    b = axis.blocks(ends, ends, PAIRS)

    def rows(table):
        return torch.stack([table[0][0], 2.0 * table[0][1] + 0.5 * table[1][1]])

    gram = torch.stack(
        [
            rows([b[0, 0][:, 0], b[1, 0][:, 0]]),
            2.0 * rows([b[0, 0][:, 1], b[1, 0][:, 1]]) + 0.5 * rows([b[0, 1][:, 1], b[1, 1][:, 1]]),
        ],
        dim=1,
    )
    cross = axis.blocks(ends, x, PAIRS)
    found = conditioned.blocks(x, x, PAIRS)
    base = axis.blocks(x, x, PAIRS)
    for p, q in PAIRS:
        left, right = (rows([cross[0, o], cross[1, o]]) for o in (p, q))
        expected = base[p, q] - left.T @ torch.linalg.solve(gram, right)
        torch.testing.assert_close(found[p, q], expected, rtol=1e-7, atol=1e-8 * float(base[p, q].abs().max()))
    variances = conditioned.variances(x, [(2, 2)])[2, 2]
    torch.testing.assert_close(variances, found[2, 2].diagonal())
    # The mean given values v of the constraints has these values.
    phi = conditioned.interpolation(ends, [0, 1])
    got = torch.stack([phi[0][0], 2.0 * phi[0][1] + 0.5 * phi[1][1]])
    torch.testing.assert_close(got, torch.eye(2, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_features_conditioned_on_constraints_have_the_conditioned_covariance():
    x = tensor(0.1, 0.5, 0.9)
    waves = WaveAxis.of_mixture(mixture(), 1.0)
    features = AxisFeatures(waves, ROBIN)
    expected = ConditionedAxis(mixture(), ROBIN).blocks(x, x, PAIRS)
    for a, b in PAIRS:
        found = features(x, a) @ features(x, b).T
        torch.testing.assert_close(found, expected[a, b], rtol=1e-7, atol=1e-8 * float(expected[a, b].abs().max()))
    before = features(x, 2) @ features(x, 2).T
    sizes = features.trimmed(torch.linspace(0, 1, 50, dtype=torch.float64), [0, 2])
    torch.testing.assert_close(features(x, 2) @ features(x, 2).T, before, rtol=1e-9, atol=1e-9 * float(before.max()))
    assert bool((sizes.diff() <= 0).all()) and float(sizes[0]) == 1.0


def test_a_nugget_keeps_the_joint_covariance_of_derivatives_definite():
    x = torch.linspace(0, 1, 40, dtype=torch.float64)
    axis = NuggetAxis(mixture(), x, 1e-8)
    orders = [0, 1, 2]
    blocks = axis.blocks(x, x, PAIRS)
    scale = [float(blocks[o, o].diagonal().max()) ** 0.5 for o in orders]
    joint = torch.cat([torch.cat([blocks[a, b] / scale[a] / scale[b] for b in orders], 1) for a in orders])
    assert float(torch.linalg.eigvalsh(joint)[0]) > 1e-11
    elsewhere = axis.blocks(x, x.clone(), [(0, 0)])[0, 0]
    torch.testing.assert_close(elsewhere, mixture().blocks(x, x, [(0, 0)])[0, 0])
