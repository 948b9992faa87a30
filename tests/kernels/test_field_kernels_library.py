"""GPyTorch's own suite for kernels of fields: inputs are node numbers, one column."""

from __future__ import annotations

import unittest
from typing import Any

import gpytorch
import torch
from gpytorch.test.base_kernel_test_case import BaseKernelTestCase

from gpkit.geometry import PointCloud
from gpkit.kernels import ConnectionLaplacianKernel, ProjectedKernel, SpectralKernel
from tests.models.fields.conftest import fibonacci

CLOUD = PointCloud(fibonacci(160), dim=2)
SCALAR, CONNECTION = CLOUD.scalar_basis(15), CLOUD.connection_basis(15)


class _Nodes(BaseKernelTestCase):
    """Node numbers wherever the suite takes random inputs; other columns are for ``active_dims`` to leave out."""

    def create_data_no_batch(self) -> torch.Tensor:
        return torch.arange(40).reshape(20, 2).repeat(1, 5).double() % 60

    def create_data_single_batch(self) -> torch.Tensor:
        return torch.tensor([[3.0, 1.0, 4.0], [1.0, 5.0, 9.0]]).double().unsqueeze(-1)

    def create_data_double_batch(self) -> torch.Tensor:
        return ((torch.arange(3 * 2 * 10) * 7) % 60).reshape(3, 2, 10, 1).double()

    def test_active_dims_list(self) -> None:
        x = self.create_data_no_batch()
        chosen, plain = self.create_kernel_no_ard(active_dims=[3]), self.create_kernel_no_ard()
        self.assertAllClose(chosen(x).to_dense(), plain(x[:, [3]]).to_dense())

    def test_active_dims_range(self) -> None:
        x = self.create_data_no_batch()
        chosen, plain = self.create_kernel_no_ard(active_dims=list(range(4, 5))), self.create_kernel_no_ard()
        self.assertAllClose(chosen(x).to_dense(), plain(x[:, 4:5]).to_dense())


class TestSpectralKernel(_Nodes, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs: Any) -> gpytorch.kernels.Kernel:
        return SpectralKernel(SCALAR, "matern", lengthscale=0.4, **kwargs)


class TestConnectionLaplacianKernel(_Nodes, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs: Any) -> gpytorch.kernels.Kernel:
        return ConnectionLaplacianKernel(CONNECTION, "heat", lengthscale=0.4, **kwargs)


class TestProjectedKernel(_Nodes, unittest.TestCase):
    def create_kernel_no_ard(self, **kwargs: Any) -> gpytorch.kernels.Kernel:
        active = kwargs.pop("active_dims", None)
        kernel = ProjectedKernel(gpytorch.kernels.MaternKernel(2.5, **kwargs).double(), CLOUD)
        if active is not None:
            kernel.register_buffer("active_dims", torch.tensor(active))
        return kernel
