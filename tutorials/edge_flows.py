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
# # Flows on a network
#
# Traffic, water, money: numbers on edges with a direction. A flow splits into a part with sources (a gradient), a part
# that turns around faces (a curl) and a part that goes around holes (harmonic). `EdgeFlowGP` gives each its own
# amplitude, learns them from some of the edges, and predicts the others.

# %%
# %matplotlib inline
import os
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import numpy as np

from gpkit.diagnostics.network_plots import plot_flow, plot_node_values
from gpkit.diagnostics.style import new_figure
from gpkit.geometry import CellComplex
from gpkit.models import EdgeFlowGP

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
SIDE = 7 if SMOKE else 11
rng = np.random.default_rng(0)

# %% [markdown]
# ## A town with a lake
#
# A grid of streets with diagonals, around a lake: no street crosses it, and no face fills it. It is a hole.

# %%
plan = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2) / (SIDE - 1.0) - 0.5
wet = np.abs(plan).max(1) < 0.15
places = plan[~wet]
numbers = np.where(wet, -1, np.cumsum(~wet) - 1).reshape(SIDE, SIDE)
edges, faces = set(), []
for i in range(SIDE):
    for j in range(SIDE):
        ahead = [
            (i, j),
            (i, min(j + 1, SIDE - 1)),
            (min(i + 1, SIDE - 1), min(j + 1, SIDE - 1)),
            (min(i + 1, SIDE - 1), j),
        ]
        a, b, c, d = (int(numbers[k]) for k in ahead)
        edges |= {(a, end) for end in (b, d) if end != a and min(a, end) >= 0}
        if len({a, b, c, d}) == 4 and min(a, b, c, d) >= 0:
            edges.add((a, c))
            faces += [[a, b, c], [a, c, d]]
town = CellComplex(len(places), sorted(edges), faces)
print(town, "holes:", town.harmonic_dimension)

# %% [markdown]
# ## The truth: line integrals of a smooth planar field
#
# A vortex around the lake, a turning part and a source in one corner. It is not made of the model's own modes.

# %%
middle = places[town.edges].mean(1)
step = places[town.edges[:, 1]] - places[town.edges[:, 0]]
radius2 = (middle**2).sum(1, keepdims=True) + 0.05
vortex = 0.25 * np.stack([-middle[:, 1], middle[:, 0]], axis=1) / radius2
turning = np.stack([np.sin(3.0 * middle[:, 1]), np.cos(3.0 * middle[:, 0])], axis=1)
source = (middle + 0.5) / (((middle + 0.5) ** 2).sum(1, keepdims=True) + 0.1)
flow = SIDE * ((vortex + 0.5 * turning + 0.5 * source) * step).sum(1)

observed = np.sort(rng.permutation(town.n_edges)[: town.n_edges // 2])
noise = 0.03 * rng.standard_normal(len(observed))
model = EdgeFlowGP(town)
result = model.fit(observed, flow[observed] + noise, progress=False)
print(result.comparison)
print({name: round(share, 2) for name, share in model.shares().items()})

# %%
rest = np.setdiff1d(np.arange(town.n_edges), observed)
found = model.predict(rest)
error = np.sqrt(np.mean((found.mean - flow[rest]) ** 2))
print(f"root mean square error {error:.3f} on unseen edges, whose flows are {np.sqrt(np.mean(flow[rest] ** 2)):.3f}")
low, high = found.interval(0.95)
print(f"95 % intervals hold {((low <= flow[rest]) & (flow[rest] <= high)).mean():.0%}")
print(f"the mean of the observed flows is off by {np.sqrt(np.mean((flow[observed].mean() - flow[rest]) ** 2)):.3f}")
assert error < 0.5 * np.sqrt(np.mean(flow[rest] ** 2))

# %% [markdown]
# ## The parts
#
# Width is the size of a flow, the arrow head its direction, colour its standard deviation.

# %%
parts = {"flow": model.predict(), **model.decompose()}
figure = new_figure(4.4 * len(parts), 3.6)
for column, (name, part) in enumerate(parts.items()):
    ax = figure.add_subplot(1, len(parts), column + 1)
    plot_flow(places, town.edges, part.mean, value=np.sqrt(part.variance), value_label="Standard deviation", ax=ax)
    ax.set_title(f"{name}, up to {np.abs(part.mean).max():.2f}")
figure

# %% [markdown]
# ## Sources with uncertainty
#
# The divergence at each node is linear in the flow, so its posterior is exact.

# %%
divergence = model.divergence()
sure = np.abs(divergence.mean) > 2.0 * divergence.standard_deviation
print(f"{sure.sum()} of {town.n_nodes} nodes are sources or sinks beyond two standard deviations")
figure = new_figure(5.4, 4.0)
plot_node_values(places, town.edges, divergence.mean, value_label="Divergence", diverging=True, ax=figure.add_subplot())
figure

# %% [markdown]
# ## The report
#
# Pictures, comparison, calibration, parts, sources and the spectrum in one file; `positions` are for the pictures.

# %%
with tempfile.TemporaryDirectory() as folder:
    html, summary = model.report(Path(folder), title="Streets", positions=places)
    print(html.name, f"{html.stat().st_size / 1e6:.1f} MB;", summary.name)
