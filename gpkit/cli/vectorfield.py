"""``gpkit vectorfield``: model a tangent vector field on a point cloud or a mesh."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit import __version__
from gpkit.cli.common import count, input_file, results_folder, whole_number
from gpkit.errors import InvalidDataError
from gpkit.files import write_atomic

__all__ = ["ADVICE", "INTERRUPTED", "add_parser", "run"]

Array = NDArray[np.float64]

ADVICE = (
    ("raise n_neighbors", "raise --neighbors"),
    ("frame_neighbors must", "--frame-neighbors must"),
    ("a smaller n_neighbors", "a smaller --neighbors"),
    ("components='keep'", "--components keep"),
    ("dense_rows", "--dense-rows"),
    ("laplacian='robust'", "--mesh"),
    (" (connected_parts gives their nodes)", ""),
    ("noise[0] is", "--noise is"),
    ("noise=None learns one, noise=0 says", "one is learnt without --noise, and --noise 0 says"),
)
INTERRUPTED = "interrupted; run the same command again: what was finished is kept"


def add_parser(commands: Any) -> None:
    """Add the subcommand to the parser of the command."""
    field = commands.add_parser(
        "vectorfield",
        help="model a tangent vector field on a point cloud or a mesh; write a report and predictions",
        description="Fit a Gaussian process to tangent vectors and write DIR/report.html, DIR/summary.json, "
        "DIR/predictions.csv (mean and standard deviation at every point) and DIR/model.gpkit. The points are the "
        "manifold, unless a mesh is given. A model that an earlier, interrupted run with the same data and settings "
        "has finished is kept.",
    )
    field.add_argument("path", metavar="POINTS.csv", help="coordinates, one point a row, with or without header")
    field.add_argument(
        "--vectors",
        metavar="VALUES.csv",
        required=True,
        help="vectors, one for each point; rows that are empty or nan are to be predicted",
    )
    field.add_argument("--mesh", metavar="M.obj", help="triangle mesh near the points; its vertices are predicted too")
    field.add_argument("--predict", metavar="PLACES.csv", help="more places to predict, written to places.csv")
    field.add_argument("--kernel", default="auto", help="auto, intrinsic, ambient, or a full name (default: auto)")
    field.add_argument("--dim", type=whole_number(1, 1000), help="dimension of the manifold (default: estimated)")
    field.add_argument("--neighbors", type=whole_number(2), default=20, help="of the graph (default: %(default)s)")
    field.add_argument(
        "--frame-neighbors",
        type=whole_number(1),
        help="that make a tangent frame: more for noisy points (default: 15, or as many as show the dimension)",
    )
    field.add_argument("--components", choices=("refuse", "keep"), default="refuse", help="disconnected clouds")
    field.add_argument("--noise", type=float, help="known standard deviation of the noise (default: learnt)")
    field.add_argument("--rank", type=whole_number(1), default=300, help="eigenfields (default: %(default)s)")
    field.add_argument("--dense-rows", type=whole_number(0), default=6000, help="limit of dense kernels")
    field.add_argument("--draws", type=whole_number(0), default=0, help="posterior draws of the parameters per chain")
    field.add_argument("--tune", type=whole_number(1), default=300, help="tuning steps per chain")
    field.add_argument("--chains", type=whole_number(1), default=4, help="number of chains")
    field.add_argument("--seed", type=whole_number(0), default=0, help="of everything random (default: %(default)s)")
    field.add_argument("--length-unit", default="", metavar="UNIT", help="of the points")
    field.add_argument("--value-unit", default="", metavar="UNIT", help="of the vectors")
    field.add_argument("--out", metavar="DIR", help="folder of the results (default: <name of POINTS>_gpkit)")
    field.add_argument("--json", action="store_true", help="print summary.json instead of a summary")
    field.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(options: argparse.Namespace, command: str) -> int:
    """Fit, predict and write the results; returns the exit code."""
    points, columns = _table(options.path, "points")
    vectors, names = _table(options.vectors, "vectors", missing=True)
    if len(vectors) != len(points):
        raise InvalidDataError(
            f"{options.vectors} has {count(len(vectors), 'row')}, {options.path} {len(points)}: one a point"
        )
    if vectors.shape[1] != points.shape[1]:
        raise InvalidDataError(
            f"{options.vectors} has {count(vectors.shape[1], 'column')} and {options.path} {points.shape[1]}: "
            "vectors live in the space of the points"
        )
    places = None
    if options.predict is not None:
        places, _ = _table(options.predict, "places")
        if places.shape[1] != points.shape[1]:
            raise InvalidDataError(f"{options.predict} must have {points.shape[1]} columns, got {places.shape[1]}")
    seen = np.asarray(np.isfinite(vectors).all(1))
    if not seen.any():
        raise InvalidDataError(f"{options.vectors} holds no vector: every row is missing")
    keys = (
        *("kernel", "dim", "neighbors", "frame_neighbors", "components", "noise", "rank", "dense_rows"),
        *("draws", "tune", "chains", "seed", "length_unit", "value_unit"),
    )
    settings = {key: getattr(options, key) for key in keys} | {"mesh": options.mesh}
    manifold = _manifold(options, points)
    folder = results_folder(options.out or f"{Path(options.path).stem}_gpkit")
    model = _model(options, manifold, points, vectors, seen, folder, settings)
    table = _predictions(model, manifold, points, columns, names, on_mesh=options.mesh is not None)
    write_atomic(folder / "predictions.csv", table)
    if places is not None:
        write_atomic(folder / "places.csv", _csv(model.predict(places), places, columns, names))
    html, numbers = model.report(
        folder, title=Path(options.path).stem, command=command, seed=options.seed, settings=settings
    )
    if options.json:
        sys.stdout.write(numbers.read_text(encoding="utf-8"))
    elif not options.quiet:
        _print(model, int(seen.sum()), len(points), html)
    return 0


def _table(path: str, what: str, missing: bool = False) -> tuple[Array, list[str]]:
    """Numbers of a CSV file and the names of its columns.

    Raises:
        InvalidDataError: there is no such file, it has no rows, or a cell is no number, with its line.
    """
    import pandas as pd

    try:
        text = input_file(path).read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    except UnicodeDecodeError:
        raise InvalidDataError(f"{path} is not a text file") from None
    if not lines:
        raise InvalidDataError(f"{path} holds no {what}")
    separator = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    rows = [[cell.strip() for cell in line.split(separator)] for line in lines]
    width = len(rows[0])
    names = [f"x{k + 1}" for k in range(width)]
    header = any(not _is_number(cell) for cell in rows[0] if cell)
    if header:
        names, rows = [cell or f"x{k + 1}" for k, cell in enumerate(rows[0])], rows[1:]
    for number, row in enumerate(rows):
        if len(row) != width:
            raise InvalidDataError(f"{path}: row {number + 1} has {count(len(row), 'cell')}, not {width}")
    if not rows:
        raise InvalidDataError(f"{path} holds no {what}")
    frame = pd.DataFrame(rows, columns=range(width))
    values = frame.replace({"": "nan"}).apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if not _is_number(cell) and cell.lower() not in ("", "nan", "na", "null"):
                raise InvalidDataError(f"{path}: row {number + 1}, column {names[column]!r} is {cell!r}, not a number")
    bad = np.isnan(values) if not missing else np.isnan(values) & ~np.isnan(values).all(1, keepdims=True)
    bad |= np.isinf(values)
    if bad.any():
        row_, column = (int(k[0]) for k in np.nonzero(bad))
        raise InvalidDataError(f"{path}: row {row_ + 1}, column {names[column]!r} of the {what} is missing or infinite")
    return values, names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _manifold(options: argparse.Namespace, points: Array) -> Any:
    from gpkit.geometry import Mesh, PointCloud

    if options.mesh is None:
        dim = "auto" if options.dim is None else options.dim
        return PointCloud(
            points,
            dim=dim,
            n_neighbors=options.neighbors,
            frame_neighbors=options.frame_neighbors,
            components=options.components,
        )
    if points.shape[1] != 3:
        raise InvalidDataError(f"--mesh needs points in 3 dimensions, {options.path} has {points.shape[1]} columns")
    if options.dim not in (None, 2):
        raise InvalidDataError(f"a mesh is a surface: --dim {options.dim} does not go with --mesh")
    if options.frame_neighbors is not None:
        raise InvalidDataError("a mesh has its frames from its faces: --frame-neighbors does not go with --mesh")
    return Mesh.load(input_file(options.mesh), components=options.components)


def _fingerprint(points: Array, vectors: Array, settings: dict[str, Any], mesh: str | None) -> str:
    """Of everything that determines the model."""
    digest = hashlib.sha256()
    for array in (points, vectors):
        digest.update(array.tobytes())
    if mesh is not None:
        digest.update(Path(mesh).read_bytes())
    digest.update(json.dumps([__version__, settings], sort_keys=True).encode())
    return digest.hexdigest()


def _model(
    options: argparse.Namespace,
    manifold: Any,
    points: Array,
    vectors: Array,
    seen: NDArray[np.bool_],
    folder: Path,
    settings: dict[str, Any],
) -> Any:
    """The fitted model: that of an earlier run with the same data and settings, or a new one."""
    from gpkit.inference.inference_data import save_inference_data
    from gpkit.models import VectorFieldGP

    file, mark = folder / "model.gpkit", folder / "model.sha256"
    key = _fingerprint(points, vectors, settings, options.mesh)
    if file.exists() and mark.exists() and mark.read_text(encoding="utf-8").strip() == key:
        try:
            kept = VectorFieldGP.load(file)
        except InvalidDataError:
            kept = None
        if kept is not None:
            if not options.quiet:
                print("gpkit: model kept from an earlier run", file=sys.stderr)
            return kept
    model = VectorFieldGP(
        manifold,
        options.kernel,
        rank=options.rank,
        dense_rows=options.dense_rows,
        length_unit=options.length_unit,
        value_unit=options.value_unit,
    )
    where = np.flatnonzero(seen) if options.mesh is None else points[seen]
    model.fit(where, vectors[seen], noise=options.noise, seed=options.seed, progress=not options.quiet)
    posterior = folder / "posterior.nc"
    if options.draws:
        model.sample(options.draws, options.tune, options.chains, options.seed, progress=not options.quiet)
        save_inference_data(model.posterior, posterior)
    else:
        posterior.unlink(missing_ok=True)
    mark.unlink(missing_ok=True)
    model.save(file)
    write_atomic(mark, key + "\n")  # last, so that its presence says that the model is complete
    return model


def _predictions(
    model: Any, manifold: Any, points: Array, columns: list[str], names: list[str], *, on_mesh: bool
) -> str:
    if not on_mesh:
        return _csv(model.predict(), points, columns, names)
    vertices = _csv(model.predict(), manifold.points, columns, names)
    return vertices + "".join(_csv(model.predict(points), points, columns, names).splitlines(keepends=True)[1:])


def _csv(prediction: Any, points: Array, columns: list[str], names: list[str]) -> str:
    """Coordinates, mean, standard deviations of the coordinates, and whether the place is far from the nodes."""
    deviation = np.sqrt(np.maximum(prediction.variance, 0.0))
    header = [*columns, *(f"mean_{n}" for n in names), *(f"sd_{n}" for n in names), "far"]
    lines = [",".join(header)]
    for place, mean, spread, far in zip(points, prediction.mean, deviation, prediction.far, strict=True):
        numbers = [f"{value:.12g}" for value in (*place, *mean, *spread)]
        lines.append(",".join([*numbers, str(int(far))]))
    return "\n".join(lines) + "\n"


def _print(model: Any, observed: int, total: int, html: Path) -> None:
    from gpkit.diagnostics.findings import group_findings
    from gpkit.models.fields.report_common import field_findings

    manifold = model.manifold
    print(f"{count(observed, 'vector')} at {count(total, 'point')}; {manifold!r}")
    print(model.result.comparison.table[["log_evidence", "delta", "elpd_loo", "n_parameters"]].round(2).to_string())
    print(model.result.comparison.verdict())
    for group in group_findings(field_findings(model)):
        print(f"{group.level}: {group.message}")
    print(f"report: {html}")
