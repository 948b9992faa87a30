"""The command line of benchmarks that consist of parts: which are run, at what size, and where rows are kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import torch
from _measure import Row, header, markdown, markdown_header, summary, write_json

__all__ = ["run_parts"]


def run_parts(title: str, parts: Mapping[str, Callable[[bool], list[Row]]], alone: Sequence[str] = ()) -> None:
    """Run the parts that are asked for and print their rows.

    Args:
        title: first line of the help.
        parts: by name; each is told whether sizes are tiny, and returns rows of one section.
        alone: parts that are run only when they are named.
    """
    usual = [name for name in parts if name not in alone]
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for a test")
    parser.add_argument("--only", default=",".join(usual), help=f"comma-separated parts of {', '.join(parts)}")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [part for part in wanted if part not in parts]
    if unknown:
        parser.error(f"no such part: {unknown[0]}; choose from {', '.join(parts)}")
    torch.set_num_threads(1)
    facts = header()
    print(markdown_header(facts), "\n")
    rows: list[Row] = []
    for part in wanted:
        found = parts[part](options.smoke)
        rows += found
        print(markdown(found, found[0].section), "\n", flush=True)
    print(summary(rows))
    if options.json:
        write_json(options.json, facts, rows)
