"""Second-order finite differences and Chebyshev collocation for the same problems, as plainly as textbooks have them.

References:
    Trefethen, L. N. (2000). Spectral Methods in MATLAB. SIAM: differentiation matrices and tensor grids.
    LeVeque, R. J. (2007). Finite Difference Methods for Ordinary and Partial Differential Equations. SIAM.
"""

from __future__ import annotations

import numpy as np
import torch
from _pde_problems import Task
from scipy import fft, linalg
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse import linalg as sparse_linalg


def _values(function, *axes):
    mesh = torch.meshgrid(*[torch.from_numpy(np.ascontiguousarray(a)) for a in axes], indexing="ij")
    return function(*mesh).numpy()


def _interpolated(axes, values):
    """Linear between grid points, so that no order above the scheme's is claimed for it."""
    made = RegularGridInterpolator(axes, values)

    def at(wanted):
        mesh = np.meshgrid(*[w.numpy() for w in wanted], indexing="ij")
        return made(np.stack([m.ravel() for m in mesh], axis=1)).reshape(mesh[0].shape)

    return at


def _cubic(u):
    return u * (u**2 - 1.0), 3.0 * u**2 - 1.0


def finite_differences(task: Task):
    """Three-point differences on the task's own grid, interpolated linearly; None where a scheme would need more."""
    lower, upper = task.problem.box.lower, task.problem.box.upper
    axes = [np.linspace(a, b, n) for a, b, n in zip(lower, upper, task.grid, strict=True)]
    if task.kind == "advection":
        return _interpolated(axes, _box_scheme(task, *axes))
    if len(axes) == 1:
        return _interpolated(axes, _line(task, axes[0]))
    if task.kind in ("poisson", "cubic") and len(axes) == 2:
        return _interpolated(axes, _sine_transform(task, *axes))
    return None


def _newton(right, inverse):
    """Inner values with ``L u + u (u^2 - 1) = right``, given the inverse of L: GMRES on ``1 + L^-1 (3 u^2 - 1)``."""
    u = inverse(right)
    for _ in range(30):
        value, slope = _cubic(u)
        rest = u + inverse(value - right)
        action = sparse_linalg.LinearOperator(
            (u.size, u.size), lambda v, c=slope: v + inverse(c * v.reshape(c.shape)).ravel()
        )
        step, info = sparse_linalg.gmres(action, -rest.ravel(), rtol=1e-6, restart=60, maxiter=5)
        u = u + step.reshape(u.shape)
        if info or not np.isfinite(u).all():
            return np.full_like(u, np.nan)
        if np.abs(step).max() < 1e-11 * max(1.0, np.abs(u).max()):
            break
    return u


def _line(task, x):
    h = x[1] - x[0]
    u, f = np.zeros_like(x), _values(task.source, x)
    ends = _values(task.exact, x[[0, -1]])
    u[0], u[-1] = ends
    for _ in range(30 if task.kind == "cubic" else 1):
        value, slope = _cubic(u) if task.kind == "cubic" else (np.zeros_like(u), np.zeros_like(u))
        rest = f[1:-1] - (u[:-2] - 2.0 * u[1:-1] + u[2:]) / h**2 - value[1:-1]
        band = np.ones((3, len(rest))) / h**2
        band[1] = -2.0 / h**2 + slope[1:-1]
        step = linalg.solve_banded((1, 1), band, rest)
        u[1:-1] += step
        if np.abs(step).max() < 1e-12 * max(1.0, np.abs(u).max()):
            break
    return u


def _sine_transform(task, x, y):
    hx, hy = x[1] - x[0], y[1] - y[0]
    u = _values(task.exact, x, y)  # its boundary is the data
    f = _values(task.source, x, y)[1:-1, 1:-1].copy()
    f[0] -= u[0, 1:-1] / hx**2
    f[-1] -= u[-1, 1:-1] / hx**2
    f[:, 0] -= u[1:-1, 0] / hy**2
    f[:, -1] -= u[1:-1, -1] / hy**2
    values = [
        (2.0 * np.cos(np.pi * np.arange(1, n - 1) / (n - 1)) - 2.0) / h**2 for n, h in ((len(x), hx), (len(y), hy))
    ]

    def inverse(right):
        return fft.idstn(fft.dstn(right, type=1) / (values[0][:, None] + values[1]), type=1)

    u[1:-1, 1:-1] = _newton(f, inverse) if task.kind == "cubic" else inverse(f)
    return u


def _box_scheme(task, x, t):
    """Preissmann's scheme for 200 u_x + u_t = 0, second order in both."""
    u = np.zeros((len(x), len(t)))
    u[:, 0], u[0] = _values(task.exact, x, t[:1])[:, 0], _values(task.exact, x[:1], t)[0]
    ratio = 200.0 * (t[1] - t[0]) / (x[1] - x[0])
    for k in range(len(t) - 1):
        for i in range(len(x) - 1):
            u[i + 1, k + 1] = u[i, k] + (1.0 - ratio) / (1.0 + ratio) * (u[i + 1, k] - u[i, k + 1])
    return u


def _chebyshev(lower, upper, count):
    """Nodes, differentiation matrix and a function that gives interpolation matrices (barycentric)."""
    k = np.arange(count)
    x = np.cos(np.pi * k / (count - 1))
    c = np.where((k == 0) | (k == count - 1), 2.0, 1.0) * (-1.0) ** k
    gap = x[:, None] - x + np.eye(count)
    d = np.outer(c, 1.0 / c) / gap
    d -= np.diag(d.sum(axis=1))
    half = 0.5 * (upper - lower)
    w = (-1.0) ** k * np.where((k == 0) | (k == count - 1), 0.5, 1.0)

    def interpolation(at):
        tau = (np.asarray(at) - lower) / half - 1.0
        difference = tau[:, None] - x
        hit = np.abs(difference) < 1e-14
        parts = w / np.where(hit, 1.0, difference)
        matrix = parts / parts.sum(axis=1, keepdims=True)
        matrix[hit.any(axis=1)] = hit[hit.any(axis=1)]
        return matrix

    return lower + half * (x + 1.0), d / half, interpolation


def chebyshev_collocation(task: Task):
    """Chebyshev points, as many as the task's grid has; None where it would need an iteration of its own."""
    lower, upper = task.problem.box.lower, task.problem.box.upper
    parts = [_chebyshev(a, b, n) for a, b, n in zip(lower, upper, task.grid, strict=True)]
    if len(parts) == 1:
        x, first, interpolation = parts[0]
        second = first @ first
        u, f = np.zeros_like(x), _values(task.source, x)
        u[[0, -1]] = _values(task.exact, x[[0, -1]])
        for _ in range(30 if task.kind == "cubic" else 1):
            value, slope = _cubic(u) if task.kind == "cubic" else (np.zeros_like(u), np.zeros_like(u))
            rest = (f - second @ u - value)[1:-1]
            step = np.linalg.solve(second[1:-1, 1:-1] + np.diag(slope[1:-1]), rest)
            u[1:-1] += step
            if np.abs(step).max() < 1e-11 * max(1.0, np.abs(u).max()):
                break
        return lambda wanted: interpolation(wanted[0].numpy()) @ u
    if len(parts) > 2:
        return None
    (x, dx, to_x), (y, dy, to_y) = parts
    exact, f = _values(task.exact, x, y), _values(task.source, x, y)
    if task.kind == "advection":
        a, b = 200.0 * dx, dy
        inner_x, inner_y = slice(0, -1), slice(0, -1)  # nodes decrease: the last one is the inflow, or the start
    else:
        a, b = dx @ dx, dy @ dy
        inner_x = inner_y = slice(1, -1)
    known = exact.copy()
    known[inner_x, inner_y] = 0.0
    rest = (f - a @ known - known @ b.T)[inner_x, inner_y]
    if task.kind == "cubic":
        (left, to_left), (right, to_right) = (
            (values.real, (vectors.real, np.linalg.inv(vectors.real)))
            for values, vectors in (np.linalg.eig(a[inner_x, inner_x]), np.linalg.eig(b[inner_y, inner_y]))
        )

        def inverse(inner):
            modes = to_left[1] @ inner @ to_right[1].T / (left[:, None] + right)
            return to_left[0] @ modes @ to_right[0].T

        known[inner_x, inner_y] = _newton(rest, inverse)
    else:
        known[inner_x, inner_y] = linalg.solve_sylvester(a[inner_x, inner_x], b[inner_y, inner_y].T, rest)
    return lambda wanted: to_x(wanted[0].numpy()) @ known @ to_y(wanted[1].numpy()).T
