"""A Gaussian process over several columns at once, conditioned on nearest neighbours: the full-rank residual of tables.

The kernel is a learned sum of products of exponential (Matern-1/2) kernels over all columns, categories included. Each
conditional distribution is exact given the m data rows of largest covariance: Vecchia's approximation on both sides, so
that the answer for a row does not depend on an order. Parameters maximise the leave-one-out density.

References:
    Vecchia (1988), JRSS B 50, 297; Kang & Katzfuss (2023), Statistics and Computing 33, 17 (neighbours by correlation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from gpkit.errors import InvalidDataError
from gpkit.recursions import nearest_neighbours as compiled
from gpkit.recursions.covariance_tree import largest_covariances
from gpkit.recursions.neighbour_gradients import LeftOut, leave_one_out_gradient
from gpkit.recursions.neighbour_lanes import Covariance

__all__ = ["NearestNeighbourProcess", "krige"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_LEARNING_ROWS = 2400
_FIRST_SHARE = 4  # a quarter of them in the first round
_FEW, _MANY = 16, 24  # neighbours in learning: without noise, and where half of the variance or more is noise
_SCANNED_ROWS = 200
_SCAN = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass
class NearestNeighbourProcess:
    """Covariance ``sum_t v_t exp(-sum_k r_tk d_k)`` of the rows of a table, and how neighbours are found.

    Attributes:
        category: which columns are categories (codes), (D,).
        variance: v, (T,).
        rate: r, (T, D), per unit of the column; for a category, minus the logarithm of the correlation of levels.
        noise: noise variance of a row of relative variance one.
        neighbours: m.
    """

    category: NDArray[np.bool_]
    variance: Array
    rate: Array
    noise: float
    neighbours: int = 40

    @classmethod
    def start(
        cls, points: Array, target: Array, category: NDArray[np.bool_], *, neighbours: int = 40
    ) -> NearestNeighbourProcess:
        """A term that is local in every column, and one for each column that is local in this one only.

        Raises:
            InvalidDataError: for fewer than three rows.
        """
        if len(points) < 3:
            raise InvalidDataError(f"a local residual needs at least three rows, got {len(points)}")
        columns = points.shape[1]
        span = np.maximum(np.ptp(points, axis=0), 1e-300)
        wide = np.where(category, 0.05, 0.5 / span)
        narrow = np.where(category, 2.0, 100.0 / span)
        rate = np.tile(wide, (columns + 1, 1))
        rate[0] = np.where(category, 0.05, 30.0 / span)
        for k in range(columns):
            rate[k + 1, k] = narrow[k]
        total = float(np.var(target)) or 1.0
        variance = np.full(columns + 1, total / (columns + 1))
        return cls(category, variance, rate, 0.1 * total, neighbours)

    @property
    def covariance(self) -> Covariance:
        """What compiled code knows of the process."""
        return Covariance(self.category, self.variance, self.rate)

    def parameters(self) -> dict[str, NDArray[np.float64] | float]:
        """Variances, length scales (1 / rate) and noise variance."""
        return {"variance": self.variance, "lengthscale": 1.0 / self.rate, "noise_variance": self.noise}

    # -- neighbours ------------------------------------------------------------------------------------------------

    def find(self, points: Array, queries: Array, own: Rows, count: int) -> Rows:
        """The ``count`` rows of largest covariance, (Q, count), in decreasing order.

        Args:
            points: data (N, D).
            queries: (Q, D).
            own: the row that each query is, or -1; it is never its own neighbour.
            count: m; -1 fills up where there are fewer rows.
        """
        out = np.empty((len(queries), count), np.int64)
        largest_covariances(points, queries, own, self.covariance, out)
        return out

    # -- learning --------------------------------------------------------------------------------------------------

    def learn(
        self,
        points: Array,
        target: Array,
        relative: Array,
        *,
        rows: int = _LEARNING_ROWS,
        rounds: int = 2,
        iterations: int = 15,
        scan: bool = True,
        degrees: float = math.inf,
        seed: int = 0,
    ) -> float:
        """Maximise the leave-one-out density of a random set of rows over all parameters.

        Every row is conditioned on neighbours from the whole table; only the sum over rows is a random part of it. The
        first of two or more rounds, in which parameters move far, looks at a quarter of the rows. Where more of the
        variance is noise a row looks at more neighbours, since each says less.

        Args:
            points: (N, D).
            target: (N,), of mean zero.
            relative: relative noise variances (N,).
            rows: number of rows in the sum.
            rounds: neighbours are found again this many times.
            iterations: of L-BFGS in each round.
            scan: whether length scales are first searched over factors, one at a time.
            degrees: of freedom of the density; with few of them rows far out do not decide. Variances are squared
                scales then.
            seed: of the choice of rows.

        Returns:
            The mean log-density of the rows left out.
        """
        drawn = np.random.default_rng(seed).permutation(len(points))[: min(rows, len(points))]
        value = np.inf
        for turn in range(rounds):
            share = self.noise / (self.noise + float(self.variance.sum()))
            count = _FEW + round(2.0 * (_MANY - _FEW) * min(share, 0.5))
            count = min(count, len(points) - 1)
            chosen = drawn if turn + 1 == rounds else drawn[: max(len(drawn) // _FIRST_SHARE, min(len(drawn), 200))]
            near = self.find(points, points[chosen], chosen, count)
            if scan and turn == 0:
                self._scan(LeftOut(points, relative, target, chosen, near), degrees)
                near = self.find(points, points[chosen], chosen, count)
            value = self._climb(LeftOut(points, relative, target, chosen, near), degrees, iterations)
        return -value

    def _value(self, left_out: LeftOut, degrees: float) -> tuple[float, Array, Array, float]:
        """Negative mean log-density of the rows, derivatives with respect to variances, rates and noise."""
        to_variance, to_rate = np.empty_like(self.variance), np.empty_like(self.rate)
        value, to_noise = leave_one_out_gradient(left_out, self.covariance, self.noise, degrees, to_variance, to_rate)
        return value, to_variance, to_rate, to_noise

    def _scan(self, left_out: LeftOut, degrees: float) -> None:
        few = left_out._replace(rows=left_out.rows[:_SCANNED_ROWS], neighbours=left_out.neighbours[:_SCANNED_ROWS])
        for t in range(len(self.rate)):
            for k in range(self.rate.shape[1]):
                if t and k != t - 1:
                    continue
                begin = self.rate[t, k]
                values = []
                for factor in _SCAN:
                    self.rate[t, k] = begin * factor
                    values.append(self._value(few, degrees)[0])
                self.rate[t, k] = begin * _SCAN[int(np.argmin(values))]

    def _climb(self, left_out: LeftOut, degrees: float, iterations: int) -> float:
        points, target = left_out.points, left_out.target
        terms, columns = self.rate.shape
        total = float(np.var(target)) or 1.0
        span = np.maximum(np.ptp(points, axis=0), 1e-300)
        slowest = np.where(self.category, 1e-3, 1e-2 / span)
        fastest = np.where(self.category, 8.0, 1e4 / span)

        def unpack(z: Array) -> None:
            e = np.exp(z)
            self.variance, self.noise = e[:terms], float(e[-1])
            self.rate = np.ascontiguousarray(e[terms:-1].reshape(terms, columns))

        def objective(z: Array) -> tuple[float, Array]:
            unpack(z)
            value, to_variance, to_rate, to_noise = self._value(left_out, degrees)
            slope = np.concatenate(
                [to_variance * self.variance, (to_rate * self.rate).reshape(-1), [to_noise * self.noise]]
            )
            return value, slope

        bounds = [(np.log(1e-6 * total), np.log(1e2 * total))] * terms
        bounds += [(np.log(a), np.log(b)) for _ in range(terms) for a, b in zip(slowest, fastest, strict=True)]
        bounds += [(np.log(1e-6 * total), np.log(2.0 * total))]
        begin = np.log(np.concatenate([self.variance, self.rate.reshape(-1), [self.noise]]))
        begin = np.clip(begin, [low for low, _ in bounds], [high for _, high in bounds])
        found = minimize(objective, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations})
        unpack(found.x)
        return float(found.fun)

    # -- answers ---------------------------------------------------------------------------------------------------

    def predict(
        self, points: Array, target: Array, relative: Array, queries: Array, own: Rows | None = None
    ) -> tuple[Array, Array]:
        """Mean and variance (Q,) of the noise-free process.

        Args:
            points: data (N, D).
            target: (N,), of mean zero.
            relative: relative noise variances (N,).
            queries: (Q, D).
            own: the row that each query is, or -1; it is never its own neighbour. None: no query is a row.
        """
        near, weights, left = self.condition(points, relative, queries, own)
        return krige(near, weights, target), left

    def condition(
        self, points: Array, relative: Array, queries: Array, own: Rows | None = None
    ) -> tuple[Rows, Array, Array]:
        """Neighbours and their kriging weights (Q, m), and the variance (Q,) left of the noise-free process."""
        own = np.full(len(queries), -1) if own is None else own
        near = self.find(points, queries, own, min(self.neighbours, max(len(points) - 1, 1)))
        weights, left = np.empty(near.shape), np.empty(len(near))
        compiled.condition(points, self.noise * relative, queries, near, self.covariance, weights, left)
        return near, weights, left


def krige(near: Rows, weights: Array, values: Array) -> Array:
    """Weighted sums (Q,) of the neighbours' values (N,)."""
    out: Array = np.einsum("qm,qm->q", weights, values[near])
    return out
