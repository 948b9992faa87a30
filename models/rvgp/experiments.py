"""One split of one set: every kernel of ``auto``, the baselines, and their scores; and the published protocol."""

from __future__ import annotations

import time
from pathlib import Path

import baselines
import numpy as np
import scipy
import truth
from scipy.sparse.linalg import expm_multiply
from scipy.spatial import cKDTree

from gpkit.geometry import Manifold, Mesh, PointCloud, furthest_point_sample
from gpkit.models import VectorFieldGP
from gpkit.models.fields.singularities import triangle_indices

MESHES = ("sphere", "torus", "bunny")
FOLDED = {"swiss roll": truth.swiss_roll, "hairpin": truth.hairpin}
ROUND = {"harmonics": truth.harmonic_set, "harmonic torus": truth.harmonic_torus}
WIND = "wind, month 0"
ALL = (*MESHES, *ROUND, *FOLDED, WIND)
SHIPPED = (*ROUND, *FOLDED)
"""Sets that need no data from outside."""


def sizes(name: str, config: dict) -> dict:
    """Number of points, training shares and seeds of a set."""
    section = config["wind"] if name == WIND else config["folded"] if name in FOLDED else config["sets"]
    found = {"seeds": config["sets"]["seeds"], "noise": 0.0 if name == WIND else config["sets"]["noise"], **section}
    return found | config["only"].get(name, {})


def _make(name: str, folder: Path | None, n: int, rng: np.random.Generator) -> tuple[truth.Set, Manifold, np.ndarray]:
    """Truth at all nodes, the manifold, and the nodes that may be observed."""
    if name == "bunny":  # thin ears, which points alone do not resolve: a mesh, observed at n of its vertices
        assert folder is not None
        return truth.whole_mesh(folder, name, n, rng)
    if name in SHIPPED:
        data = {**ROUND, **FOLDED}[name](n, rng)
    else:
        assert folder is not None
        data = truth.wind_set(folder, n) if name == WIND else truth.mesh_set(folder, name, n, rng)
    return data, PointCloud(data.points, dim=2), np.arange(len(data.points))


def experiment(name: str, folder: Path | None, config: dict, share: float, seed: int) -> dict:
    """Scores of one split; numbers by name, and the kernel that weighs most."""
    size = sizes(name, config)
    rng = np.random.default_rng(seed)
    data, manifold, nodes = _make(name, folder, size["n"], rng)
    order = rng.permutation(len(nodes))
    count = max(10, round(share * len(nodes)))
    train, test = nodes[order[:count]], np.sort(nodes[order[count:]])
    white = rng.standard_normal(data.vectors.shape)
    white -= data.normals * (white * data.normals).sum(1, keepdims=True)
    observed = data.vectors + size["noise"] * white
    begun = time.process_time()
    model = VectorFieldGP(manifold)
    result = model.fit(train, observed[train], seed=seed, progress=False)
    out: dict = {"seconds": time.process_time() - begun, "n": len(nodes), "train": len(train)}
    weights = result.comparison.weights
    out["winner"] = max(weights, key=lambda kernel: weights[kernel])
    found = model.predict(test)
    out["auto"] = baselines.angular_error(found.mean, data.vectors[test])
    out["rmse"] = baselines.rmse(found.mean, data.vectors[test])
    out["nlpd"] = -float(found.log_density(observed[test]).mean())
    variance = np.einsum("mii->mi", found.covariance)
    noise = float(np.sqrt(found.weights @ np.square(found.noise)))
    out["coverage"] = baselines.coverage(found.frames, found.mean, variance, noise, observed[test])
    out["region"] = float(found.covers(data.vectors[test]).mean())
    if manifold.orientable and manifold.dim == 2:
        out |= singular_scores(model, data, manifold, train, observed)
    singles: dict[str, float] = {}
    for candidate in result.comparison.candidates:
        if "+" not in candidate.name:
            model.use(candidate.name)
            singles[candidate.name] = baselines.angular_error(model.predict(test).mean, data.vectors[test])
    for family in ("intrinsic", "projected", "helmholtz"):
        # The candidates are sorted by evidence: the first of a family is the one it would choose.
        chosen = next((kernel for kernel in singles if kernel.startswith(family)), None)
        if chosen is not None:
            out[family] = singles[chosen]
    out["best single"] = min(singles.values())
    return out | baselines.all_scores(manifold, train, observed, test, data.vectors)


def singular_scores(
    model: VectorFieldGP, data: truth.Set, manifold: Manifold, train: np.ndarray, observed: np.ndarray
) -> dict[str, float]:
    """Recall of singular points, and false ones; closed surfaces also have a known sum of indices.

    Clouds whose triangulation has gaps are left out: singular points may be in them.
    """
    found = model.singularities(draws=100)
    if not found.closed and not isinstance(manifold, Mesh):
        return {}
    coordinates = manifold.to_tangent(data.vectors)[0]
    true = triangle_indices(manifold, found.triangles, coordinates)
    everywhere = baselines.nearest(manifold, train, observed[train], np.arange(manifold.n))
    rough = triangle_indices(manifold, found.triangles, manifold.to_tangent(everywhere)[0])

    places = {sign: found.centres[true * sign > 0] for sign in (1, -1)}

    def share(of: list[tuple[np.ndarray, int]], among: list[tuple[np.ndarray, int]]) -> float:
        """Share of some singular points that have one of the same sign among others within the radius."""
        trees = {sign: [place for place, index in among if index * sign > 0] for sign in (1, -1)}
        hits = [
            bool(trees[sign]) and cKDTree(trees[sign]).query(place)[0] <= found.radius
            for place, index in of
            for sign in ([1] if index > 0 else [-1])
        ]
        return float(np.mean(hits)) if hits else float("nan")

    actual = [(place, sign) for sign, rows in places.items() for place in rows]
    nearest = [(found.centres[k], int(rough[k])) for k in np.flatnonzero(rough)]
    every = [(s.location, s.index) for s in found.found]
    likely = [(s.location, s.index) for s in found.at_least(0.5)]
    of_mean = [(s.location, s.index) for s in found.found if s.in_mean]
    out = {"true": float(len(actual))}
    if found.closed:
        out |= {"index": float(found.total), "euler": float(found.euler_characteristic)}
    if actual:
        out |= {
            "recall": share(actual, of_mean),
            "recall likely": share(actual, likely),
            "false likely": len(likely) * (1.0 - share(likely, actual)) if likely else 0.0,
            "false expected": float(sum(1.0 - s.probability for s in found.at_least(0.5))),
            "recall reported": share(actual, every),
            "false reported": len(every) * (1.0 - share(every, actual)) if every else 0.0,
            "reported expected": float(sum(1.0 - s.probability for s in found.found)),
            "recall nearest": share(actual, nearest),
            "false nearest": len(nearest) * (1.0 - share(nearest, actual)) if nearest else 0.0,
        }
    return out


def published_protocol(name: str, folder: Path, spacing: float, seed: int) -> dict[str, float]:
    """Angular errors on RVGP's own kind of truth: a random field smoothed by a connection Laplacian of their graph."""
    rng = np.random.default_rng(seed)
    points, _, _ = truth.load_mesh(folder / f"{name}.obj")
    start = int(rng.integers(len(points)))
    points = points[furthest_point_sample(points, spacing=spacing * truth.diameter(points), start=start)]
    theirs = PointCloud(points, dim=2, n_neighbors=10, weights="binary")
    i, j = theirs.edges.T
    n = theirs.n
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    rows, cols = np.meshgrid(np.arange(2), np.arange(2), indexing="ij")
    r, c = (2 * i[:, None, None] + rows).ravel(), (2 * j[:, None, None] + cols).ravel()
    upper = scipy.sparse.csr_matrix((-theirs.transports.ravel(), (r, c)), shape=(2 * n, 2 * n))
    laplacian = upper + upper.T + scipy.sparse.diags(np.repeat(degree, 2).astype(float))
    field = expm_multiply(-100.0 * laplacian, rng.standard_normal(2 * n)).reshape(n, 2)
    field /= np.linalg.norm(field, axis=1, keepdims=True)
    vectors = theirs.to_ambient(field)
    train = np.unique(rng.integers(0, n, n // 2))  # with replacement, as theirs
    test = np.setdiff1d(np.arange(n), train)
    out = {"n": n, "train": len(train)}
    for label, cloud in (("20 neighbours, Gaussian", PointCloud(points, dim=2)), ("their graph", theirs)):
        model = VectorFieldGP(cloud)
        result = model.fit(train, vectors[train], progress=False)
        out[f"auto, {label}"] = baselines.angular_error(model.predict(test).mean, vectors[test])
        names = [candidate.name for candidate in result.comparison.candidates if "+" not in candidate.name]
        model.use(next(name for name in names if name.startswith("intrinsic")))  # the one of highest evidence
        out[f"intrinsic, {label}"] = baselines.angular_error(model.predict(test).mean, vectors[test])
    simple = baselines.all_scores(theirs, train, vectors, test, vectors)
    return out | {label: simple[label] for label in ("channel", "linear", "nearest")}
