"""The Laplace posterior of GP-HM against a dense oracle of fifty digits, and Gauss-Newton on its objective."""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import replace

import mpmath
import pytest
import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Condition, Data, Equation, Jet, Problem
from gpkit.inference.collocation.gphm import engine as gphm
from gpkit.inference.collocation.gphm import laplace as module
from gpkit.inference.collocation.gphm.averaging import MixtureEvidence
from gpkit.inference.collocation.gphm.evidence import KernelEvidence, Precisions, most_likely_precisions
from gpkit.inference.collocation.gphm.laplace import Laplace
from gpkit.inference.collocation.gphm.learning import LEFT_OUT, KernelSearch
from gpkit.inference.collocation.gphm.newton import initial_precisions, optimise_values
from gpkit.inference.collocation.gphm.objective import GphmObjective
from gpkit.inference.collocation.gphm.roots import Roots
from tests.inference.collocation import problems
from tests.inference.collocation.problems import UNIT, box, dirichlet, face, term

SIN = torch.sin


def product(*x):
    return math.prod(SIN((3 + j) * c + 0.3) for j, c in enumerate(x))


def poisson(dim, cubic=False):
    return problems.poisson(product, lambda *x: -math.prod(7.0 + c for c in x), UNIT, 5, dim, cubic).problem


def advection():
    u = lambda x, t: SIN(3 * x - 2 * t)
    equation = Equation((term(lambda x, t: 1 + x * t, 1, 0), term(0.5, 0, 1)), Data(u))
    slanted = Condition("robin", 0, 1, (term(lambda x, t: 1 + t, 0, 0), term(0.3, 1, 0), term(0.1, 0, 0)), Data(u))
    return Problem(box(UNIT, UNIT), ("u",), (equation,), (face(0, 0, u, 2), face(1, 0, u, 2), slanted))


def coupled():
    one = Equation(
        (term(1.0, 2), term(2.0, 0, field=1)), Data(SIN), (Jet(0, (0,)), Jet(1, (1,))), lambda x, j, p: j[0] * j[1]
    )
    two = Equation((term(1.0, 2, field=1), term(lambda x: x, 1)), Data(torch.cos))
    return Problem(box(UNIT), ("u", "v"), (one, two), (*dirichlet(SIN, 1), *dirichlet(torch.cos, 1, field=1)))


CASES = {
    "1-D": (poisson(1), (7,)),
    "1-D Allen-Cahn": (poisson(1, True), (7,)),
    "2-D": (poisson(2), (4, 5)),
    "2-D Allen-Cahn": (poisson(2, True), (4, 4)),
    "2-D advection": (advection(), (5, 4)),
    "3-D Allen-Cahn": (poisson(3, True), (3, 3, 2)),
    "two fields": (coupled(), (6,)),
}


def oracle(objective, state, kernels, jets, wanted, points):
    """Mean and variance of jets at points: inverses of grid covariances in fifty digits, Jacobians written out."""
    d, fields = len(objective.axes), len(objective.problem.fields)
    nodes = list(itertools.product(*[range(n) for n in objective.shape]))
    size = len(nodes)

    def along(f, j, order, x, y):
        return kernels[f][j].blocks(x, y, [(order, 0)])[order, 0]

    def matrix(factors, rows, columns):
        out = mpmath.matrix(len(rows), len(columns))
        for (i, r), (k, c) in itertools.product(enumerate(rows), enumerate(columns)):
            out[i, k] = mpmath.fprod(mpmath.mpf(float(m[a, b])) for m, a, b in zip(factors, r, c, strict=True))
        return out

    inverses, precision = [], mpmath.matrix(fields * size, fields * size)
    for f in range(fields):
        own = []
        for j, x in enumerate(objective.axes):
            k = along(f, j, 0, x, x) + objective.jitter * torch.eye(len(x), dtype=torch.float64)
            own.append(torch.tril(k) + torch.tril(k, -1).T)
        inverses.append(matrix(own, nodes, nodes) ** -1)
        precision[f * size : (f + 1) * size, f * size : (f + 1) * size] = inverses[f]

    def functional(jet, x, rows):
        """Rows of a jet of one field in values on the grid; a derivative of order zero is the value itself."""
        eye = [torch.eye(len(a), dtype=torch.float64) for a in objective.axes]
        if x is None and not any(jet.orders):
            return matrix(eye, rows, nodes)
        # Along axes without a derivative the covariance cancels against its own inverse, jitter and all.
        factors = []
        for j, (order, a) in enumerate(zip(jet.orders, objective.axes, strict=True)):
            k = along(jet.field, j, order, a if x is None else x[j], a)
            jittered = x is None and not order
            factors.append(k + objective.jitter * eye[j] if jittered else k)
        return matrix(factors, rows, nodes) * inverses[jet.field]

    for linear, v in zip(objective.linear_rows(jets), objective.precisions(state), strict=True):
        shape = [len(range(n)[part]) for n, part in zip(objective.shape, linear.face, strict=True)]
        rows = [
            tuple(range(n)[part][i] for n, part, i in zip(objective.shape, linear.face, local, strict=True))
            for local in itertools.product(*[range(s) for s in shape])
        ]
        jacobian = mpmath.matrix(len(rows), fields * size)
        for jet, c in linear.slopes.items():
            values = functional(jet, None, rows)
            scales = c.expand(shape).reshape(-1)
            for i in range(len(rows)):
                for k in range(size):
                    jacobian[i, jet.field * size + k] += mpmath.mpf(float(scales[i])) * values[i, k]
        precision += mpmath.mpf(v) * (jacobian.T * jacobian)
    covariance = precision**-1
    found = {}
    coordinates = [points[:, j] for j in range(d)]
    for jet in wanted:
        rows = [(i,) * d for i in range(len(points))]
        span = slice(jet.field * size, (jet.field + 1) * size)
        action = functional(jet, coordinates, rows)
        prior = math.prod(
            float(kernels[jet.field][j].variances(torch.zeros(1, dtype=torch.float64), [(o, o)])[o, o])
            for j, o in enumerate(jet.orders)
        )
        crossed = matrix(
            [
                along(jet.field, j, o, coordinates[j], a)
                for j, (o, a) in enumerate(zip(jet.orders, objective.axes, strict=True))
            ],
            rows,
            nodes,
        )
        values = [mpmath.mpf(float(u)) for u in state.values[jet.field].reshape(-1)]
        between = [mpmath.mpf(prior) - sum(action[i, k] * crossed[i, k] for k in range(size)) for i in range(len(rows))]
        spread = action * covariance[span, span] * action.T
        mean = action * mpmath.matrix(values)
        found[jet] = (
            torch.tensor([float(mean[i]) for i in range(len(rows))], dtype=torch.float64),
            torch.tensor([float(between[i] + spread[i, i]) for i in range(len(rows))], dtype=torch.float64),
        )
    return found


@pytest.mark.parametrize("envelope", ["student-t", "gaussian"])
@pytest.mark.parametrize("name", CASES)
def test_mean_and_variance_are_those_of_a_dense_posterior(name, envelope, generator):
    problem, shape = CASES[name]
    axes = gphm.collocation_axes(problem.box, shape)
    objective = GphmObjective(problem, axes, envelope, 200.0, 1e-6)
    state = gphm.start(problem, shape, 3, [1.5] * len(shape))
    for t in state.tensors():
        t += 0.2 * torch.randn(t.shape, generator=generator, dtype=torch.float64)
    state.log_equation_precision += 3.0
    found = gphm._of_state(objective, state, {})
    points = torch.rand(3, len(shape), generator=generator, dtype=torch.float64)
    orders = [(0,) * len(shape), (1,) + (0,) * (len(shape) - 1)]
    wanted = [Jet(f, o) for f in range(len(problem.fields)) for o in orders]
    kernels, roots = gphm._kernels(objective, state)
    jets = roots.jets(objective.all_jets, roots.weights(state.values))
    with mpmath.workdps(50):
        expected = oracle(objective, state, kernels, jets, wanted, points)
    for jet, (mean, variance) in expected.items():
        torch.testing.assert_close(found.mean(jet, points), mean, rtol=1e-6, atol=1e-6 * float(mean.abs().max()))
        torch.testing.assert_close(found.variance(jet, points).sqrt(), variance.sqrt(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", ["1-D", "2-D Allen-Cahn", "two fields"])
def test_draws_spread_as_the_variance_between_and_on_the_points_of_the_grid(name, generator):
    problem, shape = CASES[name]
    found = gphm.solve(problem, shape, iterations=20, mixtures=4, highest_frequency=1.5)
    points = torch.rand(6, len(shape), generator=generator, dtype=torch.float64)
    points[0] = 0.0
    draws = found.sample(4000, generator)
    for jet in (Jet(0, (0,) * len(shape)), Jet(len(problem.fields) - 1, (1,) + (0,) * (len(shape) - 1))):
        values = draws(jet, points)
        error = found.variance(jet, points).sqrt()
        assert float((values.std(0) / error - 1.0).abs().max()) < 0.06
        assert float(((values.mean(0) - found.mean(jet, points)) / error).abs().max()) < 0.08
        torch.testing.assert_close(draws(jet, points[2:]), values[:, 2:])


def test_a_posterior_is_written_without_its_problem():
    problem, shape = CASES["2-D Allen-Cahn"]
    found = gphm.solve(problem, shape, optimiser="gauss-newton", mixtures=3, learn=False)
    again = pickle.loads(pickle.dumps(found))
    points, jet = torch.rand(4, 2, dtype=torch.float64), Jet(0, (0, 1))
    torch.testing.assert_close(again.variance(jet, points), found.variance(jet, points))
    torch.testing.assert_close(again.mean(jet, points), found.mean(jet, points))


def test_more_values_than_can_be_factorised_are_refused_with_the_number(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 20)
    problem, _ = CASES["2-D"]
    found = gphm.solve(problem, (5, 5), iterations=2, mixtures=2)
    points = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(InvalidDataError, match="matrix of 25 grid values"):
        found.variance(Jet(0, (0, 0)), points)
    again = pickle.loads(pickle.dumps(found))
    torch.testing.assert_close(again.mean(Jet(0, (0, 0)), points), found.mean(Jet(0, (0, 0)), points))
    with pytest.raises(InvalidDataError, match="matrix of 25 grid values"):
        again.sample(1, torch.Generator())
    with pytest.raises(InvalidDataError, match="matrix of 25 grid values"):
        gphm.solve(problem, (5, 5), optimiser="gauss-newton")


def test_a_derivative_whose_variance_does_not_exist_is_refused():
    problem, shape = CASES["1-D"]
    found = gphm.solve(problem, shape, iterations=2, mixtures=2)
    with pytest.raises(InvalidDataError, match="derivative of order 6"):
        found.variance(Jet(0, (3,)), torch.zeros(1, 1, dtype=torch.float64))


def noisy(problem):
    """The problem with a noisy first equation."""
    first, *others = problem.equations
    return replace(problem, equations=(replace(first, source=replace(first.source, noise=0.1)), *others))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("name", ["1-D", "2-D Allen-Cahn", "2-D advection", "two fields"])
def test_gradient_of_the_evidence(name, zeros, generator):
    problem, shape = CASES[name]
    problem = noisy(problem) if zeros else problem
    objective = GphmObjective(problem, gphm.collocation_axes(problem.box, shape), "student-t", 200.0, 1e-3)
    state = gphm.start(problem, shape, 3, [1.5] * len(shape))
    for t in state.tensors():
        t += 0.2 * torch.randn(t.shape, generator=generator, dtype=torch.float64)
    roots = Roots.of_covariances(objective.covariances(state.kernel()))
    rows = objective.linear_rows(roots.jets(objective.all_jets, roots.weights(state.values)))
    targets = [torch.randn(r.residual.shape, generator=generator, dtype=torch.float64) for r in rows]
    for t in targets[1:-1:2] + targets[-1:] if zeros else []:  # of equations and conditions
        t.zero_()
    count, fields = len(problem.equations), len(problem.fields)
    given = Precisions((20.0,) * len(rows), tuple(range(count)), (1e9,) * len(rows), (1.0,) * fields)
    evidence = KernelEvidence(objective, rows, targets, given)
    kernel, logs = state.kernel(), torch.full((count,), 3.0, dtype=torch.float64)
    _, gradients, slopes = evidence(kernel, logs.tolist())
    for t, g in zip([*kernel, logs], [*gradients, torch.tensor(slopes)], strict=True):
        flat = t.view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 3)):
            kept, values = float(flat[i]), []
            for sign in (1.0, -1.0):
                flat[i] = kept + sign * 1e-5
                values.append(evidence(kernel, logs.tolist())[0])
            flat[i] = kept
            numeric = (values[0] - values[1]) / 2e-5
            assert float(g.reshape(-1)[i]) == pytest.approx(numeric, rel=1e-5, abs=1e-6 * float(g.abs().max()))


def test_the_evidence_is_the_likelihood_of_the_rows_with_the_values_integrated_out(generator):
    problem, shape = CASES["1-D"]
    objective = GphmObjective(problem, gphm.collocation_axes(problem.box, shape), "student-t", 200.0, 1e-3)
    state = gphm.start(problem, shape, 3, [1.5])
    roots = Roots.of_covariances(objective.covariances(state.kernel()))
    found = optimise_values(
        objective, state, roots, torch.zeros(7, dtype=torch.float64), initial_precisions(objective, roots), False
    )
    rows = [torch.ones(()) * roots.jet(j, torch.eye(7, dtype=torch.float64)) for j in (Jet(0, (2,)), Jet(0, (0,)))]
    design = torch.cat([rows[0], rows[1][:1], rows[1][-1:]])
    values = torch.cat([objective.sources[0], *[f[2] for f in objective.faces]])
    noise = torch.tensor([1.0 / v for v in [found.precisions.rows[0]] * 7 + list(found.precisions.rows[1:])])
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(9, dtype=torch.float64), design @ design.T + noise.diag()
    )
    assert found.log_evidence == pytest.approx(float(normal.log_prob(values)), rel=1e-6)
    # Beside noise it is the likelihood of what is not zero, given what is.
    values[-1] = 0.0
    objective = GphmObjective(noisy(problem), objective.axes, "student-t", 200.0, 1e-3)
    own = objective.linear_rows(roots.jets(objective.all_jets, torch.zeros(7, dtype=torch.float64)))
    evidence = KernelEvidence(objective, own, [values[:7], values[7:8], values[8:]], found.precisions)
    zero = torch.distributions.Normal(0.0, normal.variance[-1].sqrt()).log_prob(values[-1])
    logs = [math.log(found.precisions.rows[i]) for i in found.precisions.free]
    expected = pytest.approx(float(zero - normal.log_prob(values)), rel=1e-6)
    assert evidence(state.kernel(), logs)[0] == expected and evidence.value(state.kernel(), logs) == expected

    # And so it is at the scale of the kernel that is found for it.
    own = [replace(r, residual=-t) for r, t in zip(own, [values[:7], values[7:8], values[8:]], strict=True)]
    held, nothing = replace(found.precisions, free=()), torch.zeros(7, dtype=torch.float64)
    (scale,) = most_likely_precisions(Laplace(roots, own, held.rows, (1.0,)), nothing, held, [2]).scales

    def given_zero(s):
        covariance = s * design @ design.T + noise.diag()
        every = torch.distributions.MultivariateNormal(values * 0.0, covariance).log_prob(values)
        return float(every - torch.distributions.Normal(0.0, covariance[-1, -1].sqrt()).log_prob(values[-1]))

    assert given_zero(scale) > max(given_zero(1.3 * scale), given_zero(scale / 1.3))


@pytest.mark.parametrize("name", ["A2", "P1"])
def test_gauss_newton_finds_what_adam_does_not_reach(name):
    case = problems.published()[name]
    case.grid, options = (50,), {"kernel": "gaussian", "highest_frequency": 20.0, "mixtures": 5}
    case.problem = replace(case.problem, box=box((0.0, 0.7)))
    found = gphm.solve(case.problem, case.grid, optimiser="gauss-newton", **options)
    adam = gphm.solve(case.problem, case.grid, iterations=60, **options)
    assert case.error(found) < 2e-3 * case.error(adam)
    assert problems.covered(case, found) > 0.9 and "not to be" not in found.diagnostics["uncertainty"]
    problems.covered(case, adam)
    assert "not to be relied on" in adam.diagnostics["uncertainty"]


def test_stated_noise_is_kept_and_intervals_hold_the_solution(generator):
    case = problems.poisson(lambda x: SIN(20 * x), lambda x: -400 * SIN(20 * x), (0.0, 3.0), 50)
    axes = gphm.collocation_axes(case.problem.box, case.grid)
    values = -400 * SIN(20 * axes[0]) + 14.0 * torch.randn(50, generator=generator, dtype=torch.float64)
    equation = replace(case.problem.equations[0], source=Data(values=values, axes=axes, noise=14.0))
    found = gphm.solve(replace(case.problem, equations=(equation,)), case.grid, optimiser="gauss-newton", mixtures=6)
    assert found.diagnostics["log_equation_precision"] == pytest.approx([-2 * math.log(14.0)])
    assert problems.covered(case, found) > 0.85 and case.error(found) < 0.03
    # One wave is one component, and what is not known of it is averaged over.
    assert found.diagnostics["components"] == [[1]] and found.diagnostics["kernels"] > 1
    assert sum(found.shares) == pytest.approx(1.0)
    wrong = replace(equation, source=replace(equation.source, noise=2.0))
    with_wrong = gphm.solve(replace(case.problem, equations=(wrong,)), case.grid, optimiser="gauss-newton", learn=False)
    assert "is stated to have noise 2" in with_wrong.diagnostics["uncertainty"]


def test_components_are_left_out_where_the_evidence_does_not_pay_for_them(generator):
    problem, shape = CASES["2-D"]
    objective = GphmObjective(noisy(problem), gphm.collocation_axes(problem.box, shape))
    state = gphm.start(problem, shape, 3, [1.5] * 2)
    roots = Roots.of_covariances(objective.covariances(state.kernel()))
    given = initial_precisions(objective, roots)
    rows = objective.linear_rows(roots.jets(objective.all_jets, torch.zeros(len(roots), dtype=torch.float64)))
    search = KernelSearch(objective, state, rows, [-r.residual for r in rows], given, False)
    search.maximise(20)
    before = search.trace[-1]
    search.prune()
    learned, _ = search.found()
    left = int((learned.log_weights > LEFT_OUT).sum())
    cost = 1.5 * math.log(sum(r.residual.numel() for r in rows))
    assert 2 <= left < 6 and search.trace[-1] > before - cost * (6 - left)


@pytest.mark.parametrize("kernel", ["gaussian", "student-t"])
def test_derivatives_of_the_evidence_of_mixtures(kernel):
    problem, shape = CASES["2-D"]
    objective = GphmObjective(noisy(problem), gphm.collocation_axes(problem.box, shape), kernel, 200.0, 1e-3)
    state = gphm.start(problem, shape, 2, [1.5] * 2)
    roots = Roots.of_covariances(objective.covariances(state.kernel()))
    weights = torch.zeros(len(roots), dtype=torch.float64)
    found = optimise_values(objective, state, roots, weights, initial_precisions(objective, roots), False)
    evidence = MixtureEvidence(objective, found)
    mixtures = [objective.mixture(state.kernel(), 0, j) for j in range(2)]
    value, slopes = evidence(mixtures)
    assert value == pytest.approx(found.log_evidence, rel=1e-9)
    for name, slope in zip(("weights", "lengthscales", "frequencies"), slopes[1], strict=True):
        ends = []
        for sign in (1.0, -1.0):
            moved = getattr(mixtures[1], name).clone()
            moved[1] += sign * 1e-5
            ends.append(evidence([mixtures[0], replace(mixtures[1], **{name: moved})])[0])
        assert float(slope[1]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)
