"""Exact Gaussian-process regression that keeps the structure of its covariance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.lazy import LazyEvaluatedKernelTensor
from gpytorch.likelihoods.noise_models import FixedGaussianNoise
from linear_operator.operators import (
    ConstantMulLinearOperator,
    LinearOperator,
    MulLinearOperator,
    SumLinearOperator,
)
from torch import Tensor

from gpkit.errors import InvalidDataError, StructureLostError
from gpkit.inference.conditioning import ConditioningPredictionStrategy
from gpkit.inference.prediction import strategy_for
from gpkit.inference.pyro_failures import count_failures_as_divergent
from gpkit.kernels import StateSpaceKernel, as_state_space
from gpkit.kernels.structured import cross_of, gram_of, is_structured
from gpkit.operators.conditioned import ConditionedLinearOperator
from gpkit.operators.posterior import PosteriorCovarianceLinearOperator
from gpkit.operators.structured import StructuredLinearOperator, common_batch

__all__ = ["ExactGP", "StructuredMultivariateNormal"]

_LOG_TWO_PI = math.log(2.0 * math.pi)


class StructuredMultivariateNormal(MultivariateNormal):
    """A multivariate normal that samples and scores with its covariance operator's own algebra.

    Values that are NaN count as missing in ``log_prob``.
    """

    def __init__(self, mean: Tensor, covariance_matrix: Any, validate_args: bool = False) -> None:
        if validate_args or not isinstance(covariance_matrix, StructuredLinearOperator):
            super().__init__(mean, covariance_matrix, validate_args)
            return
        # The same attributes, without a second broadcast of shapes that are equal: this is done at every training step.
        self._islazy = True
        self._covar = covariance_matrix
        self._MultivariateNormal__unbroadcasted_scale_tril = None
        self.loc = mean
        self._validate_args = False
        batch = common_batch(mean.shape[:-1], covariance_matrix.batch_shape)
        torch.distributions.Distribution.__init__(self, batch, mean.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density (*batch,) of values (*batch, N), marginalised over entries that are NaN."""
        covariance = self.lazy_covariance_matrix.evaluate_kernel()
        if not isinstance(covariance, StructuredLinearOperator):
            return super().log_prob(value)
        residual = value - self.loc
        count: int | Tensor = residual.shape[-1]
        # The sum tells of a NaN in one pass; which entries it is matters rarely.
        if math.isnan(float(residual.detach().sum())):
            missing = torch.isnan(value)
            count = (~missing).sum(-1)
            residual = torch.where(missing, torch.zeros_like(residual), residual)
            noise = torch.where(missing, torch.full_like(residual, torch.inf), torch.zeros_like(residual))
            covariance = covariance.add_diagonal(noise)
        right = residual if residual.dim() == 1 else residual.unsqueeze(-1)
        quad, logdet = covariance.inv_quad_logdet(right, logdet=True)
        return torch.rsub(quad + logdet, -0.5 * _LOG_TWO_PI * count, alpha=0.5)

    def rsample(self, sample_shape: Any = (), base_samples: Tensor | None = None) -> Tensor:
        """Exact draws (*sample_shape, *batch, N), O(N) each for structured covariances."""
        covariance = self.lazy_covariance_matrix.evaluate_kernel()
        if base_samples is not None or not isinstance(covariance, StructuredLinearOperator):
            return super().rsample(torch.Size(sample_shape), base_samples)
        draws = covariance.zero_mean_mvn_samples(max(torch.Size(sample_shape).numel(), 1))
        return self.loc + draws.reshape(*sample_shape, *draws.shape[1:])


class ExactGP(gpytorch.models.ExactGP):
    """Exact GP regression; a ``gpytorch.models.ExactGP`` with a covariance that may be structured.

    It trains with GPyTorch's ``ExactMarginalLogLikelihood`` and any torch optimiser and predicts through
    ``likelihood(model(x))``. With a state-space kernel both are O(N) and exact for every N; other kernels follow
    GPyTorch's dense path. Times may be in any order and may repeat; targets that are NaN are missing.

    Args:
        train_x: (*batch, N) or (*batch, N, d) inputs, or None for a prior.
        train_y: (*batch, N) targets, or None.
        likelihood: a Gaussian likelihood.
        kernel: any GPyTorch kernel.
        mean: any GPyTorch mean; a constant if not given.

    Raises:
        InvalidDataError: for non-finite inputs or shapes that do not fit.
        StructureLostError: when a structured kernel sits inside a wrapper that would densify it.
    """

    train_inputs: Any
    train_targets: Any
    likelihood: Any
    prediction_strategy: Any

    def __init__(
        self,
        train_x: Tensor | None,
        train_y: Tensor | None,
        likelihood: Any,
        kernel: gpytorch.kernels.Kernel,
        mean: gpytorch.means.Mean | None = None,
    ) -> None:
        if train_x is not None:
            train_x = train_x.unsqueeze(-1) if train_x.dim() == 1 else train_x
            _check_training_data(train_x, train_y)
        super().__init__(train_x, train_y, likelihood)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=kernel.batch_shape) if mean is None else mean
        self.covar_module = as_state_space(kernel) or kernel
        if train_x is not None and train_x.dtype == torch.float64:
            # Parameters that GPyTorch creates in single precision would silently limit a double precision model.
            self.double()

    @property
    def structured(self) -> bool:
        """Whether the kernel says which structured operator it becomes."""
        return isinstance(self.covar_module, StateSpaceKernel) or is_structured(self.covar_module)

    def forward(self, x: Tensor) -> MultivariateNormal:
        """Prior at inputs (*batch, N, d)."""
        mean = self._prior_mean(x)
        if not self.structured:
            return MultivariateNormal(mean, self.covar_module(x))
        if not isinstance(self.covar_module, StateSpaceKernel):
            return StructuredMultivariateNormal(mean, gram_of(self.covar_module, x))
        times = self._kernel_inputs(x)
        covariance = self.covar_module.gram(times) if times.shape[-1] == 1 else self.covar_module(x)
        return StructuredMultivariateNormal(mean, covariance)

    def _prior_mean(self, x: Tensor) -> Tensor:
        """The mean at x; an unbatched constant, the common case, skips torch's slow general broadcasting."""
        module = self.mean_module
        if type(module) is gpytorch.means.ConstantMean and not module.constant.dim():
            return module.constant.expand(x.shape[:-1])
        mean: Tensor = module(x)
        return mean

    def _kernel_inputs(self, x: Tensor) -> Tensor:
        """The dimensions of x that the kernel sees."""
        dims = self.covar_module.active_dims
        return x if dims is None else x.index_select(-1, dims)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Prior at the training inputs in training mode, else the posterior at the given inputs."""
        if self.training and not kwargs and len(args) == 1 and self._is_training_input(args[0]):
            return _unhidden(self.forward(self.train_inputs[0]))
        prepared = not self.training and not gpytorch.settings.prior_mode.on()
        if prepared and self.train_inputs is not None and self.train_targets is not None:
            key = self._fingerprint()
            # A cached strategy belongs to the graph of the pass that made it, which a backward pass frees.
            fresh = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()) and self.structured
            if fresh or self.prediction_strategy is None or not _same_key(key, self._strategy_key):
                # GPyTorch keeps a strategy after a parameter has changed in eval mode; its answers would mix both.
                self.prediction_strategy = self._make_strategy(**kwargs)
                self._strategy_key = key
        result = super().__call__(*args, **kwargs)
        if self.training:
            return _unhidden(result)
        covariance = getattr(result, "lazy_covariance_matrix", None)
        if isinstance(covariance, ConditionedLinearOperator):
            self._prepare_draws(covariance, args[0])
        if isinstance(covariance, PosteriorCovarianceLinearOperator | ConditionedLinearOperator):
            covariance.training_noise = getattr(getattr(self.likelihood, "noise_covar", None), "noise", None)
        return result

    def _prepare_draws(self, covariance: ConditionedLinearOperator, test: Tensor) -> None:
        """Give the posterior the prior of new and training points together, evaluated when draws are asked for."""
        kernel, train = self.covar_module, self.train_inputs[0]
        test = test.unsqueeze(-1) if test.dim() == 1 else test
        batch = common_batch(test.shape[:-2], train.shape[:-2])
        both = torch.cat([t.expand(*batch, *t.shape[-2:]) for t in (test, train)], dim=-2)
        covariance.joint_prior = lambda: gram_of(kernel, both)

    def _is_training_input(self, x: Any) -> bool:
        """Whether x is the stored input itself, so that nothing needs to be compared."""
        if self.train_inputs is None or not isinstance(x, Tensor):
            return False
        stored = self.train_inputs[0]
        return x is stored or (
            x.data_ptr() == stored.data_ptr()
            and x.dtype == stored.dtype
            and x.numel() == stored.numel()
            and x.is_contiguous()
            and stored.is_contiguous()
            and (x.shape == stored.shape or x.shape == stored.shape[:-1])
        )

    def named_added_loss_terms(self) -> Any:
        """Added loss terms by name; see the base class."""
        return super().named_added_loss_terms() if self._any_registered("_added_loss_terms") else iter(())

    def named_priors(self) -> Any:
        """Priors with their names, modules and closures; see the base class."""
        return super().named_priors() if self._any_registered("_priors") else iter(())

    def _any_registered(self, kind: str) -> bool:
        """Whether a module of the tree holds such an entry; GPyTorch's own search is run at every training step."""
        modules: list[Any] = [self]
        while modules:
            module = modules.pop()
            if module is None:
                continue
            if module.__dict__.get(kind):
                return True
            modules.extend(module._modules.values())
        return False

    _strategy_key: Any = None

    def _fingerprint(self) -> tuple[list[Tensor], list[tuple[Tensor, int]]]:
        """Copies of everything that is fitted or fixed, and the data with their versions.

        Parameters are compared by value: GPyTorch writes them through ``.data``, which leaves no trace in a version.
        """
        fixed = [m.noise for m in self.modules() if isinstance(m, FixedGaussianNoise)]
        values = [t.detach().clone() for t in (*self.parameters(), *self.buffers(), *fixed)]
        return values, [(t, t._version) for t in (*self.train_inputs, self.train_targets)]

    def _make_strategy(self, **kwargs: Any) -> Any:
        inputs = list(self.train_inputs)
        prior = self._get_train_prior_distribution(inputs, **kwargs)
        operator = prior.lazy_covariance_matrix.evaluate_kernel()
        if _hides_structure(operator):
            raise _structure_lost(operator)
        strategy = strategy_for(operator)
        return strategy(inputs, prior, self.train_targets, self.likelihood)

    def _get_test_prior_mean_and_covariances(
        self, train_inputs: Iterable[Tensor], test_inputs: Iterable[Tensor], **kwargs: Any
    ) -> Any:
        if not self.structured:
            return super()._get_test_prior_mean_and_covariances(train_inputs, test_inputs, **kwargs)
        (train,), (test,) = list(train_inputs), list(test_inputs)
        batch = torch.broadcast_shapes(train.shape[:-2], test.shape[:-2], self.covar_module.batch_shape)
        mean = self.mean_module(test)
        kernel = self.covar_module
        if not isinstance(kernel, StateSpaceKernel):
            if isinstance(self.prediction_strategy, ConditioningPredictionStrategy):
                cross = cross_of(kernel, test, train)
                batch, shape = torch.broadcast_shapes(batch, mean.shape[:-1]), test.shape[-2:-1]
                # The covariance of the new points stays lazy: only what is asked for is evaluated.
                return mean.expand(*batch, *shape), kernel(test), cross, batch, shape, StructuredMultivariateNormal
            return super()._get_test_prior_mean_and_covariances(train_inputs, test_inputs, **kwargs)
        train, test = self._kernel_inputs(train), self._kernel_inputs(test)
        if test.shape[-1] != 1:
            return super()._get_test_prior_mean_and_covariances(train_inputs, test_inputs, **kwargs)
        # "Square or cross" is known here; comparing the inputs would mistake test = train for the square case.
        cross = kernel.cross(test, train)
        batch = torch.broadcast_shapes(batch, mean.shape[:-1])
        shape = torch.Size([test.shape[-2]])
        return mean.expand(*batch, *shape), None, cross, batch, shape, StructuredMultivariateNormal

    def get_fantasy_model(self, inputs: Any, targets: Tensor, **kwargs: Any) -> Any:
        """A model with additional observations, conditioned again in O(N) where the covariance is structured.

        Args:
            inputs: (*batch, M) or (*batch, M, 1) new times.
            targets: (*batch, M); a leading batch of targets gives a batch of models.
            **kwargs: ``noise`` (*batch, M) for a fixed-noise likelihood.
        """
        if not self.structured:
            return super().get_fantasy_model(inputs, targets, **kwargs)
        new_x = inputs[0] if isinstance(inputs, list | tuple) else inputs
        new_x = new_x.unsqueeze(-1) if new_x.dim() == 1 or new_x.shape == targets.shape else new_x
        old_x, old_y = self.train_inputs[0], self.train_targets
        batch = torch.broadcast_shapes(old_y.shape[:-1], targets.shape[:-1], new_x.shape[:-2])

        def join(a: Tensor, b: Tensor, tail: int, dim: int) -> Tensor:
            return torch.cat([t.expand(*batch, *t.shape[t.dim() - tail :]) for t in (a, b)], dim=dim)

        strategy, self.prediction_strategy = self.prediction_strategy, None
        data, likelihood = (self.train_inputs, self.train_targets), self.likelihood
        self.train_inputs, self.train_targets, self.likelihood = None, None, None
        try:
            model = deepcopy(self)
        finally:
            self.prediction_strategy, self.likelihood = strategy, likelihood
            self.train_inputs, self.train_targets = data
        model.likelihood = likelihood.get_fantasy_likelihood(**kwargs)
        model.train_inputs = (join(old_x, new_x, 2, -2),)
        model.train_targets = join(old_y, targets, 1, -1)
        return model

    def pyro_sample_from_prior(self) -> Any:
        """A copy of the model whose parameters are drawn from their priors, for use inside a Pyro model."""
        count_failures_as_divergent()
        return super().pyro_sample_from_prior()

    def local_load_samples(self, samples_dict: Any, memo: Any, prefix: str) -> None:
        """Load a batch of posterior draws (Pyro); the kernel becomes a batch of kernels."""
        super().local_load_samples(samples_dict, memo, prefix)
        self.prediction_strategy = None


def _same_key(key: Any, old: Any) -> bool:
    if old is None or len(key[0]) != len(old[0]) or len(key[1]) != len(old[1]):
        return False
    same_data = all(a is b and i == j for (a, i), (b, j) in zip(key[1], old[1], strict=True))
    return same_data and all(torch.equal(a, b) for a, b in zip(key[0], old[0], strict=True))


def _structure_lost(operator: Any) -> StructureLostError:
    return StructureLostError(
        f"the kernel's structure is hidden inside {type(operator).__name__}; combine kernels (ScaleKernel, +, * of "
        "gpkit.kernels) before they are evaluated, not the covariances"
    )


def _unhidden(prior: Any) -> Any:
    """A prior whose structure is not hidden: sums of covariances made in ``forward`` are refused in training too."""
    covariance = getattr(prior, "lazy_covariance_matrix", None)
    if _hides_structure(covariance):
        raise _structure_lost(covariance)
    return prior


def _hides_structure(operator: Any) -> bool:
    """Whether a structured operator is buried in a wrapper that only answers approximately."""
    wrappers = (ConstantMulLinearOperator, SumLinearOperator, MulLinearOperator)
    if not isinstance(operator, wrappers):
        return False
    return any(
        isinstance(a, StructuredLinearOperator)
        or (isinstance(a, LazyEvaluatedKernelTensor) and as_state_space(a.kernel) is not None)
        or _hides_structure(a)
        for a in operator._args
        if isinstance(a, LinearOperator)
    )


def _check_training_data(train_x: Tensor, train_y: Tensor | None) -> None:
    bad = (~torch.isfinite(train_x)).reshape(-1, train_x.shape[-1]).any(-1).nonzero()
    if bad.numel():
        raise InvalidDataError(f"train_x is not finite at row {int(bad[0])}; drop or repair the row")
    if train_y is None:
        return
    if train_y.dtype != train_x.dtype:
        raise InvalidDataError(f"train_x is {train_x.dtype} but train_y is {train_y.dtype}; give both the same dtype")
    if train_y.dim() and train_y.shape[-1] != train_x.shape[-2]:
        raise InvalidDataError(f"train_x has {train_x.shape[-2]} points but train_y has {train_y.shape[-1]}")
    if bool(torch.isinf(train_y).any()):
        raise InvalidDataError("train_y is infinite somewhere; use NaN for missing values")
