"""The normal form of a boundary value problem: what the engines see of what a user has written.

A problem on a box has F fields and as many equations or more; an equation is a sum of linear terms, an optional
pointwise nonlinear remainder and a source:

    sum_t c_t(x) D^{orders_t} u_{field_t}(x) + r(x, jets(x)) = f(x).

A *jet* is one partial derivative of one field. Everything is pointwise in the jets, so that the linearisation at a
state is again a sum of linear terms with variable coefficients, and one autograd sweep gives them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpkit.errors import InvalidDataError

__all__ = [
    "TOO_LARGE",
    "Box",
    "Coefficient",
    "Condition",
    "Data",
    "Equation",
    "Jet",
    "Observation",
    "Problem",
    "Term",
    "evaluate",
    "evaluate_on_grid",
    "first_unusable",
]

_LARGEST = 1e75
TOO_LARGE = (
    f"above {_LARGEST:.0e} squares of squares leave the range of double precision, state the problem in other units"
)
"""Why such a number is refused."""

Function = Callable[..., Tensor]
_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Box:
    """A product of intervals.

    Attributes:
        names: One per axis, such as ("x", "t").
        lower: Left ends.
        upper: Right ends.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.names)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Length of each axis."""
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))


class Jet(NamedTuple):
    """A partial derivative of a field: its number, and the order of the derivative along each axis."""

    field: int
    orders: tuple[int, ...]


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a linear term: a number, a function of the coordinates, or of unknown parameters too.

    Attributes:
        constant: The number, or None.
        function: Called with the coordinate tensors and the parameters by name, or None.
        unknowns: Names of the parameters that it depends on.
    """

    constant: float | None = 1.0
    function: Callable[[Sequence[Tensor], Parameters], Tensor] | None = None
    unknowns: frozenset[str] = frozenset()

    def __call__(self, coordinates: Sequence[Tensor], parameters: Parameters) -> Tensor:
        """Values, of a shape that broadcasts with the coordinates."""
        if self.function is None:
            return torch.as_tensor(self.constant, dtype=torch.float64)
        return self.function(coordinates, parameters)


@dataclass(frozen=True)
class Term:
    """A coefficient times a jet."""

    coefficient: Coefficient
    jet: Jet


@dataclass(frozen=True)
class Data:
    """What an equation or a condition is equal to: a function of the coordinates, a number, or values on a grid.

    Attributes:
        function: Of one tensor per axis, or None.
        constant: A number, used where there is neither a function nor values.
        values: Values on the tensor grid of ``axes``, or None.
        axes: The coordinates of ``values`` along each axis (of a face: without its normal axis), increasing.
        noise: Standard deviation of independent Gaussian noise on the values, in their units; 0 is exact, nan unknown.
        unknowns: Names of parameters that ``parametric`` depends on.
        parametric: Called with coordinates and parameters, added to the rest; for sources of unknown strength.
    """

    function: Function | None = None
    constant: float = 0.0
    values: Tensor | None = None
    axes: tuple[Tensor, ...] = ()
    noise: float = 0.0
    unknowns: frozenset[str] = frozenset()
    parametric: Callable[[Sequence[Tensor], Parameters], Tensor] | None = None


@dataclass(frozen=True)
class Equation:
    """An equation on the inside of the box.

    Attributes:
        terms: Its linear part.
        source: Its right side.
        jets: The jets that the remainder takes.
        remainder: The nonlinear part: called with coordinates, the values of ``jets`` and the parameters; pointwise.
        text: As the user wrote it, for reports.
    """

    terms: tuple[Term, ...]
    source: Data
    jets: tuple[Jet, ...] = ()
    remainder: Callable[[Sequence[Tensor], Sequence[Tensor], Parameters], Tensor] | None = None
    text: str = ""

    @property
    def is_linear(self) -> bool:
        """Whether there is no remainder."""
        return self.remainder is None

    @property
    def has_constant_coefficients(self) -> bool:
        """Whether every coefficient of the linear part is a number."""
        return all(t.coefficient.constant is not None for t in self.terms)

    @property
    def all_jets(self) -> tuple[Jet, ...]:
        """Jets of the linear part and of the remainder, each once."""
        return tuple(dict.fromkeys([t.jet for t in self.terms] + list(self.jets)))

    def left_side(
        self, coordinates: Sequence[Tensor], values: Mapping[Jet, Tensor], parameters: Parameters | None = None
    ) -> Tensor:
        """The left side at points.

        Args:
            coordinates: One tensor per axis, of shapes that broadcast to S.
            values: The values of every jet in ``all_jets``, each of shape S.
            parameters: Of unknown coefficients.

        Returns:
            Tensor of shape S.
        """
        given: Parameters = parameters or {}
        total: Any = 0.0
        for term in self.terms:
            total = total + term.coefficient(coordinates, given) * values[term.jet]
        if self.remainder is not None:
            total = total + self.remainder(coordinates, [values[j] for j in self.jets], given)
        return torch.as_tensor(total, dtype=torch.float64)

    def linearised(
        self, coordinates: Sequence[Tensor], values: Mapping[Jet, Tensor], parameters: Parameters | None = None
    ) -> dict[Jet, Tensor]:
        """Coefficient of every jet in the linearisation at a state: d(left side) / d(jet), pointwise.

        Args:
            coordinates: One tensor per axis, of shapes that broadcast to S.
            values: The state's jets, each of shape S.
            parameters: Of unknown coefficients.

        Returns:
            For each jet in ``all_jets`` a tensor that broadcasts to S (constant coefficients stay scalars).
        """
        given: Parameters = parameters or {}
        slopes: dict[Jet, Tensor] = {}
        for term in self.terms:
            own = term.coefficient(coordinates, given)
            slopes[term.jet] = slopes[term.jet] + own if term.jet in slopes else own
        if self.remainder is not None:
            with torch.enable_grad():
                leaves = [values[j].detach().clone().requires_grad_() for j in self.jets]
                total = self.remainder(coordinates, leaves, given).sum()
                gradients = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else ()
            for jet, gradient in zip(self.jets, gradients, strict=False):
                if gradient is not None:
                    slopes[jet] = slopes[jet] + gradient if jet in slopes else gradient
        return slopes


@dataclass(frozen=True)
class Condition:
    """Linear terms that have given values on one face of the box.

    Attributes:
        kind: "dirichlet", "neumann", "robin" or "initial", for messages and reports.
        axis: The axis that is constant on the face.
        side: 0 for its lower end, 1 for its upper end.
        terms: Of the left side; jets may be differentiated along the normal axis.
        value: The right side; its function takes one tensor per axis of the whole box.
    """

    kind: str
    axis: int
    side: int
    terms: tuple[Term, ...]
    value: Data


@dataclass(frozen=True)
class Observation:
    """Noisy values of a linear expression at scattered points of the inside.

    Attributes:
        terms: Of the expression.
        points: (m, d).
        values: (m,).
        noise: Standard deviation, (m,); 0 is exact, nan unknown.
    """

    terms: tuple[Term, ...]
    points: Tensor
    values: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Problem:
    """Equations, conditions and observations of F fields on a box.

    Attributes:
        box: The domain.
        fields: Names of the fields.
        equations: One or more per field.
        conditions: On faces.
        periodic: Axes along which every field is periodic.
        observations: Of the inside.
        unknowns: Prior of every unknown scalar parameter, by name (objects of `gpkit.inference.priors`).
        free: Numbers of the fields that no equation determines: unknown coefficient fields with only a prior.
    """

    box: Box
    fields: tuple[str, ...]
    equations: tuple[Equation, ...]
    conditions: tuple[Condition, ...] = ()
    periodic: frozenset[int] = frozenset()
    observations: tuple[Observation, ...] = ()
    unknowns: Mapping[str, Any] = field(default_factory=dict)
    free: frozenset[int] = frozenset()

    @property
    def is_linear(self) -> bool:
        """Whether every equation is linear in the fields."""
        return all(e.is_linear for e in self.equations)


def evaluate(function: Function, coordinates: Sequence[Tensor], what: str) -> Tensor:
    """Call a user's function at points and check what it returns.

    Args:
        function: Of one float64 tensor per axis.
        coordinates: Tensors of one common shape S.
        what: Name of the function in messages, such as "the source".

    Returns:
        Float64 tensor of shape S.

    Raises:
        InvalidDataError: It returned something that is not numeric, not finite, or not of shape S (or a scalar).
    """
    shape = torch.Size(np.broadcast_shapes(*(c.shape for c in coordinates)))
    try:
        returned = function(*coordinates)
        values = torch.as_tensor(returned, dtype=torch.float64).detach()
    except InvalidDataError:
        raise
    except _FAILURES as error:
        raise InvalidDataError(
            f"{what} failed at {len(coordinates)} coordinate tensors of shape {tuple(shape)}: {error}"
        ) from error
    if values.dim() and values.shape != shape:
        try:
            fits = np.broadcast_shapes(values.shape, shape) == shape and values.dim() == len(shape)
        except ValueError:
            fits = False
        if not fits:
            raise InvalidDataError(
                f"{what} returned shape {tuple(values.shape)} for coordinates of shape {tuple(shape)}"
            )
    values = values.expand(shape)
    if (where := first_unusable(values)) is not None:
        at = ", ".join(f"{float(c.expand(shape)[where]):.6g}" for c in coordinates)
        value = float(values[where])
        wanted = TOO_LARGE if math.isfinite(value) else "it must be finite everywhere on the box"
        raise InvalidDataError(f"{what} is {value:.6g} at ({at}): {wanted}")
    return values


def first_unusable(values: Tensor) -> tuple[int, ...] | None:
    """The first place whose value is not finite or so large that sums of squares of squares would overflow."""
    usable = values.abs() <= _LARGEST
    return None if bool(usable.all()) else tuple(int(i) for i in torch.nonzero(~usable)[0])


def evaluate_on_grid(function: Function, axes: Sequence[Tensor], what: str) -> Tensor:
    """Call a user's function on a tensor grid, with open coordinates where that gives the same.

    Open coordinates, (N, 1) and (1, M), let a function that is a product or a sum of one-dimensional ones be evaluated
    N + M times; a function that does not broadcast is called again with full ones. Both are compared at 16 points.

    Args:
        function: Of one float64 tensor per axis.
        axes: Coordinates along each axis.
        what: Name of the function in messages.

    Returns:
        Float64 tensor of shape (N_1, ..., N_d).

    Raises:
        InvalidDataError: As :func:`evaluate`.
    """
    if len(axes) == 1:
        return evaluate(function, axes, what)
    open_mesh = torch.meshgrid(*axes, indexing="ij")
    d = len(axes)
    slim = [x.reshape([-1 if k == j else 1 for k in range(d)]) for j, x in enumerate(axes)]
    shape = open_mesh[0].shape
    if open_mesh[0].numel() > 64:
        # numpy's, because torch's own imports sympy, which takes half a second.
        picks = np.linspace(0, open_mesh[0].numel() - 1, 16).astype(int)
        index = tuple(torch.from_numpy(i) for i in np.unravel_index(picks, shape))
        probe = evaluate(function, [x[i] for x, i in zip(axes, index, strict=True)], what)
        try:
            values = torch.as_tensor(function(*slim), dtype=torch.float64).detach()
            if values.dim() in (0, d):
                values = values.expand(shape)
                same = torch.allclose(values[index], probe, rtol=1e-9, atol=1e-12 * float(probe.abs().max()))
                if same and first_unusable(values) is None:
                    return values
        except _FAILURES:
            pass  # it does not broadcast: it is called with full coordinates, and its own error is reported from there
    return evaluate(function, [m.contiguous() for m in open_mesh], what)
