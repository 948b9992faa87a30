"""Kernels of field models by name, and the candidates that ``kernel="auto"`` compares.

A name is ``family:member``; names joined by `` + `` are sums; a family's name alone stands for its best member by
evidence, "ambient" for the best of "projected" and "helmholtz", and "auto" for the best of everything and of sums of
the best ambient and the best intrinsic one.

"family:member * speed" is a kernel whose amplitude varies from place to place, for vector fields whose speeds do;
"auto" tries it with the kernel of highest evidence, and with the first summand of the best sum.

"intrinsic" kernels have k modes of a Laplacian, "markov" ones have all of them, by a sparse precision matrix: where the
modes turn out to be too few, "auto" and "intrinsic" go on to "markov".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.kernels.markov import MarkovKernel
from gpkit.models.fields.ambient_terms import HelmholtzTerm, ProjectedTerm
from gpkit.models.fields.filter_term import NAMED_FILTERS, FilterTerm, named_filter
from gpkit.models.fields.markov_term import MarkovTerm
from gpkit.models.fields.radial import RADIALS
from gpkit.models.fields.spectral_term import MaternResponse, Response, SpectralPart, SpectralTerm, heat_response
from gpkit.models.fields.speed_term import SPEED, SpeedTerm
from gpkit.models.fields.terms import Scales, Term

__all__ = ["FAMILIES", "Setting", "candidates", "make_terms"]

_SMOOTHNESS = {
    "matern12": 0.5,
    "matern1": 1.0,
    "matern32": 1.5,
    "matern2": 2.0,
    "matern52": 2.5,
    "matern3": 3.0,
    "matern4": 4.0,
}

FAMILIES: dict[str, tuple[str, ...]] = {
    "intrinsic": tuple(f"intrinsic:{name}" for name in ("matern1", "matern2", "matern4", "heat")),
    "markov": ("markov:matern1", "markov:matern2"),
    "projected": tuple(f"projected:{name}" for name in ("matern12", "matern32", "matern52", "matern72", "rbf")),
    "helmholtz": tuple(f"helmholtz:{name}" for name in ("matern52", "matern72", "matern92", "rbf")),
}
"""Members of each family, rough to smooth; those of "markov" on manifolds of even dimension."""

_ODD = ("markov:matern12", "markov:matern32")
"""Members of "markov" on manifolds of odd dimension, where these have whole powers of the Laplacian."""


@dataclass(frozen=True)
class Setting:
    """What kernels are built for.

    Attributes:
        scales: Units of the problem.
        dim: Dimension of the manifold.
        oriented: Whether it is an oriented surface.
        ambient: Whether nodes have coordinates.
        vector: Whether the field is one of vectors; functions have no gradient kernels.
        parts: Makes the spectral parts of a filter's name; called only for kernels that need a basis.
        markov: Makes the kernel with all modes of a smoothness; None where there is no Laplacian.
        truncated: Whether bases have fewer modes than there are coordinates.
        unknowns: Number of coordinates of the field at all nodes.
        landmarks: Where speeds are parameters, (K, D); None where no place has been observed or there are too few.
    """

    scales: Scales
    dim: int
    oriented: bool
    ambient: bool
    vector: bool
    parts: Callable[[str], Sequence[SpectralPart]]
    markov: Callable[[float], MarkovKernel] | None = None
    truncated: bool = False
    unknowns: int = 0
    landmarks: NDArray[np.float64] | None = None

    def families(self) -> tuple[str, ...]:
        """Those that make sense here."""
        out = ["intrinsic"]
        if self.markov is not None:
            out.append("markov")
        if self.ambient:
            out.append("projected")
            if self.vector and self.dim >= 2:
                out.append("helmholtz")
        return tuple(out)

    def members(self, family: str) -> tuple[str, ...]:
        """Members of a family that are compared here."""
        return _ODD if family == "markov" and self.dim % 2 else FAMILIES[family]

    def check(self, kernel: str | Sequence[Any]) -> None:
        """Refuse a kernel that this field cannot have.

        Raises:
            InvalidDataError: with what there is.
        """
        if isinstance(kernel, str):
            candidates(kernel, self)

    def prepare_bases(self, names: Sequence[str]) -> None:
        """Make the bases that kernels with complete names need, before places are looked at."""
        for part in (part.strip().removesuffix(SPEED) for name in names for part in name.split("+")):
            if part.startswith("intrinsic:"):
                self.parts(part.partition(":")[2])


def candidates(name: str, setting: Setting) -> list[str]:
    """The kernels that a name stands for: one, or the members of families.

    Raises:
        InvalidDataError: an unknown name, or a kernel that this field cannot have.
    """
    if "+" in name:
        parts = [candidates(part.strip(), setting) for part in name.split("+")]
        if not all(len(found) == 1 for found in parts):
            raise InvalidDataError(
                f"a sum must name its kernels in full, such as 'helmholtz:rbf + intrinsic:heat': {name!r}"
            )
        return [" + ".join(found[0] for found in parts)]
    available = setting.families()
    if "*" in name:
        inner, _, factor = (part.strip() for part in name.partition("*"))
        if factor != SPEED.removeprefix(" * ") or len(candidates(inner, setting)) != 1:
            raise InvalidDataError(
                f"a product must be a full name times speed, such as 'projected:rbf{SPEED}': {name!r}"
            )
        if not (setting.vector and setting.ambient):
            raise InvalidDataError(f"kernel {name!r} is one of vector fields whose nodes have coordinates")
        return [inner + SPEED]
    if name == "auto":
        return [member for family in available if family != "markov" for member in setting.members(family)]
    group = ("projected", "helmholtz") if name == "ambient" else tuple(family for family in FAMILIES if family == name)
    if group:
        members = [member for family in group if family in available for member in setting.members(family)]
        if not members:
            needs = "a Laplacian, and a basis alone has none" if name == "markov" else "coordinates of the nodes"
            raise InvalidDataError(f"kernel {name!r} needs {needs}")
        return members
    family, _, member = name.partition(":")
    known = {
        "intrinsic": (*_SMOOTHNESS, "heat", *NAMED_FILTERS),
        "markov": tuple(_SMOOTHNESS),
        "projected": tuple(RADIALS),
        "helmholtz": tuple(RADIALS),
    }
    if family not in known or member not in known[family]:
        names = sorted({*FAMILIES, "ambient", "auto"})
        raise InvalidDataError(
            f"unknown kernel {name!r}: choose {', '.join(names)}, or a member such as 'projected:matern52', "
            "'helmholtz:rbf', 'intrinsic:heat', 'markov:matern2', or a sum of members"
        )
    if family not in available:
        reason = "is one of vector fields in two or more dimensions" if setting.ambient else "needs coordinates"
        reason = "needs a Laplacian, and a basis alone has none" if family == "markov" else reason
        raise InvalidDataError(f"kernel {name!r} {reason}")
    return [name]


def make_terms(name: str, setting: Setting) -> list[Term]:
    """The terms of a kernel whose name is complete."""
    out: list[Term] = []
    for part in name.split("+"):
        plain = part.strip().removesuffix(SPEED)
        if plain != part.strip():
            if setting.landmarks is None:
                raise InvalidDataError(f"kernel {part.strip()!r} needs a dozen observed places or more")
            out += [SpeedTerm(term, setting.landmarks) for term in make_terms(plain, setting)]
            continue
        family, _, member = plain.partition(":")
        if family == "intrinsic":
            out += [_spectral(modes.label or plain, member, modes, setting) for modes in setting.parts(member)]
        elif family == "markov":
            assert setting.markov is not None
            out.append(MarkovTerm(plain, setting.markov(_SMOOTHNESS[member]), setting.scales))
        elif family == "projected":
            out.append(ProjectedTerm(member, setting.scales))
        else:
            out.append(HelmholtzTerm(member, setting.scales, oriented=setting.oriented))
    return out


def _spectral(name: str, member: str, modes: SpectralPart, setting: Setting) -> SpectralTerm:
    flat = not len(modes.eigenvalues) or float(modes.eigenvalues.max() - modes.eigenvalues.min()) <= 0.0
    if member in NAMED_FILTERS and not flat:  # harmonic flows have one eigenvalue: a filter has nothing to choose
        chosen, unit = named_filter(member, modes, setting.scales)
        return FilterTerm(name, modes, chosen, setting.scales, unit)
    response: Response = heat_response
    if member in _SMOOTHNESS:
        response = MaternResponse(_SMOOTHNESS[member], setting.dim)
    return SpectralTerm(name, modes, response, setting.scales)
