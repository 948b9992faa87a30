"""The errors: what they are, besides gpkit's own."""

from __future__ import annotations

import pickle

import pytest

from gpkit import errors


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidDataError", ValueError),
        ("NotSortedError", ValueError),
        ("NotPositiveDefiniteError", ArithmeticError),
        ("StructureLostError", TypeError),
        ("MissingDependencyError", ImportError),
        ("ConvergenceError", RuntimeError),
    ],
)
def test_errors_are_also_the_builtin_one(name: str, builtin: type[Exception]) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.GpkitError) and issubclass(kind, builtin)
    assert str(kind("what and where")) == "what and where"


def test_warnings_are_not_errors() -> None:
    assert issubclass(errors.DataWarning, UserWarning) and not issubclass(errors.DataWarning, errors.GpkitError)
    assert issubclass(errors.ConvergenceWarning, UserWarning)


def test_all_is_complete() -> None:
    public = {name for name, item in vars(errors).items() if isinstance(item, type)}
    assert set(errors.__all__) == public


def test_the_row_is_kept_and_survives_pickling() -> None:
    problem = errors.NotPositiveDefiniteError("K + noise has no Cholesky factor", row=7)
    assert problem.row == 7 and str(problem) == "K + noise has no Cholesky factor (row 7)"
    back = pickle.loads(pickle.dumps(problem))
    assert back.row == 7 and str(back) == str(problem)
    assert errors.NotPositiveDefiniteError().row is None


def test_the_extra_is_named() -> None:
    problem = errors.MissingDependencyError.for_extra("astropy", extra="astro", purpose="reading FITS files")
    assert str(problem) == "reading FITS files needs astropy, which is not installed: pip install 'gpkit-bayes[astro]'"
