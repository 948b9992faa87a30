"""Low-rank models of sparse tables whose modes are continuous, periodic, spatial or categorical."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import NegativeBinomial, StudentTNoise
from gpkit.models.functional_tensor.fitting import (
    CONTINUOUS,
    OBSERVATIONS,
    Checkpoint,
    LowRankSettings,
    Member,
    choose_rank,
    fingerprint,
    fit_members,
    left_out_moments,
    noise_variance,
)
from gpkit.models.functional_tensor.functions import ModeFunctions, mode_functions
from gpkit.models.functional_tensor.local_residual import LocalResidual
from gpkit.models.functional_tensor.modes import Encoding, ModeSpec
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.result import TensorFit, describe
from gpkit.models.functional_tensor.state import TensorState, continued, joined_table
from gpkit.models.functional_tensor.table import TensorTable, read_columns, read_target

__all__ = ["FunctionalTensor", "TensorFit"]

Array = NDArray[np.float64]

_FORMS = ("tucker", "cp")


class FunctionalTensor:
    r"""A tensor whose entries are indexed by coordinates: latent functions along each mode, coupled by a core.

    .. math:: y_n = \sum_{r_1 \dots r_K} G_{r_1 \dots r_K} \prod_k u^k_{r_k}(x_{nk}) + a(x_n) + \epsilon_n

    Functions of a continuous mode are Markov Gaussian processes with learned length scales; a is the local residual.
    Inference is structured variational Bayes: a full-covariance core, one joint Gaussian of all functions along each
    mode, and a bound that never decreases.

    Args:
        modes: ``Continuous``, ``Categorical`` or ``Spatial``, one or more.
        rank: number of functions of each mode; one number, one for each mode, or "auto" to choose by the bound.
        form: "tucker" or "cp".
        core_prior: "ard" learns a precision for every slice of the core (every component of CP); "normal" does not.
        main_effects: whether every mode also has the constant function, so that the core holds an intercept, main
            effects and interactions of every order.
        residual: None, or "local": nearest-neighbour Gaussian processes over all modes jointly, on what the low-rank
            part leaves; see :class:`~gpkit.models.functional_tensor.local_residual.LocalResidual`.
        likelihood: "gaussian", "student-t", "poisson", "bernoulli" or "negative-binomial". With a local residual the
            law of the noise, and how its scale follows the prediction, are fitted to rows predicted without themselves.
        neighbours: of the local residual.

    Raises:
        InvalidDataError: for modes or names that do not exist or do not go together.

    References:
        Fang et al. (2024), Functional Bayesian Tucker Decomposition for Continuous-indexed Tensor Data, ICLR.
    """

    def __init__(
        self,
        modes: Sequence[ModeSpec],
        rank: int | Sequence[int] | str = 3,
        form: str = "tucker",
        *,
        core_prior: str = "ard",
        main_effects: bool = True,
        residual: str | None = None,
        likelihood: str = "gaussian",
        neighbours: int = 40,
    ) -> None:
        self.modes = tuple(modes)
        if not self.modes or not all(isinstance(mode, ModeSpec) for mode in self.modes):
            raise InvalidDataError("modes must be a sequence of Continuous, Categorical or Spatial, at least one")
        names = [column for mode in self.modes for column in mode.columns]
        if len(set(names)) < len(names):
            raise InvalidDataError(f"two modes have the same column: {names}")
        for value, allowed, what in (
            (form, _FORMS, "form"),
            (core_prior, ("ard", "normal"), "core_prior"),
            (residual, (None, "local"), "residual"),
            (likelihood, tuple(OBSERVATIONS), "likelihood"),
        ):
            if value not in allowed:
                raise InvalidDataError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
        if residual == "local" and likelihood not in CONTINUOUS:
            raise InvalidDataError(f"residual='local' needs a gaussian or student-t likelihood, got {likelihood!r}")
        if residual == "local" and neighbours < 1:
            raise InvalidDataError(f"neighbours must be at least 1, got {neighbours}")
        self.rank = self._ranks(rank)
        self.form = form
        self.core_prior = core_prior
        self.main_effects = main_effects
        self.residual = residual
        self.likelihood = likelihood
        self.neighbours = neighbours
        self.result: TensorFit | None = None
        self._state: TensorState | None = None

    def _ranks(self, rank: int | Sequence[int] | str) -> tuple[int, ...] | str:
        if isinstance(rank, str):
            if rank != "auto":
                raise InvalidDataError(f"rank must be a number, one for each mode, or 'auto', got {rank!r}")
            return rank
        ranks = (rank,) * len(self.modes) if isinstance(rank, int) else tuple(int(r) for r in rank)
        if len(ranks) != len(self.modes) or min(ranks) < 1:
            raise InvalidDataError(
                f"rank must be a positive number or one for each of {len(self.modes)} modes, got {rank}"
            )
        return ranks

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(
        self,
        coordinates: Any,
        y: Any,
        *,
        restarts: int = 4,
        combine: str = "stack",
        sweeps: int = 40,
        tolerance: float = 1e-5,
        seed: int = 0,
        progress: bool = True,
        checkpoint: str | Path | None = None,
    ) -> TensorFit:
        """Fit to entries.

        Args:
            coordinates: pandas frame, mapping or structured array by names of columns, or an array or tensor (n, K).
            y: targets (n,), NaN where missing; or the name of a column.
            restarts: number of random starts.
            combine: "stack": each start leaves out its own part of the rows, and predictions are the equal mixture of
                all, with honest errors for the rows left out; "best": every start sees all rows, the largest bound is
                kept. With one start nothing is left out.
            sweeps: at most this many for each start.
            tolerance: a start ends when its bound changes by less than this per entry.
            seed: of everything random.
            progress: whether a bar is shown.
            checkpoint: a file that keeps what is finished; the same call goes on from there after an interruption.

        Raises:
            InvalidDataError: for data that cannot be used; the message says which row and column.
        """
        if combine not in ("stack", "best") or restarts < 1:
            raise InvalidDataError(f"combine must be 'stack' or 'best' with restarts >= 1, got {combine!r}, {restarts}")
        if self.residual == "local" and (restarts < 2 or combine != "stack"):
            raise InvalidDataError(
                "residual='local' needs combine='stack' and restarts >= 2: it is fitted to rows left out"
            )
        begun = clock.process_time()
        table = read_target(coordinates, y, self.modes)
        encodings, numbers, index = self._encode(table)
        if restarts > table.n // 2:
            raise InvalidDataError(f"{restarts} restarts for {table.n} entries: leave fewer parts")
        centre, unit = (float(table.y.mean()), float(table.y.std())) if self.likelihood in CONTINUOUS else (0.0, 1.0)
        unit = unit or 1.0
        target = (table.y - centre) / unit if self.likelihood in CONTINUOUS else table.y
        # The law of the residual's noise is fitted afterwards: the low-rank part below it has normal noise.
        likelihood = "gaussian" if self.residual == "local" else self.likelihood
        first = (1,) * len(encodings) if isinstance(self.rank, str) else self.rank
        settings = self._settings(first, likelihood, sweeps, tolerance)
        if self.rank == "auto":
            settings = choose_rank(encodings, index, target, settings, seed)
        stack = combine == "stack" and restarts > 1
        keep = Checkpoint(None if checkpoint is None else Path(checkpoint))
        keep.load(fingerprint(target, encodings, index, settings, restarts, combine, seed))
        members = fit_members(
            encodings,
            index,
            target,
            settings,
            restarts=restarts,
            leave_out=stack,
            seed=seed,
            checkpoint=keep,
            progress=progress,
        )
        if combine == "best":
            chosen = [max(members, key=lambda member: member.elbo)]
        else:
            chosen = members
        moments = left_out_moments(chosen, index, len(target)) if stack else None
        residual = None
        if self.residual == "local":
            assert moments is not None
            category = np.concatenate([[e.categorical] * len(e.spec.columns) for e in encodings]).astype(bool)
            residual = LocalResidual.fit(
                np.column_stack(numbers),
                category,
                target,
                moments[0][0],
                heavy=self.likelihood == "student-t",
                neighbours=self.neighbours,
                seed=seed,
            )
        self._state = TensorState(encodings, index, target, centre, unit, chosen, residual)
        left_out = (
            None if moments is None else self._law(*moments) if residual is None else self._scaled(residual.left_out)
        )
        self.result = describe(
            self.modes, members, self._state, table, settings.ranks, left_out, clock.process_time() - begun
        )
        keep.remove()
        return self.result

    def _settings(self, ranks: tuple[int, ...], likelihood: str, sweeps: int, tolerance: float) -> LowRankSettings:
        ard = self.core_prior == "ard"
        return LowRankSettings(self.form, ranks, ard, self.main_effects, likelihood, sweeps, tolerance)

    def _encode(self, table: TensorTable) -> tuple[list[Encoding], list[Array], list[NDArray[np.int32]]]:
        encodings = [mode.encode(columns) for mode, columns in zip(self.modes, table.columns, strict=True)]
        for encoding in encodings:
            if encoding.size < 2:
                raise InvalidDataError(
                    f"{encoding.spec.name!r} has one distinct value in the data: a mode needs two, leave it out"
                )
        numbers = [e.numbers(columns) for e, columns in zip(encodings, table.columns, strict=True)]
        return encodings, numbers, [e.index(x) for e, x in zip(encodings, numbers, strict=True)]

    # -- answers --------------------------------------------------------------------------------------------------

    def _fitted(self) -> TensorState:
        if self._state is None:
            raise InvalidDataError("this model has not been fitted: call fit(coordinates, y) first")
        return self._state

    @property
    def fitted(self) -> TensorFit:
        """Outcome of the last fit."""
        self._fitted()
        assert self.result is not None
        return self.result

    @property
    def elbo(self) -> float:
        """The largest evidence lower bound of the starts."""
        return float(self.fitted.elbo.max())

    @property
    def best(self) -> Member:
        """The start with the largest bound."""
        return max(self._fitted().members, key=lambda member: member.elbo)

    @property
    def core(self) -> Array:
        """Posterior mean of the core (Tucker, one axis for each mode) or of the components' weights (CP)."""
        state, posterior = self._fitted(), self.best.posterior
        mean = state.unit * posterior.form.mean
        return mean.reshape([mode.rank for mode in posterior.modes]) if self.form == "tucker" else mean

    @property
    def effective_rank(self) -> dict[str, int]:
        """For each mode, the number of functions that carry at least a thousandth of the low-rank variance."""
        return {mode.name: self.functions(mode.name).effective_rank for mode in self.modes}

    def functions(self, name: str) -> ModeFunctions:
        """Main effect and principal functions of a mode, of the start with the largest bound.

        Raises:
            InvalidDataError: for a mode that there is not.
        """
        names = [mode.name for mode in self.modes]
        if name not in names:
            raise InvalidDataError(f"there is no mode {name!r}: choose from {', '.join(names)}")
        state, k = self._fitted(), names.index(name)
        return mode_functions(self.best.posterior, k, name, state.encodings[k].labels(), state.counts(), state.unit)

    def predict(self, coordinates: Any) -> TensorPrediction | DiscretePrediction:
        """Predictive distributions at any coordinates; the functions are exact given the posterior.

        Args:
            coordinates: as for :meth:`fit`.

        Raises:
            InvalidDataError: as for :meth:`fit`; also for levels of a category that the data did not have.
        """
        state = self._fitted()
        columns = read_columns(coordinates, self.modes)
        numbers = [e.numbers(values) for e, values in zip(state.encodings, columns, strict=True)]
        moments = [member.posterior.moments_at(numbers) for member in state.members]
        mean = np.stack([first for first, _ in moments])
        if state.residual is not None:
            return self._scaled(state.residual.predict(np.column_stack(numbers), mean.mean(0)))
        variance = np.stack([np.maximum(square - first**2, 0.0) for first, square in moments])
        noise = np.array([noise_variance(member) for member in state.members])[:, None]

        def draw(n: int, seed: int) -> Array:
            return self._draw(numbers, np.sqrt(noise[:, 0]), n, seed)

        return self._law(mean, variance, noise, draw if self.likelihood == "gaussian" else None)

    def _law(
        self, mean: Array, variance: Array, noise: Array, draw: Callable[[int, int], Array] | None = None
    ) -> TensorPrediction | DiscretePrediction:
        """Law of y given moments (S, M) of the function and noise variances, in units of the fit."""
        state = self._fitted()
        observations = [member.posterior.observation for member in state.members]
        if self.likelihood not in CONTINUOUS:
            dispersions = [o.dispersion for o in observations if isinstance(o, NegativeBinomial)]
            dispersion = float(np.mean(dispersions)) if dispersions else 1.0
            return DiscretePrediction(mean, np.sqrt(variance), self.likelihood, dispersion)
        degrees, total = math.inf, variance + noise
        if self.likelihood == "student-t":
            degrees = float(np.mean([o.degrees for o in observations if isinstance(o, StudentTNoise)]))
            total = total * (degrees - 2.0) / degrees  # the law has exactly this variance
        function_variance = state.unit**2 * (variance.mean(0) + mean.var(0))
        location = state.centre + state.unit * mean
        return TensorPrediction(location, state.unit * np.sqrt(total), degrees, function_variance, draw)

    def _scaled(self, law: TensorPrediction) -> TensorPrediction:
        """From the unit of the fit to that of y."""
        state = self._fitted()
        return TensorPrediction(
            state.centre + state.unit * law.location,
            state.unit * law.scale,
            law.degrees,
            state.unit**2 * law.function_variance,
        )

    def _draw(self, numbers: list[Array], noise_sd: Array, n: int, seed: int) -> Array:
        """Joint draws of functions and core, with noise: members in turn."""
        state = self._fitted()
        rng = np.random.default_rng(seed)
        counts = np.bincount(rng.integers(len(state.members), size=n), minlength=len(state.members))
        parts = [
            member.posterior.sample(numbers, int(count), rng) + sd * rng.standard_normal((int(count), len(numbers[0])))
            for member, count, sd in zip(state.members, counts, noise_sd, strict=True)
            if count
        ]
        return state.centre + state.unit * rng.permutation(np.concatenate(parts))

    # -- more data ------------------------------------------------------------------------------------------------

    def update(self, coordinates: Any, y: Any, *, sweeps: int = 10, forgetting: float = 1.0) -> None:
        """Take in more entries, starting from the present posterior.

        The posterior at new coordinates is the exact prediction there; sweeps over old and new entries follow, so
        that many updates end where one fit to everything with the same start would. New entries are seen by all
        starts.

        Args:
            coordinates: as for :meth:`fit`, of the same modes.
            y: targets.
            sweeps: over all entries.
            forgetting: weight in (0, 1] that earlier entries are multiplied by; less than one forgets.

        Raises:
            InvalidDataError: for other modes, another likelihood than the Gaussian one, or a local residual.
        """
        state = self._fitted()
        if self.likelihood != "gaussian" or self.residual is not None:
            raise InvalidDataError("updates are for likelihood='gaussian' without a residual: fit again")
        if not 0.0 < forgetting <= 1.0:
            raise InvalidDataError(f"forgetting must lie in (0, 1], got {forgetting}")
        new = read_target(coordinates, y, self.modes)
        table = joined_table(state, new)
        encodings, _, index = self._encode(table)
        weight = np.concatenate([np.broadcast_to(forgetting * state.weight, state.y.shape), np.ones(new.n)])
        old = self.fitted
        settings = self._settings(old.ranks, "gaussian", sweeps, 0.0)
        members = [continued(member, state, encodings, index, table.y, weight, settings) for member in state.members]
        self._state = TensorState(encodings, index, table.y, state.centre, state.unit, members, None, weight)
        self.result = describe(self.modes, members, self._state, table, old.ranks, None, old.seconds)

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the fitted model, data included, to one file."""
        from gpkit.models.functional_tensor.storage import save_tensor

        return save_tensor(self, path)

    @staticmethod
    def load(path: str | Path) -> FunctionalTensor:
        """Read what :meth:`save` wrote. Files hold Python objects: load only those that you trust.

        Raises:
            InvalidDataError: if the file is not such a model.
        """
        from gpkit.models.functional_tensor.storage import load_tensor

        return load_tensor(path)

    def to_inference_data(self, draws: int = 500, seed: int = 0) -> Any:
        """Posterior draws of main effects and principal functions of every mode as ``arviz.InferenceData``."""
        from gpkit.models.functional_tensor.draws import tensor_inference_data

        return tensor_inference_data(self, draws, seed)

    def report(self, path: str | Path, **options: Any) -> tuple[Path, Path]:
        """Write an HTML report and its numbers; see :func:`gpkit.models.functional_tensor.reporting.write_report`."""
        from gpkit.models.functional_tensor.reporting import write_report

        return write_report(self, path, **options)
