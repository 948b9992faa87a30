"""The oracle: dense Gaussian processes with the same sites, in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpkit.kernels import as_state_space


class Posterior(NamedTuple):
    log_evidence: Tensor
    mean: Tensor
    covariance: Tensor
    lag_one: Tensor
    joint: Tensor


def posterior(kernels, coordinates, precision, information) -> Posterior:
    """By inverting ``I + K Lam`` of all functions at all nodes; kernels is one for each function."""
    n, functions = information.shape[-2:]
    lags = coordinates[:, None] - coordinates[None, :]
    blocks = [as_state_space(kernel).autocovariance(lags) for kernel in kernels]
    return from_covariances(blocks, precision, information)


def from_covariances(blocks, precision, information) -> Posterior:
    """The same from one covariance matrix (N, N) for each function."""
    n, functions = information.shape[-2:]
    prior = torch.zeros(n, functions, n, functions)
    for r, block in enumerate(blocks):
        unit = torch.zeros(functions, functions)
        unit[r, r] = 1.0
        prior = prior + torch.einsum("ab,ij->iajb", unit, block)
    prior = prior.reshape(n * functions, n * functions)
    sites = torch.block_diag(*precision) if n else torch.zeros(0, 0)
    matrix = torch.eye(n * functions) + prior @ sites
    joint = torch.linalg.solve(matrix, prior)
    flat = information.reshape(-1)
    mean = joint @ flat
    evidence = 0.5 * (flat @ mean - torch.linalg.slogdet(matrix)[1])
    joint = joint.reshape(n, functions, n, functions)
    rows = torch.arange(n)
    return Posterior(evidence, mean.reshape(n, functions), joint[rows, :, rows], joint[rows[:-1], :, rows[1:]], joint)
