"""How near stochastic and streaming fits of tensor tables are to full ones, and variational Bayes to NUTS.

    OMP_NUM_THREADS=1 python benchmarks/functional_tensor_agreement.py [--smoke] [--only pieces,streaming,tails,nuts]

Tables are simulated, from functions that are not draws of the model: three modes, one of them a category, main effects
and two interactions, normal noise of .2 (or Student-t noise of scale .3). Gaps are root mean squares over new rows, in
noise standard deviations; widths are medians of ratios of posterior standard deviations of the noise-free value.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _command import run_parts
from _measure import Row

from gpkit.kernels import MaternKernel
from gpkit.models import Categorical, Continuous, FunctionalTensor

NOISE = 0.2


def signal(frame: pd.DataFrame) -> np.ndarray:
    effect = frame.kind.map(dict(zip("abcde", (-1.0, 0.3, 1.2, -0.4, 0.8), strict=True))).to_numpy(dtype=float)
    x, t = frame.x.to_numpy(), frame.t.to_numpy()
    return 1.0 + 0.8 * np.sin(2.0 * x) + effect * np.cos(0.6 * t) + 0.5 * np.exp(-x) * np.sin(t)


def table(n: int, seed: int, degrees: float | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, t = rng.uniform(0.0, 3.0, n).round(2), rng.uniform(0.0, 9.0, n).round(1)
    frame = pd.DataFrame({"x": x, "t": t, "kind": rng.choice(list("abcde"), n)})
    white = NOISE * rng.standard_normal(n) if degrees is None else 0.3 * rng.standard_t(degrees, n)
    return frame.assign(y=signal(frame) + white)


def model(**options: object) -> FunctionalTensor:
    return FunctionalTensor([Continuous("x"), Continuous("t"), Categorical("kind")], **{"rank": 2, **options})


def fitted(frame: pd.DataFrame, options: dict[str, object], **fit: object) -> FunctionalTensor:
    own = model(**options)
    own.fit(frame, "y", **{"restarts": 1, "progress": False, **fit})
    return own


def compared(section: str, name: str, found: FunctionalTensor, whole: FunctionalTensor, new: pd.DataFrame) -> list[Row]:
    ours, theirs = found.predict(new), whole.predict(new)
    gap = np.sqrt(np.mean((ours.mean - theirs.mean) ** 2)) / NOISE
    width = np.sqrt(np.median(ours.function_variance / theirs.function_variance))
    return [Row(section, f"{name}: gap", float(gap), unit=""), Row(section, f"{name}: width", float(width), unit="")]


def pieces(smoke: bool) -> list[Row]:
    frame, new = table(600 if smoke else 6000, 0), table(500, 1)
    whole, rows = fitted(frame, {}), []
    for name, fit in (
        ("pieces of 300, no stochastic pass", {"epochs": 0}),
        ("two stochastic passes and one sweep", {"sweeps": 1}),
        ("two stochastic passes, then to convergence", {}),
    ):
        rows += compared("Pieces", name, fitted(frame, {}, batch_size=300, **fit), whole, new)
    return rows


def streaming(smoke: bool) -> list[Row]:
    rows, sizes = [], ((900, 300, (300,)),) if smoke else ((6000, 300, (100_000, 200)), (40_000, 1000, (1000, 200)))
    for n, step, keeps in sizes:
        frame, new = table(n, 0), table(500, 1)
        for form in ("tucker", "cp", "tensor-train"):
            whole = fitted(frame, {"form": form})
            for keep in keeps:
                stream = fitted(frame[: 2 * step], {"form": form})
                for begin in range(2 * step, n, step):
                    stream.update(frame[begin : begin + step], "y", keep=keep, sweeps=5)
                name = f"{form}, {n} rows in steps of {step}, {keep} kept"
                rows += compared("Streaming", name, stream, whole, new)
    return rows


def tails(smoke: bool) -> list[Row]:
    rows = []
    for entries, degrees in ((300, 3.0), (600, 3.0), (600, 1.5)):
        covered = []
        for seed in range(1 if smoke else 3):
            frame, new = table(entries, seed, degrees), table(2000, 100 + seed, degrees)
            law = fitted(frame, {"likelihood": "student-t", "rank": 3}, restarts=4).predict(new)
            inside = [(new.y > low) & (new.y < high) for low, high in (law.interval(0.5), law.interval(0.9))]
            covered.append([part.mean() for part in inside])
        for level, value in zip((50, 90), np.mean(covered, 0), strict=True):
            name = f"{entries} rows, {degrees:g} degrees of freedom: {level} % intervals cover"
            rows.append(Row("Student-t noise", name, float(value), unit=""))
    return rows


def nuts(smoke: bool) -> list[Row]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.integers(0, 6, 50) / 3.0, "t": rng.integers(0, 5, 50) / 2.0})
    frame["y"] = np.sin(2.0 * frame.x) * (1.0 + frame.t) + 0.3 * rng.standard_normal(50)
    new = pd.DataFrame({"x": np.linspace(0.1, 1.6, 9), "t": np.linspace(2.1, 0.0, 9)})
    modes = [Continuous("x", MaternKernel(1.5)), Continuous("t", MaternKernel(1.5))]
    own = FunctionalTensor(modes, rank=1, main_effects=False)
    own.fit(frame, "y", restarts=1, progress=False)
    draws = 20 if smoke else 250
    found = own.sample(new, draws=draws, tune=draws, chains=1, progress=False).posterior["f_new"].to_numpy()[0]
    law = own.predict(new)
    gap = np.sqrt(np.mean(((law.mean - found.mean(0)) / found.std(0)) ** 2))
    width = np.median(np.sqrt(law.function_variance) / found.std(0))
    return [
        Row("Beside NUTS", "means, in standard deviations of NUTS", float(gap), unit=""),
        Row("Beside NUTS", "width over that of NUTS", float(width), unit=""),
    ]


MEASURES = {"pieces": pieces, "streaming": streaming, "tails": tails, "nuts": nuts}


if __name__ == "__main__":
    run_parts(__doc__.splitlines()[0], MEASURES)
