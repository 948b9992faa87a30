"""Findings: what the reader of a result should know, as data; sorted, and grouped over kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LEVELS", "Finding", "FindingGroup", "Level", "as_plain", "group_findings", "sort_findings"]

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The levels, worst first: do not use / use with care / good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that the reader of a result should know.

    Attributes:
        level: "error": do not use the result; "warning": use it with care; "note": good to know.
        code: Stable name of the rule, such as "timescale-longer-than-baseline".
        message: One or two sentences in plain language, with the numbers.
        kernel: Name of the kernel that it is about; empty: all of them, or the data.
    """

    level: Level
    code: str
    message: str
    kernel: str = ""


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without repetitions, worst first, otherwise in their order."""
    return sorted(dict.fromkeys(findings), key=lambda finding: LEVELS.index(finding.level))


@dataclass(frozen=True)
class FindingGroup:
    """One finding about several kernels, told once.

    Attributes:
        level: Their level.
        code: Their rule.
        message: Their message; numbers that differ are given in the order of the kernels, "0.2 / 0.3".
        kernels: Names of the kernels; empty for findings about the data.
    """

    level: Level
    code: str
    message: str
    kernels: tuple[str, ...]


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Findings of the same rule for several kernels as one, worst first; wordings that differ stay apart."""
    ordered = sort_findings(findings)
    groups: list[list[Finding]] = []
    for finding in ordered:
        shape = (finding.level, finding.code, _without_numbers(finding.message))
        for group in groups:
            first = group[0]
            if finding.kernel and shape == (first.level, first.code, _without_numbers(first.message)):
                group.append(finding)
                break
        else:
            groups.append([finding])
    return [
        FindingGroup(
            group[0].level,
            group[0].code,
            _joined([f.message for f in group]),
            tuple(f.kernel for f in group if f.kernel),
        )
        for group in groups
    ]


_NUMBER = re.compile(r"(?<![\w-])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w-])")


def _without_numbers(message: str) -> str:
    return _NUMBER.sub("#", message)


def _joined(messages: Sequence[str]) -> str:
    """Messages that differ in numbers only, as one."""
    numbers = [_NUMBER.findall(message) for message in messages]
    columns = iter(
        [" / ".join(column if len(set(column)) > 1 else column[:1]) for column in zip(*numbers, strict=True)]
    )
    return _NUMBER.sub(lambda _: next(columns), messages[0])


def as_plain(finding: Finding) -> dict[str, Any]:
    """A finding as it stands in JSON: level, code, kernel (or None) and message."""
    return {
        "level": finding.level,
        "code": finding.code,
        "kernel": finding.kernel or None,
        "message": finding.message,
    }
