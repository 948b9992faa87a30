"""The registries that generic tests run over: adding a kernel or an operator is one line here.

A kernel factory takes ``batch_shape`` and ``active_dims`` and passes them to every leaf kernel. An operator factory
takes a size and a batch shape, and returns the operator with the dense matrix that it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gpytorch
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from gpkit.kernels import (
    CeleriteKernel,
    CosineKernel,
    DRWKernel,
    LorentzianKernel,
    MaternKernel,
    PeriodicKernel,
    RotationKernel,
    ScaleKernel,
    SHOKernel,
    StateSpace,
    StateSpaceKernel,
)
from gpkit.operators import (
    CirculantLinearOperator,
    DenseCovarianceLinearOperator,
    EigenbasisLinearOperator,
    KroneckerLinearOperator,
    KroneckerSumLinearOperator,
    KroneckerTermsLinearOperator,
    PrecisionLayout,
    SemiseparableLinearOperator,
    SparsePrecisionLinearOperator,
    ToeplitzLinearOperator,
)
from gpkit.operators.covariances import GIVEN, autocovariance
from gpkit.operators.grid_cells import GridCells
from gpkit.operators.kronecker_products import kronecker_dense
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from gpkit.operators.sparse_symmetric import SparsePattern


class ThreeHalves(StateSpaceKernel):
    """The kernel of the base class's docstring."""

    structure = (("matern32",),)

    def __init__(self, rate: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_parameter("rate", rate)

    def structure_parameters(self, values, ops):
        return [1.0, values["rate"]]


class DriverResponse(StateSpaceKernel):
    """A damped random walk that drives a second one; their weighted sum is seen.

    Known by its state space only, whose transition matrix is not symmetric under any diagonal scaling by P_inf: a
    confusion of A with its transpose shows.
    """

    def __init__(self, driver: Any = 1.0, response: Any = 0.4, coupling: Any = 0.8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_parameter("driver", driver)
        self.add_parameter("response", response)
        self.add_parameter("coupling", coupling)

    def state_space(self) -> StateSpace:
        a, b, c = self.driver, self.response, self.coupling
        one, zero = torch.ones_like(a), torch.zeros_like(a)
        p11 = one
        p12 = c * p11 / (a + b)
        p22 = (2.0 * c * p12 + 0.1) / (2.0 * b)
        stack = [[-a, zero], [c, -b]]
        feedback = torch.stack([torch.stack(row, -1) for row in stack], -2)
        covariance = torch.stack([torch.stack(row, -1) for row in [[p11, p12], [p12, p22]]], -2)
        return StateSpace(feedback, covariance, torch.stack([0.3 * one, one], -1))


def spread(value: float, kwargs: dict[str, Any]) -> Tensor:
    """The value, a few per cent different in every element of the batch."""
    shape = torch.Size(kwargs.get("batch_shape") or ())
    return value * (1.0 + 0.07 * torch.arange(shape.numel(), dtype=torch.float64).reshape(shape))


def _sho(quality: float) -> Callable[..., StateSpaceKernel]:
    return lambda **k: SHOKernel(frequency=spread(1.3, k), quality=spread(quality, k), **k)


def _scaled(base: Callable[..., StateSpaceKernel], variance: float) -> Callable[..., StateSpaceKernel]:
    return lambda **k: ScaleKernel(base(**k), outputscale=spread(variance, k))


def _gpytorch_scaled(base: Callable[..., StateSpaceKernel], variance: float) -> Callable[..., gpytorch.kernels.Kernel]:
    def build(**k: Any) -> gpytorch.kernels.Kernel:
        scaled = gpytorch.kernels.ScaleKernel(base(**k), **{n: v for n, v in k.items() if n == "batch_shape"}).double()
        scaled.outputscale = spread(variance, k)
        return scaled

    return build


def _matern(nu: float) -> Callable[..., StateSpaceKernel]:
    return lambda **k: MaternKernel(nu, lengthscale=spread(0.8, k), **k)


def _drw(timescale: float = 0.9) -> Callable[..., StateSpaceKernel]:
    return lambda **k: DRWKernel(timescale=spread(timescale, k), **k)


def _celerite(b: float) -> Callable[..., StateSpaceKernel]:
    return lambda **k: CeleriteKernel(a=spread(1.2, k), b=spread(b, k), c=spread(0.4, k), d=spread(1.7, k), **k)


def _cosine(**k: Any) -> StateSpaceKernel:
    return CosineKernel(period=spread(2.1, k), **k)


def _lorentzian(**k: Any) -> StateSpaceKernel:
    return LorentzianKernel(frequency=spread(2.0, k), quality=spread(1.5, k), **k)


def _rotation(**k: Any) -> StateSpaceKernel:
    return RotationKernel(
        period=spread(2.5, k), quality=spread(0.7, k), difference=spread(0.4, k), mix=spread(0.6, k), **k
    )


KERNELS: dict[str, Callable[..., Any]] = {
    "sho overdamped": _sho(0.3),
    "sho strongly overdamped": _sho(0.003),
    "sho critical": _sho(0.5),
    "sho underdamped": _sho(3.0),
    "drw": _drw(),
    "matern 1/2": _matern(0.5),
    "matern 3/2": _matern(1.5),
    "matern 5/2": _matern(2.5),
    "cosine": _cosine,
    "celerite": _celerite(0.2),
    "celerite negative b": _celerite(-0.25),
    "lorentzian": _lorentzian,
    "rotation": _rotation,
    "periodic cosines": lambda **k: PeriodicKernel(spread(2.1, k), spread(1.3, k), terms=3, **k),
    "periodic with a trend": lambda **k: PeriodicKernel(spread(2.1, k), spread(0.9, k), terms=3, **k) * _drw(4.0)(**k),
    "scaled": _scaled(_matern(1.5), 2.5),
    "scaled twice": _scaled(_scaled(_drw(), 2.0), 1.4),
    "scaled by gpytorch": _gpytorch_scaled(_sho(0.7), 2.5),
    "sum": lambda **k: _scaled(_sho(2.0), 1.7)(**k) + _drw(2.0)(**k),
    "product": lambda **k: _matern(0.5)(**k) * _cosine(**k),
    "product with large states": lambda **k: _matern(2.5)(**k) * _sho(0.8)(**k),
    "nested": lambda **k: _scaled(_drw(), 0.7)(**k) * (_cosine(**k) + _scaled(_matern(1.5), 2.0)(**k)) + _sho(4.0)(**k),
    "nested with gpytorch": lambda **k: (
        _gpytorch_scaled(lambda **kk: _drw()(**kk) + _sho(1.5)(**kk), 0.6)(**k) + _matern(1.5)(**k)
    ),
    "user: closed form": lambda **k: ThreeHalves(spread(1.1, k), **k),
    "user: state space": lambda **k: DriverResponse(spread(1.0, k), spread(0.4, k), spread(0.8, k), **k),
    "user: scaled sum": lambda **k: _scaled(lambda **kk: DriverResponse(**kk) + _drw()(**kk), 1.6)(**k),
    "user: product": lambda **k: DriverResponse(**k) * _sho(0.9)(**k),
}
"""Every kernel, by name. Parameters are such that lags of order one matter."""


# ---------------------------------------------------------------------------------------------------------- operators


def times(n: int, batch: tuple[int, ...] = (), order: str = "sorted", seed: int = 5) -> Tensor:
    """(*batch, n) times over about n / 5 units: sorted, unsorted, or with repeats (unsorted)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(*batch, n, generator=generator, dtype=torch.float64) * max(n, 1) / 5.0
    if order == "repeated":
        t = (t * 3.0).round() / 3.0
    return t.sort(-1).values if order == "sorted" else t


def _noise(n: int, batch: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 0.1 + 0.4 * torch.rand(*batch, n, generator=generator, dtype=torch.float64)


_PARAMS = torch.tensor([1.1, 0.9, 0.7, 0.5, 0.4, 1.0, 0.1, 0.3, 0.8], dtype=torch.float64)
_STRUCTURE = (("sho",), ("exponential", "celerite"))


def _params(batch: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return _PARAMS * (1.0 + 0.05 * torch.rand(*batch, _PARAMS.numel(), generator=generator, dtype=torch.float64))


def dense_covariance(rows: Tensor, columns: Tensor, params: Tensor, feedback: Tensor | None, structure: Any) -> Tensor:
    """K(rows, columns) entry by entry."""
    return autocovariance(structure, params, (rows.unsqueeze(-1) - columns.unsqueeze(-2)).abs(), feedback)


def _closed(order: str, noisy: bool = True) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        t, params = times(n, batch, order), _params(batch)
        noise = _noise(n, batch) if noisy else torch.zeros_like(t)
        operator = SemiseparableLinearOperator(t, params, noise, structure=_STRUCTURE)
        return operator, dense_covariance(t, t, params, None, _STRUCTURE) + torch.diag_embed(noise)

    return build


def _single(structure: Any, values: list[float]) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        t, noise = times(n, batch, "unsorted"), _noise(n, batch)
        params = torch.tensor(values, dtype=torch.float64).expand(*batch, len(values))
        operator = SemiseparableLinearOperator(t, params, noise, structure=structure)
        return operator, dense_covariance(t, t, params, None, structure) + torch.diag_embed(noise)

    return build


def _given(order: str) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        kernel = KERNELS["user: state space"](batch_shape=torch.Size(batch))
        params, feedback = (v.detach() for v in kernel._generators())
        t, noise = times(n, batch, order), _noise(n, batch)
        operator = SemiseparableLinearOperator(t, params, noise, feedback, structure=GIVEN)
        return operator, dense_covariance(t, t, params, feedback, GIVEN) + torch.diag_embed(noise)

    return build


def _posterior(missing: bool, diagonal: bool) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        m = min(n, 30) + 3
        t, new = times(m, batch, "unsorted", 11), times(n, batch, "unsorted", 13) * 1.1 - 0.3
        noise, params = _noise(m, batch), _params(batch)
        extra = _noise(n, batch) if diagonal else torch.zeros_like(new)
        if missing:
            noise[..., 1] = math.inf
        operator = PosteriorCovarianceLinearOperator(new, t, params, noise, extra, structure=_STRUCTURE)
        seen = [k for k in range(m) if not (missing and k == 1)]
        matrix = dense_covariance(t, t, params, None, _STRUCTURE)[..., seen, :][..., seen]
        matrix = matrix + torch.diag_embed(noise[..., seen])
        cross = dense_covariance(new, t[..., seen], params, None, _STRUCTURE)
        dense = dense_covariance(new, new, params, None, _STRUCTURE) - cross @ torch.linalg.solve(matrix, cross.mT)
        return operator, dense + torch.diag_embed(extra)

    return build


def _axis_covariance(n: int, batch: tuple[int, ...], seed: int) -> Tensor:
    """(*batch, n, n), well conditioned."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*batch, n, generator=generator, dtype=torch.float64) * n
    return torch.exp(-(x.unsqueeze(-1) - x.unsqueeze(-2)).abs()) + 0.2 * torch.eye(n, dtype=torch.float64)


def _on_grid(kind: str, noise: str, empty: int = 2) -> Callable[..., tuple[Any, Tensor]]:
    """n cells, in random order, of a grid of about n + empty; an empty of zero takes an axis of length n."""

    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        sizes = (3, -(-(n + empty) // 3)) if empty else (1, n)
        count = sizes[0] * sizes[1]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))[:n]
        cells = GridCells(sizes, order if empty else None)
        terms = [[_axis_covariance(m, batch, 17 * t + m) for m in sizes] for t in range(2)]
        ones = [torch.eye(m, dtype=torch.float64) for m in sizes]
        diagonal = {"none": torch.zeros, "equal": torch.ones}.get(noise, torch.zeros)(*batch, n, dtype=torch.float64)
        diagonal = _noise(n, batch) if noise == "unequal" else 0.3 * diagonal
        if kind == "product":
            operator: Any = KroneckerLinearOperator(diagonal, *terms[0], cells=cells)
            dense = kronecker_dense(terms[0])
        elif kind == "sum":
            operator = KroneckerSumLinearOperator(diagonal, *terms[0], cells=cells)
            dense = kronecker_dense([terms[0][0], ones[1]]) + kronecker_dense([ones[0], terms[0][1]])
        else:
            operator = KroneckerTermsLinearOperator(diagonal, *terms[0], *terms[1], cells=cells)
            dense = kronecker_dense(terms[0]) + kronecker_dense(terms[1])
        dense = dense[..., cells.flat, :][..., cells.flat]
        return operator, dense + torch.diag_embed(diagonal)

    return build


def _on_line(kind: type[ToeplitzLinearOperator], noise: str, empty: int) -> Callable[..., tuple[Any, Tensor]]:
    """n points, in random order, of a uniform grid of n + empty; all in order if empty is zero."""

    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        count = n + empty
        lag = torch.arange(count, dtype=torch.float64)
        around = torch.minimum(lag, count - lag) if kind is CirculantLinearOperator else lag
        length = 1.5 + 0.2 * torch.rand(*batch, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        column = torch.exp(-around / length)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))[:n]
        cells = GridCells((count,), order if empty else None)
        diagonal = _noise(n, batch) if noise == "unequal" else torch.full((*batch, n), 0.3, dtype=torch.float64)
        apart = (cells.flat.unsqueeze(-1) - cells.flat).abs()
        return kind(diagonal, column, cells=cells), column[..., apart] + torch.diag_embed(diagonal)

    return build


def _modes(n: int, batch: tuple[int, ...], noise: str, k: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(21)
    features = torch.randn(*batch, n, k, generator=generator, dtype=torch.float64)
    spectrum = 0.2 + torch.rand(*batch, k, generator=generator, dtype=torch.float64)
    constant = torch.full((*batch, 1), 0.3, dtype=torch.float64).expand(*batch, n)
    return features, spectrum, constant if noise == "equal" else _noise(n, batch)


def _eigenbasis(noise: str, k: int = 4) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        features, spectrum, diagonal = _modes(n, batch, noise, k)
        dense = features @ torch.diag_embed(spectrum) @ features.mT + torch.diag_embed(diagonal)
        return EigenbasisLinearOperator(features, spectrum, diagonal), dense

    return build


def _dense(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
    _, matrix = _eigenbasis("unequal")(n, batch)
    return DenseCovarianceLinearOperator.from_matrix(matrix), matrix


def precision_layout(n: int, repeated: bool = False) -> tuple[PrecisionLayout, Tensor]:
    """A layout of n rows over n + 3 unknowns on a chain, and the selection; with ``repeated``, mixtures of unknowns."""
    size = n + 3
    chain = scipy.sparse.diags([np.ones(size - 1), np.ones(size), np.ones(size - 1)], [-1, 0, 1])
    selection = np.zeros((n, size))
    selection[np.arange(n), np.random.default_rng(4).permutation(size)[:n]] = 1.0
    if repeated:
        selection[np.arange(n), np.arange(n) % 3] += 0.5
    layout = PrecisionLayout(SparsePattern.of(chain), scipy.sparse.csr_matrix(selection))
    return layout, torch.as_tensor(selection)


def _precision(repeated: bool) -> Callable[..., tuple[Any, Tensor]]:
    def build(n: int, batch: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
        layout, selection = precision_layout(n, repeated)
        pattern = layout.pattern
        generator = torch.Generator().manual_seed(23)
        own = torch.as_tensor(pattern.rows == pattern.columns)
        strength = 0.3 + 0.2 * torch.rand(*batch, 1, generator=generator, dtype=torch.float64)
        values = torch.where(own, 2.0 + strength, -strength).expand(*batch, -1)
        precision = torch.zeros(*batch, pattern.size, pattern.size, dtype=torch.float64)
        precision[..., torch.as_tensor(pattern.rows), torch.as_tensor(pattern.columns)] = values
        noise = _noise(n, batch)
        dense = selection @ torch.linalg.inv(precision) @ selection.mT + torch.diag_embed(noise)
        known = torch.logdet(precision) if repeated else None
        return SparsePrecisionLinearOperator(values, noise, known, layout=layout), dense

    return build


OPERATORS: dict[str, Callable[..., tuple[Any, Tensor]]] = {
    "sum, sorted": _closed("sorted"),
    "sum, unsorted": _closed("unsorted"),
    "sum, repeated": _closed("repeated"),
    "sum, no noise": _closed("unsorted", noisy=False),
    "exponential": _single((("exponential",),), [1.3, 0.7]),
    "sho": _single((("sho",),), [1.3, 0.7, 0.4]),
    "matern 3/2": _single((("matern32",),), [1.3, 0.7]),
    "matern 5/2": _single((("matern52",),), [1.3, 0.7]),
    "given": _given("unsorted"),
    "kronecker": _on_grid("product", "equal"),
    "kronecker, no noise": _on_grid("product", "none", empty=0),
    "kronecker, unequal noise": _on_grid("product", "unequal"),
    "kronecker sum": _on_grid("sum", "equal"),
    "kronecker sum, unequal noise": _on_grid("sum", "unequal", empty=0),
    "kronecker terms": _on_grid("terms", "unequal"),
    "toeplitz": _on_line(ToeplitzLinearOperator, "equal", empty=0),
    "toeplitz, gaps": _on_line(ToeplitzLinearOperator, "equal", empty=1),
    "toeplitz, unequal noise": _on_line(ToeplitzLinearOperator, "unequal", empty=2),
    "circulant": _on_line(CirculantLinearOperator, "equal", empty=0),
    "circulant, gaps": _on_line(CirculantLinearOperator, "equal", empty=1),
    "eigenbasis": _eigenbasis("equal"),
    "eigenbasis, unequal noise": _eigenbasis("unequal"),
    "eigenbasis, more modes than rows": _eigenbasis("unequal", 9),
    "dense": _dense,
    "precision": _precision(False),
    "precision, mixed rows": _precision(True),
    "posterior": _posterior(missing=False, diagonal=True),
    "posterior, missing data": _posterior(missing=True, diagonal=True),
    "posterior, latent": _posterior(missing=False, diagonal=False),
}
"""Every square covariance operator, by name."""
