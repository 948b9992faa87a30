"""From a light-curve model to an ArviZ posterior: compiled NUTS, or Pyro's on the same model."""

from __future__ import annotations

import time as clock
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.inference_data import provenance, to_inference_data
from gpkit.inference.maximise import laplace, maximise
from gpkit.inference.nuts import sample_nuts
from gpkit.recursions import series

if TYPE_CHECKING:
    from gpkit.models.light_curve_gp import LightCurveGP

__all__ = ["sample_light_curve"]

Array = NDArray[np.float64]

_LARGEST_GROUP = 20_000_000
_PREDICTIVE_DRAWS = 100


def sample_light_curve(
    model: LightCurveGP, draws: int, tune: int, chains: int, seed: int, method: str, progress: bool, cores: int | None
) -> tuple[Array, Any]:
    """Draws (chains, draws, D) in unconstrained coordinates and the InferenceData made from them."""
    if method not in ("nuts", "pyro"):
        raise InvalidDataError(f"method must be 'nuts' or 'pyro', got {method!r}")
    for name, value, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if value < least:
            raise InvalidDataError(f"{name} must be at least {least}, got {value}")
    begun = clock.perf_counter()
    if method == "nuts":
        start = None if "map" not in model.fits else model.potential.to_unconstrained(model.fits["map"].parameters)
        mode = maximise(model.potential, seed=seed, jacobian=True, init=start, starts=1 if start is not None else 5)
        z, stats = sample_nuts(
            model.potential,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            init=laplace(model.potential, mode.z),
            progress=progress,
            cores=cores,
        )
    else:
        z, stats = _sample_pyro(model, draws, tune, chains, seed, progress)
    seconds = clock.perf_counter() - begun
    return z, _inference_data(model, z, stats, seed, tune, method, seconds)


def _inference_data(
    model: LightCurveGP, z: Array, stats: dict[str, Any], seed: int, tune: int, method: str, seconds: float
) -> Any:
    chains, draws, _ = z.shape
    natural = model.potential.to_natural(z)
    step = max(1, -(-chains * draws * model.n // _LARGEST_GROUP))
    thinned = z[:, ::step]
    flat = np.ascontiguousarray(thinned.reshape(-1, z.shape[-1]))
    log_likelihood = np.concatenate(
        [model._leave_one_out(block).log_density for block in np.array_split(flat, max(1, len(flat) // 256))]
    )
    every = max(1, draws // _PREDICTIVE_DRAWS)
    replicated = _predictive(model, np.ascontiguousarray(z[:, ::every].reshape(-1, z.shape[-1])), seed)
    time = np.array(model.detections.time)
    attributes = provenance(
        seed=seed,
        kernel=model.name,
        transform=model.transform or "none",
        sampler="nutpie (compiled potential)" if method == "nuts" else "pyro",
        tune=tune,
        log_likelihood_is="exact leave-one-out conditional densities ln p(y_i | y_-i, parameters)",
        posterior_predictive_is="new observations at the observed times given the data, each by itself",
        log_likelihood_thinned_by=step,
        posterior_predictive_thinned_by=every,
        sampling_time=seconds,
    )
    return to_inference_data(
        natural,
        stats,
        groups={
            "log_likelihood": {"y": log_likelihood.reshape(chains, -1, model.n)},
            "posterior_predictive": {"y": replicated.reshape(chains, -1, model.n)},
            "observed_data": {"y": np.array(model.detections.value)},
            "constant_data": {"error": np.array(model.detections.error)},
        },
        coords={"time": time},
        dims={"y": ["time"], "error": ["time"]},
        attrs=attributes,
    )


def _predictive(model: LightCurveGP, z: Array, seed: int) -> Array:
    """New observations (S, N) at the observed times given the data."""
    parts = model.potential.components(z)
    mean, variance, _ = series.smooth(
        model.kernel.structure, parts.parameters, model._t, model._y - parts.mean, parts.noise
    )
    rng = np.random.default_rng([seed, 1])
    spread = np.sqrt(np.maximum(variance, 0.0) + parts.noise)
    out: Array = mean + parts.mean + spread * rng.standard_normal(mean.shape)
    return np.exp(out) if model.transform else out


def _sample_pyro(
    model: LightCurveGP, draws: int, tune: int, chains: int, seed: int, progress: bool
) -> tuple[Array, dict[str, Any]]:
    """Pyro's NUTS, one chain after the other, with the operator's evidence as a factor."""
    import pyro
    from pyro.infer import MCMC, NUTS

    from gpkit.inference.pyro_failures import count_failures_as_divergent
    from gpkit.operators import SemiseparableLinearOperator

    count_failures_as_divergent()

    t, y, error = (torch.as_tensor(a) for a in (model._t, model._y, model._error))
    basis = torch.as_tensor(model._mean.basis(model._t))
    specs = model.specs

    def program() -> None:
        values = {}
        for spec in specs:
            prior = spec.prior
            if prior is None:
                raise InvalidDataError(f"{spec.name} has a flat prior, which Pyro cannot sample")
            values[spec.name] = pyro.sample(spec.name, _pyro_prior(prior))
        entries = model.kernel.structure_parameters(model._natural(values), torch)
        params = torch.stack(
            [e if isinstance(e, torch.Tensor) else torch.tensor(float(e), dtype=t.dtype) for e in entries]
        )
        noise = error**2 + (values["jitter"] ** 2 if "jitter" in values else 0.0)
        coefficients = [values[name] for name in model._mean.names]
        mean = basis @ torch.stack(coefficients) if coefficients else torch.zeros_like(y)
        operator = SemiseparableLinearOperator(t, params, noise, structure=model.kernel.structure)
        quad, logdet = operator.inv_quad_logdet((y - mean).unsqueeze(-1), logdet=True)
        pyro.factor("evidence", -0.5 * (quad + logdet))

    start = {name: torch.tensor(v, dtype=t.dtype) for name, v in model._fitted("map").parameters.items()}
    collected: list[dict[str, Array]] = []
    stats: dict[str, list[Any]] = {"diverging": [], "energy": []}
    for chain in range(chains):
        pyro.set_rng_seed(seed * 1000 + chain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's and Pyro's own code
            kernel = NUTS(program, init_strategy=pyro.infer.autoguide.initialization.init_to_value(values=start))
            mcmc = MCMC(kernel, num_samples=draws, warmup_steps=tune, num_chains=1, disable_progbar=not progress)
            mcmc.run()
        collected.append({name: v.detach().double().numpy() for name, v in mcmc.get_samples().items()})
        flags = np.zeros(draws, dtype=bool)
        flags[[k for k in mcmc.diagnostics()["divergences"]["chain 0"] if k < draws]] = True
        stats["diverging"].append(flags)
    values = {spec.name: np.stack([c[spec.name] for c in collected]) for spec in specs}
    z = model.potential.to_unconstrained(values)
    return z, {"diverging": np.stack(stats["diverging"])}


def _pyro_prior(prior: Any) -> Any:
    """A GPyTorch prior as the Pyro distribution of the same parameters."""
    import pyro.distributions as dist

    known: tuple[tuple[Any, Any, tuple[str, ...]], ...] = (
        (torch.distributions.LogNormal, dist.LogNormal, ("loc", "scale")),
        (torch.distributions.HalfNormal, dist.HalfNormal, ("scale",)),
        (torch.distributions.HalfCauchy, dist.HalfCauchy, ("scale",)),
        (torch.distributions.Normal, dist.Normal, ("loc", "scale")),
        (torch.distributions.Gamma, dist.Gamma, ("concentration", "rate")),
        (torch.distributions.Uniform, dist.Uniform, ("low", "high")),
    )
    for base, maker, names in known:
        if isinstance(prior, base):
            return maker(*(torch.as_tensor(getattr(prior, name)).double() for name in names))
    raise InvalidDataError(
        f"{type(prior).__name__} is not known to the Pyro path; use a Normal, LogNormal, HalfNormal, HalfCauchy, Gamma "
        "or Uniform prior"
    )
