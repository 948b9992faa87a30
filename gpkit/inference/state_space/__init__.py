"""Markov Gaussian processes with Gaussian sites: the engine of models whose functions live on ordered coordinates.

:func:`smooth`, :func:`filter` and :func:`sample` take kernels, coordinates and sites (a precision and an information
at each coordinate) and return the evidence, posterior moments and draws, in linear time.
"""

from gpkit.inference.state_space.approximate import ApproximatePosterior, approximate_posterior
from gpkit.inference.state_space.engine import filter, sample, smooth
from gpkit.inference.state_space.nodes import Nodes, insert_nodes
from gpkit.inference.state_space.paths import KernelBlocks, MarkovPaths, kernel_blocks, markov_paths
from gpkit.inference.state_space.repeated import RepeatedPath
from gpkit.inference.state_space.results import FilterResult, SmoothResult

__all__ = [
    "ApproximatePosterior",
    "FilterResult",
    "KernelBlocks",
    "MarkovPaths",
    "Nodes",
    "RepeatedPath",
    "SmoothResult",
    "approximate_posterior",
    "filter",
    "insert_nodes",
    "kernel_blocks",
    "markov_paths",
    "sample",
    "smooth",
]
