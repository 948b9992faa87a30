"""Every operator of the registry crossed with every question, against the dense matrix."""

from __future__ import annotations

import math

import pytest
import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator, to_linear_operator

from gpkit.errors import GpkitError, NotPositiveDefiniteError, StructureLostError
from gpkit.operators import CrossSemiseparableLinearOperator, EigenbasisLinearOperator, SemiseparableLinearOperator
from gpkit.operators.covariances import GIVEN
from gpkit.operators.factors import CholeskyFactorLinearOperator
from gpkit.operators.grid import GridLinearOperator
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from tests.factories import OPERATORS, times

NAMES = list(OPERATORS)
SOLVABLE = [n for n in NAMES if n not in ("posterior, latent",)]
STATE_SPACE = [n for n in NAMES if isinstance(OPERATORS[n](1)[0], SemiseparableLinearOperator)]
GRIDS = [n for n in NAMES if isinstance(OPERATORS[n](1)[0], GridLinearOperator)]
EIGENBASES = [n for n in NAMES if isinstance(OPERATORS[n](1)[0], EigenbasisLinearOperator)]
TRIANGULAR = ["sum, sorted"]
BATCHES = [(), (2,), (3, 2)]
N = 7


def rhs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def close(a, b, tol=1e-9):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_entries_and_products(name, batch):
    operator, dense = OPERATORS[name](N, batch)
    assert operator.shape == dense.shape and operator.batch_shape == torch.Size(batch)
    close(operator.to_dense(), dense)
    close(operator.diagonal(dim1=-1, dim2=-2), dense.diagonal(dim1=-1, dim2=-2))
    for columns in (0, 1, 4):
        right = rhs(*batch, N, columns)
        close(operator @ right, dense @ right)
        close(operator.mT @ right, dense @ right)
    close(operator @ rhs(N, 2), dense @ rhs(N, 2))
    close(operator @ rhs(5, *batch, N, 2), dense @ rhs(5, *batch, N, 2))
    if not batch:
        close(operator @ rhs(N), dense @ rhs(N))
        close(rhs(N) @ operator, rhs(N) @ dense)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", SOLVABLE)
def test_solves_and_determinants(name, batch):
    operator, dense = OPERATORS[name](N, batch)
    for columns in (0, 1, 4):
        right = rhs(*batch, N, columns)
        close(operator.solve(right), torch.linalg.solve(dense, right), 1e-8)
        want = (right * torch.linalg.solve(dense, right)).sum(-2)
        quad, logdet = operator.inv_quad_logdet(right, logdet=True)
        close(quad, want.sum(-1), 1e-8)
        close(logdet, torch.logdet(dense), 1e-8)
        quad, _ = operator.inv_quad_logdet(right, logdet=True, reduce_inv_quad=False)
        close(quad, want, 1e-8)
        close(operator.inv_quad(right), want.sum(-1), 1e-8)
        left = rhs(*batch, 2, N)
        close(operator.solve(right, left), left @ torch.linalg.solve(dense, right), 1e-8)
    close(operator.logdet(), torch.logdet(dense), 1e-8)
    if not batch:
        close(operator.solve(rhs(N)), torch.linalg.solve(dense, rhs(N)), 1e-8)
        close(operator.inv_quad_logdet(rhs(N), logdet=True)[0], rhs(N) @ torch.linalg.solve(dense, rhs(N)), 1e-8)
    wide = rhs(5, *batch, N, 2)
    close(operator.solve(wide), torch.linalg.solve(dense, wide), 1e-8)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_index_patterns(name, batch):
    operator, dense = OPERATORS[name](N, batch)
    lead = (slice(None),) * len(batch)
    rows = torch.tensor([3, 0, 3, 5])
    for index in [
        (slice(1, 5), slice(1, 5)),
        (slice(None, None, 2), slice(None, None, 2)),
        (slice(0, 3), slice(2, 6)),
        (slice(0, 2), slice(4, 6)),
        (slice(None), 3),
        (2, slice(None)),
        (N - 1, N - 2),
        (slice(2, 2), slice(2, 2)),
    ]:
        got = operator[(*lead, *index)]
        got = got.to_dense() if isinstance(got, LinearOperator) else got
        close(got, dense[(*lead, *index)])
    if not batch:
        close(operator[rows, rows.flip(0)], dense[rows, rows.flip(0)])
    else:
        close(operator[0].to_dense(), dense[0])
        close(operator[..., 1:3, 1:3].to_dense(), dense[..., 1:3, 1:3])
        close(operator[1:].to_dense(), dense[1:])
    assert isinstance(operator[(*lead, slice(1, 5), slice(1, 5))], type(operator))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_diagonals_and_constants_are_absorbed(name, batch):
    operator, dense = OPERATORS[name](N, batch)
    eye = torch.eye(N)
    noise = rhs(*batch, N).abs()
    cases = [
        (operator + DiagLinearOperator(noise), dense + torch.diag_embed(noise)),
        (operator.add_diagonal(torch.tensor(0.3)), dense + 0.3 * eye),
        (operator.add_diagonal(torch.tensor([0.3])), dense + 0.3 * eye),
        (operator.add_diagonal(noise), dense + torch.diag_embed(noise)),
        (operator.add_jitter(0.2), dense + 0.2 * eye),
        (operator * 2.5, dense * 2.5),
        (operator / 4.0, dense / 4.0),
        (operator.mul(torch.tensor(1.5)), dense * 1.5),
        (operator.add_diagonal(noise[..., :1]), dense + noise[..., :1, None] * eye),
        (operator.add_diagonal(rhs(4, *batch, N).abs()), dense + torch.diag_embed(rhs(4, *batch, N).abs())),
    ]
    if batch:
        factor = 1.0 + rhs(*batch).abs()
        cases.append((operator * factor[..., None, None], dense * factor[..., None, None]))
    for got, want in cases:
        assert isinstance(got, type(operator)), type(got)
        close(got.to_dense(), want)
        close(got @ rhs(N, 2), want @ rhs(N, 2))
        close(got.diagonal(dim1=-1, dim2=-2), want.diagonal(dim1=-1, dim2=-2))
        close(got.add_diagonal(torch.tensor(0.1)).logdet(), torch.logdet(want + 0.1 * eye), 1e-8)
    with pytest.raises(RuntimeError, match=f"{N} entries"):
        operator.add_diagonal(torch.ones(N + 1))


@pytest.mark.parametrize("name", STATE_SPACE)
def test_sums_and_products_of_a_family(name):
    one, dense = OPERATORS[name](N, (2,))
    other, other_dense = OPERATORS[name](N, (2,))
    total, product = one + other, one * other
    close(total.to_dense(), dense + other_dense)
    close(product.to_dense(), dense * other_dense)
    if one.structure != GIVEN:
        assert isinstance(total, SemiseparableLinearOperator) and isinstance(product, SemiseparableLinearOperator)
        close(total.logdet(), torch.logdet(dense + other_dense))
        close(product @ rhs(N, 2), (dense * other_dense) @ rhs(N, 2))
    unlike = to_linear_operator(torch.eye(N) + 0.1)
    close((one + unlike).to_dense(), dense + torch.eye(N) + 0.1)
    close((unlike + one).to_dense(), dense + torch.eye(N) + 0.1)
    elsewhere = SemiseparableLinearOperator(
        one.times + 1.7, one.params * 0.9, one.diagonal_values, one.feedback, structure=one.structure
    )
    close((one + elsewhere).to_dense(), dense + elsewhere.to_dense())


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", [n for n in SOLVABLE if not n.startswith("posterior")])
def test_roots(name, batch):
    operator, dense = OPERATORS[name](N, batch)
    root = operator.root_decomposition().root.to_dense()
    close(root @ root.mT, dense)
    inverse = operator.root_inv_decomposition().root.to_dense()
    close(inverse @ inverse.mT, torch.linalg.inv(dense), 1e-8)
    if name in TRIANGULAR:
        factor = operator.cholesky()
        want = torch.linalg.cholesky(dense)
        close(factor.to_dense(), want)
        close(operator.cholesky(upper=True).to_dense(), want.mT)
        right = rhs(*batch, N, 3)
        close(factor.solve(right), torch.linalg.solve(want, right))
        close(factor.mT.solve(right), torch.linalg.solve(want.mT, right))
        close(factor.inverse_transpose().solve(right), want.mT @ right)
        close(factor.logdet(), 0.5 * torch.logdet(dense))
        close(factor._cholesky_solve(right), torch.linalg.solve(dense, right))
        close(factor.mT._cholesky_solve(right, upper=True), torch.linalg.solve(dense, right))
        quad, logdet = factor.inv_quad_logdet(right, logdet=True)
        close(quad, (right * torch.linalg.solve(want, right)).sum((-1, -2)))
        close(logdet, 0.5 * torch.logdet(dense))
    elif name in ("sum, unsorted", "given"):
        with pytest.raises(StructureLostError, match="sort the times"):
            operator.cholesky()


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_covariance(name):
    operator, dense = OPERATORS[name](4, (2,))
    with torch.no_grad():
        draws = operator.zero_mean_mvn_samples(20000)
    assert draws.shape == (20000, 2, 4)
    got = torch.einsum("sbi,sbj->bij", draws, draws) / 20000
    scale = (dense.diagonal(dim1=-1, dim2=-2)[..., None] * dense.diagonal(dim1=-1, dim2=-2)[..., None, :]).sqrt()
    # The standard error of a correlation is at most sqrt(2 / S) = 0.01.
    assert ((got - dense) / scale).abs().max() < 0.055
    assert (draws.mean(0) / dense.diagonal(dim1=-1, dim2=-2).sqrt()).abs().max() < 0.04


@pytest.mark.parametrize("n", [0, 1, 2, 799, 801, 2000])
@pytest.mark.parametrize("name", ["sum, unsorted", "matern 5/2", "given", "posterior", "kronecker", "toeplitz, gaps"])
def test_nothing_changes_with_the_number_of_points(name, n):
    operator, dense = OPERATORS[name](n)
    right = rhs(n, 2)
    close(operator @ right, dense @ right)
    if n == 0:
        assert operator.logdet() == 0.0
        quad, logdet = operator.inv_quad_logdet(right, logdet=True)
        assert quad == 0.0 and logdet == 0.0
        with torch.no_grad():
            assert operator.zero_mean_mvn_samples(3).shape == (3, 0)
        return
    factor = torch.linalg.cholesky(dense)
    want = torch.cholesky_solve(right, factor)
    close(operator.solve(right), want, 1e-8)
    quad, logdet = operator.inv_quad_logdet(right, logdet=True)
    close(quad, (right * want).sum(), 1e-9)
    close(logdet, 2.0 * factor.diagonal().log().sum(), 1e-9)
    with torch.no_grad():
        assert operator.zero_mean_mvn_samples(3).shape == (3, n)


def test_a_matrix_that_is_not_positive_definite_names_the_row():
    t = torch.tensor([0.0, 1.0, 1.0, 2.0])
    operator = SemiseparableLinearOperator(t, torch.tensor([1.0, 1.0]), torch.zeros(4), structure=(("exponential",),))
    for question in (
        lambda: operator.logdet(),
        lambda: operator.solve(torch.ones(4, 1)),
        lambda: operator.cholesky(),
        lambda: operator.inv_quad_logdet(torch.ones(4, 1), logdet=True),
    ):
        with pytest.raises(NotPositiveDefiniteError, match="row 2.*noise") as error:
            question()
        assert error.value.row == 2 and "\n" not in str(error.value)
    batch = operator._expand_batch(torch.Size([3])).add_diagonal(torch.tensor([[0.1], [0.0], [0.1]]))
    with pytest.raises(NotPositiveDefiniteError, match="row 2 of series 1"):
        batch.logdet()
    negative = operator.add_diagonal(torch.tensor([0.1, 0.1, 0.1, -5.0]))
    with pytest.raises(NotPositiveDefiniteError) as error:
        negative.logdet()
    assert error.value.row == 3
    with torch.no_grad():
        draws = operator.zero_mean_mvn_samples(5)
    close(draws[:, 1], draws[:, 2])


@pytest.mark.parametrize("name", ["sum, unsorted", "sho", "matern 5/2", "given", "posterior", *GRIDS, *EIGENBASES])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_derivatives(name, batch):
    operator, _ = OPERATORS[name](5, batch)
    tensors = [t.clone().requires_grad_(True) for t in operator._args]
    right = rhs(*batch, 5, 2).requires_grad_(True)
    kind, static = type(operator), operator._kwargs

    def product(values, *args):
        return kind(*args, **static)._matmul(values)

    def solve(values, *args):
        return kind(*args, **static).solve(values)

    def evidence(values, *args):
        quad, logdet = kind(*args, **static).inv_quad_logdet(values, logdet=True)
        return 1.3 * quad, 0.4 * logdet

    for function in (product, solve, evidence):
        assert torch.autograd.gradcheck(function, (right, *tensors), atol=1e-6, rtol=1e-5, nondet_tol=1e-9)
    if name == "posterior":
        assert torch.autograd.gradcheck(lambda *a: kind(*a, **static)._diagonal(), tuple(tensors), atol=1e-6)


def test_draws_refuse_to_be_differentiated():
    operator, _ = OPERATORS["sum, sorted"](5)
    params = operator.params.clone().requires_grad_(True)
    trained = SemiseparableLinearOperator(
        operator.times, params, operator.diagonal_values, structure=operator.structure
    )
    draws = trained.zero_mean_mvn_samples(2)
    with pytest.raises(GpkitError, match="differentiated"):
        draws.sum().backward()


# ----------------------------------------------------------------------------------- cross covariances


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["sum, unsorted", "matern 5/2", "given"])
def test_cross_covariances(name, batch):
    square, _ = OPERATORS[name](N, batch)
    rows = times(4, batch, "unsorted", 21)
    cross = CrossSemiseparableLinearOperator(
        rows, square.times, square.params, square.feedback, structure=square.structure
    )
    dense = cross.to_dense()
    for columns in (0, 1, 3):
        close(cross @ rhs(*batch, N, columns), dense @ rhs(*batch, N, columns))
        close(cross.mT @ rhs(*batch, 4, columns), dense.mT @ rhs(*batch, 4, columns))
    close((cross * 2.0).to_dense(), 2.0 * dense)
    total = cross + cross * 0.5
    close(total.to_dense(), 1.5 * dense)
    if square.structure != GIVEN:
        assert isinstance(total, CrossSemiseparableLinearOperator)
    lead = (slice(None),) * len(batch)
    close(cross[(*lead, slice(1, 3), slice(2, 6))].to_dense(), dense[(*lead, slice(1, 3), slice(2, 6))])
    close(cross[(*lead, 1, slice(None))], dense[(*lead, 1, slice(None))])
    empty = CrossSemiseparableLinearOperator(
        rows[..., :0], square.times, square.params, square.feedback, structure=square.structure
    )
    assert (empty @ rhs(*batch, N, 2)).shape == (*batch, 0, 2)


def test_missing_rows_are_marked_by_infinite_noise():
    operator, dense = OPERATORS["sum, unsorted"](N)
    noise = torch.zeros(N)
    noise[2] = math.inf
    partial = operator.add_diagonal(noise)
    keep = [k for k in range(N) if k != 2]
    want = dense[keep][:, keep]
    values = rhs(N, 1)
    quad, logdet = partial.inv_quad_logdet(values, logdet=True)
    close(logdet, torch.logdet(want))
    close(quad, (values[keep] * torch.linalg.solve(want, values[keep])).sum())
    solved = partial.solve(values)
    close(solved[keep], torch.linalg.solve(want, values[keep]))
    assert solved[2] == 0.0


def test_factors_are_operators():
    operator, dense = OPERATORS["sum, unsorted"](N, (2,))
    root = operator.root_decomposition().root
    assert isinstance(root, CholeskyFactorLinearOperator)
    close(root.mT.to_dense(), root.to_dense().mT)
    close(root[0].to_dense(), root.to_dense()[0])
    assert isinstance(OPERATORS["posterior"](3)[0], PosteriorCovarianceLinearOperator)
    with pytest.raises(StructureLostError, match="triangular factor"):
        OPERATORS["posterior"](3)[0].cholesky()
