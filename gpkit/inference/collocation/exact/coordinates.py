"""Hyper-parameters of mixtures as one vector: logarithms of weights and length scales, and waves per interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.inference.collocation.exact.priors import MixtureAxis

__all__ = ["MixtureCoordinates"]

Array = NDArray[np.float64]

_WEIGHTS = 30.0
_LONGEST = 5.0
_SHORTEST = 1.5
_WIDTHS = (3.0, 1.5, 1.0)
"""Standard deviations of log weights, of log length scales and of waves per interval before anything is known."""


class MixtureCoordinates:
    """Coordinates of a list of mixtures, all of order one.

    Args:
        like: Mixtures whose envelopes and numbers of components are kept.
        lengths: Of the interval of every mixture: length scales stay below five times it.
        steps: Of the grid of every mixture: length scales stay above one and a half steps, frequencies below half a
            cycle a step.

    Attributes:
        start: Coordinates of the given mixtures, (P,).
        bounds: Lower and upper bounds, (P, 2).
        widths: Standard deviations of the coordinates before anything is known, (P,).
    """

    def __init__(self, like: Sequence[MixtureAxis], lengths: Sequence[float], steps: Sequence[float]) -> None:
        """Nothing is copied."""
        self._like, self._lengths = list(like), list(lengths)
        self.start: Array = self.of(like)
        bounds: list[tuple[float, float]] = []
        for m, own, h in zip(like, lengths, steps, strict=True):
            q = len(m.weights)
            bounds += [(float(w) - _WEIGHTS, float(w) + _WEIGHTS) for w in m.weights.log()]
            bounds += [(math.log(_SHORTEST * h), math.log(_LONGEST * own))] * q
            # A frequency above half a cycle a step is kept where it was found: between the points it is no alias.
            bounds += [(0.0, max(0.5 * own / h, f + 1.0)) for f in (_frequencies(m) * own).tolist()]
        self.bounds: Array = np.array(bounds)
        self.widths: Array = np.concatenate([np.repeat(_WIDTHS, len(m.weights)) for m in like])

    def of(self, mixtures: Sequence[MixtureAxis]) -> Array:
        """Coordinates of mixtures."""
        parts = []
        for m, length in zip(mixtures, self._lengths, strict=True):
            parts.append(torch.cat([m.weights.log(), m.lengthscales.log(), _frequencies(m) * length]))
        return np.asarray(torch.cat(parts).detach().numpy(), dtype=np.float64)

    def bounded(self, packed: Array) -> Array:
        """The nearest coordinates within the bounds."""
        folded = np.where(self.bounds[:, 0] == 0.0, np.abs(packed), packed)
        return np.asarray(np.clip(folded, self.bounds[:, 0], self.bounds[:, 1]))

    def mixtures(self, packed: Array) -> list[MixtureAxis]:
        """Mixtures at coordinates; a frequency stands for its negative as well."""
        out, position = [], 0
        for m, length in zip(self._like, self._lengths, strict=True):
            q = len(m.weights)
            own = torch.from_numpy(np.array(packed[position : position + 3 * q], dtype=np.float64))
            out.append(MixtureAxis(m.envelope, own[:q].exp(), own[q : 2 * q].exp(), own[2 * q :].abs() / length))
            position += 3 * q
        return out

    def gradient(self, packed: Array, derivatives: Sequence[Sequence[Tensor]]) -> Array:
        """From derivatives in (weights, lengthscales, frequencies) of every mixture to those in the coordinates."""
        parts = []
        for m, (w, s, f), length in zip(self.mixtures(packed), derivatives, self._lengths, strict=True):
            parts += [(w * m.weights).numpy(), (s * m.lengthscales).numpy(), f.numpy() / length]
        out = np.concatenate(parts)
        position = 0
        for m in self._like:
            q = len(m.weights)
            own = slice(position + 2 * q, position + 3 * q)
            out[own] *= np.where(packed[own] < 0.0, -1.0, 1.0)
            position += 3 * q
        return out


def _frequencies(mixture: MixtureAxis) -> Tensor:
    return torch.zeros_like(mixture.weights) if mixture.frequencies is None else mixture.frequencies
