"""Geometry, spectral bases, random features and Hodge kernels: what was asked for and what was reached.

    python benchmarks/geometry.py [--only PART,...] [--smoke] [--json FILE]

One process, one thread, CPU seconds. Peers (robust_laplacian, potpourri3d, GeometricKernels, plain ARPACK) run in the
same process where they are installed; rows without a peer say so.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib.metadata
import importlib.util
import resource
import sys
import time
from dataclasses import replace

import _measure
import numpy as np
import torch
from _measure import Row, duration
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg
from scipy.spatial import ConvexHull, Delaunay

from gpkit.geometry import CellComplex, Graph, PointCloud, SpectralBasis
from gpkit.kernels import ConnectionLaplacianKernel, HodgeKernel, MarkovKernel, walk_modulation
from gpkit.operators import EigenbasisLinearOperator, RandomFeatureLinearOperator, WalkFeatures

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def fibonacci(n):
    i = np.arange(n)
    z, angle = 1.0 - (2 * i + 1) / n, np.pi * (1.0 + 5.0**0.5) * (i + 0.5)
    r = np.sqrt(1.0 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1)


def on_sphere(n, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return x / np.linalg.norm(x, axis=1)[:, None]


def torus(n, seed=0):
    u, v = np.random.default_rng(seed).uniform(0, 2 * np.pi, (2, n))
    r = 1.0 + 0.4 * np.cos(v)
    return np.stack([r * np.cos(u), r * np.sin(u), 0.4 * np.sin(v)], 1)


def timed(function):
    begun = time.process_time()
    result = function()
    return result, time.process_time() - begun


def sphere_rows(scale):
    """Eigenvalues l(l+1) - 1 with multiplicity 2(2l+1)."""
    section, rows = "Spectrum of the connection Laplacian on the sphere", []
    for name, points, neighbours in (
        ("Fibonacci points", fibonacci(scale["sphere"]), 20),
        ("random points, after one scale", on_sphere(scale["sphere"]), 30),
    ):
        basis = PointCloud(points, dim=2, n_neighbors=neighbours).connection_basis(49, cut=None)
        ends = np.cumsum([0, 6, 10, 14, 18])
        groups = [basis.eigenvalues[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
        ratios = np.array([g.mean() / (degree * (degree + 1) - 1) for degree, g in enumerate(groups, 1)])
        exact = all(two.min() > one.max() for one, two in zip(groups[:-1], groups[1:], strict=True))
        exact = exact and basis.eigenvalues[48] > groups[-1].max() * 1.1
        if "random" in name:
            ratios = ratios / ratios.mean()
        error = 100.0 * float(np.abs(ratios - 1.0).max())
        ours = f"ratios {np.round(ratios, 4).tolist()}, multiplicities {'exact' if exact else 'NOT exact'}"
        limit = 2.0 if "random" in name else 1.0
        rows.append(Row(section, f"n = {len(points):,}, {name}, l <= 4", error, limit, None, ours, "", "%", True))
    if importlib.util.find_spec("potpourri3d"):
        import potpourri3d

        points = fibonacci(scale["sphere"])
        faces = ConvexHull(points).simplices
        inwards = np.linalg.det(points[faces]) < 0.0
        faces[inwards] = faces[inwards, ::-1]
        solver = potpourri3d.MeshVectorHeatSolver(points, faces)
        matrix = solver.get_connection_laplacian()  # complex, one unknown per vertex
        areas = potpourri3d.vertex_areas(points, faces)
        values = sparse_linalg.eigsh(matrix.tocsc(), 24, M=sparse.diags(areas).tocsc(), sigma=-1e-3)[0]
        ends = np.cumsum([0, 3, 5, 7, 9])  # complex multiplicities are half the real ones
        found = np.sort(values)
        ratios = [
            found[a:b].mean() / (degree * (degree + 1) - 1)
            for degree, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True), 1)
        ]
        error = 100.0 * float(np.abs(np.array(ratios) - 1.0).max())
        rows.append(
            Row(
                section,
                "peer: potpourri3d's connection Laplacian, same points with faces",
                error,
                None,
                None,
                "",
                f"ratios {np.round(ratios, 4).tolist()}",
                "%",
                True,
            )
        )
    return rows


def equivariance_rows(scale):
    section = "Equivariance of the ambient kernel"
    points = on_sphere(scale["small"])
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    kernels = []
    for x, turn in ((points, np.eye(3)), (points @ rotation.T, rotation)):
        basis = PointCloud(x, dim=2).connection_basis(60)
        ambient = np.einsum("yx,nyk->nxk", turn, basis.ambient()).reshape(-1, basis.k)
        kernels.append((ambient * np.exp(-0.1 * basis.eigenvalues)) @ ambient.T)
    gap = float(np.abs(kernels[0] - kernels[1]).max() / np.abs(kernels[0]).max())
    return [Row(section, "rotation (which also changes every frame), relative", gap, 1e-9, None, "", "", "", True)]


def build_rows(scale):
    section, rows = "Build: neighbours, frames, transport, assembly", []
    n = scale["large"]
    points = torus(n)
    PointCloud(points[:500], dim=2, components="keep").laplacian()
    for neighbours in (10, 20):
        _, seconds = timed(lambda k=neighbours: PointCloud(points, dim=2, n_neighbors=k).laplacian())
        asked = 3.0 if n >= 100_000 else None
        rows.append(
            Row(
                section,
                f"torus, n = {n:,}, {neighbours} neighbours",
                seconds,
                asked,
                None,
                duration(seconds),
                "",
                "s",
                True,
            )
        )
    return rows


def eigen_rows(scale):
    section, rows = "Eigenpairs of the connection Laplacian", []
    PointCloud(torus(1500), dim=2).connection_basis(20, solver="shift-invert")
    for n, k, asked in scale["eigen"]:
        for neighbours in (10, 20):
            cloud = PointCloud(torus(n), dim=2, n_neighbors=neighbours)
            matrix = cloud.laplacian().symmetric
            basis, seconds = timed(lambda c=cloud, k=k: c.connection_basis(k, cut=None))
            peer = None
            if n * k <= 2_100_000:

                def arpack(a=matrix, k=k):
                    shift = 1e-3 * a.diagonal().mean()
                    factor = sparse_linalg.splu(
                        (a + shift * sparse.identity(a.shape[0])).tocsc(),
                        permc_spec="MMD_AT_PLUS_A",
                        diag_pivot_thresh=0.0,
                        options={"SymmetricMode": True},
                    )
                    inverse = sparse_linalg.LinearOperator(a.shape, factor.solve, dtype=float)
                    return sparse_linalg.eigsh(a, k, sigma=-shift, OPinv=inverse, tol=1e-6)

                peer = timed(arpack)[1]
            said = "" if peer is None else f"SuperLU + ARPACK {duration(peer)}, ratio {peer / seconds:.2g}"
            what = f"n = {n:,}, k = {k}, {neighbours} neighbours, {basis.solver}, residual {basis.residual:.0e}"
            rows.append(Row(section, what, seconds, asked, None, duration(seconds), said, "s", True))
    return rows


def fit_rows(scale):
    """A whole hyper-parameter fit through the operator, the Gram matrix included."""
    section, rows = "Hyper-parameter fit after the basis (30 gradient evaluations, Gram matrix included)", []
    for n, k, asked in scale["fit"]:
        cloud = PointCloud(torus(n), dim=2, n_neighbors=10)
        rng = np.random.default_rng(0)
        functions = np.linalg.qr(rng.standard_normal((2 * n, k)))[0] * np.sqrt(2 * n)
        basis = SpectralBasis(
            np.sort(rng.uniform(0, 50, k)), functions.reshape(n, 2, k), np.ones(n), "connection", 2, manifold=cloud
        )
        kernel = ConnectionLaplacianKernel(basis, "matern")
        x = torch.arange(float(n)).unsqueeze(-1)
        kernel.features(x)
        y = torch.as_tensor(rng.standard_normal((2 * n, 1)))

        def fit(kernel=kernel, x=x, y=y):
            noise = torch.zeros(1, requires_grad=True)
            parameters = [noise, *kernel.parameters()]
            for _ in range(30):
                operator = kernel(x).evaluate_kernel().add_diagonal(noise.exp())
                quad, logdet = operator.inv_quad_logdet(y, logdet=True)
                gradients = torch.autograd.grad(0.5 * (quad + logdet) / len(y), parameters)
                with torch.no_grad():
                    for p, g in zip(parameters, gradients, strict=True):
                        p -= 0.05 * g

        seconds = timed(fit)[1]
        rows.append(Row(section, f"n = {n:,}, k = {k}", seconds, asked, None, duration(seconds), "", "s", True))
    return rows


def walk_rows(scale):
    section, rows = "Graph random features", []
    rng = np.random.default_rng(0)

    def graph(n):
        i = np.repeat(np.arange(n), 3)
        j = (i + rng.integers(1, 50, len(i))) % n
        matrix = sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)).tocsr()
        matrix = matrix + matrix.T
        matrix.data[:] = 1.0
        return Graph(matrix)

    small = graph(500)
    u = small.walk_matrix(0.7)
    exact = np.linalg.inv(np.eye(500) - u.toarray())
    exact = exact @ exact
    f = walk_modulation("regularised-laplacian-2", 64)
    for quasi in (True, False):
        sets = [WalkFeatures.of(u, scale["walks"], quasi=quasi, modulation=f, seed=s) for s in (0, 1)]
        operator = RandomFeatureLinearOperator(torch.ones(1), torch.zeros(500), first=sets[0], second=sets[1])
        error = float(np.linalg.norm(operator.to_dense().numpy() - exact) / np.linalg.norm(exact))
        what = f"(I - U)^-2, n = 500, {scale['walks']} {'spread' if quasi else 'independent'} walks, relative error"
        rows.append(Row(section, what, error, 0.04, None, "unbiased pair", "", "", True))
    n = scale["graph"]
    u = graph(n).walk_matrix(0.7)
    features, build = timed(lambda: WalkFeatures.of(u, 20, longest=20, modulation=f[:21]))
    operator = RandomFeatureLinearOperator(torch.ones(1), torch.zeros(n), first=features)
    _, product = timed(lambda: operator @ torch.randn(n))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    what = f"n = {n:,}, 20 walks: features and one product (peak memory of the process {memory:.1f} GB, 8 allowed)"
    rows.append(
        Row(
            section,
            what,
            build + product,
            60.0,
            None,
            f"{duration(build)} + {duration(product)}, {len(features.loads) / n:.0f} entries per row",
            "",
            "s",
            True,
        )
    )
    return rows


def hodge_rows(scale):
    section = "Hodge kernels: weighted, sparse"
    n, k = scale["complex"], scale["hodge"]
    points = np.random.default_rng(0).random((n, 2))
    triangles = Delaunay(points).simplices
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(sides, 1), axis=0)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(edges))

    def run():
        cells = CellComplex(n, edges, triangles, edge_weights=weights)
        basis = cells.hodge_basis(k // 2, k // 2)
        kernel = HodgeKernel(basis)
        x = torch.arange(float(len(edges))).unsqueeze(-1)
        operator = kernel(x).evaluate_kernel().add_diagonal(torch.tensor([0.1]))
        assert isinstance(operator, EigenbasisLinearOperator)
        operator.inv_quad_logdet(torch.randn(len(edges), 1), logdet=True)

    seconds = timed(run)[1]
    what = f"{len(edges):,} edges, k = {k}: complex, basis, kernel and evidence"
    return [
        Row(
            section,
            what,
            seconds,
            None,
            None,
            duration(seconds),
            "GeometricKernels: dense (E x E), unweighted only; not runnable at this size",
            "s",
            True,
        )
    ]


def precision_rows(scale):
    """Value and gradient of the evidence with all modes, beside SuperLU's factors and dense algebra of the same."""
    section, rows = "Full rank by sparse precision: evidence and gradient", []
    for n, alpha, dense in scale["precision"]:
        cloud = PointCloud(torus(n), dim=2)
        kernel = MarkovKernel.on(cloud, alpha=alpha)
        x = torch.arange(float(n)).unsqueeze(-1)
        y = torch.randn(2 * n, 1, generator=torch.Generator().manual_seed(0))

        def evidence(kernel=kernel, x=x, y=y):
            operator = kernel(x).evaluate_kernel().add_diagonal(torch.tensor([0.1]))
            quad, logdet = operator.inv_quad_logdet(y, logdet=True)
            gradient = torch.autograd.grad(quad + logdet, list(kernel.parameters()))
            return torch.stack([(quad + logdet).detach(), gradient[0].detach()])

        evidence()
        found, seconds = timed(evidence)
        if dense:
            known, peer = timed(lambda k=kernel, c=cloud, y=y: dense_evidence(k, c, y))
            gap = float(((found - known) / known).abs().max())
            said = f"dense {duration(peer)}, values and gradients differ by {gap:.0e}"
            ratio = peer / seconds
        elif float(alpha).is_integer():
            matrix = kernel.pattern.matrix(kernel.precision_values().detach().numpy())
            peer = timed(lambda m=matrix: super_factor(m))[1]
            # One for the prior and one for the posterior; neither solves nor gradients.
            said, ratio = f"two SuperLU factors, nothing else, {duration(2 * peer)}", 2.0 * peer / seconds
        else:
            said, ratio = f"sum of {len(kernel.poles)} processes, error of the power {kernel.power_error:.0e}", None
        what = f"torus, n = {n:,} ({2 * n:,} unknowns), alpha = {alpha}, 20 neighbours"
        if ratio is None:
            rows.append(Row(section, what, seconds, None, None, duration(seconds), said, "s", True))
        else:
            rows.append(Row(section, what, ratio, None, None, duration(seconds), said))
    return rows


def super_factor(matrix):
    return sparse_linalg.splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    ).U


def dense_evidence(kernel, cloud, y):
    """The same evidence and its derivative by torch's dense algebra."""
    pattern, mass = kernel.pattern, torch.as_tensor(cloud.laplacian().mass)
    places = torch.as_tensor(pattern.rows), torch.as_tensor(pattern.columns)
    prior = torch.zeros(len(y), len(y)).index_put(places, kernel.precision_values())
    prior_factor = torch.linalg.cholesky(prior)
    factor = torch.linalg.cholesky(prior + torch.diag(1.0 / (0.1 * mass)))
    logdet = 2.0 * (factor.diagonal().log().sum() - prior_factor.diagonal().log().sum()) + len(y) * np.log(0.1)
    inner = torch.linalg.solve_triangular(factor, y / (0.1 * mass.sqrt().unsqueeze(-1)), upper=False)
    value = y.square().sum() / 0.1 - inner.square().sum() + logdet
    gradient = torch.autograd.grad(value, list(kernel.parameters()))
    return torch.stack([value.detach(), gradient[0].detach()])


PARTS = {
    "sphere": sphere_rows,
    "equivariance": equivariance_rows,
    "build": build_rows,
    "eigen": eigen_rows,
    "fit": fit_rows,
    "walks": walk_rows,
    "hodge": hodge_rows,
    "precision": precision_rows,
}
FULL = {
    "sphere": 10_000,
    "small": 1_500,
    "large": 100_000,
    "eigen": [(10_000, 200, 10.0), (100_000, 50, 45.0)],
    "fit": [(100_000, 50, 1.0), (10_000, 500, 5.0)],
    "walks": 1000,
    "graph": 1_000_000,
    "complex": 33_500,
    "hodge": 200,
    "precision": [(1_500, 2, True), (1_500, 3, True), (5_000, 2, False), (5_000, 3, False), (600, 2.5, False)],
}
SMOKE = {
    "sphere": 1_500,
    "small": 300,
    "large": 2_000,
    "eigen": [(1_500, 20, None)],
    "fit": [(400, 20, None)],
    "walks": 50,
    "graph": 2_000,
    "complex": 120,
    "hodge": 20,
    "precision": [(300, 2, True), (300, 3, False), (100, 2.5, False)],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--json", help="write the rows to this file")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    for name in chosen:
        if name not in PARTS:
            print(f"no such part: {name}", file=sys.stderr)
            return 2
    facts = _measure.header()
    for name, module in (
        ("robust-laplacian", "robust_laplacian"),
        ("potpourri3d", "potpourri3d"),
        ("pymetis", "pymetis"),
    ):
        found = importlib.util.find_spec(module) is not None
        facts["versions"][name] = importlib.metadata.version(name) if found else _measure.NOT_INSTALLED
    print(_measure.markdown_header(facts), "\n")
    rows = []
    for name in chosen:
        found = PARTS[name](SMOKE if arguments.smoke else FULL)
        if arguments.smoke:  # the limits are for full sizes
            found = [replace(row, asked=None) for row in found]
        print(_measure.markdown(found, found[0].section), "\n", flush=True)
        rows += found
    print(_measure.summary(rows))
    if arguments.json:
        _measure.write_json(arguments.json, facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
