"""Models: what users instantiate."""

from gpkit.models.comparison import Comparison, compare_kernels
from gpkit.models.exact_gp import ExactGP
from gpkit.models.fields import ScalarFieldGP, VectorFieldGP, VectorMovieGP
from gpkit.models.light_curve_gp import FitResult, LightCurveGP
from gpkit.models.predictions import Prediction

__all__ = [
    "Comparison",
    "ExactGP",
    "FitResult",
    "LightCurveGP",
    "Prediction",
    "ScalarFieldGP",
    "VectorFieldGP",
    "VectorMovieGP",
    "compare_kernels",
]
