"""The same filter and smoother by public peers, for sites whose precision can be inverted."""

from __future__ import annotations

import numpy as np
from _measure import installed
from scipy.linalg import block_diag


def observations(problem):
    """Dense transitions to the next node, noise of the steps, H, observations, their noise, initial covariance."""
    a = np.stack([block_diag(*([step] * problem.functions)) for step in problem.blocks[:-1]])
    p = block_diag(*([problem.prior] * problem.functions))
    q = p - a @ p @ a.transpose(0, 2, 1)
    h = np.kron(np.eye(problem.functions), np.eye(1, problem.block))
    noise = np.linalg.inv(problem.precision)
    y = (noise @ problem.information[..., None])[..., 0]
    return a, 0.5 * (q + q.transpose(0, 2, 1)), h, y, 0.5 * (noise + noise.transpose(0, 2, 1)), p


def numpy_loop(problem):
    """A Kalman filter and a Rauch-Tung-Striebel smoother as a textbook writes them, in numpy."""
    a, q, h, y, noise, p0 = observations(problem)
    n, d = len(y), len(p0)

    def run():
        ms, ps, before_m, before_p = np.empty((n, d)), np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d))
        m, p, value = np.zeros(d), p0, 0.0
        for j in range(n):
            if j:
                m, p = a[j - 1] @ m, a[j - 1] @ p @ a[j - 1].T + q[j - 1]
            before_m[j], before_p[j] = m, p
            s = h @ p @ h.T + noise[j]
            v = y[j] - h @ m
            k = np.linalg.solve(s, h @ p).T
            value -= 0.5 * (np.linalg.slogdet(2.0 * np.pi * s)[1] + v @ np.linalg.solve(s, v))
            m, p = m + k @ v, p - k @ s @ k.T
            ms[j], ps[j] = m, p
        for j in range(n - 2, -1, -1):
            g = np.linalg.solve(before_p[j + 1], a[j] @ ps[j]).T
            ms[j] = ms[j] + g @ (ms[j + 1] - before_m[j + 1])
            ps[j] = ps[j] + g @ (ps[j + 1] - before_p[j + 1]) @ g.T
        return value, ms @ h.T, h @ ps @ h.T

    return run


def statsmodels_smoother(problem):
    """statsmodels' compiled filter and smoother; None where it is not installed."""
    if not installed("statsmodels"):
        return None
    from statsmodels.tsa.statespace.kalman_smoother import SMOOTHER_STATE, SMOOTHER_STATE_COV, KalmanSmoother

    a, q, h, y, noise, p0 = observations(problem)
    d = len(p0)
    model = KalmanSmoother(k_endog=problem.functions, k_states=d, smoother_output=SMOOTHER_STATE | SMOOTHER_STATE_COV)
    model.bind(np.asfortranarray(y.T))
    model["design"] = h[..., None]
    model["obs_cov"] = noise.transpose(1, 2, 0)
    pad = np.zeros((1, d, d))
    model["transition"] = np.concatenate([a, pad]).transpose(1, 2, 0)
    model["state_cov"] = np.concatenate([q, pad]).transpose(1, 2, 0)
    model["selection"] = np.eye(d)[..., None]
    model.initialize_known(np.zeros(d), p0)

    def run():
        out = model.smooth()
        covariance = out.smoothed_state_cov.transpose(2, 0, 1)
        return out.llf, out.smoothed_state.T @ h.T, h @ covariance @ h.T

    return run


def dynamax_smoother(problem):
    """dynamax' jitted filter and smoother (jax); None where it is not installed."""
    if not installed("jax", "dynamax"):
        return None
    import jax
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import lgssm_smoother
    from dynamax.linear_gaussian_ssm.inference import (
        ParamsLGSSM,
        ParamsLGSSMDynamics,
        ParamsLGSSMEmissions,
        ParamsLGSSMInitial,
    )

    a, q, h, y, noise, p0 = observations(problem)
    d = len(p0)
    # Its transitions lead into each node.
    a, q = (np.concatenate([np.zeros((1, d, d)), m]) for m in (a, q))
    parameters = ParamsLGSSM(
        initial=ParamsLGSSMInitial(jnp.zeros(d), jnp.asarray(p0)),
        dynamics=ParamsLGSSMDynamics(jnp.asarray(a), jnp.zeros(d), jnp.zeros((d, 0)), jnp.asarray(q)),
        emissions=ParamsLGSSMEmissions(
            jnp.asarray(h), jnp.zeros(problem.functions), jnp.zeros((problem.functions, 0)), jnp.asarray(noise)
        ),
    )
    smoother = jax.jit(lambda parameters, y: lgssm_smoother(parameters, y))
    y = jnp.asarray(y)

    def run():
        out = smoother(parameters, y)
        out.smoothed_means.block_until_ready()
        return (
            float(out.marginal_loglik),
            np.asarray(out.smoothed_means) @ h.T,
            h @ np.asarray(out.smoothed_covariances) @ h.T,
        )

    return run
