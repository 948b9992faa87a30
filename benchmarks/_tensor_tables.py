"""Simulated tables of known rank for the benchmark of tensors: waves, steps and bumps, no draws of any model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["RankedTable", "ranked_table"]


@dataclass(frozen=True)
class RankedTable:
    """Entries of a tensor whose ranks are known.

    Attributes:
        form: of the truth.
        ranks: of the modes, or of the bonds of a train.
        noise: standard deviation, that of the signal being one.
        x: coordinates (N, K).
        y: values (N,).
        f: the same without noise (N,).
    """

    form: str
    ranks: tuple[int, ...]
    noise: float
    x: np.ndarray
    y: np.ndarray
    f: np.ndarray


def ranked_table(case: int) -> RankedTable:
    """A table of any form, with two or three modes and ranks of one to four that differ between them."""
    rng = np.random.default_rng(1000 + case)
    form = ("tucker", "tucker", "cp", "tensor-train", "tucker")[case % 5]
    modes = 3 if case % 7 else 2
    entries, size = int(rng.choice([800, 2000, 6000])), int(rng.choice([20, 60]))
    noise = float(rng.choice([0.05, 0.2, 0.5]))
    grids = [np.sort(rng.uniform(0.0, 10.0, size)) for _ in range(modes)]
    index = rng.integers(0, size, (modes, entries))
    if form == "cp":
        ranks = np.full(modes, rng.integers(1, 5))
    elif form == "tensor-train":
        ranks = rng.integers(1, 4, modes - 1)
    else:
        ranks = rng.integers(1, 5, modes)
        while any(ranks[k] > np.prod(np.delete(ranks, k)) for k in range(modes)):
            ranks = rng.integers(1, 5, modes)
    if form == "tensor-train":
        bonds, value = [1, *ranks, 1], np.ones((entries, 1, 1))
        for k in range(modes):
            own = _functions(grids[k], bonds[k] * bonds[k + 1], rng).reshape(size, bonds[k], bonds[k + 1])
            value = value @ own[index[k]]
        f = value[:, 0, 0]
    else:
        parts = [_functions(grid, int(r), rng)[at] for grid, r, at in zip(grids, ranks, index, strict=True)]
        if form == "cp":
            f = np.prod(parts, axis=0) @ rng.uniform(0.5, 1.5, int(ranks[0]))
        else:
            letters = "abc"[:modes]
            f = np.einsum(",".join("n" + letter for letter in letters) + f",{letters}->n", *parts, _core(ranks, rng))
    f = f / f.std()
    x = np.stack([grid[at] for grid, at in zip(grids, index, strict=True)], 1)
    return RankedTable(form, tuple(int(r) for r in ranks), noise, x, f + noise * rng.standard_normal(entries), f)


def _functions(grid: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Orthogonal over the grid, of unit mean square, (J, count)."""
    out = []
    for _ in range(count):
        kind, rate, centre = rng.integers(0, 3), rng.uniform(0.4, 1.6), rng.uniform(2.0, 8.0)
        if kind == 0:
            out.append(np.cos(rate * grid + rng.uniform(0.0, 6.3)))
        elif kind == 1:
            out.append(np.tanh((grid - centre) / rng.uniform(0.7, 2.0)))
        else:
            out.append(np.exp(-0.5 * ((grid - centre) / rng.uniform(0.8, 2.0)) ** 2))
    basis, _ = np.linalg.qr(np.stack(out, 1))
    return basis * np.sqrt(len(grid))


def _core(ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal, its singular values along every mode lifted towards two fifths of the largest at least."""
    core = rng.standard_normal(ranks)
    for _ in range(20):
        for k, rank in enumerate(ranks):
            moved = np.moveaxis(core, k, 0)
            u, s, v = np.linalg.svd(moved.reshape(rank, -1), full_matrices=False)
            core = np.moveaxis(((u * np.maximum(s, 0.4 * s.max())) @ v).reshape(moved.shape), 0, k)
    return core
