"""Functional Bayesian tensor decomposition: tables whose entries are indexed by coordinates."""

from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.functions import ModeFunctions
from gpkit.models.functional_tensor.gauge import TrainGauge
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.model import FunctionalTensor
from gpkit.models.functional_tensor.modes import Categorical, Continuous, ModeSpec, Spatial
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.result import TensorFit

__all__ = [
    "Categorical",
    "Continuous",
    "DiscretePrediction",
    "FunctionalTensor",
    "LatentResidual",
    "LocalResidual",
    "Member",
    "ModeFunctions",
    "ModeSpec",
    "Spatial",
    "TensorFit",
    "TensorPrediction",
    "TrainGauge",
]
