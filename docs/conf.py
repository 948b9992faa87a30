"""Sphinx configuration. The site builds without a network, and every warning is an error (make docs)."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import gpkit

sys.path.insert(0, str(Path(__file__).parent))

from figures import write_figures

project = "gpkit"
author = "The gpkit developers"
copyright = "The gpkit developers"
version = release = importlib.metadata.version("gpkit-bayes")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
# Single backticks in docstrings are code.
default_role = "code"

html_theme = "furo"
html_title = f"gpkit {release}"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The packages of the API, from what users hold to what they rarely see. A page is written for each one that exists.
API = (
    "gpkit.models",
    "gpkit.models.pde",
    "gpkit.kernels",
    "gpkit.likelihoods",
    "gpkit.datasets",
    "gpkit.inference",
    "gpkit.diagnostics",
    "gpkit.reports",
    "gpkit.operators",
    "gpkit.geometry",
    "gpkit.recursions",
    "gpkit.errors",
)


def write_api_pages(folder: Path) -> None:
    """Write one page for each public package, so that adding a package or a name needs no edit here."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(gpkit.__path__[0])
    names = [
        name
        for name in API
        if (package / name.split(".")[1] / "__init__.py").exists() or (package / f"{name.split('.')[1]}.py").exists()
    ]
    for name in names:
        # Compiled functions have no signature worth printing: the page holds what the package says of itself.
        members = "" if name == "gpkit.recursions" else "   :members:\n   :show-inheritance:\n"
        page = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n"
        target = folder / f"{name}.md"
        if not target.exists() or target.read_text(encoding="utf-8") != page:
            target.write_text(page, encoding="utf-8")
    for stale in set(folder.glob("*.md")) - {folder / f"{name}.md" for name in names}:
        stale.unlink()


write_api_pages(Path(__file__).parent / "api" / "generated")
write_figures(Path(__file__).parent / "api" / "generated" / "figures")


# Shapes are written (*batch, N): an asterisk at the start of a word means a batch of dimensions, not emphasis.
_LITERAL = re.compile(r"(``.*?``|`[^`]*`|\*\*\w+)")
_BATCH = re.compile(r"(?<![\w*\\])\*(?=[A-Za-z_]+(?![\w*]))")


def keep_asterisks(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the asterisks of shapes outside of code."""
    for k, line in enumerate(lines):
        pieces = _LITERAL.split(line)
        lines[k] = "".join(p if j % 2 else _BATCH.sub(r"\\*", p) for j, p in enumerate(pieces))


def setup(app: Any) -> None:
    """Connect the hook, before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", keep_asterisks, priority=400)
