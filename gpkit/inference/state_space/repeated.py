"""The same nodes again and again: evidences and posteriors for changing kernels and sites, without gradients.

Searches over kernel parameters and sweeps of variational updates ask thousands of times for a short path at the same
coordinates. What does not change is checked and laid out once; arrays in between are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError, NotSortedError
from gpkit.inference.state_space.paths import MarkovPaths, markov_paths
from gpkit.inference.state_space.sequential import path_layout
from gpkit.kernels import BinAveragedKernel, StateSpaceKernel
from gpkit.operators.covariances import GIVEN

__all__ = ["RepeatedPath"]

Array = NDArray[np.float64]
_REMEMBERED = 3  # sets of transitions
_ROUNDING = 2.0**-53


class RepeatedPath:
    """R functions at N fixed coordinates; kernels and sites come with each question.

    Args:
        coordinates: (N,), not decreasing; (N, 2) for kernels of bins, centre and width.
        functions: R, at least one.

    Raises:
        InvalidDataError: for coordinates that are not finite, or no function.
        NotSortedError: for coordinates that decrease.
    """

    def __init__(self, coordinates: Array, functions: int) -> None:
        self.coordinates = np.ascontiguousarray(coordinates, dtype=np.float64)
        if functions < 1:
            raise InvalidDataError(f"a path needs at least one function, got {functions}")
        order = self.coordinates if self.coordinates.ndim == 1 else self.coordinates[:, 0]
        bad = np.flatnonzero(~np.isfinite(order))
        if bad.size:
            raise InvalidDataError(f"coordinates must be finite, the one at {bad[0]} is not")
        if np.any(np.diff(order) < 0.0):
            where = int(np.flatnonzero(np.diff(order) < 0.0)[0])
            raise NotSortedError(f"coordinates must not decrease along a path, that at {where} exceeds the next")
        self.functions = functions
        self._kept: dict[Any, Any] = {}
        self._transitions: dict[Any, Any] = {}
        self._filtered: tuple[float, Any, Any, Any] | None = None
        self._raw: tuple[Any, tuple[Any, ...]] | None = None  # the last kernel's parameters, which change in place

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_kept": {},
            "_transitions": {},
            "_raw": None,
        }  # what is kept is made again where it is needed

    def _prior(self, kernel: Any) -> tuple[Any, Any, Any]:
        """Prior, stored arrays and room for the recursions."""
        from gpkit.recursions import linear, sites
        from gpkit.recursions.structure import block_shape, marker

        n, functions = len(self.coordinates), self.functions
        closed = isinstance(kernel, StateSpaceKernel) and not isinstance(kernel, BinAveragedKernel)
        if closed and kernel.structure != GIVEN and not kernel.batch_shape:
            structure = kernel.structure
            blocks, b = block_shape(structure)
            # A search asks for one more value of a parameter and then for one of those before.
            if self._raw is None or self._raw[0] is not kernel:
                self._raw = (kernel, tuple(kernel.parameters()))
            key = (id(kernel), *(raw.item() for raw in self._raw[1]))
            if key not in self._transitions:
                params = kernel._closed_form_params().detach().numpy()
                found = _heard(*linear.transition_blocks(marker(structure), params, self.coordinates, blocks, b))
                self._transitions = {
                    **dict(list(self._transitions.items())[1 - _REMEMBERED :]),
                    key: (*found, kernel),
                }  # the kernel stays, so that its id does
            transitions, first, _ = self._transitions[key]
            blocks = transitions.shape[1]
            which = tuple(range(blocks)) * functions
            owner = tuple(r for r in range(functions) for _ in range(blocks))
        else:
            with torch.no_grad():
                paths: MarkovPaths = markov_paths(kernel, torch.from_numpy(self.coordinates), functions)
            if paths.batch_shape.numel() != 1:
                raise InvalidDataError(f"a repeated path takes one kernel, got a batch {tuple(paths.batch_shape)}")
            transitions = paths.transitions.reshape(paths.transitions.shape[-4:]).numpy()
            first = paths.covariance[..., 0].reshape(-1, *paths.covariance.shape[-3:-1]).numpy()
            which, owner, b, blocks = paths.which, paths.owner, paths.block, transitions.shape[1]
        shape = (which, owner, b)
        if shape not in self._kept:
            d = len(which) * b
            self._kept[shape] = (
                path_layout(b, functions, which, owner),
                sites.stored_for(n, functions, d, False, np.float64),
                sites.room_for(functions, d, b, blocks, np.float64),
            )
        layout, stored, room = self._kept[shape]
        spread = np.ascontiguousarray(first[:, layout.which].reshape(len(first), -1))
        prior = sites.Prior(layout.shape, np.ascontiguousarray(transitions), layout.which, layout.owner, spread)
        return prior, stored, room

    def _forward(self, kernel: Any, precision: Array, information: Array) -> tuple[float, Any, Any, Any]:
        from gpkit.recursions import sites

        shape = (len(self.coordinates), self.functions)
        if information.shape != shape or precision.shape != (*shape, self.functions):
            raise InvalidDataError(
                f"sites of {shape[1]} functions at {shape[0]} nodes do not have shapes {precision.shape} and "
                f"{information.shape}"
            )
        prior, stored, room = self._prior(kernel)
        evidence = np.zeros(1)
        bad = sites.forward(prior, precision, information, stored, room, evidence)
        if bad >= 0:
            message = f"the precision of the site at node {bad} is not positive semidefinite"
            raise NotPositiveDefiniteError(message, row=bad)
        if not np.isfinite(evidence[0]):
            raise InvalidDataError("the sites must be finite: the evidence is not")
        return float(evidence[0]), prior, stored, room

    def evidence(self, kernel: Any, precision: Array, information: Array) -> float:
        """Log-evidence of sites: contiguous precision (N, R, R), symmetric, and information (N, R).

        Raises:
            InvalidDataError: for wrong shapes, or sites that are not finite.
            NotPositiveDefiniteError: for a precision that is not positive semidefinite.
        """
        self._filtered = self._forward(kernel, precision, information)
        return self._filtered[0]

    def smooth(self, kernel: Any, precision: Array, information: Array) -> tuple[float, Array, Array]:
        """Log-evidence, posterior means (N, R) and covariances (N, R, R); see :meth:`evidence`."""
        self.evidence(kernel, precision, information)
        return self.smooth_again()

    @property
    def filtered(self) -> bool:
        """Whether there is a last evidence to smooth."""
        return self._filtered is not None

    def smooth_again(self) -> tuple[float, Array, Array]:
        """As :meth:`smooth` for the kernel and the sites of the last evidence, whose filter need not run again."""
        from gpkit.recursions import site_smoother

        assert self._filtered is not None
        evidence, prior, stored, room = self._filtered
        n, r = stored.mu.shape
        mean, covariance = np.empty((n, r)), np.empty((n, r, r))
        b = prior.transitions.shape[-1]
        none = np.zeros((0, *prior.transitions.shape[1:]))
        site_smoother.backward(
            prior, stored, room, mean, covariance, np.empty((0, r, r)), none, np.zeros((1, len(prior.which) * b))
        )
        return evidence, mean, covariance


def _heard(transitions: Array, first: Array) -> tuple[Array, Array]:
    """Transitions (N, B', b, b) and prior variances (1, B', b) of the B' terms that are not below rounding errors.

    The late harmonics of a periodic kernel with a long length scale are, and cost as much as others.
    """
    first = first.reshape(1, *transitions.shape[1:3])
    shares = np.abs(first[0, :, 0])
    heard = shares >= _ROUNDING * shares.sum()
    return (transitions, first) if heard.all() else (np.ascontiguousarray(transitions[:, heard]), first[:, heard])
