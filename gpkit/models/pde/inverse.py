"""Inverse problems: unknown numbers and coefficient fields of differential equations, from noisy observations."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpkit.errors import ConvergenceError, ConvergenceWarning, InvalidDataError
from gpkit.inference.collocation.forms import Problem
from gpkit.inference.collocation.inverse.engine import InverseDensity, Mode, find_mode
from gpkit.inference.collocation.inverse.fields import EliminatedFields, FieldPrior
from gpkit.inference.collocation.inverse.posterior import CoefficientPosterior
from gpkit.inference.collocation.inverse.sampling import sample_unknowns
from gpkit.inference.collocation.noisy.levels import has_unknown_noise
from gpkit.models.pde.residuals import measure
from gpkit.models.pde.solution import Solution
from gpkit.models.pde.solving import findings_of, grid_of

if TYPE_CHECKING:
    from gpkit.models.pde.fields import Field
    from gpkit.models.pde.problem import PDE

__all__ = ["Inference", "infer"]

Array = NDArray[np.float64]

METHODS = ("laplace", "nuts")
_FIRST = {1: 24, 2: 12, 3: 6}
_MOST = {1: 400, 2: 45, 3: 13}
_TAIL = 1e-8
_FIELD_DRAWS = 400
_R_HAT = 1.05


@dataclass(frozen=True, eq=False)
class Inference:
    """Posterior of the unknowns of a problem, and of its fields.

    Attributes:
        solution: The fields, their uncertainty from the unknowns included; unknown coefficient fields are among them.
        parameters: Unknown numbers where the posterior density is largest.
        draws: Draws of each, (chain, draw).
        posterior: The same with draws of the fields, as an ``arviz.InferenceData``.
        converged: Whether the maximum was found and, for NUTS, no draw diverged.
    """

    solution: Solution
    parameters: dict[str, float]
    draws: dict[str, Array]
    posterior: Any
    converged: bool

    @classmethod
    def from_posterior(cls, solution: Solution, posterior: Any) -> Inference:
        """Put an inference together again from its solution and its ``arviz.InferenceData``."""
        names = list(solution.parameters)
        draws = {name: np.asarray(posterior.posterior[name]) for name in names}
        return cls(solution, dict(solution.parameters), draws, posterior, not solution.findings)

    def _of(self, name: str) -> Array:
        if name not in self.draws:
            raise InvalidDataError(
                f"there is no unknown {name!r}: the unknowns are {', '.join(self.draws) or 'fields'}"
            )
        return self.draws[name]

    def mean(self, name: str) -> float:
        """Posterior mean of an unknown number."""
        return float(self._of(name).mean())

    def std(self, name: str) -> float:
        """Posterior standard deviation of an unknown number."""
        return float(self._of(name).std(ddof=1))

    def interval(self, name: str, probability: float = 0.95) -> tuple[float, float]:
        """Central interval of an unknown number.

        Raises:
            InvalidDataError: Unless 0 < probability < 1, or there is no such unknown.
        """
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        tail = 0.5 * (1.0 - probability)
        low, high = np.quantile(self._of(name), [tail, 1.0 - tail])
        return float(low), float(high)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} = {self.mean(name):.4g} ± {self.std(name):.1g}" for name in self.draws)
        fields = ", ".join(self.solution.diagnostics["unknown_fields"])
        warning = "" if self.converged else "; NOT CONVERGED"
        return f"Inference({'; '.join(part for part in (numbers, fields) if part)}{warning})"


def infer(
    pde: PDE,
    grid: Any = None,
    *,
    method: str = "laplace",
    draws: int = 1000,
    tune: int = 300,
    chains: int = 4,
    starts: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Inference:
    """Infer unknowns; see `PDE.infer`."""
    problem = pde.form
    if method not in METHODS:
        raise InvalidDataError(f"there is no method {method!r}: choose from {', '.join(METHODS)}")
    if not problem.unknowns and not problem.free:
        raise InvalidDataError(
            "there is nothing unknown in this problem: use Unknown('D'), or a field without equation"
        )
    if not problem.observations:
        names = ", ".join([*problem.unknowns, *(problem.fields[k] for k in sorted(problem.free))])
        raise InvalidDataError(
            f"{names} cannot be inferred without observations: add Observe(u, points, values, noise)"
        )
    if has_unknown_noise(problem):
        raise InvalidDataError("unknowns are inferred from observations whose noise is stated")
    if min(draws, chains) < 1 or tune < 0:
        raise InvalidDataError(f"sampling needs draws and chains, got {draws} draws in {chains} chains")
    begun = time.process_time()
    model, density, mode = _resolved(problem, pde.fields, grid, starts, seed)
    unknown_fields = tuple(problem.fields[k] for k in sorted(problem.free))
    diagnostics = _diagnostics(model, density, mode, method, unknown_fields)
    if method == "nuts":
        fast = density.reduced()
        z, statistics = sample_unknowns(fast, mode, draws=draws, tune=tune, chains=chains, seed=seed, progress=progress)
        posterior = _from_draws(fast, z, diagnostics)
        diagnostics["solved"] = fast.solved
    else:
        z, statistics = _laplace_draws(mode, draws, chains, seed), {}
        posterior = _linear(model, density, mode, diagnostics)
    divergent = int(np.sum(statistics.get("diverging", 0)))
    diagnostics["divergences"] = divergent
    values = density.natural(z)
    natural = {name: values[..., k] for k, name in enumerate(model.names)}
    if method == "nuts":
        diagnostics |= _convergence(z, natural)
    parameters = dict(zip(model.names, (float(t) for t in density.natural(mode.z)), strict=True))
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in parameters.items()}
    sizes = tuple(b.size for b in model.bases)
    modal = _linear(model, density, mode, diagnostics)
    residuals = measure(problem, modal, sizes, given)
    findings = findings_of(problem, residuals, diagnostics)
    if not mode.converged:
        findings.append("the maximum of the posterior density was not reached")
    if divergent > 0.01 * draws * chains:
        findings.append(f"{divergent} of {draws * chains} draws diverged")
    mixed = not diagnostics.get("r_hat", 1.0) > _R_HAT  # too few draws to tell (nan) are not said to disagree
    if not mixed:
        findings.append(f"the chains disagree: r-hat is {diagnostics['r_hat']:.3f}, draw more")
    if findings:
        warnings.warn("; ".join(findings), ConvergenceWarning, stacklevel=3)
    diagnostics |= {"residual": residuals.equation, "boundary_residual": residuals.condition}
    diagnostics["residuals"] = residuals.as_dict()
    solution = Solution(
        posterior=posterior,
        box=problem.box,
        names=problem.fields,
        grid=sizes,
        residuals=residuals,
        diagnostics=diagnostics,
        parameters=parameters,
        text="; ".join(e.text for e in problem.equations),
        seconds=time.process_time() - begun,
        findings=tuple(findings),
        problem=pde,
    )
    data = _inference_data(density, z, natural, statistics, seed, solution)
    converged = mode.converged and mixed and divergent <= 0.01 * draws * chains
    return Inference(solution, parameters, natural, data, converged)


def _convergence(z: Array, natural: dict[str, Array]) -> dict[str, Any]:
    """Split r-hat and effective sample sizes: the worst over the coordinates (chains, draws, D), and of each number."""
    import arviz

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one draw or one chain: the numbers are nan then
        found = arviz.convert_to_dataset({"z": z})
        worst, least = arviz.rhat(found)["z"].max(), arviz.ess(found)["z"].min()
        each = {
            name: {
                "r_hat": float(arviz.rhat(own)), "ess_bulk": float(arviz.ess(own)),
                "ess_tail": float(arviz.ess(own, method="tail")),
            }
            for name, own in natural.items()
        }  # fmt: skip
    return {"r_hat": float(worst), "effective_draws": float(least), "convergence": each}


def _resolved(
    problem: Problem, fields: list[Field], grid: Any, starts: int, seed: int
) -> tuple[EliminatedFields, InverseDensity, Mode]:
    """The mode on bases that resolve the fields there, or on those that were asked for."""
    d = problem.box.dim
    priors = {k: FieldPrior(fields[k].mean, fields[k].amplitude, fields[k].lengthscale) for k in problem.free}
    sizes = list(grid_of(grid, problem)) if grid is not None else [_FIRST[d]] * d
    determined = len(problem.fields) - len(problem.free)
    most = min(_MOST[d], int((2500 / max(determined, 1)) ** (1.0 / d)))
    while True:
        model = EliminatedFields(problem, sizes, priors)
        density = InverseDensity(model)
        try:
            mode = find_mode(density, starts=starts, seed=seed)
        except ConvergenceError:
            if grid is not None or min(sizes) >= most:
                raise
            sizes = [min(2 * n, most) for n in sizes]  # too few functions have no solution to converge to
            continue
        tails = np.max([_tails(c, model) for c in mode.state.coefficients.reshape(determined, -1)], axis=0)
        grown = [n if t < _TAIL else min(int(1.4 * n) + 2, most) for n, t in zip(sizes, tails, strict=True)]
        if grid is not None or all(g <= n for g, n in zip(grown, sizes, strict=True)):
            return model, density, mode
        sizes = [max(g, n) for g, n in zip(grown, sizes, strict=True)]


def _tails(coefficients: Array, model: EliminatedFields) -> Array:
    """Size of the last two coefficients along each axis, relative to the largest."""
    tensor = np.abs(coefficients.reshape([b.size for b in model.bases]))
    largest = float(tensor.max()) or 1.0
    d = tensor.ndim
    return np.array([tensor.max(axis=tuple(k for k in range(d) if k != j))[-2:].max() / largest for j in range(d)])


def _diagnostics(
    model: EliminatedFields, density: InverseDensity, mode: Mode, method: str, fields: tuple[str, ...]
) -> dict[str, Any]:
    sizes = " x ".join(str(b.size) for b in model.bases)
    how = "normal approximation at the mode" if method == "laplace" else "No-U-turn sampling"
    return {
        "method": f"fields eliminated by dense collocation in {sizes} functions, {how} of "
        f"{density.dimension} unknown{'s' * (density.dimension != 1)}",
        "log_density": -mode.value,
        "mode_trace": [-v for v in mode.trace],
        "mode_agreeing": list(mode.agreeing),
        "curvature": "exact" if mode.exact else "Gauss-Newton",
        "collocation_residual": mode.state.residual,
        "unknown_fields": list(fields),
        "priors_without_quantiles": list(density.without_quantiles),  # their starts are drawn around the middle
    }


def _laplace_draws(mode: Mode, draws: int, chains: int, seed: int) -> Array:
    normal = np.random.default_rng(seed).normal(size=(chains, draws, len(mode.z)))
    return mode.z + normal @ np.linalg.cholesky(mode.covariance).T


def _linear(
    model: EliminatedFields, density: InverseDensity, mode: Mode, diagnostics: dict[str, Any]
) -> CoefficientPosterior:
    """Fields to first order around the mode."""
    factor = np.linalg.cholesky(mode.covariance)
    white = density.white(mode.z)
    means, factors, at = [], [], len(model.names)
    for k in range(len(model.problem.fields)):
        means.append(model.field_coefficients(k, mode.state.coefficients, white))
        if k in model.whitened:
            factors.append(model.directions(k) @ factor[at : at + model.whitened[k]])
            at += model.whitened[k]
        else:
            start = model.determined.index(k) * model.size
            factors.append(mode.sensitivity[start : start + model.size] @ factor)
    return CoefficientPosterior(model.bases, means, factors, diagnostics)


def _from_draws(density: InverseDensity, z: Array, diagnostics: dict[str, Any]) -> CoefficientPosterior:
    """Fields at draws of the unknowns, evenly spaced ones where there are many."""
    model = density.model
    flat = z.reshape(-1, z.shape[-1])
    picked = flat[np.linspace(0, len(flat) - 1, min(len(flat), _FIELD_DRAWS)).astype(int)]
    found: list[list[Array]] = [[] for _ in model.problem.fields]
    for point in picked[np.lexsort(picked.T)]:  # one near the other
        state, white = density.fields_at(point), density.white(point)
        for k, own in enumerate(found):
            own.append(model.field_coefficients(k, state.coefficients, white))
    means = [np.mean(own, axis=0) for own in found]
    count = math.sqrt(max(len(picked) - 1, 1))
    factors = [(np.array(own) - m).T / count for own, m in zip(found, means, strict=True)]
    return CoefficientPosterior(model.bases, means, factors, diagnostics, drawn=True)


def _inference_data(
    density: InverseDensity,
    z: Array,
    natural: dict[str, Array],
    statistics: dict[str, Any],
    seed: int,
    solution: Solution,
) -> Any:
    """Draws of the numbers and of the unknown fields on a grid, chain by chain, with how well the chains mixed."""
    from gpkit.inference.inference_data import provenance, to_inference_data

    model, problem = density.model, density.problem
    count = {1: 101, 2: 21, 3: 9}[problem.box.dim]
    axes = [np.linspace(a, b, count) for a, b in zip(problem.box.lower, problem.box.upper, strict=True)]
    mesh = [m.ravel() for m in np.meshgrid(*axes, indexing="ij")]
    variables: dict[str, Any] = dict(natural)
    at = len(model.names)
    for k, coordinates in model.whitened.items():
        table = model.table((0,) * problem.box.dim, mesh)
        mean = model.field_coefficients(k, np.zeros(0), np.zeros(sum(model.whitened.values())))
        values = table @ mean + z[..., at : at + coordinates] @ (table @ model.directions(k)).T
        variables[problem.fields[k]] = values.reshape(*z.shape[:-1], *[count] * problem.box.dim)
        at += coordinates
    told = {
        k: solution.diagnostics[k] for k in ("r_hat", "effective_draws", "divergences") if k in solution.diagnostics
    }
    observed = torch.cat([o.values for o in problem.observations]).numpy()
    return to_inference_data(
        variables,
        statistics or None,
        groups={"observed_data": {"observations": observed}},
        coords=dict(zip(problem.box.names, axes, strict=True)),
        dims={problem.fields[k]: problem.box.names for k in problem.free},
        attrs=provenance(seed=seed, equations=solution.text, method=solution.diagnostics["method"], **told),
    )
