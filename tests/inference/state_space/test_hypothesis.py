"""Nasty coordinates and sites, found by hypothesis."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpkit.inference import state_space
from gpkit.kernels import MaternKernel
from tests.inference.state_space import dense

steps = st.one_of(st.just(0.0), st.sampled_from([1e-12, 1e-6, 1e12]), st.floats(1e-3, 10.0))
numbers = st.floats(-3.0, 3.0)


@st.composite
def problems(draw):
    n = draw(st.integers(0, 6))
    x = torch.tensor([draw(steps) for _ in range(n)]).cumsum(0) if n else torch.zeros(0)
    scale = torch.tensor([draw(st.sampled_from([0.0, 1e-8, 1.0, 1e4])) for _ in range(n)]).reshape(n, 1, 1)
    rank = draw(st.integers(1, 2))
    root = torch.tensor([draw(numbers) for _ in range(4 * n)]).reshape(n, 2, 2)
    root[..., rank:] = 0.0
    information = torch.tensor([draw(numbers) for _ in range(2 * n)]).reshape(n, 2)
    return x, scale * (root @ root.mT), information


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(["sequential", "scan"]))
def test_any_problem(problem, backend):
    x, precision, information = problem
    kernel = MaternKernel(1.5)
    result = state_space.smooth(kernel, x, precision, information, lag_one=True, backend=backend)
    oracle = dense.posterior([kernel, kernel], x, precision, information)
    for name in ("log_evidence", "mean", "covariance", "lag_one"):
        torch.testing.assert_close(getattr(result, name), getattr(oracle, name), rtol=1e-7, atol=1e-8)
    assert (torch.linalg.eigvalsh(result.covariance) > -1e-12).all()


def test_denormal_precisions_are_no_negative_ones():
    root = torch.tensor([[1.4e-161, 0.0], [2.0, 0.0]])
    precision = (root @ root.mT).expand(3, 2, 2)
    result = state_space.smooth(MaternKernel(1.5), torch.arange(3.0), precision, torch.zeros(3, 2))
    assert torch.isfinite(result.covariance).all()
