"""Likelihoods: how data follow from a latent function, and the Gaussian sites that stand for them."""

from gpkit.likelihoods.base import Likelihood, Site
from gpkit.likelihoods.continuous import Gaussian, StudentT
from gpkit.likelihoods.discrete import Bernoulli, NegativeBinomial, Poisson
from gpkit.likelihoods.names import LIKELIHOODS, likelihood_named

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Gaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "Site",
    "StudentT",
    "likelihood_named",
]
