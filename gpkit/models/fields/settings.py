"""Keyword settings that the constructors of field models share; :class:`FieldGP` says what they do."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["FieldSettings", "PlacedFieldSettings"]


class FieldSettings(TypedDict, total=False):
    """Settings of every field model."""

    combine: str
    rank: int
    full_below: int
    value_unit: str
    uncertainty: str | None


class PlacedFieldSettings(FieldSettings, total=False):
    """Settings of models whose nodes may have coordinates, and kernels of them."""

    dense_rows: int
    sparse_unknowns: int
    length_unit: str
