"""Spectral terms with a filter of :mod:`gpkit.kernels.spectral_filters`: any of them, fitted like the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpkit.errors import InvalidDataError
from gpkit.inference.log_parameters import LogParameter
from gpkit.kernels.spectral_filters import (
    CommunicabilityFilter,
    CosineFilter,
    MonotoneFilter,
    PStepFilter,
    RegularisedLaplacianFilter,
    SpectralFilter,
)
from gpkit.models.fields.spectral_term import SpectralPart, SpectralTerm
from gpkit.models.fields.terms import Scales

__all__ = ["NAMED_FILTERS", "FilterTerm", "named_filter", "positive_parameters", "raw_values"]

NAMED_FILTERS = ("regularised-laplacian", "p-step", "cosine", "communicability", "monotone")
"""Filters that kernels "intrinsic:<filter>" have beside Matern and heat."""

_REACH = 1e3
_KNOTS = 6


def positive_parameters(
    module: torch.nn.Module, prefix: str = ""
) -> tuple[list[LogParameter], dict[str, tuple[Any, torch.Size]]]:
    """Positive parameters of a GPyTorch module as logarithms, from where they are, element by element.

    Args:
        module: Anything with ``named_parameters_and_constraints``.
        prefix: Put before the names that :func:`torch.func.functional_call` needs.

    Returns:
        The parameters, and constraint and shape of each raw tensor by its full name, in the same order.
    """
    found: list[LogParameter] = []
    constraints: dict[str, tuple[Any, torch.Size]] = {}
    # Type: of GPyTorch's modules, which a module list declares as torch's.
    for full, raw, constraint in module.named_parameters_and_constraints():  # type: ignore[operator]
        if constraint is None or not raw.requires_grad:
            continue
        values = constraint.transform(raw.detach()).reshape(-1).tolist()
        if min(values, default=0.0) <= 0.0:
            continue
        name = full.replace("raw_", "")
        for number, value in enumerate(values):
            low = max(value / _REACH, float(constraint.lower_bound) * (1.0 + 1e-6) if constraint.lower_bound else 0.0)
            high = min(value * _REACH, float(constraint.upper_bound) * (1.0 - 1e-6))
            label = name if len(values) == 1 else f"{name}[{number}]"
            found.append(LogParameter(label, value, min(low, value), max(high, value), value, 1.5))
        constraints[prefix + full] = (constraint, raw.shape)
    return found, constraints


def raw_values(theta: Tensor, constraints: dict[str, tuple[Any, torch.Size]]) -> dict[str, Tensor]:
    """Raw tensors by name at logarithms (P,) of the natural values."""
    out, at = {}, 0
    for name, (constraint, shape) in constraints.items():
        natural = torch.exp(theta[at : at + shape.numel()]).reshape(shape)
        out[name] = constraint.inverse_transform(natural)
        at += shape.numel()
    return out


class FilterTerm(SpectralTerm):
    """Basis functions whose variances are a filter module of the eigenvalues; the filter's parameters are fitted.

    Args:
        name: Of the term.
        part: The basis.
        spectral_filter: Without batch dimensions.
        scales: Units of the problem.
        unit: Factor of the eigenvalues before the filter sees them, for filters of normalised Laplacians.

    Raises:
        InvalidDataError: a filter with batch dimensions, or one that does not fit the eigenvalues.
    """

    def __init__(
        self, name: str, part: SpectralPart, spectral_filter: SpectralFilter, scales: Scales, unit: float = 1.0
    ) -> None:
        if len(spectral_filter.batch_shape):
            raise InvalidDataError(f"the filter of {name} has batch dimensions {tuple(spectral_filter.batch_shape)}")
        self.name = name
        self.part = part
        self.unit = unit
        self.spectral_filter = spectral_filter.double()
        found, self._constraints = positive_parameters(self.spectral_filter)
        self.parameters = (*found, scales.amplitude("amplitude"))
        self.spectral_filter.log_response(part.eigenvalues * unit)

    def log_response(self, theta: Tensor, eigenvalues: Tensor) -> Tensor:
        """Log of the filter (k,) at eigenvalues (k,) in the basis' own units."""
        values = raw_values(theta, self._constraints)
        found: Tensor = torch.func.functional_call(self.spectral_filter, values, (eigenvalues * self.unit,))
        return found


def named_filter(name: str, part: SpectralPart, scales: Scales) -> tuple[SpectralFilter, float]:
    """A filter by name with start values that suit a basis, and the unit of its eigenvalues.

    The p-step and the cosine filter are for Laplacians with eigenvalues in [0, 2]: others are scaled to that range.
    """
    values = part.eigenvalues
    largest = float(values[-1]) if len(values) and float(values[-1]) > 0.0 else 1.0
    bound = max(part.bound, largest)
    start = 0.5 * scales.length
    if name == "regularised-laplacian":
        return RegularisedLaplacianFilter(start, power=2.0), 1.0
    if name == "communicability":
        return CommunicabilityFilter(0.5 * start**2), 1.0
    if name == "monotone":
        return MonotoneFilter(_KNOTS, largest, scales.length), 1.0
    if name == "cosine":
        return CosineFilter(), 2.0 / bound
    # As many steps as spread over half of the size of the manifold.
    return PStepFilter(max(1.0, 0.5 * bound * start**2), learn_steps=True), 2.0 / bound
