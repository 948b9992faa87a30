"""Manifolds known by points only: proximity graph, local frames, self-tuned and calibrated weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpkit.checks import positive_integer
from gpkit.errors import InvalidDataError
from gpkit.geometry.checks import Floats, Integers, as_points, some
from gpkit.geometry.frames import DimensionEvidence, estimate_dimension, local_frames, node_frames
from gpkit.geometry.manifold import Location, Manifold
from gpkit.geometry.neighbours import (
    Neighbourhoods,
    bandwidths,
    component_labels,
    gaussian_weights,
    joined_edges,
    undirected_edges,
)
from gpkit.geometry.transport import determinants, polar

__all__ = ["PointCloud", "as_manifold", "connected_parts"]

_FAR = 3.0
"""A place is far from the cloud if its nearest node is further away than this many of that node's bandwidths."""
_OFF = 1.0
"""And if it is further off the nearest node's tangent space than this many."""


class PointCloud(Manifold):
    r"""A manifold known by n points on it.

    Points are joined to their nearest neighbours, but for those of outliers and small groups that would be joined by
    edges without weight only, with weights :math:`w_{ij}=(h_ih_j)^{(d-2)/2}
    e^{-|x_i-x_j|^2/(h_ih_j)}`, where h is the distance to the middle neighbour. Each node is given the mass
    :math:`\sum_j w_{ij}|x_i-x_j|^2/2d`, with which ``S u = lam M u`` is the Laplacian in units of the data whatever the
    density of the points. Frames are local principal components; neighbouring frames are joined by the rotation that
    brings them closest.

    Args:
        points: (n, D) coordinates; duplicates are kept and counted.
        dim: dimension d of the manifold, always honoured; "auto" takes it from the local spectra.
        n_neighbors: neighbours of each point in the graph.
        weights: "gaussian" (above) or "binary" (1 for every edge, still calibrated).
        frame_neighbors: neighbours that make a frame; by default 15 or more in high dimension, and with ``dim="auto"``
            as many as show the dimension most clearly, which are more if the points are noisy.
        components: "refuse" or "keep" a cloud that falls into disconnected parts.

    Raises:
        InvalidDataError: coordinates that are not finite, too few points, disconnected parts, neighbourhoods that do
            not span d directions.

    Warns:
        DataWarning: of duplicates, of outliers, of frames whose neighbourhood was enlarged, of a doubtful dimension.

    References:
        Zelnik-Manor & Perona (2004), NeurIPS 17 (self-tuned weights); Singer & Wu (2012), CPAM 65, 1067 (connection
        Laplacian); Coifman & Lafon (2006), ACHA 21, 5 (density).
    """

    kind = "point cloud"
    _parts_hint = "drop outliers, raise n_neighbors, model each part by itself (connected_parts gives their nodes)"

    def __init__(
        self,
        points: Any,
        dim: int | str = "auto",
        n_neighbors: int = 20,
        weights: str = "gaussian",
        *,
        frame_neighbors: int | None = None,
        components: str = "refuse",
    ) -> None:
        coordinates = as_points(points)
        self.n_neighbors = positive_integer(n_neighbors, "n_neighbors")
        if weights not in ("gaussian", "binary"):
            raise InvalidDataError(f"weights must be 'gaussian' or 'binary', got {weights!r}")
        self.weights = weights
        self._nodes = Neighbourhoods(coordinates)
        around = self._nodes.of_nodes(self.n_neighbors)
        distances, indices = around
        repairs = _duplicates(distances)
        d, evidence = self._choose_dimension(dim, coordinates)
        if evidence is not None:
            self.dimension_evidence = evidence
            if not evidence.agrees:
                repairs.append(
                    f"the dimension is uncertain: {evidence.dim} was taken from the local spectra "
                    f"({100 * evidence.votes.max():.0f} % of the points), neighbour distances suggest "
                    f"{evidence.likelihood:.2f}; pass dim= if you know it"
                )
        if frame_neighbors is not None:
            count = positive_integer(frame_neighbors, "frame_neighbors", d)
        elif evidence is not None and evidence.neighbors > max(15, self.n_neighbors) and d < coordinates.shape[1]:
            count = min(evidence.neighbors, 8 * max(15, self.n_neighbors))  # smaller ones see more noise than manifold
        else:
            count = max(15, 3 * d)
        self.frame_neighbors = min(count, len(coordinates) - 1)
        if self.frame_neighbors > self.n_neighbors:
            around = self._nodes.of_nodes(self.frame_neighbors)
        near = slice(0, self.frame_neighbors)
        frames, spectrum, enlarged = node_frames(self._nodes, around[0][:, near], around[1][:, near], d)
        if enlarged.size:
            repairs.append(
                f"the neighbourhoods of {enlarged.size} points did not span {d} directions and were enlarged "
                f"(points {some(enlarged)})"
            )
        self.frame_residual = float((1.0 - spectrum[:, :d].sum(1) / np.maximum(spectrum.sum(1), 1e-300)).mean())
        self._bandwidth = bandwidths(distances)
        repairs += _outliers(distances[:, 0], self._bandwidth[indices[:, 0]])
        edges = joined_edges(coordinates, undirected_edges(indices), self._bandwidth)
        edge_weights, mass, self._unit = self._calibrate(coordinates, edges, d)
        super().__init__(coordinates, frames, edges, edge_weights, mass, components=components, repairs=tuple(repairs))
        self._face_outwards()
        self._announce()

    def _choose_dimension(self, dim: int | str, points: Floats) -> tuple[int, DimensionEvidence | None]:
        ambient = points.shape[1]
        if dim == "auto":
            count = min(max(15, self.n_neighbors), len(points) - 1)
            evidence = estimate_dimension(self._nodes, count)
            return evidence.dim, evidence
        if isinstance(dim, str):
            raise InvalidDataError(f"dim must be an integer or 'auto', got {dim!r}")
        d = positive_integer(dim, "dim")
        if d > ambient:
            raise InvalidDataError(f"dim = {d} exceeds the {ambient} coordinates of the points")
        return d, None

    def _raw_weights(self, squared: Floats, h_rows: Floats, h_columns: Floats, d: int) -> Floats:
        if self.weights == "binary":
            return np.ones_like(squared)
        return gaussian_weights(squared, h_rows, h_columns, d)

    def _calibrate(self, points: Floats, edges: Integers, d: int) -> tuple[Floats, Floats, float]:
        """Weights and masses such that the mean mass is 1; and the mean mass before that."""
        i, j = edges[:, 0], edges[:, 1]
        squared = ((points[i] - points[j]) ** 2).sum(1)
        weights = self._raw_weights(squared, self._bandwidth[i], self._bandwidth[j], d)
        moments = weights * squared
        mass = (np.bincount(i, moments, len(points)) + np.bincount(j, moments, len(points))) / (2.0 * d)
        alone = np.bincount(edges.ravel(), minlength=len(points)) == 0
        mass[alone] = mass[~alone].mean() if not alone.all() else 1.0
        if not (mass > 0.0).all():
            raise InvalidDataError(
                f"points {some(np.flatnonzero(mass <= 0.0))} coincide with all of their neighbours: merge copies"
            )
        unit = float(mass.mean())
        return weights / unit, mass / unit, unit

    def _face_outwards(self) -> None:
        """Of the two orientations of a surface in space take the one whose normals point away from the centre."""
        if self.dim != 2 or self.ambient_dim != 3 or not self.orientable:
            return
        outward = ((self.points - self.points.mean(0)) * self.normals).sum(1)
        flip = np.array([np.sum(outward[self.component_labels == c]) < 0.0 for c in range(self.components)])
        signs = np.where(flip[self.component_labels], -1.0, 1.0)
        self.frames[:, :, -1] *= signs[:, None]
        self.transports[:, -1, :] *= signs[self.edges[:, 0], None]
        self.transports[:, :, -1] *= signs[self.edges[:, 1], None]

    def locate(self, points: Any) -> Location:
        """Places (m, D) seen from the nodes, with frames of their own from the nodes around them.

        Places further than three bandwidths from their nearest node, or further than one off its tangent space, are
        flagged as far.
        """
        places = as_points(points, columns=self.ambient_dim) if np.size(points) else np.zeros((0, self.ambient_dim))
        count = max(self.n_neighbors, self.frame_neighbors)
        distances, indices = self._nodes.of_points(places, count)
        frame_part = slice(0, self.frame_neighbors)
        frames, _ = local_frames(places, self.points, distances[:, frame_part], indices[:, frame_part], self.dim)
        part = slice(0, self.n_neighbors)
        distances, indices = distances[:, part], indices[:, part]
        h = bandwidths(distances)
        weights = self._raw_weights(distances**2, h[:, None], self._bandwidth[indices], self.dim) / self._unit
        # Right-handed like the nearest node: the sign of the last direction is free.
        nearest = self.frames[indices[:, 0]]
        turn, _ = polar(np.einsum("mai,maj->mij", frames, nearest))
        frames[:, :, -1] *= determinants(turn)[:, None]
        on_node = distances[:, 0] <= 1e-12 * max(self.scale, 1e-300)
        frames[on_node] = nearest[on_node]
        products = np.einsum("mai,mkaj->mkij", frames, self.frames[indices])
        rotations, _ = polar(products.reshape(-1, self.dim, self.dim))
        step = places - self.points[indices[:, 0]]
        off = np.linalg.norm(step - np.einsum("mai,mbi,mb->ma", nearest, nearest, step), axis=1)
        reach = self._bandwidth[indices[:, 0]]
        return Location(
            points=places,
            neighbours=indices,
            weights=weights,
            frames=frames,
            transports=rotations.reshape(products.shape),
            mass=(weights * distances**2).sum(1) / (2.0 * self.dim),
            distance=distances[:, 0],
            far=(distances[:, 0] > _FAR * reach) | (off > _OFF * reach),
            nodes=np.where(on_node, indices[:, 0], -1),
        )


def _duplicates(distances: Floats) -> list[str]:
    copies = np.flatnonzero(distances[:, 0] == 0.0)
    if not copies.size:
        return []
    return [f"{copies.size} points coincide with another point (points {some(copies)}); they are kept as they are"]


def _outliers(nearest: Floats, reach: Floats) -> list[str]:
    """What is said of points that would be far places if they were not nodes."""
    far = np.flatnonzero((nearest > _FAR * reach) & (reach > 0.0))
    if not far.size:
        return []
    return [
        f"{far.size} points are further from the others than {_FAR:g} times the distance between those (points "
        f"{some(far)}): the manifold is not known there, drop outliers"
    ]


def connected_parts(points: Any, n_neighbors: int = 20) -> list[Integers]:
    """Nodes of each connected part of the proximity graph, largest part first, to be modelled one by one."""
    coordinates = as_points(points)
    distances, indices = Neighbourhoods(coordinates).of_nodes(positive_integer(n_neighbors, "n_neighbors"))
    edges = joined_edges(coordinates, undirected_edges(indices), bandwidths(distances))
    count, labels = component_labels(edges, len(coordinates))
    parts = [np.flatnonzero(labels == c) for c in range(count)]
    return sorted(parts, key=len, reverse=True)


def as_manifold(domain: Any) -> Manifold:
    """A manifold as it is; a table of points (n, D) as the cloud of them.

    Raises:
        InvalidDataError: neither, or points that cannot be used.
    """
    if isinstance(domain, Manifold):
        return domain
    if type(domain).__module__.startswith("gpkit."):
        raise InvalidDataError(
            f"vector fields live on a PointCloud, a Mesh or points (n, D), not on a {type(domain).__name__}: functions "
            "on it are modelled by ScalarFieldGP, flows along its edges by EdgeFlowGP"
        )
    return PointCloud(domain)
