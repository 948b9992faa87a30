"""Interactive pictures of fields: one HTML file to turn and zoom, through pyvista."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpkit.errors import InvalidDataError, MissingDependencyError
from gpkit.files import atomic_path

__all__ = ["write_interactive_field"]


def write_interactive_field(
    path: str | Path,
    points: npt.ArrayLike,
    vectors: npt.ArrayLike,
    *,
    triangles: npt.ArrayLike | None = None,
    value: npt.ArrayLike | None = None,
    value_label: str = "value",
    arrow_length: float | None = None,
) -> Path:
    """Write a field in space as HTML that needs no server; it appears under its name only when it is complete.

    Args:
        path: HTML file.
        points: (n, 3).
        vectors: (n, 3), drawn as arrows.
        triangles: Node numbers (T, 3) of the surface; the points themselves are drawn without them.
        value: (n,), shown as colour, such as the standard deviation.
        value_label: Title of the colour bar.
        arrow_length: Length of the longest arrow; a twelfth of the size of the cloud if not given.

    Raises:
        InvalidDataError: not points in three dimensions.
        MissingDependencyError: pyvista, or trame, which it exports with, is not installed.
    """
    try:
        import pyvista
    except ImportError:
        raise MissingDependencyError.for_extra("pyvista", extra="manifold", purpose="an interactive picture") from None
    x, v = np.asarray(points, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != 3 or v.shape != x.shape:
        raise InvalidDataError(f"an interactive picture needs points and vectors (n, 3), got {x.shape} and {v.shape}")
    cloud: Any
    if triangles is None:
        cloud = pyvista.PolyData(x)
    else:
        faces = np.asarray(triangles, dtype=np.int64)
        cloud = pyvista.PolyData(x, np.concatenate([np.full((len(faces), 1), 3), faces], axis=1).ravel())
    if value is not None:
        cloud[value_label] = np.asarray(value, dtype=np.float64)
    longest = max(float(np.linalg.norm(v, axis=1).max()), 1e-300)
    reach = float(np.linalg.norm(np.ptp(x, axis=0))) / 12.0 if arrow_length is None else arrow_length
    arrows = pyvista.PolyData(x)
    arrows["field"] = v
    glyphs = arrows.glyph(orient="field", scale="field", factor=reach / longest)
    plotter = pyvista.Plotter(off_screen=True)
    colours: dict[str, Any] = (
        {"scalars": value_label, "cmap": "YlOrBr"} if value is not None else {"color": "lightgrey"}
    )
    plotter.add_mesh(cloud, **colours)
    plotter.add_mesh(glyphs, color="black")
    try:
        with atomic_path(path) as temporary:
            # Newer versions of pyvista export through a component of their own.
            exporter: Any = getattr(plotter, "trame", plotter)
            html = exporter.export_html(None)
            temporary.write_text(html.getvalue(), encoding="utf-8")
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(f"an interactive picture needs trame, which is not installed: {error}") from None
    finally:
        plotter.close()
    return Path(path)
