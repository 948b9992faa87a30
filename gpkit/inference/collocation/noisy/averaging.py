"""Averages over what the evidence cannot decide: how much of a smooth component the fields hold.

Whether a smooth component is there, and how large and how broad it is, is often not told by noisy data: its evidence is
flat from zero up to what the noise could hide. The most likely spectrum then makes intervals that are right where the
component is absent and far too narrow where it is not. Where what was found are spectral lines alone, fields are taken
for the few waves that they show, and what noise could hide is only reported. Where something broad was found that
reaches to frequency zero, as the spectrum of a bump does, slow parts belong to it: the posterior is then a mixture over
a few sizes and widths of the smooth component, weighted by evidence times prior, of which the mean and the covariance
are taken. The other components follow each size and width, and are as uncertain themselves.

The data of a few waves, and of the same waves with a slow part that noise hides, are the same: no intervals can be as
narrow as the first allow and hold the second. Who expects the second asks for it, and the average is always taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from gpkit.errors import ConvergenceError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.likely import LikelyPoints, likely_points
from gpkit.inference.collocation.noisy.evidence import REFUSED, Evidence, Posterior
from gpkit.inference.collocation.noisy.spectrum import TensorSpectrum

__all__ = ["averaged"]

_SIZES = (0.03, 0.1, 0.2, 0.35, 0.6, 1.0, 1.7)  # standard deviations as shares of the fields'
_WIDTHS = (0.5, 1.5)  # of the spectrum, cycles per length of an axis
_FEW = 600  # weights above which fewer nodes are taken
_LINE = 0.35  # cycles per length of an axis: what is narrower is a wave over all of it
_REACH = 8.0  # widths of a component within which it has slow parts
_HOPELESS = 15.0  # nats below the best of a node whose other components are not looked at
_PROFILED = 20  # iterations in which the other components follow
_POINTS = 8  # around each node
_NEGLIGIBLE = 1e-3  # share of a node below which it is left out


def averaged(
    evidence: Evidence, theta: Array, found: tuple[Array, Array], scale: float, linear: bool, hidden: bool = False
) -> tuple[Array, Array, float]:
    """Mean and root of the covariance of the weights, over the smooth component of every field.

    Args:
        evidence: Of the spectra, at the last linearisation.
        theta: Parameters found.
        found: Mean and root of the covariance at these.
        scale: Size of the largest field under the prior.
        linear: Whether the mean may move: that of a nonlinear problem satisfies its equations as it is.
        hidden: Whether fields may hold slow parts that do not show, whatever was found.

    Returns:
        Mean (m,), root (m, k), and the expected size of the smooth component where one was averaged over, else 0.
    """
    at, broad = 0, []
    for spectrum in evidence.spectra:
        if hidden or spectrum.reaches_zero(theta[at : at + len(spectrum.start)], _LINE, _REACH):
            broad.append((spectrum, at))
        at += len(spectrum.start)
    if not broad:
        return *found, 0.0
    before = [s.alive.flat[0] for s, _ in broad]
    for spectrum, _ in broad:
        spectrum.alive.flat[0] = True
    try:
        few = sum(s.functions for s in evidence.spectra) <= _FEW
        nodes = _nodes(broad, theta, scale, few)
        # A priori every size is as likely as another: nodes that lie apart stand for more of them.
        values = np.array([evidence.value(n.theta) + math.log(n.size) for n in nodes])
        around = [LikelyPoints(n.theta[None], np.ones(1), 0.0) for n in nodes]
        if few and _is_on_one_axis(broad):
            hopeful = values > values.max() - _HOPELESS
            values[~hopeful] = -math.inf
            for k in np.flatnonzero(hopeful):
                around[k], values[k] = _around(evidence, nodes[k])
        shares = np.exp(values - values.max())
        shares[shares < _NEGLIGIBLE * shares.sum()] = 0.0
        shares /= shares.sum()
        mixture = [
            (float(share * own), evidence.posterior(at))
            for share, likely in zip(shares, around, strict=True)
            for own, at in zip(likely.shares, likely.points, strict=True)
            if share * own > _NEGLIGIBLE
        ]
        total = sum(share for share, _ in mixture)
        mixture = [(share / total, part) for share, part in mixture]
    except np.linalg.LinAlgError as error:
        raise ConvergenceError("the prior of a smooth component is so wide that the noise rounds away") from error
    finally:
        for (spectrum, _), was in zip(broad, before, strict=True):
            spectrum.alive.flat[0] = was
    expected = scale * float(shares @ [n.size for n in nodes])
    return *_mixture(mixture, None if linear else found[0]), expected


@dataclass(frozen=True, eq=False)
class _Node:
    """Parameters with a smooth component of a size and a width.

    Attributes:
        theta: All of them.
        size: Of the component, as a share of the fields' size.
        held: Which of them say so.
    """

    theta: Array
    size: float
    held: list[int]


def _is_on_one_axis(broad: Sequence[tuple[TensorSpectrum, int]]) -> bool:
    return all(len(s.counts) == 1 for s, _ in broad)


def _nodes(broad: Sequence[tuple[TensorSpectrum, int]], theta: Array, scale: float, few: bool) -> list[_Node]:
    """The smooth component at every size and width, the same for all of the fields."""
    sizes = _SIZES if few else _SIZES[::2]
    # On several axes components share their widths with combinations that are kept as they are.
    nodes = []
    for width in _WIDTHS if few and _is_on_one_axis(broad) else (None,):
        for size in sizes:
            node, held = theta.copy(), []
            for spectrum, at in broad:
                node[at] = 2.0 * math.log(size * scale)
                held.append(at)
                if width is not None:
                    node[at + spectrum.size] = math.log(width * spectrum.units[0])
                    held.append(at + spectrum.size)
            nodes.append(_Node(node, size, held))
    return nodes


def _around(evidence: Evidence, node: _Node) -> tuple[LikelyPoints, float]:
    """What the other components may be beside a smooth one, and the log evidence of the node over all that."""
    best, _, _ = evidence.maximise(node.theta, _PROFILED, 0.0, node.held)
    widths = np.zeros(len(best))
    own = np.concatenate([s.uncertain() for s in evidence.spectra])
    widths[: len(own)] = own
    widths[node.held] = 0.0
    bounds = np.array([b for s in evidence.spectra for b in s.bounds])

    def evaluate(at: Array) -> tuple[float, Array] | None:
        value, gradient = evidence.objective(at)
        return (-value, -gradient) if value < REFUSED else None

    def bounded(at: Array) -> Array:
        return np.concatenate([np.clip(at[: len(bounds)], *bounds.T), at[len(bounds) :]])

    likely = likely_points(evaluate, best, widths, bounded, _POINTS)
    return likely, math.log(node.size) - evidence.objective(best)[0] + likely.log_volume


def _mixture(parts: list[tuple[float, Posterior]], centre: Array | None) -> tuple[Array, Array]:
    """Mean and root of the second moments about it, or about a given centre."""
    mean = sum((w * p.mean for w, p in parts), np.zeros_like(parts[0][1].mean)) if centre is None else centre
    columns = [math.sqrt(w) * p.root for w, p in parts]
    columns += [math.sqrt(w) * (p.mean - mean)[:, None] for w, p in parts]
    wide = np.concatenate(columns, axis=1)
    if wide.shape[1] <= wide.shape[0]:
        return mean, wide
    return mean, linalg.qr(wide.T, mode="r", overwrite_a=True, check_finite=False)[0][: wide.shape[0]].T
