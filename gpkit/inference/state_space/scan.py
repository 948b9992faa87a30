"""The associative-scan backend: torch operations of logarithmic depth, differentiable, on any device.

Each node is an element ``(A, b, C, e, J)``: given the state before it, the state after it is ``N(A x + b, C)`` and the
element's sites carry the information ``exp(e^T x - x^T J x / 2)`` about the state before. Elements compose
associatively. Prefixes are the filter; ``e`` and ``J`` of suffixes are what later sites say about a state, which
combined with the filter is the posterior, without an inverse of a covariance (which may be singular).

References:
    Sarkka & Garcia-Fernandez (2021), IEEE Trans. Autom. Control 66, 299.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.state_space.paths import MarkovPaths

__all__ = ["filter_sites", "smooth_sites"]


class _Elements(NamedTuple):
    """Elements of N nodes; matrices (*batch, N, D, D), vectors (*batch, N, D, 1)."""

    a: Tensor
    b: Tensor
    c: Tensor
    e: Tensor
    j: Tensor


class _Dense(NamedTuple):
    """The prior with dense states: transitions into each node (zero at the first), entering noise, and H (R, D)."""

    transitions: Tensor
    noise: Tensor
    observation: Tensor


class _Filtered(NamedTuple):
    """States at N nodes: means (*batch, N, D, 1) and covariances, before and after the node's site."""

    predicted_mean: Tensor
    predicted_covariance: Tensor
    mean: Tensor
    covariance: Tensor


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)


def _dense(paths: MarkovPaths) -> _Dense:
    which = list(paths.which)
    b, count = paths.block, len(which)

    def full(blocks: Tensor) -> Tensor:
        blocks = blocks[..., which, :, :]
        out = blocks.new_zeros(*blocks.shape[:-3], count, b, count, b)
        out.diagonal(dim1=-4, dim2=-2).copy_(blocks.movedim(-3, -1))
        return out.reshape(*blocks.shape[:-3], count * b, count * b)

    a, p = full(paths.transitions), full(paths.covariance)
    start, steps = p[..., :1, :, :], a[..., :-1, :, :]
    before, after = (p[..., :-1, :, :], p[..., 1:, :, :]) if p.shape[-3] > 1 else (p, p)
    entering = _symmetric(after - steps @ before @ steps.mT)
    noise = torch.cat([start.expand(*entering.shape[:-3], 1, *p.shape[-2:]), entering], -3)
    transitions = torch.cat([torch.zeros_like(a[..., :1, :, :]), steps], -3)
    observation = a.new_zeros(paths.functions, count * b)
    for k, owner in enumerate(paths.owner):
        observation[owner, k * b] = 1.0
    return _Dense(transitions, noise, observation)


def _gain(precision: Tensor, spread: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(I + Lam S)^-1 Lam``, ``(I + Lam S)^-1 right`` and ``log|I + Lam S|`` for (..., R, R) and (..., R, 1)."""
    functions = precision.shape[-1]
    eye = torch.eye(functions, dtype=precision.dtype, device=precision.device)
    matrix = eye + precision @ spread
    solved = torch.linalg.solve(matrix, torch.cat([precision.expand_as(matrix), right], -1))
    return _symmetric(solved[..., :functions]), solved[..., functions:], torch.linalg.slogdet(matrix)[1]


def _elements(dense: _Dense, precision: Tensor, information: Tensor) -> _Elements:
    h, q, a = dense.observation, dense.noise, dense.transitions
    qh = q @ h.mT
    gain, weight, _ = _gain(precision, h @ qh, information.unsqueeze(-1))
    ha = h @ a
    return _Elements(
        a - qh @ (gain @ ha), qh @ weight, _symmetric(q - qh @ gain @ qh.mT), ha.mT @ weight, ha.mT @ gain @ ha
    )


def _compose(first: _Elements, second: _Elements) -> _Elements:
    """The element of two consecutive stretches, the earlier first."""
    d = first.a.shape[-1]
    eye = torch.eye(d, dtype=first.a.dtype, device=first.a.device)
    matrix = eye + first.c @ second.j
    # (I + C J)^-1 [A1, b1 + C e2, C]; its transpose serves the information.
    right = torch.cat([first.a, first.b + first.c @ second.e, first.c], -1)
    solved = torch.linalg.solve(matrix, right)
    through, mean, cov = solved[..., :d], solved[..., d : d + 1], solved[..., d + 1 :]
    known = torch.linalg.solve(matrix.mT, torch.cat([second.e - second.j @ first.b, second.j @ first.a], -1))
    return _Elements(
        second.a @ through,
        second.a @ mean + second.b,
        _symmetric(second.a @ cov @ second.a.mT + second.c),
        first.a.mT @ known[..., :1] + first.e,
        _symmetric(first.a.mT @ known[..., 1:] + first.j),
    )


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Rows of both in turn along the nodes; ``even`` may have one more."""
    pairs = torch.stack([even[..., : odd.shape[-3], :, :], odd], -3)
    merged = pairs.reshape(*odd.shape[:-3], 2 * odd.shape[-3], *odd.shape[-2:])
    return torch.cat([merged, even[..., odd.shape[-3] :, :, :]], -3)


def _prefixes(elements: _Elements, reverse: bool = False) -> _Elements:
    """Compositions of the first 1, 2, ..., N elements; in ``reverse``, elements are ordered from the last."""
    n = elements.a.shape[-3]
    if n < 2:
        return elements

    def take(source: _Elements, rows: slice) -> _Elements:
        return _Elements(*(t[..., rows, :, :] for t in source))

    def join(early: _Elements, late: _Elements) -> _Elements:
        return _compose(late, early) if reverse else _compose(early, late)

    odd = _prefixes(join(take(elements, slice(0, n - 1, 2)), take(elements, slice(1, n, 2))), reverse)
    even = take(elements, slice(0, 1))
    if n > 2:
        later = join(take(odd, slice(0, (n - 1) // 2)), take(elements, slice(2, n, 2)))
        even = _Elements(*(torch.cat([x, y], -3) for x, y in zip(even, later, strict=True)))
    return _Elements(*(_interleave(x, y) for x, y in zip(even, odd, strict=True)))


def _check(precision: Tensor) -> None:
    if not precision.numel():
        return
    values = torch.linalg.eigvalsh(precision.detach())
    scale = values.abs().amax(-1)
    bad = (values[..., 0] < -1e-9 * scale).nonzero()
    if len(bad):
        node = int(bad[0, -1])
        raise NotPositiveDefiniteError(
            f"the precision of the site at node {node} is not positive semidefinite", row=node
        )


def _run(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size
) -> tuple[_Dense, _Elements, _Filtered, Tensor]:
    """The filter: dense prior, elements, moments of the states, and the evidence."""
    _check(precision)
    dense = _dense(paths)
    lead = (*batch, paths.nodes)
    dense = _Dense(dense.transitions.expand(*lead, -1, -1), dense.noise.expand(*lead, -1, -1), dense.observation)
    precision = precision.expand(*batch, *precision.shape[-3:])
    information = information.expand(*batch, *information.shape[-2:])
    elements = _elements(dense, precision, information)
    done = _prefixes(elements)
    a, h = dense.transitions, dense.observation
    shifted_mean = torch.cat([torch.zeros_like(done.b[..., :1, :, :]), done.b[..., :-1, :, :]], -3)
    shifted = torch.cat([torch.zeros_like(done.c[..., :1, :, :]), done.c[..., :-1, :, :]], -3)
    predicted_mean = a @ shifted_mean
    predicted = _symmetric(a @ shifted @ a.mT + dense.noise)
    mu, s = h @ predicted_mean, h @ predicted @ h.mT
    eta = information.unsqueeze(-1)
    residual = eta - precision @ mu
    _, weight, logdet = _gain(precision, s, residual)
    terms = residual.mT @ s @ weight + (eta + residual).mT @ mu
    evidence = 0.5 * (terms[..., 0, 0] - logdet).sum(-1)
    return dense, elements, _Filtered(predicted_mean, predicted, done.b, done.c), evidence


def filter_sites(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Evidence, filtered means and covariances, predicted means and covariances of the functions."""
    dense, _, state, evidence = _run(paths, precision, information, batch)
    h = dense.observation
    return (
        evidence,
        (h @ state.mean)[..., 0],
        h @ state.covariance @ h.mT,
        (h @ state.predicted_mean)[..., 0],
        h @ state.predicted_covariance @ h.mT,
    )


def smooth_sites(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size, lag_one: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Evidence (*batch,), posterior means (*batch, N, R), covariances (*batch, N, R, R) and lag-one covariances."""
    dense, elements, state, evidence = _run(paths, precision, information, batch)
    h = dense.observation
    suffix = _prefixes(_Elements(*(t.flip(-3) for t in elements)), reverse=True)
    # What the sites after each node say about its state; nothing is known after the last.
    e, j = (
        torch.cat([t.flip(-3)[..., 1:, :, :], torch.zeros_like(t[..., :1, :, :])], -3) for t in (suffix.e, suffix.j)
    )
    d = j.shape[-1]
    eye = torch.eye(d, dtype=j.dtype, device=j.device)
    right = torch.cat([h.mT.expand(*j.shape[:-2], -1, -1), e - j @ state.mean], -1)
    solved = torch.linalg.solve(eye + j @ state.covariance, right)
    observed = h @ state.covariance
    mean = h @ state.mean + observed @ solved[..., -1:]
    covariance = _symmetric(observed @ solved[..., :-1])
    if not lag_one:
        return evidence, mean[..., 0], covariance, None
    known = j + h.mT @ precision @ h
    later = torch.linalg.solve(
        eye + known[..., 1:, :, :] @ state.predicted_covariance[..., 1:, :, :],
        h.mT.expand(*j.shape[:-3], max(paths.nodes - 1, 0), -1, -1),
    )
    step = dense.transitions[..., 1:, :, :]
    return evidence, mean[..., 0], covariance, observed[..., :-1, :, :] @ step.mT @ later
