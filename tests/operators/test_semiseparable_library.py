"""The operator under linear_operator's own conformance suite, in single and double precision, with batches."""

from __future__ import annotations

import unittest

import pytest
import torch
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase, RectangularLinearOperatorTestCase

from gpkit.errors import StructureLostError
from gpkit.operators import CrossSemiseparableLinearOperator, SemiseparableLinearOperator
from gpkit.operators.covariances import autocovariance

STRUCTURE = (("sho",), ("exponential", "celerite"))


def _operator(*batch: int, dtype: torch.dtype = torch.float64) -> SemiseparableLinearOperator:
    generator = torch.Generator().manual_seed(3)
    n = 6
    times = torch.rand(*batch, n, generator=generator, dtype=dtype).sort(-1).values * 4.0
    params = torch.tensor([1.1, 0.9, 0.7, 0.5, 0.4, 1.0, 0.1, 0.3, 0.8], dtype=dtype)
    params = params * (1.0 + 0.1 * torch.rand(*batch, params.shape[0], generator=generator, dtype=dtype))
    diagonal = 0.5 + torch.rand(*batch, n, generator=generator, dtype=dtype)
    tensors = [t.detach().requires_grad_(True) for t in (times, params, diagonal)]
    return SemiseparableLinearOperator(*tensors, structure=STRUCTURE)


class _Shared(LinearOperatorTestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False
    should_call_lanczos = False
    should_call_lanczos_diagonalization = False
    skip_slq_tests = True
    batch: tuple[int, ...] = ()
    dtype = torch.float64

    def create_linear_op(self):
        return _operator(*self.batch, dtype=self.dtype)

    def evaluate_linear_op(self, op):
        lag = (op.times.unsqueeze(-1) - op.times.unsqueeze(-2)).abs()
        return autocovariance(op.structure, op.params, lag) + torch.diag_embed(op.diagonal_values)


class TestSemiseparable(_Shared, unittest.TestCase):
    pass


class TestSemiseparableBatch(_Shared, unittest.TestCase):
    batch = (2,)


class TestSemiseparableMultiBatch(_Shared, unittest.TestCase):
    batch = (3, 2)
    skip_slq_tests = True


class TestSemiseparableFloat32(_Shared, unittest.TestCase):
    dtype = torch.float32

    def setUp(self):
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        super().setUp()

    def tearDown(self):
        super().tearDown()
        torch.set_default_dtype(self.default)


class TestSemiseparableUnsorted(_Shared, unittest.TestCase):
    batch = (2,)

    def create_linear_op(self):
        op = _operator(*self.batch)
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        tensors = [op.times[..., order], op.params, op.diagonal_values[..., order]]
        return SemiseparableLinearOperator(*(t.detach().requires_grad_(True) for t in tensors), structure=STRUCTURE)

    def test_cholesky(self):
        with pytest.raises(StructureLostError, match="sort the times"):
            torch.linalg.cholesky(self.create_linear_op())


class _Rectangular(RectangularLinearOperatorTestCase):
    seed = 0
    batch: tuple[int, ...] = ()

    def create_linear_op(self):
        square = _operator(*self.batch)
        rows = (square.times[..., :4].detach() + 0.3).requires_grad_(True)
        return CrossSemiseparableLinearOperator(rows, square.times, square.params, structure=STRUCTURE)

    def evaluate_linear_op(self, op):
        return autocovariance(op.structure, op.params, (op.rows.unsqueeze(-1) - op.columns.unsqueeze(-2)).abs())


class TestCross(_Rectangular, unittest.TestCase):
    pass


class TestCrossBatch(_Rectangular, unittest.TestCase):
    batch = (2,)


class TestCrossMultiBatch(_Rectangular, unittest.TestCase):
    batch = (3, 2)
