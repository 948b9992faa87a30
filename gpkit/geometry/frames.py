"""Tangent frames by weighted local principal components, and the dimension that they suggest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers
from gpkit.geometry.neighbours import Neighbourhoods

__all__ = ["DimensionEvidence", "estimate_dimension", "frames_of_normals", "local_frames", "node_frames"]

_CHUNK = 20_000
_RANK = 1e-10
"""A neighbourhood spans a direction if its variance there exceeds this share of the largest one."""
_DROP, _LARGE_DROP = 4.0, 15.0
"""Ratios of successive local variances that say something about the dimension, and that settle it."""
_CENTRES = 1_000
"""Number of points whose neighbourhoods are asked for the dimension."""


@dataclass(frozen=True)
class DimensionEvidence:
    """What the neighbourhoods say about the dimension of the manifold.

    Attributes:
        dim: the dimension taken.
        likelihood: maximum-likelihood estimate from neighbour distances, not rounded (mean over points).
        votes: share of points whose local spectrum has its largest drop after each dimension, (D,).
        explained: mean cumulative share of the local variance by dimension, (D,).
        neighbors: size of the neighbourhoods that were looked at.

    References:
        Levina & Bickel (2004), NeurIPS 17 (the likelihood estimate, with MacKay & Ghahramani's averaging); Little,
        Maggioni & Rosasco (2017), ACHA 43, 504 (several scales).
    """

    dim: int
    likelihood: float
    votes: Floats
    explained: Floats
    neighbors: int

    @property
    def agrees(self) -> bool:
        """Whether most local spectra vote for the dimension taken, and neighbour distances do not speak against it."""
        return bool(self.votes.max() >= 0.6 and abs(self.likelihood - self.dim) < max(0.75, 0.25 * self.dim))


def _weights(distances: Floats) -> Floats:
    """Epanechnikov weights with a floor that keeps the rank; (m, K)."""
    reach = (1.0 + 1e-7) * distances[:, -1:]
    reach = np.where(reach > 0.0, reach, 1.0)
    return np.maximum(1.0 - (distances / reach) ** 2, 0.0) + 1e-3


def local_frames(
    centres: Floats, points: Floats, distances: Floats, indices: Integers, dim: int
) -> tuple[Floats, Floats]:
    """Leading principal directions of each neighbourhood, centred on its own point, corrected for curvature.

    Args:
        centres: (m, D).
        points: (n, D), the nodes.
        distances: (m, K), increasing.
        indices: (m, K), nodes of the neighbourhoods.
        dim: number of directions d.

    Returns:
        Frames (m, D, d) with orthonormal columns, and local variances (m, min(D, K)), decreasing.
    """
    m, ambient = centres.shape
    width = min(ambient, indices.shape[1])
    frames = np.empty((m, ambient, dim))
    spectrum = np.empty((m, width))
    for start in range(0, m, _CHUNK):
        part = slice(start, start + _CHUNK)
        weight = _weights(distances[part])
        plain = points[indices[part]] - centres[part, None]
        offsets = plain * np.sqrt(weight / weight.sum(1, keepdims=True))[..., None]
        if ambient <= indices.shape[1]:
            values, vectors = np.linalg.eigh(offsets.swapaxes(1, 2) @ offsets)
            spectrum[part] = values[:, ::-1]
            frames[part] = vectors[:, :, ::-1][:, :, :dim]
        else:
            _, singular, right = np.linalg.svd(offsets, full_matrices=False)
            spectrum[part] = singular**2
            frames[part] = right[:, :dim].swapaxes(1, 2)
        frames[part] = _bent(plain, weight, distances[part], frames[part])
    return frames, np.maximum(spectrum, 0.0)


def _bent(offsets: Floats, weights: Floats, distances: Floats, frames: Floats) -> Floats:
    """Frames (m, D, d) of the tangent spaces of quadratic surfaces through the neighbourhoods.

    Principal directions lean towards the side on which a curved surface has more neighbours. Fitting the neighbours by
    a quadratic function of their coordinates in these directions takes most of that away: its linear part is tangent.
    Neighbourhoods with too few points for the fit, or whose linear part is no frame, keep the principal directions.

    References:
        Cazals & Pouget (2005), Computer Aided Geometric Design 22, 121 (osculating jets).
    """
    m, count, ambient = offsets.shape
    d = frames.shape[2]
    first, second = np.triu_indices(d)
    terms = 1 + d + len(first)
    if d == ambient or d == 0 or count < terms + 2:
        return frames
    reach = np.where(distances[:, -1:] > 0.0, distances[:, -1:], 1.0)[..., None]
    flat = (offsets @ frames) / reach
    design = np.ones((m, count, terms))
    design[..., :d] = flat
    for column, (a, b) in enumerate(zip(first, second, strict=True)):
        np.multiply(flat[..., a], flat[..., b], out=design[..., d + column])
    weighted = (design * weights[..., None]).swapaxes(1, 2)
    normal = weighted @ design
    own = np.arange(terms)
    normal[:, own, own] += 1e-8 * np.trace(normal, axis1=1, axis2=2)[:, None] + 1e-300
    linear = np.linalg.solve(normal, weighted @ offsets)[:, :d] / reach
    q, r = np.linalg.qr(linear.swapaxes(1, 2))
    along = np.einsum("mDa,mDa->ma", q, frames)
    fine = (np.abs(np.einsum("maa->ma", r)) > 0.3).all(1) & (np.abs(along) > 0.3).all(1) & np.isfinite(q).all((1, 2))
    out = frames.copy()
    out[fine] = (q * np.where(along < 0.0, -1.0, 1.0)[:, None])[fine]
    return out


def node_frames(
    nodes: Neighbourhoods, distances: Floats, indices: Integers, dim: int
) -> tuple[Floats, Floats, Integers]:
    """Frames at every node; neighbourhoods that do not span d directions are enlarged until they do.

    Args:
        nodes: the points.
        distances: (n, K), to the neighbours that make the frames.
        indices: (n, K), these neighbours.
        dim: number of directions d.

    Returns:
        Frames (n, D, d), local variances, and the nodes whose neighbourhood was enlarged.

    Raises:
        InvalidDataError: a neighbourhood does not span d directions even at eight times the size.
    """
    points, count = nodes.points, indices.shape[1]
    frames, spectrum = local_frames(points, points, distances, indices, dim)
    short = _deficient(spectrum, dim)
    enlarged, size = short, count
    while short.size:
        size = min(2 * size, len(points) - 1)
        distances, indices = nodes.of_points(points[short], size + 1)
        frames[short], found = local_frames(points[short], points, distances[:, 1:], indices[:, 1:], dim)
        width = min(spectrum.shape[1], found.shape[1])
        spectrum[short, :width] = found[:, :width]
        short = short[_deficient(found, dim)]
        if short.size and size >= min(8 * count, len(points) - 1):
            raise InvalidDataError(
                f"the {size} points around point {short[0]} span fewer than dim = {dim} directions "
                f"({short.size} such points): lower dim, or remove repeated and collinear points"
            )
    return frames, spectrum, enlarged


def _deficient(spectrum: Floats, dim: int) -> Integers:
    return np.flatnonzero(spectrum[:, dim - 1] <= _RANK * np.maximum(spectrum[:, 0], 1e-300))


def estimate_dimension(nodes: Neighbourhoods, count: int) -> DimensionEvidence:
    """Dimension of the manifold that the points lie on: where the local spectra drop most.

    Noise fills the whole space around a point and hides the manifold in neighbourhoods that are not much larger than
    the noise; curvature fills it in large ones. Neighbourhoods of ``count`` points and their doubles (up to an eighth
    of all points) are asked, around a thousand points if there are more, and the size with the clearest drop counts.

    Raises:
        InvalidDataError: all points coincide.
    """
    n = len(nodes.points)
    if not (nodes.points != nodes.points[0]).any():
        raise InvalidDataError("all points coincide: no dimension can be estimated")
    centres = np.arange(n) if n <= _CENTRES else np.linspace(0, n - 1, _CENTRES).astype(np.int64)
    distances, indices = nodes.around(centres, min(max(count, min(16 * count, n // 8)), n - 1))
    best, clarity = None, -np.inf
    size = count
    while best is None or size <= distances.shape[1]:
        found, clear = _dimension_at(nodes.points, distances[:, :size], indices[:, :size])
        if clear > clarity:
            best, clarity = found, clear
        size *= 2
    return best


def _dimension_at(points: Floats, distances: Floats, indices: Integers) -> tuple[DimensionEvidence, float]:
    """What neighbourhoods of one size say, and how clear it is."""
    spectrum = _local_variances(points, distances, indices)
    width = spectrum.shape[1]
    share = spectrum / np.maximum(spectrum.sum(1, keepdims=True), 1e-300)
    # A drop to nothing counts as one to the floor; a flat spectrum has no drop and votes for the whole space.
    floor = np.maximum(share, 1e-6)
    votes_for, drop = np.full(len(indices), width), np.full(len(indices), _DROP)
    if width > 1:
        ratios = floor[:, :-1] / floor[:, 1:]
        # The first large drop, from the tangent space to curvature: the next one, from curvature to nothing, is larger.
        large = ratios > _LARGE_DROP
        at = np.where(large.any(1), large.argmax(1), ratios.argmax(1))
        found = ratios[np.arange(len(indices)), at]
        clear = found > _DROP
        votes_for[clear], drop[clear] = at[clear] + 1, found[clear]
    votes = np.bincount(votes_for - 1, minlength=width) / len(indices)
    dim = int(votes.argmax()) + 1
    evidence = DimensionEvidence(
        dim=dim,
        likelihood=_likelihood_dimension(distances),
        votes=votes,
        explained=share.cumsum(1).mean(0),
        neighbors=indices.shape[1],
    )
    return evidence, float(votes.max() * np.median(drop[votes_for == dim]))


def _local_variances(points: Floats, distances: Floats, indices: Integers) -> Floats:
    """Variances (m, min(D, K)) of neighbourhoods around their own means, decreasing.

    Around the mean, not the point in the middle: the noise of that one point would pass for a direction.
    """
    weight = _weights(distances)
    weight /= weight.sum(1, keepdims=True)
    offsets = points[indices]
    offsets -= np.einsum("mk,mka->ma", weight, offsets)[:, None]
    offsets *= np.sqrt(weight)[..., None]
    wide = offsets.shape[2] > offsets.shape[1]
    gram = offsets @ offsets.swapaxes(1, 2) if wide else offsets.swapaxes(1, 2) @ offsets
    return np.maximum(np.linalg.eigvalsh(gram)[:, ::-1], 0.0)


def _likelihood_dimension(distances: Floats) -> float:
    """Levina-Bickel estimate: the inverse mean of log(r_K / r_j) over all points and neighbours."""
    if distances.shape[1] < 3:
        return float("nan")
    reach = distances[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):  # points that coincide are left out
        logs = np.log(reach / distances[:, :-1])
    logs = logs[np.isfinite(logs)]
    if not logs.size or logs.mean() <= 0.0:
        return float("nan")
    # K - 1 terms of which K - 2 are free: the unbiased inverse.
    k = distances.shape[1]
    return float((k - 2.0) / (k - 1.0) / logs.mean())


def frames_of_normals(normals: Floats) -> Floats:
    """Right-handed tangent frames (n, 3, 2) of unit normals (n, 3): cross(first, second) is the normal."""
    axis = np.abs(normals).argmin(1)
    helper = np.zeros_like(normals)
    helper[np.arange(len(normals)), axis] = 1.0
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(normals, first)], axis=2)
