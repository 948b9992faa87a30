"""Comparison of kernels on one light curve, in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpkit.datasets import LightCurve
from gpkit.diagnostics import ModelScore, compare_table
from gpkit.errors import InvalidDataError
from gpkit.models.light_curve_gp import LightCurveGP

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare_kernels"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Fitted (and possibly sampled) models of one light curve, best AICc first.

    Attributes:
        models: the models by name.
        table: one row per model: log-likelihood (of the values as measured), number of parameters, AICc, BIC, exact
            leave-one-out elpd with its standard error and differences; where sampled, Q and the time scales as median
            and 68 % interval.
    """

    models: dict[str, LightCurveGP]
    table: pd.DataFrame

    def report(self, path: str | Path, **options: Any) -> tuple[Path, Path]:
        """One report for all models; returns the paths of HTML and JSON."""
        from gpkit.models.light_curve_report import write_report

        return write_report(list(self.models.values()), path, **options)

    def __repr__(self) -> str:
        return str(self.table.to_string())

    def _repr_html_(self) -> str:
        return str(self.table.to_html())


def compare_kernels(
    light_curve: LightCurve,
    kernels: Iterable[Any] | Mapping[str, Any] = ("sho", "drw", "matern32"),
    *,
    mean: Any = "constant",
    jitter: bool = True,
    transform: str | None = None,
    sample: bool = False,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    starts: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Fit several kernels to the same data by maximum likelihood and rank them.

    Args:
        light_curve: the data.
        kernels: names or kernel objects, or a mapping from names to either.
        mean: mean function, as for :class:`~gpkit.models.LightCurveGP`.
        jitter: whether white noise is fitted in addition to the errors.
        transform: None, or "log" to model ln(value).
        sample: whether posteriors are drawn as well.
        draws: per chain.
        tune: tuning steps per chain.
        chains: number of chains.
        starts: of each fit.
        seed: of everything random.
        progress: whether a bar is shown while sampling.

    Raises:
        InvalidDataError: if there is no kernel or two have the same name.
    """
    named = dict(kernels) if isinstance(kernels, Mapping) else {}
    if not named:
        for k, kernel in enumerate(kernels):
            name = kernel if isinstance(kernel, str) else type(kernel).__name__.removesuffix("Kernel").lower()
            if name in named and isinstance(kernel, str):
                raise InvalidDataError(f"kernel {name!r} is named twice")
            named[name if name not in named else f"{name}_{k}"] = kernel
    if not named:
        raise InvalidDataError("there is no kernel to compare")
    models: dict[str, LightCurveGP] = {}
    for name, kernel in named.items():
        model = LightCurveGP(light_curve, kernel, mean=mean, jitter=jitter, transform=transform)
        model.name = name
        model.fit("ml", starts=starts, seed=seed)
        model.fit("map", starts=starts, seed=seed)
        if sample:
            model.sample(draws, tune, chains, seed, progress=progress)
        models[name] = model
    table = table_of(models)
    return Comparison({name: models[name] for name in table.index}, table)


def table_of(models: Mapping[str, LightCurveGP]) -> pd.DataFrame:
    """The comparison table of fitted models."""
    import pandas as pd

    scores = {}
    for name, model in models.items():
        fit = model._fitted("ml")
        scores[name] = ModelScore(fit.log_likelihood, fit.n_parameters, fit.n, model.leave_one_out("ml").log_density)
    rows = compare_table(scores)
    for row in rows:
        model = models[row["name"]]
        row["converged"] = model._fitted("ml").converged
        if model.posterior is None:
            continue
        quantities = {
            **{
                p.name: model.posterior.posterior[p.name].values.reshape(-1)
                for p in model._kernel_parameters
                if p.name.startswith("quality")
            },
            **{k: v for k, v in model.timescales(posterior=True).items() if not isinstance(v, str)},
        }
        for name, draws in quantities.items():
            if not np.isfinite(draws).all():
                continue
            low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84])
            row[name], row[f"{name}_low"], row[f"{name}_high"] = middle, low, high
    return pd.DataFrame(rows).set_index("name")
