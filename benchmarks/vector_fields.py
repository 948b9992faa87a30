"""Vector fields: cost of fits after the basis, gauge and rotation, places between nodes, movies, derivatives.

python benchmarks/vector_fields.py [--only PART,...] [--quick]

One thread. CPU seconds are of the process. The peer of the fits is the same model as a dense GPyTorch marginal
likelihood at the same points and parameters, measured at a size that it can hold; the peer of the movie is one fit per
frame, that of the derivatives linear fits to the same neighbours.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
import warnings
from importlib import metadata

import numpy as np
import torch
from _field_derivatives import derivatives

from gpkit.errors import DataWarning
from gpkit.geometry import PointCloud
from gpkit.inference.log_parameters import maximise_log
from gpkit.kernels import MaternKernel
from gpkit.models import VectorFieldGP, VectorMovieGP
from gpkit.models.fields.kernels import make_terms
from gpkit.models.fields.movie_regression import MovieRegression, TimeKernel
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.terms import Scales


def torus(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform points on a torus (R = 1, r = 0.4) and a tangent field that no Laplacian has made."""
    u, v = np.zeros(0), np.zeros(0)
    while len(u) < n:
        a, b, keep = rng.uniform(0.0, 2.0 * math.pi, (3, 2 * n))
        chosen = keep / (2.0 * math.pi) * 1.4 < 1.0 + 0.4 * np.cos(b)
        u, v = np.concatenate([u, a[chosen]])[:n], np.concatenate([v, b[chosen]])[:n]
    along = np.stack([-np.sin(u), np.cos(u), np.zeros(n)], axis=1)
    around = np.stack([-np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v)], axis=1)
    points = np.stack([(1 + 0.4 * np.cos(v)) * np.cos(u), (1 + 0.4 * np.cos(v)) * np.sin(u), 0.4 * np.sin(v)], axis=1)
    return points, np.cos(2.0 * u + v)[:, None] * along + np.sin(u - 2.0 * v)[:, None] * around


def cpu(function):
    begun = time.process_time()
    result = function()
    return result, time.process_time() - begun


def regression(model: VectorFieldGP, name: str, where: np.ndarray, vectors: np.ndarray) -> FieldRegression:
    coordinates = model.manifold.to_tangent(vectors, where)[0]
    scales = Scales(model.manifold.scale, float(np.sqrt(np.square(coordinates).mean())))
    _ = model.basis
    return FieldRegression(make_terms(name, model._setting(scales)), model.sites(where), coordinates, scales)


def fits(sizes: list[tuple[int, int]]) -> None:
    """Complete fits (statistics, scan, optimisation, Laplace) of the heat kernel on all nodes, basis given."""
    columns = ("build s", "basis s", "fit s", "calls", "step ms")
    print(f"{'fit after the basis':34s} " + " ".join(f"{column:>8s}" for column in columns))
    rng = np.random.default_rng(0)
    for n, k in sizes:
        points, vectors = torus(n, rng)
        cloud, build = cpu(lambda points=points: PointCloud(points, dim=2))
        model = VectorFieldGP(cloud, "intrinsic:heat", rank=k, full_below=0)
        basis, eigen = cpu(lambda model=model: model.basis)
        noisy = vectors + 0.1 * rng.standard_normal(vectors.shape)

        def fit(model: VectorFieldGP = model, noisy: np.ndarray = noisy, n: int = n):
            made = regression(model, "intrinsic:heat", np.arange(n), noisy)
            return made, maximise_log(made)

        (made, found), seconds = cpu(fit)
        _, step = cpu(lambda made=made, found=found: [made.value_and_gradient(found.theta) for _ in range(5)])
        label = f"n = {n}, k = {basis.k}"
        print(f"{label:34s} {build:8.2f} {eigen:8.2f} {seconds:8.2f} {found.evaluations:8d} {200.0 * step:8.1f}")


def peer(n: int, k: int) -> None:
    """One value and gradient: the reduced evidence, and GPyTorch's dense one of the same covariance."""
    import gpytorch

    rng = np.random.default_rng(1)
    points, vectors = torus(n, rng)
    model = VectorFieldGP(PointCloud(points, dim=2), "intrinsic:heat", rank=k, full_below=0)
    made = regression(model, "intrinsic:heat", np.arange(n), vectors + 0.1 * rng.standard_normal(vectors.shape))
    theta = np.log([p.start for p in made.parameters])
    made.value_and_gradient(theta)
    (value, _), ours = cpu(lambda: made.value_and_gradient(theta))
    targets = torch.from_numpy(made.targets)

    def dense():
        at = torch.tensor(theta, requires_grad=True)
        _, parts = made.split(at)
        features = made.algebra.features * torch.exp(0.5 * made.algebra.log_spectrum(parts))
        covariance = features @ features.mT + torch.exp(2.0 * at[0]) * torch.eye(len(targets), dtype=torch.float64)
        normal = gpytorch.distributions.MultivariateNormal(torch.zeros(len(targets)).double(), covariance)
        with gpytorch.settings.fast_computations(False, False, False):
            result = normal.log_prob(targets)
        result.backward()
        return float(result.detach())

    theirs_value, theirs = cpu(dense)
    version = metadata.version("gpytorch")
    print(
        f"\nvalue and gradient, {2 * n} rows, k = {k}: {1e3 * ours:.1f} ms; dense, by GPyTorch {version}: "
        f"{1e3 * theirs:.0f} ms; ratio {theirs / ours:.0f}; difference of values {abs(value - theirs_value):.1e}"
    )


def nystrom(n: int, train: int, unseen: int) -> None:
    """Angular error at unseen places relative to that at nodes of the graph, by kernel."""
    rng = np.random.default_rng(2)
    points, vectors = torus(n + unseen, rng)
    cloud = PointCloud(points[:n], dim=2)
    where = rng.permutation(n)[:train]
    test = np.setdiff1d(np.arange(n), where)

    def angle(found: np.ndarray, true: np.ndarray) -> float:
        cosine = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())

    print(f"\n{'places between the nodes':34s} {'nodes':>8s} {'unseen':>8s} {'ratio':>8s}   (asked: at most 1.25)")
    for name in ("intrinsic:heat", "intrinsic:matern2", "helmholtz:rbf"):
        model = VectorFieldGP(cloud, name, rank=150, full_below=0)
        model.fit(where, vectors[:n][where], progress=False)
        inside = angle(model.predict(test).mean, vectors[:n][test])
        outside = angle(model.predict(points[n:]).mean, vectors[n:])
        print(f"{name:34s} {inside:8.2f} {outside:8.2f} {outside / inside:8.2f}")


def equivariance(n: int) -> None:
    """Largest change of the ambient prediction under random gauges and a random rotation of space."""
    import dataclasses

    rng = np.random.default_rng(3)
    points, vectors = torus(n, rng)
    cloud = PointCloud(points, dim=2)
    model = VectorFieldGP(cloud, "helmholtz:rbf")
    where = np.arange(0, n, 3)
    model.fit(where, vectors[where], progress=False)
    made = model._fitted().regression
    theta = model._fitted().fit.theta
    angle = rng.uniform(0.0, 2.0 * math.pi, len(where))
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    space = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    space *= np.sign(np.linalg.det(space))
    moved = dataclasses.replace(
        made.sites,
        frames=torch.from_numpy(space @ made.sites.frames.numpy() @ turn),
        points=torch.from_numpy(np.asarray(made.sites.points) @ space.T),
    )
    values = np.einsum("mab,ma->mb", turn, made.values)
    other = FieldRegression(made.terms, moved, values, made.scales)
    first = made.posterior(theta).moments(made.sites)[0]
    second = other.posterior(theta).moments(moved)[0]
    before = np.einsum("FD,mDd,md->mF", space, made.sites.frames.numpy(), first)
    after = np.einsum("mFd,md->mF", moved.frames.numpy(), second)
    change = np.abs(before - after).max() / np.abs(before).max()
    print(f"\ngauge and rotation, {n} nodes: largest relative change of the mean {change:.1e} (asked: < 1e-9)")


def movie(n: int, modes: int, lengths: list[int]) -> None:
    """CPU seconds per frame of one value and gradient; the cost is linear in the number of frames."""
    rng = np.random.default_rng(4)
    points, vectors = torus(n, rng)
    model = VectorMovieGP(PointCloud(points, dim=2), "intrinsic:heat", rank=modes)
    basis = model.basis
    print(f"\n{'movie: value and gradient':34s} {'frames':>8s} {'CPU s':>8s} {'ms a frame':>10s}")
    for frames in lengths:
        times = np.linspace(0.0, 10.0, frames)
        values = np.cos(times)[:, None, None] * model.manifold.to_tangent(vectors)[0][None]
        values = values + 0.1 * rng.standard_normal(values.shape)
        scales = Scales(model.manifold.scale, float(values.std()))
        time_kernel = TimeKernel.of(MaternKernel(1.5), 10.0, 10.0 / frames)
        made = MovieRegression(
            make_terms("intrinsic:heat", model._setting(scales)), model.sites(), times, values, scales, time_kernel
        )
        theta = np.log([p.start for p in made.parameters])
        made.value_and_gradient(theta)
        _, seconds = cpu(lambda made=made, theta=theta: made.value_and_gradient(theta))
        label = f"n = {n}, k = {basis.k}"
        print(f"{label:34s} {frames:8d} {seconds:8.2f} {1e3 * seconds / frames:10.2f}")


PARTS = {
    "fits": lambda quick: fits([(1000, 50)] if quick else [(10_000, 50), (10_000, 500), (100_000, 50)]),
    "peer": lambda quick: peer(300 if quick else 1500, 50 if quick else 200),
    "places": lambda quick: nystrom(*((600, 200, 100) if quick else (3000, 900, 1000))),
    "equivariance": lambda quick: equivariance(150 if quick else 600),
    "movie": lambda quick: movie(*((200, 20, [20, 40]) if quick else (1000, 100, [100, 1000]))),
    "derivatives": derivatives,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args()
    chosen = options.only.split(",")
    for name in chosen:
        if name not in PARTS:
            print(f"no such part: {name}; there are {', '.join(PARTS)}", file=sys.stderr)
            return 2
    warnings.simplefilter("ignore", DataWarning)
    torch.set_num_threads(1)
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("numpy", "scipy", "torch"))
    print(f"Python {platform.python_version()}, {versions}, one thread\n")
    for name in chosen:
        PARTS[name](options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
