"""Dense weighted least squares on all rows at once: any linear operator, any conditions, any coupling.

What the direct and the Krylov solver cannot take: conditions with varying coefficients or tangential derivatives,
systems whose fields need each other's highest derivatives, more conditions than orders, coefficients that change sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from gpkit.errors import ConvergenceError, InvalidDataError
from gpkit.inference.collocation.bases import Array
from gpkit.inference.collocation.rows import Rows
from gpkit.inference.collocation.spectral.linearised import Collocation
from gpkit.inference.collocation.spectral.newton import NewtonReport

__all__ = ["LeastSquares", "gauss_newton", "megabytes"]

Fields = list[Array]
_STEPS = 60
_RANK = 1e-15
_GAIN = 1e-3  # of the misfit


def megabytes(points: int, columns: int) -> float:
    """Memory of the rows and of the copies that a factorisation makes."""
    return 3.0 * 8.0 * points * columns / 1e6


@dataclass
class LeastSquares:
    """A solved linear system of rows.

    Attributes:
        factor: Upper triangular R of the column-scaled rows.
        scales: Length of each column.
        condition: Of R, estimated.
        misfit: Norm of what no coefficients explain.
        magnitude: Root mean square of the right sides.
        solution: Coefficients.
    """

    factor: Array
    scales: Array
    condition: float
    misfit: float
    magnitude: float
    solution: Array

    @classmethod
    def of(cls, rows: Array, rhs: Array) -> LeastSquares:
        """Factor and solve by Householder reflections.

        Raises:
            InvalidDataError: Some combination of coefficients is determined by nothing.
        """
        scales = np.linalg.norm(rows, axis=0)
        scales[scales == 0.0] = 1.0
        n = rows.shape[1]
        if len(rows) < n:
            raise InvalidDataError(f"{len(rows)} rows cannot determine {n} coefficients: more conditions are needed")
        both = np.concatenate([rows / scales, rhs[:, None]], axis=1)
        (triangle,) = linalg.qr(both, mode="r", overwrite_a=True, check_finite=False)
        triangle = triangle[: n + 1]
        factor, head = triangle[:n, :n], triangle[:n, n]
        rcond, _ = linalg.lapack.dtrcon(factor, norm="1")
        if rcond < _RANK:
            raise InvalidDataError(
                f"the equations and conditions do not determine the solution (reciprocal condition {rcond:.0e}):"
                " a condition, or a gauge, is missing"
            )
        solution = linalg.solve_triangular(factor, head) / scales
        misfit = float(abs(triangle[n, n])) if len(triangle) > n else 0.0
        return cls(factor, scales, 1.0 / rcond, misfit, float(np.sqrt(np.mean(rhs**2))), solution)

    def again(self, rows: Array, rhs: Array) -> Array:
        """Solve the same rows for another right side, by the seminormal equations."""
        right = (rows.T @ rhs) / self.scales
        half = linalg.solve_triangular(self.factor, right, trans="T")
        return np.asarray(linalg.solve_triangular(self.factor, half) / self.scales)


def _rows(problem: Collocation, rows: Rows, state: Fields) -> tuple[Array, Array]:
    """All exact rows at a state, each equation in units of its rows."""
    disc = problem.disc
    weights = np.ones(1)
    for w in disc.weights:
        weights = np.multiply.outer(weights, w).ravel()
    root = np.sqrt(weights)
    blocks, lacks = [], []
    for slopes, lack in zip(problem.linearise(state).slopes, problem.residual_values(state), strict=True):
        block = rows.of_equation(slopes, disc.nodes)
        lengths = np.linalg.norm(root[:, None] * block, axis=0)
        scale = float(np.median(lengths[lengths > 0.0])) if lengths.any() else 1.0
        blocks.append(root[:, None] * block / scale)
        lacks.append(root * lack.ravel() / scale)
    for block, lack in (rows.of_conditions(state), rows.of_observations(state, exact=True)):
        if len(block):
            blocks.append(block)
            lacks.append(lack)
    return np.concatenate(blocks), np.concatenate(lacks)


def gauss_newton(
    problem: Collocation, start: Fields, *, linear: bool, tolerance: float = 1e-12
) -> tuple[Fields, NewtonReport, LeastSquares]:
    """Damped Gauss-Newton iteration on all rows.

    Args:
        problem: Equations at more nodes than coefficients.
        start: Fields that satisfy the conditions of single axes.
        linear: Whether one solve (and one refinement) is enough.
        tolerance: Relative correction at which to stop.

    Raises:
        ConvergenceError: No step reduces the residual.
        InvalidDataError: The solution is not determined.
    """
    rows, report, state = Rows(problem.disc), NewtonReport(), start

    def norm(fields: Fields) -> float:
        return float(np.sqrt(sum(np.vdot(f, f) for f in fields)))

    if linear:
        matrix, lack = _rows(problem, rows, state)
        solved = LeastSquares.of(matrix, lack)
        for vector in (solved.solution, None):
            if vector is None:  # one refinement with the same factor
                vector = solved.again(matrix, _rows(problem, rows, state)[1])
            step = rows.fields(vector)
            state = [c + s for c, s in zip(state, step, strict=True)]
            report.steps.append(norm(step) / max(norm(state), 1e-300))
            report.damping.append(1.0)
        report.converged = True
        return state, report, solved
    for _ in range(_STEPS):
        matrix, lack = _rows(problem, rows, state)
        solved = LeastSquares.of(matrix, lack)
        step = rows.fields(solved.solution)
        share, before, free = 1.0, float(np.linalg.norm(lack)), solved.misfit
        if report.steps and before - free <= _GAIN * free:
            break  # what is left no coefficients explain: this is the least
        candidate = [c + s for c, s in zip(state, step, strict=True)]
        while True:
            after = float(np.linalg.norm(_rows(problem, rows, candidate)[1]))
            if np.isfinite(after) and after <= (1.0 - 0.1 * share) * before + 0.1 * share * free:
                break
            share *= 0.5
            if share < 1e-4:
                break
            candidate = [c + share * s for c, s in zip(state, step, strict=True)]
        size = norm(step) / max(norm(candidate), 1e-300)
        if share < 1e-4:
            if size < 1e-8:
                break
            raise ConvergenceError(
                "Gauss-Newton diverges: no step along its direction reduces the residual"
                f" (relative steps so far {[f'{s:.1e}' for s in report.steps]}); the problem may have no"
                " solution, or fronts that the grid cannot hold"
            )
        state = candidate
        report.steps.append(share * size)
        report.damping.append(share)
        if share == 1.0 and size * min(1.0, size) < tolerance:
            break
    else:
        raise ConvergenceError(f"Gauss-Newton did not converge in {_STEPS} steps")
    report.converged = True
    # The last right side is what the last step corrected: the size of the problem is that of the first.
    first = _rows(problem, rows, [np.zeros_like(c) for c in state])[1]
    solved.magnitude = max(solved.magnitude, float(np.sqrt(np.mean(first**2))))
    return state, report, solved
