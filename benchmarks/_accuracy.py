"""Errors against a dense float64 covariance: log-likelihood, derivative at critical damping, posterior variance."""

from __future__ import annotations

import math

import _peers
import numpy as np
from _measure import Row

from gpkit.recursions import series

SECTION = "Accuracy"
KERNELS = {
    "DRW": ((("exponential",),), [1.21, 0.3]),
    "SHO, Q = 0.05": ((("sho",),), [1.21, 0.9, 0.05]),
    "SHO, Q = 0.5": ((("sho",),), [1.21, 0.9, 0.5]),
    "SHO, Q = 20": ((("sho",),), [1.21, 0.9, 20.0]),
    "Matern-3/2": ((("matern32",),), [1.21, 1.0]),
    "Matern-5/2": ((("matern52",),), [1.21, 1.0]),
    "celerite": ((("celerite",),), [1.2, 1.0, 0.1, 0.3, 0.5]),
    "2 SHO": _peers.oscillators(2),
    "4 SHO": _peers.oscillators(4),
    "SHO x DRW + Matern-5/2": ((("sho", "exponential"), ("matern52",)), [1.2, 0.9, 0.4, 0.05, 0.4, 2.0]),
}


def _factor(name, lag, values):
    if name == "sho":
        x, beta = values[0] * lag, 0.5 / values[1]
        square = (beta - 1.0) * (beta + 1.0) * x * x
        # cosh and sinhc of the root are entire in its square: a complex root gives the right branch everywhere.
        root = np.sqrt(square.astype(complex))
        up, down = np.exp(root - beta * x), np.exp(-root - beta * x)
        small, decay = np.abs(square) < 1e-6, np.exp(-beta * x)
        cosh = np.where(small, decay * (1.0 + square / 2.0 + square**2 / 24.0), 0.5 * (up + down))
        sinhc = 0.5 * (up - down) / np.where(small, 1.0, root)
        sinhc = np.where(small, decay * (1.0 + square / 6.0 + square**2 / 120.0), sinhc)
        out = cosh + beta * x * sinhc
        return out if isinstance(values[1], complex) else out.real
    if name == "celerite":
        a, b, c, d = values
        return np.exp(-c * lag) * (a * np.cos(d * lag) + b * np.sin(d * lag))
    x = values[0] * lag
    return {"exponential": 1.0, "matern32": 1.0 + x, "matern52": 1.0 + x + x * x / 3.0}[name] * np.exp(-x)


def covariance(structure, params, lag):
    counts = {"sho": 2, "celerite": 4}
    total, at = 0.0, 0
    for term in structure:
        product, at = params[at], at + 1
        for name in term:
            count = counts.get(name, 1)
            product, at = product * _factor(name, lag, params[at : at + count]), at + count
        total = total + product
    return total


def dense(structure, params, t, y, r):
    """Log-likelihood, K^-1 y and K^-1."""
    factor = np.linalg.cholesky(covariance(structure, params, np.abs(t[:, None] - t)) + np.diag(r))
    inverse = np.linalg.inv(factor)
    white = inverse @ y
    value = -0.5 * (white @ white + 2.0 * np.log(np.diag(factor)).sum() + t.size * math.log(2.0 * math.pi))
    return value, inverse.T @ white, inverse.T @ inverse


def rows(n):
    t, y, r = _peers.simulate(n, seed=7)
    new = np.linspace(t[0] - 2.0, t[-1] + 2.0, n)
    out, worst, worst_variance = [], (0.0, ""), (0.0, "")
    for label, (structure, params) in KERNELS.items():
        params = np.array(params)
        exact, _, inverse = dense(structure, params, t, y, r)
        found = float(series.log_likelihood(structure, params, t, y, r)[0])
        worst = max(worst, (abs(found / exact - 1.0), label))
        cross = covariance(structure, params, np.abs(new[:, None] - t))
        prior = float(covariance(structure, params, np.zeros(1))[0])
        variance = prior - np.einsum("ij,jk,ik->i", cross, inverse, cross, optimize=True)
        _, ours, _ = series.posterior(structure, params, t, y, r, new)
        worst_variance = max(worst_variance, (float(np.abs(ours[0] - variance).max() / prior), label))
    what = f"log-likelihood, relative, N = {n}, worst of {len(KERNELS)} kernels"
    out.append(Row(SECTION, what, worst[0], 1e-10, ours=worst[1], peer="dense float64", unit="", upper=True))
    what = f"posterior variance at {n} new points, in units of k(0), the same kernels"
    out.append(
        Row(SECTION, what, worst_variance[0], 1e-10, ours=worst_variance[1], peer="dense float64", unit="", upper=True)
    )
    out += critical_damping(min(n, 500))
    return out


def critical_damping(n):
    """Derivative of the log-likelihood with respect to Q at exactly Q = 1/2."""
    t, y, r = _peers.simulate(n, seed=7)
    params = np.array([1.21, 0.9, 0.5])
    value, alpha, inverse = dense(_peers.SHO, params, t, y, r)
    step = 1e-30
    lag = np.abs(t[:, None] - t)
    moved = covariance(_peers.SHO, [1.21, 0.9, complex(0.5, step)], lag).imag / step
    exact = 0.5 * float(np.sum((np.outer(alpha, alpha) - inverse) * moved))
    out = series.evidence(_peers.SHO, params, t, y, r)
    ours = float(out.params[0, 2])
    text = f"{ours:.6f}"
    label = f"d lnL / dQ at Q = 1/2, N = {n}, relative error"
    peer = f"exact {exact:.6f}"
    found = [Row(SECTION, label, abs(ours / exact - 1.0), 1e-6, ours=text, peer=peer, unit="", upper=True)]
    for name, make in (("celerite2.jax", _peers.celerite_jax), ("tinygp", _peers.tinygp)):
        call = make(_peers.SHO, params, t, y, r)
        what = f"the same of {name} (for comparison)"
        if call is None:
            found.append(Row(SECTION, what, None))
            continue
        result, gradients = call()
        slope = float(gradients[0][2])
        text = f"{slope:.6f}; lnL off by {abs(float(result) - value):.0e}"
        found.append(Row(SECTION, what, abs(slope / exact - 1.0), peer=text, unit=""))
    return found
