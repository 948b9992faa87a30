"""Maximum-likelihood fits of a fleet of light curves: 207 AGN where the data are, else curves simulated like them."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np
from _measure import Row

from gpkit.datasets import LightCurve, read_fleet
from gpkit.errors import DataWarning
from gpkit.models import LightCurveGP

SECTION = "Fleet"


def _real():
    root = Path(os.environ.get("GPKIT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    folder = root / "light_curves" / "agn_burke2021"
    if not folder.is_dir():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of rows left out
        return list(read_fleet(folder, pattern="agn_*.csv", progress=False))


def _simulated(count=207):
    """Damped random walks of 212 points with errors, the mean size of the AGN curves."""
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(count):
        t = np.sort(rng.uniform(0.0, 3000.0, 212))
        decay = np.exp(-np.diff(t) / rng.uniform(50.0, 500.0))
        x = rng.normal(size=t.size)
        for k in range(1, t.size):
            x[k] = decay[k - 1] * x[k - 1] + np.sqrt(1.0 - decay[k - 1] ** 2) * x[k]
        error = rng.uniform(0.05, 0.2, t.size)
        curves.append(LightCurve(t, 10.0 + x + error * rng.normal(size=t.size), error))
    return curves


def rows(limit, rounds):
    curves = _real()
    name = "AGN curves" if curves else "simulated curves"
    curves = (curves or _simulated())[:limit]
    LightCurveGP(curves[0], "drw").fit()
    best = np.inf
    for _ in range(rounds):
        begun = time.process_time()
        fits = [LightCurveGP(curve, "drw").fit(starts=5) for curve in curves]
        best = min(best, time.process_time() - begun)
    points, converged = sum(fit.n for fit in fits), sum(fit.converged for fit in fits)
    what = f"{len(curves)} {name}, {points:,} points: DRW + jitter + mean, 5 starts each"
    ours = f"{best:.2f} s; {converged} converged"
    return [Row(SECTION, what, best, 3.0 if len(curves) == 207 else None, ours=ours, unit="s", upper=True)]
