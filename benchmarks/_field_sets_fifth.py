"""Surfaces and fields for ``fields_auto.py``: made after the fourth rule, and seen before the present one."""

from __future__ import annotations

import math

import numpy as np
from _field_sets import (
    Case,
    Rng,
    Surface,
    graph_of,
    jet,
    projected,
    smooth_sphere,
    sphere,
    spread,
    still_sphere,
    tangent,
    torus,
)
from _field_sets_later import ring_current
from truth import potential_flow, unit

from gpkit.geometry import furthest_point_sample

__all__ = ["SETS"]


def unit_rows(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def double_torus(n: int, rng: Rng) -> Surface:
    """A surface with two holes, found as a level set, and the tangent part of smooth waves of space."""

    def level(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, c = x.T
        q = a**2 * (1.0 - a**2) - b**2
        slope = np.stack([2.0 * q * (2.0 * a - 4.0 * a**3), -4.0 * q * b, 2.0 * c], axis=1)
        return q**2 + c**2 - 0.03, slope

    x = rng.uniform(-1.0, 1.0, (60 * n, 3)) * np.array([1.15, 0.65, 0.15])
    for _ in range(30):
        value, slope = level(x)
        x = x - (value / np.maximum((slope**2).sum(1), 1e-9))[:, None] * slope
    value, slope = level(x)
    x = spread(x[(np.abs(value) < 1e-9) & (np.abs(x).max(1) < 1.3)], n)
    normals = unit_rows(level(x)[1])
    return x, potential_flow(x, normals, rng, 0.7)


def strip(n: int, rng: Rng) -> Surface:
    """A narrow open strip, bent to three quarters of a ring, with a shear flow that meanders."""
    s, v = rng.uniform(0.0, 1.5 * math.pi, 8 * n), rng.uniform(-0.2, 0.2, 8 * n)
    x = np.stack([np.cos(s), np.sin(s), v], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, s, v = x[chosen], s[chosen], v[chosen]
    along, phase = np.stack([-np.sin(s), np.cos(s), np.zeros(n)], axis=1), rng.uniform(0.0, 2.0 * math.pi, 2)
    speed = 0.6 + 3.0 * v + 0.4 * np.sin(2.0 * s + phase[0])
    return x, unit(speed[:, None] * along + 0.5 * np.cos(3.0 * s + phase[1])[:, None] * np.eye(3)[2])


def cooling_tower(n: int, rng: Rng) -> Surface:
    """A hyperboloid of one sheet on which air winds up, in three cells side by side."""
    turn, z = rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-0.8, 0.8, 8 * n)
    radius = 0.5 * np.sqrt(1.0 + 2.0 * z**2)
    x = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, turn, z, radius = x[chosen], turn[chosen], z[chosen], radius[chosen]
    outward = np.stack([np.cos(turn), np.sin(turn), np.zeros(n)], axis=1)
    along = (0.5 * z / radius)[:, None] * outward + np.eye(3)[2]
    around = np.stack([-np.sin(turn), np.cos(turn), np.zeros(n)], axis=1)
    phase = rng.uniform(0.0, 2.0 * math.pi)
    return x, unit(np.sin(3.0 * turn + phase)[:, None] * along + (0.5 + np.cos(2.0 * z))[:, None] * around)


def limit_cycles(n: int, rng: Rng) -> Surface:
    """States of an oscillator, as a population of five neurons sees them: a bent sheet in five dimensions."""
    plan = spread(rng.uniform(-1.0, 1.0, (8 * n, 2)), n)
    u, v = 2.2 * plan[:, 0], 2.2 * plan[:, 1]
    flow = np.stack([v, rng.uniform(0.5, 1.5) * (1.0 - u**2) * v - u], axis=1)
    weights, shift = rng.standard_normal((2, 5)) * 0.8, rng.uniform(-0.5, 0.5, 5)
    rates = np.tanh(plan @ weights + shift)
    gain = 1.0 - rates**2
    jacobian = np.einsum("nk,ak->nka", gain, weights)
    return rates, unit(np.einsum("nka,na->nk", jacobian, flow))


def crossing(n: int, rng: Rng) -> Surface:
    """Two flat streets that cross, with a stream through one that eddies into the other."""
    plan = rng.uniform(-1.0, 1.0, (24 * n, 2))
    plan = spread(plan[np.abs(plan).min(1) < 0.25], n)
    a, b = plan.T
    phase = rng.uniform(-0.1, 0.1)
    main = np.exp(-0.5 * ((b - phase) / 0.15) ** 2)
    eddy = np.stack([-np.sin(4.0 * b), np.sin(4.0 * a)], axis=1) * rng.uniform(0.3, 0.6)
    return graph_of(plan, np.zeros(n), np.zeros((n, 2)), main[:, None] * np.eye(2)[0] + eddy)


def spiral(n: int, rng: Rng) -> Surface:
    """A cone into which water runs, faster towards its tip, past an obstacle."""
    turn, z = rng.uniform(0.0, 2.0 * math.pi, 8 * n), np.sqrt(rng.uniform(0.04, 1.0, 8 * n))
    x = np.stack([0.7 * z * np.cos(turn), 0.7 * z * np.sin(turn), z], axis=1)
    chosen = furthest_point_sample(x, count=n, start=0)
    x, turn, z = x[chosen], turn[chosen], z[chosen]
    down = -unit_rows(x)
    around = np.stack([-np.sin(turn), np.cos(turn), np.zeros(n)], axis=1)
    stone = np.exp(-0.5 * np.square(x - np.array([0.4, 0.0, 0.6])).sum(1) / 0.15**2)
    speed = (1.0 - 0.8 * stone) / np.sqrt(z)
    return x, unit(speed[:, None] * (0.5 * down + rng.uniform(0.5, 1.0) * around))


def two_scales(n: int, rng: Rng) -> Surface:
    """A planetary wind with short waves riding on it everywhere."""
    x = sphere(n, rng)
    wave = 7.0 * rng.standard_normal((2, 3))
    short = np.cos(x @ wave[0] + 1.0)[:, None] * np.cross(wave[1], x) / 25.0
    return x, tangent(np.cross(rng.standard_normal(3), x) * (1.5 - x[:, 2:] ** 2) + short, x)


def tube_with_valve(n: int, rng: Rng) -> Surface:
    """A torus with a flow around its ring that turns over within a short arc."""
    x, normals = torus(n, rng, 0.3)
    u = np.arctan2(x[:, 1], x[:, 0])
    along = np.stack([-np.sin(u), np.cos(u), np.zeros(n)], axis=1)
    gate = np.tanh(6.0 * np.sin(u + rng.uniform(0.0, 6.0)))[:, None]
    return x, projected(gate * along + 0.5 * np.cross(normals, along), along, np.cross(normals, along))


FIFTH = {
    "double torus": Case(double_torus, 0.3, 0.05),
    "open strip": Case(strip, 0.2, 0.1),
    "cooling tower": Case(cooling_tower, 0.3, 0.05),
    "five neurons": Case(limit_cycles, 0.25, 0.05),
    "crossing": Case(crossing, 0.3, 0.1),
    "smooth, clustered": Case(smooth_sphere, 0.3, 0.1, clusters=6),
    "two scales, uneven noise": Case(two_scales, 0.3, 0.15, errors="uneven"),
    "valve": Case(tube_with_valve, 0.3, 0.05, clusters=12),
    "spiral, thirty places": Case(spiral, 0.5, 0.3, 60, splits=24),
    "strip, heavy tails, thirty places": Case(strip, 0.5, 0.2, 60, errors="heavy", splits=24),
    "double torus, forty places": Case(double_torus, 0.2, 0.2, 200, splits=12),
    "neurons, twenty places": Case(limit_cycles, 0.4, 0.15, 50, splits=24),
}

SIXTH = {
    "jet, forty places": Case(jet, 0.5, 0.1, 80, splits=24),
    "drowned, thirty places": Case(smooth_sphere, 0.5, 0.7, 60, splits=24),
    "still, twenty exact places": Case(still_sphere, 0.4, 0.0, 50, splits=24),
    "ring current, thirty exact places": Case(ring_current, 0.5, 0.0, 60, splits=24),
}
"""Old fields observed in other ways, which showed a weakness of the fifth rule."""

SETS = {**FIFTH, **SIXTH}
