"""Proximities of graph nodes, their logarithms as distances, and kernels from them after an announced repair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry.checks import Floats, as_matrix
from gpkit.geometry.graph import Graph

__all__ = ["PROXIMITIES", "RepairedKernel", "log_distances", "proximity", "repair"]

PROXIMITIES = ("walk", "forest", "heat", "communicability")


@dataclass(frozen=True, eq=False)
class RepairedKernel:
    """The positive semidefinite matrix nearest to a symmetric one, and what it took.

    Attributes:
        matrix: (n, n).
        clipped: number of negative eigenvalues that were set to zero.
        share: sum of their sizes relative to the sum of all sizes.
        distance: Frobenius distance to the original, relative to its norm.
    """

    matrix: Floats
    clipped: int
    share: float
    distance: float


def proximity(graph: Graph, measure: str = "communicability", t: float = 1.0) -> Floats:
    """A dense proximity matrix H (n, n).

    Args:
        graph: connected.
        measure: "walk" ``(I - t A / rho)^-1`` with t in (0, 1) relative to the inverse spectral radius, "forest"
            ``(I + t L)^-1``, "heat" ``exp(-t L)``, "communicability" ``exp(t A)``.
        t: parameter.

    Raises:
        InvalidDataError: an unknown measure or a parameter out of range.

    References:
        Ivashkin & Chebotarev (2016), NET 2016; Estrada & Hatano (2008), PRE 77, 036111.
    """
    if measure not in PROXIMITIES:
        raise InvalidDataError(f"measure must be one of {', '.join(PROXIMITIES)}, got {measure!r}")
    if not t > 0.0 or (measure == "walk" and not t < 1.0):
        raise InvalidDataError(f"t must be positive{' and below 1' if measure == 'walk' else ''}, got {t}")
    spectral = graph.adjacency if measure in ("walk", "communicability") else graph.laplacian().stiffness
    values, vectors = scipy.linalg.eigh(spectral.toarray())
    if measure == "walk":
        response = 1.0 / (1.0 - t * values / max(float(np.abs(values).max()), 1e-300))
    elif measure == "forest":
        response = 1.0 / (1.0 + t * np.maximum(values, 0.0))
    else:
        # Relative to the largest, so that nothing overflows: a constant factor does not move the distances.
        exponent = t * values if measure == "communicability" else -t * np.maximum(values, 0.0)
        response = np.exp(exponent - exponent.max())
    matrix = (vectors * response) @ vectors.T
    return 0.5 * (matrix + matrix.T)


def log_distances(graph: Graph, measure: str = "communicability", t: float = 1.0) -> Floats:
    """Distances ``d_ij = (h_ii + h_jj - h_ij - h_ji) / 2`` (n, n) with h the entrywise logarithm of a proximity.

    Raises:
        InvalidDataError: a graph with disconnected parts, between which proximities are zero; entries below the
            rounding of the eigenvalue decomposition.
    """
    if graph.components > 1:
        raise InvalidDataError(f"the graph has {graph.components} disconnected parts: proximities across are zero")
    matrix = proximity(graph, measure, t)
    floor = 1e-14 * float(matrix.max())
    if not (matrix > floor).all():
        i, j = np.argwhere(~(matrix > floor))[0]
        raise InvalidDataError(
            f"the {measure} proximity of nodes {i} and {j} is {matrix[i, j]:.1e}, below rounding: raise t"
        )
    h = np.log(matrix)
    own = np.diagonal(h)
    distances = 0.5 * (own[:, None] + own[None, :]) - 0.5 * (h + h.T)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)


def repair(distances: Floats) -> RepairedKernel:
    """The centred kernel ``-J d J`` of distances (n, n), negative eigenvalues set to zero.

    Entrywise logarithms of proximities are in general no kernels.

    Raises:
        InvalidDataError: not a finite, symmetric matrix with a diagonal of zeros, as distances have.

    Warns:
        DataWarning: eigenvalues were clipped; how many, and how much they weighed.
    """
    distances = as_matrix(distances, "distances", len(distances))
    largest = float(np.abs(distances).max()) if distances.size else 0.0
    if (np.abs(distances - distances.T) > 1e-10 * largest).any():
        raise InvalidDataError("distances must be symmetric: take (d + d.T) / 2 if that is what is meant")
    if (np.abs(np.diagonal(distances)) > 1e-10 * largest).any():
        raise InvalidDataError("distances must be zero on the diagonal: repair takes log_distances, not proximities")
    centred = distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()
    values, vectors = scipy.linalg.eigh(-0.5 * (centred + centred.T))
    tolerance = 1e-12 * float(np.abs(values).max()) if values.size else 0.0
    negative = values < -tolerance
    kept = np.maximum(values, 0.0)
    matrix = (vectors * kept) @ vectors.T
    norm = max(float(np.sqrt((values**2).sum())), 1e-300)
    found = RepairedKernel(
        matrix=0.5 * (matrix + matrix.T),
        clipped=int(negative.sum()),
        share=float(-values[negative].sum() / max(float(np.abs(values).sum()), 1e-300)),
        distance=float(np.sqrt((values[negative] ** 2).sum()) / norm),
    )
    if found.clipped:
        warnings.warn(
            f"{found.clipped} of {len(values)} eigenvalues were negative ({100 * found.share:.2g} % of the spectrum) "
            "and were set to zero: the kernel is not that of the distances any more",
            DataWarning,
            stacklevel=2,
        )
    return found
