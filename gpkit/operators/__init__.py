"""Structured linear operators: a kernel evaluated at inputs, with the exact algebra that its structure allows."""

from gpkit.operators.cross import CrossSemiseparableLinearOperator
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.eigenbasis import CrossEigenbasisLinearOperator, EigenbasisLinearOperator
from gpkit.operators.factors import CholeskyFactorLinearOperator
from gpkit.operators.kronecker import KroneckerLinearOperator
from gpkit.operators.kronecker_sum import KroneckerSumLinearOperator
from gpkit.operators.kronecker_terms import KroneckerTermsLinearOperator
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from gpkit.operators.semiseparable import SemiseparableLinearOperator
from gpkit.operators.structured import StructuredLinearOperator

__all__ = [
    "CholeskyFactorLinearOperator",
    "CrossEigenbasisLinearOperator",
    "CrossSemiseparableLinearOperator",
    "DenseCovarianceLinearOperator",
    "EigenbasisLinearOperator",
    "KroneckerLinearOperator",
    "KroneckerSumLinearOperator",
    "KroneckerTermsLinearOperator",
    "PosteriorCovarianceLinearOperator",
    "SemiseparableLinearOperator",
    "StructuredLinearOperator",
]
