"""Full-rank Matern kernels by sparse precision: nothing is cut off, and the cost is that of a sparse factorisation."""

from __future__ import annotations

import math
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.constraints import Positive
from linear_operator.operators import LinearOperator, to_linear_operator
from scipy import sparse
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold
from gpkit.geometry.checks import as_indices
from gpkit.geometry.laplacian import Laplacian
from gpkit.kernels.rational import rational_power
from gpkit.operators.precision_layout import PrecisionLayout
from gpkit.operators.sparse_precision import SparsePrecisionLinearOperator
from gpkit.operators.sparse_symmetric import SparseMatrix, SparsePattern

__all__ = ["MarkovKernel"]

_REMEMBERED = 4
_POWER_ERROR = 0.01
"""Relative error of a fractional power that is small beside that of any Laplacian's fast eigenvalues."""
_MOST_POLES = 12


class MarkovKernel(gpytorch.kernels.Kernel):
    r"""Matern process with precision :math:`\tau(2\nu/\ell^2+\mathcal L)^\alpha`, :math:`\alpha=\nu+d/2`.

    Integer alpha is exact. Otherwise the fractional part of the power is replaced by a sum of ``order`` poles plus a
    constant, a named approximation whose largest relative error over the spectrum is :attr:`power_error`; the process
    is then a sum of independent Markov processes, one for each pole. Observations couple them all, so that a posterior
    costs as many unknowns per node: eight times as much for twice the poles.

    Variances are 1 on average at the start value of the length scale, and follow the law of flat space elsewhere (so
    they stay near 1 for length scales that are resolved by the nodes and smaller than the manifold).

    Args:
        laplacian: of functions or vector fields.
        dim: dimension d of the manifold.
        alpha: power, larger than d / 2.
        lengthscale: start value, in units of the data.
        components: rows per node.
        manifold: for inputs that are points, to which values at the nodes around are transported and averaged.
        order: number of poles for an alpha that is not an integer; by default as few as keep the error of the power
            below 1 %.
        batch_shape: of the length scale.

    References:
        Lindgren, Rue & Lindstrom (2011), JRSS B 73, 423; Bolin, Simas & Xiong (2024), J. Comput. Graph. Stat. 33, 64
        (rational powers).
    """

    has_lengthscale = False

    def __init__(
        self,
        laplacian: Laplacian,
        dim: int,
        alpha: float = 2.0,
        lengthscale: Any = 1.0,
        components: int = 1,
        manifold: Any = None,
        order: int | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        super().__init__(batch_shape=torch.Size() if batch_shape is None else torch.Size(batch_shape))
        if not alpha > 0.5 * dim:
            raise InvalidDataError(f"alpha must exceed d / 2 = {0.5 * dim:g} for a process with variance, got {alpha}")
        if alpha > 8.0:
            raise InvalidDataError(f"alpha = {alpha} fills the precision matrix; use a heat filter on a spectral basis")
        self.dim, self.alpha, self.components, self.manifold = dim, float(alpha), components, manifold
        self.laplacian = laplacian
        start = torch.as_tensor(lengthscale, dtype=torch.float64).expand(self.batch_shape).clone()
        if not bool((start > 0.0).all()):
            raise InvalidDataError(f"lengthscale must be positive, got {start.tolist()}")
        constraint = Positive()
        self.register_parameter("raw_lengthscale", torch.nn.Parameter(constraint.inverse_transform(start)))
        self.register_constraint("raw_lengthscale", constraint)
        whole = math.floor(alpha)
        self._prepare_powers(whole, alpha - whole, order, float(start.reshape(-1)[0]))
        self._base: tuple[SparsePattern, Tensor] | None = None
        self._log_unit: float | None = None
        self._start = float(start.reshape(-1)[0])
        self._remembered: list[tuple[Tensor, PrecisionLayout]] = []

    @classmethod
    def on(
        cls, manifold: Manifold, kind: str = "connection", alpha: float = 2.0, lengthscale: Any = None, **kwargs: Any
    ) -> MarkovKernel:
        """The kernel of vector fields ("connection") or functions ("scalar") on a point cloud or mesh.

        Args:
            manifold: where.
            kind: of the Laplacian.
            alpha: power, larger than d / 2.
            lengthscale: start value in units of the data; a quarter of the manifold's scale by default.
            **kwargs: as of the class.
        """
        scale = 0.25 * manifold.scale if lengthscale is None else lengthscale
        components = manifold.dim if kind == "connection" else 1
        return cls(manifold.laplacian(kind), manifold.dim, alpha, scale, components, manifold, **kwargs)

    def _prepare_powers(self, whole: int, fraction: float, order: int | None, scale: float) -> None:
        """Powers of the Laplacian on one pattern, and for a fraction the poles in units of kappa^2."""
        matrix = self.laplacian.symmetric
        largest = float(abs(matrix).sum(1).max())
        self.poles: list[tuple[float, float]] = []
        self.power_error = 0.0
        if fraction > 1e-12:
            # A length scale up to three times the start value stays inside the range of the fit.
            reach = 1.0 + largest * (3.0 * scale) ** 2 / (2.0 * self.nu)
            for count in range(2, _MOST_POLES + 1) if order is None else (order,):
                self.poles, self.power_error = rational_power(fraction, reach, count)
                if self.power_error <= _POWER_ERROR:
                    break
            whole = max(whole, 0)
        self._whole = whole
        powers = [sparse.identity(matrix.shape[0], format="csc")]
        for _ in range(whole + (1 if self.poles else 0)):
            powers.append((powers[-1] @ matrix).tocsc())
        self.pattern = SparsePattern.of(sum(abs(p) for p in powers), self.components)
        self._powers = torch.as_tensor(np.stack([self.pattern.values_of(p) for p in powers]))
        copies = len(self.poles)
        if copies:
            self.pattern = SparsePattern.block_diagonal([self.pattern] * copies)

    @property
    def nu(self) -> float:
        """Smoothness, alpha - d / 2."""
        return self.alpha - 0.5 * self.dim

    @property
    def lengthscale(self) -> Tensor:
        """Length scale (*batch_shape,), in units of the data."""
        value: Tensor = self.raw_lengthscale_constraint.transform(self.raw_lengthscale)
        return value

    @lengthscale.setter
    def lengthscale(self, value: Any) -> None:
        raw = self.raw_lengthscale
        natural = torch.as_tensor(value, dtype=raw.dtype).expand(raw.shape)
        self.initialize(raw_lengthscale=self.raw_lengthscale_constraint.inverse_transform(natural))

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Rows per input: the dimension for vector fields, else 1."""
        return self.components

    @property
    def is_stationary(self) -> bool:
        """Not a function of differences of inputs."""
        return False

    def precision_values(self) -> Tensor:
        """Q on the pattern (*batch_shape, nnz), for mean variance 1 at the start value of the length scale."""
        return self.unscaled_values(self.lengthscale) * self._unit(self.lengthscale).unsqueeze(-1)

    def log_determinant(self) -> Tensor:
        """Log-determinant of Q (*batch_shape,)."""
        lengthscale = self.lengthscale
        each = [self.unscaled_log_determinant(length) for length in lengthscale.reshape(-1).unbind(0)]
        return torch.stack(each).reshape(self.batch_shape) + self.pattern.size * self._unit(lengthscale).log()

    def unscaled_values(self, lengthscale: Tensor) -> Tensor:
        """``(2 nu / lengthscale^2 + L)^alpha`` on the pattern (*batch, nnz), in units of the Laplacian."""
        square = (2.0 * self.nu / lengthscale.square()).unsqueeze(-1)
        powers = self._powers.to(lengthscale.dtype)
        base = sum(math.comb(self._whole, j) * square ** (self._whole - j) * powers[j] for j in range(self._whole + 1))
        if not self.poles:
            return torch.as_tensor(base)
        pieces = []
        for weight, pole in self.poles:
            # M^-m r / (M + p kappa^2), the constant term having no pole: precision M^m (M + p kappa^2) / r.
            strength = square ** (self.alpha - self._whole)
            if math.isinf(pole):
                pieces.append(base * strength / weight)
                continue
            shift = (1.0 + pole) * square
            shifted = _product(self._whole, square, shift, powers)
            pieces.append(shifted * strength / (square * weight))
        return torch.cat(pieces, -1)

    def unscaled_log_determinant(self, lengthscale: Tensor) -> Tensor:
        """Its log-determinant at one length scale, from factors of ``kappa^2 + L`` alone, which fill in less."""
        if self._base is None:
            pattern = SparsePattern.of(self.laplacian.symmetric, self.components)
            self._base = pattern, torch.as_tensor(pattern.values_of(self.laplacian.symmetric))
        pattern, values = self._base
        square = 2.0 * self.nu / lengthscale.square()

        def shifted(shift: Tensor) -> Tensor:
            return SparseMatrix(pattern, values + shift * self._identity(pattern)).logdet()

        whole = shifted(square) * self._whole if self._whole else square * 0.0
        if not self.poles:
            return whole
        size, log_square = self.laplacian.size, square.log()
        total = square * 0.0
        for weight, pole in self.poles:
            total = total + whole + size * ((self.alpha - self._whole) * log_square - math.log(weight))
            if not math.isinf(pole):
                total = total + shifted((1.0 + pole) * square) - size * log_square
        return total

    @staticmethod
    def _identity(pattern: SparsePattern) -> Tensor:
        out = torch.zeros(pattern.nnz, dtype=torch.float64)
        out[torch.as_tensor(pattern.diagonal_places)] = 1.0
        return out

    def log_mean_variance(self, lengthscale: float) -> float:
        """Log of the variance at a node before scaling, the mean over nodes weighted by their mass; exact."""
        at = torch.tensor(lengthscale, dtype=torch.float64)
        matrix = SparseMatrix(self.pattern, self.unscaled_values(at))
        nodes = np.arange(self.pattern.size)
        return math.log(matrix.factor.inverse_entries(nodes, nodes).sum() / self.laplacian.size)

    def _unit(self, lengthscale: Tensor) -> Tensor:
        """Mean variance before scaling, (*batch_shape,)."""
        if self._log_unit is None:
            self._log_unit = self.log_mean_variance(self._start)
        ratio = (lengthscale / self._start).log()
        return torch.exp(self._log_unit + (2.0 * self.alpha - self.dim) * ratio)

    def selection(self, x: Tensor) -> Any:
        """E (m components, unknowns) at node numbers (m, 1) or points (m, D); scipy sparse."""
        d, size = self.components, self.laplacian.size
        flat = x.detach().cpu().double().numpy()
        scale = 1.0 / np.sqrt(self.laplacian.mass)
        if x.shape[-1] == 1:
            nodes = as_indices(flat[:, 0], size // d)
            columns = (nodes[:, None] * d + np.arange(d)).ravel()
            single = sparse.csr_matrix((scale[columns], (np.arange(len(columns)), columns)), shape=(len(columns), size))
        else:
            if self.manifold is None:
                raise InvalidDataError("this kernel does not know where its nodes are: give node numbers, one column")
            single = _interpolation(self.manifold.locate(flat), d, self.laplacian) @ sparse.diags(scale)
        copies = max(1, len(self.poles))
        return sparse.hstack([single] * copies, format="csr") if copies > 1 else single

    def layout(self, x: Tensor) -> PrecisionLayout:
        """Pattern and selection at inputs (m, 1 or D); the same object for the same inputs."""
        for inputs, layout in self._remembered:
            if inputs.shape == x.shape and torch.equal(inputs, x):
                return layout
        layout = PrecisionLayout(self.pattern, self.selection(x))
        self._remembered = [(x.detach().clone(), layout), *self._remembered[: _REMEMBERED - 1]]
        return layout

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor | LinearOperator:
        """Covariance between inputs (m, 1 or D); an operator for equal inputs, else dense by sparse solves.

        Raises:
            InvalidDataError: batches of inputs.
        """
        if last_dim_is_batch:
            raise NotImplementedError("last_dim_is_batch is not supported by sparse-precision kernels")
        x1, x2 = (x.reshape(-1, x.shape[-1]) if x.shape[:-2].numel() == 1 else x for x in (x1, x2))
        if x1.dim() != 2 or x2.dim() != 2:
            raise InvalidDataError("sparse-precision kernels take one set of inputs (m, 1 or D), not a batch of them")
        values = self.precision_values()
        batch = values.shape[:-1]
        same = x1 is x2 or (x1.shape == x2.shape and torch.equal(x1, x2))
        if same:
            layout = self.layout(x1)
            zeros = torch.zeros(*batch, layout.selection.shape[0], dtype=values.dtype)
            if diag:
                return SparsePrecisionLinearOperator(values, zeros, layout=layout)._diagonal()
            return SparsePrecisionLinearOperator(values, zeros, self.log_determinant(), layout=layout)
        left, right = self.layout(x1), self.layout(x2)
        eye = torch.eye(right.selection.shape[0], dtype=values.dtype)
        pieces = [
            left.up(SparseMatrix(self.pattern, each).solve(right.down(eye)))
            for each in values.reshape(-1, values.shape[-1]).unbind(0)
        ]
        dense = torch.stack(pieces).reshape((*batch, *pieces[0].shape))
        return dense.diagonal(dim1=-2, dim2=-1) if diag else to_linear_operator(dense)


def _product(whole: int, square: Tensor, shift: Tensor, powers: Tensor) -> Tensor:
    """``(square + L)^whole (shift + L)`` on the pattern."""
    coefficients = [math.comb(whole, j) * square ** (whole - j) for j in range(whole + 1)]
    total = shift * coefficients[0] * powers[0] + coefficients[whole] * powers[whole + 1]
    for j in range(1, whole + 1):
        total = total + (shift * coefficients[j] + coefficients[j - 1]) * powers[j]
    return total


def _interpolation(location: Any, components: int, laplacian: Laplacian) -> Any:
    """Values at places from those at nodes, scipy sparse (m components, size): the row of Nystrom's extension.

    ``W (1 + (m_x / d_x) L)`` with transported weighted means W: the extension's factor 1 / (1 - lam m_x / d_x) to first
    order, so that all modes have one row. On meshes the mass m_x is zero and W interpolates.
    """
    m, count = location.neighbours.shape
    total = location.weights.sum(1)
    inside = ~location.far & (total > 0.0)
    total = np.where(inside, total, 1.0)
    known = location.nodes >= 0
    weights = np.where((inside & ~known)[:, None], location.weights / total[:, None], 0.0)
    turned = location.transports if components > 1 else np.ones((m, count, 1, 1))
    values = weights[:, :, None, None] * turned
    part = np.arange(components)
    rows = np.broadcast_to((np.arange(m)[:, None, None, None] * components + part[:, None]), values.shape)
    columns = np.broadcast_to(location.neighbours[:, :, None, None] * components + part, values.shape)
    shape = (m * components, laplacian.size)
    means = sparse.csr_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
    means.eliminate_zeros()
    if location.mass.any():
        slowness = sparse.diags(np.repeat(location.mass / total, components))
        means = means + slowness @ means @ sparse.diags(1.0 / laplacian.mass) @ laplacian.stiffness
    nodes = (location.nodes[known][:, None] * components + part).ravel()
    own = (np.flatnonzero(known)[:, None] * components + part).ravel()
    return (means + sparse.csr_matrix((np.ones(len(own)), (own, nodes)), shape=shape)).tocsr()
