# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Wind on the sphere
#
# Station winds in, a field with its uncertainty out: everywhere on the globe, with divergence, vorticity and singular
# points. The wind is simulated (jets, planetary waves, a little divergence), so the notebook needs no data and the
# truth is known.
#
# With the environment variable `GPKIT_SMOKE=1` the notebook uses few points, to be a quick test.

# %%
# %matplotlib inline
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import numpy as np

from gpkit.diagnostics.field_plots import View, plot_field, plot_singularities, plot_streamlines
from gpkit.diagnostics.style import new_figure
from gpkit.geometry import PointCloud
from gpkit.models import VectorFieldGP

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
N, STATIONS = (200, 70) if SMOKE else (600, 180)
SEED = 0

# %% [markdown]
# ## The truth
#
# A stream function for the jets and waves, and a weak potential for the divergent part, on Fibonacci points.

# %%
i = np.arange(N)
z = 1.0 - (2.0 * i + 1.0) / N
angle = np.pi * (1.0 + np.sqrt(5.0)) * (i + 0.5)
r = np.sqrt(1.0 - z**2)
points = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def gradient(function, x, step=1e-5):
    """Tangential gradient by central differences."""
    out = np.stack([(function(x + step * e) - function(x - step * e)) / (2.0 * step) for e in np.eye(3)], axis=1)
    return out - x * (out * x).sum(1, keepdims=True)


def stream(x):
    sin_latitude, longitude = x[:, 2], np.arctan2(x[:, 1], x[:, 0])
    cos2 = 1.0 - sin_latitude**2
    return -8.0 * sin_latitude - 6.0 * sin_latitude**3 + 5.0 * cos2**2 * np.cos(4.0 * longitude) * sin_latitude


def potential(x):
    return 1.5 * x[:, 0] * x[:, 2]


wind = np.cross(points, gradient(stream, points)) + gradient(potential, points)
rng = np.random.default_rng(SEED)
stations = np.sort(rng.permutation(N)[:STATIONS])
measured = wind[stations] + 0.5 * rng.standard_normal((STATIONS, 3))
measured -= points[stations] * (measured * points[stations]).sum(1, keepdims=True)
print(f"{STATIONS} stations, root mean square speed {np.sqrt(np.square(wind).sum(1).mean()):.1f} m/s")

# %% [markdown]
# ## The fit
#
# `kernel="auto"` compares kernels of the sphere itself (connection Laplacian), kernels of space projected to it, and
# flows made of a potential and a stream function. Look at the two amplitudes of the winner: it has found out by itself
# that the wind is nearly free of divergence.

# %%
globe = PointCloud(points, dim=2)
model = VectorFieldGP(globe, value_unit="m/s")
result = model.fit(stations, measured, seed=SEED, progress=False)
print(result)
result.comparison.table.round(2)

# %%
field = model.predict()
rest = np.setdiff1d(np.arange(N), stations)


def angular_error(found, true):
    cosine = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean()


nearest = stations[np.argmin(np.linalg.norm(points[rest][:, None] - points[stations][None], axis=2), axis=1)]
error = angular_error(field.mean[rest], wind[rest])
print(f"angular error where there is no station: {error:.1f} degrees")
print(f"the wind of the nearest station: {angular_error(wind[nearest], wind[rest]):.1f} degrees")
print(f"95 % regions hold {100 * field.covers(wind)[rest].mean():.0f} % of the true winds")

# %% [markdown]
# ## Pictures
#
# The mean over its standard deviation, from two sides.

# %%
normals = globe.normals * np.sign((globe.normals * points).sum())
singular = model.singularities(draws=20 if SMOKE else 100, seed=SEED)
figure = new_figure(9.6, 4.4)
for column, view in enumerate((View(), View().opposite())):
    plot_field(
        points,
        field.mean,
        triangles=singular.triangles,
        normals=normals,
        value=field.standard_deviation,
        value_label="Standard deviation (m/s)",
        truth=wind,
        view=view,
        ax=figure.add_subplot(1, 2, column + 1),
    )
figure

# %%
figure = new_figure(9.6, 4.4)
plot_streamlines(
    points,
    field.mean,
    frames=globe.frames,
    normals=normals,
    triangles=singular.triangles,
    ax=figure.add_subplot(1, 2, 1),
)
plot_singularities(
    points,
    [s.location for s in singular.found],
    [s.index for s in singular.found],
    [s.probability for s in singular.found],
    in_mean=[s.in_mean for s in singular.found],
    vectors=field.mean,
    triangles=singular.triangles,
    normals=normals,
    ax=figure.add_subplot(1, 2, 2),
)
figure

# %% [markdown]
# ## Singular points
#
# Whatever the field, the indices over a sphere add up to two. The probability of each is the share of posterior draws
# that have one of its sign nearby. Hollow marks (none here) are of points that draws have and the mean does not: a
# saddle and a vortex close to each other, which averaging makes vanish.

# %%
print(singular)
assert singular.total == singular.euler_characteristic == 2

# %% [markdown]
# ## Divergence and vorticity, with uncertainty

# %%
divergence, curl = model.divergence(), model.curl()
for name, quantity in (("divergence", divergence), ("curl", curl)):
    sure = np.abs(quantity.mean) > 1.96 * quantity.standard_deviation
    rms = np.sqrt(np.square(quantity.mean).mean())
    print(
        f"{name:10s} rms {rms:6.2f}, median sd {np.median(quantity.standard_deviation):.2f}, sure at {sure.mean():.0%}"
    )

# %% [markdown]
# ## Anywhere, and the report
#
# Points that are not nodes are predicted by the ambient kernels directly, and by Nystrom extension with parallel
# transport for the intrinsic one. On the command line: `gpkit vectorfield POINTS.csv --vectors VALUES.csv`.

# %%
places = rng.standard_normal((200, 3))
places /= np.linalg.norm(places, axis=1, keepdims=True)
true = np.cross(places, gradient(stream, places)) + gradient(potential, places)
unseen = angular_error(model.predict(places).mean, true)
print(f"at 200 places that no node knows: {unseen:.1f} degrees")
assert unseen < 1.25 * error + 2.0
with tempfile.TemporaryDirectory() as folder:
    html, numbers = model.report(Path(folder), title="Simulated wind", seed=SEED)
    print(html.name, f"{html.stat().st_size / 1e6:.1f} MB;", numbers.name)
