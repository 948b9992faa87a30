"""Where restarts begin: at random, after main effects, at components, or grown from one function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gpkit.inference.structured_vb import (
    Entries,
    GaussianNoise,
    LowRankPosterior,
    Minibatches,
    Pieces,
    SiteObservation,
    begin_resized,
    begin_with_components,
    living_functions,
)
from gpkit.likelihoods import Poisson
from gpkit.models.functional_tensor.modes import Encoding
from gpkit.models.functional_tensor.settings import LowRankSettings, new_posterior

__all__ = ["first_start", "revived"]

_WARM = 15  # sweeps with components before a tensor train, before functions are looked at, or to compare starts
_EFFECTS = 6  # sweeps with main effects before components
_COMPARED = 8  # sweeps before two starts of components are compared, and with every new function
_PILOT = 4  # sweeps after which a start may have died
_LIVES = 4  # starts of which all must die
_NOTHING = 0.999  # of the squares left: nothing is explained
_FAR = 7919  # between seeds
_SPARE = 2  # components more than a bond has states
_TRIES = 3  # for every new state of the bonds of a train
_NARROWER = {"student-t": "gaussian", "negative-binomial": "poisson"}
_MISSES = 2  # new functions in a row that do not live
_MOVED = 3  # sweeps that count as made where other noise goes on: its sites follow from the posterior


def first_start(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> tuple[LowRankPosterior, list[float]]:
    """The posterior from which the sweeps of a restart go on, and the bounds of those that are made.

    Args:
        posterior: at its random start.
        encodings: of the modes.
        settings: of the model.
        entries: that the restart may see; those in pieces begin with stochastic steps, if the settings have epochs.
        seed: of whatever is random.
    """
    train = settings.form == "tensor-train" and len(encodings) > 1
    effects = settings.form == "cp" and settings.main_effects and len(encodings) > 1
    if isinstance(entries, Pieces) and settings.epochs:
        batches = Minibatches(entries, entries.rows, seed=seed)
        steps = settings.epochs * batches.steps
        if train:
            posterior = _components_start(posterior, encodings, settings, batches, steps, seed)
        if effects:
            first = _effects_alone(posterior, encodings, settings, batches, batches.steps, seed)
            begin_resized(posterior, first, entries, np.random.default_rng(seed))
        if train or effects:
            batches = Minibatches(entries, entries.rows, seed=seed)
        batches.begin(posterior)
        for _ in range(steps):
            posterior.sweep(batches)
        return posterior, []
    if train:
        return _train_start(posterior, encodings, settings, entries, seed)
    starts = [_usual_start(posterior, encodings, settings, entries, seed, effects)]
    starts += [(own, []) for own in _wider(posterior, encodings, settings, entries, seed)]
    return _best_start(starts, settings, entries, _WARM)


def revived(
    posterior: LowRankPosterior,
    before: list[float],
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    seed: int,
    after: Callable[[list[float]], None] | None = None,
) -> tuple[LowRankPosterior, list[float]]:
    """A start after its first sweeps, or what has grown from it where functions of every mode died; its bounds.

    Precisions switch off all functions at once that do not help soon, and the bound has no way back from there. One at
    a time they are taken up, as long as the bound rises.

    Args:
        posterior: of a core, from :func:`first_start`.
        before: bounds of its sweeps.
        encodings: of the modes.
        settings: of the model.
        entries: that the restart may see.
        seed: of new functions.
        after: called with all bounds after each sweep before that.
    """
    if settings.form == "tensor-train" or len(encodings) == 1:  # functions of one mode add up to one
        return posterior, before
    most = min(_WARM, settings.sweeps)
    bounds = posterior.fit(entries, sweeps=most, tolerance=settings.tolerance, before=before, after=after).elbo.tolist()
    rng, shares = np.random.default_rng(seed), entries.shares()
    first = living_functions(posterior, shares)
    grown, bound, living, missed = posterior, bounds[-1], first, 0
    while missed < _MISSES and all(own < limit for own, limit in zip(living, settings.ranks, strict=True)):
        larger = _resized(grown, tuple(count + 1 for count in living), encodings, settings, entries, rng)
        reached = float(larger.fit(entries, sweeps=_COMPARED, tolerance=0.0).elbo[-1])
        if reached <= bound:
            break
        found = living_functions(larger, shares)
        missed = 0 if sum(found) > sum(living) else missed + 1
        grown, bound, living = larger, reached, found
    if sum(living) <= sum(first):
        return posterior, bounds
    whole = _resized(grown, settings.ranks, encodings, settings, entries, rng)
    return _best_start([(posterior, bounds), (whole, [])], settings, entries, _WARM)


def _resized(
    posterior: LowRankPosterior,
    ranks: tuple[int, ...],
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    rng: np.random.Generator,
) -> LowRankPosterior:
    out = new_posterior(encodings, replace(settings, ranks=ranks), copy.deepcopy(posterior.observation), 0)
    begin_resized(out, posterior, entries, rng)
    return out


def _train_start(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> tuple[LowRankPosterior, list[float]]:
    """At components or grown, with wide noise also where a train with narrow noise has come to."""
    starts = _wider(posterior, encodings, settings, entries, seed)
    starts.append(_components_start(posterior, encodings, settings, entries, _WARM, seed))
    starts.append(_grown_train(posterior, encodings, settings, entries, seed))
    return _best_start([(own, []) for own in starts], settings, entries, _WARM)


def _wider(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> list[LowRankPosterior]:
    """Where the same model with noise that cannot take up everything has come to, for noise that can; else nothing.

    With smooth functions, as fits begin, heavy-tailed noise and overdispersion explain whatever varies fast or is left
    to be found, and nothing asks for it any more.
    """
    if settings.likelihood not in _NARROWER:
        return []
    own = replace(settings, likelihood=_NARROWER[settings.likelihood])
    observation = GaussianNoise() if own.likelihood == "gaussian" else SiteObservation(Poisson())
    narrow = new_posterior(encodings, own, observation, seed)
    narrow.inherit(posterior)
    first = first_start(narrow, encodings, own, entries, seed)
    moved, _ = revived(*first, encodings, own, entries, seed)
    moved.observation, moved.sweeps = copy.deepcopy(posterior.observation), _MOVED
    return [moved]


def _usual_start(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    seed: int,
    effects: bool,
) -> tuple[LowRankPosterior, list[float]]:
    """At random, or for components also after main effects."""
    starts = [_living_start(posterior, encodings, settings, entries, seed)]
    if effects:
        starts.append(_living_start(posterior, encodings, settings, entries, seed, after_effects=True))
    return _best_start(starts, settings, entries, _COMPARED)


def _components_start(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    sweeps: int,
    seed: int,
) -> LowRankPosterior:
    """A train at the strongest components of a CP model after some sweeps."""
    rank = max(settings.ranks) + _SPARE
    own = replace(settings, form="cp", ranks=(rank,) * len(encodings), main_effects=False)
    components = new_posterior(encodings, own, copy.deepcopy(posterior.observation), seed)
    entries.begin(components)
    for _ in range(sweeps):
        components.sweep(entries)
    train = copy.deepcopy(posterior)
    begin_with_components(train, components, np.random.default_rng(seed))
    return train


def _effects_alone(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    sweeps: int,
    seed: int,
) -> LowRankPosterior:
    """The intercept and main effects of a CP model, before there are other components.

    All at once these take up what main effects explain better a little later, and die.
    """
    own = replace(settings, ranks=(0,) * len(encodings))
    effects = new_posterior(encodings, own, copy.deepcopy(posterior.observation), seed)
    effects.inherit(posterior)
    entries.begin(effects)
    for _ in range(sweeps):
        effects.sweep(entries)
    return effects


def _living_start(
    posterior: LowRankPosterior,
    encodings: Sequence[Encoding],
    settings: LowRankSettings,
    entries: Entries,
    seed: int,
    *,
    after_effects: bool = False,
) -> tuple[LowRankPosterior, list[float]]:
    """The first sweeps of a start, or of others where all of its functions die at once; their bounds.

    Random products may begin with the wrong sign everywhere. Precisions then switch them off before they turn.
    """
    sweeps = min(_PILOT, settings.sweeps)
    observation = copy.deepcopy(posterior.observation)
    first = _effects_alone(posterior, encodings, settings, entries, _EFFECTS, seed) if after_effects else None
    nothing = entries.squares if first is None else first.squared_error
    found: tuple[LowRankPosterior, list[float]] | None = None
    for again in range(_LIVES):
        own = seed + again * _FAR
        trial = posterior
        if again or first is not None:
            trial = new_posterior(encodings, settings, copy.deepcopy(observation), own)
        if first is not None:
            begin_resized(trial, first, entries, np.random.default_rng(own))
        bounds = trial.fit(entries, sweeps=sweeps, tolerance=0.0).elbo.tolist()
        if found is None or bounds[-1] > found[1][-1]:
            found = trial, bounds
        if trial.squared_error < _NOTHING * nothing:
            break
    assert found is not None
    return found


def _grown_train(
    posterior: LowRankPosterior, encodings: Sequence[Encoding], settings: LowRankSettings, entries: Entries, seed: int
) -> LowRankPosterior:
    """From one state of each bond upwards, the best of some tries at each: matrices that begin at random often die."""
    grown: LowRankPosterior | None = None
    for rank in range(1, max(settings.ranks) + 1):
        own = replace(settings, ranks=tuple(min(rank, most) for most in settings.ranks))
        tries: list[tuple[LowRankPosterior, list[float]]] = []
        for again in range(_TRIES):
            trial = new_posterior(encodings, own, copy.deepcopy(posterior.observation), seed + again * _FAR)
            if grown is not None:
                begin_resized(trial, grown, entries, np.random.default_rng(seed + again * _FAR))
            tries.append((trial, []))
        grown, _ = _best_start(tries, settings, entries, _PILOT)
    assert grown is not None
    return grown


def _best_start(
    starts: Sequence[tuple[LowRankPosterior, list[float]]], settings: LowRankSettings, entries: Entries, sweeps: int
) -> tuple[LowRankPosterior, list[float]]:
    """The start with the largest bound after some sweeps, those before included; its bounds."""
    if len(starts) == 1:
        return starts[0]
    most = min(sweeps, settings.sweeps)
    traces = [own.fit(entries, sweeps=most, tolerance=0.0, before=before).elbo.tolist() for own, before in starts]
    best = int(np.argmax([trace[-1] for trace in traces]))
    return starts[best][0], traces[best]
