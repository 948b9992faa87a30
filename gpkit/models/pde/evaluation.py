"""Expressions as functions of coordinates, jets and unknowns, in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation.forms import Box, evaluate, evaluate_on_grid
from gpkit.models.pde.expressions import Apply, Coordinate, Expression, Given, Number, Power, Product, Sum, Unknown
from gpkit.models.pde.fields import Derivative
from gpkit.models.pde.gridded import Gridded, Spline, is_open_mesh, orders_on

__all__ = ["CoefficientFunction", "PlainFunction", "Remainder", "call"]


def call(function: Callable[..., Tensor], coordinates: Sequence[Tensor], what: str) -> Tensor:
    """A user's function at coordinates of any shapes that broadcast, checked.

    Raises:
        InvalidDataError: It failed, or returned something not finite or of the wrong shape.
    """
    if len({c.shape for c in coordinates}) == 1:
        return evaluate(function, coordinates, what)
    if is_open_mesh(coordinates):
        return evaluate_on_grid(function, [c.reshape(-1) for c in coordinates], what)
    return evaluate(function, [c.contiguous() for c in torch.broadcast_tensors(*coordinates)], what)


def _differentiated(function: Any, coordinates: Sequence[Tensor], orders: Sequence[int], what: str) -> Tensor:
    """A partial derivative of a user's function, by autograd."""
    with torch.enable_grad():
        leaves = [c.detach().contiguous().requires_grad_() for c in torch.broadcast_tensors(*coordinates)]
        evaluate(function, [leaf.detach() for leaf in leaves], what)  # for the messages of its checks
        value = torch.as_tensor(function(*leaves), dtype=torch.float64)
        for leaf, order in zip(leaves, orders, strict=True):
            for _ in range(order):
                if not value.requires_grad:
                    if value.numel() > 1 and bool((value != value.reshape(-1)[0]).any()):
                        raise InvalidDataError(
                            f"{what} is differentiated, but does not keep gradients: write it in torch operations"
                        )
                    return torch.zeros(leaf.shape, dtype=torch.float64)
                (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=True, allow_unused=True)
                if gradient is None:
                    return torch.zeros(leaf.shape, dtype=torch.float64)
                value = gradient
    value = value.detach()
    if not bool(torch.isfinite(value).all()):
        raise InvalidDataError(f"a derivative of {what} is not finite everywhere on the box")
    return value


@dataclass(eq=False)
class _Evaluator:
    box: Box
    coordinates: Sequence[Tensor]
    parameters: Mapping[str, Tensor]
    jets: Mapping[tuple[str, tuple[int, ...]], Tensor]
    splines: dict[int, Spline]

    def __call__(self, e: Expression) -> Tensor:
        if isinstance(e, Number):
            return torch.tensor(e.value, dtype=torch.float64)
        if isinstance(e, Coordinate):
            if e.name not in self.box.names:
                raise InvalidDataError(f"there is no axis {e.name!r}: the axes are {', '.join(self.box.names)}")
            return self.coordinates[self.box.names.index(e.name)]
        if isinstance(e, Derivative):
            return self.jets[e.field.name, e.orders]
        if isinstance(e, Unknown):
            try:
                return torch.as_tensor(self.parameters[e.name], dtype=torch.float64)
            except KeyError:
                raise InvalidDataError(f"the unknown {e.name!r} has no value: use infer(), or give one") from None
        if isinstance(e, Given):
            return self._given(e)
        if isinstance(e, Sum):
            return sum((self(p) for p in e.parts[1:]), self(e.parts[0]))
        if isinstance(e, Product):
            return math.prod((self(p) for p in e.parts[1:]), start=self(e.parts[0]))
        if isinstance(e, Power):
            return _power(self(e.base), e.exponent)
        if isinstance(e, Apply):
            return self._apply(e)
        raise InvalidDataError(f"{type(e).__name__} cannot be evaluated")

    def _given(self, e: Given) -> Tensor:
        orders = orders_on(self.box, e.orders)
        if isinstance(e.function, Gridded):
            spline = self.splines.setdefault(id(e.function), e.function.spline(self.box))
            return spline(self.coordinates, orders)
        what = f"the function {e!r}" if e.label or hasattr(e.function, "__name__") else "a function in the equation"
        if any(orders):
            return _differentiated(e.function, self.coordinates, orders, what)
        return call(e.function, self.coordinates, what)

    def _apply(self, e: Apply) -> Tensor:
        values = [self(a) for a in e.arguments]
        if not e.path:
            return e.function(*values)
        # Partial derivatives: each argument is a variable of its own, whatever they have in common above this node.
        with torch.enable_grad():
            own = [v.clone() if v.requires_grad else v.detach().clone().requires_grad_() for v in _expanded(values)]
            outer = torch.as_tensor(e.function(*own), dtype=torch.float64)
            for k in e.path:
                if not outer.requires_grad:
                    return torch.zeros_like(own[0])
                (gradient,) = torch.autograd.grad(outer.sum(), own[k], create_graph=True, allow_unused=True)
                if gradient is None:
                    return torch.zeros_like(own[0])
                outer = gradient
        return outer if any(v.requires_grad for v in values) else outer.detach()


def _expanded(values: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.broadcast_tensors(*values)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Small whole powers as products, which keep signs and exact derivatives."""
    if exponent == 2.0:
        return base * base
    if exponent == 3.0:
        return base * base * base
    return base ** (int(exponent) if exponent == int(exponent) else exponent)


@dataclass(eq=False)
class _Compiled:
    expression: Expression
    box: Box
    splines: dict[int, Spline] = field(default_factory=dict)

    def _evaluate(self, coordinates: Sequence[Tensor], parameters: Any, jets: Any) -> Tensor:
        return _Evaluator(self.box, coordinates, parameters, jets, self.splines)(self.expression)

    def __getstate__(self) -> dict[str, Any]:
        # Splines are kept by the identity of their values, which a copy does not share.
        return {"expression": self.expression, "box": self.box, "splines": {}}


class CoefficientFunction(_Compiled):
    """An expression without fields, as a function of coordinates and unknowns."""

    def __call__(self, coordinates: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        """Values, of a shape that broadcasts with the coordinates."""
        return self._evaluate(coordinates, parameters, {})


class PlainFunction(_Compiled):
    """An expression without fields and unknowns, as a function of one tensor per axis."""

    def __call__(self, *coordinates: Tensor) -> Tensor:
        """Values, of a shape that broadcasts with the coordinates."""
        return self._evaluate(coordinates, {}, {})


@dataclass(eq=False)
class Remainder(_Compiled):
    """An expression as a function of coordinates, the values of its jets, and unknowns.

    Attributes:
        keys: Field name and orders of each jet, in the order in which values come.
    """

    keys: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __call__(
        self, coordinates: Sequence[Tensor], values: Sequence[Tensor], parameters: Mapping[str, Tensor]
    ) -> Tensor:
        """Values, of the shape of those of the jets."""
        return self._evaluate(coordinates, parameters, dict(zip(self.keys, values, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "keys": self.keys}
