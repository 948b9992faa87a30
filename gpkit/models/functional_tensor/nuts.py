"""The reference for small tables: the same model by NUTS, without the independence that variational Bayes assumes.

Functions, coefficients and noise are sampled jointly. Length scales, the precisions of the coefficients and parameters
of likelihoods other than the Gaussian one are kept where variational Bayes has learned them, so that what differs is
the posterior, not the prior.

References:
    Hoffman & Gelman (2014), JMLR 15, 1593.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.inference_data import provenance, to_inference_data
from gpkit.inference.structured_vb import CoreForm, GaussianNoise, LowRankPosterior, SiteObservation, TensorTrain
from gpkit.models.functional_tensor.checkpoint import Member
from gpkit.models.functional_tensor.state import TensorState
from gpkit.models.functional_tensor.table import read_columns

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["sample_tensor"]

Array = NDArray[np.float64]
_LARGEST = 4000
_DENSE = 300  # unknowns for which the metric is a full matrix
_SHAPE = _RATE = 1e-3


class _Program:
    """Minus the logarithm of the posterior density in coordinates of independent standard normal variables.

    Args:
        posterior: of the variational fit, whose prior it is.
        points: coordinates of the nodes of every mode.
        index: nodes of the entries.
        y: targets.
    """

    def __init__(
        self, posterior: LowRankPosterior, points: Sequence[Array], index: Sequence[NDArray[np.int32]], y: Array
    ) -> None:
        self.posterior = posterior
        self.index = [torch.from_numpy(np.asarray(column, np.int64)) for column in index]
        self.y = torch.from_numpy(np.array(y))
        self.roots, self.inverses = [], []
        for mode, at in zip(posterior.modes, points, strict=True):
            values, vectors = np.linalg.eigh(mode.factor.prior_covariance(at))
            keep = values > 1e-13 * values[-1]  # what is below is rounding
            self.roots.append(torch.from_numpy(vectors[:, keep] * np.sqrt(values[keep])))
            self.inverses.append(torch.from_numpy((vectors[:, keep] / np.sqrt(values[keep])).T.copy()))
        self.spreads = [torch.from_numpy(1.0 / np.sqrt(precision)) for precision in _precisions(posterior)]
        self.gaussian = isinstance(posterior.observation, GaussianNoise)
        self._shapes = [
            (root.shape[1], mode.factor.rank) for root, mode in zip(self.roots, posterior.modes, strict=True)
        ]
        self._sizes = [a * b for a, b in self._shapes] + [len(spread) for spread in self.spreads]
        self._sizes += [1] if self.gaussian else []
        self._orders = [torch.from_numpy(np.argsort(np.append(m.free, m.constant))) for m in posterior.modes]

    @property
    def size(self) -> int:
        """Number of variables."""
        return sum(self._sizes)

    def start(self, means: Sequence[Array], rng: np.random.Generator | None) -> Tensor:
        """The means of the variational posterior, moved a little if there is a generator."""
        parts = [(inverse.numpy() @ mean).reshape(-1) for inverse, mean in zip(self.inverses, means, strict=True)]
        parts += [own / spread.numpy() for spread, own in zip(self.spreads, _coefficients(self.posterior), strict=True)]
        if self.gaussian:
            parts.append(np.array([math.log(self.posterior.observation.precision)]))
        moved = 0.0 if rng is None else 0.1 * rng.standard_normal(self.size)
        return torch.from_numpy(np.concatenate(parts) + moved)

    def values(self, z: Tensor, index: Sequence[Tensor]) -> Tensor:
        """f (M,) at nodes."""
        parts = z.split(self._sizes)
        tables = []
        for k, (mode, root, shape) in enumerate(zip(self.posterior.modes, self.roots, self._shapes, strict=True)):
            table = root @ parts[k].reshape(shape)
            if mode.rank > shape[1]:
                constant = table.new_ones(len(table), mode.rank - shape[1])
                table = torch.cat([table, constant], 1)[:, self._orders[k]]
            tables.append(table[index[k]])
        weights = [part * spread for part, spread in zip(parts[len(tables) :], self.spreads, strict=False)]
        form = self.posterior.form
        if isinstance(form, CoreForm):
            product = weights[0].expand(len(tables[0]), -1)
            for table, column in zip(tables, form.coupling.T, strict=True):
                product = product * table[:, torch.from_numpy(column.copy())]
            return product.sum(1)
        assert isinstance(form, TensorTrain)
        state = torch.ones(len(tables[0]), 1, dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        for own, table, weight in zip(form.links, tables, weights, strict=True):
            term = state[:, torch.from_numpy(own.left)] * table * torch.cat([weight, one])[own.weight]
            state = torch.zeros(len(table), own.after, dtype=torch.float64)
            state = state.index_add(1, torch.from_numpy(own.right), term)
        return state[:, 0]

    def potential(self, variables: dict[str, Tensor]) -> Tensor:
        """Minus the logarithm of the density, up to a constant."""
        z = variables["z"]
        f = self.values(z, self.index)
        observation = self.posterior.observation
        if isinstance(observation, SiteObservation):
            return 0.5 * z.square().sum() - observation.likelihood.log_density(self.y, f).sum()
        log_tau, white = z[-1], z[:-1]
        shape = _SHAPE + 0.5 * len(self.y)
        error = (self.y - f).square().sum()
        return 0.5 * white.square().sum() - shape * log_tau + log_tau.exp() * (_RATE + 0.5 * error)


def _precisions(posterior: LowRankPosterior) -> list[Array]:
    form = posterior.form
    if isinstance(form, CoreForm):
        return [form.expected_precision()[0]]
    assert isinstance(form, TensorTrain)
    return [form.expected_precision(k)[0] for k in range(len(form.links))]


def _coefficients(posterior: LowRankPosterior) -> list[Array]:
    form = posterior.form
    if isinstance(form, CoreForm):
        return [form.mean]
    assert isinstance(form, TensorTrain)
    return [own.mean for own in form.weights]


def sample_tensor(
    model: FunctionalTensor, coordinates: Any, *, draws: int, tune: int, chains: int, seed: int, progress: bool
) -> Any:
    """Draws of the function at the kept entries, and at other coordinates, by Pyro's NUTS.

    Args:
        model: fitted; the start with the largest bound is where chains begin.
        coordinates: of more points, or None.
        draws: of each chain.
        tune: steps that adapt step size and metric before them.
        chains: one after the other.
        seed: of everything random.
        progress: whether a bar is shown.

    Raises:
        InvalidDataError: for a model with a local residual or carried entries, or one that is too large.
    """
    if min(draws, chains) < 1 or tune < 1:
        raise InvalidDataError(f"draws, tune and chains must be at least 1, got {draws}, {tune} and {chains}")
    state, member = model._fitted(), model.best
    if state.residual is not None or state.entries > len(state.y):
        raise InvalidDataError("NUTS is for models without a local residual that hold all their entries in memory")
    program, nodes, more = _arranged(model, state, member, coordinates)
    if program.size > _LARGEST:
        raise InvalidDataError(
            f"NUTS is for small problems, of at most {_LARGEST} unknowns: this one has {program.size}"
        )
    means = [mode.factor.at(at)[0] for mode, at in zip(member.posterior.modes, nodes, strict=True)]
    chained = [_chain(program, means, draws, tune, seed + k, progress) for k in range(chains)]
    return _inference_data(state, program, more, chained, seed, tune)


def _arranged(
    model: FunctionalTensor, state: TensorState, member: Member, coordinates: Any
) -> tuple[_Program, list[Array], list[Tensor] | None]:
    """The program, its nodes, and nodes of the other coordinates."""
    own = np.flatnonzero(state.part != member.part) if member.part >= 0 else np.arange(len(state.y))
    nodes, seen, more = [e.points for e in state.encodings], [column[own] for column in state.index], None
    if coordinates is not None:
        columns = read_columns(coordinates, model.modes)
        asked = [e.numbers(values) for e, values in zip(state.encodings, columns, strict=True)]
        joined = [
            np.unique(np.concatenate([a, b]), axis=0, return_inverse=True) for a, b in zip(nodes, asked, strict=True)
        ]
        nodes = [distinct for distinct, _ in joined]
        places = [inverse.reshape(-1) for _, inverse in joined]
        seen = [
            at[: e.size][column].astype(np.int32) for at, e, column in zip(places, state.encodings, seen, strict=True)
        ]
        more = [torch.from_numpy(at[e.size :]) for at, e in zip(places, state.encodings, strict=True)]
    return _Program(member.posterior, nodes, seen, state.y[own]), nodes, more


def _chain(
    program: _Program, means: Sequence[Array], draws: int, tune: int, seed: int, progress: bool
) -> tuple[Tensor, NDArray[np.bool_]]:
    """States (draws, D) of one chain, and which of its transitions diverged."""
    import pyro
    from pyro.infer import MCMC, NUTS

    pyro.set_rng_seed(seed)
    start = {"z": program.start(means, np.random.default_rng(seed))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's and Pyro's own code
        kernel = NUTS(potential_fn=program.potential, max_tree_depth=8, full_mass=program.size <= _DENSE)
        run = MCMC(kernel, num_samples=draws, warmup_steps=tune, initial_params=start, disable_progbar=not progress)
        run.run()
    flags = np.zeros(draws, dtype=bool)
    flags[[k for k in run.diagnostics()["divergences"]["chain 0"] if k < draws]] = True
    return run.get_samples()["z"], flags


def _inference_data(
    state: TensorState,
    program: _Program,
    more: list[Tensor] | None,
    chained: Sequence[tuple[Tensor, NDArray[np.bool_]]],
    seed: int,
    tune: int,
) -> Any:
    def at(index: Sequence[Tensor]) -> Array:
        values = [[program.values(z, index).numpy() for z in states] for states, _ in chained]
        return state.centre + state.unit * np.array(values)

    with torch.no_grad():
        posterior = {"f": at(program.index)}
        if more is not None:
            posterior["f_new"] = at(more)
    if program.gaussian:
        log_tau = np.stack([states[:, -1].numpy() for states, _ in chained])
        posterior["noise_variance"] = state.unit**2 * np.exp(-log_tau)
    dims = {"f": ["entry"], "f_new": ["point"], "y": ["entry"]}
    return to_inference_data(
        posterior,
        {"diverging": np.stack([flags for _, flags in chained])},
        groups={"observed_data": {"y": state.centre + state.unit * program.y.numpy()}},
        dims=dims if more is not None else {k: v for k, v in dims.items() if k != "f_new"},
        attrs=provenance(seed=seed, sampler="pyro", tune=tune, unknowns=program.size),
    )
