"""Prediction nodes: coordinates without information among those that have sites."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError

__all__ = ["Nodes", "insert_nodes"]


class Nodes(NamedTuple):
    """Sorted nodes with their sites, and where they came from.

    Attributes:
        coordinates: (*batch, N + M), sorted.
        precision: (*batch, N + M, R, R), zero at new nodes.
        information: (*batch, N + M, R), zero at new nodes.
        old: for every given node, where it is now, (N,).
        new: for every new coordinate, in the order in which it was given, where it is now, (M,).
    """

    coordinates: Tensor
    precision: Tensor
    information: Tensor
    old: Tensor
    new: Tensor


def insert_nodes(coordinates: Tensor, precision: Tensor, information: Tensor, new: Tensor) -> Nodes:
    """Merge new coordinates, in any order, into sorted ones that have sites.

    Coordinates are common to the batch; those that are there already are repeated, which changes nothing.

    Args:
        coordinates: (N,), sorted.
        precision: (*batch, N, R, R).
        information: (*batch, N, R).
        new: (M,).

    Raises:
        InvalidDataError: unless coordinates and new coordinates are vectors.
    """
    if coordinates.dim() != 1 or new.dim() != 1:
        raise InvalidDataError(
            f"coordinates and new coordinates must be vectors, got {tuple(coordinates.shape)} and {tuple(new.shape)}"
        )
    merged, order = torch.cat([coordinates, new]).sort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    n, functions = information.shape[-2:]

    def spread(sites: Tensor, tail: tuple[int, ...]) -> Tensor:
        lead = sites.shape[: sites.dim() - len(tail) - 1]
        return torch.cat([sites, sites.new_zeros(*lead, len(new), *tail)], len(lead)).index_select(len(lead), order)

    return Nodes(
        merged,
        spread(precision, (functions, functions)),
        spread(information, (functions,)),
        place[:n],
        place[n:],
    )
