"""Surfaces and fields for ``fields_auto.py --held-out``: made after the last change of the rule they judge."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from _field_sets import Case, Rng, Surface, graph_of, projected, sphere, spread
from truth import unit

from gpkit.geometry import furthest_point_sample

__all__ = ["HELD_OUT"]

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sheet_of(shape: Shape, u: np.ndarray, v: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """Evenly spread points of a parametrised surface, their parameters, and the directions along these."""
    x = shape(u, v)
    chosen = furthest_point_sample(x, count=n, start=0)
    u, v, step = u[chosen], v[chosen], 1e-5
    first = (shape(u + step, v) - shape(u - step, v)) / (2.0 * step)
    second = (shape(u, v + step) - shape(u, v - step)) / (2.0 * step)
    return x[chosen], u, v, first, second


def capsule(n: int, rng: Rng) -> Surface:
    """A rod with round ends in a stream at an angle, which spins about its own axis."""
    x = sphere(6 * n, rng)
    stretched = x + np.where(x[:, 2:] > 0.0, 1.0, -1.0) * np.array([0.0, 0.0, 0.8]) * np.abs(x[:, 2:]) ** 0.3
    stretched = spread(stretched, n)
    normals = stretched - np.clip(stretched, [0, 0, -0.8], [0, 0, 0.8])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    first = np.cross(normals, np.array([0.3, 0.5, 0.8]))
    stream = np.array([1.0, 0.0, rng.uniform(-1.0, 1.0)]) + rng.uniform(-1.0, 1.0) * np.cross(np.eye(3)[2], stretched)
    return stretched, projected(stream, first, np.cross(normals, first))


def whirl(n: int, rng: Rng) -> Surface:
    """A bowl with a vortex off its middle that turns as a solid inside, and dies away outside of its core."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    away = plan - rng.uniform(-0.4, 0.4, 2)
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    flow = np.stack([-away[:, 1], away[:, 0]], axis=1) / np.maximum(distance, 0.3) ** 2 + np.array([0.4, 0.0])
    return graph_of(plan, 0.5 * np.square(plan).sum(1), plan, flow)


def elbow(n: int, rng: Rng) -> Surface:
    """A pipe with a bend, faster on its inner side, with the pair of eddies that a bend makes."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        ring = 1.0 + 0.35 * np.cos(v)
        return np.stack([ring * np.cos(u), ring * np.sin(u), 0.35 * np.sin(v)], axis=1)

    x, u, v, along, around = sheet_of(shape, rng.uniform(0.0, 2.0, 8 * n), rng.uniform(0.0, 2.0 * math.pi, 8 * n), n)
    speed = (1.0 - 0.6 * np.cos(v)) / (1.0 + 0.35 * np.cos(v))
    eddies = rng.uniform(0.5, 1.5) * np.sin(v) * u
    return x, unit(speed[:, None] * along + eddies[:, None] * around)


def catenoid(n: int, rng: Rng) -> Surface:
    """A soap film between two rings, with the field of a dipole that lies near it."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.stack([0.6 * np.cosh(v) * np.cos(u), 0.6 * np.cosh(v) * np.sin(u), 0.6 * v], axis=1)

    x, _, _, a, b = sheet_of(shape, rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-1.2, 1.2, 8 * n), n)
    away, moment = x - np.array([0.2, 0.0, rng.uniform(-0.4, 0.4)]), rng.standard_normal(3)
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    return x, projected((3.0 * away * (away @ moment)[:, None] / distance**2 - moment) / distance**3, a, b)


def monkey_saddle(n: int, rng: Rng) -> Surface:
    """What runs down a saddle for three legs, pushed by a side wind."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    a, b = plan.T
    slope = 0.5 * np.stack([3.0 * a**2 - 3.0 * b**2, -6.0 * a * b], axis=1)
    return graph_of(plan, 0.5 * (a**3 - 3.0 * a * b**2), slope, rng.uniform(-0.5, 0.5, 2) - slope)


def gut(n: int, rng: Rng) -> Surface:
    """A tube whose waves of contraction carry what is in it along, with a weak turn."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        radius = 0.4 + 0.12 * np.sin(5.0 * v)
        return np.stack([radius * np.cos(u), radius * np.sin(u), v], axis=1)

    x, _, v, around, along = sheet_of(shape, rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-1.0, 1.0, 8 * n), n)
    speed = 0.3 + np.exp(2.0 * np.sin(5.0 * v + rng.uniform(0.0, 2.0 * math.pi))) / 4.0
    return x, unit(speed[:, None] * along + 0.4 * around)


def projective_plane(n: int, rng: Rng) -> Surface:
    """Directions of axes, a surface without sides in six dimensions, turning at two rates."""
    x = sphere(n, rng)
    spin, pull = rng.standard_normal((2, 3))
    flow = np.cross(spin, x) + x @ pull[:, None] * (pull - x * (x @ pull)[:, None])
    root = math.sqrt(2.0)
    pairs = ((0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0), (0, 1, root), (0, 2, root), (1, 2, root))
    plane = np.stack([w * x[:, i] * x[:, j] for i, j, w in pairs], axis=1)
    return plane, unit(np.stack([w * (flow[:, i] * x[:, j] + x[:, i] * flow[:, j]) for i, j, w in pairs], axis=1))


def belt(n: int, rng: Rng) -> Surface:
    """An oblate planet with a strong wind along its equator and weak ones elsewhere."""
    axes = np.array([1.0, 1.0, 0.6])
    x = spread(sphere(2 * n, rng) * axes, n)
    normals = x / axes**2
    east = np.cross(np.eye(3)[2], x)
    speed = np.exp(-0.5 * ((x[:, 2:] - rng.uniform(-0.1, 0.1)) / 0.2) ** 2) + 0.15
    first = np.cross(normals, np.array([0.3, 0.5, 0.8]))
    return x, projected(speed * east + 0.15 * rng.standard_normal(3), first, np.cross(normals, first))


def basin(n: int, rng: Rng) -> Surface:
    """A round trough around an island, in which two gyres turn."""
    radius, turn = np.sqrt(rng.uniform(0.16, 1.0, 8 * n)), rng.uniform(0.0, 2.0 * math.pi, 8 * n)
    plan = spread(radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1), n)
    radius, turn = np.linalg.norm(plan, axis=1), np.arctan2(plan[:, 1], plan[:, 0]) - rng.uniform(0.0, 6.0)
    outward = plan / radius[:, None]
    # The stream function vanishes at both shores.
    wall, slope = np.sin(math.pi * (radius - 0.4) / 0.6), math.pi / 0.6 * np.cos(math.pi * (radius - 0.4) / 0.6)
    across, along = -wall * np.sin(turn) / radius, -slope * np.cos(turn)
    flow = across[:, None] * outward + along[:, None] * np.stack([-outward[:, 1], outward[:, 0]], axis=1)
    depth = 0.5 * (radius - 0.7)
    return graph_of(plan, depth * (radius - 0.7), (2.0 * depth)[:, None] * outward, flow)


HELD_OUT = {
    "capsule": Case(capsule, 0.3, 0.1),
    "whirl": Case(whirl, 0.25, 0.0),
    "elbow, clustered": Case(elbow, 0.3, 0.05, clusters=8),
    "catenoid": Case(catenoid, 0.3, 0.1),
    "gut": Case(gut, 0.3, 0.05),
    "capsule, thirty places": Case(capsule, 0.5, 0.3, 60, splits=24),
    "whirl, twenty-five places": Case(whirl, 0.5, 0.2, 50, splits=24),
    "monkey saddle, forty places": Case(monkey_saddle, 0.5, 0.3, 80, splits=24),
    "projective plane, forty places": Case(projective_plane, 0.4, 0.2, 100, splits=24),
    "belt, thirty places": Case(belt, 0.5, 0.15, 60, splits=24),
    "basin, thirty exact places": Case(basin, 0.5, 0.0, 60, splits=24),
    "gut, forty-five places": Case(gut, 0.45, 0.2, 100, errors="uneven", splits=24),
}
