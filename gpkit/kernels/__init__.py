"""Kernels: ordinary GPyTorch kernels that say which structured operator they become."""

from gpkit.kernels.base import StateSpaceKernel
from gpkit.kernels.bins import BinAveragedKernel
from gpkit.kernels.composite import ProductKernel, ScaleKernel, SumKernel, as_state_space
from gpkit.kernels.differential import DifferentialOperator, derivative_covariance, derivative_variance
from gpkit.kernels.geometric import GeometricKernel
from gpkit.kernels.graph import GraphKernel, HodgeKernel, WalkKernel, walk_modulation
from gpkit.kernels.grid import GridKernel
from gpkit.kernels.jeffreys import JeffreysPrior
from gpkit.kernels.markov import MarkovKernel
from gpkit.kernels.matern import DRWKernel, MaternKernel
from gpkit.kernels.oscillators import CeleriteKernel, CosineKernel, LorentzianKernel, RotationKernel, SHOKernel
from gpkit.kernels.periodic import PeriodicKernel
from gpkit.kernels.projected import ProjectedKernel
from gpkit.kernels.spectral import ConnectionLaplacianKernel, SpectralKernel
from gpkit.kernels.spectral_mixture import SpectralMixtureKernel
from gpkit.kernels.state_space import StateSpace
from gpkit.kernels.stationary import GaussianEnvelope, MaternEnvelope
from gpkit.kernels.stationary_derivatives import kernel_derivatives

__all__ = [
    "BinAveragedKernel",
    "CeleriteKernel",
    "ConnectionLaplacianKernel",
    "CosineKernel",
    "DRWKernel",
    "DifferentialOperator",
    "GaussianEnvelope",
    "GeometricKernel",
    "GraphKernel",
    "GridKernel",
    "HodgeKernel",
    "JeffreysPrior",
    "LorentzianKernel",
    "MarkovKernel",
    "MaternEnvelope",
    "MaternKernel",
    "PeriodicKernel",
    "ProductKernel",
    "ProjectedKernel",
    "RotationKernel",
    "SHOKernel",
    "ScaleKernel",
    "SpectralKernel",
    "SpectralMixtureKernel",
    "StateSpace",
    "StateSpaceKernel",
    "SumKernel",
    "WalkKernel",
    "as_state_space",
    "walk_modulation",
    "derivative_covariance",
    "derivative_variance",
    "kernel_derivatives",
]
