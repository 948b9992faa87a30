"""Fields in the span of solutions found so far: the same answers at a fraction of the work, and checked at each point.

A sampler asks for the fields at thousands of values of a few unknowns, and all of them lie close to a space of few
dimensions: that of solutions and of their derivatives at a few values. The collocation equations are solved in it, and
what is left of them tells how far every prediction of an observation is off. Where that is more than a ten
thousandth of the observation's noise, the fields are found in all functions, and join the space.
"""

from __future__ import annotations

import numpy as np

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.inverse.fields import EliminatedFields, State
from gpkit.inference.collocation.inverse.system import System

__all__ = ["ReducedFields"]

_ALLOWED = 1e-4  # error of a prediction, in standard deviations of its noise
_SAFETY = 4.0  # influences are those at other unknowns
_NEW = 1e-8  # share of a solution outside the span that is a direction of it
_WORTH = 40  # functions below which nothing is gained
_SHARE = 0.6  # of all functions, above which nothing is gained


class ReducedFields:
    """The fields of a problem as a function of its unknowns, solved in few functions where these are enough.

    Args:
        full: The fields in all functions.
        readings: Predictions of observations from the coefficients of determined fields, in units of noise, (n, r).

    Attributes:
        solved: At how many unknowns the fields were found in all functions, and in the span of those.

    References:
        Quarteroni, Manzoni, Negri: Reduced Basis Methods for Partial Differential Equations, Springer 2016.
    """

    def __init__(self, full: EliminatedFields, readings: Array) -> None:
        self._full, self._readings = full, readings
        self._basis = np.zeros((full.size, 0))
        self._system: System | None = None
        self._influences: list[Array] = []
        self._worth = full.system.columns >= _WORTH
        self.solved = {"in all functions": 0, "reduced": 0}

    def solve(self, theta: Array, white: Array, start: Array | None = None) -> State:
        """The fields at given unknowns.

        Raises:
            ConvergenceError: Gauss-Newton does not converge.
        """
        if self._system is not None:
            try:
                state = self._full.solve(theta, white, start, self._system)
                if self.error(state, theta, white) <= _ALLOWED:
                    self.solved["reduced"] += 1
                    return state
            except (ConvergenceError, InvalidDataError):
                pass  # all functions will say whether there is a solution
        state = self._full.solve(theta, white, start)
        self.solved["in all functions"] += 1
        if self._worth:
            self._learn(state)
        return state

    def error(self, state: State, theta: Array, white: Array) -> float:
        """Estimate of the largest error of a prediction, in standard deviations of its noise.

        Overdetermined equations in all functions leave something too: what counts is how far the squared residual is
        from its minimum, by its gradient in all functions; the influence of that on predictions is the one at the
        unknowns where all functions were used, the largest of them.
        """
        gradient = self._full.system.pulled(state.coefficients, theta, white, state.left * state.rows)
        return _SAFETY * float(np.abs(self._stacked @ gradient).max(initial=0.0))

    def _learn(self, state: State) -> None:
        """Add a solution and its derivatives to the span."""
        sensitivity = state.sensitivities()
        columns = np.concatenate([state.coefficients[:, None], sensitivity], axis=1)
        columns = columns.reshape(len(self._full.determined), self._full.size, -1)
        wide = np.concatenate(list(columns), axis=1)
        sizes = np.sqrt(np.einsum("ij,ij->j", wide, wide))
        wide = wide[:, sizes > 0.0] / sizes[sizes > 0.0]
        for _ in range(2):  # twice is enough for orthogonality in rounding
            wide = wide - self._basis @ (self._basis.T @ wide)
        vectors, values, _ = np.linalg.svd(wide, full_matrices=False)
        basis = np.concatenate([self._basis, vectors[:, values > _NEW]], axis=1)
        self._basis = np.linalg.qr(basis)[0] if basis.shape[1] else basis
        if self._basis.shape[1] > _SHARE * self._full.size:
            self._worth, self._system = False, None
            return
        self._system = self._full.system.projected(self._basis)
        self._influences.append(state.influence(self._readings))
        self._stacked = np.concatenate(self._influences)
