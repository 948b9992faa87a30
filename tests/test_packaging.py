"""The installed package: metadata, cheap import, lazy subpackages, and the guard against the other `gpkit`."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.resources
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gpkit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    return parser


def run_python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with the given folders first on its path."""
    prologue = "import sys\n" + "".join(f"sys.path.insert(0, {str(folder)!r})\n" for folder in reversed(path))
    return subprocess.run([sys.executable, "-c", prologue + code], capture_output=True, text=True, timeout=120)


def test_version_is_that_of_the_metadata(setup_cfg: configparser.ConfigParser) -> None:
    assert gpkit.__version__ == importlib.metadata.version("gpkit-bayes") == setup_cfg["metadata"]["version"]


def test_console_script_is_declared() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gpkit")
    assert script.value == "gpkit.cli:main"


def test_package_says_that_it_is_typed() -> None:
    assert (importlib.resources.files("gpkit") / "py.typed").is_file()


def test_import_is_lazy() -> None:
    code = (
        "import gpkit\n"
        "heavy = {'matplotlib', 'arviz', 'pyro', 'numba', 'pandas', 'xarray', 'nutpie', 'astropy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = run_python(code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_kernels_and_operators_do_without_reports_and_samplers() -> None:
    # gpytorch itself imports pyro where it is installed.
    code = (
        "import gpkit.kernels, gpkit.operators\n"
        "print(sorted({'matplotlib', 'arviz', 'pandas', 'nutpie', 'astropy', 'numba'} & set(sys.modules)))"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_subpackages_are_reached_as_attributes() -> None:
    names = [name for name in gpkit.__all__ if name != "__version__" and importlib.util.find_spec(f"gpkit.{name}")]
    assert {"datasets", "errors"} <= set(names) <= set(dir(gpkit))
    code = "import gpkit\n" + "".join(f"assert gpkit.{name}.__name__ == 'gpkit.{name}'\n" for name in names)
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gpkit.nonsense


def test_every_subpackage_has_a_docstring_and_is_found() -> None:
    for folder in sorted(path for path in Path(gpkit.__file__).parent.iterdir() if path.is_dir()):
        if any(folder.glob("*.py")):
            assert (folder / "__init__.py").is_file(), f"{folder.name} would not be installed: it has no __init__.py"


def test_files_of_the_other_gpkit_in_our_folder_are_refused(tmp_path: Path) -> None:
    package = tmp_path / "gpkit"
    (package / "nomials").mkdir(parents=True)
    (package / "__init__.py").write_text(Path(gpkit.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    done = run_python("import gpkit", tmp_path)
    assert done.returncode == 1
    assert "ImportError" in done.stderr and "geometric-programming" in done.stderr and "nomials" in done.stderr


def test_the_other_gpkit_elsewhere_on_the_path_is_warned_of(tmp_path: Path) -> None:
    metadata = tmp_path / "gpkit-1.1.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gpkit\nVersion: 1.1.1\n", encoding="utf-8")
    done = run_python("import gpkit", tmp_path)
    assert done.returncode == 0
    assert "RuntimeWarning: The geometric-programming package 'gpkit' 1.1.1" in done.stderr


def test_nothing_tells_to_install_the_other_gpkit() -> None:
    """`pip install` followed by the bare name would install the geometric-programming package."""
    pattern = re.compile(r"pip\s+install\s+(?:-\S+\s+)*gpkit(?!-bayes)\b")
    assert pattern.search("pip install -U gpkit") and not pattern.search("pip install gpkit-bayes")
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    for folder in ("docs", "gpkit", "models", "tutorials", "benchmarks"):
        texts += [
            path for path in (ROOT / folder).rglob("*") if path.suffix in {".md", ".py", ".rst", ".ipynb", ".html"}
        ]
    guilty = [str(path.relative_to(ROOT)) for path in texts if pattern.search(path.read_text(encoding="utf-8"))]
    assert guilty == []


def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_every_direct_dependency_is_pinned_within_its_range(setup_cfg: configparser.ConfigParser) -> None:
    sections = [setup_cfg["options"]["install_requires"], *setup_cfg["options.extras_require"].values()]
    requirements = [Requirement(line) for section in sections for line in section.splitlines() if line]
    assert len(requirements) > 30
    pins = pinned()
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert pins[name] in requirement.specifier, f"{name}=={pins[name]} is outside {requirement.specifier}"


def test_torch_is_pinned_to_a_public_version() -> None:
    """A local version such as 2.13.0+cpu could not be installed where only the plain release is offered."""
    assert all(version.local is None for version in pinned().values())
