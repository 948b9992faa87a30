"""What is known about fields besides their equations: on faces of the box, at the beginning, and at points inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gpkit.errors import InvalidDataError
from gpkit.inference.collocation import forms
from gpkit.models.pde.calculus import d
from gpkit.models.pde.expressions import Expression, OnFace, Unknown, convert
from gpkit.models.pde.fields import Field
from gpkit.models.pde.gridded import values_tensor
from gpkit.models.pde.normal import data_of, linear_form

__all__ = ["Condition", "Dirichlet", "Initial", "Neumann", "Observe", "Periodic", "Robin"]


@dataclass(frozen=True)
class Face:
    """A face of a box: an axis by its number, and its side, 0 for the lower end and 1 for the upper one."""

    box: forms.Box
    axis: int
    side: int

    @property
    def outward(self) -> float:
        """Sign of the outward normal along the axis."""
        return 1.0 if self.side else -1.0

    def __str__(self) -> str:
        return f"{self.box.names[self.axis]}={(self.box.upper if self.side else self.box.lower)[self.axis]:.6g}"


def face_of(place: OnFace, box: forms.Box) -> Face:
    """The face that was named.

    Raises:
        InvalidDataError: The box has no such axis, or the number is not one of its ends.
    """
    if place.axis not in box.names:
        raise InvalidDataError(f"there is no axis {place.axis!r}: the axes are {', '.join(box.names)}")
    k = box.names.index(place.axis)
    for side, end in enumerate((box.lower[k], box.upper[k])):
        if abs(place.at - end) <= 1e-9 * box.lengths[k]:
            return Face(box, k, side)
    raise InvalidDataError(
        f"{place.axis}={place.at:.6g} is not a face: {place.axis} ends at {box.lower[k]:.6g} and {box.upper[k]:.6g}"
    )


class FaceCondition:
    """A linear condition on one face, or on every face.

    Args:
        target: A field or a linear expression of fields, on one face (``u.on("x=0")``) or, without a face, on every
            face of the axes that are neither periodic nor have initial values.
        value: What it is equal to: a number, a function of one tensor per axis of the box, an expression, values on a
            grid of the face, or `Noisy` values.
    """

    kind = "linear"

    def __init__(self, target: Expression | OnFace, value: Any = 0.0) -> None:
        if not isinstance(target, Expression | OnFace):
            raise InvalidDataError(f"{type(self).__name__} needs a field, or a field on a face; got {target!r}")
        self.place = target if isinstance(target, OnFace) else None
        self.target: Expression = target.expression if isinstance(target, OnFace) else target
        self.value = value

    def left_side(self, face: Face) -> Expression:
        """What is given on a face."""
        return self.target

    def parts(self) -> tuple[Any, ...]:
        """What it is made of, where unknowns may stand."""
        return (self.target, self.value)

    def on_faces(self, box: forms.Box, fields: Mapping[str, int], left_out: frozenset[int]) -> list[forms.Condition]:
        """In normal form, one for each face.

        Args:
            box: The domain.
            fields: Numbers of the fields.
            left_out: Axes whose faces are not meant where no face is named.
        """
        if self.place is not None:
            faces = [face_of(self.place, box)]
        else:
            faces = [Face(box, k, side) for k in range(box.dim) if k not in left_out for side in (0, 1)]
        return [self._normal(face, self.left_side(face), self.value, fields) for face in faces]

    def _normal(self, face: Face, left: Expression, value: Any, fields: Mapping[str, int]) -> forms.Condition:
        what = f"the {self.kind} condition on {face}"
        for jet in left.jets:
            if jet.field.name not in fields:
                raise InvalidDataError(f"{what} is about the field {jet.field.name!r}, which is in no equation")
        terms, moved = linear_form(left, face.box, fields, what)
        return forms.Condition(self.kind, face.axis, face.side, terms, data_of(value, moved, face.box, what, face.axis))


class Condition(FaceCondition):
    """A linear expression of fields that is given on a face: ``d(u, "x", 2).on("x=0") == 0``."""


class Dirichlet(FaceCondition):
    """Given values: ``Dirichlet(u, g)`` on every face, ``Dirichlet(u.on("x=0"), g)`` on one."""

    kind = "dirichlet"


class Neumann(FaceCondition):
    """Given derivatives along the outward normal."""

    kind = "neumann"

    def left_side(self, face: Face) -> Expression:
        """The derivative along the outward normal."""
        return face.outward * d(self.target, face.box.names[face.axis])


class Robin(FaceCondition):
    """Given ``alpha u + beta du/dn``, with the outward normal n.

    Args:
        target: As for any condition.
        alpha: A number or a function of the coordinates.
        beta: Likewise.
        value: The right side.
    """

    kind = "robin"

    def __init__(self, target: Expression | OnFace, alpha: Any, beta: Any, value: Any = 0.0) -> None:
        super().__init__(target, value)
        self.alpha, self.beta = convert(alpha), convert(beta)

    def parts(self) -> tuple[Any, ...]:
        """Those of any condition, and the factors."""
        return (*super().parts(), self.alpha, self.beta)

    def left_side(self, face: Face) -> Expression:
        """The mixed expression."""
        return self.alpha * self.target + self.beta * face.outward * d(self.target, face.box.names[face.axis])


class Initial(FaceCondition):
    """Values, and the velocity if the equation is of second order, where an axis begins: ``Initial(u, "t=0", u0)``.

    Args:
        target: The field.
        face: Such as "t=0".
        value: Values there.
        velocity: Derivative along the axis there; None where it is not given.

    Raises:
        InvalidDataError: The target is on a face already.
    """

    kind = "initial"

    def __init__(self, target: Expression, face: str, value: Any = 0.0, velocity: Any = None) -> None:
        if not isinstance(target, Expression):
            raise InvalidDataError(f"Initial needs a field and a face such as 't=0'; got {target!r}")
        super().__init__(target.on(face), value)
        self.velocity = velocity

    def parts(self) -> tuple[Any, ...]:
        """Those of any condition, and the velocity."""
        return (*super().parts(), self.velocity)

    def on_faces(self, box: forms.Box, fields: Mapping[str, int], left_out: frozenset[int]) -> list[forms.Condition]:
        """In normal form: values, and the velocity if there is one."""
        assert self.place is not None
        face = face_of(self.place, box)
        if face.side:
            raise InvalidDataError(f"initial values are given where an axis begins, {face} is where it ends")
        conditions = [self._normal(face, self.target, self.value, fields)]
        if self.velocity is not None:
            speed = d(self.target, box.names[face.axis])
            conditions.append(self._normal(face, speed, self.velocity, fields))
        return conditions


class Periodic:
    """Every field is periodic along the named axes: ``Periodic("x", "y")``."""

    def __init__(self, *axes: str) -> None:
        if not axes or not all(isinstance(a, str) for a in axes):
            raise InvalidDataError(f"Periodic needs names of axes, such as Periodic('x'); got {axes!r}")
        self.axes = axes

    def numbers(self, box: forms.Box) -> frozenset[int]:
        """Numbers of the axes.

        Raises:
            InvalidDataError: The box has no such axis.
        """
        for name in self.axes:
            if name not in box.names:
                raise InvalidDataError(f"there is no axis {name!r}: the axes are {', '.join(box.names)}")
        return frozenset(box.names.index(name) for name in self.axes)


class Observe:
    """Values of a field, or of a linear expression of fields, at points inside.

    Args:
        target: The expression.
        points: (m, d), or (m,) in one dimension.
        values: (m,).
        noise: Standard deviation of their independent Gaussian noise, one number or (m,); 0: exact, such as a gauge;
            None: one number that is found from the data.

    Raises:
        InvalidDataError: Shapes do not fit, something is not finite, the noise is negative, or the expression holds
            unknown numbers.
    """

    def __init__(self, target: Expression, points: Any, values: Any, noise: Any) -> None:
        if not isinstance(target, Expression):
            raise InvalidDataError(f"Observe needs a field or an expression of fields; got {target!r}")
        held = sorted({node.name for node in target.walk() if isinstance(node, Unknown)})
        if held:
            raise InvalidDataError(
                f"an observed expression holds no unknown numbers, but {target!r} holds {', '.join(held)}: these stand "
                "in equations and conditions"
            )
        self.target = target
        self.points = values_tensor(points, "the points of observations")
        self.values = values_tensor(values, "observed values").reshape(-1)
        unknown = torch.full((1,), math.nan, dtype=torch.float64)
        self.noise = unknown if noise is None else values_tensor(noise, "the noise of observations")
        m = self.values.numel()
        if self.noise.numel() not in (1, m) or bool((self.noise < 0.0).any()):
            fits = self.noise.numel() in (1, m)
            got = f"{float(self.noise.min()):g}" if fits else f"shape {tuple(self.noise.shape)}"
            raise InvalidDataError(
                f"the noise of {m} observations is one number or {m} of them, zero or more; got {got}"
            )
        self.noise = self.noise.reshape(-1).expand(m).clone()

    def normal(self, box: forms.Box, fields: Mapping[str, int]) -> forms.Observation:
        """In normal form.

        Raises:
            InvalidDataError: The points do not fit the box, or the expression is not linear.
        """
        points = self.points
        if box.dim == 1 and points.dim() <= 1:
            points = points.reshape(-1, 1)
        m = self.values.numel()
        if points.dim() != 2 or points.shape != (m, box.dim):
            raise InvalidDataError(
                f"{m} observed values need points of shape ({m}, {box.dim}), got {tuple(self.points.shape)}"
            )
        lower, upper = (torch.tensor(ends, dtype=torch.float64) for ends in (box.lower, box.upper))
        slack = 1e-9 * (upper - lower)
        outside = ((points < lower - slack) | (points > upper + slack)).any(-1)
        if bool(outside.any()):
            row = int(torch.nonzero(outside)[0])
            place = ", ".join(f"{float(p):.6g}" for p in points[row])
            raise InvalidDataError(f"observation {row} lies outside the box, at ({place})")
        for jet in self.target.jets:
            if jet.field.name not in fields:
                raise InvalidDataError(f"an observation is of the field {jet.field.name!r}, which is in no equation")
        terms, moved = linear_form(self.target, box, fields, "an observed expression")
        shift = data_of(0.0, moved, box, "an observed expression")
        values = self.values
        if shift.function is not None:
            values = values + forms.evaluate(shift.function, list(points.T), "an observed expression")
        elif shift.constant:
            values = values + shift.constant
        return forms.Observation(terms, points.contiguous(), values, self.noise)


def prior_fields(fields: list[Field], conditions: list[forms.Condition], equations: Any) -> frozenset[int]:
    """Numbers of the fields that no equation determines: as many as there are more fields than equations.

    These are the fields without conditions, and among those the ones that are differentiated least.
    """
    surplus = len(fields) - len(equations)
    if surplus <= 0:
        return frozenset()
    constrained = {t.jet.field for c in conditions for t in c.terms}
    order = [
        max((sum(j.orders) for e in equations for j in e.all_jets if j.field == k), default=0)
        for k in range(len(fields))
    ]
    ranked = sorted(range(len(fields)), key=lambda k: (k in constrained, order[k], -k))
    return frozenset(ranked[:surplus])
