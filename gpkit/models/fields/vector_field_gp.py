"""Gaussian processes of tangent vector fields on manifolds that are known by points or meshes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold, SpectralBasis
from gpkit.geometry.point_cloud import as_manifold
from gpkit.kernels.markov import MarkovKernel
from gpkit.models.fields.calculus import FieldFunctional
from gpkit.models.fields.field_gp import FieldGP
from gpkit.models.fields.fit_result import FieldFit
from gpkit.models.fields.kernels import Setting
from gpkit.models.fields.local_slopes import LocalSlopes
from gpkit.models.fields.observations import as_places, observe_vectors
from gpkit.models.fields.predictions import FieldPrediction
from gpkit.models.fields.settings import PlacedFieldSettings
from gpkit.models.fields.singularities import Singularities, find_singularities
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.spectral_term import SpectralPart
from gpkit.models.fields.terms import Scales

__all__ = ["VectorFieldGP"]

Array = NDArray[np.float64]


class VectorFieldGP(FieldGP):
    """Gaussian process of a tangent vector field.

    Args:
        manifold: A :class:`gpkit.geometry.PointCloud` or :class:`gpkit.geometry.Mesh`, or points (n, D).
        kernel: "auto" compares intrinsic kernels (connection Laplacian), ambient ones projected to the tangent
            spaces (with and without the structure of potential and rotational flows), their sum, and those whose
            amplitude varies by evidence;
            "intrinsic", "markov", "projected", "helmholtz" or "ambient" compares the members of a family; a full name
            such as "helmholtz:rbf + intrinsic:heat" compares nothing. " * speed" behind a member, which "auto" tries
            with the best ones, makes its amplitude vary from place to place. "markov" has all modes of the Laplacian by
            a sparse precision matrix; filters of "intrinsic" are Matern ("matern12" to "matern4"), "heat",
            "regularised-laplacian", "p-step", "cosine", "communicability" and the learnt "monotone". A GPyTorch kernel
            (:func:`gpkit.models.fields.kernel_term.terms_of_kernel` says how it is used) or terms may be given instead.
        settings: As for :class:`gpkit.models.fields.field_gp.FieldGP`; bases are of eigenfields, and coordinates
            are those of vectors in tangent spaces (n d).

    Raises:
        InvalidDataError: a manifold that cannot be used, or an unknown kernel.
    """

    _what = "vectors"

    def __init__(
        self,
        manifold: Manifold | Any,
        kernel: Any = "auto",
        **settings: Unpack[PlacedFieldSettings],
    ) -> None:
        super().__init__(kernel, **settings)
        self.manifold = as_manifold(manifold)
        self._adopt(self.manifold.n, self.manifold.dim)

    # -- geometry -------------------------------------------------------------------------------------------------

    @property
    def basis(self) -> SpectralBasis:
        """Eigenfields of the connection Laplacian, made when they are first needed."""
        if "connection" not in self._bases:
            size = self.manifold.n * self.manifold.dim
            k, cut = (size, None) if size <= self.full_below else (min(self.rank, size), "gap")
            self._bases["connection"] = self.manifold.connection_basis(k, cut=cut)
        return self._bases["connection"]

    def _parts(self, member: str) -> list[SpectralPart]:
        return [SpectralPart.of("connection", self.basis)]

    def _markov(self, nu: float) -> MarkovKernel:
        return MarkovKernel.on(self.manifold, "connection", nu + 0.5 * self.manifold.dim, self.manifold.scale)

    def _size(self) -> float:
        return self.manifold.scale

    def _setting(self, scales: Scales) -> Setting:
        return Setting(
            scales=scales,
            dim=self.manifold.dim,
            oriented=self.manifold.dim == 2 and self.manifold.orientable,
            ambient=True,
            vector=True,
            parts=self._parts,
            markov=self._markov,
            truncated=self.manifold.n * self.manifold.dim > self.full_below,
            unknowns=self.manifold.n * self.manifold.dim,
        )

    def sites(self, where: Any = None) -> Sites:
        """Places by node numbers, a mask, or points (m, D); all nodes if None."""
        places = as_places(where, self.manifold.n, self.manifold.ambient_dim, self.manifold)
        if places.ndim == 1:
            nodes = np.asarray(places, dtype=np.int64)
            return node_sites(self.manifold.frames, self.manifold.points, self._bases, nodes)
        return point_sites(self.manifold, self._bases, places)

    # -- fitting and prediction -----------------------------------------------------------------------------------

    def fit(
        self,
        where: Any,
        vectors: Any,
        *,
        noise: Any = None,
        starts: int = 1,
        seed: int = 0,
        progress: bool = True,
    ) -> FieldFit:
        """Condition on vectors at nodes or points, all of which are used.

        Args:
            where: Node numbers in any integer type (negative ones count from the end), a mask of all nodes, or points
                (m, D) near the manifold.
            vectors: (m, D), in the ambient space; components outside of the tangent spaces are left out and reported.
            noise: None to learn one standard deviation per tangent coordinate; known ones, one or (m,); or 0 for exact
                observations: what no kernel explains is then the field's own variation between the observed places,
                and counts in regions and intervals (not in derivatives, which such variation has none of).
            starts: Starts of each kernel's fit beyond the scan of length scales.
            seed: Of the starts.
            progress: Whether a bar is shown while kernels are compared.

        Raises:
            InvalidDataError: data that cannot be used, with the row.
            ConvergenceError: no kernel could be fitted.
        """
        if isinstance(where, str):
            raise InvalidDataError(f"where must be node numbers, a mask or points, got {where!r}")
        observations = observe_vectors(self.manifold, where, vectors, noise)
        return self._fit(observations, starts, seed, progress)

    def predict(self, where: Any = None, *, draws: int | None = None) -> FieldPrediction:
        """The field at nodes or points: reconstruction, inpainting, super-resolution and denoising are all this.

        Args:
            where: Node numbers, a mask or points (m, D); all nodes if None.
            draws: Number of draws of the parameters to average over, after :meth:`sample`.

        Raises:
            InvalidDataError: not fitted, or places that cannot be used.

        Warns:
            DataWarning: points are far from the manifold; they are flagged in the result and get the prior.
        """
        return self._mixed().predict(self.sites(where), draws)

    def directions(self, *, starts: int = 1, seed: int = 0, progress: bool = True) -> VectorFieldGP:
        """A model of the field's directions alone: the same kernels, fitted to the observed vectors made unit vectors.

        Where speeds differ a lot from place to place (a jet beside calm water), kernels of one amplitude follow the
        fast places, and the slow ones get directions that are worse than their neighbours would allow. Unit vectors
        count alike everywhere. The mean of this model is the shorter the less is known of a direction. Vectors of
        zero, which have none, are left out; known noise becomes that of the directions.

        Args:
            starts: Starts of each kernel's fit beyond the scan of length scales.
            seed: Of the starts.
            progress: Whether a bar is shown while kernels are compared.

        Raises:
            InvalidDataError: not fitted.
            ConvergenceError: no kernel could be fitted.
        """
        self._fitted()
        observed = self.observations
        assert observed is not None
        sizes = np.linalg.norm(observed.coordinates, axis=1)
        moving = sizes > 0.0
        noise = None if observed.noise is None else observed.noise[moving] / sizes[moving]
        units = observed.coordinates[moving] / sizes[moving, None]
        model = copy.copy(self)
        model._fit(
            replace(observed, where=observed.where[moving], coordinates=units, noise=noise), starts, seed, progress
        )
        return model

    # -- derived quantities ---------------------------------------------------------------------------------------

    def divergence(self, *, draws: int | None = None) -> FieldFunctional:
        """Divergence at all nodes, with its posterior standard deviation.

        Args:
            draws: Number of draws of the parameters to average over, after :meth:`sample`.

        Raises:
            InvalidDataError: not fitted.
        """
        slopes = LocalSlopes.of(self.manifold)
        return self._derivative("divergence", slopes, slopes.divergence(), draws)

    def curl(self, *, draws: int | None = None) -> FieldFunctional:
        """Curl at all nodes of an oriented surface, positive for turns from the first frame column to the second.

        Raises:
            InvalidDataError: not fitted, or not an oriented surface.
        """
        slopes = LocalSlopes.of(self.manifold)
        return self._derivative("curl", slopes, slopes.curl(), draws)

    def _derivative(self, name: str, slopes: LocalSlopes, operator: Any, draws: int | None) -> FieldFunctional:
        found = self._mixed().functional(operator, self.sites(), draws)
        unit = f"{self.value_unit or '1'} / {self.length_unit}" if self.length_unit else ""
        return replace(found, name=name, unit=unit, degree=slopes.degree)

    def singularities(
        self, *, draws: int = 200, seed: int = 0, radius: float | None = None, least: float = 0.1
    ) -> Singularities:
        """Sources, sinks, vortices and saddles of the field, with their probabilities under the posterior.

        These are the singular points of the mean field, and the places where posterior draws have one that the mean
        does not have: close pairs of a saddle and a vortex, which averaging makes vanish.

        Args:
            draws: Number of joint posterior draws of the field.
            seed: Of the draws.
            radius: Distance within which a draw's singularity counts as the same; 3 median triangle sides by default.
            least: Share of half of the draws from which places are reported that the mean field does not have; their
                probability is the share of the other half.

        Raises:
            InvalidDataError: not fitted, not an oriented surface, or ``least`` is no probability.
        """
        sites = self.sites()
        mixture = self._mixed().components()
        mean = sum(component.weight * component.moments(sites)[0] for component in mixture)
        samplers = [component.sampler(sites) for component in mixture]
        weights = np.array([component.weight for component in mixture])

        def draw(count: int, number: int) -> Array:
            rng = np.random.default_rng([seed, number])
            chosen = rng.choice(len(samplers), size=count, p=weights / weights.sum())
            fields = [samplers[index](int((chosen == index).sum()), rng) for index in np.unique(chosen)]
            return np.concatenate(fields).reshape(count, self.manifold.n, self.manifold.dim)

        options: Any = {"draws": draws, "seed": seed, "radius": radius, "least": least}
        return find_singularities(self.manifold, np.asarray(mean), draw, **options)
