"""Refusing work that would not fit in memory, before it starts."""

from __future__ import annotations

import os
from pathlib import Path

from gpkit.errors import MemoryEstimateError

__all__ = ["available_memory", "require_memory"]


def available_memory() -> int:
    """Bytes that could be allocated now: what the system calls available, else all physical memory."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Check an estimate against what is available.

    Args:
        needed: bytes.
        what: what needs them, the start of a sentence.
        remedy: what would need less.

    Raises:
        MemoryEstimateError: if it does not fit, with both numbers.
    """
    available = available_memory()
    if needed > available:
        raise MemoryEstimateError(
            f"{what} needs {needed / 2**30:.3g} GiB, but {available / 2**30:.3g} GiB are available; {remedy}"
        )
