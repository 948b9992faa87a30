"""Posteriors of one rank begun at those of another: without the functions that carry least, or with new ones.

A model of one function fewer that begins at the principal functions of a larger fit has lost only what these carried;
begun at random it may end in a worse maximum of its bound. The coefficients of a core follow from the functions by
one exact update, components keep their weights, the kernels and the noise are taken over.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpkit.inference.structured_vb.basis_factor import BasisFactor
from gpkit.inference.structured_vb.cores import CP, Tucker
from gpkit.inference.structured_vb.engine import LowRankPosterior
from gpkit.inference.structured_vb.factors import Factor
from gpkit.inference.structured_vb.forms import Form
from gpkit.inference.structured_vb.layout import Entries
from gpkit.inference.structured_vb.markov_factor import MarkovFactor
from gpkit.inference.structured_vb.trains import TensorTrain

__all__ = ["begin_resized", "living_functions", "principal_mixing"]

Array = NDArray[np.float64]
_SPREAD = 0.01
_SMALL = 0.3
_WAVES = 0.7  # of new components around one
_WEIGHT = 0.1  # of a new component: by an exact update it would have nearly none, and die before it has turned
_CYCLES = 1.5  # along a mode, at most
_DEAD = 1e-10
_LIVING = 1e-3  # of the energy of all
_BEGUN = 3
"""Sweeps that count as made: targets of other likelihoods follow from the posterior, kernels are learned at once."""


def principal_mixing(mean: Array, share: Array, carried: Array) -> tuple[Array, Array]:
    """Energies (R,), decreasing, and the mixing (R, R) to functions of unit mean square that are uncorrelated.

    Args:
        mean: functions (J, R) as they are to be rotated.
        share: of the entries at each coordinate, (J,).
        carried: second moments (R, R) of what multiplies the functions.
    """
    values, vectors = np.linalg.eigh(np.einsum("j,ja,jb->ab", share, mean, mean))
    values = np.maximum(values, 1e-14 * max(float(values[-1]), 1e-300)) if len(values) else values
    root = vectors * np.sqrt(values)
    energy, rotation = np.linalg.eigh(root.T @ carried @ root)
    order = np.argsort(energy)[::-1]
    return np.maximum(energy[order], 0.0), (vectors / np.sqrt(values)) @ rotation[:, order]


def begin_resized(
    posterior: LowRankPosterior,
    other: LowRankPosterior,
    entries: Entries,
    rng: np.random.Generator,
) -> None:
    """Begin a posterior of other ranks where another is.

    Args:
        posterior: that has made no sweep.
        other: of the same modes and form, with or without the same constant components.
        entries: that both see.
        rng: for functions that the other does not have.
    """
    shares = entries.shares()
    if isinstance(posterior.form, TensorTrain):
        _set_train(posterior, other, shares, rng)
    elif isinstance(posterior.form, CP):
        _set_components(posterior, other, shares, rng)
    else:
        for k in range(len(posterior.modes)):
            _set_functions(posterior, other, k, shares, rng)
    for mode, old in zip(posterior.modes, other.modes, strict=True):
        size = mode.factor.rank
        mode.factor.inherit(old.factor)
        mode.factor.covariance = np.tile(_SPREAD * np.eye(size), (mode.factor.size, 1, 1))
        mode.refresh()
    posterior.observation = copy.deepcopy(other.observation)
    posterior.sweeps = min(other.sweeps, _BEGUN)
    form = posterior.form
    if isinstance(form, Tucker):
        form.update(entries.statistics(form, len(posterior.modes) - 1), posterior.observation.precision)


def _filled(mean: Array, size: int, rng: np.random.Generator) -> Array:
    """The first functions, with new ones at random where more are wanted."""
    more = size - mean.shape[1]
    return mean[:, :size] if more <= 0 else np.hstack([mean, _SMALL * rng.standard_normal((len(mean), more))])


def _seconds(other: LowRankPosterior, shares: Sequence[Array]) -> list[Array]:
    return [np.einsum("j,ja,jb->ab", share, m.means(), m.means()) for share, m in zip(shares, other.modes, strict=True)]


def living_functions(posterior: LowRankPosterior, shares: Sequence[Array]) -> tuple[int, ...]:
    """For each mode of a core, the functions that carry at least a thousandth; of components how many do, each time.

    Args:
        posterior: of Tucker's or the canonical polyadic form.
        shares: part of the entries at each coordinate of every mode, (J_k,) each.
    """
    if isinstance(posterior.form, CP):
        energies = [_component_energies(posterior, posterior.form, shares)] * len(posterior.modes)
    else:
        energies = [_principal(posterior, k, shares)[0] for k in range(len(posterior.modes))]
    return tuple(int((energy > _LIVING * energy.sum()).sum()) for energy in energies)


def _principal(posterior: LowRankPosterior, k: int, shares: Sequence[Array]) -> tuple[Array, Array]:
    """Energies (R,), decreasing, and principal functions (J, R); centred where a constant takes up the means."""
    own = posterior.modes[k]
    mean, free = own.factor.mean, own.free
    if len(own.constant):
        mean = mean - shares[k] @ mean
    if not free.size:
        return np.zeros(0), mean
    carried = posterior.form.energy(k, _seconds(posterior, shares))[np.ix_(free, free)]
    energy, mixing = principal_mixing(mean, shares[k], carried)
    return energy, mean @ mixing


def _component_energies(posterior: LowRankPosterior, form: CP, shares: Sequence[Array]) -> Array:
    """Mean squares (R,) of the components, those of main effects apart."""
    rank = posterior.modes[0].factor.rank - (1 if len(posterior.modes[0].constant) else 0)
    out: Array = form.mean[:rank] ** 2
    for share, mode in zip(shares, posterior.modes, strict=True):
        out = out * (share @ mode.factor.mean[:, :rank] ** 2)
    return out


def _set_functions(
    posterior: LowRankPosterior,
    other: LowRankPosterior,
    k: int,
    shares: Sequence[Array],
    rng: np.random.Generator,
) -> None:
    """Principal functions of one mode of a core."""
    _, functions = _principal(other, k, shares)
    posterior.modes[k].factor.mean = _filled(functions, posterior.modes[k].factor.rank, rng)


def _set_components(
    posterior: LowRankPosterior, other: LowRankPosterior, shares: Sequence[Array], rng: np.random.Generator
) -> None:
    """The components that carry most; those of main effects keep their places behind them.

    New ones are ones with waves on them in every mode. A product of functions that vary around zero in many modes is
    hardly correlated with an interaction of two of them, whatever the two are, and precisions then switch it off.
    """
    form = other.form
    assert isinstance(form, CP)
    modes = len(other.modes)
    effects = 1 if len(other.modes[0].constant) else 0
    old_rank = other.modes[0].factor.rank - effects
    rank = posterior.modes[0].factor.rank - effects
    order = np.argsort(_component_energies(other, form, shares))[::-1]
    for k in range(modes):
        mean = other.modes[k].factor.mean
        new = 1.0 + _waves(posterior.modes[k].factor, max(rank - old_rank, 0), rng)
        posterior.modes[k].factor.mean = np.hstack([mean[:, order[:rank]], new, mean[:, old_rank:]])
    _set_weights(posterior.form, form, order[:rank], rank, old_rank)


def _set_weights(form: Form, old: CP, kept: NDArray[np.int64], rank: int, old_rank: int) -> None:
    """Those of kept components and of main effects, and small ones of new components."""
    assert isinstance(form, CP)
    mine = np.append(np.arange(len(kept)), np.arange(rank, form.coefficients.size))
    theirs = np.append(kept, np.arange(old_rank, old.coefficients.size))
    weights = form.coefficients
    weights.mean, weights.covariance = np.full(weights.size, _WEIGHT), _SPREAD * np.eye(weights.size)
    weights.mean[mine] = old.mean[theirs]
    weights.covariance[mine[:, None], mine] = old.covariance[theirs[:, None], theirs]


def _waves(factor: Factor, count: int, rng: np.random.Generator) -> Array:
    """Smooth functions (J, count) of a mode at random, around zero."""
    if isinstance(factor, MarkovFactor | BasisFactor):
        places = (factor.coordinates[:, None] if isinstance(factor, MarkovFactor) else factor.places).copy()
        places -= places.min(0)
        places /= np.maximum(places.max(0), 1e-300)
        angle = places @ rng.uniform(0, _CYCLES, (places.shape[1], count)) + rng.uniform(size=count)
        return _WAVES * np.sqrt(2.0) * np.cos(2.0 * np.pi * angle)
    return _WAVES * rng.standard_normal((factor.size, count))


def _set_train(
    posterior: LowRankPosterior, other: LowRankPosterior, shares: Sequence[Array], rng: np.random.Generator
) -> None:
    """Matrices between the states of each bond that carry most.

    Constants that leave a mode out become part of the functions, since states are mixed.
    """
    train, form = posterior.form, other.form
    assert isinstance(train, TensorTrain)
    assert isinstance(form, TensorTrain)
    modes = len(posterior.modes)
    matrices = form.mean_matrices([mode.means() for mode in other.modes])
    grams = form.bond_grams(_seconds(other, shares))
    for b, (left, right) in enumerate(grams):
        old, new = form.ranks[b], train.ranks[b]
        into, out_of = _states(left[:old, :old], right[:old, :old])
        matrices[b] = _mixed(matrices[b], into[:, :new], axis=2)
        matrices[b + 1] = _mixed(matrices[b + 1], out_of[:, :new], axis=1)
    for b, new in enumerate(train.ranks):  # afterwards: where a bond is all but dead, the mixing is by huge numbers
        kept = min(form.ranks[b], new)
        matrices[b] = _filled_states(matrices[b], kept, new, rng, axis=2)
        matrices[b + 1] = _filled_states(matrices[b + 1], kept, new, rng, axis=1)
    for k, own in enumerate(train.links):
        functions, weights = own.functions, train.weights[k]
        mean = np.stack([matrices[k][:, i, j] for i, j in zip(own.left, own.right, strict=True)], 1)
        for w in range(weights.size):
            mine = np.flatnonzero(own.weight[:functions] == w)
            if mine.size:
                scale = max(float(np.sqrt((mean[:, mine] ** 2).mean())), _SPREAD)
                weights.mean[w] = scale
                mean[:, mine] /= scale
            else:  # an intercept stays, modes that are left out are part of the functions
                weights.mean[w] = form.weights[0].mean[-1] if k == 0 and modes > 1 else 0.0
        weights.covariance = _SPREAD * np.eye(weights.size)
        posterior.modes[k].factor.mean = mean[:, :functions]


def _states(left: Array, right: Array) -> tuple[Array, Array]:
    """Combinations (r, r) of the states of a bond by falling singular values, and the transposed inverse of them.

    States that nothing passes through on the left are zero in both.
    """
    values, vectors = np.linalg.eigh(0.5 * (left + left.T))
    alive = values > _DEAD * max(float(values[-1]), 1e-300)
    roots = np.sqrt(np.where(alive, values, 0.0))
    inverse = np.where(alive, 1.0, 0.0) / np.where(alive, roots, 1.0)
    root = vectors * roots
    _, turn = np.linalg.eigh(root.T @ right @ root)
    turn = turn[:, ::-1]
    return (vectors * inverse) @ turn, root @ turn


def _mixed(matrix: Array, mixing: Array, *, axis: int) -> Array:
    """Combinations of the states of a bond in their place, then those of main effects."""
    moved, old = np.moveaxis(matrix, axis, -1), len(mixing)
    return np.moveaxis(np.concatenate([moved[..., :old] @ mixing, moved[..., old:]], -1), -1, axis)


def _filled_states(matrix: Array, old: int, size: int, rng: np.random.Generator, *, axis: int) -> Array:
    """The states of a bond, then new ones, then those of main effects."""
    moved = np.moveaxis(matrix, axis, -1)
    new = _SMALL * rng.standard_normal((*moved.shape[:-1], size - old))
    return np.moveaxis(np.concatenate([moved[..., :old], new, moved[..., old:]], -1), -1, axis)
