"""Geometry: point clouds, meshes, graphs and cell complexes, their Laplacians and spectral bases."""

from gpkit.geometry.frames import DimensionEvidence
from gpkit.geometry.laplacian import Laplacian
from gpkit.geometry.manifold import Location, Manifold, ManifoldDiagnostics
from gpkit.geometry.mesh import Mesh
from gpkit.geometry.point_cloud import PointCloud, connected_parts
from gpkit.geometry.sampling import furthest_point_sample
from gpkit.geometry.spectral_basis import Extension, SpectralBasis

__all__ = [
    "DimensionEvidence",
    "Extension",
    "Laplacian",
    "Location",
    "Manifold",
    "ManifoldDiagnostics",
    "Mesh",
    "PointCloud",
    "SpectralBasis",
    "connected_parts",
    "furthest_point_sample",
]
