"""The names of `gpkit.models`: each is there, and costs only what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpkit.models


@pytest.mark.parametrize("name", gpkit.models.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(gpkit.models, name) is not None
    assert name in dir(gpkit.models)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        gpkit.models.Nothing


def test_one_model_does_not_load_the_others() -> None:
    program = (
        "import sys; from gpkit.models import LightCurveGP; "
        "print([m for m in ('pde', 'fields', 'functional_tensor') if f'gpkit.models.{m}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
