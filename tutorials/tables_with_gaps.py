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
# # Filling the gaps of a table
#
# A table of countries and years: births per woman, collected by the World Bank, of which countries lack parts. A
# functional tensor model describes it by a few *functions of the year* that all countries share, and a value for each
# country that says how much of each it has; a local residual takes what is left. The question is what it makes of gaps
# of decades, beside what anybody would try first.
#
# The table ships with statsmodels. With the environment variable `GPKIT_SMOKE=1` the notebook uses few countries, to be
# a quick test.

# %%
# %matplotlib inline
import os
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, about a widget that is not needed

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from statsmodels.datasets import fertility

from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

SMOKE = os.environ.get("GPKIT_SMOKE") == "1"
SEED = 0
RESTARTS, SWEEPS = (2, 6) if SMOKE else (4, 40)

# %% [markdown]
# ## One row for each entry
#
# A tensor model takes a table in long form: a column for every mode and one for the value. Cells without a value are
# simply not there.

# %%
wide = fertility.load_pandas().data
years = [name for name in wide.columns if name.isdigit()]
table = wide.melt("Country Name", years, "year", "births").rename(columns={"Country Name": "country"}).dropna()
table["year"] = table.year.astype(float)
table = table.sort_values(["country", "year"], ignore_index=True)
if SMOKE:
    table = table[table.country < "D"].reset_index(drop=True)
cells = table.country.nunique() * table.year.nunique()
print(f"{len(table)} entries of {cells} cells: {table.country.nunique()} countries, {table.year.nunique()} years")

# %% [markdown]
# ## Gaps like those of real tables
#
# Entries that are left out at random are easy: the years before and after are still there. Here every country with at
# least thirty years loses one block of fifteen to twenty-nine years, at a random place; often at an end, where there is
# nothing to interpolate between.

# %%
rng = np.random.default_rng(SEED)
gone = np.zeros(len(table), bool)
for _, rows in table.groupby("country"):
    if len(rows) >= 30:
        width = int(rng.integers(15, 30))
        begin = int(rng.integers(0, len(rows) - width + 1))
        gone[rows.index[begin : begin + width]] = True
train, test = table[~gone], table[gone]
print(f"{len(train)} entries to learn from, {len(test)} in the gaps")

# %% [markdown]
# ## What anybody would try first
#
# The mean of the country; effects of country and year by least squares; a straight line over the gap.

# %%
scores = []


def add(name, predicted, law=None):
    error = test.births.to_numpy() - np.asarray(predicted)
    row = {"model": name, "RMSE": np.sqrt(np.mean(error**2)), "MAE": np.mean(np.abs(error))}
    if law is not None:
        low, high = law.interval(0.9)
        row["log density"] = law.log_density(test.births.to_numpy()).mean()
        row["in 90 % intervals"] = np.mean((test.births >= low) & (test.births <= high))
    scores.append(row)


by_country = train.groupby("country").births.mean()
add("mean of the country", test.country.map(by_country))

country_effect = by_country * 0.0
for _ in range(50):
    year_effect = (train.births - train.country.map(country_effect)).groupby(train.year).mean()
    country_effect = (train.births - train.year.map(year_effect)).groupby(train.country).mean()
add("country + year, least squares", test.country.map(country_effect) + test.year.map(year_effect))

known = {name: rows for name, rows in train.groupby("country")}
line = [np.interp(rows.year, known[name].year, known[name].births) for name, rows in test.groupby("country")]
add("straight line over the gap", np.concatenate(line))

# %% [markdown]
# ## The model
#
# Functions of the year are Matern-5/2 processes, whose length scale is learned; countries have no order. `main_effects`
# (the default) gives every mode an effect of its own beside the products. Each of the four starts leaves out a quarter
# of the entries, and predictions are their mixture.
#
# The first fit is low rank alone. The second adds `residual="local"`: a process over country and year jointly, on what
# the low-rank part leaves, so that a gap is also tied to the years around it.


# %%
def fitted(**options):
    model = FunctionalTensor([Continuous("year", MaternKernel(2.5)), Categorical("country")], rank=4, **options)
    model.fit(train, "births", restarts=RESTARTS, sweeps=SWEEPS, seed=SEED, progress=False)
    return model


low_rank = fitted()
law = low_rank.predict(test)
add("gpkit, low rank", law.mean, law)
model = fitted(residual="local", likelihood="student-t")
law = model.predict(test)
add("gpkit, low rank and local residual", law.mean, law)
print(pd.DataFrame(scores).set_index("model").round(3).to_string(na_rep=""))

# %% [markdown]
# The straight line is hard to beat on a smooth table. Low rank alone knows what other countries did in those years but
# not that a country continues where it was; its intervals are too narrow for whole decades, because entries that its
# starts left out at random were easier than gaps. Low rank with the local residual has the smallest errors, and about
# as many values in its intervals as it says.
#
# ## What the functions say
#
# Functions of a tensor model can be rotated into each other; gpkit shows main effects and principal functions, in order
# of what they carry, with bands of two standard deviations.

# %%
found = low_rank.functions("year")
year = found.coordinates
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
axes[0].fill_between(year, found.main - 2 * found.main_sd, found.main + 2 * found.main_sd, alpha=0.3)
axes[0].plot(year, found.main)
axes[0].set(title="main effect of the year", xlabel="year", ylabel="births per woman")
for r in range(min(3, found.functions.shape[1])):
    mean, sd = found.functions[:, r], found.functions_sd[:, r]
    axes[1].fill_between(year, mean - 2 * sd, mean + 2 * sd, alpha=0.25)
    axes[1].plot(year, mean, label=f"function {r + 1}: {100 * found.share[r]:.0f} %")
axes[1].set(title="principal functions", xlabel="year")
axes[1].legend(frameon=False)
plt.show()
print("functions that carry a thousandth or more:", low_rank.effective_rank)

# %% [markdown]
# The world's mean falls by half; the first function is the time at which a country's births fell, early or late.
#
# ## Gaps, filled
#
# Points are what the model saw, crosses what it did not; the bands hold 50 % and 90 %. The width of a band follows what
# the two members of the residual claim and how far they are apart: it narrows where they cross, which is luck and not
# knowledge. The share of values in the bands is right over all gaps, not within each.

# %%
widest = test.groupby("country").births.agg(np.ptp).sort_values()
shown = widest.index[[-1, -len(widest) // 8, -len(widest) // 3, len(widest) // 4]]
grid = np.arange(table.year.min(), table.year.max() + 6.0)
fig, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
for axis, name in zip(axes, shown, strict=True):
    ahead = model.predict(pd.DataFrame({"year": grid, "country": name}))
    for level, alpha in ((0.9, 0.2), (0.5, 0.35)):
        axis.fill_between(grid, *ahead.interval(level), color="C0", alpha=alpha, lw=0)
    axis.plot(grid, ahead.mean, color="C0")
    seen, hidden = train[train.country == name], test[test.country == name]
    axis.plot(seen.year, seen.births, ".", color="k", ms=4)
    axis.plot(hidden.year, hidden.births, "x", color="C3", ms=4)
    axis.set(title=name, xlabel="year")
axes[0].set_ylabel("births per woman")
plt.show()

# %% [markdown]
# ## Are the intervals right?
#
# Where the observed value lies in its predictive distribution should be uniform: over entries that starts left out
# (random ones, which is what the fit can check by itself), and over the gaps (which it cannot: nothing in the table
# says how hard they are, so that a check like this one is worth its trouble wherever gaps are long).

# %%
own = model.fitted.left_out
levels = np.linspace(0.05, 0.95, 19)
transforms = {"left out at random": own.cdf(train.births.to_numpy()), "in the gaps": law.cdf(test.births.to_numpy())}
fig, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
axis.plot([0, 1], [0, 1], color="0.7")
for name, pit in transforms.items():
    axis.plot(levels, [np.mean(np.abs(pit - 0.5) < 0.5 * level) for level in levels], label=name)
axis.set(xlabel="probability of the central interval", ylabel="share of values in it")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Further
#
# `model.report("report.html")` writes these pictures with calibration and trivial predictors; `model.save` and
# `FunctionalTensor.load` keep the fit; `gpkit tensor TABLE.csv --modes year:continuous,country:categorical --target
# births` does all of it from the command line. Counts and yes/no values take `likelihood="poisson"`,
# `"negative-binomial"` or `"bernoulli"`.
