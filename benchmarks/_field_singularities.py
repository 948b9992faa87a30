"""Singular points that field models list, beside the true ones: the third table of ``fields_auto.py``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from _field_surfaces import DENSE_WIND, surface
from scipy.spatial import cKDTree

from gpkit.models import VectorFieldGP
from gpkit.models.fields.singularities import triangle_indices

__all__ = ["table"]


def listed(name: str, noise: float, share: float, seed: int) -> dict | None:
    """Singular points that one split lists, and the true ones; nothing where a coarse cloud has no orientation."""
    rng = np.random.default_rng([seed, 37])
    found = surface(name, rng, 600 if name == "torus" else 300)  # fewer do not resolve its tube
    if found is None:
        return None
    manifold, nodes, vectors, _ = found
    if not manifold.orientable:
        return {}
    coordinates = manifold.to_tangent(vectors)[0]
    observed = manifold.to_ambient(coordinates + noise * math.sqrt(0.5) * rng.standard_normal(coordinates.shape))
    train = rng.permutation(nodes)[: round(share * len(nodes))]
    model = VectorFieldGP(manifold)
    model.fit(train, observed[train], seed=seed, progress=False)
    points = model.singularities(draws=200)
    true = triangle_indices(manifold, points.triangles, coordinates)
    spots = np.flatnonzero(true)
    places, signs = points.centres[spots], np.sign(true[spots])

    def near(place: np.ndarray, sign: int, among: np.ndarray, theirs: np.ndarray) -> bool:
        return bool((np.linalg.norm(among[theirs == sign] - place, axis=1) <= points.radius).any())

    at = np.array([s.location for s in points.found]).reshape(-1, 3)
    own = np.array([np.sign(s.index) for s in points.found])
    spacing = float(np.median(cKDTree(manifold.points[train]).query(manifold.points[train], 2)[0][:, 1]))
    true_points, listed_points = list(zip(places, signs, strict=True)), list(zip(at, own, strict=True))
    apart = [bool((np.linalg.norm(places[signs != s] - p, axis=1) > spacing).all()) for p, s in true_points]
    return {
        "probability": [s.probability for s in points.found],
        "in mean": [s.in_mean for s in points.found],
        "right": [near(p, s, places, signs) for p, s in listed_points],
        "recalled": [near(p, s, at, own) for p, s in true_points],
        "apart": apart,
    }


def table(names: list[str], seeds: list[int], kept: Callable[[str, Callable[[], Any]], Any]) -> None:
    """Whether probabilities of singular points can be believed: their sum beside the number that are there.

    A listed point is right where the truth has one of its sign within the radius, three median sides of triangles. Two
    of opposite index that are closer to each other than the observed places cannot be told from none: recall is also
    given for the others. The Brier score is beside that of a constant, the share of those that are right.
    """
    print(
        "| set, noise, share | splits | true | recall | of those apart by a data spacing | listed "
        "| sum of probabilities | right | of the mean: listed | sum | right | Brier score | of a constant |"
    )
    print("|---|" + "---:|" * 12)
    for name in names:
        shares = {"wind": 0.1, DENSE_WIND: 0.3, "bunny": 0.4}
        for share in (shares[name],) if name in shares else (0.15, 0.4):
            noise = 0.0 if "wind" in name else 0.1
            make = functools.partial(listed, name, noise, share)
            made = [kept(f"singular {name} {share} {s}", functools.partial(make, s)) for s in seeds]
            runs = [run for run in made if run]
            if not runs:
                print(f"| {name}, {share:g} | absent, or not finished |")
                continue
            p, mean, right = (np.concatenate([run[k] for run in runs]) for k in ("probability", "in mean", "right"))
            hit, apart = (np.concatenate([run[k] for run in runs]).astype(bool) for k in ("recalled", "apart"))
            mean, right, each = mean.astype(bool), right.astype(float), 1.0 / len(runs)
            print(
                f"| {name}, {noise:g}, {share:g} | {len(runs)} | {each * len(hit):.1f} | {hit.mean():.2f} "
                f"| {hit[apart].mean():.2f} | {each * len(p):.1f} | {each * p.sum():.1f} | {each * right.sum():.1f} "
                f"| {each * mean.sum():.1f} | {each * p[mean].sum():.1f} | {each * right[mean].sum():.1f} "
                f"| {np.square(p - right).mean():.3f} | {right.var():.3f} |",
                flush=True,
            )
