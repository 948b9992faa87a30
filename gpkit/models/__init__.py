"""Models: what users instantiate."""

from gpkit.models import pde
from gpkit.models.comparison import Comparison, compare_kernels
from gpkit.models.exact_gp import ExactGP
from gpkit.models.fields import EdgeFlowGP, ScalarFieldGP, VectorFieldGP, VectorMovieGP
from gpkit.models.functional_tensor import (
    Categorical,
    Continuous,
    FunctionalTensor,
    ModeFunctions,
    Spatial,
    TensorFit,
    TensorPrediction,
)
from gpkit.models.light_curve_gp import FitResult, LightCurveGP
from gpkit.models.predictions import Prediction

__all__ = [
    "Categorical",
    "Comparison",
    "Continuous",
    "EdgeFlowGP",
    "ExactGP",
    "FitResult",
    "FunctionalTensor",
    "LightCurveGP",
    "ModeFunctions",
    "Prediction",
    "ScalarFieldGP",
    "Spatial",
    "TensorFit",
    "TensorPrediction",
    "VectorFieldGP",
    "VectorMovieGP",
    "compare_kernels",
    "pde",
]
