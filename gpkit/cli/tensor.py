"""``gpkit tensor``: decompose a table whose entries are indexed by coordinates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gpkit.cli.common import input_file, results_folder, whole_number
from gpkit.errors import InvalidDataError

__all__ = ["ADVICE", "INTERRUPTED", "add_parser", "run"]

ADVICE = (
    ("residual='local' needs combine='stack' and restarts >= 2", "--residual local needs --restarts of 2 or more"),
    ("residual='local'", "--residual local"),
    ("form='cp'", "--form cp"),
)
INTERRUPTED = "interrupted; run the same command again to go on from the last sweep"

_SMOOTHNESS = {"continuous": 2.5, "matern12": 0.5, "matern32": 1.5, "matern52": 2.5}
_KINDS = "continuous (or matern12, matern32, matern52), categorical, or spatial:COLUMN+COLUMN"


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parser of the command."""
    tensor = commands.add_parser(
        "tensor",
        help="fit latent functions along the modes of a sparse table; write a report",
        description="Fit a functional tensor decomposition to a CSV table and write DIR/report.html, DIR/summary.json, "
        "DIR/posterior.nc, DIR/predictions.csv (every entry, predicted unseen) and DIR/model.gpkit.",
    )
    tensor.add_argument("path", metavar="TABLE.csv", help="a row for each entry: coordinates and target")
    tensor.add_argument("--modes", required=True, metavar="NAME:KIND,...", help=f"columns and what they are: {_KINDS}")
    tensor.add_argument("--target", required=True, metavar="COLUMN", help="column to model; empty cells are missing")
    tensor.add_argument("--rank", default="3", help="functions of each mode, or auto (default: %(default)s)")
    tensor.add_argument(
        "--form", choices=("tucker", "cp", "tensor-train"), default="tucker", help="default: %(default)s"
    )
    tensor.add_argument(
        "--likelihood",
        choices=("gaussian", "student-t", "poisson", "bernoulli", "negative-binomial"),
        default="gaussian",
        help="of the noise (default: %(default)s)",
    )
    tensor.add_argument("--residual", choices=("none", "local"), default="none", help="default: %(default)s")
    tensor.add_argument("--no-main-effects", action="store_true", help="products of functions of all modes only")
    tensor.add_argument("--restarts", type=whole_number(1), default=4, help="random starts (default: %(default)s)")
    tensor.add_argument("--sweeps", type=whole_number(1), help="at most, per start (default: 25; 12 below a residual)")
    tensor.add_argument("--draws", type=whole_number(2), default=500, help="posterior draws (default: %(default)s)")
    tensor.add_argument("--seed", type=whole_number(0), default=0, help="of everything random (default: %(default)s)")
    tensor.add_argument("--predict", metavar="NEW.csv", help="also predict these rows (DIR/predictions_new.csv)")
    tensor.add_argument("--out", metavar="DIR", help="folder of the results (default: <name of TABLE>_gpkit)")
    tensor.add_argument("--json", action="store_true", help="print summary.json instead of a summary")
    tensor.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _modes(text: str) -> list[Any]:
    from gpkit.kernels import MaternKernel
    from gpkit.models import Categorical, Continuous, Spatial

    out: list[Any] = []
    for part in text.split(","):
        name, _, kind = (word.strip() for word in part.partition(":"))
        if not name or not kind:
            raise InvalidDataError(f"--modes {part.strip()!r} is not NAME:KIND, with KIND {_KINDS}")
        if kind in _SMOOTHNESS:
            out.append(Continuous(name, MaternKernel(_SMOOTHNESS[kind])))
        elif kind == "categorical":
            out.append(Categorical(name))
        elif kind.startswith("spatial:") and "+" in kind:
            out.append(Spatial(name, tuple(axis.strip() for axis in kind[len("spatial:") :].split("+"))))
        else:
            raise InvalidDataError(f"--modes {name!r} is {kind!r}: choose {_KINDS}")
    return out


def _rank(text: str, ranks_needed: int, what: str) -> Any:
    if text == "auto":
        return text
    try:
        ranks = [int(part) for part in text.split("x")]
    except ValueError:
        raise InvalidDataError(f"--rank {text!r} is not a number, one for each mode such as 3x3x2, or auto") from None
    if len(ranks) not in (1, ranks_needed) or min(ranks) < 1:
        raise InvalidDataError(f"--rank {text!r} must be one positive number, or one for each of {ranks_needed} {what}")
    return ranks[0] if len(ranks) == 1 else ranks


def _table(path: str, modes: list[Any]) -> Any:
    import pandas as pd

    file = input_file(path)
    categories = {column: str for mode in modes for column in mode.columns if type(mode).__name__ == "Categorical"}
    try:
        return pd.read_csv(file, dtype=categories, keep_default_na=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"{path} is not a CSV table: {str(error).splitlines()[0]}") from None


def _new_rows(options: argparse.Namespace, table: Any, modes: list[Any]) -> Any:
    """The rows to predict, checked before a fit that may be long."""
    from gpkit.models.functional_tensor.table import check_new_rows, read_target

    new, entries = _table(options.predict, modes), read_target(table, options.target, modes)
    try:
        check_new_rows(new, entries, modes)
    except InvalidDataError as error:
        raise InvalidDataError(f"--predict {options.predict}: {error}") from None
    return new


def run(options: argparse.Namespace, command: str) -> int:
    """Fit and write the results; returns the exit code."""
    from gpkit.inference.inference_data import save_inference_data
    from gpkit.models import FunctionalTensor

    modes = _modes(options.modes)
    table = _table(options.path, modes)
    train = options.form == "tensor-train"
    model = FunctionalTensor(
        modes,
        rank=_rank(options.rank, len(modes) - train, "bonds between modes" if train else "modes"),
        form=options.form,
        main_effects=not options.no_main_effects,
        residual=None if options.residual == "none" else options.residual,
        likelihood=options.likelihood,
    )
    new = None if options.predict is None else _new_rows(options, table, modes)
    folder = results_folder(options.out or f"{Path(options.path).stem}_gpkit")
    model.fit(
        table,
        options.target,
        restarts=options.restarts,
        sweeps=options.sweeps,
        seed=options.seed,
        progress=not options.quiet,
        checkpoint=folder / "fit.part",
        keep_checkpoint=True,
    )
    model.save(folder / "model.gpkit")
    save_inference_data(model.to_inference_data(options.draws, options.seed), folder / "posterior.nc")
    _write_predictions(model, table, options.target, folder / "predictions.csv")
    if new is not None:
        _write(new, model.predict(new).to_dict(), folder / "predictions_new.csv")
    settings = {
        k: getattr(options, k) for k in ("modes", "rank", "form", "likelihood", "residual", "restarts", "sweeps")
    }
    html, numbers = model.report(
        folder / "report.html",
        title=Path(options.path).stem,
        target=options.target,
        command=command,
        seed=options.seed,
        settings=settings,
    )
    (folder / "fit.part").unlink()  # what takes long can be interrupted until here
    if options.json:
        sys.stdout.write(numbers.read_text(encoding="utf-8"))
    elif not options.quiet:
        _print(model, options.target, html)
    return 0


def _write(table: Any, columns: dict[str, Any], path: Path) -> None:
    from gpkit.files import write_atomic

    write_atomic(path, table.assign(**columns).to_csv(index=False))


def _write_predictions(model: Any, table: Any, target: str, path: Path) -> None:
    """Every entry with a target; unseen predictions where starts left entries out."""
    import pandas as pd

    entries = table[pd.to_numeric(table[target], errors="coerce").notna()]
    law = model.fitted.left_out
    _write(entries, (model.predict(entries) if law is None else law).to_dict(), path)


def _print(model: Any, target: str, html: Path) -> None:
    fit = model.fitted
    dropped = "".join(f", {count} left out ({reason})" for reason, count in fit.exclusions.items())
    print(f"{target}: {fit.n} entries{dropped}; ranks {'x'.join(map(str, fit.ranks))}; ELBO {model.elbo:.1f}")
    for mode in model.modes:
        found = model.functions(mode.name)
        shares = ", ".join(f"{100 * share:.1f} %" for share in found.share)
        print(f"  {mode.name}: {len(found.coordinates)} coordinates, functions carry {shares}")
    print(f"report: {html}")
