"""Surfaces and fields for ``fields_auto.py``: none was made by a kernel or a Laplacian of this package.

``DEVELOPMENT`` has the sets by which the first rule of ``kernel="auto"`` was chosen; ``SECOND`` those that were made
after that, and showed a weakness (fields with a jump) that was then mended. Later ones are in ``_field_sets_later.py``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models" / "rvgp"))

import truth

from gpkit.geometry import furthest_point_sample

Rng = np.random.Generator
Surface = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A field and how it is observed.

    Attributes:
        make: Points and true vectors from (n, rng).
        share: Of the points observed.
        noise: Standard deviation of the errors.
        n: Number of points, where a set has its own.
        clusters: Centres around which observed places lie; with none they are anywhere.
        errors: "even", "uneven" (standard deviations that differ from place to place) or "heavy" (Student-t with three
            degrees of freedom).
        splits: How many are taken, where a set has its own number: few noisy places say little about kernels, and
            what a few splits say about a rule is chance.
    """

    make: Callable[[int, Rng], Surface]
    share: float
    noise: float
    n: int | None = None
    clusters: int = 0
    errors: str = "even"
    splits: int | None = None

    def observed(self, points: np.ndarray, coordinates: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        """Noisy coordinates of all places, and the places in an order of which the first are observed."""
        white = rng.standard_normal(coordinates.shape)
        order = rng.permutation(len(points))
        if self.errors == "uneven":
            white *= np.exp(0.7 * rng.standard_normal((len(points), 1)))
        elif self.errors == "heavy":
            white /= np.sqrt(rng.chisquare(3.0, (len(points), 1)))
        if self.clusters:
            away = np.linalg.norm(points[order, None] - points[order[: self.clusters]], axis=2).min(1)
            order = order[np.argsort(away + np.quantile(away, 0.25) * rng.exponential(1.0, len(points)))]
        return coordinates + self.noise * white, order


def spread(points: np.ndarray, n: int) -> np.ndarray:
    return points[furthest_point_sample(points, count=n, start=0)]


def sphere(n: int, rng: Rng) -> np.ndarray:
    x = rng.standard_normal((6 * n, 3))
    return spread(x / np.linalg.norm(x, axis=1, keepdims=True), n)


def torus(n: int, rng: Rng, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of a torus around a circle of radius 1."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, (2, 8 * n))
    normal = np.stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)], axis=1)
    points = np.stack([np.cos(u), np.sin(u), np.zeros_like(u)], axis=1) + radius * normal
    chosen = furthest_point_sample(points, count=n, start=0)
    return points[chosen], normal[chosen]


def tangent(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    return truth.unit(vectors - normals * (vectors * normals).sum(1, keepdims=True))


def graph_of(plan: np.ndarray, height: np.ndarray, slope: np.ndarray, flow: np.ndarray) -> Surface:
    """A flow of the plane carried up to a surface above it."""
    lifted = np.concatenate([flow, (slope * flow).sum(1, keepdims=True)], axis=1)
    return np.concatenate([plan, height[:, None]], axis=1), truth.unit(lifted)


def smooth_sphere(n: int, rng: Rng) -> Surface:
    x = sphere(n, rng)
    return x, truth.potential_flow(x, x, rng)


def still_sphere(n: int, rng: Rng) -> Surface:
    """A turn about one axis and a pull along another: as smooth as fields on a sphere can be."""
    x = sphere(n, rng)
    axis, pull = rng.standard_normal((2, 3))
    return x, tangent(np.cross(axis, x) + 0.5 * pull, x)


def rough_sphere(n: int, rng: Rng) -> Surface:
    """Ambient coordinates whose wave numbers have heavy tails: differentiable once, at most."""
    x = sphere(n, rng)
    waves = rng.standard_normal((400, 3)) / np.sqrt(rng.gamma(1.5, 1.0 / 1.5, 400))[:, None] / 0.5
    phase, weight = rng.uniform(0.0, 2.0 * math.pi, 400), rng.standard_normal((400, 3))
    return x, tangent(np.cos(x @ waves.T + phase) @ weight, x)


def broken_sphere(n: int, rng: Rng) -> Surface:
    """Two turns that meet without continuity at a tilted circle."""
    x = sphere(n, rng)
    first, second, cut = rng.standard_normal((3, 3))
    side = x @ cut > 0.2 * np.linalg.norm(cut)
    return x, tangent(np.where(side[:, None], np.cross(first, x), np.cross(second, x)), x)


def ellipsoid(n: int, rng: Rng) -> Surface:
    """Strongly curved at its ends, and thinner than the field is smooth."""
    axes = np.array([1.0, 0.45, 0.2])
    x = spread(sphere(2 * n, rng) * axes, n)
    normals = x / axes**2
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return x, truth.potential_flow(x, normals, rng, 0.5)


def thin_torus(n: int, rng: Rng) -> Surface:
    x, normals = torus(n, rng, 0.15)
    return x, truth.potential_flow(x, normals, rng, 0.5)


def fat_torus(n: int, rng: Rng) -> Surface:
    x, normals = torus(n, rng, 0.4)
    return x, truth.potential_flow(x, normals, rng)


def waves(n: int, rng: Rng) -> Surface:
    """A corrugated sheet with a flow of the flat plan, carried up to the sheet."""
    plan = spread(rng.uniform(0.0, 2.0, (8 * n, 2)), n)
    height, k = 0.2, 5.0
    z = height * np.sin(k * plan[:, 0]) * np.sin(k * plan[:, 1])
    slope = (
        height
        * k
        * np.stack(
            [np.cos(k * plan[:, 0]) * np.sin(k * plan[:, 1]), np.sin(k * plan[:, 0]) * np.cos(k * plan[:, 1])], axis=1
        )
    )
    omega = rng.standard_normal((100, 2)) / 0.5
    flow = np.cos(plan @ omega.T + rng.uniform(0.0, 2.0 * math.pi, 100)) @ rng.standard_normal((100, 2))
    lifted = np.concatenate([flow, (slope * flow).sum(1, keepdims=True)], axis=1)
    return np.concatenate([plan, z[:, None]], axis=1), truth.unit(lifted)


def moebius(n: int, rng: Rng) -> Surface:
    """A one-sided strip with a flow along it and across it."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-0.4, 0.4, 8 * n)
    half = 0.5 * u
    x = np.stack([(1 + v * np.cos(half)) * np.cos(u), (1 + v * np.cos(half)) * np.sin(u), v * np.sin(half)], axis=1)
    across = np.stack([np.cos(half) * np.cos(u), np.cos(half) * np.sin(u), np.sin(half)], axis=1)
    along = np.stack([-x[:, 1], x[:, 0], np.zeros_like(u)], axis=1)
    along += 0.5 * v[:, None] * np.stack([-np.sin(half) * np.cos(u), -np.sin(half) * np.sin(u), np.cos(half)], axis=1)
    a, b = rng.uniform(0.0, 2.0 * math.pi, 2)
    field = (1.0 + 0.7 * np.cos(2.0 * u + a))[:, None] * along + np.sin(1.5 * u + b)[:, None] * across
    chosen = furthest_point_sample(x, count=n, start=0)
    return x[chosen], truth.unit(field[chosen])


def sheet(make: Callable[..., truth.Set]) -> Callable[[int, Rng], Surface]:
    def points_and_vectors(n: int, rng: Rng) -> Surface:
        found = make(n, rng)
        return found.points, found.vectors

    return points_and_vectors


DEVELOPMENT = {
    "smooth": Case(smooth_sphere, 0.25, 0.1),
    "smooth, few data": Case(smooth_sphere, 0.05, 0.05),
    "smooth, noisy": Case(smooth_sphere, 0.4, 0.5),
    "still": Case(still_sphere, 0.25, 0.1),
    "harmonics": Case(sheet(truth.harmonic_set), 0.3, 0.0),
    "rough": Case(rough_sphere, 0.3, 0.0),
    "broken": Case(broken_sphere, 0.3, 0.05),
    "ellipsoid": Case(ellipsoid, 0.25, 0.0),
    "thin torus": Case(thin_torus, 0.3, 0.1),
    "fat torus": Case(fat_torus, 0.3, 0.0),
    "waves": Case(waves, 0.3, 0.1),
    "moebius": Case(moebius, 0.2, 0.1),
    "swiss roll": Case(sheet(truth.swiss_roll), 0.35, 0.1),
    "hairpin": Case(sheet(truth.hairpin), 0.3, 0.0),
    "hairpin, few data": Case(sheet(truth.hairpin), 0.1, 0.1),
}


# -- made after the first rule -----------------------------------------------------------------------------------------


def projected(vectors: np.ndarray, *directions: np.ndarray) -> np.ndarray:
    """Parts of vectors (n, D) along the plane of two independent directions (n, D) each."""
    first = directions[0] / np.linalg.norm(directions[0], axis=1, keepdims=True)
    second = directions[1] - first * (first * directions[1]).sum(1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return truth.unit(
        first * (first * vectors).sum(1, keepdims=True) + second * (second * vectors).sum(1, keepdims=True)
    )


def klein(n: int, rng: Rng) -> Surface:
    """A Klein bottle in four dimensions, with the tangent part of a quadratic field of space."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, (2, 8 * n))
    ring, half = 1.0 + 0.4 * np.cos(v), 0.5 * u
    x = np.stack(
        [ring * np.cos(u), ring * np.sin(u), 0.4 * np.sin(v) * np.cos(half), 0.4 * np.sin(v) * np.sin(half)], axis=1
    )
    chosen = furthest_point_sample(x, count=n, start=0)
    x, u, v, ring, half = x[chosen], u[chosen], v[chosen], ring[chosen], half[chosen]
    zero = np.zeros(n)
    along = np.stack([-ring * np.sin(u), ring * np.cos(u), zero, zero], axis=1)
    along[:, 2:] += 0.2 * np.sin(v)[:, None] * np.stack([-np.sin(half), np.cos(half)], axis=1)
    across = 0.4 * np.stack(
        [-np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v) * np.cos(half), np.cos(v) * np.sin(half)], axis=1
    )
    linear, squares = rng.standard_normal((2, 4, 4))
    return x, projected(x @ linear + x**2 @ squares, along, across)


def ribbon(n: int, rng: Rng) -> Surface:
    """A helical ribbon: two turns above each other, with eddies that drift along it and a jump half way."""
    u, v = rng.uniform(0.0, 4.0 * math.pi, 8 * n), rng.uniform(0.4, 1.0, 8 * n)
    x = np.stack([v * np.cos(u), v * np.sin(u), 0.06 * u], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, u, v = x[chosen], u[chosen], v[chosen]
    along = np.stack([-v * np.sin(u), v * np.cos(u), np.full(n, 0.06)], axis=1)
    across = np.stack([np.cos(u), np.sin(u), np.zeros(n)], axis=1)
    phase = rng.uniform(0.0, 2.0 * math.pi, 2)
    jump = np.where(u > 2.0 * math.pi, -1.0, 1.0)[:, None]
    speed = jump * (1.0 + 0.5 * np.sin(1.3 * u + phase[0])[:, None])
    return x, truth.unit(speed * along + np.cos(3.0 * u + phase[1])[:, None] * across)


def two_spheres(n: int, rng: Rng) -> Surface:
    """Two spheres apart from each other, with flows that have nothing to do with each other."""
    parts = []
    for centre, radius, count in ((0.0, 1.0, n - n // 3), (2.2, 0.6, n // 3)):
        x = sphere(count, rng)
        spin, pull = rng.standard_normal((2, 3))
        wave = np.sin(3.0 * x @ rng.standard_normal(3))[:, None]
        parts.append((radius * x + centre * np.eye(3)[0], tangent(np.cross(spin, x) + wave * pull, x)))
    return np.concatenate([p for p, _ in parts]), np.concatenate([f for _, f in parts])


def vortices(n: int, rng: Rng) -> Surface:
    """Eight vortices and sources on the sphere with cores as small as a tenth of its radius."""
    x, field = sphere(n, rng), np.zeros((n, 3))
    for k, centre in enumerate(sphere(8, rng)):
        core = rng.uniform(0.1, 0.4)
        strength = rng.standard_normal() / (1.0 - x @ centre + core**2)
        field += strength[:, None] * (np.cross(centre, x) if k % 2 else centre - x * (x @ centre)[:, None])
    return x, tangent(field, x)


def shock(n: int, rng: Rng) -> Surface:
    """A torus on which two smooth flows meet at a winding curve."""
    x, normals = torus(n, rng, 0.35)
    u, v = np.arctan2(x[:, 1], x[:, 0]), np.arctan2(x[:, 2], np.hypot(x[:, 0], x[:, 1]) - 1.0)
    first, second = (truth.potential_flow(x, normals, rng, 0.8) for _ in range(2))
    return x, truth.unit(np.where(np.sin(2.0 * u + v + rng.uniform(0.0, 6.0))[:, None] > 0.0, first, second))


def jet(n: int, rng: Rng) -> Surface:
    """An open tube with a thin jet around it, and a swirl."""
    u, z = rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-1.5, 1.5, 8 * n)
    x = np.stack([0.5 * np.cos(u), 0.5 * np.sin(u), z], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, u, z = x[chosen], u[chosen], z[chosen]
    around = np.stack([-np.sin(u), np.cos(u), np.zeros(n)], axis=1)
    middle = 0.4 * np.sin(u + rng.uniform(0.0, 6.0))
    speed = 0.3 + np.exp(-0.5 * ((z - middle) / 0.15) ** 2)
    return x, truth.unit(speed[:, None] * around + 0.3 * np.cos(2.0 * u + z)[:, None] * np.eye(3)[2])


def hills(n: int, rng: Rng) -> Surface:
    """Water that runs down hills: minus the gradient of the height of a landscape."""
    plan = spread(rng.uniform(0.0, 3.0, (8 * n, 2)), n)
    slope = np.zeros((n, 2))
    height = np.zeros(n)
    for _ in range(6):
        centre, width, top = rng.uniform(0.0, 3.0, 2), rng.uniform(0.3, 0.7), rng.uniform(-0.5, 0.5)
        bump = top * np.exp(-0.5 * np.square((plan - centre) / width).sum(1))
        height += bump
        slope -= bump[:, None] * (plan - centre) / width**2
    down = -np.concatenate([slope, np.square(slope).sum(1, keepdims=True)], axis=1)
    return np.concatenate([plan, height[:, None]], axis=1), truth.unit(down)


def ripples(n: int, rng: Rng) -> Surface:
    """A flat sheet with short plane waves in one direction and long ones in another."""
    plan = spread(rng.uniform(0.0, 2.0, (8 * n, 2)), n)
    turn = rng.uniform(0.0, math.pi)
    short, long = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    flow = np.cos(9.0 * plan @ short)[:, None] * long + 1.5 * np.sin(2.0 * plan @ long + 1.0)[:, None] * short
    return np.concatenate([plan, np.zeros((n, 1))], axis=1), truth.unit(
        np.concatenate([flow, np.zeros((n, 1))], axis=1)
    )


SECOND = {
    "klein bottle": Case(klein, 0.3, 0.05),
    "helical ribbon": Case(ribbon, 0.3, 0.0),
    "two spheres": Case(two_spheres, 0.3, 0.05),
    "vortices": Case(vortices, 0.3, 0.0),
    "shock": Case(shock, 0.3, 0.3),
    "jet": Case(jet, 0.3, 0.05),
    "hills": Case(hills, 0.3, 0.3),
    "ripples": Case(ripples, 0.3, 0.0),
    "loose roll": Case(sheet(lambda n, rng: truth.swiss_roll(n, rng, 0.6, 1.5, 0.6)), 0.3, 0.05),
    "tiny": Case(ellipsoid, 0.5, 0.05, 30, splits=24),
    "dense": Case(fat_torus, 0.2, 0.1, 1500),
}
