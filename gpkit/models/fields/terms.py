"""Summands of the covariance of a field: what each of them can say, and an unknown constant.

A term knows its parameters, prepares once what does not depend on them, and evaluates its block of covariance as a
differentiable function of their logarithms. Fields are stacks of tangent coordinates, place by place.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.inference.log_parameters import LogParameter
from gpkit.models.fields.sites import Sites
from gpkit.operators.sparse_symmetric import SparsePattern

__all__ = ["ConstantTerm", "Scales", "Term", "between", "starting_points"]

Array = NDArray[np.float64]
Prepared = tuple[Tensor, ...]

_MUCH_NOISE = 4.0
"""Noise of the second half of a fit's starting points, over that of the first."""


@dataclass(frozen=True)
class Scales:
    """Units of a problem: priors and ranges of parameters are multiples of these.

    Attributes:
        length: Size of the manifold, its root mean square radius.
        value: Root mean square of a coordinate of the data.
    """

    length: float
    value: float

    def lengthscale(self, name: str, start: float = 0.5) -> LogParameter:
        """A length scale; ``start`` in units of the size."""
        u = self.length
        return LogParameter(name, start * u, 0.005 * u, 100.0 * u, 0.5 * u, 1.5, "length")

    def amplitude(self, name: str, start: float = 1.0) -> LogParameter:
        """A standard deviation; ``start`` in units of the data."""
        u = self.value
        return LogParameter(name, start * u, 1e-4 * u, 1e4 * u, u, 1.5, "value")

    def noise(self) -> LogParameter:
        """The standard deviation of the noise per coordinate."""
        u = self.value
        return LogParameter("noise", 0.1 * u, 1e-6 * u, 5.0 * u, 0.1 * u, 2.0, "value")


class Term(ABC):
    """One summand.

    Attributes:
        name: What results call it.
        parameters: Its parameters.
        flexible: Whether these are so many that estimates of them count in predictions one by one.
    """

    name: str
    parameters: tuple[LogParameter, ...]
    flexible: bool = False

    @abstractmethod
    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """What does not depend on the parameters."""

    @abstractmethod
    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The block of covariance (m d, m' d) at logarithms of the parameters (P,)."""

    @abstractmethod
    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior covariances (m, d, d) at each place by itself."""

    def mean_variance(self, theta: Tensor) -> Tensor | None:
        """Prior variance of a coordinate, the mean over the nodes; None for terms that know places by coordinates."""
        return None

    def unresolved(self, theta: Tensor, sites: Sites) -> Tensor:
        """Prior variance (m,) of a coordinate between the nodes about which the nodes say nothing."""
        return torch.zeros(len(sites), dtype=torch.float64)

    def scan(self) -> list[tuple[float, ...]]:
        """Starting points (logarithms) among which a fit chooses the best; length scales vary, the rest is as given."""
        start = [math.log(p.start) for p in self.parameters]
        out = []
        for factor in (0.15, 0.4, 1.0, 2.5):
            point = [
                min(max(s + math.log(factor), math.log(p.low)), math.log(p.high)) if p.unit == "length" else s
                for s, p in zip(start, self.parameters, strict=True)
            ]
            out.append(tuple(point))
        return list(dict.fromkeys(out))


def starting_points(head: Sequence[float], terms: Sequence[Term], *, noise: bool) -> list[Array]:
    """Points worth trying: the terms' length scales together from short to long, with little and with much noise.

    With little noise alone, few noisy places look like a field without any correlation: a maximum of its own.

    Args:
        head: Logarithms of the parameters before those of the terms.
        terms: Summands.
        noise: Whether the first of ``head`` is the noise, so that there are two values of it.
    """
    heads = [list(head)]
    if noise:
        heads.append([head[0] + math.log(_MUCH_NOISE), *head[1:]])
    grids = [term.scan() for term in terms]
    steps = range(max(len(grid) for grid in grids))
    return [
        np.array(list(itertools.chain(start, *(grid[min(k, len(grid) - 1)] for grid in grids))))
        for start in heads
        for k in steps
    ]


def between(left: Sites, right: Sites) -> Tensor:
    """Ones (m,) where a place is not a node and both sides are the same; nothing where there is no such place."""
    inside = (left.nodes < 0) | left.far
    return torch.as_tensor(inside).double() if left is right and inside.any() else torch.zeros(0)


class ConstantTerm(Term):
    """An unknown constant of a scalar field, with a wide normal prior.

    Args:
        width: Standard deviation of the prior.
    """

    def __init__(self, width: float) -> None:
        self.name = "constant"
        self.parameters = ()
        self.variance = width**2

    def scan(self) -> list[tuple[float, ...]]:
        """Nothing to scan."""
        return [()]

    def prepare(self, left: Sites, right: Sites) -> Prepared:
        """The block itself."""
        return (torch.full((left.rows, right.rows), self.variance, dtype=torch.float64),)

    def evaluate(self, theta: Tensor, prepared: Prepared) -> Tensor:
        """The variance everywhere."""
        return prepared[0]

    def marginal(self, theta: Tensor, sites: Sites) -> Tensor:
        """The variance at each place."""
        return torch.full((len(sites), 1, 1), self.variance, dtype=torch.float64)

    def features(self, sites: Sites) -> Tensor:
        """One column of ones."""
        return torch.ones((sites.rows, 1), dtype=torch.float64)

    @property
    def pattern(self) -> SparsePattern:
        """Of the precision of one unknown."""
        return SparsePattern.of(sparse.identity(1, format="csc"))

    def precision(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The precision and its logarithm."""
        value = torch.tensor([1.0 / self.variance], dtype=torch.float64)
        return value, value.log().squeeze()

    def selection(self, sites: Sites) -> Any:
        """The unknown is in every row; sparse (m d, 1)."""
        return sparse.csr_matrix(np.ones((sites.rows, 1)))
