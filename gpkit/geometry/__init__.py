"""Geometry: point clouds, meshes, graphs and cell complexes, their Laplacians and spectral bases."""

from gpkit.geometry.cell_complex import CellComplex, HodgeBasis
from gpkit.geometry.frames import DimensionEvidence
from gpkit.geometry.graph import Graph
from gpkit.geometry.laplacian import Laplacian
from gpkit.geometry.manifold import Location, Manifold, ManifoldDiagnostics
from gpkit.geometry.mesh import Mesh
from gpkit.geometry.point_cloud import PointCloud, connected_parts
from gpkit.geometry.proximity import RepairedKernel, log_distances, proximity, repair
from gpkit.geometry.sampling import furthest_point_sample
from gpkit.geometry.spectral_basis import Extension, SpectralBasis

__all__ = [
    "CellComplex",
    "DimensionEvidence",
    "Extension",
    "Graph",
    "HodgeBasis",
    "Laplacian",
    "Location",
    "Manifold",
    "ManifoldDiagnostics",
    "Mesh",
    "PointCloud",
    "RepairedKernel",
    "SpectralBasis",
    "connected_parts",
    "furthest_point_sample",
    "log_distances",
    "proximity",
    "repair",
]
