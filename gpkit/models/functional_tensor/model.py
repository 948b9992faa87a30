"""Low-rank models of sparse tables whose modes are continuous, periodic, spatial or categorical."""

from __future__ import annotations

import time as clock
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.checks import positive_integer
from gpkit.errors import DataWarning, InvalidDataError
from gpkit.inference.structured_vb import CoreForm, observation_named
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.estimation import FitOptions, estimate, low_rank_settings
from gpkit.models.functional_tensor.functions import ModeFunctions, mode_functions
from gpkit.models.functional_tensor.gauge import TrainGauge, canonical_train
from gpkit.models.functional_tensor.latent_residual import LatentResidual
from gpkit.models.functional_tensor.laws import joint_draws, member_moments, mixture_law, rescaled
from gpkit.models.functional_tensor.modes import ModeSpec
from gpkit.models.functional_tensor.predictions import DiscretePrediction, TensorPrediction
from gpkit.models.functional_tensor.result import OVERDISPERSED, TensorFit, describe
from gpkit.models.functional_tensor.settings import CONTINUOUS, LIKELIHOODS, read_rank
from gpkit.models.functional_tensor.state import TensorState
from gpkit.models.functional_tensor.streaming import updated
from gpkit.models.functional_tensor.table import read_columns, read_target

__all__ = ["FunctionalTensor", "TensorFit"]

Array = NDArray[np.float64]

_FORMS = ("tucker", "cp", "tensor-train")
_KEPT = 100_000
_SWEEPS, _SWEEPS_BELOW = 25, 12


class FunctionalTensor:
    r"""A tensor whose entries are indexed by coordinates: latent functions along each mode, coupled by a core.

    .. math:: y_n = \sum_{r_1 \dots r_K} G_{r_1 \dots r_K} \prod_k u^k_{r_k}(x_{nk}) + a(x_n) + \epsilon_n

    Functions of a continuous mode are Markov Gaussian processes with learned length scales; a is the local residual.
    Inference is structured variational Bayes: a full-covariance core, one joint Gaussian of all functions along each
    mode, and a bound that never decreases.

    Args:
        modes: ``Continuous``, ``Categorical`` or ``Spatial``, one or more.
        rank: number of functions of each mode; one number, one for each mode, or "auto" to choose by the bound. For a
            tensor train the rank of the bonds: one number, one for each bond between modes, or "auto".
        form: "tucker", "cp", or "tensor-train": a product of one matrix of functions for each mode, whose cost grows
            linearly with the number of modes.
        core_prior: "ard" learns a precision for every slice of the core (every component of CP, every state of a bond);
            "normal" does not.
        main_effects: whether every mode also has the constant function, so that the core holds an intercept, main
            effects and interactions of every order.
        residual: None, or "local": nearest-neighbour Gaussian processes over all modes jointly, on what the low-rank
            part leaves; see :class:`~gpkit.models.functional_tensor.local_residual.LocalResidual`, and
            :class:`~gpkit.models.functional_tensor.latent_residual.LatentResidual` for counts and binary tables.
        likelihood: "gaussian", "student-t", "poisson", "bernoulli" or "negative-binomial". With a local residual the
            law of continuous noise, and how its scale follows the prediction, are fitted to rows predicted without
            themselves; for the others so are belief and width of the residual.
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
        self.modes = tuple(modes) if hasattr(modes, "__iter__") else ()
        if not self.modes or not all(isinstance(mode, ModeSpec) for mode in self.modes):
            raise InvalidDataError("modes must be a sequence of Continuous, Categorical or Spatial, at least one")
        names = [column for mode in self.modes for column in mode.columns]
        if len(set(names)) < len(names):
            raise InvalidDataError(f"two modes have the same column: {names}")
        for value, allowed, what in (
            (form, _FORMS, "form"),
            (core_prior, ("ard", "normal"), "core_prior"),
            (residual, (None, "local"), "residual"),
            (likelihood, LIKELIHOODS, "likelihood"),
        ):
            if value not in allowed:
                raise InvalidDataError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
        neighbours = positive_integer(neighbours, "neighbours")
        self.form = form
        self.rank = read_rank(rank, len(self.modes), form)
        self.core_prior = core_prior
        self.main_effects = main_effects
        self.residual = residual
        self.likelihood = likelihood
        self.neighbours = neighbours
        self.result: TensorFit | None = None
        self._state: TensorState | None = None

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(
        self,
        coordinates: Any,
        y: Any,
        *,
        restarts: int = 4,
        combine: str = "stack",
        sweeps: int | None = None,
        tolerance: float = 1e-5,
        batch_size: int | None = None,
        epochs: int = 2,
        keep: int = _KEPT,
        seed: int = 0,
        progress: bool = True,
        checkpoint: str | Path | None = None,
        keep_checkpoint: bool = False,
    ) -> TensorFit:
        """Fit to entries.

        A table that does not fit into memory comes in chunks: as the path of a CSV file, or as an iterator (or a
        function that returns one) of frames. It is read once; what sweeps need is kept in temporary files.

        Args:
            coordinates: pandas frame, mapping or structured array by names of columns, or an array or tensor (n, K); or
                chunks of such, by names of columns.
            y: targets (n,), NaN where missing; or the name of a column.
            restarts: number of random starts.
            combine: "stack": each start leaves out its own part of the rows, and predictions are the equal mixture of
                all, with honest errors for the rows left out (tables in chunks are seen whole by every start); "best":
                every start sees all rows, the largest bound is kept. With one start nothing is left out.
            sweeps: at most this many for each start; 25 if not given, 12 for a Tucker or CP model below a local
                residual of continuous targets, which learns what more sweeps would.
            tolerance: a start ends when its bound changes by less than this per entry.
            batch_size: entries that are read at a time; all if not given, 100,000 for tables in chunks. Each start then
                begins with stochastic steps, one for each random batch, and goes on with exact sweeps over all pieces.
            epochs: stochastic passes over the table, where there are batches.
            keep: number of the newest entries that stay in memory for updates, for tables in chunks.
            seed: of everything random.
            progress: whether a bar is shown.
            checkpoint: a file that keeps what is finished; the same call goes on from there after an interruption.
            keep_checkpoint: whether that file stays after the fit, for what follows it: the same call is then short.

        Raises:
            InvalidDataError: for data that cannot be used; the message says which row and column.

        Warns:
            DataWarning: for Poisson counts whose entries left out vary more than such counts do.
        """
        limit = self._usual_sweeps() if sweeps is None else sweeps
        options = FitOptions(
            restarts, combine, limit, tolerance, batch_size, epochs, keep, seed, progress, checkpoint, keep_checkpoint
        )
        if self.residual == "local" and (restarts < 2 or combine != "stack"):
            raise InvalidDataError(
                "residual='local' needs combine='stack' and restarts >= 2: it is fitted to rows left out"
            )
        begun = clock.process_time()
        found = estimate(self, coordinates, y, options)
        self._state = found.state
        self.result = describe(
            self.modes,
            found.members,
            found.state,
            found.exclusions,
            found.ranks,
            found.unseen,
            clock.process_time() - begun,
        )
        if self.likelihood == "poisson" and found.unseen is not None:
            self._warn_of_overdispersion()
        return self.result

    def _warn_of_overdispersion(self) -> None:
        ratio = self.fitted.overdispersion(self._fitted().y)
        if ratio > OVERDISPERSED:
            warnings.warn(
                f"entries left out differ from their predictions with {ratio:.1f} times the variance of Poisson "
                "counts: likelihood='negative-binomial' is for such counts",
                DataWarning,
                stacklevel=3,
            )

    def _usual_sweeps(self) -> int:
        below = self.residual == "local" and self.likelihood in CONTINUOUS and self.form != "tensor-train"
        return _SWEEPS_BELOW if below else _SWEEPS

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
        """The largest evidence lower bound of the starts.

        It is a bound of the low-rank part with its noise. A local residual is not part of it: that is fitted to rows
        predicted without themselves, whose density ``fitted.left_out`` gives. After entries have left memory it is a
        bound up to a constant, of what is kept given what is carried.
        """
        return float(self.fitted.elbo.max())

    @property
    def best(self) -> Member:
        """The start with the largest bound."""
        return max(self._fitted().members, key=lambda member: member.elbo)

    @property
    def core(self) -> Array:
        """Posterior mean of the core (Tucker, one axis for each mode) or of the components' weights (CP).

        For a tensor train the singular values across each bond, one row (r,) for each, filled up with zeros.
        """
        state, posterior = self._fitted(), self.best.posterior
        if self.form == "tensor-train":
            values = self.train().singular_values
            out = np.zeros((len(values), max((len(v) for v in values), default=0)))
            for row, own in zip(out, values, strict=True):
                row[: len(own)] = own
            return out
        form = posterior.form
        assert isinstance(form, CoreForm)
        mean = state.unit * form.mean
        return mean.reshape([mode.rank for mode in posterior.modes]) if self.form == "tucker" else mean

    def train(self) -> TrainGauge:
        """The tensor train of the start with the largest bound in its canonical gauge.

        Raises:
            InvalidDataError: for another form.
        """
        if self.form != "tensor-train":
            raise InvalidDataError(f"there is no train in a model of form={self.form!r}: see core and functions()")
        state = self._fitted()
        return canonical_train(self.best.posterior, [mode.name for mode in self.modes], state.counts, state.unit)

    @property
    def effective_rank(self) -> dict[str, int]:
        """For each mode, the number of functions that carry at least a thousandth of the low-rank variance.

        For a tensor train also, under "first | second", the number of singular values across each bond that do.
        """
        out = {mode.name: self.functions(mode.name).effective_rank for mode in self.modes}
        if self.form == "tensor-train":
            gauge = self.train()
            out |= {f"{a} | {b}": rank for (a, b), rank in zip(gauge.bonds, gauge.effective_rank, strict=True)}
        return out

    def functions(self, name: str) -> ModeFunctions:
        """Main effect and principal functions of a mode, of the start with the largest bound.

        Raises:
            InvalidDataError: for a mode that there is not.
        """
        names = [mode.name for mode in self.modes]
        if name not in names:
            raise InvalidDataError(f"there is no mode {name!r}: choose from {', '.join(names)}")
        state, k = self._fitted(), names.index(name)
        return mode_functions(self.best.posterior, k, name, state.encodings[k].labels(), state.counts, state.unit)

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
        mean, variance, noise = member_moments(state.members, numbers)
        if state.residual is not None:
            points = np.column_stack(numbers)
            if isinstance(state.residual, LatentResidual):
                return state.residual.predict(points, mean, variance, state.weights)
            average = state.weights @ mean
            spread = state.weights @ (variance + (mean - average) ** 2)
            return rescaled(state, state.residual.predict(points, average, spread))

        def draw(n: int, seed: int) -> Array:
            return joint_draws(state, numbers, n, seed)

        normal = self.likelihood == "gaussian"
        return mixture_law(state, self.likelihood, mean, variance, noise, draw if normal else None)

    # -- more data ------------------------------------------------------------------------------------------------

    def update(self, coordinates: Any, y: Any, *, sweeps: int = 10, forgetting: float = 1.0, keep: int = _KEPT) -> None:
        """Take in more entries, in memory that does not grow with their number.

        The newest ``keep`` entries stay in memory, and a random sample of as many older ones, 10,000 at least; what all
        older ones say is carried as Gaussian sites of the functions, the coefficients and the noise, corrected by the
        sample. The posterior at new coordinates begins as the exact prediction there; sweeps over the entries in memory
        follow. As long as every older entry is in the sample, many updates end where one fit to everything with the
        same start would; afterwards they are streaming variational Bayes, which agrees with it approximately. New
        entries are seen by all starts. A local residual keeps what it has learned; its neighbours are the kept
        entries.

        Args:
            coordinates: as for :meth:`fit`, of the same modes, in memory.
            y: targets.
            sweeps: over the kept entries.
            forgetting: power in (0, 1] of the likelihood of all earlier entries; less than one forgets. Entries count
                half after ``ln 2 / -ln forgetting`` further updates.
            keep: number of entries.

        Raises:
            InvalidDataError: for other modes, or entries that cannot be used.
        """
        state, old = self._fitted(), self.fitted
        if not 0.0 < forgetting <= 1.0:
            raise InvalidDataError(f"forgetting must lie in (0, 1], got {forgetting}")
        sweeps, keep = positive_integer(sweeps, "sweeps"), positive_integer(keep, "keep")
        begun = clock.process_time()
        new = read_target(coordinates, y, self.modes, least=1)
        if self.likelihood not in CONTINUOUS:
            observation_named(self.likelihood, new.y)
        settings = low_rank_settings(self, old.ranks, sweeps, 0.0)
        self._state = updated(state, new, settings, keep=keep, forgetting=forgetting)
        exclusions = {
            k: old.exclusions.get(k, 0) + new.exclusions.get(k, 0) for k in {**old.exclusions, **new.exclusions}
        }
        seconds = old.seconds + clock.process_time() - begun
        self.result = describe(self.modes, self._state.members, self._state, exclusions, old.ranks, None, seconds)

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

    def sample(
        self,
        coordinates: Any = None,
        *,
        draws: int = 500,
        tune: int = 500,
        chains: int = 2,
        seed: int = 0,
        progress: bool = True,
    ) -> Any:
        """The posterior of the function by NUTS (Pyro), as a reference for small tables, as ``arviz.InferenceData``.

        Functions, coefficients and noise are sampled jointly, length scales stay as they were learned, and the entries
        are those that the start with the largest bound has seen. Variables: ``f`` at these entries, ``f_new`` at other
        coordinates, in the unit of y (the linear predictor of counts).

        Args:
            coordinates: of other points, as for :meth:`predict`.
            draws: of each chain.
            tune: steps before them.
            chains: one after the other.
            seed: of everything random.
            progress: whether a bar is shown.

        Raises:
            InvalidDataError: for a model with a local residual, one whose entries have left memory, or a large one.
        """
        from gpkit.models.functional_tensor.nuts import sample_tensor

        return sample_tensor(self, coordinates, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress)

    def to_inference_data(self, draws: int = 500, seed: int = 0) -> Any:
        """Posterior draws of main effects and principal functions of every mode as ``arviz.InferenceData``."""
        from gpkit.models.functional_tensor.draws import tensor_inference_data

        return tensor_inference_data(self, draws, seed)

    def report(self, path: str | Path, **options: Any) -> tuple[Path, Path]:
        """Write an HTML report and its numbers; see :func:`gpkit.models.functional_tensor.reporting.write_report`."""
        from gpkit.models.functional_tensor.reporting import write_report

        return write_report(self, path, **options)
