"""Batched, numpy-level entry points of the compiled recursions.

Arrays carry one leading batch dimension B; parameters, times, values and noise may each have a single row that is
shared by the whole batch. Times are sorted ascending; infinite noise marks a row without information (a missing value
or a node where only a prediction is wanted). Series shorter than N give their lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions import evidence as _evidence
from gpkit.recursions.simd import LANES
from gpkit.recursions.structure import GIVEN, Structure, marker

__all__ = ["Evidence", "evidence", "log_likelihood", "merge_times", "posterior", "smooth"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Quadratic form and log-determinant of ``K + diag(noise)`` and, where asked for, every derivative.

    Attributes:
        inv_quad: ``y^T (K + R)^-1 y``, shape (B,).
        logdet: ``log det (K + R)``, shape (B,).
        failed: first row at which the matrix is not positive definite, or -1, shape (B,).
        alpha: ``(K + R)^-1 y``, shape (B, N).
        kappa: diagonal of ``(K + R)^-1``, shape (B, N).
        params: derivative of ``-(w_q inv_quad + w_d logdet) / 2`` with respect to the parameters, shape (B, P).
        times: the same with respect to the times, shape (B, N).
        given: the same with respect to given transitions, shape (B, N, J * J), or None.
    """

    inv_quad: Array
    logdet: Array
    failed: NDArray[np.int64]
    alpha: Array
    kappa: Array
    params: Array
    times: Array
    given: Array | None = None


_UNIT_WEIGHTS = (1.0, 1.0)
_UNIT_WEIGHTS_ROW = np.ones((1, 2))
_FIRST = np.zeros(1, dtype=np.int64)


def _rows(array: Any) -> Array:
    """A contiguous two-dimensional float64 array; a single row if one-dimensional."""
    out: Array = np.ascontiguousarray(array, dtype=np.float64)
    if not out.flags.writeable:
        # Read-only arrays are another type to numba: everything would be compiled again.
        out = out.copy()
    return out if out.ndim == 2 else out.reshape(1, -1)


def _run(
    task: tuple[int, ...],
    structure: Structure,
    params: Any,
    times: Any,
    values: Any,
    noise: Any,
    lengths: NDArray[np.int64] | None,
    weights: Any,
    gradient: bool,
    given: Array | None,
) -> Evidence:
    """Distribute a batch over SIMD groups, time blocks and the sequential recursion."""
    params, times, values, noise = _rows(params), _rows(times), _rows(values), _rows(noise)
    weights = _UNIT_WEIGHTS_ROW if weights is _UNIT_WEIGHTS else _rows(weights)
    sizes = {params.shape[0], times.shape[0], values.shape[0], noise.shape[0], weights.shape[0]} - {1}
    batch = sizes.pop() if sizes else 1
    n = times.shape[1]
    if params.shape[0] != batch:
        params = np.ascontiguousarray(np.broadcast_to(params, (batch, params.shape[1])))
    longest = n
    if lengths is None:
        lengths = np.full(batch, n, dtype=np.int64)
    elif batch > 0:
        longest = int(lengths.max())
    given_bar = None
    if structure == GIVEN:
        assert given is not None
        given_bar = np.zeros((batch if gradient else 1, *given.shape[1:]))
    order = marker(structure, given, given_bar)
    alpha, kappa, times_bar = np.zeros((3, batch, n if gradient else 0))
    inv_quad, logdet = np.zeros((2, batch))
    out = Evidence(
        inv_quad=inv_quad,
        logdet=logdet,
        failed=np.full(batch, -1, dtype=np.int64),
        alpha=alpha,
        kappa=kappa,
        params=np.zeros(params.shape),
        times=times_bar,
        given=given_bar if gradient else None,
    )
    if n == 0 or batch == 0:
        return out
    arguments = (params, times, values, noise, lengths)
    results = (out.params, out.alpha, out.kappa, out.times, out.inv_quad, out.logdet, out.failed)
    singles = _FIRST if batch == 1 else np.arange(batch)
    if batch >= LANES:
        # Neighbours in length share a group, so that little is padded; what does not fill the lanes runs alone.
        by_length = np.argsort(lengths, kind="stable")[::-1]
        full = batch - batch % LANES
        groups = np.ascontiguousarray(by_length[:full]).reshape(-1, LANES)
        _evidence.groups_evidence(order, task, *arguments, groups, weights, gradient, *results)
        singles = np.ascontiguousarray(by_length[full:])
    if singles.size:
        if longest >= _evidence.BLOCKS_MINIMUM:
            left = _evidence.singles_evidence(order, task, *arguments, singles, weights, gradient, *results)
            singles = singles[out.failed[singles] == -2] if left else singles[:0]
        if singles.size:
            _evidence.sequential_evidence(order, task, *arguments, singles, weights, gradient, *results)
    return out


def evidence(
    structure: Structure,
    params: Any,
    times: Any,
    values: Any,
    noise: Any,
    *,
    lengths: NDArray[np.int64] | None = None,
    weights: Any = _UNIT_WEIGHTS,
    gradient: bool = True,
    given: Array | None = None,
) -> Evidence:
    """Evaluate the Gaussian evidence of one or many series.

    A matrix that is not positive definite is reported in ``failed``, not raised.

    Args:
        structure: sum of products of factors (see :mod:`gpkit.recursions.structure`).
        params: (B, P) or (P,).
        times: (B, N) or (N,), sorted.
        values: (B, N) or (N,), mean already subtracted.
        noise: (B, N) or (N,) added to the diagonal; ``inf`` carries no information.
        lengths: number of points of each series; all N if not given.
        weights: cotangents (w_q, w_d) for the derivatives, (2,) or (B, 2).
        gradient: whether derivatives are computed.
        given: transitions (B, N, J * J) of a given state space.
    """
    return _run((0,), structure, params, times, values, noise, lengths, weights, gradient, given)


def smooth(
    structure: Structure,
    params: Any,
    times: Any,
    values: Any,
    noise: Any,
    *,
    lengths: NDArray[np.int64] | None = None,
    given: Array | None = None,
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Posterior mean and variance of the latent function at every row, each (B, N), and the failed rows (B,).

    Rows with infinite noise are prediction nodes; the arguments are those of :func:`evidence`.
    """
    out = _run((0, 0), structure, params, times, values, noise, lengths, _UNIT_WEIGHTS, True, given)
    return out.alpha, out.kappa, out.failed


def merge_times(times: Array, new_times: Array) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Merge two sorted arrays (N,) and (M,): the union with repeats, and the places of both in it."""
    place = np.searchsorted(times, new_times, side="right") + np.arange(new_times.shape[0])
    keep = np.ones(times.shape[0] + new_times.shape[0], dtype=bool)
    keep[place] = False
    old = np.flatnonzero(keep)
    union = np.empty(keep.shape[0])
    union[place] = new_times
    union[old] = times
    return union, old, place


def posterior(
    structure: Structure, params: Any, times: Array, values: Any, noise: Any, new_times: Array
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Posterior mean and variance (B, M) of the latent function at sorted new times, in O(N + M).

    Args:
        structure: sum of products of factors.
        params: (B, P) or (P,).
        times: (N,) sorted, shared by the batch.
        values: (B, N) or (N,), mean already subtracted.
        noise: (B, N) or (N,).
        new_times: (M,) sorted.
    """
    values, noise = _rows(values), _rows(noise)
    union, old, new = merge_times(times, new_times)
    all_values = np.zeros((values.shape[0], union.shape[0]))
    all_values[:, old] = values
    all_noise = np.full((noise.shape[0], union.shape[0]), np.inf)
    all_noise[:, old] = noise
    mean, variance, failed = smooth(structure, params, union, all_values, all_noise)
    mean, variance = mean.take(new, axis=1), variance.take(new, axis=1)
    return mean, np.maximum(variance, 0.0, out=variance), failed


def log_likelihood(structure: Structure, params: Any, times: Any, values: Any, noise: Any, **options: Any) -> Array:
    """Log-density of the values, shape (B,); ``nan`` where the covariance is not positive definite."""
    result = evidence(structure, params, times, values, noise, gradient=False, **options)
    seen = np.isfinite(_rows(noise))
    lengths = options.get("lengths")
    if lengths is not None:
        seen = seen & (np.arange(seen.shape[1]) < lengths[:, None])
    informative = seen.sum(axis=-1)
    out = -0.5 * (result.inv_quad + result.logdet + informative * np.log(2.0 * np.pi))
    return np.where(result.failed >= 0, np.nan, out)
