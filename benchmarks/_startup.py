"""CPU seconds of imports, first compilation and later processes, each measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from _measure import Row, duration

SECTION = "Start-up"
STRUCTURES = {
    "DRW": (("exponential",),),
    "SHO": (("sho",),),
    "Matern-3/2": (("matern32",),),
    "Matern-5/2": (("matern52",),),
    "sum of 2 SHO": (("sho",), ("sho",)),
}
_COUNTS = {"exponential": 1, "sho": 2, "matern32": 1, "matern52": 1}
_IMPORT = "import time; a = time.process_time(); {}; print(time.process_time() - a)"
_FIRST = """
import time, numpy as np
from gpkit.recursions import series
t = np.arange(500.0)
a = time.process_time()
out = series.evidence({structure!r}, np.array({params!r}), t, np.sin(t), np.full(500, 0.1))
print(time.process_time() - a)
"""
_MODEL = """
import time, numpy as np, gpkit
from gpkit.datasets import LightCurve
from gpkit.models import LightCurveGP
rng = np.random.default_rng(0)
curve = LightCurve(np.arange(200.0), np.cumsum(rng.normal(size=200)), np.full(200, 0.3))
a = time.process_time()
LightCurveGP(curve, "sho").fit()
print(time.process_time() - a)
"""


def _seconds(code: str, environment: Mapping[str, str] | None = None) -> float:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(result.stdout.split()[-1])


def rows(repeats, structures=STRUCTURES):
    imports = {"gpkit": [], "gpkit.models, gpkit.kernels": [], "torch, gpytorch": []}
    for _ in range(repeats):
        for modules, seconds in imports.items():
            seconds.append(_seconds(_IMPORT.format(f"import {modules}")))
    *ours, peer = (min(seconds) for seconds in imports.values())
    out = []
    for name, seconds in zip(imports, ours, strict=False):
        what = f"import {name}, beyond import torch, gpytorch"
        texts = {"ours": duration(seconds), "peer": duration(peer)}
        asked = 0.3 if name == "gpkit" else None
        out.append(Row(SECTION, what, seconds - peer, asked, **texts, unit="s", upper=True))
    cached = []
    for name, structure in structures.items():
        params = [1.0 for term in structure for factor in term for _ in range(1 + _COUNTS[factor])]
        code = _FIRST.format(structure=structure, params=params)
        with tempfile.TemporaryDirectory() as folder:
            environment = {"NUMBA_CACHE_DIR": folder}
            first = _seconds(code, environment)
            cached.append((min(_seconds(code, environment) for _ in range(min(repeats, 2))), name))
        what = f"first value + gradient of {name}, nothing compiled before"
        out.append(Row(SECTION, what, first, 3.0, ours=duration(first), unit="s", upper=True))
    slowest, name = max(cached)
    what = "the same in a second process, slowest kernel"
    out.append(Row(SECTION, what, slowest, 0.5, ours=f"{duration(slowest)} ({name})", unit="s", upper=True))
    if repeats == 1:
        return out
    with tempfile.TemporaryDirectory() as folder:
        environment = {"NUMBA_CACHE_DIR": folder}
        first, second = (_seconds(_MODEL, environment) for _ in range(2))
    what = "first LightCurveGP(curve, 'sho').fit(), nothing compiled before (no target)"
    out.append(Row(SECTION, what, first, ours=f"{duration(first)}, then {duration(second)}", unit="s", upper=True))
    return out
