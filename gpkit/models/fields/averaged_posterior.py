"""A posterior whose many parameters are uncertain: the mean of their best values, the spread of draws of them.

Means of a few draws would be dominated by the one that fits worst: where observations have no noise, a length scale
that is a little wrong costs more than all that is to be learnt from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import DataWarning, NotPositiveDefiniteError
from gpkit.models.fields.posterior import FieldPosterior
from gpkit.models.fields.sites import Sites

__all__ = ["AveragedPosterior", "averaged_posterior"]

Array = NDArray[np.float64]


class AveragedPosterior:
    """What a :class:`gpkit.models.fields.posterior.FieldPosterior` answers, from one and others around it.

    Args:
        centre: At the best parameters; means are its own.
        around: At draws of the parameters. Covariances are the mean of theirs and the covariance of their means.
    """

    def __init__(self, centre: FieldPosterior, around: Sequence[FieldPosterior]) -> None:
        self.centre = centre
        self.around = around
        self.regression = centre.regression
        self.noise = centre.noise

    def moments(self, sites: Sites) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) at each place by itself, noise not included."""
        return self._combined(lambda posterior: posterior.moments(sites))

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """The same for one term's share of the field."""
        return self._combined(lambda posterior: posterior.part_moments(sites, index))

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field."""
        means, deviations = zip(*(posterior.functional(operator, sites) for posterior in self.around), strict=True)
        variance = np.square(deviations).mean(0) + np.var(means, axis=0)
        return self.centre.functional(operator, sites)[0], np.sqrt(variance)

    def sampler(self, sites: Sites, inflation: float | Array = 1.0) -> Callable[[int, np.random.Generator], Array]:
        """Makes joint draws (count, m d) from a count and a generator; what they share is computed once."""
        makers = [posterior.sampler(sites, inflation) for posterior in self.around]
        means = np.stack([posterior.moments(sites)[0].ravel() for posterior in self.around])
        shift = self.centre.moments(sites)[0].ravel() - means.mean(0)
        # Draws scatter around the mean of their own parameters, and this around the mean of all, by the same factor.
        spread = (np.sqrt(inflation) - 1.0) * (means - means.mean(0))

        def draw(count: int, rng: np.random.Generator) -> Array:
            chosen = rng.integers(len(makers), size=count)
            out = np.zeros((count, means.shape[1]))
            for index in np.unique(chosen):
                mine = np.flatnonzero(chosen == index)
                out[mine] = makers[index](len(mine), rng) + shift + spread[index]
            return out

        return draw

    def _combined(self, moments: Callable[[FieldPosterior], tuple[Array, Array]]) -> tuple[Array, Array]:
        means, covariances = zip(*(moments(posterior) for posterior in self.around), strict=True)
        apart = np.stack(means) - np.mean(means, axis=0)
        spread = np.einsum("smi,smj->mij", apart, apart) / len(means)
        return moments(self.centre)[0], np.mean(covariances, axis=0) + spread


def averaged_posterior(
    name: str, centre: FieldPosterior, drawn: Array, posterior_at: Callable[[Array], FieldPosterior]
) -> AveragedPosterior:
    """The average over draws of the parameters, of which those without a posterior are left out with a warning.

    Args:
        name: Of the kernel.
        centre: The posterior at the best parameters.
        drawn: Logarithms of the parameters, (S, P).
        posterior_at: Makes the posterior at one of them.
    """
    around = []
    for theta in drawn:
        try:
            around.append(posterior_at(theta))
        except NotPositiveDefiniteError:  # the covariance of exact data has no factor in floating point there
            continue
    if len(around) < len(drawn):
        warnings.warn(
            f"{len(drawn) - len(around)} of {len(drawn)} draws of the parameters of {name} have a covariance without "
            "a Cholesky factor in floating point; regions are averages over the others",
            DataWarning,
            stacklevel=5,
        )
    return AveragedPosterior(centre, around or [centre])
