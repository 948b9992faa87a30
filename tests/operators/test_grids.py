"""Covariances on grids: noise and gaps of every kind, degenerate spectra, refusals, posteriors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear_operator.operators import to_linear_operator
from scipy.linalg import toeplitz

import gpkit.operators.memory as memory
from gpkit.errors import ConvergenceError, GpkitError, MemoryEstimateError, NotPositiveDefiniteError
from gpkit.operators import (
    CirculantLinearOperator,
    ConditionedLinearOperator,
    ConjugateGradients,
    KroneckerCrossLinearOperator,
    KroneckerLinearOperator,
    KroneckerSumLinearOperator,
    KroneckerTermsLinearOperator,
    ToeplitzLinearOperator,
)
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker_products import kronecker_dense, kronecker_matmul
from gpkit.recursions.toeplitz import inverse_column, schur_sweep

SIZES = (3, 4, 5)
COUNT = math.prod(SIZES)


def spd(*shape):
    root = torch.randn(*shape, shape[-1])
    return root @ root.mT / shape[-1] + 0.3 * torch.eye(shape[-1])


def rows(kind):
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    index = {
        "all": None,
        "permuted": order,
        "gaps": order[:-4],
        "few": order[:20],
        "repeated": torch.tensor([3, 5, 5, 7]),
    }
    return GridCells(SIZES, index[kind])


def noise(kind, batch, cells):
    n = cells.rows
    if kind == "equal":
        return torch.full((*batch, n), 0.4)
    if kind == "unequal":
        return 0.1 + torch.rand(*batch, n)
    if kind == "product":
        return kronecker_dense([0.1 + torch.rand(*batch, k, 1) for k in SIZES])[..., 0][..., cells.flat]
    values = torch.full((*batch, n), 0.4)
    values[..., 1] = 0.1 if kind == "outliers" else torch.inf
    values[..., 0] = 0.9
    return values


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("noisy", ["equal", "unequal", "product", "outliers", "missing"])
@pytest.mark.parametrize("seen", ["all", "permuted", "gaps", "few", "repeated"])
@pytest.mark.parametrize("kind", [KroneckerLinearOperator, KroneckerSumLinearOperator, KroneckerTermsLinearOperator])
def test_evidence_and_gradients(kind, seen, noisy, batch):
    cells = rows(seen)
    diagonal = noise(noisy, batch, cells)
    count = 6 if kind is KroneckerTermsLinearOperator else 3
    factors = [spd(*batch, SIZES[k % 3]) for k in range(count)]
    visible = torch.isfinite(diagonal.reshape(-1, cells.rows)[0])
    right = torch.randn(*batch, cells.rows, 2) * visible.unsqueeze(-1)

    def dense(diagonal, *factors):
        eyes = [torch.eye(n) for n in SIZES]
        if kind is KroneckerSumLinearOperator:
            terms = [[factors[k] if k == axis else eyes[k] for k in range(3)] for axis in range(3)]
        else:
            terms = [factors[k : k + 3] for k in range(0, count, 3)]
        matrix = sum(kronecker_dense([0.5 * (f + f.mT) for f in term]) for term in terms)
        matrix = matrix[..., cells.flat, :][..., cells.flat][..., visible, :][..., visible]
        return matrix + torch.diag_embed(diagonal[..., visible])

    own = [t.clone().requires_grad_(True) for t in (diagonal, *factors)]
    operator = kind(*own, cells=cells)
    quad, logdet = operator.inv_quad_logdet(right, logdet=True)
    got = torch.autograd.grad((1.3 * quad + 0.7 * logdet).sum(), own)
    plain = [t.clone().requires_grad_(True) for t in (diagonal, *factors)]
    matrix, values = dense(*plain), right[..., visible, :]
    want_quad = (values * torch.linalg.solve(matrix, values)).sum((-1, -2))
    want_logdet = torch.logdet(matrix)
    want = torch.autograd.grad((1.3 * want_quad + 0.7 * want_logdet).sum(), plain)
    for a, b in zip((quad, logdet, *got), (want_quad, want_logdet, *want), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    solved = operator.solve(right)
    torch.testing.assert_close(solved[..., visible, :], torch.linalg.solve(matrix, values))
    assert (solved[..., ~visible, :] == 0.0).all()


def test_the_structure_is_used():
    """Which algorithm answers: a dense matrix only where nothing else is exact."""
    factors = [spd(n) for n in (40, 30)]
    full = torch.full((1200,), 0.3)
    rows_of = GridCells((40, 30), torch.randperm(1200)[:1180])
    separable = (0.1 + torch.rand(40, 1)) * (0.1 + torch.rand(1, 30))
    names = {
        "SpectralFactorisation": KroneckerLinearOperator(full, *factors),
        "CorrectedFactorisation": KroneckerLinearOperator(full[:1180], *factors, cells=rows_of),
        "ScaledFactorisation": KroneckerLinearOperator(separable.reshape(-1), *factors),
        "DenseFactorisation": KroneckerLinearOperator(full + torch.rand(1200), *factors),
    }
    for name, operator in names.items():
        assert type(operator.factorisation).__name__ == name


def test_gradients_at_equal_eigenvalues():
    """Where the gradient of an eigen-decomposition does not exist, that of a determinant does."""
    factors = [torch.eye(3).requires_grad_(True), (2.0 * torch.eye(4)).requires_grad_(True)]
    for kind in (KroneckerLinearOperator, KroneckerSumLinearOperator):
        operator = kind(torch.full((12,), 0.5), *factors)
        got = torch.autograd.grad(operator.logdet(), factors)
        want = torch.autograd.grad(torch.logdet(operator.to_dense()), factors)
        for a, b in zip(got, want, strict=True):
            assert torch.isfinite(a).all()
            torch.testing.assert_close(a, b)


def test_sums_keep_what_structure_they_can():
    a, b = [spd(n) for n in SIZES], [spd(n) for n in SIZES]
    one = KroneckerLinearOperator(torch.rand(COUNT), *a)
    close = KroneckerLinearOperator(torch.rand(COUNT), a[0], b[1], a[2])
    apart = KroneckerLinearOperator(torch.rand(COUNT), *b)
    assert isinstance(one + close, KroneckerLinearOperator)
    assert isinstance(one + apart, KroneckerTermsLinearOperator)
    assert isinstance(apart + (one + apart), KroneckerTermsLinearOperator)
    for total, parts in (
        (one + close, (one, close)),
        (one + apart, (one, apart)),
        (apart + (one + apart), (apart, one, apart)),
    ):
        torch.testing.assert_close(total.to_dense(), sum(p.to_dense() for p in parts))
    product = one * apart
    assert isinstance(product, KroneckerLinearOperator)
    torch.testing.assert_close(product.to_dense(), one.to_dense() * apart.to_dense())
    unlike = one + ToeplitzLinearOperator(torch.ones(COUNT), torch.exp(-torch.arange(float(COUNT))))
    torch.testing.assert_close((one * unlike).to_dense(), one.to_dense() * unlike.to_dense())


def test_prod_of_an_odd_batch():
    operator = KroneckerSumLinearOperator(torch.rand(3, 12), spd(3, 3), spd(3, 4))
    torch.testing.assert_close(torch.prod(operator, -3).to_dense(), operator.to_dense().prod(0))


@pytest.mark.parametrize("kind", [KroneckerLinearOperator, KroneckerSumLinearOperator])
def test_matrices_that_are_not_positive_definite(kind):
    factors = [torch.diag(torch.tensor([1.0, -2.0])), torch.eye(3)]
    for diagonal in (torch.zeros(6), torch.full((6,), 0.1), 0.1 * torch.rand(6)):
        with pytest.raises(NotPositiveDefiniteError, match="add noise"):
            kind(diagonal, *factors).logdet()
    singular = ToeplitzLinearOperator(torch.zeros(4), torch.ones(4))
    with pytest.raises(NotPositiveDefiniteError, match="row 1"):
        singular.logdet()
    with pytest.raises(NotPositiveDefiniteError, match="add noise"):
        CirculantLinearOperator(torch.zeros(4), torch.ones(4)).logdet()


def test_work_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    factors = [spd(10), spd(10)]
    with pytest.raises(MemoryEstimateError, match="100 points needs .* GiB, but .* available; give all cells"):
        KroneckerLinearOperator(torch.rand(100), *factors).logdet()
    assert torch.isfinite(KroneckerLinearOperator(torch.ones(100), *factors).logdet())


def test_roots_and_draws_refuse_gradients():
    factor = spd(3).requires_grad_(True)
    operator = KroneckerLinearOperator(torch.ones(12), factor, spd(4))
    for value in (operator.root_decomposition().root.to_dense(), operator.zero_mean_mvn_samples(2)):
        with pytest.raises(GpkitError, match="differentiated"):
            value.sum().backward()


# ------------------------------------------------------------------------------------------- Toeplitz


@pytest.mark.parametrize(("length", "ridge"), [(3.0, 0.1), (30.0, 1e-4), (30.0, 1e-8)])
def test_schur_and_levinson_are_as_accurate_as_cholesky(length, ridge):
    n = 200
    column = np.exp(-0.5 * (np.arange(n) / length) ** 2)
    column[0] += ridge
    matrix, factor = toeplitz(column), np.zeros((n, n))
    white = np.random.default_rng(0).normal(size=(2, n))
    reflections, pivots, product, bad = schur_sweep(column, white, factor)
    assert bad == -1
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=0.0, atol=2e-14)
    np.testing.assert_allclose(product, white @ factor.T, rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(pivots, np.diag(factor) ** 2, rtol=1e-12)
    inverse = inverse_column(reflections, pivots)
    unit = np.eye(n)[0]
    dense = np.linalg.solve(matrix, unit)
    # As large as the residual of a dense solve, within a factor.
    bound = 50.0 * max(np.abs(matrix @ dense - unit).max(), 1e-15)
    assert np.abs(matrix @ inverse - unit).max() < bound


@pytest.mark.parametrize("kind", [ToeplitzLinearOperator, CirculantLinearOperator])
def test_solves_are_refined_to_rounding(kind):
    n = 300
    lag = torch.arange(float(n))
    lag = torch.minimum(lag, n - lag) if kind is CirculantLinearOperator else lag
    column = torch.exp(-lag / 40.0) if kind is CirculantLinearOperator else torch.exp(-0.5 * (lag / 20.0) ** 2)
    operator = kind(torch.full((n,), 1e-7), column)
    right = torch.randn(n, 3)
    solved = operator.solve(right)
    scale = operator.to_dense().abs().sum(-1).max() * solved.abs().max()
    assert (operator.to_dense() @ solved - right).abs().max() < 1e-13 * scale


# ------------------------------------------------------------------------------------------- cross, posterior


def test_cross_covariances_of_scattered_and_gridded_points():
    columns = GridCells(SIZES, torch.randperm(COUNT)[:50])
    gridded = GridCells((2, 3, 4), torch.randperm(24)[:20])
    scattered = GridCells((9, 9, 9), torch.arange(9) * 91)
    for cells in (gridded, scattered):
        factors = [torch.randn(2, m, n) for _ in range(2) for m, n in zip(cells.sizes, SIZES, strict=True)]
        cross = KroneckerCrossLinearOperator(*factors, rows=cells, columns=columns)
        dense = sum(kronecker_dense(factors[k : k + 3]) for k in (0, 3))[:, cells.flat][:, :, columns.flat]
        torch.testing.assert_close(cross.to_dense(), dense)
        for shape in ((50,), (2, 50, 3), (50, 0)):
            right = torch.randn(shape)
            torch.testing.assert_close(cross @ right, dense @ right)
        left = torch.randn(2, cells.rows, 2)
        torch.testing.assert_close(cross.mT @ left, dense.mT @ left)
        torch.testing.assert_close((cross * 2.0 + cross).to_dense(), 3.0 * dense)
        torch.testing.assert_close(cross[:, 1:4, 2:9].to_dense(), dense[:, 1:4, 2:9])
        torch.testing.assert_close(cross[1].to_dense(), dense[1])
    apart = GridCells((40, 40, 40), torch.randint(64000, (12,)))
    factors = [torch.randn(40, 40) for _ in range(3)]
    cross = KroneckerCrossLinearOperator(*factors, rows=apart, columns=apart)
    torch.testing.assert_close(cross @ torch.ones(12, 2), cross.to_dense() @ torch.ones(12, 2))
    vector = torch.randn(COUNT, 1)
    parts = [torch.randn(n, n) for n in SIZES]
    torch.testing.assert_close(kronecker_matmul(parts, vector), kronecker_dense(parts) @ vector)


@pytest.mark.parametrize("noisy", ["equal", "unequal", "product", "outliers", "missing"])
@pytest.mark.parametrize("seen", ["all", "gaps"])
def test_posteriors(seen, noisy):
    cells = rows(seen)
    diagonal = noise(noisy, (), cells)
    factors = [spd(n) for n in SIZES]
    data = KroneckerLinearOperator(diagonal, *factors, cells=cells)
    test = GridCells(SIZES, torch.tensor([3, 17, 30, 58]))
    matrix = kronecker_dense(factors)
    prior = to_linear_operator(matrix[test.flat][:, test.flat])
    cross = KroneckerCrossLinearOperator(*factors, rows=test, columns=cells)
    posterior = ConditionedLinearOperator(torch.zeros(4), prior, cross, data)
    visible = torch.isfinite(diagonal)
    known = matrix[cells.flat][:, cells.flat][visible][:, visible] + torch.diag(diagonal[visible])
    block = matrix[test.flat][:, cells.flat][:, visible]
    want = prior.to_dense() - block @ torch.linalg.solve(known, block.mT)
    torch.testing.assert_close(posterior.to_dense(), want)
    torch.testing.assert_close(posterior.diagonal(), want.diagonal())
    torch.testing.assert_close(posterior @ torch.eye(4), want)
    noisy_new = posterior.add_diagonal(torch.tensor(0.2))
    torch.testing.assert_close(noisy_new.logdet(), torch.logdet(want + 0.2 * torch.eye(4)))
    torch.testing.assert_close(
        noisy_new.solve(torch.ones(4)), torch.linalg.solve(want + 0.2 * torch.eye(4), torch.ones(4))
    )
    torch.testing.assert_close(posterior[1:3, 1:3].to_dense(), want[1:3, 1:3])
    draws = posterior.zero_mean_mvn_samples(20000)
    assert (torch.cov(draws.T) - want).abs().max() < 0.06 * want.diagonal().max()


def test_dense_covariance_with_rows_without_information():
    matrix, diagonal = spd(6), torch.rand(6)
    diagonal[2] = torch.inf
    operator = DenseCovarianceLinearOperator(diagonal, matrix)
    keep = [0, 1, 3, 4, 5]
    want = matrix[keep][:, keep] + torch.diag(diagonal[keep])
    torch.testing.assert_close(operator.logdet(), torch.logdet(want))
    right = torch.randn(6, 2)
    torch.testing.assert_close(operator.solve(right)[keep], torch.linalg.solve(want, right[keep]))


# ------------------------------------------------------------------------------------------- conjugate gradients


@pytest.mark.parametrize("kind", [KroneckerLinearOperator, KroneckerSumLinearOperator, KroneckerTermsLinearOperator])
@pytest.mark.parametrize("seen", ["all", "few", "repeated"])
def test_conjugate_gradients_where_they_are_asked_for(kind, seen):
    cells = rows(seen)
    diagonal = noise("unequal", (2,), cells)
    diagonal[0, 1] = torch.inf
    factors = [
        spd(2, SIZES[k % 3]).requires_grad_(True) for k in range(6 if kind is KroneckerTermsLinearOperator else 3)
    ]
    direct = kind(diagonal, *factors, cells=cells)
    operator = kind(diagonal, *factors, cells=cells, solver=ConjugateGradients(tolerance=1e-12))
    right = torch.randn(2, cells.rows, 3)
    got, want = operator.solve(right), direct.solve(right)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)
    assert (got[0, 1] == 0.0).all()
    assert 0 < operator.factorisation.iterations < 60 and operator.factorisation.residual <= 1e-12
    for a, b in zip(*(torch.autograd.grad(v.square().sum(), factors) for v in (got, want)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)
    with pytest.raises(GpkitError, match="no determinant"):
        operator.logdet()
    with pytest.raises(ConvergenceError, match="relative residual of .* after 1 iterations"):
        kind(diagonal, *factors, cells=cells, solver=ConjugateGradients(max_iterations=1)).solve(right)


def test_conjugate_gradients_are_not_used_where_the_structure_is_exact():
    operator = KroneckerLinearOperator(torch.ones(12), spd(3), spd(4), solver=ConjugateGradients())
    assert type(operator.factorisation).__name__ == "SpectralFactorisation"
    assert operator[2:6, 2:6].solver is operator.solver
