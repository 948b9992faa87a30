"""Gaussian processes with structured covariances.

A kernel evaluated at inputs is a structured linear operator; the operator decides the algebra; models and inference
engines never look at how big the data set is. Start with `gpkit.models.LightCurveGP` for irregular time series, or
with `gpkit.models.ExactGP` and the kernels of `gpkit.kernels` inside your own GPyTorch code.

Subpackages are imported when they are first used, so that `import gpkit` is cheap.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_SUBPACKAGES = (
    "datasets",
    "diagnostics",
    "errors",
    "geometry",
    "inference",
    "kernels",
    "likelihoods",
    "models",
    "operators",
    "reports",
)

# Files at the top level of the geometric-programming package that is also imported as `gpkit`; none of them is ours.
_FOREIGN_MODULES = ("constraints", "keydict.py", "nomials", "varkey.py")


_ADVICE = (
    "The two cannot be installed together: uninstall both ('pip uninstall gpkit gpkit-bayes'), then install "
    "gpkit-bayes again in an environment of its own."
)


def _refuse_mixed_installation(package: Path) -> None:
    """Detect the other distribution called gpkit beside this one.

    Args:
        package: Folder that holds this package.

    Raises:
        ImportError: Both were installed into one environment and have overwritten each other's files.

    Warns:
        RuntimeWarning: The other one is installed elsewhere on the path, and which is imported is a matter of luck.
    """
    foreign = [name for name in _FOREIGN_MODULES if (package / name).exists()]
    if foreign:
        raise ImportError(
            f"{package} also holds files of the geometric-programming package 'gpkit' ({', '.join(foreign)}). {_ADVICE}"
        )
    try:
        other = importlib.metadata.version("gpkit")
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"The geometric-programming package 'gpkit' {other} is installed beside gpkit-bayes. {_ADVICE}",
        RuntimeWarning,
        stacklevel=3,
    )


_refuse_mixed_installation(Path(__file__).parent)

try:
    __version__ = importlib.metadata.version("gpkit-bayes")
except importlib.metadata.PackageNotFoundError:  # A source tree on sys.path that was never installed.
    __version__ = "0+unknown"

__all__ = ["__version__", *_SUBPACKAGES]


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"gpkit.{name}")
    raise AttributeError(f"module 'gpkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
