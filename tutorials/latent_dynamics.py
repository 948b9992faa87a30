# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dynamics on a latent manifold
#
# Recordings of neural populations are often trajectories on a surface of low dimension inside a space of high
# dimension. Here two coupled phases (a torus) are seen through 20 simulated channels. The cloud of states is the
# manifold; velocities are tangent vectors; the model fills in the flow where nothing was recorded, and says how sure it
# is.
#
# With the environment variable `GPKIT_SMOKE=1` the notebook uses few points, to be a quick test.

# %%
# %matplotlib inline
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import numpy as np
from matplotlib import pyplot as plt

from gpkit.errors import DataWarning
from gpkit.geometry import PointCloud, furthest_point_sample
from gpkit.models import VectorFieldGP, VectorMovieGP

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
N = 200 if SMOKE else 600
CHANNELS, SEED = 20, 0
rng = np.random.default_rng(SEED)

# %% [markdown]
# ## States and velocities
#
# Two phases with speeds that depend on both; the channels are random mixtures of their sines and cosines, with a mild
# curvature of their own.

# %%
mixing = np.linalg.qr(rng.standard_normal((CHANNELS, 4)))[0]


def embed(phases):
    a, b = phases.T
    return np.stack([np.cos(a), np.sin(a), 0.6 * np.cos(b), 0.6 * np.sin(b)], axis=1) @ mixing.T


def speeds(phases, t=0.0):
    a, b = phases.T
    return np.stack([1.0 + 0.5 * np.cos(b + t), 0.8 * np.sin(a)], axis=1)


def velocities(phases, t=0.0, step=1e-6):
    change = speeds(phases, t)
    return (embed(phases + step * change) - embed(phases - step * change)) / (2.0 * step)


phases = rng.uniform(0.0, 2.0 * np.pi, (4 * N, 2))
phases = phases[furthest_point_sample(embed(phases), count=N)]
states, flow = embed(phases), velocities(phases)
cloud = PointCloud(states, dim=2)
print(cloud)
print(cloud.diagnostics())

# %% [markdown]
# ## The flow from a third of the states

# %%
seen = np.sort(rng.permutation(N)[: N // 3])
noisy = flow[seen] + 0.05 * rng.standard_normal((len(seen), CHANNELS))
model = VectorFieldGP(cloud)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DataWarning)  # most of the noise points out of the tangent spaces: printed below
    result = model.fit(seen, noisy, progress=False)
print(result.comparison.verdict())
field = model.predict()
rest = np.setdiff1d(np.arange(N), seen)
error = np.linalg.norm(field.mean - flow, axis=1)[rest].mean()
size = np.linalg.norm(flow, axis=1)[rest].mean()
print(f"mean error {error:.3f} where the mean speed is {size:.2f}")
print(f"95 % regions hold {field.covers(flow)[rest].mean():.0%} of the true velocities")
print(
    f"{100 * model.observations.normal_share:.0f} % of the recorded velocities was noise outside of the tangent spaces"
)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
change = np.linalg.lstsq(mixing, field.mean.T, rcond=None)[0].T
a, b = phases.T
found = np.stack(
    [
        -np.sin(a) * change[:, 0] + np.cos(a) * change[:, 1],
        (-np.sin(b) * change[:, 2] + np.cos(b) * change[:, 3]) / 0.6,
    ],
    1,
)
for ax, vectors, title in ((axes[0], speeds(phases), "truth"), (axes[1], found, "posterior mean")):
    shade = ax.scatter(a, b, c=field.standard_deviation, s=8, cmap="YlOrBr")
    ax.quiver(a, b, *vectors.T, width=0.003)
    ax.set(title=title, xlabel="first phase", ylabel="second phase")
_ = fig.colorbar(shade, ax=axes, label="standard deviation")
# %% [markdown]
# ## Fixed points
#
# The field of two running phases has none; over a torus the indices of any field add up to zero.

# %%
singular = model.singularities(draws=20 if SMOKE else 100, seed=SEED)
print(singular)

# %% [markdown]
# ## A flow that changes
#
# The same states, visited in every frame of a movie: the covariance is that of the manifold times a Markov kernel in
# time, and the cost is linear in the number of frames.

# %%
times = np.linspace(0.0, 6.0, 9 if SMOKE else 25)
frames = np.stack([velocities(phases[seen], t) for t in times]) + 0.05 * rng.standard_normal(
    (len(times), len(seen), CHANNELS)
)
movie = VectorMovieGP(cloud, "projected:rbf", temporal="matern52")
fit = movie.fit(times, seen, frames)
print(fit)
between = 0.5 * (times[3] + times[4])
found = movie.predict([between], rest)
error = np.linalg.norm(found.mean[0] - velocities(phases[rest], between), axis=1).mean()
print(f"between two frames, at states that were never recorded: mean error {error:.3f}")
assert error < 0.25 * size
