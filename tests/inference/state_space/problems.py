"""Problems that the tests of both backends share."""

from __future__ import annotations

import torch

from gpkit.kernels import DRWKernel, MaternKernel, ScaleKernel, SHOKernel
from tests.factories import DriverResponse

# The compiled loops are specialised to short sizes: one function and blocks of one, two of two, any number of three,
# and anything else.
KERNELS = {
    "one block of one": lambda: [DRWKernel(0.8)],
    "shared, blocks of two": lambda: [MaternKernel(1.5, lengthscale=0.7)] * 2,
    "shared, blocks of three": lambda: [MaternKernel(2.5, lengthscale=1.1)] * 4,
    "each its own": lambda: [SHOKernel(1.3, 0.7), ScaleKernel(MaternKernel(0.5), 2.0), MaternKernel(2.5), DRWKernel()],
    "sums": lambda: [ScaleKernel(SHOKernel(2.0, 3.0), 0.7) + DRWKernel(3.0), MaternKernel(2.5)],
    "products": lambda: [DRWKernel(2.0) * SHOKernel(1.0, 2.0) * MaternKernel(1.5)],
    "given state spaces": lambda: [DriverResponse(1.0, 0.4, 0.8), MaternKernel(1.5) + DriverResponse(0.7, 0.2, 0.3)],
}


def coordinates(kind: str, n: int, generator: torch.Generator) -> torch.Tensor:
    """Sorted coordinates (n,) of a kind."""
    x = torch.rand(n, generator=generator).cumsum(0)
    if kind == "ties":
        x = (x * 2.0).round() / 2.0
    elif kind == "gaps":
        x = torch.cat([x[: n // 3], x[n // 3 : n // 2] + 1e9, x[n // 2 :] + 1e12])
    elif kind == "crowded":
        x = x * 1e-9
    return x


def sites(kind: str, n: int, functions: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Precisions (n, R, R) and informations (n, R) of a kind."""
    root = torch.randn(n, functions, functions, generator=generator)
    information = torch.randn(n, functions, generator=generator)
    if kind == "singular":
        root[..., 1:] = 0.0
    elif kind == "singular in range":
        root[..., 1:] = 0.0
        information = (root @ information.unsqueeze(-1)).squeeze(-1)
    elif kind == "precise":
        root = root * 1e3
        information = (root @ root.mT @ information.unsqueeze(-1)).squeeze(-1)
    precision = root @ root.mT
    if kind == "zero":
        precision, information = torch.zeros_like(precision), torch.zeros_like(information)
    elif kind == "sparse":
        precision[::2], information[::2] = 0.0, 0.0
    elif kind == "no precision":
        precision = torch.zeros_like(precision)
    return precision, information
