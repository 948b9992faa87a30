"""Blazar flares and AGN variability: gpkit beside published numbers.

python models/blazar_flares/run.py [--quick]

The simulated flare needs nothing. The real curves are looked up in the folder that the environment variable
GPKIT_REAL_DATA names, else in ../shared/data beside the repository; tables that need them are left out where they are
absent.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
import torch
from gpytorch.constraints import Interval
from scipy import optimize, stats

from gpkit.datasets import LightCurve, read_light_curve
from gpkit.errors import DataWarning
from gpkit.kernels import DRWKernel, ScaleKernel, SHOKernel
from gpkit.models import FitResult, LightCurveGP

HERE = Path(__file__).resolve().parent
KERNELS = ("sho", "drw", "matern32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", DataWarning)  # of upper limits left out, which the card names
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    small = config["quick"] if quick else {}
    config["flare"].update({key: small[key] for key in small if key in config["flare"]})
    folder = real_data()
    if folder is not None:
        weekly(folder, config)
    flare(config)
    if folder is not None:
        agn(folder, config, small.get("agn_curves"))


def real_data() -> Path | None:
    """The folder of the real light curves, or None, said on the screen."""
    root = Path(os.environ.get("GPKIT_REAL_DATA") or HERE.parents[2] / "shared" / "data")
    folder = root / "light_curves"
    if folder.is_dir():
        return folder
    print("The real light curves are absent: tables 1 and 3 are left out (GPKIT_REAL_DATA names their folder).")
    return None


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [columns, *rows]) for k in range(len(columns))]
    aligned = [
        [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [columns, *rows]
    ]
    rule = ["-" * width if k == 0 else "-" * (width - 1) + ":" for k, width in enumerate(widths)]
    print(f"\n{title}\n")
    for row in (aligned[0], rule, *aligned[1:]):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


# ------------------------------------------------------------------------------------------------- weekly light curves


def white_noise_aicc(curve: LightCurve, transform: str) -> float:
    """The trivial baseline: a constant with white noise beyond the errors, AICc of the values as measured."""
    modelled = curve.to_log() if transform == "log" else curve
    value, error, n = np.array(modelled.value), np.array(modelled.error), modelled.n
    spread = value.std()

    def loss(z: np.ndarray) -> float:
        variance = error**2 + (spread * math.exp(z[1])) ** 2
        residual = value - value.mean() - spread * z[0]
        return 0.5 * float(np.sum(residual**2 / variance + np.log(2.0 * math.pi * variance)))

    best = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    jacobian = float(np.log(curve.value).sum()) if transform == "log" else 0.0
    return 2.0 * (best.fun + jacobian) + 4.0 + 12.0 / (n - 3.0)


def weekly(folder: Path, config: dict) -> None:
    tolerance, rows, worst = config["weekly"]["tolerance"], [], 0.0
    for source in config["weekly"]["source"]:
        curve = read_light_curve(folder / source["file"], name=source["name"])
        for transform in ("none", "log"):
            fits = {}
            for name in KERNELS:
                model = LightCurveGP(curve, name, transform=transform)
                fits[name] = model.fit("ml", starts=config["starts"], seed=config["seed"])
            trivial = white_noise_aicc(curve.detections(), transform)
            base = fits["drw"].aicc
            difference = [fits["sho"].aicc - base, fits["matern32"].aicc - base]
            expected = source[transform]
            worst = max(worst, *(abs(a - b) for a, b in zip(difference, expected, strict=True)))
            rows.append(
                [
                    f"{source['name']}, {'ln flux' if transform == 'log' else 'flux'}",
                    f"{curve.n_detections} + {curve.n_upper_limits}",
                    *(f"{fits[name].aicc:.1f}" for name in KERNELS),
                    f"{trivial:.1f}",
                    *(f"{a:.2f} ({b:.1f})" for a, b in zip(difference, expected, strict=True)),
                    f"{trivial - base:.0f}",
                    f"{fits['sho'].parameters['quality']:.3f}",
                    f"{fits['drw'].parameters['timescale']:.0f}",
                ]
            )
    show(
        "1. Weekly Fermi-LAT light curves, maximum likelihood with free mean and jitter: AICc, in brackets expected",
        ["source", "N + limits", "SHO", "DRW", "Matern-3/2", "white", "SHO - DRW", "M32 - DRW", "white - DRW"]
        + ["Q of SHO", "DRW tau (d)"],
        rows,
    )
    verdict = "within" if worst <= tolerance else "NOT WITHIN"
    print(f"Largest deviation from the expected differences: {worst:.2f}, {verdict} the tolerance of {tolerance}.")


# ----------------------------------------------------------------------------------------------------- simulated flare


def frequency_of_break(quality: float, break_time: float) -> float:
    """Undamped angular frequency of the oscillator whose PSD falls to half at the angular frequency 1 / break_time."""
    unit = SHOKernel(frequency=1.0, quality=quality).timescales()["break"]
    return float(unit.detach()) / break_time


def simulated_flare(settings: dict, seed: int) -> LightCurve:
    """A curve in adaptive bins: widths inversely proportional to the flux, a constant relative error."""
    mean, amplitude = settings["mean"], settings["amplitude"]
    step = settings["fine_step"]
    grid = torch.arange(0.0, settings["baseline"], step, dtype=torch.float64)
    omega = frequency_of_break(settings["quality"], settings["break_time"])
    kernel = ScaleKernel(SHOKernel(frequency=omega, quality=settings["quality"]), outputscale=amplitude**2)
    torch.manual_seed(seed)
    with torch.no_grad():
        process = mean + kernel(grid).evaluate_kernel().zero_mean_mvn_samples(1)[0].numpy()
    rng = np.random.default_rng(seed)
    time, value, error, half_width = [], [], [], []
    at = 0
    while at < len(process):
        # The flux never falls below a quarter of its mean as far as bins and errors are concerned.
        level = max(process[at], 0.25 * mean)
        count = max(1, round(settings["bin_width"] * mean / level / step))
        chunk = process[at : at + count]
        sigma = settings["relative_error"] * max(float(chunk.mean()), 0.25 * mean)
        time.append((at + 0.5 * (len(chunk) - 1)) * step)
        value.append(float(chunk.mean()) + sigma * rng.standard_normal())
        error.append(sigma)
        half_width.append(0.5 * len(chunk) * step)
        at += count
    return LightCurve(time, value, error, half_width=half_width, value_unit="1e-6 ph cm-2 s-1", name=f"flare {seed}")


def flare(config: dict) -> None:
    settings = config["flare"]
    rows, found = [], []
    for k in range(settings["curves"]):
        seed = config["seed"] + k
        curve = simulated_flare(settings, seed)
        models = {name: LightCurveGP(curve, name) for name in KERNELS}
        fits = {name: model.fit("ml", starts=config["starts"], seed=seed) for name, model in models.items()}
        frequency = np.geomspace(1.0 / curve.baseline, 0.5 / curve.median_cadence, 200)
        power = {name: model.psd(frequency, posterior=False)[0] for name, model in models.items()}
        ratio = power["sho"] / power["matern32"]
        slope = math.log(power["sho"][-1] / power["sho"][-20]) / math.log(frequency[-1] / frequency[-20])
        models["sho"].sample(settings["draws"], settings["tune"], settings["chains"], seed, progress=False)
        quality = models["sho"].posterior.posterior["quality"].values
        low, middle, high = np.quantile(quality, [0.025, 0.5, 0.975])
        breaks = models["sho"].timescales(posterior=True)["break"]
        result = {
            "n": curve.n,
            "sho": fits["sho"].aicc - fits["drw"].aicc,
            "m32": fits["matern32"].aicc - fits["drw"].aicc,
            "best": min(KERNELS, key=lambda name: fits[name].aicc),
            "q_ml": fits["sho"].parameters["quality"],
            "q": middle,
            "covered": low <= settings["quality"] <= high,
            "break": models["sho"].timescales(posterior=False)["break"],
            "break_covered": np.quantile(breaks, 0.025) <= settings["break_time"] <= np.quantile(breaks, 0.975),
            "break_m32": models["matern32"].timescales(posterior=False)["break"],
            "ratio": float(np.exp(np.abs(np.log(ratio)).max())),
            "slope": slope,
        }
        found.append(result)
        rows.append(
            [
                f"{seed}",
                f"{curve.n}",
                f"{result['sho']:.1f}",
                f"{result['m32']:.1f}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{result['break']:.2f}",
                f"{result['break_m32']:.2f}",
                f"{result['ratio']:.2f}",
                f"{slope:.2f}",
            ]
        )
    title = (
        f"2. Simulated giant flares: Q = {settings['quality']}, PSD break at {settings['break_time']} d, "
        f"{settings['baseline']:.0f} d in adaptive bins"
    )
    columns = ["seed", "N", "SHO - DRW", "M32 - DRW", "Q, median and 95 %", "SHO break (d)", "M32 break (d)"]
    show(title, [*columns, "SHO : M32 PSD at most", "slope at high f"], rows)

    def column(key: str) -> np.ndarray:
        return np.array([result[key] for result in found])

    def share(mask: np.ndarray) -> str:
        return f"{int(np.sum(mask))} of {len(mask)}"

    better = np.minimum(column("sho"), column("m32"))
    show(
        "   Over all seeds",
        ["quantity", "gpkit", "expected"],
        [
            ["SHO or Matern-3/2 has a lower AICc than DRW", share(better < 0.0), "all"],
            ["  by more than 10", share(better < -10.0), "most"],
            ["SHO and Matern-3/2 differ by less than 4", share(np.abs(column("sho") - column("m32")) < 4.0), "most"],
            ["Q, median over seeds of posterior medians", f"{np.median(column('q')):.2f}", f"{settings['quality']}"],
            [
                "Q, median over seeds of maximum likelihood",
                f"{np.median(column('q_ml')):.2f}",
                f"{settings['quality']}",
            ],
            ["95 % interval of Q holds the truth", share(column("covered")), "95 %"],
            [
                "break of SHO (d), maximum likelihood, median over seeds",
                f"{np.median(column('break')):.2f}",
                f"{settings['break_time']}",
            ],
            ["break of Matern-3/2 (d), the same", f"{np.median(column('break_m32')):.2f}", f"{settings['break_time']}"],
            ["95 % interval of the SHO break holds the truth", share(column("break_covered")), "95 %"],
            ["SHO : Matern-3/2 PSD at most, median over seeds", f"{np.median(column('ratio')):.2f}", "1"],
            ["slope of the SHO PSD at high frequency", f"{np.median(column('slope')):.2f}", "-4"],
        ],
    )


# -------------------------------------------------------------------------------------------------- published AGN fits


def reasons(curve: LightCurve, published: float, fit: FitResult, drop: float, settings: dict) -> list[str]:
    """Why a time scale is not determined by a curve, or differs from the published one."""
    found, tau = [], fit.parameters["timescale"]
    if drop < settings["flat"]:
        found.append("likelihood is flat")
    if curve.baseline < settings["baseline_in_tau"] * max(published, tau):
        found.append(f"baseline is {curve.baseline / max(published, tau):.1f} tau")
    if curve.median_cadence > min(published, tau):
        found.append(f"tau below the median step of {curve.median_cadence:.2g} d")
    elif min(published, tau) < 1.0:
        found.append("tau below a day: repeated exposures of one night")
    if curve.n < settings["few_points"]:
        found.append(f"{curve.n} points")
    if fit.parameters["jitter"] > np.std(curve.value) / 2.0:
        found.append("half the scatter is jitter")
    return found


def drop_at(curve: LightCurve, timescale: float, best: float, config: dict) -> float:
    """How much lower the log-likelihood is when the time scale is held at the published one."""
    held = DRWKernel(timescale=timescale, timescale_constraint=Interval(0.999 * timescale, 1.001 * timescale))
    return best - LightCurveGP(curve, held).fit("ml", starts=config["starts"], seed=config["seed"]).log_likelihood


def agn(folder: Path, config: dict, limit: int | None) -> None:
    settings = config["agn"]
    folder = folder / settings["folder"]
    with (folder / "index.csv").open(encoding="utf-8") as file:
        index = list(csv.DictReader(file))[:limit]
    begun = time.perf_counter()
    curves = [read_light_curve(folder / row["file"], name=row["name"]) for row in index]
    read, begun = time.perf_counter() - begun, time.perf_counter()
    fits = [LightCurveGP(c, "drw").fit("ml", starts=config["starts"], seed=config["seed"]) for c in curves]
    fitted_in = time.perf_counter() - begun
    tau = np.array([fit.parameters["timescale"] for fit in fits])
    sd = np.array([fit.parameters["amplitude"] for fit in fits])
    published = np.array([float(row["tau_obs_day"]) for row in index])
    sigma = math.sqrt(2.0) * np.array([float(row["sigma_drw"]) for row in index])
    valid = np.array([row["valid"] == "True" for row in index])
    baseline = np.array([c.baseline for c in curves])
    determined = baseline > settings["baseline_in_tau"] * np.maximum(tau, published)
    rows = []
    for name, chosen in (
        ("flagged valid", valid),
        ("baseline > 10 tau, ours and published", determined),
        ("all", np.ones(len(tau), dtype=bool)),
    ):
        if chosen.sum() < 3:
            continue
        ratio, spread = tau[chosen] / published[chosen], sd[chosen] / sigma[chosen]
        slope = (sd**2 / tau)[chosen] / (sigma**2 / published)[chosen]
        rows.append(
            [
                name,
                f"{chosen.sum()}",
                f"{stats.spearmanr(tau[chosen], published[chosen]).statistic:.2f}",
                middle(ratio),
                middle(spread),
                middle(slope),
            ]
        )
    show(
        f"3. {len(fits)} AGN of Burke et al. (2021): maximum-likelihood DRW against the published posterior medians",
        ["curves", "number", "rank corr. of tau", "tau ratio", "sd ratio", "sd^2/tau ratio"],
        rows,
    )
    print("Ratios are gpkit / published: median [16 %, 84 %]. The published sigma is the standard deviation of the")
    print("process divided by sqrt(2) (its amplitude is written as 2 sigma^2): sd ratio = our sd / (sqrt(2) sigma).")
    print(
        f"{len(fits)} fits with {config['starts']} starts each took {fitted_in:.1f} s on one thread, compilation "
        f"included; reading the files took {read:.1f} s. Not converged: {sum(not fit.converged for fit in fits)}."
    )
    outliers(index, curves, fits, tau, published, config)


def middle(ratio: np.ndarray) -> str:
    low, median, high = np.quantile(ratio, [0.16, 0.5, 0.84])
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def outliers(index: list[dict], curves: list, fits: list, tau: np.ndarray, published: np.ndarray, config: dict) -> None:
    """Sources whose time scale is off by more than the factor, with the reason."""
    rows, settings = [], config["agn"]
    limit = math.log(settings["outlier_factor"])
    for k in np.argsort(-np.abs(np.log(tau / published))):
        if abs(math.log(tau[k] / published[k])) <= limit:
            break
        drop = drop_at(curves[k], published[k], fits[k].log_likelihood, config)
        why = reasons(curves[k], published[k], fits[k], drop, settings)
        name = index[k]["name"] + (" (valid)" if index[k]["valid"] == "True" else "")
        rows.append(
            [name, f"{curves[k].n}", f"{published[k]:.3g}", f"{tau[k]:.3g}", f"{curves[k].baseline:.0f}", f"{drop:.1f}"]
            + ["; ".join(why) or "unexplained"]
        )
    if not rows:
        return
    show(
        f"   tau off by more than a factor of {settings['outlier_factor']:.0f}: {len(rows)} of {len(tau)}",
        ["source", "N", "published tau (d)", "gpkit tau (d)", "baseline (d)", "ln L drop", "reason"],
        rows,
    )
    print("ln L drop: how much lower the log-likelihood is at the published tau, other parameters fitted again.")


if __name__ == "__main__":
    main()
