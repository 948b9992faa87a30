"""Averages over kernels that noisy data leave likely, around the one of largest evidence.

The evidence with the values integrated out is evaluated for other kernels at the found precisions; each likely kernel
has its own Laplace posterior of the values, for the same linear rows, and the posterior is the mixture of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gpkit.errors import ConvergenceError, NotPositiveDefiniteError
from gpkit.inference.collocation.exact.averaging import likely_mixtures
from gpkit.inference.collocation.exact.lbfgs import Slopes
from gpkit.inference.collocation.exact.priors import MixtureAxis
from gpkit.inference.collocation.gphm.columns import log_inverse_lengths
from gpkit.inference.collocation.gphm.evidence import KernelEvidence
from gpkit.inference.collocation.gphm.laplace import Laplace
from gpkit.inference.collocation.gphm.learning import LEFT_OUT
from gpkit.inference.collocation.gphm.newton import Optimum, targets
from gpkit.inference.collocation.gphm.objective import GphmObjective
from gpkit.inference.collocation.gphm.posterior import GphmPosterior
from gpkit.inference.collocation.gphm.roots import Roots

__all__ = ["MixtureEvidence", "likely_posteriors"]

_MANY, _FEW = 3000, 4
"""Values whose posteriors take so much memory that only a few of them are kept, those of the largest shares."""


class MixtureEvidence:
    """Log evidence of linear rows as a function of mixtures, one for each axis of each field.

    Args:
        objective: Of the problem.
        found: Where rows are linearised, and their precisions.

    Attributes:
        rows: Linearised.
        targets: What each row's linear part should be.
    """

    def __init__(self, objective: GphmObjective, found: Optimum) -> None:
        """Keep rows and targets."""
        roots, self.rows = found.laplace.roots, found.laplace.rows
        self.targets = targets(objective, roots, self.rows, found.weights)
        self._objective, self._shape = objective, found.state.log_weights.shape
        # Precisions are those that were found.
        given = replace(found.precisions, free=(), scales=(1.0,) * len(found.precisions.scales))
        self._evidence = KernelEvidence(objective, self.rows, self.targets, given)

    def kernel(self, mixtures: Sequence[MixtureAxis]) -> list[Tensor]:
        """Log weights, log inverse lengths and frequencies, (F, d, Q) each; what is missing is left out."""
        shape = math.prod(self._shape[:-1]), self._shape[-1]
        out = [torch.full(shape, v, dtype=torch.float64) for v in (LEFT_OUT, 0.0, 0.0)]
        for i, m in enumerate(mixtures):
            assert m.frequencies is not None
            own = m.weights.log(), log_inverse_lengths(self._objective.envelope, m.lengthscales), m.frequencies
            for t, values in zip(out, own, strict=True):
                t[i, : len(values)] = values
        return [t.reshape(self._shape) for t in out]

    def __call__(self, mixtures: Sequence[MixtureAxis], slopes: bool = True) -> tuple[float, Slopes]:
        """Value, and its derivatives in weights, length scales and frequencies of every mixture if asked for.

        Raises:
            NotPositiveDefiniteError: There is no factor for these mixtures.
        """
        kernel = self.kernel(mixtures)
        try:
            if not slopes:
                return -self._evidence.value(kernel, []), []
            value, gradients, _ = self._evidence(kernel, [])
        except ConvergenceError as error:
            raise NotPositiveDefiniteError(str(error)) from error
        flat = [g.reshape(-1, self._shape[-1]) for g in gradients]
        found = []
        for i, m in enumerate(mixtures):
            weight, inverse, frequency = (g[i, : len(m.weights)] for g in flat)
            with torch.enable_grad():
                lengths = m.lengthscales.clone().requires_grad_()
                (by_length,) = torch.autograd.grad(
                    log_inverse_lengths(self._objective.envelope, lengths).sum(), lengths
                )
            found.append((-weight / m.weights, -inverse * by_length, -frequency))
        return -value, found


def likely_posteriors(objective: GphmObjective, found: Optimum) -> list[tuple[float, GphmPosterior]]:
    """Posteriors for kernels that stand for all that are likely, each with its share.

    Args:
        objective: Of the problem.
        found: Optimum for the kernel of largest evidence, whose linearisation and precisions are kept.
    """
    evidence = MixtureEvidence(objective, found)
    fields, d, _ = found.state.log_weights.shape
    mixtures = [objective.mixture(found.state.kernel(), f, j) for f in range(fields) for j in range(d)]
    alive = (found.state.log_weights > LEFT_OUT).reshape(fields * d, -1)
    mixtures = [
        replace(m, weights=m.weights[a], lengthscales=m.lengthscales[a], frequencies=_all(m.frequencies)[a])
        for m, a in zip(mixtures, alive, strict=True)
    ]
    lengths = [float(x[-1] - x[0]) for x in objective.axes]
    steps = [n / max(len(x) - 1, 1) for n, x in zip(lengths, objective.axes, strict=True)]
    likely = likely_mixtures(evidence, mixtures, lengths * fields, steps * fields)
    if len(found.weights) > _MANY:
        likely = sorted(likely, key=lambda node: -node[0])[:_FEW]
    total = sum(share for share, _ in likely)
    return [(share / total, _posterior(objective, found, evidence, own)) for share, own in likely]


def _all(frequencies: Tensor | None) -> Tensor:
    assert frequencies is not None
    return frequencies


def _posterior(
    objective: GphmObjective, found: Optimum, evidence: MixtureEvidence, mixtures: Sequence[MixtureAxis]
) -> GphmPosterior:
    d = len(objective.axes)
    roots = Roots.of_covariances(objective.covariances(evidence.kernel(mixtures)))
    rows = [replace(r, residual=-t) for r, t in zip(evidence.rows, evidence.targets, strict=True)]
    laplace = Laplace(roots, rows, found.precisions.rows, found.precisions.scales)
    mean = -laplace.solve(laplace.gradient(torch.zeros(len(roots), dtype=torch.float64)))
    kernels = [list(mixtures[f * d : (f + 1) * d]) for f in range(len(roots.fields))]
    scales = found.precisions.scales
    return GphmPosterior(objective.axes, kernels, objective.jitter, roots, mean, scales, lambda: laplace, {})
