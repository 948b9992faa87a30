"""Surfaces and fields for ``fields_auto.py --held-out``: written before kernels with varying amplitude were run on any.

Places are random, so that clouds have gaps and close pairs. Of the first five sets, 95 % of the speeds are within a
factor of 2.5; those of the other five differ by 5 to 30 times.
"""

from __future__ import annotations

import math

import numpy as np
from _field_sets import Case, Rng, Surface, graph_of, tangent
from _field_sets_fifth import unit_rows
from _field_sets_held_out import sheet_of
from truth import unit

__all__ = ["BLIND"]


def directions(n: int, rng: Rng) -> np.ndarray:
    return unit_rows(rng.standard_normal((n, 3)))


def disc(n: int, rng: Rng) -> np.ndarray:
    return np.sqrt(rng.uniform(0.0, 1.0, (n, 1))) * unit_rows(rng.standard_normal((n, 2)))


def left(vectors: np.ndarray) -> np.ndarray:
    """Vectors of the plane, turned by a right angle."""
    return vectors[:, ::-1] * np.array([-1.0, 1.0])


def drawn(area: np.ndarray, n: int, rng: Rng) -> np.ndarray:
    """Indices of n candidates, drawn in proportion to the area that each stands for."""
    return rng.choice(len(area), n, replace=False, p=area / area.sum())


def migration(n: int, rng: Rng) -> Surface:
    """Cells that crawl over an ellipsoid towards a wound, a hole in it, in streams that swerve; all equally fast."""
    axes, wound, s = np.array([1.0, 0.7, 0.5]), directions(1, rng)[0], directions(12 * n, rng)
    s = s[s @ wound < math.cos(0.5)]
    s = s[drawn(np.linalg.norm(s / axes, axis=1), n, rng)]
    x, normals = s * axes, unit_rows(s / axes)
    ahead = unit_rows(tangent(wound * axes - x, normals))
    swerve = 0.8 * np.sin(3.0 * x @ directions(1, rng)[0] + rng.uniform(0.0, 6.0))[:, None]
    return x, unit(np.cos(swerve) * ahead + np.sin(swerve) * np.cross(normals, ahead))


def seamount(n: int, rng: Rng) -> Surface:
    """A geostrophic current over a long seamount, which turns it, with waves that ride on the current."""
    plan, scale, across = rng.uniform(-1.0, 1.0, (n, 2)), np.array([0.9, 0.35]), unit_rows(rng.standard_normal((1, 2)))
    frame = unit_rows(rng.standard_normal((1, 2)))
    frame = np.concatenate([frame, left(frame)])
    scaled = (plan - rng.uniform(-0.3, 0.3, 2)) @ frame.T / scale
    height = 0.35 * np.exp(-np.square(scaled).sum(1))
    slope = (-2.0 * height[:, None] * scaled / scale) @ frame
    wave = 0.25 * np.cos(5.0 * plan @ left(across).T + rng.uniform(0.0, 6.0)) * left(across)
    return graph_of(plan, height, slope, left(0.6 * slope + wave - across))


def turbines(n: int, rng: Rng) -> Surface:
    """Wind over a plain with three turbines: Gaussian wakes that widen, mix at their edges, and add up in squares."""
    plan, lost, inward = rng.uniform([0.0, -1.0], [4.0, 1.0], (n, 2)), np.zeros(n), np.zeros(n)
    for place in rng.uniform([0.3, -0.7], [2.5, 0.7], (3, 2)):
        behind, aside = (plan - place).T
        width = 0.35 + 0.14 * np.maximum(behind, 0.0)  # in diameters, of a quarter each
        deficit = (1.0 - np.sqrt(1.0 - 0.1 / width**2)) * np.exp(-0.5 * (aside / width / 0.25) ** 2)
        deficit /= 1.0 + np.exp(-np.clip(behind / 0.03, -50.0, 50.0))
        lost += deficit**2
        inward -= deficit * aside / width
    flow = np.stack([1.0 - np.sqrt(lost), 0.15 * plan[:, 1] + inward], axis=1)
    return graph_of(plan, np.zeros(n), np.zeros((n, 2)), flow)


def tide(n: int, rng: Rng) -> Surface:
    """Currents at one moment in an estuary that narrows to a fifth: ellipses half as wide as long, late upstream."""
    plan = rng.uniform([0.0, -0.6], [3.0, 0.6], (12 * n, 2))
    plan = plan[np.abs(plan[:, 1]) < 0.6 * np.exp(-0.5 * plan[:, 0])][:n]
    b, width = plan[:, 1], 0.6 * np.exp(-0.5 * plan[:, 0])
    phase = (1.6 * plan[:, 0] + 0.5 * b / width + rng.uniform(0.0, 2.0 * math.pi))[:, None]
    along = unit_rows(np.stack([np.ones(n), -0.5 * b], axis=1))
    slope = np.stack([b**2 / 12.0, b / 3.0], axis=1) / width[:, None]
    return graph_of(plan, b**2 / (6.0 * width), slope, np.cos(phase) * along + 0.5 * np.sin(phase) * left(along))


def rotors(n: int, rng: Rng) -> Surface:
    """Fronts of two spiral waves of opposite turn on a tube of heart tissue, slower where they are curved."""
    u, z = rng.uniform([[0.0], [-1.0]], [[2.0 * math.pi], [1.0]], (2, n))
    cores = np.array([0.0, rng.uniform(2.0, 4.0)]) + rng.uniform(0.0, 6.0) + 1j * rng.uniform(-1.2, 1.2, 2)
    first, second = (0.5 / np.tan(0.5 * (u + 2j * z - core)) for core in cores)
    slope = (first - second) * (1.0 - rng.uniform(0.5, 1.5) * 1j)  # of the logarithm of the waves' complex amplitude
    slope /= np.abs(slope) + 0.1 * np.abs(slope) ** 2
    around = np.stack([-np.sin(u), np.cos(u), np.zeros(n)], axis=1)
    x = np.stack([0.5 * np.cos(u), 0.5 * np.sin(u), z], axis=1)
    return x, unit(slope.imag[:, None] * around + slope.real[:, None] * np.eye(3)[2])


def film(n: int, rng: Rng) -> Surface:
    """A film that runs down a ball in rivulets, as fast as its thickness squared; three spots are dry."""
    x = directions(12 * n, rng)
    x = x[(x @ directions(3, rng).T < np.cos(rng.uniform(0.35, 0.5, 3))).all(1)][:n]
    sine, phase = np.hypot(x[:, 0], x[:, 1]), 4.0 * np.arctan2(x[:, 1], x[:, 0]) + rng.uniform(0.0, 6.0)
    around = np.cross(np.eye(3)[2], x)
    thick = 0.7 + 0.3 * np.cos(phase) * sine
    return x, unit((thick**2)[:, None] * np.cross(around, x) - 0.1 * np.sin(phase)[:, None] * around)


def cube(n: int, rng: Rng) -> Surface:
    """The tangent part of a uniform field and a dipole inside of a cube with round edges."""
    s = directions(12 * n, rng)
    x = s / (s**6).sum(1, keepdims=True) ** (1.0 / 6.0)
    normals = unit_rows(x**5)
    chosen = drawn(np.square(x).sum(1) / (normals * s).sum(1), n, rng)
    x, normals = x[chosen], normals[chosen]
    away, moment = x - rng.uniform(-0.4, 0.4, 3), 1.5 * directions(1, rng)[0]
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    dipole = (3.0 * away * (away @ moment)[:, None] / distance**2 - moment) / distance**3
    return x, tangent(directions(1, rng) + dipole, normals)


def wells(n: int, rng: Rng) -> Surface:
    """The force of a potential with four wells on a paraboloid: minus its gradient along the surface."""
    plan = disc(n, rng)
    force, slope = -0.6 * plan, 1.2 * plan
    for centre, depth in zip(0.8 * disc(4, rng), rng.uniform(0.3, 1.0, 4), strict=True):
        force -= depth * (plan - centre) * 16.0 * np.exp(-8.0 * np.square(plan - centre).sum(1, keepdims=True))
    force -= slope * (slope * force).sum(1, keepdims=True) / (1.0 + np.square(slope).sum(1, keepdims=True))
    return graph_of(plan, 0.6 * np.square(plan).sum(1), slope, force)


def aneurysm(n: int, rng: Rng) -> Surface:
    """Shear at the wall of a vessel with a bulge at one side, where blood hardly moves and turns back."""

    def shape(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        radius = 0.3 + 0.5 * np.exp(-((v / 0.5) ** 2) - (1.0 - np.cos(u)) / 0.5)
        return np.stack([radius * np.cos(u), radius * np.sin(u), v], axis=1)

    found = sheet_of(shape, rng.uniform(0.0, 2.0 * math.pi, 8 * n), rng.uniform(-1.2, 1.2, 8 * n), 8 * n)
    chosen = drawn(np.linalg.norm(np.cross(found[3], found[4]), axis=1), n, rng)
    x, u, _, around, along = (part[chosen] for part in found)
    wide = np.hypot(x[:, 0], x[:, 1]) / 0.3 - 1.0
    shear, swirl = (1.0 + wide) ** -3 - 0.1 * wide, rng.uniform(-0.3, 0.3) + 0.1 * wide * np.sin(u)
    return x, unit(shear[:, None] * unit_rows(along) + swirl[:, None] * unit_rows(around))


def ice(n: int, rng: Rng) -> Surface:
    """An ice cap that creeps outward from its summit, and drains through two fast streams."""
    plan = disc(n, rng)
    square, turn, flow = np.square(plan).sum(1, keepdims=True), np.arctan2(plan[:, 1:], plan[:, :1]), 0.2 * plan
    for axis in rng.uniform(0.0, 2.0) + np.array([0.0, rng.uniform(1.5, 4.0)]):
        off = np.angle(np.exp(1j * (turn - axis)))
        flow += 1.5 * square * np.exp(-((off / 0.35) ** 2)) * plan
        flow -= 0.5 * np.sqrt(square) * off * np.exp(-((off / 0.6) ** 2)) * left(plan)
    return graph_of(plan, 0.3 * (1.0 - square[:, 0]), -0.6 * plan, flow)


BLIND = {
    "turbines": Case(turbines, 0.3, 0.05),
    "seamount": Case(seamount, 0.25, 0.2, 280),
    "rotors": Case(rotors, 1.0 / 3.0, 0.1, 180),
    "migration, forty-five places": Case(migration, 0.5, 0.3, 90, splits=12),
    "tide, forty exact places": Case(tide, 1.0 / 3.0, 0.0, 120, splits=12),
    "cube": Case(cube, 0.3, 0.1),
    "wells, fifty places": Case(wells, 0.5, 0.2, 100, splits=12),
    "film, forty places": Case(film, 0.5, 0.3, 80, splits=12),
    "ice, twenty-five places": Case(ice, 0.5, 0.05, 50, splits=12),
    "aneurysm, thirty exact places": Case(aneurysm, 1.0 / 3.0, 0.0, 90, splits=12),
}
