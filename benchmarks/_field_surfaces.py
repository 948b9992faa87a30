"""Surfaces of the model zoo with true vectors, for the tables of coverage and of singular points."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models" / "rvgp"))

import truth

from gpkit.geometry import Manifold, PointCloud

__all__ = ["DENSE_WIND", "FLOWS", "MADE", "SURFACES", "surface"]

MADE = {"swiss roll": truth.swiss_roll, "hairpin": truth.hairpin, "harmonic torus": truth.harmonic_torus}
FLOWS = "edge flows"
DENSE_WIND = "450 of the wind"
SURFACES = ("sphere", "torus", "bunny", *MADE, "wind", DENSE_WIND, FLOWS)


def surface(
    name: str, rng: np.random.Generator, n: int = 300
) -> tuple[Manifold, np.ndarray, np.ndarray, np.ndarray] | None:
    """Manifold, the nodes that count, true vectors at all nodes, and normals; None where real data are absent."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    folder = root / "vector_fields"
    if name not in MADE and not folder.is_dir():
        return None
    if name == "bunny":
        data, mesh, nodes = truth.whole_mesh(folder, name, n, rng)
        return mesh, nodes, data.vectors, data.normals
    if name in ("wind", DENSE_WIND):
        data = truth.wind_set(folder)
    elif name in MADE:
        data = MADE[name](500, rng)
    else:
        data = truth.mesh_set(folder, name, n, rng)
    return PointCloud(data.points, dim=2), np.arange(len(data.points)), data.vectors, data.normals
