"""Gaussian processes of functions on manifolds, meshes and graphs."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.errors import InvalidDataError
from gpkit.geometry import Graph, Manifold, SpectralBasis
from gpkit.kernels.markov import MarkovKernel
from gpkit.models.fields.field_gp import FieldGP
from gpkit.models.fields.fit_result import FieldFit
from gpkit.models.fields.kernels import Setting
from gpkit.models.fields.observations import as_places, observe_values
from gpkit.models.fields.predictions import ScalarPrediction
from gpkit.models.fields.settings import PlacedFieldSettings
from gpkit.models.fields.sites import Sites, node_sites, point_sites
from gpkit.models.fields.spectral_term import SpectralPart
from gpkit.models.fields.terms import ConstantTerm, Scales, Term

__all__ = ["ScalarFieldGP"]

Array = NDArray[np.float64]


class ScalarFieldGP(FieldGP):
    """Gaussian process of a function on a manifold or on the nodes of a graph.

    Args:
        domain: A manifold; a :class:`gpkit.geometry.Graph`, or a networkx graph or scipy sparse adjacency matrix, which
            become one (nodes are numbered in their order in the graph); or a basis of functions.
        kernel: "auto", "intrinsic", "projected" (an ambient kernel; it needs coordinates), or a full name such as
            "projected:matern52 + intrinsic:heat"; or terms.
        mean: "constant" for an unknown constant with a wide prior, or "zero".
        settings: As for :class:`gpkit.models.fields.field_gp.FieldGP`; bases are of eigenfunctions.

    Raises:
        InvalidDataError: a domain that cannot be used, or an unknown kernel.
    """

    def __init__(
        self,
        domain: Any,
        kernel: Any = "auto",
        *,
        mean: str = "constant",
        **settings: Unpack[PlacedFieldSettings],
    ) -> None:
        super().__init__(kernel, **settings)
        if mean not in ("constant", "zero"):
            raise InvalidDataError(f"mean must be 'constant' or 'zero', got {mean!r}")
        self.mean = mean
        if sparse.issparse(domain) or (hasattr(domain, "nodes") and hasattr(domain, "is_directed")):
            domain = Graph(domain)
        self.domain = domain
        self.manifold: Manifold | None = domain if isinstance(domain, Manifold) else None
        if self.manifold is None and not isinstance(domain, SpectralBasis) and not hasattr(domain, "basis"):
            raise InvalidDataError(
                "a domain is a manifold, a graph or a basis: give PointCloud(points), Graph(adjacency) or a networkx "
                f"graph, not a {type(domain).__name__}"
            )
        points = getattr(domain, "points", None)
        self._points: Array | None = None if points is None else np.asarray(points, dtype=np.float64)
        if isinstance(domain, SpectralBasis):
            self._bases["scalar"] = domain
        self.n: int = int(domain.n)
        self._adopt(self.n, 1)

    @property
    def basis(self) -> SpectralBasis:
        """Eigenfunctions of the Laplacian, made when they are first needed."""
        if "scalar" not in self._bases:
            k, cut = (self.n, None) if self.n <= self.full_below else (min(self.rank, self.n), "gap")
            make = self.domain.basis if self.manifold is None else self.manifold.scalar_basis
            self._bases["scalar"] = make(k, cut=cut)
        return self._bases["scalar"]

    def _parts(self, member: str) -> list[SpectralPart]:
        # Communicability is a function of the adjacency matrix, which only graphs have.
        if member != "communicability" or not isinstance(self.domain, Graph):
            return [SpectralPart.of("scalar", self.basis)]
        if "adjacency" not in self._bases:
            k, cut = (self.n, None) if self.n <= self.full_below else (min(self.rank, self.n), "gap")
            self._bases["adjacency"] = self.domain.basis(k, "adjacency", cut=cut)
        return [SpectralPart.of("adjacency", self._bases["adjacency"])]

    def _markov(self, nu: float) -> MarkovKernel:
        if self.manifold is not None:
            return MarkovKernel.on(self.manifold, "scalar", nu + 0.5 * self.manifold.dim, self.manifold.scale)
        return MarkovKernel(self.domain.laplacian(True), 2, nu + 1.0, self._size())

    def _size(self) -> float:
        if self.manifold is not None:
            return self.manifold.scale
        # A graph has no lengths: its own is that of the slowest mode, a radian per 1 / sqrt(lam).
        positive = self.basis.eigenvalues[
            self.basis.eigenvalues > 1e-9 * max(float(self.basis.eigenvalues.max()), 1e-300)
        ]
        return float(1.0 / np.sqrt(positive[0])) if len(positive) else 1.0

    def _setting(self, scales: Scales) -> Setting:
        return Setting(
            scales=scales,
            dim=self.manifold.dim if self.manifold is not None else 2,
            oriented=False,
            ambient=self._points is not None,
            vector=False,
            parts=self._parts,
            markov=self._markov if isinstance(self.domain, Manifold | Graph) else None,
            truncated=self.n > self.full_below,
            unknowns=self.n,
        )

    def _extra_terms(self, scales: Scales) -> list[Term]:
        if self.mean == "zero" or self.observations is None:
            return []
        return [ConstantTerm(10.0 * float(np.sqrt(np.square(self.observations.coordinates).mean())))]

    def _value_scale(self, values: Array) -> float:
        """The standard deviation where the constant is unknown: a function far from zero need not vary much."""
        size = super()._value_scale(values)
        spread = float(values.std())
        return spread if self.mean == "constant" and spread > 1e-9 * size else size

    def sites(self, where: Any = None) -> Sites:
        """Places by node numbers, a mask, or points (m, D) of a manifold; all nodes if None."""
        columns = 0 if self._points is None else self._points.shape[1]
        places = as_places(where, self.n, columns, self.manifold)
        if places.ndim == 1:
            nodes = np.asarray(places, dtype=np.int64)
            return node_sites(np.ones((self.n, 1, 1)), self._points, self._bases, nodes)
        assert self.manifold is not None
        return point_sites(self.manifold, self._bases, places, scalar=True)

    def fit(
        self,
        where: Any,
        values: Any,
        *,
        noise: Any = None,
        starts: int = 1,
        seed: int = 0,
        progress: bool = True,
    ) -> FieldFit:
        """Condition on values at nodes or points.

        Args:
            where: Node numbers (negative ones count from the end), a mask, or points (m, D).
            values: (m,).
            noise: None to learn one standard deviation; known ones, one or (m,); or 0 for exact observations, whose
                unexplained part is the field's own variation between the observed places.
            starts: Starts of each kernel's fit beyond the scan of length scales.
            seed: Of the starts.
            progress: Whether a bar is shown while kernels are compared.

        Raises:
            InvalidDataError: data that cannot be used, with the row.
            ConvergenceError: no kernel could be fitted.
        """
        columns = 0 if self._points is None else self._points.shape[1]
        observations = observe_values(where, values, noise, "values", self.n, columns, self.manifold)
        return self._fit(observations, starts, seed, progress)

    def predict(self, where: Any = None, *, draws: int | None = None) -> ScalarPrediction:
        """The function at nodes or points.

        Args:
            where: Node numbers, a mask or points (m, D); all nodes if None.
            draws: Number of draws of the parameters to average over, after :meth:`sample`.

        Raises:
            InvalidDataError: not fitted, or places that cannot be used.
        """
        return ScalarPrediction(self._mixed().predict(self.sites(where), draws))
