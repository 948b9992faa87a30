"""Structured variational Bayes for low-rank models of sparse tensors whose modes are continuous or categorical."""

from gpkit.inference.structured_vb.basis_factor import BasisFactor
from gpkit.inference.structured_vb.engine import LowRankPosterior, SweepTrace, component_layout
from gpkit.inference.structured_vb.factors import Factor, IndependentFactor
from gpkit.inference.structured_vb.forms import CoreForm
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Entries, Layout
from gpkit.inference.structured_vb.markov_factor import MarkovFactor
from gpkit.inference.structured_vb.observations import GaussianNoise, Observation, SiteObservation, observation_named
from gpkit.inference.structured_vb.pieces import Minibatches, Pieces
from gpkit.inference.structured_vb.resizing import begin_resized, living_functions, principal_mixing
from gpkit.inference.structured_vb.trains import TensorTrain, train_links
from gpkit.inference.structured_vb.warm_start import begin_with_components

__all__ = [
    "BasisFactor",
    "CoreForm",
    "Entries",
    "Factor",
    "GammaPosterior",
    "GaussianNoise",
    "IndependentFactor",
    "Layout",
    "LowRankPosterior",
    "MarkovFactor",
    "Minibatches",
    "Observation",
    "Pieces",
    "SiteObservation",
    "SweepTrace",
    "TensorTrain",
    "begin_resized",
    "begin_with_components",
    "component_layout",
    "living_functions",
    "observation_named",
    "principal_mixing",
    "train_links",
]
