"""Posterior draws of what can be compared between starts: main effects and principal functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.errors import InvalidDataError
from gpkit.inference.inference_data import provenance

if TYPE_CHECKING:
    from gpkit.models.functional_tensor.model import FunctionalTensor

__all__ = ["tensor_inference_data"]


def tensor_inference_data(model: FunctionalTensor, draws: int, seed: int) -> Any:
    """One chain of independent draws from the posterior of the start with the largest bound.

    Variables are ``main_<mode>`` (effect at each coordinate, unit of y) and ``function_<mode>`` (principal functions,
    unit mean square), with the coordinates as dimensions; the group ``observed_data`` holds the targets.

    Args:
        model: fitted.
        draws: number of draws.
        seed: of the draws.

    Raises:
        InvalidDataError: for fewer than two draws.
    """
    import arviz
    import xarray

    if draws < 2:
        raise InvalidDataError(f"draws must be at least 2, got {draws}")
    state, posterior = model._fitted(), model.best.posterior
    rng = np.random.default_rng(seed)
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    weights = [count / count.sum() for count in state.counts]
    averages = [share @ mode.means() for share, mode in zip(weights, posterior.modes, strict=True)]
    coefficients = posterior.form.draw(draws, rng)
    for k, (spec, mode) in enumerate(zip(model.modes, posterior.modes, strict=True)):
        found = model.functions(spec.name)
        encoding = state.encodings[k]
        drawn = mode.factor.sample(encoding.points, draws, rng)
        full = np.ones((draws, encoding.size, mode.rank))
        full[:, :, mode.free] = drawn
        main = state.unit * np.einsum("njr,nr->nj", full, posterior.form.reduce(coefficients, k, averages))
        main -= main @ weights[k][:, None]
        functions = (drawn - weights[k] @ mode.factor.mean) @ found.mixing
        along, rank = f"{spec.name}_coordinate", f"{spec.name}_function"
        labels = encoding.labels()
        coordinates[along] = labels if labels.ndim == 1 else [str(tuple(row)) for row in labels]
        coordinates[rank] = np.arange(functions.shape[2])
        variables[f"main_{spec.name}"] = (("chain", "draw", along), main[None])
        variables[f"function_{spec.name}"] = (("chain", "draw", along, rank), functions[None])
    facts = provenance(seed=seed, elbo=model.elbo, ranks=str(model.fitted.ranks), form=model.form)
    coordinates |= {"chain": [0], "draw": np.arange(draws)}
    data = xarray.Dataset(variables, coords=coordinates, attrs=facts)
    y = state.centre + state.unit * state.y
    observed = xarray.Dataset({"y": (("entry",), y)})
    return arviz.InferenceData(posterior=data, observed_data=observed)
