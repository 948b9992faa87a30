"""Structures, data and the three execution paths, shared by the tests of the recursions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.recursions import evidence as compiled
from gpkit.recursions.series import Evidence
from gpkit.recursions.structure import Structure, marker

Array = NDArray[Any]

DRW: Structure = (("exponential",),)
SHO: Structure = (("sho",),)
CELERITE = (0.9, 0.2, 0.5, 1.7)
"""Parameters a, b, c, d of a valid celerite term (a c >= |b d|)."""

CASES: dict[str, tuple[Structure, tuple[float, ...]]] = {
    "drw": (DRW, (1.3, 0.4)),
    "sho-under": (SHO, (0.8, 1.7, 6.0)),
    "sho-over": (SHO, (1.4, 2.1, 0.17)),
    "sho-near": (SHO, (1.1, 0.9, 0.5 + 1e-7)),
    "matern32": ((("matern32",),), (2.0, 1.1)),
    "matern52": ((("matern52",),), (1.2, 1.6)),
    "celerite": ((("celerite",),), (1.5, *CELERITE)),
    "sum-j2": ((("exponential",), ("exponential",)), (1.0, 0.1, 0.5, 3.0)),
    "sum-j3": ((("sho",), ("exponential",)), (0.7, 2.2, 3.0, 0.9, 0.2)),
    "rotation-j4": ((("sho",), ("sho",)), (1.0, 1.1, 4.0, 0.4, 2.2, 2.0)),
    "sum-j5": ((("matern52",), ("matern32",)), (1.0, 0.8, 0.6, 2.5)),
    "sum-j7": (
        (("celerite",), ("sho",), ("matern32",), ("exponential",)),
        (0.8, *CELERITE, 1.0, 0.5, 0.4, 0.6, 2.5, 0.3, 0.1),
    ),
    "sum-j8": (
        (("sho",), ("sho",), ("celerite",), ("matern32",)),
        (1.0, 1.1, 4.0, 0.4, 2.2, 2.0, 0.5, *CELERITE, 0.7, 3.0),
    ),
    "product-j2": ((("exponential", "sho"),), (1.2, 0.3, 1.9, 5.0)),
    "product-j2-celerite": ((("celerite", "exponential"),), (0.9, *CELERITE, 0.3)),
    "product-j4": ((("sho", "matern32"),), (1.1, 1.9, 5.0, 0.4)),
    "product-j6": ((("matern52", "sho"),), (1.3, 0.4, 2.1, 0.3)),
    "product-j8": ((("sho", "celerite", "matern32"),), (1.0, 1.3, 3.0, *CELERITE, 0.2)),
    "product-j12": ((("sho", "matern32", "matern52"),), (1.6, 1.3, 3.0, 0.3, 0.5)),
    "mixed-j3": ((("sho",), ("exponential", "exponential")), (1.0, 0.8, 2.0, 0.7, 0.4, 1.3)),
    "mixed-j10": (
        (("exponential",), ("sho", "celerite"), ("matern52",), ("exponential", "matern32", "exponential")),
        (0.5, 0.05, 1.0, 0.8, 2.0, *CELERITE, 0.6, 1.9, 0.9, 0.1, 1.3, 0.2),
    ),
}
NAMES = list(CASES)
CLOSED = ["drw", "sho-under", "sho-over", "sho-near", "matern32", "celerite"]
"""Cases with a recursion of their own."""
FEW = ["drw", "sho-under", "matern32", "celerite", "product-j6", "mixed-j10"]
"""One case for each compiled recursion and two for the general one."""


@dataclass(frozen=True)
class Data:
    """A series: sorted times, values and noise variances."""

    times: Array
    values: Array
    noise: Array


def make(n: int, seed: int = 0, span: float | None = None) -> Data:
    """Irregular times with a few ties, white values and heteroscedastic noise."""
    rng = np.random.default_rng((seed, n))
    times = np.sort(rng.uniform(0.0, 0.4 * n if span is None else span, n))
    if n > 5:
        times[n // 2] = times[n // 2 - 1]
    return Data(times, rng.normal(size=n), rng.uniform(0.05, 0.4, n))


def sequential(
    structure: Structure,
    params: Any,
    data: Data,
    weights: tuple[float, float] = (1.0, 1.0),
    gradient: bool = True,
) -> Evidence:
    """Evidence of one series from the sequential driver itself, whatever its length."""
    n = data.times.size
    row = np.atleast_2d(np.asarray(params, dtype=float))
    out = Evidence(
        inv_quad=np.zeros(1),
        logdet=np.zeros(1),
        failed=np.zeros(1, dtype=np.int64),
        alpha=np.zeros((1, n)),
        kappa=np.zeros((1, n)),
        params=np.zeros(row.shape),
        times=np.zeros((1, n)),
    )
    compiled.sequential_evidence(
        marker(structure),
        (0,),
        row,
        data.times[None],
        data.values[None],
        data.noise[None],
        np.array([n]),
        np.zeros(1, dtype=np.int64),
        np.atleast_2d(np.asarray(weights, dtype=float)),
        gradient,
        out.params,
        out.alpha,
        out.kappa,
        out.times,
        out.inv_quad,
        out.logdet,
        out.failed,
    )
    return out


def close(found: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Assert that arrays agree within ``tolerance`` of the largest expected entry."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    if expected.size == 0:
        return
    error = np.max(np.abs(found - expected))
    scale = np.max(np.abs(expected))
    assert error <= tolerance * scale, f"{what}: off by {error:.3e} where the largest entry is {scale:.3e}"
