"""Noise that nobody stated: first guesses from the data, and the problem with the levels that were found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.forms import Problem

__all__ = ["first_guess", "has_unknown_noise", "with_noise"]

_MOST_LINES = 200


def has_unknown_noise(problem: Problem) -> bool:
    """Whether the noise of some data is to be found from them (nan)."""
    stated = [e.source.noise for e in problem.equations] + [c.value.noise for c in problem.conditions]
    return any(math.isnan(n) for n in stated) or any(bool(o.noise.isnan().any()) for o in problem.observations)


def first_guess(values: Array) -> float:
    """Standard deviation of white noise on a smooth or oscillating function on a grid.

    The median of the spectrum along the longest axis: a function that is not noise fills few of its bins.

    Args:
        values: On a uniform grid, or in any order where there is none.
    """
    lines = np.moveaxis(values, int(np.argmax(values.shape)), 0).reshape(max(values.shape), -1)
    spread = float(np.std(values)) or float(np.abs(values).max()) or 1.0
    if len(lines) < 16:
        return 0.3 * spread
    lines = lines[:, :: max(1, lines.shape[1] // _MOST_LINES)]
    window = np.blackman(len(lines))[:, None]
    power = np.abs(np.fft.rfft((lines - lines.mean(0)) * window, axis=0)) ** 2
    # The median of an exponential distribution is log 2 of its mean.
    level = float(np.median(power)) / (math.log(2.0) * float(np.sum(window**2)))
    return min(max(math.sqrt(level), 1e-4 * spread), spread)


def with_noise(problem: Problem, found: Sequence[float]) -> Problem:
    """The problem with the noise that was found, in the order of sources, conditions along one axis, observations."""
    levels = iter(found)

    def stated(noise: float) -> float:
        return next(levels) if math.isnan(noise) else noise

    equations = tuple(
        dataclasses.replace(e, source=dataclasses.replace(e.source, noise=stated(e.source.noise)))
        for e in problem.equations
    )
    conditions = tuple(
        dataclasses.replace(c, value=dataclasses.replace(c.value, noise=stated(c.value.noise)))
        for c in problem.conditions
    )
    observations = []
    for o in problem.observations:
        unknown = o.noise.isnan()
        level = next(levels) if bool(unknown.any()) else 0.0
        observations.append(dataclasses.replace(o, noise=torch.where(unknown, level, o.noise)))
    return dataclasses.replace(problem, equations=equations, conditions=conditions, observations=tuple(observations))
