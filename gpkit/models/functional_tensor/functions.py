"""Latent functions in a form that can be plotted and compared: main effects, and principal functions of each mode.

Factors are known only up to an invertible mixing that the coefficients undo. What does not depend on it: the main
effect of a mode (the prediction averaged over the entries' coordinates in all others), and the functions along a mode
ordered by the variance that they carry, of unit mean square over the entries, with signs fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import LowRankPosterior, principal_mixing

__all__ = ["ModeFunctions", "mode_functions"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModeFunctions:
    """Functions of one mode at its J distinct coordinates.

    Attributes:
        name: of the mode.
        coordinates: as the user wrote them, (J,) or (J, D).
        main: main effect (J,), in the unit of y.
        main_sd: its posterior standard deviation (J,).
        functions: principal functions (J, R), unit mean square over the entries.
        functions_sd: their posterior standard deviations (J, R).
        share: part of the low-rank variance that each carries, (R,), decreasing.
        mixing: (R, R); principal functions are the centred factor functions times this.
    """

    name: str
    coordinates: NDArray[Any]
    main: Array
    main_sd: Array
    functions: Array
    functions_sd: Array
    share: Array
    mixing: Array

    @property
    def effective_rank(self) -> int:
        """Functions that carry at least a thousandth of the variance."""
        return int((self.share > 1e-3).sum())

    def __repr__(self) -> str:
        shares = ", ".join(f"{100.0 * share:.1f} %" for share in self.share)
        return f"ModeFunctions({self.name!r}, {len(self.coordinates)} coordinates, functions carry {shares})"

    def plot(self, axes: Any = None) -> Any:
        """Principal functions with bands of two standard deviations; returns the axes."""
        from gpkit.diagnostics.tensor_plots import plot_mode_functions

        x = np.arange(len(self.coordinates)) if self.coordinates.dtype.kind in "OU" else self.coordinates
        names = [f"{k + 1}: {100 * share:.1f} %" for k, share in enumerate(self.share)]
        return plot_mode_functions(x, self.functions, self.functions_sd, names=names, mode_label=self.name, ax=axes)


def mode_functions(
    posterior: LowRankPosterior, mode: int, name: str, labels: NDArray[Any], weights: list[Array], scale: float
) -> ModeFunctions:
    """Rotate the functions of a mode.

    Args:
        posterior: of the low-rank part.
        mode: which mode.
        name: its name.
        labels: its coordinates.
        weights: number of entries at each coordinate of every mode, (J_k,) each.
        scale: unit of y over that of the posterior.
    """
    modes, form = posterior.modes, posterior.form
    shares = [w / w.sum() for w in weights]
    averages = [share @ m.means() for share, m in zip(shares, modes, strict=True)]
    by_component, core_spread = form.reduced_moments(mode, averages)
    own = modes[mode]
    free = own.free
    mean, covariance = own.factor.mean, own.factor.covariance
    main = own.means() @ by_component
    spread = np.einsum("jab,a,b->j", covariance, by_component[free], by_component[free])
    spread += np.einsum("ja,ab,jb->j", own.means(), core_spread, own.means())
    # Variance along the mode: centred functions, all other modes with their second moments over the entries.
    second = [np.einsum("j,ja,jb->ab", share, m.means(), m.means()) for share, m in zip(shares, modes, strict=True)]
    carried = form.energy(mode, second)[np.ix_(free, free)]
    centre = shares[mode] @ mean
    centred = mean - centre
    energy, mixing = principal_mixing(centred, shares[mode], carried)
    functions = centred @ mixing
    largest = functions[np.abs(functions).argmax(0), np.arange(len(energy))]
    sign = np.where(largest < 0.0, -1.0, 1.0)
    functions_sd = np.sqrt(np.maximum(np.einsum("jab,ar,br->jr", covariance, mixing, mixing), 0.0))
    total = float(energy.sum())
    return ModeFunctions(
        name,
        labels,
        scale * (main - shares[mode] @ main),
        scale * np.sqrt(np.maximum(spread, 0.0)),
        functions * sign,
        functions_sd,
        energy / total if total > 0.0 else energy,
        mixing * sign,
    )
