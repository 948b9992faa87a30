"""Kernels given by their power spectrum: mixtures of bell-shaped lines, Gaussian or heavy-tailed."""

from __future__ import annotations

import math
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.constraints import Positive
from gpytorch.priors import Prior
from linear_operator.operators import LinearOperator, to_linear_operator
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.kernels.jeffreys import JeffreysPrior
from gpkit.kernels.periodogram import SpectralLines, pick_lines
from gpkit.kernels.stationary import Envelope, GaussianEnvelope, MaternEnvelope, mixture_derivatives
from gpkit.kernels.structured import StructuredKernel
from gpkit.kernels.uniform_grid import uniform_cells
from gpkit.operators.dense import DenseCovarianceLinearOperator
from gpkit.operators.structured import StructuredLinearOperator, common_batch
from gpkit.operators.toeplitz import ToeplitzLinearOperator

__all__ = ["SpectralMixtureKernel"]

_CHUNK_ENTRIES = 2**22


def _log_scale() -> Positive:
    """Positive through the logarithm, in which scales of very different size are equally far apart."""
    return Positive(transform=torch.exp, inv_transform=torch.log)


class SpectralMixtureKernel(StructuredKernel):
    """``k(z) = sum_q w_q g(z; l_q) cos(2 pi mu_q z)`` of one input.

    The power spectrum is a mixture of lines at the frequencies mu_q: normal densities of scale ``1 / (2 pi l_q)`` with
    the Gaussian envelope, Student's t densities of the same scale with the other. The latter makes g a Matern function
    with twice its smoothness equal to the degrees of freedom. The variance is ``sum_q w_q``: unlike other kernels this
    one has its own scale.

    Evaluated at a uniform grid, gaps allowed, it is a :class:`~gpkit.operators.ToeplitzLinearOperator`; anywhere else
    it is dense. For several inputs take one kernel per axis in a :class:`~gpkit.kernels.GridKernel`.

    Args:
        num_mixtures: number of lines Q.
        envelope: "gaussian" or "student-t".
        degrees_of_freedom: of Student's t, any positive number; 5 is Matern-5/2, and infinity the Gaussian. The process
            has mean-square derivatives of every order below half of it.
        weights_prior: "jeffreys" (default), whose maximum a posteriori estimate sends lines that the data do not ask
            for to zero; None, which is flat in the logarithm of a weight; or any GPyTorch prior of the weights.
        batch_shape: shape of independent copies of the parameters.
        active_dims: the input dimension that the kernel sees.

    Raises:
        InvalidDataError: for another envelope or numbers that are not positive.

    References:
        Wilson & Adams (2013), ICML, arXiv:1302.4245 (Gaussian lines); Fang et al. (2024), ICLR, arXiv:2311.04465
        (Student's t lines, Jeffreys' prior).
    """

    def __init__(
        self,
        num_mixtures: int = 4,
        envelope: str = "gaussian",
        degrees_of_freedom: float = 5.0,
        weights_prior: str | Prior | None = "jeffreys",
        batch_shape: torch.Size | None = None,
        active_dims: Any = None,
    ) -> None:
        if num_mixtures < 1:
            raise InvalidDataError(f"a spectral mixture needs at least one line, got num_mixtures={num_mixtures}")
        if envelope not in ("gaussian", "student-t"):
            raise InvalidDataError(f"envelope is 'gaussian' or 'student-t', got {envelope!r}")
        super().__init__(batch_shape=torch.Size() if batch_shape is None else batch_shape, active_dims=active_dims)
        self.num_mixtures = num_mixtures
        gaussian = envelope == "gaussian" or math.isinf(degrees_of_freedom)
        self.envelope: Envelope = GaussianEnvelope() if gaussian else MaternEnvelope(0.5 * degrees_of_freedom)
        shape = (*self.batch_shape, num_mixtures)
        start = torch.linspace(0.0, 1.0, num_mixtures, dtype=torch.float64)
        for name in ("weights", "lengthscales"):
            self.register_parameter(f"raw_{name}", torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)))
            self.register_constraint(f"raw_{name}", _log_scale())
        self.register_parameter("raw_frequencies", torch.nn.Parameter(start.expand(shape).clone()))
        self.weights = torch.full(shape, 1.0 / num_mixtures, dtype=torch.float64)
        if isinstance(weights_prior, str):
            if weights_prior != "jeffreys":
                raise InvalidDataError(f"weights_prior is 'jeffreys', None or a prior, got {weights_prior!r}")
            weights_prior = JeffreysPrior()
        if weights_prior is not None:
            self.register_prior("weights_prior", weights_prior, _read_weights, _write_weights)

    # -- parameters -----------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Tensor:
        """Variance of each line, (*batch, Q); stored as logarithms."""
        return self.raw_weights_constraint.transform(self.raw_weights)

    @weights.setter
    def weights(self, value: Any) -> None:
        self._set("weights", value)

    @property
    def lengthscales(self) -> Tensor:
        """Lengths over which each line keeps its phase, (*batch, Q); stored as logarithms."""
        return self.raw_lengthscales_constraint.transform(self.raw_lengthscales)

    @lengthscales.setter
    def lengthscales(self, value: Any) -> None:
        self._set("lengthscales", value)

    @property
    def frequencies(self) -> Tensor:
        """Frequency of each line in cycles per unit of the input, (*batch, Q); the sign has no meaning."""
        return self.raw_frequencies

    @frequencies.setter
    def frequencies(self, value: Any) -> None:
        self.initialize(raw_frequencies=self._expanded(value))

    def _expanded(self, value: Any) -> Tensor:
        tensor = torch.as_tensor(value, dtype=self.raw_weights.dtype, device=self.raw_weights.device)
        return tensor.expand(self.raw_weights.shape).clone()

    def _set(self, name: str, value: Any) -> None:
        tensor = self._expanded(value)
        if not bool((tensor > 0.0).all()):
            raise InvalidDataError(f"SpectralMixtureKernel.{name} must be positive, got {tensor.tolist()}")
        self.initialize(**{f"raw_{name}": getattr(self, f"raw_{name}_constraint").inverse_transform(tensor)})

    @property
    def is_stationary(self) -> bool:
        """Depends on differences of inputs only."""
        return True

    # -- what it is -----------------------------------------------------------------------------------------------

    def derivatives(self, lag: Tensor, order: int) -> Tensor:
        """Derivatives with respect to the signed lag, (order + 1, *batch, *s) at lags (*s)."""
        lag = lag.expand(*self.batch_shape, *lag.shape)
        return mixture_derivatives(self.envelope, lag, self.weights, self.lengthscales, self.frequencies, order)

    def autocovariance(self, lag: Tensor) -> Tensor:
        """k at lags (*s) of either sign: (*batch, *s)."""
        return self.derivatives(torch.as_tensor(lag, dtype=self.raw_weights.dtype), 0)[0]

    def psd(self, frequency: Tensor) -> Tensor:
        """One-sided power spectral density at frequencies f >= 0, in cycles per unit: integrates to the variance."""
        f = torch.as_tensor(frequency, dtype=self.raw_weights.dtype)
        f = f.reshape(*([1] * len(self.batch_shape)), *f.shape, 1)
        spread = (*self.batch_shape, *([1] * (f.dim() - 1 - len(self.batch_shape))), self.num_mixtures)
        w, scale, mu = (p.reshape(spread) for p in (self.weights, self.lengthscales, self.frequencies.abs()))
        lines = self.envelope.spectral_density(f - mu, scale) + self.envelope.spectral_density(f + mu, scale)
        return (w * lines).sum(-1)

    def _covariance(self, lag: Tensor) -> Tensor:
        """k at lags (*batch, M, N), by rows of bounded size."""
        batch = common_batch(self.batch_shape, lag.shape[:-2])
        lag = lag.expand(*batch, *lag.shape[-2:])
        shape = (*batch, self.num_mixtures)
        w, scale, mu = (p.expand(shape) for p in (self.weights, self.lengthscales, self.frequencies))
        rows = max(1, _CHUNK_ENTRIES // max(batch.numel() * lag.shape[-1] * self.num_mixtures, 1))
        parts = [mixture_derivatives(self.envelope, part, w, scale, mu)[0] for part in lag.split(rows, dim=-2)]
        return torch.cat(parts, dim=-2) if parts else lag

    def _column(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 1:
            raise InvalidDataError(
                f"SpectralMixtureKernel is a covariance of one input, got {x.shape[-1]}; choose one with active_dims, "
                "or give each axis its own kernel in a GridKernel"
            )
        return x[..., 0]

    def gram(self, x: Tensor) -> StructuredLinearOperator:
        """Covariance operator of inputs (*batch, N, 1) with themselves."""
        line = self._column(x)
        found = uniform_cells(line)
        batch = common_batch(self.batch_shape, line.shape[:-1])
        if found is None:
            matrix = self._covariance(line.unsqueeze(-1) - line.unsqueeze(-2))
            return DenseCovarianceLinearOperator.from_matrix(matrix)
        step, cells = found
        column = self.derivatives(step * torch.arange(cells.count, dtype=line.dtype, device=line.device), 0)[0]
        zero = torch.zeros(*batch, cells.rows, dtype=column.dtype, device=column.device)
        return ToeplitzLinearOperator(zero, column.expand(*batch, cells.count), cells=cells)

    def cross(self, x1: Tensor, x2: Tensor) -> LinearOperator:
        """Covariance between inputs (*batch, M, 1) and (*batch, N, 1), dense."""
        lag = self._column(x1).unsqueeze(-1) - self._column(x2).unsqueeze(-2)
        return to_linear_operator(self._covariance(lag))

    def pairwise(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Covariance of paired inputs (*batch, N, 1), (*batch, N)."""
        lag = self._column(x1) - self._column(x2)
        return self._covariance(lag.unsqueeze(-2)).squeeze(-2)

    # -- data -----------------------------------------------------------------------------------------------------

    def initialize_from_data(self, x: Tensor, y: Tensor) -> SpectralLines:
        """Set the parameters from the periodogram of data.

        The strongest sinusoids become lines, narrow as the data's extent allows; one line at frequency zero takes what
        is left. Lines for which nothing was found are spread over the observed band with small weights.

        Args:
            x: (N,) or (N, 1) positions, any spacing.
            y: (N,) values, or (N, M) for M series with one spectrum; NaN for missing.

        Returns:
            The lines that were found.

        Raises:
            InvalidDataError: for fewer than four points.
        """
        lines = pick_lines(x.detach().cpu().numpy(), y.detach().cpu().numpy(), self.num_mixtures - 1)
        total = max(float(lines.variances.sum()) + lines.remainder, 1e-300)
        rest = self.num_mixtures - 1 - lines.frequencies.size
        spare = lines.nyquist * (np.arange(rest) + 1.0) / (rest + 1.0)
        weights = [max(lines.remainder, 1e-6 * total), *lines.variances.tolist(), *[1e-3 * total] * rest]
        narrow, broad = lines.length / math.pi, 0.1 * lines.length
        lengths = [broad] + [narrow] * lines.frequencies.size + [broad] * rest
        self.weights = np.array(weights)
        self.lengthscales = np.array(lengths)
        self.frequencies = np.concatenate([[0.0], lines.frequencies, spare])
        prior = getattr(self, "weights_prior", None)
        if isinstance(prior, JeffreysPrior):
            prior.floor.fill_(1e-8 * total)
        return lines

    def pruned(self, threshold: float = 1e-6) -> SpectralMixtureKernel:
        """A kernel of the lines that hold at least this part of the variance (in any element of a batch)."""
        share = (self.weights / self.weights.sum(-1, keepdim=True)).detach()
        keep = (share.reshape(-1, self.num_mixtures).amax(0) >= threshold).nonzero().squeeze(-1)
        dof = 2.0 * self.envelope.smoothness if isinstance(self.envelope, MaternEnvelope) else math.inf
        new = SpectralMixtureKernel(
            int(keep.numel()),
            "gaussian" if math.isinf(dof) else "student-t",
            dof,
            weights_prior=getattr(self, "weights_prior", None),
            batch_shape=self.batch_shape,
            active_dims=self.active_dims,
        )
        for name in ("raw_weights", "raw_lengthscales", "raw_frequencies"):
            getattr(new, name).data = getattr(self, name).detach()[..., keep].clone()
        return new


def _read_weights(module: gpytorch.Module) -> Tensor:
    return module.weights


def _write_weights(module: gpytorch.Module, value: Any) -> None:
    module.weights = value
