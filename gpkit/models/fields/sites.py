"""Places of a field: frames, coordinates and basis functions at nodes, or at points between them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.errors import DataWarning
from gpkit.geometry import Location, Manifold, SpectralBasis

__all__ = ["Sites", "node_sites", "point_sites"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sites:
    """m places with what covariances need to know about them.

    Attributes:
        frames: Tangent frames, (m, D, d); ones (m, 1, 1) for scalar fields.
        points: Coordinates in the ambient space, (m, D); None on graphs without coordinates.
        features: Values of basis functions by the name of the basis, each (m, d, k).
        far: Places of which the nodes know nothing, (m,).
        distance: To the nearest node, (m,).
        nodes: Number of the node that a place is, or -1, (m,).
        location: What the manifold said about places between nodes; None at nodes.
    """

    frames: Tensor
    points: Tensor | None
    features: Mapping[str, Tensor]
    far: NDArray[np.bool_]
    distance: Array
    nodes: NDArray[np.int64]
    location: Any = None

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    @property
    def d(self) -> int:
        """Values per place."""
        return int(self.frames.shape[2])

    @property
    def rows(self) -> int:
        """Number of scalar values, m d."""
        return len(self) * self.d

    def take(self, index: Any) -> Sites:
        """Some of the places, by a slice or an array of positions."""
        return dataclasses.replace(
            self,
            frames=self.frames[index],
            points=None if self.points is None else self.points[index],
            features={name: values[index] for name, values in self.features.items()},
            far=self.far[index],
            distance=self.distance[index],
            nodes=self.nodes[index],
            location=None,
        )

    def chunks(self, rows: int) -> list[Sites]:
        """The places in pieces of about ``rows`` values."""
        step = max(1, rows // self.d)
        return [self.take(slice(first, first + step)) for first in range(0, max(len(self), 1), step)]


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def node_sites(
    frames: Array, points: Array | None, bases: Mapping[str, SpectralBasis], nodes: NDArray[np.int64]
) -> Sites:
    """Places that are nodes.

    Args:
        frames: Of all nodes, (n, D, d).
        points: Of all nodes, (n, D), or None.
        bases: Bases by name.
        nodes: Which, (m,).
    """
    return Sites(
        frames=_tensor(frames[nodes]),
        points=None if points is None else _tensor(points[nodes]),
        features={name: _tensor(basis.functions[nodes]) for name, basis in bases.items()},
        far=np.zeros(len(nodes), dtype=np.bool_),
        distance=np.zeros(len(nodes)),
        nodes=nodes,
    )


def point_sites(manifold: Manifold, bases: Mapping[str, SpectralBasis], points: Any, *, scalar: bool = False) -> Sites:
    """Places anywhere on a manifold, by Nystrom extension of the bases.

    Args:
        manifold: Where the nodes are.
        bases: Bases by name.
        points: (m, D).
        scalar: Whether the field is a function, whose frames are ones.
    """
    location: Location = manifold.locate(points)
    with warnings.catch_warnings():
        # Said once by the model, with what it means for the kernel: far places, and variance lost in damped modes.
        warnings.simplefilter("ignore", DataWarning)
        features = {name: _tensor(basis.extend(location).features) for name, basis in bases.items()}
    frames = np.ones((len(location), 1, 1)) if scalar else location.frames
    return Sites(
        frames=_tensor(frames),
        points=_tensor(location.points),
        features=features,
        far=location.far,
        distance=location.distance,
        nodes=location.nodes,
        location=location,
    )
