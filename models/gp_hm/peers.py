"""Solvers that the table puts beside gpkit's: second-order finite differences and Chebyshev collocation, in SciPy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from problems import Known
from scipy import linalg, sparse
from scipy.fft import dst, idst
from scipy.interpolate import BarycentricInterpolator, RegularGridInterpolator, interp1d
from scipy.sparse.linalg import LinearOperator, gmres, splu

Array = NDArray[np.float64]


def on_grid(function, axes: list[Array]) -> Array:
    mesh = torch.meshgrid(*(torch.from_numpy(x) for x in axes), indexing="ij")
    return np.array(function(*mesh).expand(mesh[0].shape))


def nonlinear(known: Known, solve, values: Array, source: Array, steps: int = 20) -> Array:
    """Newton's iteration for L u + u (u^2 - 1) = f, each step by GMRES preconditioned with the linear solver."""
    if known.kind != "allen-cahn":
        return solve(source)
    zero = solve(np.zeros_like(source))
    for _ in range(steps):
        slope, shape = 3 * values**2 - 1, values.shape
        miss = solve(source - values * (values**2 - 1)) - values

        def apply(v: Array, slope: Array = slope, shape: tuple[int, ...] = shape) -> Array:
            return v + (solve(slope * v.reshape(shape)) - zero).ravel()

        operator = LinearOperator((values.size, values.size), matvec=apply, dtype=np.float64)
        step = gmres(operator, miss.ravel(), rtol=1e-8, restart=40, maxiter=3)[0].reshape(shape)
        values = values + step
        if np.abs(step).max() < 1e-13 * np.abs(values).max():
            break
    return values


def finite_differences(known: Known, grid: list[int], targets: list[Array]) -> Array:
    """Three points along each axis (upwind of first order for advection), cubic interpolation to the targets."""
    axes = [np.linspace(*ends, n) for ends, n in zip(known.ends, grid, strict=True)]
    exact, source = on_grid(known.exact, axes), on_grid(known.source, axes)
    if known.kind == "advection":
        u = _upwind(exact, axes)
    elif len(axes) == 1:
        u = _line(known, exact, source, axes[0][1] - axes[0][0])
    else:
        u = _plane(known, exact, source, [x[1] - x[0] for x in axes])
    if len(axes) == 1:
        return interp1d(axes[0], u, kind="cubic")(targets[0])
    mesh = np.stack(np.meshgrid(*targets, indexing="ij"), -1)
    return RegularGridInterpolator(axes, u, method="cubic")(mesh)


def _line(known: Known, exact: Array, source: Array, step: float) -> Array:
    n = len(exact) - 2
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = 1.0, -2.0, 1.0
    ends = np.zeros(n)
    ends[0], ends[-1] = exact[0], exact[-1]

    def solve(f: Array) -> Array:
        out = exact.copy()
        out[1:-1] = linalg.solve_banded((1, 1), bands, step**2 * f[1:-1] - ends)
        return out

    return nonlinear(known, solve, np.zeros_like(exact), source)


def _plane(known: Known, exact: Array, source: Array, steps: list[float]) -> Array:
    n, m = exact.shape[0] - 2, exact.shape[1] - 2
    a = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2) / steps[0] ** 2
    b = (2 * np.cos(np.pi * np.arange(1, m + 1) / (m + 1)) - 2) / steps[1] ** 2

    def solve(f: Array) -> Array:
        right = f[1:-1, 1:-1].copy()
        right[0] -= exact[0, 1:-1] / steps[0] ** 2
        right[-1] -= exact[-1, 1:-1] / steps[0] ** 2
        right[:, 0] -= exact[1:-1, 0] / steps[1] ** 2
        right[:, -1] -= exact[1:-1, -1] / steps[1] ** 2
        modes = dst(dst(right, type=1, axis=0), type=1, axis=1) / (a[:, None] + b)
        out = exact.copy()
        out[1:-1, 1:-1] = idst(idst(modes, type=1, axis=0), type=1, axis=1)
        return out

    return nonlinear(known, solve, np.zeros_like(exact), source)


def _upwind(exact: Array, axes: list[Array]) -> Array:
    """Backward differences of second order in x, of first order at the first step; trapezoidal in t."""
    n, step, tick = len(axes[0]) - 1, axes[0][1] - axes[0][0], axes[1][1] - axes[1][0]
    matrix = sparse.diags([0.5, -2.0, 1.5], [-2, -1, 0], shape=(n, n), format="lil") * (200.0 / step)
    matrix[0, 0] = 200.0 / step
    identity = sparse.identity(n)
    left = splu((identity + 0.5 * tick * matrix).tocsc())
    inflow = np.zeros((n, 2))
    inflow[0, 0] = -200.0 / step
    inflow[1, 1] = 0.5 * 200.0 / step
    u = np.zeros_like(exact)
    u[:, 0], u[0] = exact[:, 0], exact[0]
    for k in range(u.shape[1] - 1):
        given = inflow.sum(1) * 0.5 * (u[0, k] + u[0, k + 1])
        right = u[1:, k] - 0.5 * tick * (matrix @ u[1:, k]) - tick * given
        u[1:, k + 1] = left.solve(right)
    return u


def _chebyshev(size: int, ends: tuple[float, float]) -> tuple[Array, Array]:
    """Points and differentiation matrix of Chebyshev collocation (Trefethen, Spectral Methods in MATLAB, 2000)."""
    k = np.arange(size)
    x = -np.cos(np.pi * k / (size - 1))
    c = np.where((k == 0) | (k == size - 1), 2.0, 1.0) * (-1.0) ** k
    gap = x[:, None] - x[None, :] + np.eye(size)
    matrix = np.outer(c, 1.0 / c) / gap
    matrix -= np.diag(matrix.sum(1))
    scale = 2.0 / (ends[1] - ends[0])
    return ends[0] + (x + 1.0) / scale, matrix * scale


def chebyshev(known: Known, size: int, targets: list[Array]) -> Array:
    """Dense collocation; in two dimensions by the Schur decomposition of each axis."""
    parts = [_chebyshev(size, ends) for ends in known.ends]
    axes = [x for x, _ in parts]
    exact, source = on_grid(known.exact, axes), on_grid(known.source, axes)
    inner = slice(1, None) if known.kind == "advection" else slice(1, -1)
    if known.kind == "advection":
        operators = [200.0 * parts[0][1], parts[1][1]]
    else:
        operators = [matrix @ matrix for _, matrix in parts]
    given = exact.copy()
    given[(inner,) * len(axes)] = 0.0
    lifted = sum(np.moveaxis(np.tensordot(o, given, (1, k)), 0, k) for k, o in enumerate(operators))
    blocks = [o[inner, inner] for o in operators]
    if len(axes) == 1:
        factor = linalg.lu_factor(blocks[0])
    else:
        factor = [linalg.schur(block, output="complex") for block in (blocks[0], blocks[1].T)]

    def solve(f: Array) -> Array:
        right = (f - lifted)[(inner,) * len(axes)]
        out = given.copy()
        if len(axes) == 1:
            out[inner] = linalg.lu_solve(factor, right)
            return out
        (r, u), (s, v) = factor
        y, scale, _ = linalg.lapack.ztrsyl(r, s, u.conj().T @ right @ v)
        out[inner, inner] = (u @ (scale * y) @ v.conj().T).real
        return out

    values = nonlinear(known, solve, np.zeros_like(exact), source)
    for k, (x, at) in enumerate(zip(axes, targets, strict=True)):
        weights = np.where((np.arange(size) == 0) | (np.arange(size) == size - 1), 0.5, 1.0) * (-1.0) ** np.arange(size)
        interpolate = BarycentricInterpolator(x, np.moveaxis(values, k, 0), wi=weights)
        values = np.moveaxis(interpolate(at), 0, k)
    return values
