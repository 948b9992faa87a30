"""Eigenfunctions of a Laplacian as the coordinates of Gaussian processes, with their values between the nodes."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.checks import positive_integer
from gpkit.errors import DataWarning, GpkitError, InvalidDataError
from gpkit.files import atomic_path
from gpkit.geometry.checks import Floats, as_indices
from gpkit.geometry.eigensolvers import smallest_eigenpairs
from gpkit.geometry.fingerprint import fingerprint
from gpkit.geometry.laplacian import Laplacian

__all__ = ["Extension", "SpectralBasis", "cut_at_gap"]

_FORMAT = 1
_RATIO = 0.5
"""Nystrom extension damps modes whose eigenvalue exceeds this share of the degree of a place."""


@dataclass(frozen=True, eq=False)
class Extension:
    """Eigenfunctions at places that are not nodes.

    Attributes:
        features: (m, d, k), in the frames below; zero at far places.
        frames: (m, D, d).
        distance: (m,), to the nearest node, in units of the data.
        far: (m,), places about which the nodes say nothing.
        ratio: (m,), largest ``lam m_x / d_x`` over the modes: above 0.5 the fastest modes are damped there.
    """

    features: Floats
    frames: Floats
    distance: Floats
    far: NDArray[np.bool_]
    ratio: Floats


def cut_at_gap(values: Floats, k: int) -> int:
    """Number of modes, at most k and at least 0.9 k, after which the relative gap of the spectrum is largest.

    Cutting through a multiplet of a symmetric shape would make the kernel depend on how the solver turned the
    eigenvectors inside of it. ``values`` holds one eigenvalue more than k, or exactly k where the spectrum ends there.
    """
    if len(values) <= k:
        return len(values)
    least = max(1, int(np.ceil(0.9 * k)))
    upper, lower = values[least : k + 1], values[least - 1 : k]
    gaps = (upper - lower) / np.maximum(upper, 1e-300)
    # The last of nearly equal gaps: no mode is given up for nothing.
    best = np.flatnonzero(gaps >= 0.999 * gaps.max())[-1]
    return least + int(best)


@dataclass(frozen=True, eq=False)
class SpectralBasis:
    """The smoothest k functions or vector fields on n nodes.

    Attributes:
        eigenvalues: (k,), increasing, in 1 / length^2 (1 for graphs without lengths).
        functions: (n, d, k), scaled such that the mass-weighted mean square over the n d coordinates is 1 for each:
            ``Phi diag(S) Phi^T`` has mean diagonal ``sum(S)``.
        mass: (n,), mean 1.
        kind: "connection", "scalar", "graph", "gradient", "curl" or "harmonic".
        dim: dimension of the manifold, for the exponents of Matern filters.
        solver: which solver found it.
        residual: largest residual of an eigenpair, relative to the norm of the Laplacian.
        next_eigenvalue: the first eigenvalue that was left out, nan if none is known.
        manifold: where it lives, for frames and places between the nodes; None on graphs.
    """

    eigenvalues: Floats
    functions: Floats
    mass: Floats
    kind: str = "scalar"
    dim: int = 2
    solver: str = "given"
    residual: float = 0.0
    next_eigenvalue: float = float("nan")
    manifold: Any = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        laplacian: Laplacian,
        k: int,
        *,
        components: int = 1,
        kind: str = "scalar",
        dim: int | None = None,
        manifold: Any = None,
        solver: str = "auto",
        cut: str | None = "gap",
        cache: str | Path | None = None,
    ) -> SpectralBasis:
        """Solve for the k smallest eigenpairs of a Laplacian.

        Args:
            laplacian: of N = n d unknowns.
            k: how many; all N if there are fewer.
            components: d, unknowns per node.
            kind: of the basis.
            dim: dimension for Matern filters; that of the manifold by default.
            manifold: where the nodes are.
            solver: "auto", "dense", "shift-invert" or "lobpcg"; see :func:`smallest_eigenpairs`.
            cut: "gap" to keep between 0.9 k and k modes and stop at the largest gap; None for exactly k.
            cache: folder in which the basis is kept under a hash of the Laplacian and the arguments.

        Raises:
            InvalidDataError: an unknown solver or cut, or k below 1.
            ConvergenceError: the solver did not converge.

        Warns:
            DataWarning: the cache cannot be written; the basis is returned all the same.
        """
        k = min(positive_integer(k, "k"), laplacian.size)
        if cut not in ("gap", None):
            raise InvalidDataError(f"cut must be 'gap' or None, got {cut!r}")
        if dim is None:
            dim = 2 if manifold is None else manifold.dim
        path = None
        if cache is not None:
            stiffness = laplacian.stiffness
            key = fingerprint(
                stiffness.indptr, stiffness.indices, stiffness.data, laplacian.mass, components, kind, k, solver, cut
            )
            path = Path(cache) / f"basis-{key[:32]}.npz"
            if path.exists():
                found = _read(path)
                if found is not None:
                    return dataclasses.replace(found, manifold=manifold)
        pairs = smallest_eigenpairs(laplacian.symmetric, min(k + 1, laplacian.size), solver, components)
        kept = cut_at_gap(pairs.values, k) if cut == "gap" else k
        functions = pairs.vectors[:, :kept] * np.sqrt(laplacian.size / laplacian.mass)[:, None]
        following = float(pairs.values[kept]) if len(pairs.values) > kept else float("nan")
        basis = cls(
            eigenvalues=pairs.values[:kept].copy(),
            functions=functions.reshape(-1, components, kept),
            mass=laplacian.mass[::components].copy(),
            kind=kind,
            dim=dim,
            solver=pairs.solver,
            residual=pairs.residual,
            next_eigenvalue=following,
            manifold=manifold,
        )
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                basis.save(path)
            except OSError as error:  # the solution is worth more than its copy on disk
                warnings.warn(f"the basis could not be kept in {path.parent}: {error}", DataWarning, stacklevel=2)
        return basis

    def __repr__(self) -> str:
        values = f", eigenvalues {self.eigenvalues[0]:.4g} to {self.eigenvalues[-1]:.4g}" if self.k else ""
        gap = "" if np.isnan(self.gap) else f", gap {self.gap:.2g}"
        return (
            f"SpectralBasis({self.kind}, {self.k} modes on {self.n} nodes{values}{gap}; {self.solver}, "
            f"residual {self.residual:.1e})"
        )

    # -- sizes ----------------------------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Number of modes."""
        return len(self.eigenvalues)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.functions)

    @property
    def components(self) -> int:
        """Unknowns d per node: the dimension for vector fields, 1 for functions."""
        return self.functions.shape[1]

    @property
    def complete(self) -> bool:
        """Whether every mode is there, so that nothing is cut off."""
        return self.k == self.n * self.components

    @property
    def null_modes(self) -> int:
        """Number of eigenvalues that are zero to solver precision."""
        top = max(float(self.eigenvalues.max()), 1e-300) if self.k else 1.0
        return int((self.eigenvalues < 1e-8 * top).sum())

    @property
    def gap(self) -> float:
        """Relative gap between the last mode and the next one, nan if the next one is unknown."""
        if not self.k or not np.isfinite(self.next_eigenvalue):
            return float("nan")
        return float((self.next_eigenvalue - self.eigenvalues[-1]) / max(self.next_eigenvalue, 1e-300))

    def truncate(self, k: int) -> SpectralBasis:
        """The first k modes."""
        k = positive_integer(k, "k")
        if k >= self.k:
            return self
        return dataclasses.replace(
            self,
            eigenvalues=self.eigenvalues[:k].copy(),
            functions=np.ascontiguousarray(self.functions[:, :, :k]),
            next_eigenvalue=float(self.eigenvalues[k]),
        )

    # -- values ---------------------------------------------------------------------------------------------------

    def features(self, where: Any = None) -> Floats:
        """Rows (m d, k) of the modes at nodes, point by point: row i d + a is coordinate a at the i-th node."""
        chosen = self.functions if where is None else self.functions[as_indices(where, self.n)]
        return chosen.reshape(-1, self.k)

    def ambient(self, where: Any = None) -> Floats:
        """The modes as vectors (m, D, k) in the space around the manifold.

        Raises:
            InvalidDataError: not a basis of vector fields on a manifold.
        """
        if self.manifold is None or self.kind != "connection":
            raise InvalidDataError(f"a {self.kind} basis has no ambient vectors; take a connection basis of a manifold")
        nodes = as_indices(where, self.n)
        return np.asarray(self.manifold.frames[nodes] @ self.functions[nodes])

    def extend(self, places: Any) -> Extension:
        r"""The modes at places between the nodes, by Nystrom extension with transport.

        Mode l at x is :math:`\sum_j w_{xj} O_{xj} u_l(x_j) / (d_x - \lambda_l m_x)`, the row that x would have in the
        eigenvalue problem. On meshes the values at the corners of the nearest triangle are moved to x and interpolated.

        Args:
            places: (m, D) points, or what :meth:`Manifold.locate` said about them.

        Raises:
            InvalidDataError: a basis that does not know its manifold.

        Warns:
            DataWarning: places are far from the nodes (their features are zero), or too few nodes are around them to
                resolve the fastest modes (which are damped).
        """
        if self.manifold is None:
            raise InvalidDataError("this basis does not know where its nodes are: values between them are undefined")
        from gpkit.geometry.manifold import Location

        location = places if isinstance(places, Location) else self.manifold.locate(places)
        features, ratio = self._nystrom(location)
        if location.far.any():
            warnings.warn(
                f"{int(location.far.sum())} of {len(location)} places are far from the nodes (the furthest by "
                f"{location.distance.max():.4g}): the prior is returned there",
                DataWarning,
                stacklevel=2,
            )
        crowded = (ratio > _RATIO) & ~location.far
        if crowded.any():
            warnings.warn(
                f"the fastest of {self.k} modes vary within the neighbourhoods of {int(crowded.sum())} of "
                f"{len(location)} places and are damped there; use fewer modes or more nodes",
                DataWarning,
                stacklevel=2,
            )
        return Extension(features, location.frames, location.distance, location.far, ratio)

    def _nystrom(self, location: Any, chunk: int = 20_000) -> tuple[Floats, Floats]:
        m, d = len(location), self.components
        features = np.empty((m, d, self.k))
        degree = location.weights.sum(1)
        degree = np.where(degree > 0.0, degree, 1.0)
        share = location.mass / degree
        step = max(1, chunk // max(1, self.k // 10))
        for start in range(0, m, step):
            part = slice(start, start + step)
            around = self.functions[location.neighbours[part]]
            if self.kind == "connection":
                around = location.transports[part] @ around
            weights = location.weights[part] / degree[part, None]
            values = np.einsum("mk,mkdl->mdl", weights, around)
            values /= 1.0 - np.minimum(share[part, None] * self.eigenvalues, _RATIO)[:, None, :]
            features[part] = values
        known = np.flatnonzero(location.nodes >= 0)
        features[known] = self.functions[location.nodes[known]]
        features[location.far] = 0.0
        ratio = share * (float(self.eigenvalues[-1]) if self.k else 0.0)
        ratio[known] = 0.0
        return features, ratio

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the basis to an npz file (without the manifold), under its name only when it is complete."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                format=_FORMAT,
                eigenvalues=self.eigenvalues,
                functions=self.functions,
                mass=self.mass,
                text=np.array([self.kind, self.solver]),
                numbers=np.array([self.dim, self.residual, self.next_eigenvalue]),
            )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, manifold: Any = None) -> SpectralBasis:
        """Read a basis that :meth:`save` wrote; give the manifold again for frames and extension.

        Raises:
            InvalidDataError: not such a file, or a manifold with another number of nodes.
        """
        found = _read(Path(path))
        if found is None:
            raise InvalidDataError(f"{path} is not a basis that gpkit wrote")
        if manifold is not None and manifold.n != found.n:
            raise InvalidDataError(f"the basis in {path} has {found.n} nodes, the manifold {manifold.n}")
        return dataclasses.replace(found, manifold=manifold)


def _read(path: Path) -> SpectralBasis | None:
    """The basis in a file; None if it is not one (a cache that was written by another version is rebuilt)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != _FORMAT:
                return None
            kind, solver = (str(word) for word in file["text"])
            dim, residual, following = (float(number) for number in file["numbers"])
            return SpectralBasis(
                eigenvalues=file["eigenvalues"],
                functions=file["functions"],
                mass=file["mass"],
                kind=kind,
                dim=int(dim),
                solver=solver,
                residual=residual,
                next_eigenvalue=following,
            )
    except FileNotFoundError as error:
        raise InvalidDataError(f"there is no file {path}") from error
    except (OSError, ValueError, KeyError, EOFError, GpkitError):
        return None
