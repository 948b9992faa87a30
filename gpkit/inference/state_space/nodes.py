"""Prediction nodes: coordinates without information among those that have sites."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpkit.operators.structured import common_batch

__all__ = ["Nodes", "insert_nodes"]


class Nodes(NamedTuple):
    """Sorted nodes with their sites, and where they came from.

    Attributes:
        coordinates: (*batch, N + M), sorted.
        precision: (*batch, N + M, R, R), zero at new nodes.
        information: (*batch, N + M, R), zero at new nodes.
        old: for every given node, where it is now, (*batch, N).
        new: for every new coordinate, in the order in which it was given, where it is now, (*batch, M).
    """

    coordinates: Tensor
    precision: Tensor
    information: Tensor
    old: Tensor
    new: Tensor


def insert_nodes(coordinates: Tensor, precision: Tensor, information: Tensor, new: Tensor) -> Nodes:
    """Merge new coordinates, in any order, into sorted ones that have sites.

    Coordinates that are there already are repeated, which changes nothing. Batches broadcast.

    Args:
        coordinates: (*batch, N), sorted.
        precision: (*batch, N, R, R).
        information: (*batch, N, R).
        new: (*batch, M).
    """
    lead = common_batch(coordinates.shape[:-1], new.shape[:-1])
    n, m = coordinates.shape[-1], new.shape[-1]
    both = torch.cat([coordinates.expand(*lead, n), new.expand(*lead, m)], -1)
    merged, order = both.sort(stable=True)
    place = order.argsort()

    def spread(sites: Tensor, tail: tuple[int, ...]) -> Tensor:
        batch = common_batch(lead, sites.shape[: sites.dim() - len(tail) - 1])
        full = sites.expand(*batch, n, *tail)
        full = torch.cat([full, full.new_zeros(*batch, m, *tail)], len(batch))
        index = order.reshape(*lead, n + m, *([1] * len(tail))).expand(*batch, n + m, *tail)
        return full.gather(len(batch), index)

    functions = information.shape[-1]
    return Nodes(
        merged,
        spread(precision, (functions, functions)),
        spread(information, (functions,)),
        place[..., :n],
        place[..., n:],
    )
