"""From expressions to the normal form that engines solve: linear terms, a nonlinear remainder, a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation import forms
from gpkit.models.pde.evaluation import CoefficientFunction, PlainFunction, Remainder
from gpkit.models.pde.expressions import (
    Equation,
    Expression,
    Given,
    Number,
    Power,
    Product,
    Sum,
    Unknown,
    add,
    convert,
    multiply,
    power,
)
from gpkit.models.pde.fields import Derivative, Field
from gpkit.models.pde.gridded import Gridded

__all__ = ["LinearForm", "data_of", "equation_form", "linear_form", "separate", "unknowns_of"]

_MOST_MONOMIALS = 64


@dataclass(frozen=True)
class _Monomial:
    """A coefficient without fields, times powers of jets and of pointwise functions of jets."""

    coefficient: Expression
    factors: tuple[tuple[Expression, int], ...] = ()


def _key(factor: Expression) -> Any:
    return (factor.field.name, factor.orders) if isinstance(factor, Derivative) else id(factor)


def _times(a: _Monomial, b: _Monomial) -> _Monomial:
    powers = {_key(f): (f, n) for f, n in a.factors}
    for f, n in b.factors:
        powers[_key(f)] = (f, n + powers.get(_key(f), (f, 0))[1])
    return _Monomial(multiply(a.coefficient, b.coefficient), tuple(powers.values()))


def _expand(e: Expression) -> list[_Monomial]:
    """As a sum of monomials; what would become longer than 64 of them stays a single factor."""
    if not e.jets:
        return [_Monomial(e)]
    opaque = [_Monomial(Number(1.0), ((e, 1),))]
    if isinstance(e, Sum):
        return [m for part in e.parts for m in _expand(part)]
    factors: list[list[_Monomial]] = []
    if isinstance(e, Product):
        factors = [_expand(part) for part in e.parts]
    elif isinstance(e, Power) and e.exponent == int(e.exponent) and 2 <= e.exponent <= 16:
        base = _expand(e.base)
        if len(base) > 1 and e.exponent > 4:
            return opaque
        factors = [base] * int(e.exponent)
    else:
        return opaque
    result = factors[0]
    for factor in factors[1:]:
        if len(result) * len(factor) > _MOST_MONOMIALS:
            return opaque
        result = [_times(a, b) for a in result for b in factor]
    return result


@dataclass(frozen=True)
class LinearForm:
    """What an expression consists of.

    Attributes:
        linear: Coefficient of each jet.
        nonlinear: The sum of all else that holds jets, or None.
        free: The sum of what holds none.
    """

    linear: dict[Derivative, Expression]
    nonlinear: Expression | None
    free: Expression


def separate(e: Expression) -> LinearForm:
    """The linear part, the nonlinear part, and the part without fields."""
    linear: dict[Any, tuple[Derivative, Expression]] = {}
    nonlinear: list[Expression] = []
    free: list[Expression] = []
    for m in _expand(e):
        if isinstance(m.coefficient, Number) and m.coefficient.value == 0.0:
            continue
        if not m.factors:
            free.append(m.coefficient)
        elif len(m.factors) == 1 and m.factors[0][1] == 1 and isinstance(m.factors[0][0], Derivative):
            jet = m.factors[0][0]
            before = linear[_key(jet)][1] if _key(jet) in linear else Number(0.0)
            linear[_key(jet)] = (jet, add(before, m.coefficient))
        else:
            nonlinear.append(multiply(m.coefficient, *(power(f, float(n)) for f, n in m.factors)))
    kept = {jet: c for jet, c in linear.values() if not (isinstance(c, Number) and c.value == 0.0)}
    return LinearForm(kept, add(*nonlinear) if nonlinear else None, add(*free) if free else Number(0.0))


def unknowns_of(e: Expression) -> frozenset[str]:
    """Names of the unknowns in an expression."""
    return frozenset(node.name for node in e.walk() if isinstance(node, Unknown))


def _coefficient(e: Expression, box: forms.Box) -> forms.Coefficient:
    if isinstance(e, Number):
        return forms.Coefficient(e.value)
    return forms.Coefficient(None, CoefficientFunction(e, box), unknowns_of(e))


def linear_form(
    e: Expression, box: forms.Box, fields: Mapping[str, int], what: str
) -> tuple[tuple[forms.Term, ...], Expression]:
    """Linear terms, and minus the part without fields.

    Raises:
        InvalidDataError: The expression is not linear in the fields, or holds none.
    """
    form = separate(e)
    if form.nonlinear is not None:
        raise InvalidDataError(f"{what} must be linear in the fields, but holds {form.nonlinear!r}")
    if not form.linear:
        raise InvalidDataError(f"{what} holds no field")
    return _terms(form, box, fields), multiply(Number(-1.0), form.free)


def _terms(form: LinearForm, box: forms.Box, fields: Mapping[str, int]) -> tuple[forms.Term, ...]:
    return tuple(
        forms.Term(_coefficient(c, box), forms.Jet(fields[jet.field.name], jet.orders))
        for jet, c in form.linear.items()
    )


def data_of(value: Any, moved: Expression, box: forms.Box, what: str, face: int | None = None) -> forms.Data:
    """A right side.

    Args:
        value: What the user gave: a number, a function, an expression without fields, an array, or `Noisy` values.
        moved: What is added to it, from the left side.
        box: The domain.
        what: Its name in messages.
        face: The axis that is constant, for values on a face.

    Raises:
        InvalidDataError: It is nothing of these, or an array that does not fit.
    """
    if not isinstance(value, Gridded) and hasattr(value, "shape") and len(value.shape) > 0:
        value = Gridded.of(value, what=what)
    if isinstance(value, Gridded):
        axes = value.axes_on(box, face)
        values = value.values
        if not (isinstance(moved, Number) and moved.value == 0.0):
            if face is not None or unknowns_of(moved):
                raise InvalidDataError(f"{what}: values on a grid cannot be joined with {moved!r}")
            mesh = [a.reshape([-1 if k == j else 1 for k in range(box.dim)]) for j, a in enumerate(axes)]
            values = values + PlainFunction(moved, box)(*mesh)
        return forms.Data(values=values, axes=axes, noise=value.noise)
    e = add(convert(value), moved)
    if e.jets:
        raise InvalidDataError(f"{what} holds the field {e.jets[0].field.name!r}: put fields on the left side")
    if isinstance(e, Number):
        return forms.Data(constant=e.value)
    unknowns = unknowns_of(e)
    if unknowns:
        return forms.Data(unknowns=unknowns, parametric=CoefficientFunction(e, box))
    if isinstance(e, Given) and not e.orders and not isinstance(e.function, Gridded):
        return forms.Data(function=e.function)
    return forms.Data(function=PlainFunction(e, box))


def equation_form(equation: Equation, box: forms.Box, fields: Mapping[str, int]) -> forms.Equation:
    """The normal form of an equation.

    Raises:
        InvalidDataError: It holds no field, or a right side that is nothing of what it may be.
    """
    text = repr(equation)
    right, left = equation.right, equation.left
    if isinstance(right, Expression):
        left, right = left - right, 0.0
    form = separate(left)
    if not form.linear and form.nonlinear is None:
        raise InvalidDataError(f"the equation {text} holds no field")
    jets = form.nonlinear.jets if form.nonlinear is not None else ()
    remainder = None
    if form.nonlinear is not None:
        keys = tuple((j.field.name, j.orders) for j in jets)
        remainder = Remainder(form.nonlinear, box, keys=keys)
    return forms.Equation(
        terms=_terms(form, box, fields),
        source=data_of(right, multiply(Number(-1.0), form.free), box, "the source"),
        jets=tuple(forms.Jet(fields[j.field.name], j.orders) for j in jets),
        remainder=remainder,
        text=text,
    )


def fields_of(equations: Sequence[Equation]) -> list[Field]:
    """The fields of equations, in the order in which they appear.

    Raises:
        InvalidDataError: Two have one name, or different boxes.
    """
    found: dict[str, Field] = {}
    for equation in equations:
        sides = [equation.left] + ([equation.right] if isinstance(equation.right, Expression) else [])
        for side in sides:
            for jet in side.jets:
                other = found.setdefault(jet.field.name, jet.field)
                if other is not jet.field:
                    raise InvalidDataError(f"two different fields are called {jet.field.name!r}")
    boxes = [f.box for f in found.values()]
    if any(box != boxes[0] for box in boxes):
        raise InvalidDataError("all fields of a problem must have the same box")
    return list(found.values())
