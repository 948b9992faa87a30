"""Timing side by side, and the rows of a table with what was asked for."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

PACKAGES = {
    "gpkit-bayes": "gpkit",
    "torch": "torch",
    "gpytorch": "gpytorch",
    "numba": "numba",
    "numpy": "numpy",
    "celerite2": "celerite2",
    "jax": "jax",
    "tinygp": "tinygp",
    "emcee": "emcee",
    "numpyro": "numpyro",
    "pyro-ppl": "pyro",
    "nutpie": "nutpie",
}
NOT_INSTALLED = "not installed"


def installed(*modules: str) -> bool:
    return all(util.find_spec(module) is not None for module in modules)


def timings(
    functions: Mapping[str, Callable[[], Any]], rounds: int = 7, slice_seconds: float = 0.004, settle: int = 1
) -> dict[str, float]:
    """Least CPU seconds per call of each function over ``rounds`` rounds.

    Every round calls every function, so that a change of the machine's load meets all of them; CPU time of the process
    instead of wall time leaves out what other processes do meanwhile. Functions are called first until what they
    compile is compiled.
    """
    counts, slices = {}, 5
    for name, function in functions.items():
        for _ in range(settle):
            function()
        begun = time.perf_counter()
        function()
        once = max(time.perf_counter() - begun, 1e-7)
        counts[name] = max(1, min(10_000, round(slice_seconds / once)))
    best = dict.fromkeys(functions, math.inf)
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, function in functions.items():
                count = counts[name]
                # Short slices: some of them meet no other process. Their mean counts, not the luckiest call.
                for _ in range(slices if count > 1 else 1):
                    begun = time.process_time()
                    for _ in range(count):
                        function()
                    best[name] = min(best[name], (time.process_time() - begun) / count)
    finally:
        if enabled:
            gc.enable()
    return best


@dataclass
class Row:
    """One line of the table.

    Attributes:
        section: heading it belongs to.
        what: what was measured.
        asked: "at least" or, with ``upper``, "at most" this; None if nothing was asked.
        stretch: what would be better still.
        value: what was reached, in the unit of ``asked``; None if it could not be measured.
        ours: our figure, in words.
        peer: the peer's figure, in words.
        unit: of ``asked``, ``stretch`` and ``value``.
        upper: whether smaller is better.
    """

    section: str
    what: str
    value: float | None
    asked: float | None = None
    stretch: float | None = None
    ours: str = ""
    peer: str = ""
    unit: str = "x"
    upper: bool = False

    @property
    def verdict(self) -> str:
        if self.value is None:
            return NOT_INSTALLED
        if self.asked is None:
            return ""

        def meets(limit: float) -> bool:
            return self.value <= limit if self.upper else self.value >= limit

        if self.stretch is not None and meets(self.stretch):
            return "reached (stretch)"
        return "reached" if meets(self.asked) else "MISSED"

    def cells(self) -> list[str]:
        sign = "≤ " if self.upper else "≥ "
        limits = [] if self.asked is None else [sign + figure(self.asked, self.unit)]
        if self.stretch is not None:
            limits.append(figure(self.stretch, self.unit))
        value = "" if self.value is None else figure(self.value, self.unit)
        return [self.what, " / ".join(limits), self.ours, self.peer, value, self.verdict]


def figure(value: float, unit: str) -> str:
    text = f"{value:.0e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{text} {unit}".rstrip()


def duration(seconds: float) -> str:
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def header() -> dict[str, Any]:
    versions = {}
    for name, module in PACKAGES.items():
        versions[name] = metadata.version(name) if installed(module) else NOT_INSTALLED
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load": round(load, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def markdown_header(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['processor']}, {facts['cores']} cores, one thread used, load average of other work "
        f"{facts['load']} at the start; {facts['system']}, Python {facts['python']}; {versions}."
    )


def markdown(rows: Iterable[Row], section: str) -> str:
    lines = [
        f"### {section}",
        "",
        "| what | asked / stretch | gpkit | peer | reached | verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def summary(rows: Iterable[Row]) -> str:
    verdicts = [row.verdict for row in rows]
    reached = sum(verdict.startswith("reached") for verdict in verdicts)
    stretch = sum("stretch" in verdict for verdict in verdicts)
    missed, absent = verdicts.count("MISSED"), verdicts.count(NOT_INSTALLED)
    out = f"{reached} rows reached what was asked ({stretch} of them the stretch), {missed} missed"
    return out + (f", {absent} could not be measured: a peer is not installed" if absent else "")


def write_json(path: str, facts: Mapping[str, Any], rows: Iterable[Row]) -> None:
    body = {"header": dict(facts), "rows": [{**asdict(row), "verdict": row.verdict} for row in rows]}
    target = Path(path)
    temporary = target.with_suffix(target.suffix + ".tmp")
    temporary.write_text(json.dumps(body, indent=1, ensure_ascii=False))
    temporary.replace(target)


def slope(sizes: Iterable[float], seconds: Iterable[float]) -> float:
    """Exponent of seconds = c * size^exponent."""
    x, y = [math.log(v) for v in sizes], [math.log(v) for v in seconds]
    return statistics.linear_regression(x, y).slope
