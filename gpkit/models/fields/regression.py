"""Regression on a field: the evidence of a sum of terms, and the posterior at given parameters.

Sums of spectral terms are reduced to a triangular factor once and cost O(k^3) per evaluation; sums of Markov terms have
a sparse precision; any other sum has a dense covariance. Which it is follows from the terms, never from the number of
data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.dense_algebra import DenseAlgebra
from gpkit.models.fields.markov_algebra import MarkovAlgebra
from gpkit.models.fields.markov_term import MarkovTerm
from gpkit.models.fields.posterior import FieldPosterior
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.spectral_algebra import SpectralAlgebra
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.terms import ConstantTerm, Scales, Term, starting_points

__all__ = ["FieldPosterior", "FieldRegression"]

Array = NDArray[np.float64]


class FieldRegression:
    """The likelihood of observed tangent coordinates under a sum of terms and white noise.

    Args:
        terms: The summands.
        sites: Where it was observed, m places.
        values: Tangent coordinates, (m, d).
        scales: Units of the problem.
        noise: None to learn one standard deviation; or a standard deviation for every place, (m,).

    Raises:
        InvalidDataError: no term, or values that do not fit.
    """

    def __init__(
        self, terms: Sequence[Term], sites: Sites, values: Array, scales: Scales, noise: Array | None = None
    ) -> None:
        if not terms:
            raise InvalidDataError("a field needs at least one term")
        if values.shape != (len(sites), sites.d):
            raise InvalidDataError(f"values must be ({len(sites)}, {sites.d}), got {values.shape}")
        self.terms = tuple(terms)
        self.sites = sites
        self.values = values
        self.scales = scales
        self.noise = noise
        self.targets = np.ascontiguousarray(values.reshape(-1))
        # Rows are divided by the known noise; a learnt one stays a factor.
        self.rows = np.ones(sites.rows) if noise is None else np.repeat(noise, sites.d)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what can be made again."""
        return {name: value for name, value in self.__dict__.items() if name != "algebra"}

    @functools.cached_property
    def algebra(self) -> SpectralAlgebra | MarkovAlgebra | DenseAlgebra:
        """How this sum of terms is computed."""
        if all(isinstance(term, SpectralTerm | ConstantTerm) for term in self.terms):
            return SpectralAlgebra(self)
        if all(isinstance(term, MarkovTerm | ConstantTerm) for term in self.terms):
            return MarkovAlgebra(self)
        return DenseAlgebra(self)

    @property
    def flexible(self) -> bool:
        """Whether there are terms with many parameters (:class:`gpkit.models.fields.terms.Term`)."""
        return any(term.flexible for term in self.terms)

    @functools.cached_property
    def parameters(self) -> tuple[LogParameter, ...]:
        """Noise first (if it is learnt), then those of the terms, prefixed where there are several terms."""
        noise = () if self.noise is not None else (self.scales.noise(),)
        prefixed = sum(bool(term.parameters) for term in self.terms) > 1
        out = list(noise)
        for term in self.terms:
            for p in term.parameters:
                name = f"{term.name}.{p.name}" if prefixed else p.name
                out.append(LogParameter(name, p.start, p.low, p.high, p.centre, p.width, p.unit))
        return tuple(out)

    def split(self, theta: Any) -> tuple[Any, list[Any]]:
        """Logarithm of the noise's standard deviation, and the parameters of each term."""
        at = 0 if self.noise is not None else 1
        noise = 0.0 if self.noise is not None else theta[0]
        parts = []
        for term in self.terms:
            parts.append(theta[at : at + len(term.parameters)])
            at += len(term.parameters)
        return noise, parts

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood and its gradient at logarithms of the parameters.

        Raises:
            NotPositiveDefiniteError: the covariance of the data has no factor.
        """
        value, gradient = self.algebra.value_and_gradient(np.asarray(theta, dtype=np.float64))
        return value - float(np.log(self.rows).sum()), gradient

    def starts(self) -> list[Array]:
        """Points worth trying (:func:`gpkit.models.fields.terms.starting_points`)."""
        learnt = self.noise is None
        return starting_points([math.log(self.scales.noise().start)] * learnt, self.terms, noise=learnt)

    def posterior(self, theta: Array) -> FieldPosterior:
        """The posterior at given parameters.

        Raises:
            NotPositiveDefiniteError: the covariance of the data has no factor.
        """
        return self.algebra.posterior(np.asarray(theta, dtype=np.float64))
