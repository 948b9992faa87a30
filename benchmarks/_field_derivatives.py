"""Divergence and curl at the nodes: errors and orders beside linear fits, and whether intervals hold the truth."""

from __future__ import annotations

import importlib.util
import math
import time
from importlib import metadata

import numpy as np

from gpkit.geometry import Mesh, PointCloud
from gpkit.models import VectorFieldGP
from gpkit.models.fields.local_slopes import LocalSlopes

POSITION_NOISE = 0.01


def sphere_points(n, seed):
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return x / np.linalg.norm(x, axis=1)[:, None]


def sphere_field(x):
    """Gradients of harmonics of degrees two and four, plus the same turned by a right angle: -l (l + 1) Y."""
    w = x[:, 0] + 1j * x[:, 1]
    gradient = np.stack([x[:, 1], x[:, 0], 2.0 * x[:, 2]], 1)
    gradient += 0.5 * np.stack([(4.0 * w**3).real, -(4.0 * w**3).imag, 0.0 * w.real], 1)
    gradient -= x * (gradient * x).sum(1, keepdims=True)
    laplacian = -6.0 * (x[:, 0] * x[:, 1] + x[:, 2] ** 2 - 1.0 / 3.0) - 10.0 * (w**4).real
    return gradient + 0.6 * np.cross(x, gradient), laplacian, 0.6 * laplacian


def sphere(n, seed):
    x = sphere_points(n, seed)
    return PointCloud(x, dim=2), *sphere_field(x)


def noisy_sphere(n, seed):
    x = sphere_points(n, seed)
    noise = np.random.default_rng(seed + 100).standard_normal(x.shape)
    return PointCloud(x + POSITION_NOISE * noise), *sphere_field(x)


def mesh(n, seed):
    from scipy.spatial import ConvexHull

    x = sphere_points(n, seed)
    faces = ConvexHull(x).simplices
    inwards = np.linalg.det(x[faces]) < 0.0
    faces[inwards] = faces[inwards, ::-1]
    return Mesh(x, faces), *sphere_field(x)


def torus(n, seed):
    """R = 1, r = 0.4, uniform points; components cos(2 u + v) along and sin(u - 2 v) around."""
    rng = np.random.default_rng(seed)
    u, v, keep = rng.uniform(0.0, 2.0 * math.pi, (3, 4 * n))
    u, v = (angle[keep / (2.0 * math.pi) * 1.4 < 1.0 + 0.4 * np.cos(v)][:n] for angle in (u, v))
    s = 1.0 + 0.4 * np.cos(v)
    along = np.stack([-np.sin(u), np.cos(u), 0.0 * u], 1)
    around = np.stack([-np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v)], 1)
    first, second = np.cos(2.0 * u + v), np.sin(u - 2.0 * v)
    divergence = (-2.0 * np.sin(2.0 * u + v) - np.sin(v) * second) / s - 2.0 * np.cos(u - 2.0 * v) / 0.4
    curl = (np.cos(u - 2.0 * v) + np.sin(v) * first) / s + np.sin(2.0 * u + v) / 0.4
    points = np.stack([s * np.cos(u), s * np.sin(u), 0.4 * np.sin(v)], 1)
    return PointCloud(points, dim=2), first[:, None] * along + second[:, None] * around, divergence, curl


def disc(n, seed):
    """A flat disc with its border."""
    rng = np.random.default_rng(seed)
    radius, angle = np.sqrt(rng.uniform(size=n)), rng.uniform(0.0, 2.0 * math.pi, n)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    field = np.stack([np.sin(2.0 * x + y) + x * y, np.cos(x - 2.0 * y) - y * y], 1)
    divergence = 2.0 * np.cos(2.0 * x + y) - y + 2.0 * np.sin(x - 2.0 * y)
    curl = -np.sin(x - 2.0 * y) - np.cos(2.0 * x + y) - x
    cloud = PointCloud(np.stack([x, y], 1), dim=2)
    return cloud, field, divergence, np.sign(np.linalg.det(cloud.frames[0])) * curl


SURFACES = {
    "sphere, random points": sphere,
    "torus, random points": torus,
    "flat disc, random points": disc,
    "sphere, mesh of random points": mesh,
    f"sphere, random points with noise {POSITION_NOISE:g}": noisy_sphere,
}


def rms(values):
    return float(np.sqrt(np.square(values).mean()))


def peer_error(cloud, field, divergence, curl):
    """Of pcdiff, with frames of its own (turned outwards) and 20 neighbours, as the clouds here have."""
    import pcdiff

    pairs = pcdiff.knn_graph(cloud.points, 20)
    normal, first, second = pcdiff.estimate_basis(cloud.points, pairs, orientation=cloud.normals)
    _, operator = pcdiff.build_grad_div(cloud.points, normal, first, second, pairs)
    coordinates = np.stack([(field * first).sum(1), (field * second).sum(1)], 1).reshape(-1, 1)
    found = operator @ coordinates, pcdiff.curl(coordinates, operator)
    return rms(np.concatenate([found[0].ravel() - divergence, found[1].ravel() - curl]))


def errors(sizes, seeds):
    """Root mean square errors of divergence and curl of known fields, by the largest degree of the local fits."""
    asked = ("linear", "quadratic", "cubic")
    peer = importlib.util.find_spec("pcdiff") is not None
    print(f"pcdiff {metadata.version('pcdiff') if peer else 'is not installed'}")
    header = " ".join(f"{f'n = {n}':>9s}" for n in sizes)
    print(f"{'error of divergence and curl, % (all zero: 100)':48s} {'fits':>10s} {header} {'order':>6s}  lower, noise")
    for name, make in SURFACES.items():
        if make is mesh and importlib.util.find_spec("robust_laplacian") is None:
            print(f"{name:48s} not measured: robust-laplacian is not installed")
            continue
        found = {degree: [] for degree in asked}
        theirs = []
        for n in sizes:
            cells = {degree: [] for degree in asked}
            for seed in range(seeds):
                manifold, field, *true = make(n, seed)
                coordinates = manifold.to_tangent(field)[0].ravel()
                size = rms(np.concatenate(true))
                for number, degree in enumerate(asked, 1):
                    slopes = LocalSlopes.of(manifold, number)
                    operators = slopes.divergence(), slopes.curl()
                    gaps = [o @ coordinates - t for o, t in zip(operators, true, strict=True)]
                    noise = math.sqrt(float(np.square(operators[0].data).sum()) / n)
                    short = int((slopes.degree < number).sum())
                    cells[degree].append((rms(np.concatenate(gaps)) / size, short, noise))
            for degree in asked:
                found[degree].append(np.mean(cells[degree], 0))
            if peer and isinstance(manifold, PointCloud) and manifold.ambient_dim == 3:
                theirs.append(peer_error(manifold, field, *true) / size)
        spacing = math.sqrt(sizes[-1] / sizes[-2])
        for degree, row in found.items():
            order = math.log(row[-2][0] / row[-1][0]) / math.log(spacing)
            values = " ".join(f"{100.0 * cell[0]:9.3f}" for cell in row)
            times = row[-1][2] / found["linear"][-1][2]
            lower = f"{row[-1][1]:5.1f}, x {times:.1f}"
            print(f"{name if degree == 'linear' else '':48s} {degree:>10s} {values} {order:6.2f}  {lower}")
        if theirs:
            order = math.log(theirs[-2] / theirs[-1]) / math.log(spacing)
            ratios = ", ".join(f"{gap / cell[0]:.1f}" for gap, cell in zip(theirs, found["cubic"], strict=True))
            values = " ".join(f"{100.0 * gap:9.3f}" for gap in theirs)
            print(f"{'':48s} {'pcdiff':>10s} {values} {order:6.2f}  ratios to cubic {ratios}")


def coverage(cases, seeds):
    """Share of nodes whose 95 % intervals hold the truth; noise a tenth of the field, four tenths of the nodes."""
    print(f"\n{'intervals of divergence and curl, 95 %':48s} {'fits':>10s} {'error %':>9s} {'sd %':>9s} {'hold':>9s}")
    for name, make, kernel, n in cases:
        found = {1: [], 3: []}
        begun = time.process_time()
        for seed in range(1 if kernel == "auto" else seeds):
            manifold, field, *true = make(n, seed)
            rng = np.random.default_rng(seed + 50)
            where = rng.permutation(n)[: 2 * n // 5]
            coordinates = manifold.to_tangent(field)[0]
            noisy = coordinates + 0.1 * rms(coordinates) * rng.standard_normal(coordinates.shape)
            model = VectorFieldGP(manifold, kernel)
            model.fit(where, manifold.to_ambient(noisy)[where], progress=False)
            size = rms(np.concatenate(true))
            for degree in found:
                slopes = LocalSlopes.of(manifold, degree)
                for operator, values in zip((slopes.divergence(), slopes.curl()), true, strict=True):
                    posterior = model._mixed().functional(operator, model.sites())
                    low, high = posterior.interval(0.95)
                    held = ((low <= values) & (values <= high)).mean()
                    error, deviation = rms(posterior.mean - values), rms(posterior.standard_deviation)
                    found[degree].append((100.0 * error / size, 100.0 * deviation / size, held))
        seconds = time.process_time() - begun
        for degree, rows in found.items():
            error, deviation, held = np.mean(rows, 0)
            label = f"{name}, n = {n}, {kernel} ({seconds:.0f} CPU s)" if degree == 1 else ""
            degree_name = {1: "linear", 3: "cubic"}[degree]
            print(f"{label:48s} {degree_name:>10s} {error:9.2f} {deviation:9.2f} {held:9.3f}")


def derivatives(quick):
    """Both tables; in about 30 s."""
    errors((400, 600) if quick else (500, 1000, 4000), 1)
    if quick:
        coverage([("sphere", sphere, "helmholtz:rbf", 150)], 1)
        return
    cases = [
        ("sphere", sphere, "helmholtz:rbf", 600),
        ("sphere", sphere, "projected:matern52", 600),
        ("torus", torus, "helmholtz:rbf", 600),
        ("sphere", sphere, "intrinsic:matern2", 400),
        ("sphere", sphere, "intrinsic:heat", 400),
        ("sphere", sphere, "auto", 300),
    ]
    coverage(cases, 2)
