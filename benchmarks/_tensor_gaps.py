"""Intervals where whole months are missing: simulated days, and the air of Beijing; a part of functional_tensor.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from _measure import Row
from scipy import linalg, optimize, stats

from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

__all__ = ["gaps"]

_SECTION = "Gaps"
_HELD = 6  # months of 46 in every draw
_KINDS = (("low rank", None, "gaussian"), ("local residual", "local", "student-t"))


def gaps(smoke: bool) -> list[Row]:
    """Coverage inside gaps of 25 days and of months, beside a dense process and the quantiles of the values seen."""
    return _simulated(smoke) + _real(smoke)


def _covered(law: object, y: np.ndarray) -> list[float]:
    inside = []
    for p in (0.9, 0.5):
        low, high = law.interval(p)
        inside.append(float(np.mean((y > low) & (y < high))))
    return inside


def _rows(name: str, found: dict[str, list[list[float]]]) -> list[Row]:
    rows = []
    for label, each in found.items():
        table = np.array(each)
        nine, half = table.mean(0)
        told = f"{table[:, 0].min():.2f} to {table[:, 0].max():.2f} over {len(table)} draws; 50 %: {half:.3f}"
        asked = 0.85 if label in [kind[0] for kind in _KINDS] else None
        rows.append(Row(_SECTION, f"{name}, {label}: coverage of 90 %", nine, asked, ours=told, unit=""))
        if asked is not None:
            rows.append(Row(_SECTION, f"{name}, {label}: the same, at most", nine, 0.95, unit="", upper=True))
    return rows


def days(seed: int, rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A level of days that forgets itself within two days, a curve, heavy-tailed noise; which rows are in gaps."""
    rng = np.random.default_rng(seed)
    level = np.zeros(400)
    for day in range(1, 400):
        level[day] = 0.6 * level[day - 1] + 0.8 * rng.standard_normal()
    day, x = rng.integers(0, 400, rows), rng.uniform(0.0, 3.0, rows)
    frame = pd.DataFrame({"x": x, "day": day.astype(float)})
    frame["y"] = level[day] + 0.3 * np.sin(2.0 * x) + 0.1 * rng.standard_t(4, rows)
    return frame, (frame.day // 25 % 3 == 1).to_numpy()


class _Dense:
    """``a exp(-|day| / b) + c exp(-(x / d)^2 / 2)`` and noise, by the evidence; all rows in one Cholesky factor."""

    def __init__(self, train: pd.DataFrame) -> None:
        self.train, self.centre = train, float(train.y.mean())
        target = train.y.to_numpy() - self.centre

        def loss(z: np.ndarray) -> float:
            try:
                root = linalg.cholesky(self._gram(train, z) + np.exp(z[4]) * np.eye(len(train)), lower=True)
            except linalg.LinAlgError:
                return 1e9
            half = linalg.solve_triangular(root, target, lower=True)
            return float(0.5 * half @ half + np.log(np.diag(root)).sum())

        options = {"maxfev": 120, "xatol": 0.02, "fatol": 0.1}
        self.z = optimize.minimize(loss, [0.0, 0.5, -2.0, 0.0, -3.0], method="Nelder-Mead", options=options).x
        full = self._gram(train, self.z) + np.exp(self.z[4]) * np.eye(len(train))
        self.factor = linalg.cho_factor(full, lower=True)
        self.weights = linalg.cho_solve(self.factor, target)

    def _gram(self, a: pd.DataFrame, z: np.ndarray, b: pd.DataFrame | None = None) -> np.ndarray:
        b = a if b is None else b
        day = np.abs(a.day.to_numpy()[:, None] - b.day.to_numpy())
        x = a.x.to_numpy()[:, None] - b.x.to_numpy()
        return np.exp(z[0] - day / np.exp(z[1])) + np.exp(z[2] - 0.5 * (x / np.exp(z[3])) ** 2)

    def covered(self, new: pd.DataFrame) -> list[float]:
        cross = self._gram(new, self.z, self.train)
        mean = self.centre + cross @ self.weights
        prior = np.exp(self.z[[0, 2, 4]]).sum()
        sd = np.sqrt(prior - np.einsum("ij,ji->i", cross, linalg.cho_solve(self.factor, cross.T)))
        rank = stats.norm.cdf((new.y.to_numpy() - mean) / sd)
        return [float(np.mean(np.abs(rank - 0.5) < 0.5 * p)) for p in (0.9, 0.5)]


def _simulated(smoke: bool) -> list[Row]:
    seeds, rows = (1, 500) if smoke else (6, 1500)
    found: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        frame, gap = days(seed, rows)
        for label, residual, likelihood in _KINDS:
            modes = [Continuous("x"), Continuous("day")]
            model = FunctionalTensor(modes, rank=1, residual=residual, likelihood=likelihood)
            model.fit(frame[~gap], "y", restarts=2, progress=False)
            found.setdefault(label, []).append(_covered(model.predict(frame[gap]), frame.y[gap].to_numpy()))
        if seed < 2:
            found.setdefault("dense process", []).append(_Dense(frame[~gap]).covered(frame[gap]))
    return _rows(f"25 of 75 days, {rows} rows", found)


def _real(smoke: bool) -> list[Row]:
    folder = Path(os.environ.get("GPKIT_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "tensor").is_dir():
        return [Row(_SECTION, "the table is absent (GPKIT_REAL_DATA names its folder)", None)]
    out = []
    for pollutant in ("pm25",) if smoke else ("pm25", "pm10"):
        table = pd.read_csv(folder / "tensor" / f"beijing_{pollutant}.csv")
        month, rng = (table.day // 30.44).astype(int), np.random.default_rng(0)
        found: dict[str, list[list[float]]] = {}
        for _ in range(1 if smoke else 3):
            held = month.isin(rng.choice(np.arange(1, 47), _HELD, replace=False))
            train, test = table[~held], table[held]
            y = test.y.to_numpy()
            for label, residual, likelihood in _KINDS:
                modes = [
                    Continuous("temperature", MaternKernel(2.5)),
                    Continuous("pressure", MaternKernel(2.5)),
                    Continuous("day", MaternKernel(1.5)),
                    Categorical("station"),
                ]
                model = FunctionalTensor(modes, residual=residual, likelihood=likelihood)
                part = train[:2000] if smoke else train
                model.fit(part, "y", progress=False, **({"sweeps": 5} if smoke else {}))
                found.setdefault(label, []).append(_covered(model.predict(test), y))
            spans = [np.quantile(train.y, [0.5 - 0.5 * p, 0.5 + 0.5 * p]) for p in (0.9, 0.5)]
            found.setdefault("quantiles of the values seen", []).append(
                [float(np.mean((y > low) & (y < high))) for low, high in spans]
            )
        out += _rows(f"{pollutant} with station, {_HELD} of 48 months", found)
    return out
