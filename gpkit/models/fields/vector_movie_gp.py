"""Movies of tangent vector fields: a manifold's covariance times a Markov kernel in time, linear in the frames."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.checks import positive_integer
from gpkit.errors import ConvergenceError, DataWarning, InvalidDataError, NotPositiveDefiniteError
from gpkit.geometry import Manifold, SpectralBasis
from gpkit.geometry.point_cloud import as_manifold
from gpkit.inference.log_parameters import LogFit, maximise_log
from gpkit.kernels import MaternKernel, StateSpaceKernel
from gpkit.models.fields.kernels import Setting, candidates, make_terms
from gpkit.models.fields.movie_regression import MoviePosterior, MovieRegression, TimeKernel
from gpkit.models.fields.observations import as_numbers, as_places
from gpkit.models.fields.predictions import FieldPrediction
from gpkit.models.fields.selection import best_start
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.spectral_term import SpectralPart, SpectralTerm
from gpkit.models.fields.storage import load_field, save_field
from gpkit.models.fields.terms import Scales

__all__ = ["MoviePrediction", "VectorMovieGP"]

Array = NDArray[np.float64]

_SHORT_LIST = ("intrinsic:heat", "intrinsic:matern2", "projected:matern52", "projected:rbf")
_SHORT_SURFACE = (*_SHORT_LIST, "helmholtz:matern72", "helmholtz:rbf")
_TAIL = 0.05
"""Share of an intrinsic kernel's variance that may lie beyond the basis before somebody is told."""


@dataclass(frozen=True, eq=False)
class MoviePrediction:
    """A tangent vector field at T times and m places.

    Attributes:
        times: (T,).
        frames: Tangent frames, (m, D, d).
        tangent_mean: (T, m, d).
        covariance: Of the tangent coordinates at each time and place, (T, m, d, d).
        noise: Standard deviation of the noise of an observation.
        far: Places too far from the nodes, (m,).
        distance: To the nearest node, (m,).
    """

    times: Array
    frames: Array
    tangent_mean: Array
    covariance: Array
    noise: float
    far: NDArray[np.bool_]
    distance: Array
    _draw: Any = None

    @property
    def mean(self) -> Array:
        """Mean vectors in the ambient space, (T, m, D)."""
        return np.einsum("mad,tmd->tma", self.frames, self.tangent_mean)

    def at(self, index: int) -> FieldPrediction:
        """The field at one of the times."""
        return FieldPrediction(
            self.frames,
            self.tangent_mean[[index]],
            self.covariance[[index]],
            np.array([self.noise]),
            self.far,
            self.distance,
        )

    def sample(self, n: int = 1, seed: int = 0) -> Array:
        """Joint draws (n, T, m, D)."""
        return np.einsum("mad,ntmd->ntma", self.frames, self._draw(n, seed))


class VectorMovieGP:
    """Gaussian process of a tangent vector field that changes in time.

    Args:
        manifold: A manifold, or points (n, D).
        kernel: Covariance in space: "auto" compares a short list of intrinsic, projected and Helmholtz kernels by
            evidence; or a name as for :class:`VectorFieldGP`. Where places differ between frames it must be intrinsic.
        temporal: "matern12", "matern32" or "matern52", or a state-space kernel of unit variance.
        rank: Number of eigenfields of intrinsic kernels.

    Attributes:
        fits: Of the kernels that were compared, by name.
        best: Name of the kernel with the highest evidence, which predicts.
        notes: What the reader of the fit should know, in sentences.

    Raises:
        InvalidDataError: unknown kernels, or a rank that is no positive integer.
    """

    def __init__(
        self,
        manifold: Manifold | Any,
        kernel: str = "auto",
        *,
        temporal: str | StateSpaceKernel = "matern32",
        rank: int = 100,
    ) -> None:
        self.manifold = as_manifold(manifold)
        self.kernel, self.rank = kernel, positive_integer(rank, "rank")
        smoothness = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
        if not isinstance(temporal, StateSpaceKernel) and temporal not in smoothness:
            raise InvalidDataError(f"temporal must be one of {', '.join(smoothness)} or a kernel, got {temporal!r}")
        self.temporal = MaternKernel(smoothness[temporal]) if isinstance(temporal, str) else temporal
        self._bases: dict[str, SpectralBasis] = {}
        self.fits: dict[str, LogFit] = {}
        self.best = ""
        self.notes: tuple[str, ...] = ()
        self._regression: MovieRegression | None = None
        candidates(kernel, self._setting(Scales(1.0, 1.0)))

    @property
    def basis(self) -> SpectralBasis:
        """Eigenfields of the connection Laplacian."""
        if "connection" not in self._bases:
            size = self.manifold.n * self.manifold.dim
            self._bases["connection"] = self.manifold.connection_basis(min(self.rank, size))
        return self._bases["connection"]

    def _setting(self, scales: Scales) -> Setting:
        return Setting(
            scales=scales,
            dim=self.manifold.dim,
            oriented=self.manifold.dim == 2 and self.manifold.orientable,
            ambient=True,
            vector=True,
            parts=lambda member: [SpectralPart.of("connection", self.basis)],
        )

    def sites(self, where: Any = None) -> Sites:
        """Places by node numbers, a mask, or points (m, D); all nodes if None."""
        places = as_places(where, self.manifold.n, self.manifold.ambient_dim, self.manifold)
        if places.ndim == 1:
            nodes = np.asarray(places, dtype=np.int64)
            return node_sites(self.manifold.frames, self.manifold.points, self._bases, nodes)
        return point_sites(self.manifold, self._bases, places)

    def fit(self, times: Any, where: Any, vectors: Any, *, starts: int = 1, seed: int = 0) -> LogFit:
        """Condition on frames.

        Args:
            times: (F,), in any order, all different.
            where: Node numbers, a mask or points: m places, observed in some or all frames.
            vectors: (F, m, D); a vector of NaN says that a place was not observed in a frame.
            starts: Starts of each fit beyond the scan of length scales.
            seed: Of the starts.

        Raises:
            InvalidDataError: data that cannot be used.
            ConvergenceError: no kernel could be fitted.

        Warns:
            DataWarning: what :attr:`notes` say.
        """
        starts = positive_integer(starts, "starts")
        times, order = _ordered(times)
        table = as_numbers(vectors, "vectors", "a table (F, m, D) of numbers")
        places = as_places(where, self.manifold.n, self.manifold.ambient_dim, self.manifold)
        wanted = (len(times), len(places), self.manifold.ambient_dim)
        if table.shape != wanted:
            raise InvalidDataError(f"vectors must be {wanted} for these times and places, got {table.shape}")
        table = table[order]
        missing = np.isnan(table)
        if (missing.any(2) != missing.all(2)).any() or np.isinf(table).any():
            frame, place = (int(i[0]) for i in np.nonzero((missing.any(2) != missing.all(2)) | np.isinf(table).any(2)))
            raise InvalidDataError(f"the vector of place {place} in frame {frame} is neither finite nor missing")
        if missing.all() or not np.nan_to_num(table).any():
            raise InvalidDataError("there is no vector other than zero in any frame")
        names = candidates(self.kernel, self._setting(Scales(1.0, 1.0)))
        if self.kernel == "auto":
            short = _SHORT_SURFACE if self.manifold.dim >= 2 else _SHORT_LIST
            names = [name for name in names if name in short]
            if missing.any():
                names = [name for name in names if name.startswith("intrinsic")]
        if any("intrinsic" in name for name in names):
            _ = self.basis
        sites = self.sites(places)
        values = np.einsum("mDa,fmD->fma", sites.frames.numpy(), table)
        scales = Scales(self.manifold.scale, float(np.sqrt(np.nanmean(np.square(values)))))
        span = float(times[-1] - times[0]) if len(times) > 1 else 1.0
        step = float(np.diff(times).min()) if len(times) > 1 else 1.0
        time = TimeKernel.of(self.temporal, span, step)
        self.fits, self._posterior = {}, None
        chosen: list[tuple[float, str, MovieRegression]] = []
        failures = []
        for name in names:
            regression = MovieRegression(make_terms(name, self._setting(scales)), sites, times, values, scales, time)
            try:
                fit = maximise_log(regression, starts=starts, seed=seed, init=[best_start(regression)])
            except (ConvergenceError, NotPositiveDefiniteError) as error:
                failures.append(f"{name}: {error}")
                continue
            self.fits[name] = fit
            chosen.append((fit.log_evidence, name, regression))
        if not chosen:
            raise ConvergenceError("no kernel could be fitted (" + "; ".join(failures) + ")")
        _, self.best, self._regression = max(chosen, key=lambda found: found[0])
        self.notes = tuple(_notes(self.best, self._regression, self.fits[self.best], failures))
        for note in self.notes:
            warnings.warn(note, DataWarning, stacklevel=2)
        return self.fits[self.best]

    def _fitted(self) -> MoviePosterior:
        if self._regression is None:
            raise InvalidDataError("VectorMovieGP has not been fitted: call fit(times, where, vectors) first")
        if self._posterior is None:
            self._posterior = self._regression.posterior(self.fits[self.best].theta)
        return self._posterior

    _posterior: MoviePosterior | None = None

    def predict(self, times: Any, where: Any = None) -> MoviePrediction:
        """The field at times (T,) in any order, before, between and after the frames, at nodes or points.

        Raises:
            InvalidDataError: not fitted, or times or places that cannot be used.
        """
        posterior = self._fitted()
        at = np.atleast_1d(as_numbers(times, "times", "finite numbers (T,)"))
        if at.ndim != 1 or not np.isfinite(at).all():
            raise InvalidDataError("times must be finite numbers (T,)")
        sites = self.sites(where)
        mean, covariance = posterior.moments(at, sites)
        return MoviePrediction(
            times=at,
            frames=sites.frames.numpy(),
            tangent_mean=mean,
            covariance=covariance,
            noise=posterior.noise,
            far=sites.far,
            distance=sites.distance,
            _draw=lambda n, seed: posterior.draw(at, sites, n, seed),
        )

    def save(self, path: Any) -> Any:
        """Write the model to one file; see :meth:`VectorFieldGP.save`."""
        return save_field(self, path)

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read what :meth:`save` wrote.

        Raises:
            InvalidDataError: not such a file.
        """
        return load_field(path, cls)


def _notes(name: str, regression: MovieRegression, fit: LogFit, failures: list[str]) -> list[str]:
    """What the reader of a fit should know, in sentences."""
    notes = [f"no fit of {failure}" for failure in failures]
    _, _, parts = regression.split(torch.from_numpy(fit.theta))
    for term, part in zip(regression.terms, parts, strict=True):
        share = term.tail(part) if isinstance(term, SpectralTerm) else 0.0
        if isinstance(term, SpectralTerm) and share > _TAIL:
            notes.append(
                f"{len(term.part.eigenvalues)} modes are too few for {term.name}: those beyond would have about "
                f"{100 * share:.0f} % of its variance, which now counts as noise; raise rank"
            )
    if not fit.converged:
        notes.append(f"the fit of {name} did not converge: raise starts, or use the result with care")
    return notes


def _ordered(times: Any) -> tuple[Array, NDArray[np.int64]]:
    values = as_numbers(times, "times", "finite numbers (F,)")
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InvalidDataError(f"times must be finite numbers (F,), at least one, got shape {values.shape}")
    order = np.argsort(values, kind="stable")
    repeated = np.flatnonzero(np.diff(values[order]) == 0.0)
    if repeated.size:
        raise InvalidDataError(f"two frames have the time {values[order][repeated[0]]:g}: give each time once")
    return values[order], order
