"""Models: what users instantiate. Each is imported when it is first used, so that one does not wait for the others."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "comparison": ("Comparison", "compare_kernels"),
    "exact_gp": ("ExactGP",),
    "fields": ("EdgeFlowGP", "ScalarFieldGP", "VectorFieldGP", "VectorMovieGP"),
    "functional_tensor": (
        "Categorical",
        "Continuous",
        "FunctionalTensor",
        "ModeFunctions",
        "Spatial",
        "TensorFit",
        "TensorPrediction",
    ),
    "light_curve_gp": ("FitResult", "LightCurveGP"),
    "predictions": ("Prediction",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "pde":
        return importlib.import_module("gpkit.models.pde")
    if name not in _HOMES:
        raise AttributeError(f"module 'gpkit.models' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gpkit.models.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
