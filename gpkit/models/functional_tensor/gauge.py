"""A tensor train in its canonical gauge: what is the same for every way to write it.

Between two matrices of a train any invertible mixing can be put in and taken out. In the canonical gauge the products
to the left and to the right of every bond are orthonormal over the entries (as if their coordinates were independent)
and the bond holds singular values, of which the squares are parts of the mean square. Main effects are part of it: a
function that is a sum has rank two.

References:
    Oseledets (2011), SIAM J. Sci. Comput. 33, 2295; Vidal (2003), Phys. Rev. Lett. 91, 147902.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb import LowRankPosterior, TensorTrain

__all__ = ["TrainGauge", "canonical_train"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainGauge:
    """The posterior mean of a train, main effects included, as left-orthonormal matrices of functions.

    Attributes:
        bonds: names of the modes on both sides of each bond.
        singular_values: of each bond, decreasing, in the unit of y, (r,) each.
        matrices: of each mode at its coordinates, (J, r_left, r_right); the last holds the scale.
    """

    bonds: tuple[tuple[str, str], ...]
    singular_values: tuple[Array, ...]
    matrices: tuple[Array, ...]

    @property
    def effective_rank(self) -> tuple[int, ...]:
        """For each bond, the singular values that carry at least a thousandth of the mean square."""
        out = []
        for values in self.singular_values:
            total = float((values**2).sum())
            out.append(int((values**2 > 1e-3 * total).sum()) if total > 0.0 else 0)
        return tuple(out)


def canonical_train(
    posterior: LowRankPosterior, names: Sequence[str], counts: Sequence[Array], scale: float
) -> TrainGauge:
    """Rotate the posterior mean of a tensor train.

    Args:
        posterior: of the low-rank part.
        names: of the modes.
        counts: number of entries at each coordinate of every mode, (J_k,) each.
        scale: unit of y over that of the posterior.
    """
    form = posterior.form
    assert isinstance(form, TensorTrain)
    shares = [count / count.sum() for count in counts]
    means = [mode.means() for mode in posterior.modes]
    seconds = [np.einsum("j,ja,jb->ab", share, m, m) for share, m in zip(shares, means, strict=True)]
    into, out_of, values = [np.ones((1, 1))], [np.ones((1, 1))], []
    for left, right in form.bond_grams(seconds):
        a, inverse_a = _root(left)
        b, _ = _root(right)
        u, s, _ = np.linalg.svd(a.T @ b)
        values.append(scale * s)
        # Left products in the gauge: orthonormal combinations of the old ones, by falling singular values.
        into.append(inverse_a.T @ u)
        out_of.append(u.T @ a.T)
    into.append(np.ones((1, 1)))
    last = len(means) - 1
    matrices = [
        (scale if k == last else 1.0) * (out_of[k] @ matrix @ into[k + 1])
        for k, matrix in enumerate(form.mean_matrices(means))
    ]
    pairs = tuple(zip(names[:-1], names[1:], strict=True))
    return TrainGauge(pairs, tuple(values), tuple(matrices))


def _root(gram: Array) -> tuple[Array, Array]:
    """A root A with ``A A^T`` the matrix, and its pseudo-inverse."""
    eigenvalues, vectors = np.linalg.eigh(0.5 * (gram + gram.T))
    floor = 1e-14 * max(float(eigenvalues[-1]), 1e-300)
    roots = np.sqrt(np.maximum(eigenvalues, floor))
    return vectors * roots, (vectors / roots).T
