"""``gpkit vectorfield``: results, resuming, bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpkit.models import VectorFieldGP
from tests.cli.conftest import Outcome
from tests.models.fields.conftest import fibonacci, field

Run = Callable[..., Outcome]
POINTS = fibonacci(80)


def write(path: Path, rows: Any, header: str = "") -> Path:
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.10g")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    vectors = field(POINTS) + 0.02 * np.random.default_rng(0).standard_normal((80, 3))
    vectors[1::2] = np.nan
    return write(tmp_path / "globe.csv", POINTS, "x,y,z"), write(tmp_path / "wind.csv", vectors, "u,v,w")


def test_results(gpkit: Run, files: tuple[Path, Path], tmp_path: Path, rendered: None) -> None:
    points, vectors = files
    words = ("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2)
    words += ("--kernel", "helmholtz:rbf")
    outcome = gpkit(*words)
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.startswith("40 vectors at 80 points") and outcome.out.rstrip().endswith("report.html")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "summary.json", "predictions.csv", "model.gpkit", "model.sha256"}
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    mean = np.array([[float(row[f"mean_{name}"]) for name in "uvw"] for row in rows])
    assert len(rows) == 80 and np.abs(mean - field(POINTS)).max() < 0.4
    assert all(float(row["sd_u"]) >= 0.0 and row["far"] == "0" for row in rows)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["kernel"] == "helmholtz:rbf" and summary["observed"] == 40 and summary["nodes"] == 80
    assert summary["singularities"]["sum"] == 2 == summary["singularities"]["euler_characteristic"]
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in html and html.count("<img") >= 6
    loaded = VectorFieldGP.load(tmp_path / "out" / "model.gpkit")
    np.testing.assert_allclose(loaded.predict().mean, mean, atol=1e-8)


def test_resuming(gpkit: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    points, vectors = files
    words = ("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2)
    words += ("--kernel", "projected:rbf")
    first = gpkit(*words, "--json")
    again = gpkit(*words, "--json")
    summary = json.loads(first.out)
    assert "kept from an earlier run" in again.err and json.loads(again.out)["parameters"] == summary["parameters"]
    changed = gpkit(*words, "--seed", 5, "--quiet")
    assert changed == Outcome(0, "", "")


@pytest.mark.filterwarnings("default:1 of 2 places are far")
def test_draws_and_places(gpkit: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    points, vectors = files
    places = write(tmp_path / "places.csv", [[0.0, 0.0, 1.0], [0.0, 0.0, 5.0]])
    out = tmp_path / "out"
    outcome = gpkit(
        "vectorfield", points, "--vectors", vectors, "--out", out, "--kernel", "projected:rbf", "--draws", 20,
        "--tune", 20, "--chains", 2, "--predict", places, "--dim", 2, "--noise", 0.1,
    )  # fmt: skip
    assert outcome.code == 0 and "1 of 2 places are far" in outcome.err
    assert (out / "posterior.nc").exists()
    rows = list(csv.reader((out / "places.csv").read_text().splitlines()))
    assert [row[-1] for row in rows] == ["far", "0", "1"]


def test_mesh(gpkit: Run, tmp_path: Path) -> None:
    pytest.importorskip("potpourri3d", reason="reading meshes needs the extra manifold")
    pytest.importorskip("robust_laplacian", reason="mesh Laplacians need the extra manifold")
    from scipy.spatial import ConvexHull

    hull = ConvexHull(POINTS)
    faces = hull.simplices.copy()
    a, b, c = (POINTS[faces[:, k]] for k in range(3))
    inward = np.einsum("td,td->t", np.cross(b - a, c - a), a) < 0.0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    lines = [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in POINTS]
    lines += [f"f {i + 1} {j + 1} {k + 1}" for i, j, k in faces]
    mesh = tmp_path / "ball.obj"
    mesh.write_text("\n".join(lines) + "\n")
    places = POINTS[:30]
    points, vectors = write(tmp_path / "sites.csv", places), write(tmp_path / "v.csv", field(places))
    outcome = gpkit(
        "vectorfield", points, "--vectors", vectors, "--mesh", mesh, "--out", tmp_path / "out", "--kernel",
        "projected:rbf", "--quiet",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    rows = list(csv.reader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 1 + 80 + 30


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"points": "x,y,z\n1,2,three\n"}, "column 'z' is 'three'"),
        ({"points": "1,2,3\n4,5\n"}, "row 2 has 2 cells, not 3"),
        ({"points": ""}, "holds no points"),
        ({"points": "1,2,3\n4,nan,6\n"}, "row 2, column 'x2' of the points is missing"),
        ({"vectors": "1,2,3\n"}, "1 row"),
        ({"vectors": "\n".join(["1,2"] * 80)}, "2 columns"),
        ({"vectors": "\n".join([",,"] * 80)}, "holds no vector"),
        ({"vectors": "\n".join(["1,,2"] + ["1,2,3"] * 79)}, "row 1, column 'x2' of the vectors"),
        ({"vectors": "\n".join(["0,0,0"] * 80)}, "all vectors are zero"),
    ],
)
def test_bad_files(gpkit: Run, files: tuple[Path, Path], tmp_path: Path, spoil: dict[str, str], message: str) -> None:
    points, vectors = files
    for name, text in spoil.items():
        {"points": points, "vectors": vectors}[name].write_text(text)
    outcome = gpkit("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2)
    assert outcome.code == 2 and message in outcome.err and outcome.out == ""
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("gpkit: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kernel", "cubic"), "unknown kernel"),
        (("--neighbors", 100), "--neighbors"),
        (("--mesh", "absent.obj"), "no file absent.obj"),
        (("--noise", -1), "must be positive"),
        (("--dim", 5), "dim"),
        (("--frame-neighbors", 1), "--frame-neighbors must be an integer of at least 2"),
    ],
)
def test_bad_options(
    gpkit: Run, files: tuple[Path, Path], tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    points, vectors = files
    outcome = gpkit("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2, *words)
    assert outcome.code == 2 and message in outcome.err, outcome.err


def ball(path: Path, *centres: float) -> Path:
    """An OBJ file of spheres of 80 vertices around places on the first axis."""
    from scipy.spatial import ConvexHull

    faces = ConvexHull(POINTS).simplices
    lines = []
    for centre in centres:
        lines += [f"v {x + centre:.8f} {y:.8f} {z:.8f}" for x, y, z in POINTS]
    for number in range(len(centres)):
        lines += [f"f {i} {j} {k}" for i, j, k in faces + 1 + 80 * number]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("points", "words", "message"),
    [
        (np.concatenate([POINTS, POINTS + 9.0]), (), "2 disconnected parts of 80, 80 nodes"),
        (np.concatenate([POINTS, POINTS + 9.0]), (), "raise --neighbors, model each part by itself"),
        (POINTS[:9], (), "9 points have at most 8: give more points or a smaller --neighbors"),
        (np.linspace(0.0, 1.0, 60)[:, None] * [1.0, 0.0, 0.0], ("--dim", 2), "span fewer than dim = 2 directions"),
        (np.ones((40, 3)), (), "all points coincide"),
    ],
)
def test_clouds_that_are_refused(
    gpkit: Run, tmp_path: Path, points: Any, words: tuple[object, ...], message: str
) -> None:
    files = write(tmp_path / "points.csv", points), write(tmp_path / "vectors.csv", np.ones_like(points))
    outcome = gpkit("vectorfield", files[0], "--vectors", files[1], "--out", tmp_path / "out", *words)
    assert outcome.code == 2 and message in outcome.err and len(outcome.err.splitlines()) == 1, outcome.err


@pytest.mark.filterwarnings("default:.* faces were turned over")
def test_meshes_that_are_refused(gpkit: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("potpourri3d", reason="reading meshes needs the extra manifold")
    pytest.importorskip("robust_laplacian", reason="mesh Laplacians need the extra manifold")
    points, vectors = files
    (tmp_path / "junk.obj").write_text("this is no mesh\n")
    (tmp_path / "words.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf a b c\n")
    for mesh, words, message in (
        (ball(tmp_path / "two.obj", 0.0, 9.0), (), "disconnected parts of 80, 80 nodes"),
        (ball(tmp_path / "away.obj", 9.0), (), "observed places are far from the manifold"),
        (ball(tmp_path / "ball.obj", 0.0), ("--dim", 3), "a mesh is a surface"),
        (ball(tmp_path / "ball.obj", 0.0), ("--frame-neighbors", 20), "a mesh has its frames from its faces"),
        (tmp_path / "junk.obj", (), "is not a triangle mesh that can be read"),
        (tmp_path / "words.obj", (), "is not a triangle mesh that can be read"),
    ):
        outcome = gpkit("vectorfield", points, "--vectors", vectors, "--mesh", mesh, "--out", tmp_path / "out", *words)
        assert outcome.code == 2 and message in outcome.err, outcome.err
    kept = ("--components", "keep", "--kernel", "projected:rbf", "--quiet")
    two = ball(tmp_path / "two.obj", 0.0, 9.0)
    outcome = gpkit("vectorfield", points, "--vectors", vectors, "--mesh", two, "--out", tmp_path / "out", *kept)
    assert outcome.code == 0, outcome.err


def test_missing_file_and_interrupt(
    gpkit: Run, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, vectors = files
    for named, said in ((tmp_path / "absent.csv", "there is no file"), (tmp_path, "is a folder")):
        for words in ((named, "--vectors", vectors), (points, "--vectors", named)):
            outcome = gpkit("vectorfield", *words, "--out", tmp_path / "out")
            assert outcome.code == 2 and said in outcome.err and not (tmp_path / "out").exists()

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(VectorFieldGP, "fit", stopped)
        outcome = gpkit("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2)
    assert outcome.code == 130 and not list((tmp_path / "out").iterdir())
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("a file")
    outcome = gpkit("vectorfield", points, "--vectors", vectors, "--out", tmp_path / "out", "--dim", 2)
    assert "name a folder" in outcome.err
