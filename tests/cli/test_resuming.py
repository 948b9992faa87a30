"""Interrupted runs leave nothing half done, and go on where they stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpkit.models.light_curve_gp import LightCurveGP
from tests.cli.conftest import Columns, Outcome

Run = Callable[..., Outcome]
SAMPLED = ("--kernels", "drw,matern32", "--draws", 40, "--tune", 40, "--chains", 2, "--starts", 2, "--seed", 1)


def _numbers(folder: Path) -> dict[str, Any]:
    kernels: dict[str, Any] = json.loads((folder / "summary.json").read_text())["kernels"]
    for kernel in kernels.values():
        del kernel["seconds"]
    return kernels


def test_interrupted_in_the_second_kernel(
    gpkit: Run, columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = columns.write(tmp_path / "walk.csv"), tmp_path / "out"
    genuine = LightCurveGP.sample

    def interrupted(model: LightCurveGP, *arguments: Any, **options: Any) -> Any:
        if model.name == "matern32":
            raise KeyboardInterrupt
        return genuine(model, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(LightCurveGP, "sample", interrupted)
        stopped = gpkit("lightcurve", path, "--out", out, *SAMPLED)
    assert stopped.code == 130 and stopped.out == "" and len(stopped.err.splitlines()) == 1
    assert {file.name for file in out.iterdir()} == {"model_drw.gpkit", "posterior_drw.nc"}

    sampled: list[str] = []

    def counted(model: LightCurveGP, *arguments: Any, **options: Any) -> Any:
        sampled.append(model.name)
        return genuine(model, *arguments, **options)

    monkeypatch.setattr(LightCurveGP, "sample", counted)
    resumed = gpkit("lightcurve", path, "--out", out, *SAMPLED)
    assert resumed.code == 0 and sampled == ["matern32"] and "drw: kept from an earlier run" in resumed.err

    whole = gpkit("lightcurve", path, "--out", tmp_path / "whole", *SAMPLED)
    assert whole.code == 0 and sampled == ["matern32", "drw", "matern32"]
    assert _numbers(out) == _numbers(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model_drw.gpkit", lambda content: b""),
        ("model_drw.gpkit", lambda content: b"not a model at all"),
        ("model_drw.gpkit", lambda content: content[: len(content) // 2]),
        ("model_drw.gpkit", lambda content: content[:600] + b"\xff" * 200 + content[800:]),
        ("posterior_drw.nc", lambda content: content[: len(content) // 2]),
        ("posterior_drw.nc", None),
    ],
    ids=["empty", "text", "cut", "overwritten", "posterior cut", "posterior missing"],
)
def test_damaged_results_are_made_again(
    gpkit: Run, columns: Columns, tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    path, out = columns.write(tmp_path / "walk.csv"), tmp_path / "out"
    words = ("lightcurve", path, "--out", out, "--kernels", "drw", "--draws", 10, "--tune", 10, "--chains", 2)
    assert gpkit(*words).code == 0
    before = _numbers(out)
    file = out / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    again = gpkit(*words)
    assert again.code == 0 and "kept" not in again.err and _numbers(out) == before


def test_fit_only_after_sampling_leaves_no_old_posterior(gpkit: Run, columns: Columns, tmp_path: Path) -> None:
    path, out = columns.write(tmp_path / "walk.csv"), tmp_path / "out"
    words = ("lightcurve", path, "--out", out, "--kernels", "drw", "--draws", 10, "--tune", 10, "--chains", 2)
    assert gpkit(*words).code == 0 and (out / "posterior_drw.nc").exists()
    assert gpkit(*words, "--no-sample").code == 0 and not (out / "posterior_drw.nc").exists()
