"""A report as a tree of plain blocks, and its rendering into one self-contained HTML file.

Nothing here knows about light curves: any model can assemble a `Report` and have it rendered.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from gpkit.diagnostics.findings import FindingGroup
from gpkit.diagnostics.style import styled, tidy_axes
from gpkit.diagnostics.units import superscript

DPI = 200
"""Resolution of figures that are embedded as pixels."""
MAX_SVG = 120_000
"""Bytes of SVG above which a figure is embedded as PNG, if that is smaller."""


@dataclass(frozen=True)
class Paragraph:
    """Text. `role` "lead" is larger, "fine" smaller, "code" keeps its line breaks and spacing."""

    text: str
    role: Literal["text", "lead", "fine", "code"] = "text"

    kind = "paragraph"


@dataclass(frozen=True)
class Facts:
    """Pairs of a label and a value, side by side; the first few numbers that a reader looks for."""

    items: Sequence[tuple[str, str]]

    kind = "facts"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Headings.
        rows: Cells, as text; the first is the heading of its row.
        caption: What it shows and how to read it.
        text_columns: Positions of columns that hold words, set to the left; all others are numbers.
        best: Positions of rows to set off.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    text_columns: Sequence[int] = (0,)
    best: Sequence[int] = ()

    kind = "table"


@dataclass(frozen=True)
class Picture:
    """A figure, already encoded.

    Attributes:
        uri: The image as a data URI.
        alt: What it shows, for those who do not see it.
        caption: How to read it.
        width: Natural width in CSS pixels.
    """

    uri: str
    alt: str
    caption: str
    width: int

    kind = "picture"


@dataclass(frozen=True)
class FindingList:
    """Findings as boxes, worst first."""

    findings: Sequence[FindingGroup]

    kind = "findings"


Block = Paragraph | Facts | Table | Picture | FindingList


@dataclass(frozen=True)
class Section:
    """A heading with blocks and subsections under it; `anchor` is unique in the report."""

    anchor: str
    title: str
    blocks: Sequence[Block] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


@dataclass(frozen=True)
class Report:
    """A whole document.

    Attributes:
        title: Its title.
        subtitle: A line under the title.
        sections: Its sections.
        footer: A line at the end.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str = ""

    def html(self) -> str:
        """Render into one HTML document that needs nothing else: style and pictures are inside."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("gpkit.reports"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template("report.html.j2").render(report=self)


@styled
def picture(figure: Figure, *, alt: str, caption: str, crowded: bool = False) -> Picture:
    """Encode a figure: scalable if that is not large, else as pixels.

    Args:
        figure: The figure; layers of many points should be marked as rasterised.
        alt: What it shows.
        caption: How to read it.
        crowded: Whether it is known to hold so many lines or points that pixels are smaller.
    """
    tidy_axes(figure)
    data, kind = (b"", "") if crowded else (_scalable(figure), "svg+xml")
    if crowded or len(data) > MAX_SVG:
        pixels = _pixels(figure)
        if crowded or len(pixels) < len(data):
            data, kind = pixels, "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(uri, alt, caption, width=round(figure.get_figwidth() * 120))


def _scalable(figure: Figure) -> bytes:
    """SVG; the canvas itself, because ``savefig`` draws everything twice."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return _rounded(buffer.getvalue())


def _pixels(figure: Figure) -> bytes:
    """PNG in the few colours that a figure has, which is a third of the bytes of one with all colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy(), "RGB")
    buffer = io.BytesIO()
    few = colours.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette = few.getpalette() or []
    background = int(np.asarray(few)[0, 0])  # which must stay exactly white, like the page around it
    palette[3 * background : 3 * background + 3] = [255, 255, 255]
    few.putpalette(palette)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _rounded(svg: bytes) -> bytes:
    """Paths and positions with two decimals, a hundredth of a point, which is half the bytes that matplotlib writes."""
    return re.sub(
        rb'( (?:d|x|y)=")([^"]*)"',
        lambda found: found[1] + re.sub(rb"(\.\d\d)\d+", rb"\1", found[2]) + b'"',
        svg,
    )


def number(value: float | None, digits: int = 4) -> str:
    """A number for readers: `digits` significant digits, powers of ten as such, an en dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        power = int(exponent)
        if 0 < power < 7:
            return f"{value:.0f}".replace("-", "−")
        return f"{mantissa} × 10{superscript(power)}".replace("-", "−")
    return text.replace("-", "−")


def fixed(value: float | None, decimals: int = 1) -> str:
    """A number with a fixed number of decimals, an en dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{decimals}f}"
    return ("0" + text[2:] if float(text) == 0 and text.startswith("-") else text).replace("-", "−")
