"""Gaussian processes of flows along the edges of networks and cell complexes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.errors import InvalidDataError
from gpkit.geometry import Laplacian, SpectralBasis
from gpkit.kernels.markov import MarkovKernel
from gpkit.models.fields.calculus import FieldFunctional
from gpkit.models.fields.field_gp import FieldGP
from gpkit.models.fields.fit_result import FieldFit
from gpkit.models.fields.kernels import Setting
from gpkit.models.fields.observations import as_places, observe_values
from gpkit.models.fields.predictions import ScalarPrediction
from gpkit.models.fields.settings import FieldSettings
from gpkit.models.fields.sites import Sites, node_sites
from gpkit.models.fields.spectral_term import SpectralPart, SpectralTerm
from gpkit.models.fields.terms import Scales

__all__ = ["EdgeFlowGP"]

Array = NDArray[np.float64]


class EdgeFlowGP(FieldGP):
    """Gaussian process of a flow along edges, as a sum of a gradient, a curl and a harmonic part.

    Each part has its own amplitude and length scale, so that the data say how much of the flow has sources (gradient),
    turns around faces (curl) or goes around holes (harmonic).

    Args:
        domain: A :class:`gpkit.geometry.CellComplex`; flows are positive in the direction of its edges.
        kernel: "auto" or "intrinsic" compares filters of the Hodge Laplacian by evidence; or one of them, such as
            "intrinsic:matern2" or "intrinsic:heat". "markov:matern1" and "markov:matern2" have all flows by a sparse
            precision matrix, with one amplitude for the three parts, which are then not told apart.
        settings: As for :class:`gpkit.models.fields.field_gp.FieldGP`, but for the numbers of modes: ``rank``, 200 by
            default, of the gradient and as many of the curl where there are more than ``full_below`` edges, 2000 by
            default.

    Raises:
        InvalidDataError: not a cell complex, or an unknown kernel.

    References:
        Yang, M., Borovitskiy, V. and Isufi, E., Hodge-compositional edge Gaussian processes, AISTATS 2024.
    """

    _what = "flows"

    def __init__(
        self,
        domain: Any,
        kernel: Any = "auto",
        **settings: Unpack[FieldSettings],
    ) -> None:
        settings.setdefault("rank", 200)
        settings.setdefault("full_below", 2000)
        super().__init__(kernel, **settings)
        if not hasattr(domain, "hodge_basis"):
            raise InvalidDataError(
                f"edge flows live on a CellComplex, not on a {type(domain).__name__}: give CellComplex(nodes, edges, "
                "faces), whose edges say in which direction a flow is positive"
            )
        self.domain = domain
        self.n: int = domain.n_edges
        self._adopt(self.n, 1)

    @property
    def bases(self) -> dict[str, SpectralBasis]:
        """Bases of the parts that this complex has: a tree has no curl, a filled disc no harmonic flow."""
        if not self._bases:
            count, cut = (self.n, None) if self.n <= self.full_below else (self.rank, "gap")
            self._bases = self.domain.hodge_basis(count, count, cut=cut).parts
        return self._bases

    def _parts(self, member: str) -> list[SpectralPart]:
        return [SpectralPart.of(name, basis, name) for name, basis in self.bases.items()]

    def _markov(self, nu: float) -> MarkovKernel:
        """All flows, with one amplitude and length scale for the three parts."""
        mass = self.domain.edge_weights / self.domain.edge_weights.mean()
        scale = sparse.diags(np.sqrt(mass))
        return MarkovKernel(Laplacian((scale @ self.domain.l1 @ scale).tocsr(), mass), 2, nu + 1.0, self._size())

    def _size(self) -> float:
        bases = self._bases or self.domain.hodge_basis(2, 2, 0).parts
        slowest = []
        for basis in bases.values():
            positive = basis.eigenvalues[basis.eigenvalues > 1e-9 * max(float(basis.eigenvalues.max()), 1e-300)]
            slowest += positive[:1].tolist()
        return float(1.0 / np.sqrt(min(slowest))) if slowest else 1.0

    def _setting(self, scales: Scales) -> Setting:
        return Setting(
            scales=scales,
            dim=2,
            oriented=False,
            ambient=False,
            vector=False,
            parts=self._parts,
            markov=self._markov,
        )

    def sites(self, where: Any = None) -> Sites:
        """Edges by numbers or a mask; all if None."""
        places = as_places(where, self.n, 0, None, "edge")
        return node_sites(np.ones((self.n, 1, 1)), None, self._bases, np.asarray(places, dtype=np.int64))

    def fit(
        self,
        where: Any,
        flows: Any,
        *,
        noise: Any = None,
        starts: int = 1,
        seed: int = 0,
        progress: bool = True,
    ) -> FieldFit:
        """Condition on flows along some of the edges.

        Args:
            where: Edge numbers (negative ones count from the end) or a mask.
            flows: (m,), positive from the first to the second node of an edge.
            noise: None to learn one standard deviation; known ones, one or (m,); or 0 for exact observations, whose
                unexplained part is the field's own variation between the observed places.
            starts: Starts of each kernel's fit beyond the scan of length scales.
            seed: Of the starts.
            progress: Whether a bar is shown while kernels are compared.

        Raises:
            InvalidDataError: data that cannot be used, with the row.
            ConvergenceError: no kernel could be fitted.
        """
        observations = observe_values(where, flows, noise, "flows", self.n, what="edge")
        return self._fit(observations, starts, seed, progress)

    def predict(self, where: Any = None, *, draws: int | None = None) -> ScalarPrediction:
        """Flows along edges; all edges if None.

        Raises:
            InvalidDataError: not fitted, or edges that cannot be used.
        """
        return ScalarPrediction(self._mixed().predict(self.sites(where), draws))

    def decompose(self, where: Any = None) -> dict[str, ScalarPrediction]:
        """The gradient, curl and harmonic parts of the flow, each with its own uncertainty.

        Raises:
            InvalidDataError: not fitted, or edges that cannot be used.
        """
        if not all(isinstance(term, SpectralTerm) for term in self._fitted().regression.terms):
            raise InvalidDataError(f"{self._fitted().name} does not tell the parts of a flow apart: fit 'intrinsic'")
        sites = self.sites(where)
        mixture = self._mixed()
        return {name: ScalarPrediction(mixture.part(sites, index)) for index, name in enumerate(self.bases)}

    def shares(self) -> dict[str, float]:
        """Share of each part in the prior variance of the fitted kernel."""
        values = self._fitted().fit.values
        squares = {name: values.get(f"{name}.amplitude", values.get("amplitude", 0.0)) ** 2 for name in self.bases}
        total = sum(squares.values())
        return {name: square / total for name, square in squares.items()}

    def divergence(self) -> FieldFunctional:
        """Net flow out of every node, with its posterior standard deviation.

        Raises:
            InvalidDataError: not fitted.
        """
        found = self._mixed().functional(-self.domain.boundary_1, self.sites())
        return replace(found, name="divergence", unit=self.value_unit)

    def circulation(self) -> FieldFunctional:
        """Flow around every face, with its posterior standard deviation.

        Raises:
            InvalidDataError: not fitted.
        """
        found = self._mixed().functional(self.domain.boundary_2.T, self.sites())
        return replace(found, name="circulation", unit=self.value_unit)
