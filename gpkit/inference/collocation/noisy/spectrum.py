"""Spectra over tensor lattices: a weight for every combination of components along the axes.

In function space this is a sum of products of stationary kernels with Matern-7/2 envelopes, each times a cosine. Unlike
a product of sums it can hold f(x) + g(y) without also holding the products of their frequencies, and what the data do
not ask for can be left out component by component.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.collocation.axes import along
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.noisy.lattice import LatticeBasis

__all__ = ["TensorSpectrum"]

_NARROWEST = 0.02  # widths of lines in cycles per length of the axis
_SMOOTHEST = 0.5  # width of the component at zero: nothing is assumed to vary over more than the axis
_BROADEST = 30.0
_TYPICAL = 0.5
_SPREAD = 1.5  # standard deviation of the logarithm of widths under their prior
_DECAY = 4.0  # powers of 1 + z^2 / (2 a - 1): a = 4 is Matern-7/2, large ones are squared-exponential
_SLOWEST, _FASTEST = 3.25, 40.0
_DECAY_SPREAD = 1.0
_WEIGHT_SPREAD = 3.0  # standard deviation of the logarithm of weights around what was found
_CENTRE_SPREAD = 0.3  # the same of centres, in cycles per length
_REACH = 1.5  # by how many cycles per length a centre may move


class TensorSpectrum:
    """Variances of tensor-lattice functions: sum over components q of W_q prod_j S_{j, q_j}, in closed form.

    Each S is a Student-t (7 degrees of freedom) hump at plus and minus a frequency, summing to one over the lattice.
    Parameters are log W of every combination, and per axis and component the logarithm of its width and its frequency.

    Args:
        bases: Of each axis.
        centres: Frequencies of the components of each axis; those at 0 stay there.

    Attributes:
        alive: Which combinations have a weight at all, (Q_1, ..., Q_d).
        start: Where a search begins.
        bounds: Of every parameter.
    """

    def __init__(self, bases: Sequence[LatticeBasis], centres: Sequence[Sequence[float]]) -> None:
        self._lattices = [b.frequencies for b in bases]
        self.units = [1.0 / (b.upper - b.lower) for b in bases]
        self.counts = tuple(len(c) for c in centres)
        self.alive: NDArray[np.bool_] = np.ones(self.counts, dtype=bool)
        size = math.prod(self.counts)
        start, low, high = [-math.log(size)] * size, [-math.inf] * size, [math.inf] * size
        for unit, own in zip(self.units, centres, strict=True):
            for c in own:
                start += [math.log(_TYPICAL * unit), c, math.log(_DECAY)]
                low += [math.log((_SMOOTHEST if c == 0.0 else _NARROWEST) * unit), max(0.0, c - _REACH * unit)]
                high += [math.log(_BROADEST * unit), 0.0 if c == 0.0 else c + _REACH * unit]
                low.append(math.log(_SLOWEST if c == 0.0 else _DECAY))
                high.append(math.log(_FASTEST if c == 0.0 else _DECAY))
        # Weights have no bounds: L-BFGS-B takes a full first step where every variable has two.
        self.start, self.bounds = np.array(start), list(zip(low, high, strict=True))

    @property
    def size(self) -> int:
        """Number of combinations; their log weights come first."""
        return math.prod(self.counts)

    @property
    def functions(self) -> int:
        """Number of functions of the tensor basis."""
        return math.prod(len(lattice) for lattice in self._lattices)

    def weights(self, theta: Array) -> Array:
        """W, (Q_1, ..., Q_d)."""
        return np.where(self.alive, np.exp(np.minimum(theta[: self.size], 600.0)).reshape(self.counts), 0.0)

    def _shapes(self, theta: Array) -> tuple[list[Array], list[Array]]:
        """S of each axis, (Q, r), and its derivatives with respect to log width, centre and log decay, (3, Q, r)."""
        shapes, slopes = [], []
        at = self.size
        for lattice, count in zip(self._lattices, self.counts, strict=True):
            log_widths, centres, log_decays = theta[at : at + 3 * count].reshape(count, 3).T[:, :, None]
            at += 3 * count
            widths, decays = np.exp(log_widths), np.exp(log_decays)
            degrees = 2.0 * decays - 1.0
            total, changes = np.zeros((count, len(lattice))), np.zeros((3, count, len(lattice)))
            for sign in (1.0, -1.0):
                z = (lattice - sign * centres) / widths
                fall = 1.0 + z**2 / degrees
                hump = fall**-decays
                steep = 2.0 * decays / degrees * z * hump / fall  # minus the derivative in z
                total += hump
                changes[0] += steep * z
                changes[1] += sign * steep / widths
                changes[2] += decays * hump * (2.0 * decays * z**2 / degrees**2 / fall - np.log(fall))
            sums = total.sum(1, keepdims=True)
            shapes.append(total / sums)
            slopes.append((changes - shapes[-1] * changes.sum(-1, keepdims=True)) / sums)
        return shapes, slopes

    @staticmethod
    def _combined(weights: Array, shapes: Sequence[Array]) -> Array:
        for j, shape in enumerate(shapes):
            weights = along(shape.T, weights, j)
        return weights

    def variances(self, theta: Array) -> Array:
        """Prior variance of every function of the tensor basis, flat."""
        return self._combined(self.weights(theta), self._shapes(theta)[0]).ravel()

    def gradient(self, theta: Array, slopes: Array) -> Array:
        """Derivatives with respect to the parameters of a function whose derivatives in the variances are given."""
        weights = self.weights(theta)
        shapes, by_parameter = self._shapes(theta)
        tensor = slopes.reshape([len(lattice) for lattice in self._lattices])
        out = [(weights * self._combined(tensor, [s.T for s in shapes])).ravel()]
        for j in range(len(shapes)):
            own = self._combined(tensor, [np.eye(s.shape[1]) if k == j else s.T for k, s in enumerate(shapes)])
            # (components of the other axes, functions of this one) against the weights of this axis' components
            moved = np.moveaxis(own, j, -1).reshape(-1, shapes[j].shape[1])
            mixed = np.moveaxis(weights, j, 0).reshape(self.counts[j], -1) @ moved
            out.append(np.einsum("qi,pqi->qp", mixed, by_parameter[j]).ravel())
        return np.concatenate(out)

    def reaches_zero(self, theta: Array, line: float, reach: float) -> bool:
        """Whether a component with a weight and a frequency is no line and extends to frequency zero along its axis.

        Args:
            theta: Parameters.
            line: Width of what is a line, in cycles per length of the axis.
            reach: Number of widths within which zero has to be.
        """
        at = self.size
        for j, (unit, count) in enumerate(zip(self.units, self.counts, strict=True)):
            log_widths, centres = theta[at : at + 3 * count].reshape(count, 3).T[:2]
            widths = np.exp(log_widths)
            used = self.alive.any(axis=tuple(k for k in range(len(self.counts)) if k != j)) & (centres > 0.0)
            if bool((used & (widths > line * unit) & (centres < reach * widths)).any()):
                return True
            at += 3 * count
        return False

    def uncertain(self) -> Array:
        """Standard deviations of the parameters before there are data; zero for those that are fixed or not used."""
        out, at = np.zeros(len(self.start)), self.size
        out[: self.size] = np.where(self.alive.ravel(), _WEIGHT_SPREAD, 0.0)
        for j, (unit, count) in enumerate(zip(self.units, self.counts, strict=True)):
            used = self.alive.any(axis=tuple(k for k in range(len(self.counts)) if k != j))
            own = np.outer(used, [_SPREAD, _CENTRE_SPREAD * unit, _DECAY_SPREAD])
            out[at : at + 3 * count] = own.ravel()
            at += 3 * count
        low, high = np.array(self.bounds).T
        return np.where(low < high, out, 0.0)

    def shares(self, theta: Array, values: Array) -> Array:
        """Sum of squares of the parts of weights that each combination explains, (Q_1, ..., Q_d).

        Args:
            theta: Parameters.
            values: Of the weights, flat.
        """
        weights, shapes = self.weights(theta), self._shapes(theta)[0]
        tensor = values.reshape([len(lattice) for lattice in self._lattices])
        total = self._combined(weights, shapes)
        ratio = (tensor / np.maximum(total, 1e-300)) ** 2
        return np.asarray(weights**2 * self._combined(ratio, [s.T**2 for s in shapes]))

    def log_prior(self, theta: Array) -> tuple[float, Array]:
        """Weak preference for widths near one half per length of the axis, and for the decay of Matern-7/2.

        Weights have none (Jeffreys').
        """
        value, gradient = 0.0, np.zeros_like(theta)
        at = self.size
        for unit, count in zip(self.units, self.counts, strict=True):
            for offset, centre, spread in ((0, _TYPICAL * unit, _SPREAD), (2, _DECAY, _DECAY_SPREAD)):
                places = at + 3 * np.arange(count) + offset
                off = theta[places] - math.log(centre)
                value -= 0.5 * float(off @ off) / spread**2
                gradient[places] = -off / spread**2
            at += 3 * count
        return value, gradient
