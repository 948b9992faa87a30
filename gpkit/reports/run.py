"""How a result was made: the section that ends every report."""

from __future__ import annotations

from gpkit.reports.content import RunSection
from gpkit.reports.document import Block, Paragraph, Section, Table


def run_section(run: RunSection) -> Section:
    """Command, seed, date, settings and versions."""
    blocks: list[Block] = []
    if run.command:
        blocks.append(Paragraph(run.command, "code"))
    rows = [("Seed", "none" if run.seed is None else str(run.seed)), ("Date", run.date or "–")]
    rows += [(name, str(value)) for name, value in run.settings.items()]
    rows += [(f"Version of {name}", version) for name, version in run.versions.items()]
    blocks.append(Table(("What", "Value"), rows, "Everything needed to make this report again.", text_columns=(0, 1)))
    return Section("run", "How this was made", blocks)
