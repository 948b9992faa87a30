"""Structured linear operators: a kernel evaluated at inputs, with the exact algebra that its structure allows."""

from gpkit.operators.circulant import CirculantLinearOperator
from gpkit.operators.conditioned import ConditionedLinearOperator
from gpkit.operators.conjugate_gradients import ConjugateGradients
from gpkit.operators.cross import CrossSemiseparableLinearOperator
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.eigenbasis import CrossEigenbasisLinearOperator, EigenbasisLinearOperator
from gpkit.operators.factors import CholeskyFactorLinearOperator
from gpkit.operators.kronecker import KroneckerLinearOperator
from gpkit.operators.kronecker_cross import KroneckerCrossLinearOperator
from gpkit.operators.kronecker_sum import KroneckerSumLinearOperator
from gpkit.operators.kronecker_terms import KroneckerTermsLinearOperator
from gpkit.operators.markov_posterior import MarkovPosterior
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from gpkit.operators.precision_layout import PrecisionLayout
from gpkit.operators.random_features import RandomFeatureLinearOperator, WalkFeatures, conjugate_gradients
from gpkit.operators.semiseparable import SemiseparableLinearOperator
from gpkit.operators.sparse_precision import SparsePrecisionLinearOperator
from gpkit.operators.structured import StructuredLinearOperator
from gpkit.operators.toeplitz import ToeplitzLinearOperator
from gpkit.operators.toeplitz_products import toeplitz_dense, toeplitz_matmul

__all__ = [
    "CholeskyFactorLinearOperator",
    "CirculantLinearOperator",
    "ConditionedLinearOperator",
    "ConjugateGradients",
    "CrossEigenbasisLinearOperator",
    "CrossSemiseparableLinearOperator",
    "DenseCovarianceLinearOperator",
    "EigenbasisLinearOperator",
    "KroneckerCrossLinearOperator",
    "KroneckerLinearOperator",
    "KroneckerSumLinearOperator",
    "KroneckerTermsLinearOperator",
    "MarkovPosterior",
    "PosteriorCovarianceLinearOperator",
    "PrecisionLayout",
    "RandomFeatureLinearOperator",
    "SemiseparableLinearOperator",
    "SparsePrecisionLinearOperator",
    "StructuredLinearOperator",
    "ToeplitzLinearOperator",
    "WalkFeatures",
    "conjugate_gradients",
    "toeplitz_dense",
    "toeplitz_matmul",
]
