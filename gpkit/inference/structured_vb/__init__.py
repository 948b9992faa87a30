"""Structured variational Bayes for low-rank models of sparse tensors whose modes are continuous or categorical."""

from gpkit.inference.structured_vb.engine import LowRankPosterior, SweepTrace, component_layout
from gpkit.inference.structured_vb.factors import BasisFactor, Factor, IndependentFactor, MarkovFactor
from gpkit.inference.structured_vb.gamma import GammaPosterior
from gpkit.inference.structured_vb.layout import Layout
from gpkit.inference.structured_vb.observations import (
    Bernoulli,
    GaussianNoise,
    NegativeBinomial,
    Observation,
    Poisson,
    StudentTNoise,
)

__all__ = [
    "BasisFactor",
    "Bernoulli",
    "Factor",
    "GammaPosterior",
    "GaussianNoise",
    "IndependentFactor",
    "Layout",
    "LowRankPosterior",
    "MarkovFactor",
    "NegativeBinomial",
    "Observation",
    "Poisson",
    "StudentTNoise",
    "SweepTrace",
    "component_layout",
]
