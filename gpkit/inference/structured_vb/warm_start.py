"""Where tensor trains begin: at the components of a canonical polyadic model of the same entries.

From random matrices the products of many modes are nearly of rank one, and precisions then switch the whole train off.
Components are a train of diagonal matrices, and are found more reliably.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.cores import CP
from gpkit.inference.structured_vb.engine import LowRankPosterior
from gpkit.inference.structured_vb.trains import TensorTrain

__all__ = ["begin_with_components"]

Array = NDArray[np.float64]
_SMALL = 0.05
_SPREAD = 0.01


def begin_with_components(posterior: LowRankPosterior, components: LowRankPosterior, rng: np.random.Generator) -> None:
    """Set the functions, kernels and weights of a train from the strongest components.

    Args:
        posterior: of a tensor train that has made no sweep.
        components: of the CP form without main effects, after some sweeps over the same entries.
        rng: for everything that the components do not give.
    """
    train, form = posterior.form, components.form
    assert isinstance(train, TensorTrain)
    assert isinstance(form, CP)
    modes = len(posterior.modes)
    total = form.coefficients.size
    functions = [mode.factor.mean for mode in components.modes]
    size = np.abs(form.mean[:total])
    for mean in functions:
        size = size * np.sqrt((mean[:, :total] ** 2).mean(0))
    strongest = np.argsort(size)[::-1]
    for k, (mode, own) in enumerate(zip(posterior.modes, train.links, strict=True)):
        other = components.modes[k].factor
        points = np.arange(mode.factor.size)
        mode.factor.inherit(other)
        mean = _SMALL * rng.standard_normal((len(points), own.functions))
        rank_left = train.ranks[k - 1] if k else 1
        rank_right = train.ranks[k] if k < modes - 1 else 1
        for c in range(own.functions):
            i, j = int(own.left[c]), int(own.right[c])
            inside = i < rank_left and j < rank_right
            state = j if k == 0 else i
            if inside and (k in (0, modes - 1) or i == j) and state < total:
                mean[:, c] = functions[k][:, strongest[state]]
        mode.factor.mean = mean
        mode.factor.covariance = np.tile(_SPREAD * np.eye(own.functions), (len(points), 1, 1))
        mode.refresh()
        weights = train.weights[k]
        if not weights.size:
            continue
        weights.mean = np.full(weights.size, _SMALL)
        weights.covariance = _SPREAD * np.eye(weights.size)
        weights.mean[:rank_right] = 1.0
        if k == 0:
            for state in range(min(rank_right, total)):
                weights.mean[state] = form.mean[strongest[state]]
