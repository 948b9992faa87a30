"""What models of vector fields, functions and edge flows share: fits, draws of parameters, predictions."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
from numpy.typing import NDArray

from gpkit.checks import positive_integer
from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import SpectralBasis
from gpkit.inference.inference_data import provenance, to_inference_data
from gpkit.inference.log_parameters import sample_log
from gpkit.models.fields.comparing import (
    full_rank_members,
    kernels_that_fit,
    notes_of,
    speeds_worth_trying,
    sums_worth_trying,
)
from gpkit.models.fields.fit_result import FieldFit
from gpkit.models.fields.kernel_term import bases_of_terms, terms_of_kernel
from gpkit.models.fields.kernels import Setting, candidates, make_terms
from gpkit.models.fields.local_scale import LocalScale
from gpkit.models.fields.mixture import UNCERTAINTIES, FieldMixture
from gpkit.models.fields.observations import Observations
from gpkit.models.fields.predictions import FieldPrediction
from gpkit.models.fields.regression import FieldRegression
from gpkit.models.fields.selection import Candidate, KernelComparison, fit_candidates
from gpkit.models.fields.sites import Sites
from gpkit.models.fields.speed_term import landmarks_of
from gpkit.models.fields.storage import load_field, save_field
from gpkit.models.fields.terms import Scales, Term

__all__ = ["FieldGP"]

Array = NDArray[np.float64]


class FieldGP(ABC):
    """Base of the field models.

    Args:
        kernel: A name (see :mod:`gpkit.models.fields.kernels`), a GPyTorch kernel, or terms.
        combine: What predictions are made of when several kernels were compared: "stacking", their mixture with the
            weights that predict left-out places best, or "best", the one with the highest evidence.
        rank: Number of basis functions of intrinsic kernels; all if there are at most ``full_below`` coordinates.
        full_below: Up to this many coordinates (n d) intrinsic kernels have full rank.
        dense_rows: Up to this many observed coordinates kernels with a dense covariance are used; "auto" leaves
            them out above and says so.
        sparse_unknowns: Up to this many coordinates "auto" and "intrinsic" go on to kernels with all modes where k
            modes are too few; above they say so.
        length_unit: For reports.
        value_unit: For reports.
        uncertainty: How predictions count that parameters are estimates. "jackknife" multiplies variances by what the
            scatter of the parameters does to them when places are left out, a factor per kernel; "calibrated" does
            that, and multiplies them by factors that vary from place to place where errors of left-out places ask for
            it (:mod:`gpkit.models.fields.local_scale`; :attr:`calibration` says what they are); with both, what one of
            several kernels has learnt as noise beyond what all say together is variation of the field; "laplace"
            averages over eight parameters around each fit (points of Laplace's approximation, weighted by the
            posterior), at eight times the cost; "map" does not. None is "calibrated" where kernels are compared or have
            dozens of parameters, and "map" for one kernel that has not.
    """

    _what = "values"

    def __init__(
        self,
        kernel: Any = "auto",
        *,
        combine: str = "stacking",
        rank: int = 300,
        full_below: int = 2500,
        dense_rows: int = 6000,
        sparse_unknowns: int = 30_000,
        length_unit: str = "",
        value_unit: str = "",
        uncertainty: str | None = None,
    ) -> None:
        known = isinstance(kernel, str | gpytorch.kernels.Kernel)
        if not known and not (kernel and all(isinstance(term, Term) for term in kernel)):
            raise InvalidDataError(f"kernel must be a name, a GPyTorch kernel or a list of terms, got {kernel!r}")
        sizes = {"rank": rank, "full_below": full_below, "dense_rows": dense_rows, "sparse_unknowns": sparse_unknowns}
        for name, value in sizes.items():
            if value != int(value) or value < (1 if name == "rank" else 0):
                raise InvalidDataError(f"{name} must be a positive integer, got {value!r}")
        if combine not in ("stacking", "best"):
            raise InvalidDataError(f"combine must be 'stacking' or 'best', got {combine!r}")
        if uncertainty is not None and uncertainty not in UNCERTAINTIES:
            raise InvalidDataError(f"uncertainty must be one of {', '.join(UNCERTAINTIES)}, got {uncertainty!r}")
        self.kernel = kernel
        self.combine = combine
        self.uncertainty = uncertainty
        self.rank = rank
        self.full_below = full_below
        self.dense_rows = dense_rows
        self.sparse_unknowns = sparse_unknowns
        self.length_unit = length_unit
        self.value_unit = value_unit
        self.observations: Observations | None = None
        self.result: FieldFit | None = None
        self.posterior: Any = None
        self._best: Candidate | None = None
        self._comparison: KernelComparison | None = None
        self._mixture: FieldMixture | None = None
        self._bases: dict[str, SpectralBasis] = {}

    def _adopt(self, nodes: int, components: int) -> None:
        """Take a GPyTorch kernel apart, with the bases that it brings; refuse a name that this field cannot have."""
        if isinstance(self.kernel, gpytorch.kernels.Kernel):
            self.kernel = terms_of_kernel(self.kernel, nodes, components)
            self._bases.update(bases_of_terms(self.kernel))
        self._setting(Scales(1.0, 1.0)).check(self.kernel)

    # -- what the kinds of field differ in ------------------------------------------------------------------------

    @abstractmethod
    def _setting(self, scales: Scales) -> Setting:
        """What kernels are built for."""

    @abstractmethod
    def sites(self, where: Any = None) -> Sites:
        """Places by node numbers, a mask, or points; all nodes if None."""

    @abstractmethod
    def _size(self) -> float:
        """Length by which length scales are measured."""

    # -- fitting --------------------------------------------------------------------------------------------------

    def _fit(self, observations: Observations, starts: int, seed: int, progress: bool) -> FieldFit:
        starts = positive_integer(starts, "starts")
        self.observations = observations
        self.result = self.posterior = self._best = self._comparison = self._mixture = None
        if isinstance(self.kernel, str):
            unscaled = self._setting(Scales(1.0, 1.0))
            unscaled.prepare_bases(candidates(self.kernel, unscaled))
        scales = Scales(self._size(), self._value_scale(observations.coordinates))
        sites = self.sites(observations.where)
        landmarks = None if sites.points is None else landmarks_of(sites.points.numpy())
        setting = dataclasses.replace(self._setting(scales), landmarks=landmarks)
        rows = sites.rows
        names, skipped = kernels_that_fit(self.kernel, setting, rows, self.dense_rows)
        complete = not skipped

        def make(name: str) -> FieldRegression:
            if isinstance(self.kernel, str):
                terms = make_terms(name, setting)
            else:
                terms = [t for made in self.kernel for t in (made.make(scales) if hasattr(made, "make") else [made])]
            terms += self._extra_terms(scales)
            return FieldRegression(terms, sites, observations.coordinates, scales, observations.noise)

        def more(fitted: Sequence[Candidate]) -> list[str]:
            sums = sums_worth_trying(fitted) if self.kernel == "auto" and complete else []
            if self.kernel not in ("auto", "intrinsic"):
                return sums
            return [*full_rank_members(fitted, setting, skipped, self.sparse_unknowns), *sums]

        def speeds(fitted: Sequence[Candidate]) -> list[str]:
            return speeds_worth_trying(fitted, setting) if self.kernel == "auto" and complete else []

        comparison = fit_candidates(
            names,
            make,
            further=(more, speeds),
            left_out=skipped,
            starts=starts,
            seed=seed,
            progress=progress,
            exact=observations.exact,
        )
        best = comparison.best
        self._comparison = comparison
        self.use()
        self.result = FieldFit(
            kernel=best.name,
            parameters=best.fit.values,
            log_likelihood=best.fit.log_likelihood,
            log_evidence=best.fit.log_evidence,
            n=len(observations),
            converged=best.fit.converged,
            at_bound=best.fit.at_bound,
            trace=best.fit.trace,
            comparison=comparison,
            notes=tuple(notes_of(best, skipped)),
            seconds=best.fit.seconds,
        )
        for note in self.result.notes:
            warnings.warn(note, DataWarning, stacklevel=3)
        return self.result

    def _value_scale(self, values: Array) -> float:
        """Size of the values by which amplitudes are measured."""
        return float(np.sqrt(np.square(values).mean()))

    def _extra_terms(self, scales: Scales) -> list[Term]:
        return []

    def _fitted(self) -> Candidate:
        if self._best is None:
            raise InvalidDataError(f"{type(self).__name__} has not been fitted: call fit(where, {self._what}) first")
        return self._best

    # -- the parameters' posterior --------------------------------------------------------------------------------

    def sample(
        self,
        draws: int = 500,
        tune: int = 300,
        chains: int = 4,
        seed: int = 0,
        *,
        progress: bool = True,
    ) -> Any:
        """Draw the chosen kernel's parameters from their posterior by NUTS; returns an ``arviz.InferenceData``.

        Predictions average over these draws from then on.

        Args:
            draws: Per chain, after tuning.
            tune: Tuning steps per chain, discarded.
            chains: Number of chains.
            seed: Of everything random.
            progress: Whether a bar is shown.

        Raises:
            InvalidDataError: not fitted yet, or nothing to draw.
        """
        best = self._fitted()
        theta, stats = sample_log(
            best.regression, best.fit, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress
        )
        self._mixed().drawn = {best.name: theta}
        names = [p.name for p in best.regression.parameters]
        assert self.observations is not None
        self.posterior = to_inference_data(
            {name: np.exp(theta[:, :, k]) for k, name in enumerate(names)},
            stats,
            groups={"observed_data": {"coordinates": self.observations.coordinates}},
            dims={"coordinates": ["place", "coordinate"]},
            attrs=provenance(seed=seed, kernel=best.name, sampler="nutpie", tune=tune),
        )
        return self.posterior

    # -- predictions ----------------------------------------------------------------------------------------------

    def _mixed(self) -> FieldMixture:
        """The kernels that predict, with their weights."""
        self._fitted()
        assert self._mixture is not None
        self._mixture.uncertainty = self._counted()
        return self._mixture

    def _counted(self) -> str:
        """How it counts in predictions that parameters are estimates."""
        if self.uncertainty is not None:
            return self.uncertainty
        compared = self._comparison is not None and len(self._comparison.candidates) > 1
        flexible = self._best is not None and self._best.regression.flexible
        return "calibrated" if compared or flexible else "map"

    @property
    def calibration(self) -> LocalScale | None:
        """Factors of the variances by place that errors of left-out places ask for; None where they ask for none.

        Raises:
            InvalidDataError: not fitted.
        """
        return self._mixed().calibration

    def leave_one_out(self) -> FieldPrediction:
        """Predictions of each observed place from all the others; covariances include the noise."""
        mixture = self._mixed()
        return mixture.leave_one_out(self.sites(mixture.observations.where))

    def use(self, kernel: str | None = None) -> None:
        """Predict with one of the kernels that were compared; None goes back to what ``combine`` says.

        Raises:
            InvalidDataError: not fitted, or the kernel was not among them.
        """
        comparison = self._comparison
        if comparison is None:
            raise InvalidDataError(f"{type(self).__name__} has not been fitted: call fit(where, {self._what}) first")
        by_name = {candidate.name: candidate for candidate in comparison.candidates}
        if kernel is not None and kernel not in by_name:
            raise InvalidDataError(f"kernel {kernel!r} was not compared; there are {', '.join(by_name)}")
        weights = {kernel: 1.0} if kernel is not None else comparison.weights
        if kernel is None and self.combine == "best":
            weights = {comparison.best.name: 1.0}
        chosen = comparison.best if kernel is None else by_name[kernel]
        kept = self._mixture.drawn if self._mixture is not None and chosen is self._best else {}
        if chosen is not self._best:
            self._best, self.posterior = chosen, None
        assert self.observations is not None
        members = [(by_name[name], weight) for name, weight in weights.items()]
        noise = comparison.noise if kernel is None else None
        self._mixture = FieldMixture(self.observations, members, self._counted(), kept, noise)

    # -- files ----------------------------------------------------------------------------------------------------

    def report(self, path: str | Path, **options: Any) -> tuple[Path, Path]:
        """Write a self-contained HTML report and its JSON; returns both paths.

        Args:
            path: HTML file, or a folder for ``report.html`` and ``summary.json``.
            options: See :func:`gpkit.models.fields.report.field_content`: title, command, seed, settings, and
                ``draws`` (vector fields) or ``positions`` of the nodes (graphs and edge flows).

        Raises:
            InvalidDataError: not fitted.
        """
        from gpkit.models.fields.report import write_field_report

        return write_field_report(self, path, **options)

    def save(self, path: str | Path) -> Path:
        """Write the model, its manifold, data, fits and draws to one file."""
        return save_field(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Read what :meth:`save` wrote; nothing else is needed.

        Raises:
            InvalidDataError: not such a file.
        """
        return load_field(path, cls)
