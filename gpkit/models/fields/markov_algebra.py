"""Sums of Markov terms: sparse precision matrices, full rank, at the cost of a sparse factorisation per evaluation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gpkit.inference.markov_evidence import MarkovStatistics
from gpkit.models.fields.posterior import FieldPosterior
from gpkit.models.fields.sites import Sites
from gpkit.operators.sparse_symmetric import SparsePattern

if TYPE_CHECKING:
    from gpkit.models.fields.regression import FieldRegression

__all__ = ["MarkovAlgebra", "MarkovFieldPosterior"]

Array = NDArray[np.float64]


class MarkovAlgebra:
    """Evidence of sums of Markov terms (and a constant): their precisions stand side by side.

    Args:
        regression: Data and terms.
    """

    def __init__(self, regression: FieldRegression) -> None:
        self.regression = regression

    def selection(self, sites: Sites, part: int | None = None) -> Any:
        """How values at places follow from the unknowns of all terms, or of one of them; sparse (m d, N)."""
        blocks = []
        for index, term in enumerate(self.regression.terms):
            # Type: terms of this algebra have it; torch.nn.ModuleList knows modules only.
            block = term.selection(sites)  # type: ignore[attr-defined]
            blocks.append(block if part in (None, index) else sparse.csr_matrix(block.shape))
        return sparse.hstack(blocks, format="csr")

    @functools.cached_property
    def statistics(self) -> MarkovStatistics:
        """Data and pattern; the order of elimination is found once."""
        patterns = [term.pattern for term in self.regression.terms]  # type: ignore[attr-defined]
        rows = self.regression.rows
        selection = sparse.diags(1.0 / rows) @ self.selection(self.regression.sites)
        return MarkovStatistics.of(SparsePattern.block_diagonal(patterns), selection, self.regression.targets / rows)

    def precision(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Values of Q on the pattern and ln|Q|."""
        pairs = zip(self.regression.terms, parts, strict=True)
        found = [term.precision(part) for term, part in pairs]  # type: ignore[attr-defined]
        return torch.cat([values for values, _ in found]), torch.stack([log_det for _, log_det in found]).sum()

    def value_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Log likelihood of the data in units of the known noise, and its gradient."""
        at = torch.tensor(theta, requires_grad=True)
        learnt = self.regression.noise is None
        values, log_det = self.precision(self.regression.split(at)[1])
        value, slope, noise_slope = self.statistics.log_likelihood(
            values.detach().numpy(), float(log_det.detach()), 2.0 * float(theta[0]) if learnt else 0.0
        )
        ((values * torch.from_numpy(slope)).sum() + 0.5 * log_det).backward()
        gradient = np.zeros(len(theta)) if at.grad is None else at.grad.numpy().copy()
        if learnt:
            gradient[0] += 2.0 * noise_slope
        return value, gradient

    def posterior(self, theta: Array) -> MarkovFieldPosterior:
        """The posterior at given parameters."""
        return MarkovFieldPosterior(self, theta)


class MarkovFieldPosterior(FieldPosterior):
    """Unknowns at all nodes with a sparse posterior precision.

    Args:
        algebra: Of the terms.
        theta: Logarithms of the parameters.
    """

    def __init__(self, algebra: MarkovAlgebra, theta: Array) -> None:
        super().__init__(algebra.regression, theta)
        self.algebra = algebra
        values, _ = algebra.precision(self._parts)
        self.unknowns = algebra.statistics.posterior(values.numpy(), 2.0 * math.log(self.noise))

    def _at(self, sites: Sites, part: int | None) -> tuple[Array, Array]:
        d = sites.d
        selection = self.algebra.selection(sites, part)
        covariance = self.unknowns.covariances(selection, d)
        lost = self._unresolved(sites, None if part is None else [part])
        return (selection @ self.unknowns.mean).reshape(-1, d), covariance + lost[:, None, None] * np.eye(d)

    def _moments(self, sites: Sites) -> tuple[Array, Array]:
        return self._at(sites, None)

    def part_moments(self, sites: Sites, index: int) -> tuple[Array, Array]:
        """Means (m, d) and covariances (m, d, d) of one term's share of the field."""
        return self._at(sites, index)

    def joint(self, sites: Sites) -> tuple[Array, Array]:
        """Mean (m d,) and a root (m d, r) of the joint covariance at places, noise not included."""
        selection = self.algebra.selection(sites)
        root = self.unknowns.whitened(selection).T
        own = np.repeat(np.sqrt(self._unresolved(sites)), sites.d)
        if own.any():
            root = np.concatenate([root, np.diag(own)[:, own > 0.0]], axis=1)
        return selection @ self.unknowns.mean, root

    def sampler(self, sites: Sites, inflation: float | Array = 1.0) -> Callable[[int, np.random.Generator], Array]:
        """Makes joint draws (count, m d) by sparse solves: no joint covariance is ever made."""
        scale = np.sqrt(inflation)
        selection = self.algebra.selection(sites)
        own = np.repeat(np.sqrt(self._unresolved(sites)), sites.d)
        unknowns = self.unknowns

        def draw(count: int, rng: np.random.Generator) -> Array:
            noise = rng.standard_normal((unknowns.matrix.pattern.size, count))
            away = (selection @ unknowns.matrix.factor.draw(noise)).T + own * rng.standard_normal((count, len(own)))
            return np.asarray(selection @ unknowns.mean + scale * away)

        return draw

    def functional(self, operator: Any, sites: Sites) -> tuple[Array, Array]:
        """Means and standard deviations (q,) of linear functionals of the field."""
        operator = sparse.csr_matrix(operator)
        selection = (operator @ self.algebra.selection(sites)).tocsr()
        extra = operator.power(2) @ np.repeat(self._unresolved(sites), sites.d)
        variance = self.unknowns.covariances(selection, 1)[:, 0, 0]
        return selection @ self.unknowns.mean, np.sqrt(variance + extra)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Predictions of each observed place from all the others: means (m, d), covariances (m, d, d) with noise."""
        d = self.regression.sites.d
        selection = self.algebra.statistics.layout.selection
        hat = self.unknowns.covariances(selection, d) / self.noise**2
        return self._from_hat((selection @ self.unknowns.mean).reshape(-1, d), hat)
