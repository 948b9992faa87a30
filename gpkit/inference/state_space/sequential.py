"""The compiled sequential backend: one pass forward, one back, derivatives by hand.

Derivatives of the evidence come from the backward pass. Posterior means and covariances are themselves derivatives of
the evidence with respect to the sites, so that the gradient of a function of them is the derivative of the evidence's
gradient along one direction of the sites, which the same recursions compute for complex sites to rounding error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpkit.errors import NotPositiveDefiniteError
from gpkit.inference.state_space.paths import MarkovPaths
from gpkit.operators.structured import refuse_gradient

__all__ = ["draw", "filter_sites", "path_layout", "process_roots", "smooth_sites"]

_TINY = 1e-100
_UNROLLED = 3


class _Layout(NamedTuple):
    """Blocks of the state, as the recursions take them."""

    shape: Any
    which: NDArray[np.int64]
    owner: NDArray[np.int64]


def path_layout(block: int, functions: int, which: Sequence[int], owner: Sequence[int]) -> _Layout:
    """Blocks of the state, with short sizes as constants."""
    blocks = len(which)

    def length(n: int, fixed: bool) -> Any:
        return (0,) * n if fixed else np.zeros(n)

    # Short loops are unrolled, which halves their time; each size is compiled on its own, once per machine.
    short = blocks == functions <= _UNROLLED and block <= _UNROLLED
    shape = (length(block, block <= _UNROLLED), length(functions, short), length(blocks, short))
    return _Layout(shape, np.array(which, dtype=np.int64), np.array(owner, dtype=np.int64))


def _layout(paths: MarkovPaths) -> _Layout:
    return path_layout(paths.block, paths.functions, paths.which, paths.owner)


def _general(layout: _Layout) -> _Layout:
    """The same for code that is compiled once for all sizes."""
    return layout._replace(shape=tuple(np.zeros(len(marker)) for marker in layout.shape))


def _series(tensor: Tensor, batch: torch.Size, keep: int) -> NDArray[Any]:
    """Numpy array (B or 1, ...): one row where the whole batch shares it."""
    tensor = tensor.detach()
    lead = tensor.shape[: tensor.dim() - keep]
    tail = tensor.shape[tensor.dim() - keep :]
    if lead.numel() == 1:
        tensor = tensor.reshape(1, *tail)
    else:
        tensor = tensor.expand(*batch, *tail).reshape(batch.numel(), *tail)
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float64)


def _fail(node: int, index: int, count: int) -> None:
    if node >= 0:
        series = f" of series {index}" if count > 1 else ""
        raise NotPositiveDefiniteError(
            f"the precision of the site at node {node}{series} is not positive semidefinite", row=node
        )


def _arrays(
    paths_tensors: tuple[Tensor, Tensor], sites: tuple[Tensor, Tensor], batch: torch.Size
) -> tuple[NDArray[Any], ...]:
    transitions, first = paths_tensors
    precision, information = sites
    return (
        _series(transitions, batch, 4),
        _series(first, batch, 3),
        _series(precision, batch, 3),
        _series(information, batch, 2),
    )


def _prior(layout: _Layout, transitions: NDArray[Any], first: NDArray[Any], index: int) -> Any:
    """The prior of one series; ``first`` (1 or N, nb, b) is spread to every block of the state."""
    from gpkit.recursions import sites

    mine = first[index % len(first)]
    spread = np.ascontiguousarray(mine[:, layout.which].reshape(len(mine), len(layout.which) * mine.shape[-1]))
    return sites.Prior(layout.shape, transitions[index % len(transitions)], layout.which, layout.owner, spread)


def _gathered(bar: NDArray[Any], layout: _Layout, shape: tuple[int, ...]) -> NDArray[Any]:
    """The adjoint of the spreading of ``first``."""
    out = np.zeros(shape, bar.dtype)
    bar = bar.reshape(len(bar), len(layout.which), shape[-1])
    for k, which in enumerate(layout.which):
        out[:, which] += bar[:, k]
    return out


class _Passes(NamedTuple):
    """Results for B series; the last two are derivatives of the evidence, or empty."""

    evidence: NDArray[Any]
    means: NDArray[Any]
    covariances: NDArray[Any]
    lag_one: NDArray[Any]
    transitions_bar: NDArray[Any]
    first_bar: NDArray[Any]


def _smooth(layout: _Layout, arrays: tuple[NDArray[Any], ...], count: int, lag_one: bool, gradient: bool) -> _Passes:
    """Forward and backward passes of every series, for real sites or sites with a direction."""
    from gpkit.recursions import site_smoother, sites

    transitions, first, precision, information = arrays
    n, functions = information.shape[1:]
    d = len(layout.which) * transitions.shape[-1]
    dtype = information.dtype
    stored = sites.stored_for(n, functions, d, gradient, dtype)
    room = sites.room_for(functions, d, transitions.shape[-1], transitions.shape[-3], dtype)
    out = _Passes(
        np.zeros(count, dtype),
        np.empty((count, n, functions), dtype),
        np.empty((count, n, functions, functions), dtype),
        np.empty((count, max(n - 1, 0) if lag_one else 0, functions, functions), dtype),
        np.zeros((count, n if gradient else 0, *transitions.shape[2:]), dtype),
        np.zeros((count, *first.shape[1:]), dtype),
    )
    for i in range(count):
        prior = _prior(layout, transitions, first, i)
        lam, eta = precision[i % len(precision)], information[i % len(information)]
        bad = sites.forward(prior, lam, eta, stored, room, out.evidence[i : i + 1])
        _fail(bad, i, count)
        bar = np.zeros(prior.first.shape, dtype)
        site_smoother.backward(
            prior, stored, room, out.means[i], out.covariances[i], out.lag_one[i], out.transitions_bar[i], bar
        )
        if gradient:
            out.first_bar[i] = _gathered(bar, layout, first.shape[1:])
    return out


class _Smooth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        transitions: Tensor,
        first: Tensor,
        precision: Tensor,
        information: Tensor,
        layout: _Layout,
        batch: torch.Size,
        lag_one: bool,
        gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        arrays = _arrays((transitions, first), (precision, information), batch)
        out = _smooth(layout, arrays, batch.numel(), lag_one, gradient)
        if gradient:
            ctx.save_for_backward(transitions, first, precision, information)
            ctx.arrays, ctx.out, ctx.layout, ctx.batch = arrays, out, layout, batch
        results = [torch.from_numpy(a).reshape((*batch, *a.shape[1:])) for a in out[:4]]
        ctx.mark_non_differentiable(results[3])
        return results[0], results[1], results[2], results[3]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, to_evidence: Tensor, to_means: Tensor, to_covariances: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        out: _Passes = ctx.out
        batch: torch.Size = ctx.batch
        count = batch.numel()
        ge = to_evidence.reshape(count).numpy()
        gm = to_means.reshape(out.means.shape).numpy()
        gv = to_covariances.reshape(out.covariances.shape).numpy()
        gv = 0.5 * (gv + gv.swapaxes(-1, -2))

        def half_second(passes: _Passes) -> NDArray[Any]:
            return -0.5 * (passes.covariances + passes.means[..., :, None] * passes.means[..., None, :])

        bars = [
            ge[:, None, None, None, None] * out.transitions_bar,
            ge[:, None, None, None] * out.first_bar,
            ge[:, None, None, None] * half_second(out),
            ge[:, None, None] * out.means,
        ]
        if gm.any() or gv.any():
            # The direction of the sites along which the evidence changes as sum(gm * mean) + sum(gv * covariance).
            toward = gm - 2.0 * (gv @ out.means[..., None])[..., 0]
            largest = max(np.abs(toward).max(initial=0.0), np.abs(gv).max(initial=0.0))
            scale = _TINY / largest
            transitions, first, precision, information = ctx.arrays
            turned = _smooth(
                _general(ctx.layout),
                (transitions, first, precision - 2j * scale * gv, information + 1j * scale * toward),
                count,
                False,
                True,
            )
            slopes = [turned.transitions_bar, turned.first_bar, half_second(turned), turned.means]
            bars = [bar + slope.imag / scale for bar, slope in zip(bars, slopes, strict=True)]
        grads = [
            torch.from_numpy(np.ascontiguousarray(bar)).reshape((*batch, *bar.shape[1:])).sum_to_size(target.shape)
            if needed
            else None
            for bar, target, needed in zip(bars, ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        return (*grads, None, None, None, None)


def smooth_sites(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size, lag_one: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Evidence (*batch,), posterior means (*batch, N, R), covariances (*batch, N, R, R) and lag-one covariances.

    Raises:
        NotPositiveDefiniteError: naming the node whose precision is not positive semidefinite.
    """
    first = paths.covariance[..., 0]
    tensors = (paths.transitions, first, precision, information)
    want = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    evidence, means, covariances, lag = _Smooth.apply(*tensors, _layout(paths), batch, lag_one, want)
    if not lag_one:
        return evidence, means, covariances, None
    what = "a lag-one covariance of the sequential backend (backend='scan' has its gradient)"
    return evidence, means, covariances, refuse_gradient(lag, what, tensors)


def filter_sites(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Evidence, filtered means and covariances, predicted means and covariances; the evidence is differentiable."""
    from gpkit.recursions import sites

    first = paths.covariance[..., 0]
    tensors = (paths.transitions, first, precision, information)
    layout = _layout(paths)
    transitions, priors, lam, eta = _arrays((paths.transitions, first), (precision, information), batch)
    n, functions = eta.shape[1:]
    count = batch.numel()
    d = len(layout.which) * paths.block
    values = np.zeros(count)
    moments = [np.empty((count, n, functions, *tail)) for tail in ((), (functions,), (), (functions,))]
    stored = sites.stored_for(n, functions, d, False, np.float64)
    room = sites.room_for(functions, d, paths.block, transitions.shape[-3], np.float64)
    for i in range(count):
        prior = _prior(layout, transitions, priors, i)
        bad = sites.forward(prior, lam[i % len(lam)], eta[i % len(eta)], stored, room, values[i : i + 1])
        _fail(bad, i, count)
        moments[0][i] = stored.mu + (stored.s @ stored.weights[..., None])[..., 0]
        after = stored.s - stored.s @ stored.k @ stored.s
        moments[1][i] = 0.5 * (after + after.swapaxes(-1, -2))
        moments[2][i] = stored.mu
        moments[3][i] = stored.s
    what = "a filtered moment of the sequential backend (backend='scan' has its gradient)"
    mean, covariance, predicted, spread = (
        refuse_gradient(torch.from_numpy(m).reshape((*batch, *m.shape[1:])), what, tensors) for m in moments
    )
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        evidence = _Smooth.apply(*tensors, layout, batch, False, True)[0]
    else:
        evidence = torch.from_numpy(values).reshape(batch)
    return evidence, mean, covariance, predicted, spread


def draw(
    paths: MarkovPaths, precision: Tensor, information: Tensor, batch: torch.Size, n: int, generator: torch.Generator
) -> Tensor:
    """Joint draws (n, *batch, N, R): a path of the prior, moved by the smoother's answer to what it lacks.

    References:
        Durbin & Koopman (2002), Biometrika 89, 603.
    """
    from gpkit.recursions import site_draws, sites

    layout = _layout(paths)
    first = paths.covariance[..., 0]
    transitions, priors, lam, eta = _arrays((paths.transitions, first), (precision, information), batch)
    roots = _series(process_roots(paths), batch, 4)
    nodes, functions = eta.shape[1:]
    count = batch.numel()
    d = len(layout.which) * paths.block
    stored = sites.stored_for(nodes, functions, d, False, np.float64)
    room = sites.room_for(functions, d, paths.block, transitions.shape[-3], np.float64)
    out = np.empty((count, n, nodes, functions))
    for i in range(count):
        prior = _prior(layout, transitions, priors, i)
        general = prior._replace(shape=_general(layout).shape)
        site, target = lam[i % len(lam)], eta[i % len(eta)]
        _fail(sites.forward(prior, site, target, stored, room, np.zeros(1)), i, count)
        white = torch.randn(n, nodes, d, generator=generator, dtype=torch.float64).numpy()
        path = np.zeros((n, nodes, functions))
        site_draws.propagate(general, roots[i % len(roots)], white, path)
        values, vectors = np.linalg.eigh(site)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        white = torch.randn(n, nodes, functions, generator=generator, dtype=torch.float64).numpy()
        lacking = target - ((site @ path[..., None]) + root @ white[..., None])[..., 0]
        site_draws.means(general, site, lacking, stored, out[i])
        out[i] += path
    return torch.from_numpy(out).movedim(1, 0).reshape((n, *batch, nodes, functions))


def process_roots(paths: MarkovPaths) -> Tensor:
    """Roots of the covariance that enters at each node, (*batch, N, nb, b, b); at the first it is the prior's."""
    with torch.no_grad():
        a, p = paths.transitions[..., :-1, :, :, :], paths.covariance
        before, after = (p[..., :-1, :, :, :], p[..., 1:, :, :, :]) if p.shape[-4] > 1 else (p, p)
        entering = after - a @ before @ a.mT
        start = p[..., :1, :, :, :].expand(*entering.shape[:-4], 1, *p.shape[-3:])
        covariance = torch.cat([start, entering], -4)[..., : paths.nodes, :, :, :]
        values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.mT))
        return vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
