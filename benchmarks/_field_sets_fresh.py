"""Surfaces and fields for ``fields_auto.py --held-out``: made after everything about the rule was settled, run once."""

from __future__ import annotations

import math

import numpy as np
from _field_sets import Case, Rng, Surface, graph_of, sphere, spread, tangent
from _field_sets_held_out import sheet_of
from truth import unit

__all__ = ["FRESH"]


def bottle(n: int, rng: Rng) -> Surface:
    """A bottle whose neck the water leaves in a swirl."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        radius = 0.55 - 0.3 / (1.0 + np.exp(-8.0 * (v - 0.4)))
        return np.stack([radius * np.cos(u), radius * np.sin(u), v], axis=1)

    x, u, v, around, along = sheet_of(shape, rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-0.8, 1.0, 8 * n), n)
    turn = around / np.linalg.norm(around, axis=1, keepdims=True)
    radius = np.linalg.norm(around, axis=1)
    return x, unit((0.25 / radius)[:, None] * along + (rng.uniform(0.3, 0.8) * (1.0 + v))[:, None] * turn)


def roof(n: int, rng: Rng) -> Surface:
    """A wind sheared across a wavy roof, with a wake behind one of its waves."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    a, b = plan.T
    height, slope = 0.15 * np.cos(6.0 * a), np.stack([-0.9 * np.sin(6.0 * a), np.zeros(n)], axis=1)
    wake = np.exp(-8.0 * np.square(plan - rng.uniform(-0.5, 0.5, 2)).sum(1))
    return graph_of(plan, height, slope, np.stack([1.0 + 0.5 * b - 1.2 * wake, 0.3 * np.cos(4.0 * a)], axis=1))


def cells(n: int, rng: Rng) -> Surface:
    """A planet that turns faster at its equator, with air that rises and sinks in three cells a hemisphere."""
    x = sphere(n, rng)
    pole = rng.standard_normal(3)
    pole /= np.linalg.norm(pole)
    sine = x @ pole
    north = pole - x * sine[:, None]
    return x, tangent((1.2 - sine**2)[:, None] * np.cross(pole, x) + 0.6 * np.sin(6.0 * sine)[:, None] * north, x)


def ring_of_ellipses(n: int, rng: Rng) -> Surface:
    """A ring with a flat section that turns once on the way around, and a stream through the hole of the ring."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        wide, thin = 0.45 * np.cos(v), 0.2 * np.sin(v)
        out, up = wide * np.cos(u) - thin * np.sin(u), wide * np.sin(u) + thin * np.cos(u)
        return np.stack([(1.0 + out) * np.cos(u), (1.0 + out) * np.sin(u), up], axis=1)

    x, _, _, a, b = sheet_of(shape, *rng.uniform(0.0, 2.0 * math.pi, (2, 8 * n)), n)
    normal = np.cross(a, b)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    stream = np.eye(3)[2] + rng.uniform(-0.7, 0.7) * np.cross(np.eye(3)[2], x) + 0.4 * np.sin(3.0 * x[:, :1])
    return x, tangent(stream, normal)


def twisted(n: int, rng: Rng) -> Surface:
    """A belt with three half turns, which runs at a speed that changes on the way, and slips."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        ring = 1.0 + v * np.cos(1.5 * u)
        return np.stack([ring * np.cos(u), ring * np.sin(u), v * np.sin(1.5 * u)], axis=1)

    x, u, v, along, _ = sheet_of(shape, rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-0.35, 0.35, 8 * n), n)
    return x, unit((1.0 + 0.4 * np.cos(2.0 * u + rng.uniform(0.0, 6.0)))[:, None] * along)


def dune(n: int, rng: Rng) -> Surface:
    """Sand that creeps over a dune: fast at its crest, turned aside at its flanks."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    away = plan - rng.uniform(-0.3, 0.3, 2)
    height = 0.4 * np.exp(-3.0 * np.square(away).sum(1))
    slope = -6.0 * away * height[:, None]
    flow = np.stack([0.4 + 2.0 * height, np.zeros(n)], axis=1) + 0.5 * slope[:, ::-1] * np.array([1.0, -1.0])
    return graph_of(plan, height, slope, flow)


FRESH = {
    "bottle": Case(bottle, 0.3, 0.05),
    "dune": Case(dune, 0.25, 0.1),
    "roof, thirty places": Case(roof, 0.5, 0.2, 60, splits=12),
    "cells, forty places": Case(cells, 0.5, 0.3, 80, splits=12),
    "ring of ellipses, thirty places": Case(ring_of_ellipses, 0.5, 0.3, 60, splits=12),
    "twisted, twenty-five places": Case(twisted, 0.5, 0.2, 50, splits=12),
    "dune, thirty exact places": Case(dune, 0.5, 0.0, 60, splits=12),
}
