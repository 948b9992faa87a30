"""Operators on grids under linear_operator's own conformance suite."""

from __future__ import annotations

import unittest

import pytest
import torch
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase

from gpkit.errors import StructureLostError
from gpkit.operators import KroneckerLinearOperator
from tests.factories import OPERATORS


class _Shared(LinearOperatorTestCase):
    seed = 0
    should_test_sample = True
    should_call_cg = False
    should_call_lanczos = False
    should_call_lanczos_diagonalization = False
    skip_slq_tests = True
    name = ""
    batch: tuple[int, ...] = ()

    def create_linear_op(self):
        op = OPERATORS[self.name](6, self.batch)[0]
        return type(op)(*(t.clone().requires_grad_(True) for t in op._args), **op._kwargs)

    def evaluate_linear_op(self, op):
        return op.to_dense()

    def test_cholesky(self):
        with pytest.raises(StructureLostError, match="root_decomposition"):
            torch.linalg.cholesky(self.create_linear_op())


class TestKronecker(_Shared, unittest.TestCase):
    name = "kronecker"


class TestKroneckerBatch(_Shared, unittest.TestCase):
    name, batch = "kronecker", (2,)


class TestKroneckerUnequal(_Shared, unittest.TestCase):
    name = "kronecker, unequal noise"


class TestKroneckerTriangular(_Shared, unittest.TestCase):
    name = "kronecker, no noise"

    def test_cholesky(self):
        op = self.create_linear_op()
        assert isinstance(op, KroneckerLinearOperator)
        torch.testing.assert_close(torch.linalg.cholesky(op).to_dense(), torch.linalg.cholesky(op.to_dense()))


class TestKroneckerSum(_Shared, unittest.TestCase):
    name, batch = "kronecker sum", (3, 2)


class TestKroneckerTerms(_Shared, unittest.TestCase):
    name, batch = "kronecker terms", (2,)


class TestToeplitz(_Shared, unittest.TestCase):
    name = "toeplitz"


class TestToeplitzBatch(_Shared, unittest.TestCase):
    name, batch = "toeplitz, gaps", (2,)


class TestCirculant(_Shared, unittest.TestCase):
    name, batch = "circulant", (2,)

    def test_svd(self):
        """Eigenvalues of a circulant come in pairs: only the matrix that the vectors make is unique."""
        op = self.create_linear_op()
        u, s, v = torch.linalg.svd(op)
        dense = u.to_dense() @ torch.diag_embed(s) @ v.to_dense()
        torch.testing.assert_close(dense, op.to_dense())
