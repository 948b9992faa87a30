"""``gpkit lightcurve``: fit, sample, check and compare models of a light curve."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from gpkit import __version__
from gpkit.cli.common import column_name, count, results_folder, whole_number
from gpkit.errors import InvalidDataError

__all__ = ["ADVICE", "INTERRUPTED", "add_parser", "run"]

# Advice of the library, with the options of the command in place of the arguments of functions.
ADVICE = (("bad_errors='drop'", "--bad-errors drop"), ("transform=None", "--transform none"))
INTERRUPTED = "interrupted; run the same command again to continue with the unfinished kernels"


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parser of the command."""
    curve = commands.add_parser(
        "lightcurve",
        help="fit, sample, check and compare models of a light curve; write a report",
        description="Fit Gaussian processes to a light curve and write DIR/report.html, DIR/summary.json and "
        "DIR/posterior_<kernel>.nc. Kernels that an earlier, interrupted run with the same settings has finished are "
        "kept (DIR/model_<kernel>.gpkit).",
    )
    curve.add_argument("path", metavar="PATH", help="table (CSV, ECSV, whitespace), Fermi-LAT repository CSV or FITS")
    curve.add_argument("--format", default="auto", help="auto, table, fermi_lcr, ecsv or fits (default: by content)")
    curve.add_argument("--time", metavar="COLUMN", help="column of times, by name or number from 0")
    curve.add_argument("--value", metavar="COLUMN", help="column of values")
    curve.add_argument("--error", metavar="COLUMN", help="column of errors")
    curve.add_argument("--band", help="use only this band")
    curve.add_argument("--name", help="name of the source in the report")
    curve.add_argument("--time-unit", metavar="UNIT", help="unit of the times (default: what the file says, else d)")
    curve.add_argument("--value-unit", metavar="UNIT", help="unit of the values (default: what the file says)")
    curve.add_argument(
        "--bad-errors",
        choices=("raise", "drop"),
        default="raise",
        help="refuse errors that are zero or negative, or drop and count such rows (default: %(default)s)",
    )
    curve.add_argument(
        "--kernels",
        default="sho,drw,matern32",
        help="comma-separated: sho, drw, matern32, matern52 (default: %(default)s)",
    )
    curve.add_argument("--transform", choices=("none", "log"), default="none", help="model the value or its logarithm")
    curve.add_argument("--mean", choices=("constant", "linear", "zero"), default="constant", help="mean function")
    curve.add_argument("--no-jitter", action="store_true", help="no white noise beyond the errors")
    curve.add_argument(
        "--draws", type=whole_number(4), default=1000, help="posterior draws per chain (default: %(default)s)"
    )
    curve.add_argument(
        "--tune", type=whole_number(1), default=500, help="tuning steps per chain (default: %(default)s)"
    )
    curve.add_argument("--chains", type=whole_number(1), default=4, help="number of chains (default: %(default)s)")
    curve.add_argument("--starts", type=whole_number(1), default=5, help="starts of each fit (default: %(default)s)")
    curve.add_argument("--seed", type=whole_number(0), default=0, help="of everything random (default: %(default)s)")
    curve.add_argument("--no-sample", action="store_true", help="fit only")
    curve.add_argument("--out", metavar="DIR", help="folder of the results (default: <name of PATH>_gpkit)")
    curve.add_argument("--json", action="store_true", help="print summary.json instead of the table")
    curve.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _kernels(text: str) -> list[str]:
    from gpkit.models.light_curve_gp import KERNELS

    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in KERNELS]
    if unknown or not names:
        raise InvalidDataError(f"unknown kernel {unknown[0] if unknown else text!r}; choose from {', '.join(KERNELS)}")
    if len(set(names)) < len(names):
        raise InvalidDataError(f"a kernel is named twice in {text!r}")
    return names


def run(options: argparse.Namespace, command: str) -> int:
    """Fit, sample, report; returns the exit code."""
    from gpkit.datasets import read_light_curve

    names = _kernels(options.kernels)
    columns: dict[str, Any] = {
        k: column_name(getattr(options, k)) for k in ("time", "value", "error") if getattr(options, k) is not None
    }
    curve = read_light_curve(
        options.path,
        format=options.format,
        name=options.name,
        time_unit=options.time_unit,
        value_unit=options.value_unit,
        bad_errors=options.bad_errors,
        **columns,
    )
    if options.band is not None:
        curve = curve.in_band(options.band)
    folder = Path(options.out) if options.out else Path(f"{Path(options.path).stem}_gpkit")
    from gpkit.models.comparison import table_of
    from gpkit.models.light_curve_gp import LightCurveGP

    settings = {
        k: getattr(options, k)
        for k in ("transform", "mean", "no_jitter", "draws", "tune", "chains", "starts", "seed", "no_sample")
    }
    # Models are made before anything is written or fitted, so that bad input is told at once.
    models = {
        name: LightCurveGP(curve, name, mean=options.mean, jitter=not options.no_jitter, transform=options.transform)
        for name in names
    }
    results_folder(folder)
    seconds = {}
    for name, model in models.items():
        models[name], seconds[name] = _finish(name, model, folder, settings, options)
    from gpkit.models.light_curve_report import write_report

    html, numbers = write_report(
        list(models.values()),
        folder,
        command=command,
        seed=options.seed,
        settings=settings,
        source=Path(options.path).name,
        seconds=seconds,
        progress=not options.quiet,
    )
    if options.json:
        sys.stdout.write(numbers.read_text(encoding="utf-8"))
    elif not options.quiet:
        _print(curve, table_of(models), json.loads(numbers.read_text(encoding="utf-8"))["warnings"], html)
    return 0


def _fingerprint(curve: Any, name: str, settings: dict[str, Any]) -> str:
    """Of everything that determines a kernel's result."""
    digest = hashlib.sha256()
    for array in (curve.time, curve.value, curve.error, curve.upper_limit):
        digest.update(array.tobytes())
    digest.update(json.dumps([__version__, curve.name, name, settings], sort_keys=True).encode())
    return digest.hexdigest()


def _finish(
    name: str, model: Any, folder: Path, settings: dict[str, Any], options: argparse.Namespace
) -> tuple[Any, float]:
    """Fit and sample one kernel, or take what an earlier run with the same data and settings has finished."""
    from gpkit.inference.inference_data import save_inference_data
    from gpkit.models import storage

    file, fingerprint = folder / f"model_{name}.gpkit", _fingerprint(model.light_curve, name, settings)
    posterior = folder / f"posterior_{name}.nc"
    kept = _kept(file, fingerprint)
    if kept is not None:
        if not options.quiet:
            print(f"gpkit: {name}: kept from an earlier run", file=sys.stderr)
        return kept
    begun = time.perf_counter()
    model.fit("ml", starts=options.starts, seed=options.seed)
    model.fit("map", starts=options.starts, seed=options.seed)
    if options.no_sample:
        posterior.unlink(missing_ok=True)
    else:
        model.sample(options.draws, options.tune, options.chains, options.seed, progress=not options.quiet)
        save_inference_data(model.posterior, posterior)
    seconds = time.perf_counter() - begun
    # Last, so that its presence says that everything of this kernel is there.
    with_file = None if options.no_sample else posterior
    storage.save_model(model, file, posterior_file=with_file, fingerprint=fingerprint, seconds=seconds)
    return model, seconds


def _kept(file: Path, fingerprint: str) -> tuple[Any, float] | None:
    """The model of an earlier run with the same data and settings, and the seconds that it took."""
    from gpkit.models import storage

    if not file.exists():
        return None
    try:
        payload = storage.read_payload(file)
        if payload["extra"].get("fingerprint") != fingerprint:
            return None
        return storage.model_from_payload(payload, file.parent), float(payload["extra"]["seconds"])
    except Exception:  # Whatever is wrong with an earlier result, the answer is to make it again.
        return None


def _print(curve: Any, table: Any, findings: list[dict[str, Any]], html: Path) -> None:
    from gpkit.diagnostics import Finding, group_findings

    columns = ["log_likelihood", "n_parameters", "aicc", "delta_aicc", "bic", "elpd_loo", "elpd_loo_se"]
    dropped = f", {count(curve.n_dropped, 'row')} dropped" if curve.n_dropped else ""
    limits = f", {count(curve.n_upper_limits, 'upper limit')} left out" if curve.n_upper_limits else ""
    length = f"{curve.n_detections} points over {curve.baseline:.6g} {curve.time_unit}"
    print(f"{curve.name or 'light curve'}: {length}{limits}{dropped}")
    print(table[columns].round(2).to_string(na_rep="-"))
    for group in group_findings(Finding(f["level"], f["code"], f["message"], f["kernel"] or "") for f in findings):
        where = f" [{', '.join(group.kernels)}]" if group.kernels else ""
        print(f"{group.level}{where}: {group.message}")
    print(f"report: {html}")
