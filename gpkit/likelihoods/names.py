"""Likelihoods by the names that models and the command line take."""

from __future__ import annotations

from gpkit.errors import InvalidDataError
from gpkit.likelihoods.base import Likelihood
from gpkit.likelihoods.continuous import Gaussian, StudentT
from gpkit.likelihoods.discrete import Bernoulli, NegativeBinomial, Poisson

__all__ = ["LIKELIHOODS", "likelihood_named"]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "student-t": StudentT,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "negative-binomial": NegativeBinomial,
}


def likelihood_named(likelihood: str | Likelihood) -> Likelihood:
    """A likelihood, or the one of this name with its default parameters.

    Raises:
        InvalidDataError: for another name.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise InvalidDataError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, got {likelihood!r}")
    return LIKELIHOODS[likelihood]()
