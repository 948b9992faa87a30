"""The exact evidence on several axes against dense normal densities and finite differences."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gpkit.inference.collocation.exact import engine as exact
from gpkit.inference.collocation.exact.covariance_evidence import covariance_evidence
from gpkit.inference.collocation.exact.dense import assemble
from gpkit.inference.collocation.exact.noisy_learning import noisy_evidence
from gpkit.inference.collocation.exact.priors import FieldPrior, MixtureAxis
from gpkit.inference.collocation.exact.rows import RowTerm, blocks_of_rows, grid_rows, jet_rows, prior_variance
from gpkit.inference.collocation.exact.wave_evidence import wave_evidence
from gpkit.inference.collocation.forms import Jet
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope
from tests.inference.collocation import problems

ONE = torch.ones((), dtype=torch.float64)
NAMES = ("weights", "lengthscales", "frequencies")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def mixtures(envelope):
    first = MixtureAxis(envelope, tensor(0.7, 0.4), tensor(0.4, 0.3), tensor(0.0, 2.0))
    second = MixtureAxis(envelope, tensor(0.9, 0.2), tensor(0.5, 0.35), tensor(0.3, 1.5))
    return [first, second]


def rows(noise):
    """A reaction-diffusion equation on a grid, and values on a face of it."""
    x, y = torch.linspace(0, 1, 9, dtype=torch.float64), torch.linspace(0, 1, 8, dtype=torch.float64)
    mesh = torch.meshgrid(x, y, indexing="ij")
    terms = [RowTerm(Jet(0, o), c * ONE) for o, c in (((2, 0), 1.0), ((0, 2), 0.5), ((0, 0), -3.0), ((0, 1), 2.0))]
    equation = grid_rows(terms, (x, y), 30.0 * torch.sin(4 * mesh[0] + mesh[1]), tensor(noise**2)[0])
    face = grid_rows([RowTerm(Jet(0, (0, 0)), ONE)], (tensor(0.0), y), torch.cos(3 * y), tensor((0.01 * noise) ** 2)[0])
    return [equation, face]


def slopes(evidence, start):
    """Largest error of the gradient against central differences, relative to the gradient's size."""
    _, gradients = evidence(start)
    worst = 0.0
    for k, m in enumerate(start):
        for own, name in zip(gradients[k], NAMES, strict=True):
            for q in range(2):
                step = 1e-4
                ends = []
                for sign in (1.0, -1.0):
                    moved = getattr(m, name).clone()
                    moved[q] += sign * step
                    changed = list(start)
                    changed[k] = dataclasses.replace(m, **{name: moved})
                    ends.append(evidence(changed)[0])
                difference = (ends[0] - ends[1]) / (2.0 * step)
                worst = max(worst, abs(difference - float(own[q])) / (1.0 + abs(difference)))
    return worst


def density(data, start):
    gram = assemble(data, [FieldPrior(tuple(start))])
    values = torch.cat([r.values for r in data])
    zero = torch.zeros_like(values)
    return float(torch.distributions.MultivariateNormal(zero, gram).log_prob(values))


def test_evidence_of_weights_is_the_normal_density_of_all_rows():
    data, start = rows(2.0), mixtures(GaussianEnvelope())
    evidence = wave_evidence(data, start, (1.0, 1.0), 500)
    assert evidence(start)[0] == pytest.approx(density(data, start), abs=1e-4)
    assert slopes(evidence, start) < 1e-4


@pytest.mark.parametrize("envelope", [GaussianEnvelope(), MaternEnvelope(4.5)])
def test_evidence_of_a_part_is_the_normal_density_of_its_rows(envelope):
    start = mixtures(envelope)
    equation, face = rows(2.0)
    generator = torch.Generator().manual_seed(0)
    data = [blocks_of_rows(equation, 30, 3, generator), face]
    assert 30 <= len(data[0]) < 45
    evidence = covariance_evidence(data, 1, 2)
    assert evidence(start)[0] == pytest.approx(density(data, start), abs=1e-4)
    assert slopes(evidence, start) < 1e-4
    # With its best scale it is larger than at any other.
    profiled = covariance_evidence([], 1, 2, data, profiled=True)(start)[0]
    others = [density(data, [start[0].times(s), start[1]]) for s in (0.3, 1.0, 3.0)]
    assert profiled > max(others) - 0.5


def test_blocks_are_rows_of_the_grid_with_their_neighbours():
    equation, _ = rows(1.0)
    part = blocks_of_rows(equation, 20, 3, torch.Generator().manual_seed(1))
    mesh = [m.reshape(-1) for m in torch.meshgrid(*equation.coordinates, indexing="ij")]
    for k in range(len(part)):
        here = (mesh[0] == part.coordinates[0][k]) & (mesh[1] == part.coordinates[1][k])
        assert float(equation.values[here]) == float(part.values[k])
    distance = (part.coordinates[0][:, None] - part.coordinates[0]).abs()
    assert float(distance[distance > 0].min()) == pytest.approx(0.125)


def test_rows_of_every_kind_are_in_the_evidence_of_weights():
    """Varying coefficients and scattered points with noise of their own, beside rows that are projected."""
    data, start = rows(2.0), mixtures(GaussianEnvelope())
    slope = torch.linspace(1, 2, 9, dtype=torch.float64)[:, None]
    varying = dataclasses.replace(data[0], terms=(*data[0].terms[:2], RowTerm(Jet(0, (1, 1)), slope)))
    points = torch.rand(7, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = dataclasses.replace(
        jet_rows(Jet(0, (1, 0)), points), values=torch.sin(9 * points[:, 0]), noise=0.1 + points[:, 1]
    )
    every = [varying, data[1], seen]
    evidence = wave_evidence(every, start, (1.0, 1.0), 500)
    assert evidence(start)[0] == pytest.approx(density(every, start), abs=1e-4)
    assert slopes(evidence, start) < 1e-4
    large = torch.linspace(0, 1, 80, dtype=torch.float64)
    many = grid_rows([RowTerm(Jet(0, (0, 0)), large[:, None])], (large, large), torch.ones(80, 80, dtype=torch.float64))
    assert wave_evidence([many], start, (1.0, 1.0), 500) is None


@pytest.mark.parametrize("kind", ["weights", "covariance"])
@pytest.mark.parametrize("tells", [True, False])
def test_noisy_rows_given_exact_ones_have_the_conditional_density(tells, kind):
    """By the dense matrix; of exact rows that are not zero all is data but what they say of the size."""
    exact, face = rows(0.0)
    start = mixtures(GaussianEnvelope())
    noisy = dataclasses.replace(face, noise=tensor(0.04)[0])
    exact = dataclasses.replace(exact, values=exact.values if tells else torch.zeros_like(exact.values))
    if kind == "weights":
        evidence = noisy_evidence([exact, noisy], start, (1.0, 1.0))
    else:
        start = mixtures(MaternEnvelope(4.5))
        evidence = covariance_evidence([noisy], 1, 2, [exact], tells)
    prior = [FieldPrior(tuple(start))]
    square = max(float(exact.values.square().mean()), float(prior_variance(exact, prior).mean()))
    held = dataclasses.replace(exact, noise=torch.tensor(1e-12 * square, dtype=torch.float64))

    def expected(moved):
        alone = assemble([held], [FieldPrior(tuple(moved))])
        quadratic = float(exact.values @ torch.linalg.solve(alone, exact.values))
        total = density([held, noisy], moved)
        if not tells:
            return total - density([held], moved)
        return total + 0.5 * (quadratic - len(exact) * (1.0 + math.log(quadratic / len(exact))))

    assert evidence(start)[0] == pytest.approx(expected(start), abs=2e-3)
    assert slopes(evidence, start) < 1e-3


def test_what_was_learned_and_from_what_is_said():
    case = dataclasses.replace(problems.others()["wave"], grid=(30, 30))
    found = exact.solve(case.problem, case.grid)
    said = found.diagnostics["hyperparameters"]
    assert "exact, of all rows" in said["evidence"] and said["points"] == 900 + 4 * 30
    last = found.diagnostics["learning"][-1]
    assert last["after"] > last["before"] and said["value"] == last["after"]
    assert case.error(found) < 1e-8


@pytest.mark.parametrize("kind", ["weights", "covariance"])
def test_noisy_rows_are_never_more_likely_than_without_any_misfit(kind):
    """Under a prior that hardly allows the exact rows the difference of two large numbers would be rounding."""
    equation, face = rows(0.0)
    equation = dataclasses.replace(equation, values=1e5 * equation.values)
    noisy = dataclasses.replace(face, noise=tensor(0.04)[0])
    long = [dataclasses.replace(m, lengthscales=2.0 * m.lengthscales).times(0.01) for m in mixtures(GaussianEnvelope())]
    by_waves = noisy_evidence([equation, noisy], long, (1.0, 1.0))
    evidence = by_waves if kind == "weights" else covariance_evidence([noisy], 1, 2, [equation])
    exact_alone = covariance_evidence([], 1, 2, [equation], profiled=True)
    most = -0.5 * len(noisy) * math.log(2.0 * math.pi * 0.04)
    told = evidence(long)[0] - (exact_alone(long)[0] if kind == "weights" else 0.0)
    assert told <= most + 1e-6


def test_a_value_without_its_gradient_is_the_same():
    data, start = rows(2.0), mixtures(GaussianEnvelope())
    for evidence in (wave_evidence(data, start, (1.0, 1.0), 500), covariance_evidence(data, 1, 2)):
        value, nothing = evidence(start, slopes=False)
        assert value == evidence(start)[0] and not nothing
