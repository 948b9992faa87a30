"""Which kernels a field model compares, where a comparison goes on, and what the reader of a fit should know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gpkit.errors import InvalidDataError
from gpkit.models.fields.kernels import Setting, candidates
from gpkit.models.fields.selection import Candidate
from gpkit.models.fields.spectral_term import SpectralTerm
from gpkit.models.fields.speed_term import SPEED, SpeedTerm

__all__ = ["full_rank_members", "kernels_that_fit", "notes_of", "speeds_worth_trying", "sums_worth_trying"]

_TAIL = 0.05
"""Share of an intrinsic kernel's variance that may lie beyond the basis before somebody is told."""


def kernels_that_fit(kernel: Any, setting: Setting, rows: int, dense_rows: int) -> tuple[list[str], dict[str, str]]:
    """Names of kernels to fit, and those that are too large to be fitted with the reason.

    Args:
        kernel: A name, or terms.
        setting: What kernels are built for.
        rows: Number of observed coordinates.
        dense_rows: Up to how many kernels with a dense covariance are used.

    Raises:
        InvalidDataError: none is left.
    """
    if not isinstance(kernel, str):
        return [" + ".join(term.name for term in kernel)], {}
    names = candidates(kernel, setting)
    dense = [name for name in names if any(part in name for part in ("projected", "helmholtz", SPEED))]
    if not dense or rows <= dense_rows:
        return names, {}
    gigabytes = 8.0 * rows**2 * 6 / 1e9
    reason = (
        f"its covariance is dense: {rows} observed coordinates need about {gigabytes:.0f} GB and {rows**3:.1g} "
        f"operations an evaluation (dense_rows={dense_rows} allows less)"
    )
    if len(dense) == len(names):
        raise InvalidDataError(f"kernel {kernel!r} cannot be used: {reason}; choose 'intrinsic', or raise dense_rows")
    return [name for name in names if name not in dense], dict.fromkeys(dense, reason)


def sums_worth_trying(fitted: Sequence[Candidate]) -> list[str]:
    """Sums of the best intrinsic and the best ambient kernel, and of the best of each other family."""
    best: dict[str, str] = {}
    for candidate in fitted:
        best.setdefault(candidate.name.partition(":")[0], candidate.name)
    ambient = next((c.name for c in fitted if not c.name.startswith("intrinsic")), None)
    out = []
    if ambient is not None and "intrinsic" in best:
        out.append(f"{ambient} + {best['intrinsic']}")
    if "projected" in best and "helmholtz" in best:
        out.append(f"{best['helmholtz']} + {best['projected']}")
    return out


def speeds_worth_trying(fitted: Sequence[Candidate], setting: Setting) -> list[str]:
    """The best kernel of one term, and the first summand of the best sum, with an amplitude that varies."""
    if not setting.vector or setting.landmarks is None:
        return []
    single = next((c.name for c in fitted if "+" not in c.name), None)
    out = [] if single is None else [single + SPEED]
    best = next((c.name for c in fitted if "+" in c.name), None)
    if best is not None:
        first, _, rest = best.partition(" + ")
        out.append(f"{first}{SPEED} + {rest}")
    return out


def full_rank_members(
    fitted: Sequence[Candidate], setting: Setting, skipped: dict[str, str], sparse_unknowns: int
) -> list[str]:
    """Kernels with all modes, where the best intrinsic kernel says that its modes are too few for the data.

    Args:
        fitted: Candidates so far, best first.
        setting: What kernels are built for.
        skipped: Reasons of kernels that are left out; those of this function are added.
        sparse_unknowns: Up to how many coordinates they are fitted without being asked for.
    """
    if not setting.truncated or "markov" not in setting.families():
        return []
    best = next((c for c in fitted if c.name.startswith("intrinsic")), None)
    if best is None or max(share for _, share in _tails(best)) <= _TAIL:
        return []
    members = list(setting.members("markov"))
    if setting.unknowns <= sparse_unknowns:
        return members
    reason = (
        f"the modes are too few, but the sparse precision of all {setting.unknowns} unknowns is factored only when it "
        f"is asked for by name (sparse_unknowns={sparse_unknowns} allows less)"
    )
    skipped.update(dict.fromkeys(members, reason))
    return []


def notes_of(best: Candidate, skipped: dict[str, str]) -> list[str]:
    """What the reader of a fit should know, in sentences."""
    notes = []
    for reason in dict.fromkeys(skipped.values()):
        names = [name for name, why in skipped.items() if why == reason]
        notes.append(f"{len(names)} kernels were not compared ({', '.join(names)}): {reason}")
    for term, share in _tails(best):
        if share > _TAIL:
            notes.append(
                f"{len(term.part.eigenvalues)} modes are too few for {term.name}: those beyond would have about "
                f"{100 * share:.0f} % of its variance, which now counts as noise; raise rank, or take a 'markov' "
                "kernel, which has all modes"
            )
    if not best.fit.converged:
        notes.append(f"the fit of {best.name} did not converge: raise starts, or use the result with care")
    return notes


def _tails(candidate: Candidate) -> list[tuple[SpectralTerm, float]]:
    """Spectral terms with the share of their variance that lies beyond the basis."""
    regression = candidate.regression
    _, parts = regression.split(torch.from_numpy(candidate.fit.theta))
    terms = [term.inner if isinstance(term, SpeedTerm) else term for term in regression.terms]
    return [
        (term, term.tail(part[: len(term.parameters)]))
        for term, part in zip(terms, parts, strict=True)
        if isinstance(term, SpectralTerm)
    ]
