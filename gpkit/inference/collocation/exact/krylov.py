"""Conjugate gradients for many right sides at once, and stochastic Lanczos for a preconditioned log-determinant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KrylovResult", "conjugate_gradients", "preconditioned_logdet"]

_STALLED = 0.03

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class KrylovResult:
    """Solution of linear systems by iteration.

    Attributes:
        solution: (n, k).
        iterations: How many were made.
        residuals: Largest relative residual over the right sides after each iteration, by recurrence.
        residual: The true relative residual at the end, the largest over the right sides.
    """

    solution: Tensor
    iterations: int
    residuals: list[float]
    residual: float


def conjugate_gradients(
    matrix: Apply,
    preconditioner: Apply,
    right: Tensor,
    tolerance: float,
    iterations: int,
    patience: int = 40,
    start: Tensor | None = None,
) -> KrylovResult:
    """Preconditioned conjugate gradients on k independent systems.

    Ends when every true residual is below the tolerance, or when the iterations are used up; the true residual is
    computed at the end in any case and restarts the recurrence once if it has drifted away.

    Args:
        matrix: Product of the positive definite matrix with (n, k).
        preconditioner: Approximate solve with (n, k).
        right: (n, k).
        tolerance: Relative to the norm of each right side.
        iterations: Limit.
        patience: After so many, a residual that has stayed above 3 % ends the iteration.
        start: Where to start, (n, k); zero by default.
    """
    norms = right.norm(dim=0).clamp_min(torch.finfo(right.dtype).tiny)
    solution = torch.zeros_like(right) if start is None else start.clone()
    history: list[float] = []
    true = 1.0
    used = 0
    best = solution
    best_residual = math.inf
    for _ in range(3):
        residual = right - matrix(solution) if used or start is not None else right.clone()
        true = float((residual.norm(dim=0) / norms).max())
        if true < best_residual:
            best, best_residual = solution.clone(), true
        if true <= tolerance or used >= iterations or (used and true > 0.5 * history[0] and true > 1.0):
            break
        z = preconditioner(residual)
        direction = z.clone()
        energy = (residual * z).sum(0)
        while used < iterations:
            image = matrix(direction)
            curvature = (direction * image).sum(0)
            # A system that has converged has a zero direction: it stays where it is.
            step = torch.where(curvature > 0.0, energy / curvature, torch.zeros_like(energy))
            solution = solution + step * direction
            residual = residual - step * image
            used += 1
            history.append(float((residual.norm(dim=0) / norms).max()))
            if not math.isfinite(history[-1]) or history[-1] <= 0.3 * tolerance or bool((step == 0.0).all()):
                break
            z = preconditioner(residual)
            new_energy = (residual * z).sum(0)
            ratio = torch.where(energy > 0.0, new_energy / energy, torch.zeros_like(energy))
            direction = z + ratio * direction
            energy = new_energy
            if history[-1] <= tolerance or (used >= patience and min(history) > _STALLED):
                break
        if used >= patience and min(history) > _STALLED:
            break
        if not math.isfinite(history[-1]):
            break
    residual = right - matrix(solution)
    true = float((residual.norm(dim=0) / norms).max())
    if not true <= best_residual:
        solution, true = best, best_residual
    return KrylovResult(solution, used, history, true)


def preconditioned_logdet(
    matrix: Apply, preconditioner: Apply, root: Apply, size: int, probes: int, steps: int, generator: torch.Generator
) -> tuple[float, float]:
    """``log |P^-1 K|`` by Lanczos quadrature with random probes, and its standard error.

    The step lengths of preconditioned conjugate gradients are the tridiagonal Lanczos matrix of
    ``B^-1 K B^-T``, ``P = B B^T``, started at a white vector. The closer P is to K the smaller the error.

    Args:
        matrix: K.
        preconditioner: ``P^-1``.
        root: B.
        size: n.
        probes: Number of random signs.
        steps: Lanczos steps.
        generator: Of the probes.

    Returns:
        Estimate and standard error.

    References:
        Ubaru, Chen & Saad (2017), SIAM J. Matrix Anal. Appl. 38, 1075.
    """
    signs = torch.randint(0, 2, (size, probes), generator=generator, dtype=torch.float64) * 2.0 - 1.0
    residual = root(signs)
    z = preconditioner(residual)
    direction = z.clone()
    energy = (residual * z).sum(0)
    alphas, betas = [], []
    for _ in range(min(steps, size)):
        image = matrix(direction)
        alpha = energy / (direction * image).sum(0)
        residual = residual - alpha * image
        z = preconditioner(residual)
        new_energy = (residual * z).sum(0)
        alphas.append(alpha)
        betas.append(new_energy / energy)
        direction = z + betas[-1] * direction
        energy = new_energy
        if float(new_energy.max()) < 1e-20 * size:
            break
    m = len(alphas)
    estimates = torch.zeros(probes, dtype=torch.float64)
    for k in range(probes):
        tridiagonal = torch.zeros(m, m, dtype=torch.float64)
        for i in range(m):
            tridiagonal[i, i] = 1.0 / alphas[i][k] + (betas[i - 1][k] / alphas[i - 1][k] if i else 0.0)
            if i + 1 < m:
                off = betas[i][k].clamp_min(0.0).sqrt() / alphas[i][k]
                tridiagonal[i, i + 1] = tridiagonal[i + 1, i] = off
        values, vectors = torch.linalg.eigh(tridiagonal)
        estimates[k] = size * (vectors[0] ** 2 * values.clamp_min(1e-300).log()).sum()
    error = float(estimates.std() / math.sqrt(probes)) if probes > 1 else math.inf
    return float(estimates.mean()), error
