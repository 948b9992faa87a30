"""Kernels of field models by name, and the candidates that ``kernel="auto"`` compares.

A name is ``family:member``; names joined by `` + `` are sums; a family's name alone stands for its best member by
evidence, "ambient" for the best of "projected" and "helmholtz", and "auto" for the best of everything and of sums of
the best ambient and the best intrinsic one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpkit.errors import InvalidDataError
from gpkit.models.fields.radial import RADIALS
from gpkit.models.fields.terms import (
    HelmholtzTerm,
    MaternResponse,
    ProjectedTerm,
    Response,
    Scales,
    SpectralPart,
    SpectralTerm,
    Term,
    heat_response,
)

__all__ = ["FAMILIES", "Setting", "candidates", "make_terms"]

_FILTERS: dict[str, float | None] = {"matern1": 1.0, "matern2": 2.0, "matern4": 4.0, "heat": None}

FAMILIES: dict[str, tuple[str, ...]] = {
    "intrinsic": tuple(f"intrinsic:{name}" for name in _FILTERS),
    "projected": tuple(f"projected:{name}" for name in ("matern12", "matern32", "matern52", "matern72", "rbf")),
    "helmholtz": tuple(f"helmholtz:{name}" for name in ("matern52", "matern72", "matern92", "rbf")),
}
"""Members of each family, rough to smooth."""


@dataclass(frozen=True)
class Setting:
    """What kernels are built for.

    Attributes:
        scales: Units of the problem.
        dim: Dimension of the manifold.
        oriented: Whether it is an oriented surface.
        ambient: Whether nodes have coordinates.
        vector: Whether the field is one of vectors; functions have no gradient kernels.
        parts: Makes the spectral parts; called only for kernels that need a basis.
    """

    scales: Scales
    dim: int
    oriented: bool
    ambient: bool
    vector: bool
    parts: Callable[[], Sequence[SpectralPart]]

    def families(self) -> tuple[str, ...]:
        """Those that make sense here."""
        out = ["intrinsic"]
        if self.ambient:
            out.append("projected")
            if self.vector and self.dim >= 2:
                out.append("helmholtz")
        return tuple(out)

    def check(self, kernel: str | Sequence[Any]) -> None:
        """Refuse a kernel that this field cannot have.

        Raises:
            InvalidDataError: with what there is.
        """
        if isinstance(kernel, str):
            candidates(kernel, self)

    def uses_basis(self, kernel: str | Sequence[Any]) -> bool:
        """Whether a kernel needs basis functions."""
        if isinstance(kernel, str):
            return any("intrinsic" in name for name in candidates(kernel, self))
        return any(isinstance(term, SpectralTerm) for term in kernel)


def candidates(name: str, setting: Setting) -> list[str]:
    """The kernels that a name stands for: one, or the members of families.

    Raises:
        InvalidDataError: an unknown name, or a kernel that this field cannot have.
    """
    if "+" in name:
        parts = [part.strip() for part in name.split("+")]
        if not all(len(candidates(part, setting)) == 1 for part in parts):
            raise InvalidDataError(
                f"a sum must name its kernels in full, such as 'helmholtz:rbf + intrinsic:heat': {name!r}"
            )
        return [" + ".join(parts)]
    available = setting.families()
    if name == "auto":
        return [member for family in available for member in FAMILIES[family]]
    group = ("projected", "helmholtz") if name == "ambient" else tuple(family for family in FAMILIES if family == name)
    if group:
        members = [member for family in group if family in available for member in FAMILIES[family]]
        if not members:
            raise InvalidDataError(f"kernel {name!r} needs coordinates of the nodes, and there are none")
        return members
    family, _, member = name.partition(":")
    known = {"intrinsic": tuple(_FILTERS), "projected": tuple(RADIALS), "helmholtz": tuple(RADIALS)}
    if family not in known or member not in known[family]:
        names = sorted({*FAMILIES, "ambient", "auto"})
        raise InvalidDataError(
            f"unknown kernel {name!r}: choose {', '.join(names)}, or a member such as 'projected:matern52', "
            "'helmholtz:rbf', 'intrinsic:heat', or a sum of members"
        )
    if family not in available:
        reason = "is one of vector fields in two or more dimensions" if setting.ambient else "needs coordinates"
        raise InvalidDataError(f"kernel {name!r} {reason}")
    return [name]


def make_terms(name: str, setting: Setting) -> list[Term]:
    """The terms of a kernel whose name is complete."""
    out: list[Term] = []
    for part in name.split("+"):
        family, _, member = part.strip().partition(":")
        if family == "intrinsic":
            response = _response(member, setting.dim)
            out += [
                SpectralTerm(modes.label or part.strip(), modes, response, setting.scales) for modes in setting.parts()
            ]
        elif family == "projected":
            out.append(ProjectedTerm(member, setting.scales))
        else:
            out.append(HelmholtzTerm(member, setting.scales, oriented=setting.oriented))
    return out


def _response(member: str, dim: int) -> Response:
    nu: Any = _FILTERS[member]
    return heat_response if nu is None else MaternResponse(nu, dim)
