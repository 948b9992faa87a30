"""Simulated tables, from functions that are not draws of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor


def signal(frame: pd.DataFrame) -> np.ndarray:
    """Rank two, with main effects; levels a to e."""
    effect = frame.kind.map({"a": -1.0, "b": 0.3, "c": 1.2, "d": -0.4, "e": 0.8}).to_numpy()
    x, t = frame.x.to_numpy(), frame.t.to_numpy()
    return 1.0 + 0.8 * np.sin(2.0 * x) + effect * np.cos(0.6 * t) + 0.5 * np.exp(-x) * np.sin(t)


def table(n: int = 600, noise: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Columns x, t, kind and y."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x": rng.uniform(0.0, 3.0, n).round(2),
            "t": rng.uniform(0.0, 9.0, n).round(1),
            "kind": rng.choice(list("abcde"), n),
        }
    )
    frame["y"] = signal(frame) + noise * rng.standard_normal(n)
    return frame


def modes() -> list:
    """For these tables."""
    return [Continuous("x", MaternKernel(2.5)), Continuous("t", MaternKernel(2.5)), Categorical("kind")]


def fitted(frame: pd.DataFrame, *, fit: dict | None = None, **options) -> FunctionalTensor:
    """A small fit."""
    model = FunctionalTensor(modes(), **{"rank": 2, **options})
    model.fit(frame, "y", **{"restarts": 2, "sweeps": 25, "progress": False, **(fit or {})})
    return model
