"""Filter, smoother and draws against dense Gaussian processes with the same sites."""

from __future__ import annotations

import pytest
import torch

from gpkit.errors import InvalidDataError, NotPositiveDefiniteError, NotSortedError
from gpkit.inference import state_space
from gpkit.kernels import DRWKernel, MaternKernel, SHOKernel
from tests.inference.state_space import dense
from tests.inference.state_space.problems import KERNELS, coordinates, sites

BACKENDS = ("sequential", "scan")
CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def agrees(result, oracle, **close):
    for name in ("log_evidence", "mean", "covariance", "lag_one"):
        torch.testing.assert_close(getattr(result, name), getattr(oracle, name), **close, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel(name, backend, generator):
    kernels = KERNELS[name]()
    x = coordinates("plain", 17, generator)
    precision, information = sites("plain", 17, len(kernels), generator)
    given = kernels[0] if len(set(kernels)) == 1 else kernels
    result = state_space.smooth(given, x, precision, information, lag_one=True, backend=backend)
    agrees(result, dense.posterior(kernels, x, precision, information), **CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["plain", "ties", "gaps", "crowded"])
@pytest.mark.parametrize(
    "kind", ["plain", "singular", "singular in range", "precise", "zero", "sparse", "no precision"]
)
def test_every_site(kind, where, backend, generator):
    kernels = KERNELS["shared, blocks of two"]()
    x = coordinates(where, 14, generator)
    precision, information = sites(kind, 14, 2, generator)
    result = state_space.smooth(kernels[0], x, precision, information, lag_one=True, backend=backend)
    oracle = dense.posterior(kernels, x, precision, information)
    # A condition number of 1e6 to 1e13 (crowded and precise) is lost by dense algebra too.
    close = CLOSE if kind != "precise" else {"rtol": 1e-7, "atol": 1e-8}
    agrees(result, oracle, **close)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8])
def test_few_nodes(n, backend, generator):
    kernel = MaternKernel(1.5)
    x = coordinates("plain", n, generator)
    precision, information = sites("plain", n, 2, generator)
    result = state_space.smooth(kernel, x, precision, information, lag_one=True, backend=backend)
    agrees(result, dense.posterior([kernel, kernel], x, precision, information), **CLOSE)
    assert result.lag_one.shape == (max(n - 1, 0), 2, 2)
    assert state_space.sample(kernel, x, precision, information, 3).shape == (3, n, 2)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("kind", ["plain", "singular", "sparse"])
def test_backends_agree(name, kind, generator):
    kernels = KERNELS[name]()
    x = coordinates("plain", 200, generator)
    precision, information = sites(kind, 200, len(kernels), generator)
    both = [
        state_space.smooth(kernels, x, precision, information, lag_one=True, backend=backend) for backend in BACKENDS
    ]
    agrees(*both, rtol=1e-10, atol=1e-10)
    filters = [state_space.filter(kernels, x, precision, information, backend=backend) for backend in BACKENDS]
    for one, other in zip(vars(filters[0]).values(), vars(filters[1]).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_filter_conditions_on_the_past(backend, generator):
    kernels = KERNELS["each its own"]()
    x = coordinates("plain", 6, generator)
    precision, information = sites("plain", 6, 4, generator)
    result = state_space.filter(kernels, x, precision, information, backend=backend)
    for j in range(6):
        seen = j + 1
        updated = dense.posterior(kernels, x[:seen], precision[:seen], information[:seen])
        torch.testing.assert_close(result.mean[j], updated.mean[j], **CLOSE)
        torch.testing.assert_close(result.covariance[j], updated.covariance[j], **CLOSE)
        mask = (torch.arange(seen) < j).double()
        before = dense.posterior(
            kernels, x[:seen], precision[:seen] * mask[:, None, None], information[:seen] * mask[:, None]
        )
        torch.testing.assert_close(result.predicted_mean[j], before.mean[j], **CLOSE)
        torch.testing.assert_close(result.predicted_covariance[j], before.covariance[j], **CLOSE)
    torch.testing.assert_close(
        result.log_evidence, dense.posterior(kernels, x, precision, information).log_evidence, **CLOSE
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_nodes_without_information_change_nothing(backend, generator):
    kernel = MaternKernel(2.5)
    x = coordinates("plain", 12, generator)
    precision, information = sites("plain", 12, 2, generator)
    new = torch.tensor([-3.0, 0.5, float(x[4]), 2.2, 50.0])
    nodes = state_space.insert_nodes(x, precision, information, new)
    before = state_space.smooth(kernel, x, precision, information, backend=backend)
    after = state_space.smooth(kernel, nodes.coordinates, nodes.precision, nodes.information, backend=backend)
    torch.testing.assert_close(after.log_evidence, before.log_evidence, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.mean[nodes.old], before.mean, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(after.covariance[nodes.old], before.covariance, rtol=1e-11, atol=1e-12)
    every = torch.cat([x, new])
    oracle = dense.posterior(
        [kernel, kernel],
        every,
        torch.cat([precision, torch.zeros(5, 2, 2)]),
        torch.cat([information, torch.zeros(5, 2)]),
    )
    torch.testing.assert_close(after.mean[nodes.new], oracle.mean[12:], **CLOSE)
    torch.testing.assert_close(after.covariance[nodes.new], oracle.covariance[12:], **CLOSE)
    # Far from everything the prior is back.
    torch.testing.assert_close(after.variance[nodes.new[-1]], torch.ones(2), rtol=1e-9, atol=0.0)


def test_batches_are_stacks_of_single_problems(generator):
    kernel = MaternKernel(1.5, lengthscale=torch.tensor([0.5, 1.0, 2.0]), batch_shape=torch.Size([3]))
    x = torch.stack([coordinates("plain", 9, generator) for _ in range(2)]).unsqueeze(1)
    pieces = [sites("plain", 9, 2, generator) for _ in range(3)]
    precision, information = (torch.stack(part) for part in zip(*pieces, strict=True))
    for backend in BACKENDS:
        result = state_space.smooth(kernel, x, precision, information, lag_one=True, backend=backend)
        assert result.mean.shape == (2, 3, 9, 2)
        for i in range(2):
            for k in range(3):
                single = state_space.smooth(kernel[k], x[i, 0], precision[k], information[k], lag_one=True)
                for name in ("log_evidence", "mean", "covariance", "lag_one"):
                    torch.testing.assert_close(getattr(result, name)[i, k], getattr(single, name))
    draws = state_space.sample(kernel, x, precision, information, 2, seed=3)
    assert draws.shape == (2, 2, 3, 9, 2)


def test_empty_batches(generator):
    kernel = DRWKernel()
    for shape in [(0, 4), (3, 0), (0, 0)]:
        x = torch.zeros(shape)
        precision, information = torch.zeros(*shape, 1, 1), torch.zeros(*shape, 1)
        for backend in BACKENDS:
            result = state_space.smooth(kernel, x, precision, information, backend=backend)
            assert result.log_evidence.shape == shape[:1]
            assert result.mean.shape == (*shape, 1)


def test_draws_have_the_posterior_moments(generator):
    kernels = [MaternKernel(1.5), SHOKernel(2.0, 4.0) + DRWKernel(0.5)]
    x = coordinates("plain", 8, generator)
    x[3] = x[2]
    precision, information = sites("singular", 8, 2, generator)
    count = 20_000
    draws = state_space.sample(kernels, x, precision, information, count, seed=1)
    oracle = dense.posterior(kernels, x, precision, information)
    centred = (draws - oracle.mean).reshape(count, -1)
    covariance = oracle.joint.reshape(16, 16)
    sd = covariance.diagonal().sqrt()
    assert (centred.mean(0).abs() < 4.5 * sd / count**0.5).all()
    error = (centred.mT @ centred / count - covariance).abs() / (sd[:, None] * sd[None, :])
    assert error.max() < 6.0 / count**0.5
    torch.testing.assert_close(draws[:, 3], draws[:, 2], rtol=0.0, atol=1e-6)
    again = state_space.sample(kernels, x, precision, information, count, seed=1)
    assert torch.equal(draws, again)
    assert not torch.equal(draws, state_space.sample(kernels, x, precision, information, count, seed=2))


def test_draws_of_the_prior(generator):
    kernel = MaternKernel(2.5)
    x = coordinates("plain", 5, generator)
    draws = state_space.sample(kernel, x, torch.zeros(5, 1, 1), torch.zeros(5, 1), 20_000, seed=4)[..., 0]
    want = kernel.autocovariance(x[:, None] - x[None, :])
    assert (draws.mT @ draws / 20_000 - want).abs().max() < 0.04


def test_exact_at_high_precision(generator):
    """Sites of precision 1e10 pin the functions without losing the evidence."""
    kernel = MaternKernel(1.5)
    x = coordinates("plain", 10, generator)
    values = torch.randn(10, 2, generator=generator)
    precision = 1e10 * torch.tensor([[1.0, 0.3], [0.3, 2.0]]).expand(10, 2, 2)
    information = (precision @ values.unsqueeze(-1)).squeeze(-1)
    result = state_space.smooth(kernel, x, precision, information)
    torch.testing.assert_close(result.mean, values, rtol=1e-6, atol=1e-6)
    noise = torch.linalg.inv(precision[0])
    gram = kernel.autocovariance(x[:, None] - x[None, :])
    covariance = torch.kron(gram, torch.eye(2)) + torch.kron(torch.eye(10), noise.contiguous())
    normal = torch.distributions.MultivariateNormal(torch.zeros(20), covariance)
    site = torch.distributions.MultivariateNormal(torch.zeros(2), noise)
    # log Z = log N(values; 0, K + R) - sum log N(values; values, R) + sum values^T precision values / 2.
    half = 0.5 * torch.einsum("ni,nij,nj->n", values, precision, values).sum()
    want = normal.log_prob(values.reshape(-1)) - 10 * site.log_prob(torch.zeros(2))
    torch.testing.assert_close(result.log_evidence - half, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_input_is_refused(backend, generator):
    kernel = MaternKernel(1.5)
    x = coordinates("plain", 4, generator)
    precision, information = sites("plain", 4, 2, generator)

    def smooth(kernels=kernel, x=x, precision=precision, information=information, backend=backend):
        return state_space.smooth(kernels, x, precision, information, backend=backend)

    with pytest.raises(NotSortedError, match="must not decrease"):
        smooth(x=x.flip(0))
    with pytest.raises(InvalidDataError, match="coordinates must be finite, the one at \\[2\\]"):
        smooth(x=torch.tensor([0.0, 1.0, float("nan"), 2.0]))
    with pytest.raises(InvalidDataError, match="information must be finite, the entry at \\[0, 0\\]"):
        smooth(information=information / 0.0)
    with pytest.raises(InvalidDataError, match="float64 tensor"):
        smooth(precision=precision.float())
    with pytest.raises(InvalidDataError, match="do not fit"):
        smooth(precision=precision[:3])
    with pytest.raises(InvalidDataError, match="3 coordinates but sites at 4 nodes"):
        smooth(x=x[:3])
    with pytest.raises(InvalidDataError, match="1 kernels for 2 functions"):
        smooth(kernels=[kernel])
    with pytest.raises(InvalidDataError, match="cast the kernel"):
        smooth(kernels=MaternKernel(1.5).float())
    with pytest.raises(InvalidDataError, match="has no state space"):
        smooth(kernels="matern")
    with pytest.raises(InvalidDataError, match="backend must be"):
        smooth(backend="parallel")
    negative = precision.clone()
    negative[2] = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    with pytest.raises(NotPositiveDefiniteError, match="node 2"):
        smooth(precision=negative)
    with pytest.raises(InvalidDataError, match="must not be negative"):
        state_space.sample(kernel, x, precision, information, -1)
