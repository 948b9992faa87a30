"""Evidence, gradient and prediction of the public peers, on the same data and parameters as gpkit's.

Parameters follow gpkit's structures: (variance, frequency, quality) per oscillator, (variance, rate) otherwise.
"""

from __future__ import annotations

import math

import numpy as np
from _measure import installed

SHO, MATERN32, DRW = (("sho",),), (("matern32",),), (("exponential",),)
OSCILLATORS = np.array([[1.2, 0.9, 0.4], [0.5, 2.0, 3.0], [0.3, 5.0, 1.0], [0.2, 0.1, 0.7]])
PARAMETERS = {SHO: np.array([1.21, 0.9, 0.4]), MATERN32: np.array([1.21, 1.0]), DRW: np.array([1.21, 0.3])}


def oscillators(count):
    """Structure and parameters of a sum of oscillators."""
    return (("sho",),) * count, OSCILLATORS[:count].ravel()


def simulate(n, seed=1):
    """Times on [0, N/5], white values, noise variances."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0.0, n / 5, n)), rng.normal(size=n), rng.uniform(0.1, 0.2, n)


def _terms(module, structure, params, sqrt):
    """The same kernel made of celerite2's terms (NumPy or JAX)."""
    total, at = None, 0
    for (name,) in structure:
        if name == "sho":
            term = module.SHOTerm(sigma=sqrt(params[at]), w0=params[at + 1], Q=params[at + 2])
        elif name == "matern32":
            term = module.Matern32Term(sigma=sqrt(params[at]), rho=math.sqrt(3.0) / params[at + 1])
        else:
            term = module.RealTerm(a=params[at], c=params[at + 1])
        at += 3 if name == "sho" else 2
        total = term if total is None else total + term
    return total


def celerite(structure, params, t, y, r):
    """``(value, value_and_gradient)`` on celerite2's C++ functions.

    The gradient stops at the arrays (a, U, V, c) that celerite2 is given; the rest of the chain is spared it.
    """
    if not installed("celerite2"):
        return None
    import celerite2.backprop as backprop
    import celerite2.driver as driver
    from celerite2 import terms

    term = _terms(terms, structure, params, math.sqrt)
    n, column = t.size, y[:, None].copy()

    def density(z, d):
        return -0.5 * (np.sum(z[:, 0] ** 2 / d) + np.sum(np.log(d)) + n * math.log(2.0 * math.pi))

    def value():
        c, a, u, v = term.get_celerite_matrices(t, r)
        d, w, z = a.copy(), v.copy(), column.copy()
        driver.factor(t, c, a, u, v, d, w)
        driver.solve_lower(t, c, u, w, column, z)
        return density(z, d)

    def value_and_gradient():
        c, a, u, v = term.get_celerite_matrices(t, r)
        j = len(c)
        d, w, z = a.copy(), v.copy(), column.copy()
        s, f = np.empty((n, j, j)), np.empty((n, j, 1))
        backprop.factor_fwd(t, c, a, u, v, d, w, s)
        backprop.solve_lower_fwd(t, c, u, w, column, z, f)
        bz, bd = -z / d[:, None], 0.5 * z[:, 0] ** 2 / d**2 - 0.5 / d
        bt, bc, bu, bw, by = np.zeros(n), np.zeros(j), np.zeros((n, j)), np.zeros((n, j)), np.zeros((n, 1))
        backprop.solve_lower_rev(t, c, u, w, column, z, f, bz, bt, bc, bu, bw, by)
        bt, bc, ba, bu, bv = np.zeros(n), np.zeros(j), np.zeros(n), np.zeros((n, j)), np.zeros((n, j))
        backprop.factor_rev(t, c, a, u, v, d, w, s, bd, bw, bt, bc, ba, bu, bv)
        return density(z, d), by, ba

    return value, value_and_gradient


def _compiled(density, params, t, y, r):
    import jax

    jax.config.update("jax_enable_x64", True)
    function = jax.jit(jax.value_and_grad(density, argnums=(0, 2, 3)))
    arguments = [jax.numpy.asarray(array) for array in (params, t, y, r)]
    return lambda: jax.block_until_ready(function(*arguments))


def celerite_jax(structure, params, t, y, r):
    """Compiled value and gradient (parameters, y, R) of celerite2.jax; the call returns (value, gradients)."""
    if not installed("celerite2", "jax"):
        return None
    import jax
    from celerite2.jax import GaussianProcess, terms

    def density(params, t, y, r):
        gp = GaussianProcess(_terms(terms, structure, params, jax.numpy.sqrt))
        gp.compute(t, diag=r, check_sorted=False)
        return gp.log_likelihood(y)

    return _compiled(density, params, t, y, r)


def tinygp(structure, params, t, y, r):
    """Compiled value and gradient of tinygp's quasiseparable solver."""
    if not installed("tinygp", "jax"):
        return None
    import jax
    from tinygp import GaussianProcess
    from tinygp.kernels import quasisep

    def density(params, t, y, r):
        total, at = None, 0
        for (name,) in structure:
            sigma = jax.numpy.sqrt(params[at])
            if name == "sho":
                kernel = quasisep.SHO(omega=params[at + 1], quality=params[at + 2], sigma=sigma)
            elif name == "matern32":
                kernel = quasisep.Matern32(scale=math.sqrt(3.0) / params[at + 1], sigma=sigma)
            else:
                kernel = quasisep.Exp(scale=1.0 / params[at + 1], sigma=sigma)
            at += 3 if name == "sho" else 2
            total = kernel if total is None else total + kernel
        return GaussianProcess(total, t, diag=r, assume_sorted=True).log_probability(y)

    return _compiled(density, params, t, y, r)


def celerite_prediction(structure, params, t, y, r, new):
    """Mean and variance at new times, as celerite2 gives them."""
    if not installed("celerite2"):
        return None
    from celerite2 import GaussianProcess, terms

    gp = GaussianProcess(_terms(terms, structure, params, math.sqrt))

    def predict():
        gp.compute(t, diag=r)
        return gp.predict(y, t=new, return_var=True)

    return predict
