"""Exact factorisations of a covariance on a grid plus a diagonal.

Four algorithms, all exact; which one is used follows from the diagonal alone, and from the count of operations where
two apply:

* one noise variance in all cells: eigenvectors of the axes (``SpectralFactorisation``);
* few cells missing or with another noise: the same, corrected by a matrix as large as their number
  (``CorrectedFactorisation``);
* noise that is a product over axes (one variance per row or per column): the same after scaling
  (``ScaledFactorisation``);
* anything else: Cholesky of the matrix of the observed cells (``DenseFactorisation``), refused if it does not fit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.operators.conjugate_gradients import ConjugateGradients, IterativeFactorisation
from gpkit.operators.factorised import DenseFactorisation, Factorisation
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker_cross import KroneckerCrossLinearOperator
from gpkit.operators.kronecker_products import kronecker_matmul, outer_product
from gpkit.operators.memory import available_memory

if TYPE_CHECKING:
    from gpkit.operators.grid import GridLinearOperator, SpectralGridLinearOperator, UniformGridLinearOperator

__all__ = [
    "CorrectedFactorisation",
    "ScaledFactorisation",
    "SpectralFactorisation",
    "WholeFactorisation",
    "factorise_grid",
    "iterate",
]

_REMEDY = (
    "give all cells one noise variance or a product of one per axis, leave fewer cells empty, or ask for "
    "solver=ConjugateGradients()"
)


class WholeFactorisation(Factorisation):
    """All cells of a grid with one noise variance; what the corrections for other cells start from.

    Args:
        operator: the grid and its axes; its own diagonal is not looked at.
    """

    def __init__(self, operator: UniformGridLinearOperator) -> None:
        self.operator = operator

    @abstractmethod
    def solve_grid(self, rhs: Tensor) -> Tensor:
        """``A^-1 rhs`` for (*batch, count, C) in grid order."""

    @abstractmethod
    def inverse_diagonal(self) -> Tensor:
        """Diagonal of the inverse, (*batch, count)."""

    @abstractmethod
    def factor_gradients(self) -> tuple[Tensor, ...]:
        """``d log|A|`` with respect to each of the operator's factors."""

    @abstractmethod
    def well_conditioned(self) -> bool:
        """Whether a correction loses no more than the matrix itself does."""

    def solve(self, rhs: Tensor) -> Tensor:
        """For the rows of the operator."""
        cells = self.operator.cells
        return cells.gather(self.solve_grid(cells.scatter(rhs)))

    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """Of the diagonal and the factors."""
        index = self.operator.cells.index
        diagonal = self.inverse_diagonal()
        return (diagonal if index is None else diagonal[..., index], *self.factor_gradients())


def iterate(
    operator: GridLinearOperator, stand_in: UniformGridLinearOperator, solver: ConjugateGradients
) -> IterativeFactorisation:
    """Conjugate gradients, preconditioned by ``stand_in`` on the whole grid with one noise variance."""
    noise = operator.diagonal_values.detach()
    known = torch.isfinite(noise)
    typical = noise.masked_fill(~known, 0.0).sum(-1) / known.sum(-1).clamp_min(1)
    whole, cells = stand_in.factorise_whole(typical), operator.cells
    # Rows of one cell: their mean is preconditioned on the grid, what differs between them by the noise alone.
    counts = torch.bincount(cells.flat, minlength=cells.count).clamp_min(1).to(noise.dtype).unsqueeze(-1)
    scale = counts.sqrt()

    def precondition(values: Tensor) -> Tensor:
        total = cells.scatter(values)
        smooth = cells.gather(whole.solve_grid(total / scale) / scale)
        if not cells.repeated:
            return smooth
        return smooth + (values - cells.gather(total / counts)) / typical[..., None, None]

    return IterativeFactorisation(operator, precondition, solver)


def factorise_grid(operator: UniformGridLinearOperator) -> Factorisation:
    """The cheapest exact factorisation of the operator; iterations where there is none and they were asked for."""
    direct = _structured(operator)
    if direct is not None:
        return direct
    if operator.solver is not None:
        return iterate(operator, operator, operator.solver)
    return DenseFactorisation(operator, _REMEDY)


def _structured(operator: UniformGridLinearOperator) -> Factorisation | None:
    """A factorisation that keeps the structure, where one is exact and cheaper than a dense one."""
    cells = operator.cells
    if cells.repeated:
        return None
    noise = operator.diagonal_values.detach()
    full = noise.new_full((*noise.shape[:-1], cells.count), torch.inf)
    full[..., cells.flat] = noise
    common = _most_common(full)
    unlike = _in_any_batch(full != common.unsqueeze(-1)).nonzero().squeeze(-1)
    if not unlike.numel():
        return operator.factorise_whole(common)
    if operator.scalable:
        scales = _separable(full, cells.sizes)
        if scales is not None:
            return ScaledFactorisation(operator, scales)
    n, m = cells.rows, int(unlike.numel())
    corrected = m * operator.solve_cost() + m**3
    fits = 8 * 4 * m * cells.count * max(operator.batch_shape.numel(), 1) < available_memory()
    if corrected < n**3 / 3.0 and fits:
        try:
            whole = operator.factorise_whole(common)
        except NotPositiveDefiniteError:
            # The whole grid may be singular to rounding where the observed cells are not.
            return None
        if whole.well_conditioned():
            return CorrectedFactorisation(operator, whole, unlike, full[..., unlike] - common.unsqueeze(-1))
    return None


def _in_any_batch(flags: Tensor) -> Tensor:
    """(*batch, n) to (n)."""
    return flags.any(tuple(range(flags.dim() - 1))) if flags.dim() > 1 else flags


def _most_common(full: Tensor) -> Tensor:
    """The finite value that occurs most often, (*batch,); zero if there is none."""
    if not full.shape[-1]:
        return full.new_zeros(full.shape[:-1])
    first = full[..., 0]
    if bool((full == first.unsqueeze(-1)).all()) and bool(torch.isfinite(first).all()):
        return first
    # Infinite entries are made unlike each other, so that missing cells are never the majority.
    spread = -1.0 - torch.arange(full.shape[-1], dtype=full.dtype, device=full.device)
    common = torch.where(torch.isinf(full), spread.expand_as(full), full).mode(-1).values
    return common.clamp_min(0.0)


def _separable(full: Tensor, sizes: Sequence[int]) -> list[Tensor] | None:
    """Positive factors (*batch, n_j) whose outer product is the noise, if there are such to rounding."""
    if not (bool(torch.isfinite(full).all()) and bool((full > 0.0).all())):
        return None
    logs = full.log().reshape(*full.shape[:-1], *sizes)
    lead = full.dim() - 1
    mean = logs.flatten(lead).mean(-1)
    parts = []
    for axis in range(len(sizes)):
        others = [lead + k for k in range(len(sizes)) if k != axis]
        profile = logs.mean(others) if others else logs
        parts.append(profile - mean.unsqueeze(-1) * (1.0 - 1.0 / len(sizes)))
    factors = [p.exp() for p in parts]
    agreement = (outer_product(factors) - full).abs() <= 1e-13 * full
    return factors if bool(agreement.all()) else None


class SpectralFactorisation(WholeFactorisation):
    """A covariance whose eigenvectors are Kronecker products.

    Args:
        operator: the grid and its axes; its own diagonal and cells are not looked at.
        noise: (*batch,) variance in every cell.
    """

    operator: SpectralGridLinearOperator

    def __init__(self, operator: SpectralGridLinearOperator, noise: Tensor) -> None:
        super().__init__(operator)
        pairs = [torch.linalg.eigh(f.detach()) for f in operator.factors]
        self.eigenvalues = [p[0] for p in pairs]
        self.vectors = [p[1] for p in pairs]
        self.spectrum = operator.combine(self.eigenvalues)
        self.pivots = self.spectrum + noise.unsqueeze(-1)
        if bool((self.pivots <= 0.0).any()):
            lowest, highest = float(self.pivots.min()), float(self.pivots.max())
            raise NotPositiveDefiniteError(
                f"the covariance on the grid has the eigenvalue {lowest:.3g} beside {highest:.3g}; add noise, or a "
                "kernel that is less smooth on this spacing"
            )

    def well_conditioned(self) -> bool:
        """Whether a correction loses no more than the matrix itself does."""
        ends = self.pivots.aminmax(dim=-1)
        return bool((ends.min > 1e-13 * ends.max).all())

    def solve_grid(self, rhs: Tensor) -> Tensor:
        """In the eigenbasis."""
        inner = kronecker_matmul([q.mT for q in self.vectors], rhs) / self.pivots.unsqueeze(-1)
        return kronecker_matmul(self.vectors, inner)

    def logdet(self) -> Tensor:
        """Sum over eigenvalues."""
        return self.pivots.log().sum(-1)

    def explained(self, cross: LinearOperator) -> Tensor:
        """One product with squares: the eigenbasis turns the quadratic form into a sum of squares."""
        if not (isinstance(cross, KroneckerCrossLinearOperator) and len(cross.terms) == 1):
            return super().explained(cross)
        return self.explained_by(cross, cross.factors)

    def explained_by(self, cross: KroneckerCrossLinearOperator, factors: Sequence[Tensor]) -> Tensor:
        """The same with other factors (*batch, u_j, n_j) in place of those of ``cross``."""
        squares = [(f @ q).square() for f, q in zip(factors, self.vectors, strict=True)]
        weights = KroneckerCrossLinearOperator(*squares, rows=cross.rows, columns=GridCells(cross.columns.sizes))
        return weights._matmul(self.pivots.reciprocal().unsqueeze(-1)).squeeze(-1)

    def inverse_diagonal(self) -> Tensor:
        """Diagonal of the inverse, (*batch, count)."""
        return kronecker_matmul([q * q for q in self.vectors], self.pivots.reciprocal().unsqueeze(-1)).squeeze(-1)

    def factor_gradients(self) -> tuple[Tensor, ...]:
        """``Q diag(weights) Q^T`` per axis: exact where eigenvalues coincide."""
        weights = self.operator.eigenvalue_weights(self.eigenvalues, self.pivots.reciprocal())
        return tuple((q * w.unsqueeze(-2)) @ q.mT for q, w in zip(self.vectors, weights, strict=True))


class CorrectedFactorisation(Factorisation):
    """One noise variance except in m cells, which have another or are missing.

    With A the matrix of equal noise on the whole grid, E the m cells and W their excess noise,
    ``(A + E W E^T)^-1 = A^-1 - A^-1 E (W^-1 + E^T A^-1 E)^-1 E^T A^-1``; a missing cell has ``W^-1 = 0``.

    Args:
        operator: the grid, its axes and cells.
        whole: A.
        where: (m) flat cells.
        excess: (*batch, m) noise beyond the common one, ``inf`` for missing.

    References:
        Hager (1989), SIAM Review 31, 221 (Woodbury's formula).
    """

    def __init__(
        self, operator: UniformGridLinearOperator, whole: WholeFactorisation, where: Tensor, excess: Tensor
    ) -> None:
        self.operator, self.whole, self.where = operator, whole, where
        count = operator.cells.count
        unit = torch.zeros(count, where.shape[0], dtype=excess.dtype, device=excess.device)
        unit[where, torch.arange(where.shape[0])] = 1.0
        self.columns = whole.solve_grid(unit.expand(*excess.shape[:-1], *unit.shape))
        missing = torch.isinf(excess)
        self.missing = missing.unsqueeze(-1)
        self.weights = excess.masked_fill(missing, 1.0).unsqueeze(-1)
        core = self.weights * self.columns[..., where, :] + torch.diag_embed((~missing).to(excess.dtype))
        self.lu, self.swaps, _ = torch.linalg.lu_factor_ex(core)
        sign = torch.linalg.slogdet(core)
        self.core_logdet = sign.logabsdet
        if bool((sign.sign <= 0.0).any()):
            raise NotPositiveDefiniteError("the covariance of the observed cells is not positive definite; add noise")

    def _correction(self, values: Tensor) -> Tensor:
        """``core^-1 W E^T values``."""
        return torch.linalg.lu_solve(self.lu, self.swaps, self.weights * values[..., self.where, :])

    def solve(self, rhs: Tensor) -> Tensor:
        """Zero in rows without information."""
        cells = self.operator.cells
        plain = self.whole.solve_grid(cells.scatter(rhs))
        out = plain - self.columns @ self._correction(plain)
        # Zero already but for rounding.
        out[..., self.where, :] = out[..., self.where, :].masked_fill(self.missing, 0.0)
        return cells.gather(out)

    def logdet(self) -> Tensor:
        """Over the cells with information."""
        return self.whole.logdet() + self.core_logdet

    def explained(self, cross: LinearOperator) -> Tensor:
        """That of the equal-noise matrix on the whole grid, less the m directions of the correction."""
        if not (isinstance(cross, KroneckerCrossLinearOperator) and len(cross.terms) == 1):
            return super().explained(cross)
        every = KroneckerCrossLinearOperator(*cross.factors, rows=cross.rows, columns=GridCells(cross.columns.sizes))
        seen = every._matmul(self.columns)
        core = torch.linalg.lu_solve(self.lu, self.swaps, self.weights * seen.mT)
        return self.whole.explained(every) - (seen * core.mT).sum(-1)

    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """Those of the equal-noise matrix, less the m directions of the correction."""
        diagonal = self.whole.inverse_diagonal()
        right = self._transposed_correction()
        diagonal = diagonal - (self.columns * right).sum(-1)
        factors = self.whole.factor_gradients()
        with torch.enable_grad():
            args = [f.detach().requires_grad_(True) for f in self.operator.factors]
            product = self.operator._like(self.operator.diagonal_values.detach(), *args).grid_matmul(right)
            lost = torch.autograd.grad((self.columns * product).sum(), args)
        cells = self.operator.cells
        own = diagonal if cells.index is None else diagonal[..., cells.index]
        return (own, *(f - part for f, part in zip(factors, lost, strict=True)))

    def _transposed_correction(self) -> Tensor:
        """``A^-1 E (core^-1 W)^T``, (*batch, count, m)."""
        m = self.where.shape[0]
        eye = torch.eye(m, dtype=self.lu.dtype, device=self.lu.device)
        core = torch.linalg.lu_solve(self.lu, self.swaps, self.weights * eye)
        return self.columns @ core.mT


class ScaledFactorisation(Factorisation):
    """Noise that is a product over axes: ``A = S (S^-1 K S^-1 + 1) S`` with ``S^2`` the noise.

    Args:
        operator: a Kronecker product on the whole grid.
        scales: noise factors (*batch, n_j).
    """

    def __init__(self, operator: UniformGridLinearOperator, scales: Sequence[Tensor]) -> None:
        self.operator = operator
        self.roots = [s.sqrt() for s in scales]
        whitened = [
            f.detach() / (r.unsqueeze(-1) * r.unsqueeze(-2)) for f, r in zip(operator.factors, self.roots, strict=True)
        ]
        diagonal = operator.diagonal_values.detach()
        inner: Any = type(operator)(torch.ones_like(diagonal), *whitened)
        self.inner = SpectralFactorisation(inner, torch.ones_like(diagonal[..., :1]).squeeze(-1))
        self.order = operator.cells
        self.scale = outer_product(self.roots).unsqueeze(-1)

    def solve(self, rhs: Tensor) -> Tensor:
        """Scaled, solved, scaled."""
        return self.order.gather(self.inner.solve(self.order.scatter(rhs) / self.scale) / self.scale)

    def logdet(self) -> Tensor:
        """With the determinant of the scaling."""
        return self.inner.logdet() + 2.0 * self.scale.squeeze(-1).log().sum(-1)

    def explained(self, cross: LinearOperator) -> Tensor:
        """With the cross-covariance scaled."""
        if not (isinstance(cross, KroneckerCrossLinearOperator) and len(cross.terms) == 1):
            return super().explained(cross)
        scaled = [f / r.unsqueeze(-2) for f, r in zip(cross.factors, self.roots, strict=True)]
        return self.inner.explained_by(cross, scaled)

    def logdet_gradients(self) -> tuple[Tensor | None, ...]:
        """Of the whitened matrix, scaled back."""
        inner = self.inner.factor_gradients()
        factors = [g / (r.unsqueeze(-1) * r.unsqueeze(-2)) for g, r in zip(inner, self.roots, strict=True)]
        diagonal = self.inner.inverse_diagonal() / self.scale.squeeze(-1) ** 2
        index = self.order.index
        return (diagonal if index is None else diagonal[..., index], *factors)
