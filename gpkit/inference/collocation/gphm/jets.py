"""Jets of grid values, folded and on the grid, and the gradients that come back to them.

Folded coordinates are orthogonal: sums of squares are the same in them, and so is everything linear with constant
coefficients. Only what is pointwise, nonlinear terms, variable coefficients and faces, needs the grid itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gpkit.inference.collocation.forms import Equation, Jet, Parameters
from gpkit.inference.collocation.gphm.axes import along_axes, fold, unfold
from gpkit.inference.collocation.gphm.covariances import Covariances

__all__ = ["FoldedEquation", "GridJets"]


class GridJets:
    """Jets of folded values for given covariances, made when they are asked for, and their adjoints.

    Everything is a function of the solutions ``C_j^-1 U`` along each axis: the prior's quadratic form, and through them
    every jet. What comes back to a solution is added up first, so that each axis is solved along once more.

    Args:
        folded: Values of each field, (N_1, ..., N_d, *batch); gradients of the covariances are summed over a batch.
        covariances: Of every field and axis.
        values: The same on the grid, (F, N_1, ..., N_d), where something is asked for there.
    """

    def __init__(self, folded: Sequence[Tensor], covariances: Covariances, values: Tensor | None = None) -> None:
        """Nothing is solved yet."""
        self._folded, self._axes, self._values = list(folded), covariances.fields, values
        self._solved: dict[tuple[int, int], Tensor] = {}
        self._adjoints: dict[tuple[int, int], Tensor] = {}
        self._direct = [torch.zeros_like(u) for u in folded]
        self._chains: dict[Jet, list[tuple[Tensor, int]]] = {}
        self._jets: dict[Jet, Tensor] = {}
        self._on_grid: dict[Jet, Tensor] = {}
        self._slopes: dict[Jet, Tensor] = {}
        self._grid_slopes: dict[Jet, Tensor] = {}

    @classmethod
    def of_values(cls, values: Tensor, covariances: Covariances) -> GridJets:
        """From values on the grid, (F, N_1, ..., N_d)."""
        return cls([along_axes(fold, u) for u in values], covariances, values)

    def _once(self, field: int, axis: int) -> Tensor:
        """``C_j^-1`` along an axis j of the values."""
        if (field, axis) not in self._solved:
            self._solved[field, axis] = self._axes[field][axis].solve(self._folded[field], axis)
        return self._solved[field, axis]

    def _add_adjoint(self, field: int, axis: int, gradient: Tensor) -> None:
        key = field, axis
        self._adjoints[key] = self._adjoints[key] + gradient if key in self._adjoints else gradient

    def pull_quadratic(self) -> float:
        """Half the prior's quadratic form of all fields; its gradient is added."""
        total = 0.0
        for f, (values, line) in enumerate(zip(self._folded, self._axes, strict=True)):
            first, last = self._once(f, 0), len(line) - 1
            if last == 0:
                other = values
                self._direct[f].add_(first, alpha=0.5)
            else:
                # <C_1^-1 U, C_2^-1 ... C_d^-1 U>: the solution along the first axis, and that along all others.
                other, found, back = self._once(f, last), list[tuple[Tensor, int]](), 0.5 * first
                for j in range(last - 1, 0, -1):
                    other = line[j].solve(other, j)
                    found.append((other, j))
                for solved, j in reversed(found):
                    # d/dC of C^-1 is -C^-1 dC C^-1: what comes back, times the solution.
                    back = line[j].solve(back, j)
                    line[j].add_gradient(0, back, solved, j, -1.0)
                self._add_adjoint(f, last, back)
            self._add_adjoint(f, 0, 0.5 * other)
            total += 0.5 * float(torch.dot(first.reshape(-1), other.reshape(-1)))
        return total

    def _chain(self, jet: Jet) -> list[tuple[Tensor, int]]:
        """What the matrix of each axis that a jet differentiates along is applied to, and the axis, in turn."""
        if jet not in self._chains:
            line, found = self._axes[jet.field], list[tuple[Tensor, int]]()
            for j, order in enumerate(jet.orders):
                if order and not found:
                    found.append((self._once(jet.field, j), j))
                elif order:
                    solved, i = found[-1]
                    found.append((line[j].solve(line[i].apply(jet.orders[i], solved, i), j), j))
            self._chains[jet] = found
        return self._chains[jet]

    def __getitem__(self, jet: Jet) -> Tensor:
        """A jet, folded."""
        if not any(jet.orders):
            return self._folded[jet.field]
        if jet not in self._jets:
            # Cheaper as two products of a vector than as one with the matrix K C^-1.
            solved, j = self._chain(jet)[-1]
            self._jets[jet] = self._axes[jet.field][j].apply(jet.orders[j], solved, j)
        return self._jets[jet]

    def on_grid(self, jet: Jet) -> Tensor:
        """A jet at the points of the grid."""
        if self._values is not None and not any(jet.orders):
            return self._values[jet.field]
        if jet not in self._on_grid:
            self._on_grid[jet] = along_axes(unfold, self[jet])
        return self._on_grid[jet]

    def add_slope(self, jet: Jet, slope: Tensor) -> None:
        """Add to the gradient with respect to a folded jet."""
        self._slopes[jet] = self._slopes[jet] + slope if jet in self._slopes else slope

    def slope_on_grid(self, jet: Jet) -> Tensor:
        """Gradient with respect to a jet at the points of the grid, to be added to in place."""
        if jet not in self._grid_slopes:
            self._grid_slopes[jet] = torch.zeros(self._folded[jet.field].shape, dtype=torch.float64)
        return self._grid_slopes[jet]

    def _pull(self, jet: Jet) -> None:
        line, chain, gradient = self._axes[jet.field], self._chain(jet), self._slopes[jet]
        for i, (solved, j) in reversed(list(enumerate(chain))):
            line[j].add_gradient(jet.orders[j], gradient, solved, j)
            gradient = line[j].apply(jet.orders[j], gradient, j, transposed=True)
            if i:
                gradient = line[j].solve(gradient, j)
                line[j].add_gradient(0, gradient, solved, j, -1.0)
        self._add_adjoint(jet.field, chain[0][1], gradient)

    def pull(self) -> list[Tensor]:
        """Gradient with respect to the folded values of each field; that of the covariances is added to these."""
        total = self._direct
        for jet, slope in self._slopes.items():
            if any(jet.orders):
                self._pull(jet)
            else:
                total[jet.field].add_(slope)
        for (f, j), adjoint in self._adjoints.items():
            back = self._axes[f][j].solve(adjoint, j)
            self._axes[f][j].add_gradient(0, back, self._once(f, j), j, -1.0)
            total[f].add_(back)
        return total

    def gradient(self) -> Tensor:
        """Gradient with respect to the values on the grid, (F, N_1, ..., N_d), covariances as in :meth:`pull`."""
        direct = []
        for jet, slope in self._grid_slopes.items():
            if any(jet.orders):
                self.add_slope(jet, along_axes(fold, slope))
            else:
                direct.append((jet.field, slope))
        out = torch.stack([along_axes(unfold, g) for g in self.pull()])
        for field, slope in direct:
            out[field] += slope
        return out


class FoldedEquation:
    """An equation whose terms with constant coefficients are added up in folded coordinates.

    Args:
        equation: The equation.
        source: Its right side on the grid.
        coordinates: Of the grid, one tensor an axis.
        parameters: Of unknown coefficients.
    """

    def __init__(
        self, equation: Equation, source: Tensor, coordinates: Sequence[Tensor], parameters: Parameters
    ) -> None:
        """Separate the terms."""
        self._coordinates, self._parameters = coordinates, parameters
        self._numbers: dict[Jet, float] = {}
        others = []
        for t in equation.terms:
            if t.coefficient.function is None and t.coefficient.constant is not None:
                self._numbers[t.jet] = self._numbers.get(t.jet, 0.0) + t.coefficient.constant
            else:
                others.append(t)
        self._pointwise = replace(equation, terms=tuple(others)) if others or equation.remainder else None
        self._source = source if self._pointwise is not None else along_axes(fold, source)

    def pull(self, jets: GridJets, precision: float) -> float:
        """Squares of the residual times a precision; half of their gradient is added to the jets."""
        constant = -self._source if self._pointwise is None else torch.zeros_like(self._source)
        for jet, number in self._numbers.items():
            constant.add_(jets[jet], alpha=number)
        if self._pointwise is None:
            residual, weighted = constant, precision * constant
        else:
            at = {j: jets.on_grid(j) for j in self._pointwise.all_jets}
            residual = along_axes(unfold, constant) - self._source
            residual += self._pointwise.left_side(self._coordinates, at, self._parameters)
            on_grid = precision * residual
            for jet, slope in self._pointwise.linearised(self._coordinates, at, self._parameters).items():
                jets.slope_on_grid(jet).addcmul_(on_grid, slope)
            weighted = along_axes(fold, on_grid)
        for jet, number in self._numbers.items():
            jets.add_slope(jet, weighted if number == 1.0 else number * weighted)
        flat = residual.reshape(-1)
        return precision * float(torch.dot(flat, flat))
