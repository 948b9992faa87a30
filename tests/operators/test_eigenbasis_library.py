"""linear_operator's own suite for eigenbasis and dense covariances; sparse precisions; what is kept between calls."""

from __future__ import annotations

import unittest

import gpytorch
import pytest
import torch
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase, RectangularLinearOperatorTestCase

from gpkit.errors import NotPositiveDefiniteError, StructureLostError
from gpkit.operators import (
    CrossEigenbasisLinearOperator,
    DenseCovarianceLinearOperator,
    EigenbasisLinearOperator,
    SparsePrecisionLinearOperator,
)
from gpkit.operators.eigenbasis import gram_of
from gpkit.operators.sparse_symmetric import SparseMatrix, SparsePattern
from tests.factories import OPERATORS, precision_layout


class _Shared(LinearOperatorTestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False
    should_call_lanczos = False
    should_call_lanczos_diagonalization = False
    skip_slq_tests = True
    batch: tuple[int, ...] = ()

    def create_linear_op(self):
        generator = torch.Generator().manual_seed(1)
        features = torch.randn(*self.batch, 6, 3, generator=generator)
        spectrum = 0.5 + torch.rand(*self.batch, 3, generator=generator)
        diagonal = 0.5 + torch.rand(*self.batch, 6, generator=generator)
        return EigenbasisLinearOperator(*(t.requires_grad_(True) for t in (features, spectrum, diagonal)))

    def evaluate_linear_op(self, op):
        return (op.features * op.spectrum.unsqueeze(-2)) @ op.features.mT + torch.diag_embed(op.diagonal_values)


class TestEigenbasis(_Shared, unittest.TestCase):
    pass


class TestEigenbasisBatch(_Shared, unittest.TestCase):
    batch = (2,)


class TestEigenbasisMultiBatch(_Shared, unittest.TestCase):
    batch = (3, 2)


class TestDense(_Shared, unittest.TestCase):
    def create_linear_op(self):
        return DenseCovarianceLinearOperator.from_matrix(OPERATORS["dense"](6)[1].detach().requires_grad_(True))

    def evaluate_linear_op(self, op):
        return 0.5 * (op.matrix + op.matrix.mT) + torch.diag_embed(op.diagonal_values)


class _Rectangular(RectangularLinearOperatorTestCase):
    seed = 0
    batch: tuple[int, ...] = ()

    def create_linear_op(self):
        generator = torch.Generator().manual_seed(1)
        left, right = (torch.randn(*self.batch, m, 3, generator=generator) for m in (4, 6))
        spectrum = 0.5 + torch.rand(*self.batch, 3, generator=generator)
        return CrossEigenbasisLinearOperator(*(t.requires_grad_(True) for t in (left, right, spectrum)))

    def evaluate_linear_op(self, op):
        return (op.left * op.spectrum.unsqueeze(-2)) @ op.right.mT


class TestCross(_Rectangular, unittest.TestCase):
    pass


class TestCrossBatch(_Rectangular, unittest.TestCase):
    batch = (2,)


def test_the_gram_matrix_is_kept_and_renewed():
    features = torch.randn(40, 5)
    first = gram_of(features)
    assert gram_of(features) is first
    features[0] = 3.0
    assert gram_of(features) is not first
    torch.testing.assert_close(gram_of(features), features.mT @ features)
    y = torch.randn(40, 1)
    for s in (0.1, 2.0):
        operator = EigenbasisLinearOperator(features, torch.ones(5), torch.zeros(1).expand(40))
        quad = operator.add_diagonal(torch.tensor(s)).inv_quad(y)
        torch.testing.assert_close(quad, (y * torch.linalg.solve(features @ features.mT + s * torch.eye(40), y)).sum())
        y += 1.0  # in place: what was kept for the old values must not be used


def test_small_noise_loses_nothing():
    features = torch.linalg.qr(torch.randn(200, 4))[0]
    y = features @ torch.ones(4, 1) + 1e-7 * torch.randn(200, 1)
    operator = EigenbasisLinearOperator(features, torch.ones(4), torch.full((200,), 1e-14))
    projected = y - features @ (features.mT @ y)
    want = (projected**2).sum() / 1e-14 + ((features.mT @ y) ** 2).sum() / (1.0 + 1e-14)
    torch.testing.assert_close(operator.inv_quad(y), want, rtol=1e-6, atol=0)


def test_few_modes_need_noise():
    operator = EigenbasisLinearOperator(torch.randn(9, 3), torch.ones(3), torch.zeros(9))
    with pytest.raises(NotPositiveDefiniteError, match="3 modes span fewer than the 9 rows"):
        operator.logdet()
    missing = operator.add_diagonal(torch.tensor([0.1, torch.inf, *[0.2] * 7]))
    seen = [0, *range(2, 9)]
    dense = operator.to_dense()[seen][:, seen] + torch.diag(torch.tensor([0.1, *[0.2] * 7]))
    torch.testing.assert_close(missing.logdet(), torch.logdet(dense))
    y = torch.randn(9, 1)
    torch.testing.assert_close(missing.inv_quad(y), (y[seen] * torch.linalg.solve(dense, y[seen])).sum())


def test_sums_with_dense_covariances_stay_exact():
    one, matrix = OPERATORS["eigenbasis"](900)
    other = gpytorch.kernels.RBFKernel().double()(torch.linspace(0, 1, 900).unsqueeze(-1)).evaluate_kernel()
    total = one + other
    assert isinstance(total, DenseCovarianceLinearOperator)
    dense = matrix + other.to_dense()
    torch.testing.assert_close(total.logdet(), torch.logdet(dense))


@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_of_sparse_precisions(mixed):
    layout, selection = precision_layout(5, mixed)
    pattern = layout.pattern
    own = torch.as_tensor(pattern.rows == pattern.columns)
    right = torch.randn(5, 2, requires_grad=True)
    parameters = torch.tensor([2.5, 0.4]).requires_grad_(True)
    noise = torch.full((5,), 0.3).requires_grad_(True)

    def questions(p, diagonal, values):
        operator = SparsePrecisionLinearOperator(torch.where(own, p[0], -p[1]), diagonal, layout=layout)
        quad, logdet = operator.inv_quad_logdet(values, logdet=True)
        return quad, logdet, operator.solve(values), operator._matmul(values), operator._diagonal()

    assert torch.autograd.gradcheck(questions, (parameters, noise, right), atol=1e-6)


def test_factors_of_matrices_side_by_side():
    first, second = (precision_layout(n, False)[0].pattern for n in (7, 4))
    together = SparsePattern.block_diagonal([first, second, first])
    values = torch.where(torch.as_tensor(together.rows == together.columns), 2.5, -0.4)
    values = values * torch.linspace(1.0, 2.0, together.nnz).where(values > 0.0, torch.ones(()))
    dense = torch.as_tensor(together.matrix(values.numpy()).toarray())
    right = torch.randn(len(dense), 3)
    matrix = SparseMatrix(together, values)
    torch.testing.assert_close(matrix.logdet(), torch.logdet(dense))
    torch.testing.assert_close(matrix.solve(right), torch.linalg.solve(dense, right))
    inverse = matrix.factor.inverse_entries(together.rows, together.columns)
    want = torch.linalg.inv(dense)[torch.as_tensor(together.rows), torch.as_tensor(together.columns)]
    torch.testing.assert_close(torch.as_tensor(inverse), want)


def test_conditioning_a_sparse_precision():
    operator, dense = OPERATORS["precision, mixed rows"](6)
    layout = operator.layout
    targets = torch.randn(6)
    posterior = operator.condition(targets)
    q = torch.as_tensor(layout.pattern.matrix(operator.values.numpy()).toarray())
    e = torch.as_tensor(layout.selection.toarray())
    precision = q + e.mT @ torch.diag(1.0 / operator.diagonal_values) @ e
    covariance = torch.linalg.inv(precision)
    mean = covariance @ e.mT @ (targets / operator.diagonal_values)
    torch.testing.assert_close(torch.as_tensor(posterior.mean), mean)
    torch.testing.assert_close(torch.as_tensor(posterior.variance), covariance.diagonal())
    draws = torch.as_tensor(posterior.sample(20000, torch.Generator().manual_seed(0))) - mean
    got = draws.mT @ draws / 20000
    assert ((got - covariance) / covariance.diagonal().max()).abs().max() < 0.05
    with pytest.raises(StructureLostError, match="positive diagonal"):
        (operator._rebuild(operator.values, torch.zeros(6))).logdet()
    with pytest.raises(NotPositiveDefiniteError):
        (operator._rebuild(-operator.values, operator.diagonal_values)).logdet()
