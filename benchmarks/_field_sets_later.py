"""More surfaces and fields for ``fields_auto.py``, by all of which the present rule of ``kernel="auto"`` was chosen.

``THIRD`` has those that showed a weakness of the second rule (few noisy places), ``FEW`` more of that kind, and
``FOURTH`` those that were made after that. Sets that were made after the last change are in
``_field_sets_held_out.py``.
"""

from __future__ import annotations

import math

import numpy as np
from _field_sets import (
    DEVELOPMENT,
    SECOND,
    Case,
    Rng,
    Surface,
    ellipsoid,
    fat_torus,
    graph_of,
    moebius,
    projected,
    rough_sphere,
    smooth_sphere,
    sphere,
    spread,
    still_sphere,
    tangent,
    torus,
    waves,
)
from truth import unit

from gpkit.geometry import furthest_point_sample

__all__ = ["SETS"]


def saddle(n: int, rng: Rng) -> Surface:
    """A spiral that runs into the middle of a saddle."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    middle = rng.uniform(-0.3, 0.3, 2)
    away = plan - middle
    flow = np.stack([-away[:, 1], away[:, 0]], axis=1) - 0.4 * away
    flow /= (0.05 + np.square(away).sum(1, keepdims=True)) ** 0.5
    return graph_of(plan, plan[:, 0] ** 2 - plan[:, 1] ** 2, 2.0 * plan * np.array([1.0, -1.0]), flow)


def ridge(n: int, rng: Rng) -> Surface:
    """A wind that is shadowed behind a ridge: a smooth flow with a kink in its slope."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    turn = rng.uniform(0.0, math.pi)
    along = plan @ np.array([math.cos(turn), math.sin(turn)])
    height = 0.3 * np.exp(-0.5 * (along / 0.3) ** 2)
    slope = (-along / 0.09 * height)[:, None] * np.array([math.cos(turn), math.sin(turn)])
    speed = 1.0 - np.clip(along, 0.0, 0.6)
    flow = speed[:, None] * np.array([math.cos(turn), math.sin(turn)]) + 0.4 * np.sin(2.0 * plan[:, ::-1])
    return graph_of(plan, height, slope, flow)


def knot(n: int, rng: Rng) -> Surface:
    """A tube around a trefoil knot, with a flow that winds along it and changes its mind."""
    u, v = rng.uniform(0.0, 2.0 * math.pi, (2, 8 * n))

    def centre(t: np.ndarray) -> np.ndarray:
        return np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=1)

    def frame(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = centre(t + 1e-4) - centre(t - 1e-4)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(first, np.array([0.2, 0.3, 1.0]))
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        return first, second, np.cross(first, second)

    _, a, b = frame(u)
    x = centre(u) + 0.5 * (np.cos(v)[:, None] * a + np.sin(v)[:, None] * b)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, u, v = x[chosen], u[chosen], v[chosen]
    along, a, b = frame(u)
    normal = np.cos(v)[:, None] * a + np.sin(v)[:, None] * b
    around = np.cross(along, normal)
    phase = rng.uniform(0.0, 2.0 * math.pi, 2)
    flow = np.cos(u + phase[0])[:, None] * along + np.sin(2.0 * u + phase[1])[:, None] * around
    return x, tangent(flow, normal)


def sectors(n: int, rng: Rng) -> Surface:
    """The sphere cut into three sectors, each with a turn of its own."""
    x = sphere(n, rng)
    axes, centres = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    return x, tangent(np.cross(axes[np.argmax(x @ centres.T, axis=1)], x), x)


def pages(n: int, rng: Rng) -> Surface:
    """Two sheets that lie close above each other without touching, with different flows."""
    parts = []
    for level, count in ((0.0, n // 2), (0.35, n - n // 2)):
        plan = spread(rng.uniform(-1.0, 1.0, (8 * count, 2)), count)
        waves, phase = rng.standard_normal((30, 2)) * 2.0, rng.uniform(0.0, 2.0 * math.pi, 30)
        flow = np.cos(plan @ waves.T + phase) @ rng.standard_normal((30, 2))
        parts.append(graph_of(plan, np.full(count, level), np.zeros((count, 2)), flow))
    return np.concatenate([x for x, _ in parts]), np.concatenate([f for _, f in parts])


THIRD = {
    "saddle": Case(saddle, 0.25, 0.05),
    "ridge": Case(ridge, 0.25, 0.0),
    "knot": Case(knot, 0.4, 0.05),
    "sectors": Case(sectors, 0.3, 0.1, splits=13),
    "pages": Case(pages, 0.3, 0.05),
    "still, thirty places": Case(still_sphere, 0.5, 0.3, 60, splits=24),
    "rough, dense": Case(rough_sphere, 0.3, 0.1, 1000),
}

FEW = {
    "few, smooth": Case(smooth_sphere, 0.5, 0.3, 60, splits=24),
    "few, rough": Case(rough_sphere, 0.5, 0.3, 60, splits=24),
    "few, fat torus": Case(fat_torus, 0.5, 0.3, 60, splits=24),
    "few, ellipsoid": Case(ellipsoid, 0.5, 0.3, 60, splits=24),
    "few, waves": Case(waves, 0.5, 0.3, 60, splits=24),
    "few, moebius": Case(moebius, 0.5, 0.3, 60, splits=24),
    "few, still": Case(still_sphere, 0.4, 0.3, 50, splits=24),
}


# -- made after the third rule ---------------------------------------------------------------------------


def pear(n: int, rng: Rng) -> Surface:
    """A body of revolution with a waist, and the tangent part of the field of three magnets inside it."""
    z, turn = rng.uniform(-1.0, 1.0, 8 * n), rng.uniform(0.0, 2.0 * math.pi, 8 * n)
    radius = np.sqrt(1.0 - z**2) * (0.6 + 0.35 * np.cos(2.5 * z))
    chosen = furthest_point_sample(
        np.stack([radius * np.cos(turn), radius * np.sin(turn), 1.3 * z], axis=1), count=n, start=0
    )
    z, turn, step = z[chosen], turn[chosen], 1e-5

    def at(z: np.ndarray, turn: np.ndarray) -> np.ndarray:
        r = np.sqrt(np.maximum(1.0 - z**2, 0.0)) * (0.6 + 0.35 * np.cos(2.5 * z))
        return np.stack([r * np.cos(turn), r * np.sin(turn), 1.3 * z], axis=1)

    x = at(z, turn)
    inner = np.clip(z, -1.0 + 2.0 * step, 1.0 - 2.0 * step)
    along = at(inner + step, turn) - at(inner - step, turn)
    around = np.stack([-np.sin(turn), np.cos(turn), np.zeros(n)], axis=1)
    field = np.zeros((n, 3))
    for _ in range(3):
        moment, away = rng.standard_normal(3), x - rng.uniform(-0.3, 0.3, 3)
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        field += (3.0 * away * (away @ moment)[:, None] / distance**2 - moment) / distance**3
    return x, projected(field, along, around)


def dish(n: int, rng: Rng) -> Surface:
    """Two gyres of opposite turn that fill a shallow dish, with a boundary between them off its middle."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    shift, drift = rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.5)
    u, v = plan[:, 0] + shift * (1.0 - plan[:, 0] ** 2), 0.5 * math.pi * (plan[:, 1] + 1.0)
    slope = 1.0 - 2.0 * shift * plan[:, 0]
    flow = np.stack(
        [0.5 * math.pi * np.sin(math.pi * u) * np.cos(v), -math.pi * slope * np.cos(math.pi * u) * np.sin(v)], axis=1
    )
    return graph_of(plan, drift * np.square(plan).sum(1), 2.0 * drift * plan, flow)


def front(n: int, rng: Rng) -> Surface:
    """Two winds on an egg that turn into each other within a twentieth of its length."""
    axes = np.array([1.0, 0.8, 0.7])
    x = spread(sphere(2 * n, rng) * axes, n)
    normals = x / axes**2
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    first, second, across = rng.standard_normal((3, 3))
    side = np.tanh((x @ across / np.linalg.norm(across) + 0.15 * np.sin(4.0 * x[:, 2])) / 0.05)[:, None]
    return x, tangent(np.cross(first, x) * (1.0 + side) + (second + np.cross(across, x)) * (1.0 - side), normals)


def patchy(n: int, rng: Rng) -> Surface:
    """A bent sheet that is calm at one end and turbulent at the other."""
    plan = spread(rng.uniform(0.0, 2.0, (8 * n, 2)), n)
    flow = np.stack([np.ones(n), 0.3 * np.sin(2.0 * plan[:, 0])], axis=1)
    amplitude = 1.2 / (1.0 + np.exp(-6.0 * (plan[:, 0] - 1.2)))
    for _ in range(40):
        wave, phase = 8.0 * rng.standard_normal(2), rng.uniform(0.0, 2.0 * math.pi)
        flow += (amplitude * np.cos(plan @ wave + phase))[:, None] * np.array([-wave[1], wave[0]]) / 40.0
    height = 0.4 * np.sin(1.5 * plan[:, 1])
    slope = np.stack([np.zeros(n), 0.6 * np.cos(1.5 * plan[:, 1])], axis=1)
    return graph_of(plan, height, slope, flow)


def screw(n: int, rng: Rng) -> Surface:
    """An open tube on which water winds up, faster at one side."""
    turn, z = rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-1.0, 1.0, 8 * n)
    x = np.stack([0.6 * np.cos(turn), 0.6 * np.sin(turn), z], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, turn = x[chosen], turn[chosen]
    around = np.stack([-np.sin(turn), np.cos(turn), np.zeros(n)], axis=1)
    speed = 1.0 + 0.6 * np.cos(turn + rng.uniform(0.0, 6.0))
    return x, unit(around + speed[:, None] * np.eye(3)[2])


def ring_current(n: int, rng: Rng) -> Surface:
    """A torus with a current along it that is strong inside and weak outside, and a turn of random sense around it."""
    x, normals = torus(n, rng, 0.45)
    radius = np.hypot(x[:, 0], x[:, 1])
    along = np.stack([-x[:, 1], x[:, 0], np.zeros(n)], axis=1) / radius[:, None]
    return x, unit(along / radius[:, None] ** 2 + rng.uniform(-0.8, 0.8) * np.cross(normals, along))


FOURTH = {
    "pear": Case(pear, 0.3, 0.05),
    "dish": Case(dish, 0.25, 0.1),
    "front": Case(front, 0.3, 0.05),
    "patchy": Case(patchy, 0.3, 0.0),
    "screw, thirty places": Case(screw, 0.5, 0.3, 60, splits=24),
    "ring current, thirty places": Case(ring_current, 0.5, 0.3, 60, splits=24),
    "pear, forty places": Case(pear, 0.5, 0.2, 80, splits=24),
}

SETS = {**DEVELOPMENT, **SECOND, **THIRD, **FEW, **FOURTH}
