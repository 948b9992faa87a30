"""Fixtures that every test may use, and the run-time shape checks.

The checks are on in tests only: jaxtyping and beartype decorate every annotated function of the packages named below.
`gpkit.recursions` is left out, since numba has to see its functions undecorated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import hypothesis
import jaxtyping
import numpy as np
import pytest

CHECKED_PACKAGES = (
    "gpkit.datasets",
    "gpkit.diagnostics",
    "gpkit.geometry",
    "gpkit.inference",
    "gpkit.kernels",
    "gpkit.likelihoods",
    "gpkit.models",
    "gpkit.operators",
    "gpkit.reports",
)
# Before the first import of gpkit: modules that are already imported would stay unchecked.
jaxtyping.install_import_hook(list(CHECKED_PACKAGES), "beartype.beartype")

import torch  # noqa: E402

SEED = 20260101

# The same examples in every run: a failure is found by whoever caused it. More are tried with --hypothesis-seed.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seed the global generators, so that a test that forgets to pass a seed is at least repeatable."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    torch.manual_seed(SEED)
    yield


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """Make float64 torch's default for the test, and put the old default back."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def seed() -> int:
    """The seed to hand to everything stochastic."""
    return SEED


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A fresh numpy generator."""
    return np.random.default_rng(seed)


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A fresh torch generator."""
    return torch.Generator().manual_seed(seed)
