"""Oscillating kernels: stochastic harmonic oscillator, Lorentzian, cosine, celerite term, rotation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from torch import Tensor

from gpkit.kernels.base import StateSpaceKernel

__all__ = ["CeleriteKernel", "CosineKernel", "LorentzianKernel", "RotationKernel", "SHOKernel"]


class SHOKernel(StateSpaceKernel):
    r"""Stochastically driven, damped harmonic oscillator with unit variance.

    .. math::
        S(\omega) = \sqrt{2/\pi}\, S_0 \omega_0^4 / [(\omega^2 - \omega_0^2)^2 + \omega_0^2\omega^2/Q^2],
        \qquad \sigma^2 = S_0\,\omega_0\,Q = 1.

    The covariance is one entire function of ``1/(4 Q^2) - 1``: values and derivatives are exact at critical damping
    (Q = 1/2, where it is Matern-3/2 with rate omega_0), overdamped (Q < 1/2) and underdamped.

    Args:
        frequency: undamped angular frequency omega_0, radians per unit time.
        quality: quality factor Q, dimensionless.
        frequency_prior, quality_prior: priors on the natural values.
        frequency_constraint, quality_constraint: default positive.

    References:
        Foreman-Mackey et al. (2017), AJ 154, 220; arXiv:2502.20867 for flares of blazars.
    """

    structure = (("sho",),)

    def __init__(
        self,
        frequency: Any = 1.0,
        quality: Any = 0.5,
        frequency_prior: Prior | None = None,
        quality_prior: Prior | None = None,
        frequency_constraint: Interval | None = None,
        quality_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_parameter("frequency", frequency, frequency_constraint, frequency_prior)
        self.add_parameter("quality", quality, quality_constraint, quality_prior)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [1.0, values["frequency"], values["quality"]]

    @classmethod
    def from_celerite(cls, s0: Any, w0: Any, q: Any, **kwargs: Any) -> Any:
        """Scaled kernel from celerite's (S0, w0, Q): variance S0 w0 Q."""
        from gpkit.kernels.composite import ScaleKernel

        s0, w0, q = (torch.as_tensor(v, dtype=torch.float64) for v in (s0, w0, q))
        return ScaleKernel(cls(frequency=w0, quality=q, **kwargs), outputscale=s0 * w0 * q)

    @staticmethod
    def to_celerite(kernel: Any) -> tuple[Tensor, Tensor, Tensor]:
        """celerite's (S0, w0, Q) of an SHO kernel or of a ScaleKernel around one."""
        base = getattr(kernel, "base_kernel", kernel)
        variance = kernel.outputscale if base is not kernel else torch.ones_like(base.frequency)
        return variance / (base.frequency * base.quality), base.frequency, base.quality

    def timescales(self) -> dict[str, Any]:
        """Damping regime and times (units of the input).

        ``regime`` ("overdamped", "critical" or "underdamped", of the first batch element), ``slow`` and ``fast`` decay
        times (both ``2Q/omega_0`` where underdamped), ``break`` (1 over the angular frequency at which the PSD is
        half its zero-frequency value), ``integral`` (of the autocorrelation), ``damping``
        (2Q/omega_0), ``period`` (of the damped oscillation; infinite if there is none).
        """
        w, q = self.frequency, self.quality
        beta = 0.5 / q
        mu = (beta - 1.0) * (beta + 1.0)
        over = mu > 0
        root = mu.abs().sqrt()
        shift = torch.where(over, root, torch.zeros_like(root))
        slow = (beta + shift) / w
        slow = torch.where(over, slow, 1.0 / (beta * w))
        fast = torch.where(over, 1.0 / (w * (beta + shift)), 1.0 / (beta * w))
        inverse = 1.0 / (q * q) - 2.0
        # Half-power point of the PSD, in the form that does not cancel for small Q.
        u = 2.0 / (inverse + (inverse * inverse + 4.0).sqrt())
        first = float(q.detach().reshape(-1)[0])
        regime = "critical" if first == 0.5 else ("overdamped" if first < 0.5 else "underdamped")
        period = torch.where(mu < 0, 2.0 * math.pi / (w * root.clamp_min(1e-300)), torch.full_like(w, math.inf))
        return {
            "regime": regime,
            "slow": slow,
            "fast": fast,
            "break": 1.0 / (w * u.sqrt()),
            "integral": 1.0 / (w * q),
            "damping": 2.0 * q / w,
            "period": period,
        }


class LorentzianKernel(StateSpaceKernel):
    """Quasi-periodic kernel ``exp(-omega_0 |tau| / (2 Q)) cos(omega_0 tau)``, whose PSD is a Lorentzian.

    Args:
        frequency: central angular frequency omega_0, radians per unit time.
        quality: Q, the central frequency over the full width at half maximum.
    """

    structure = (("celerite",),)

    def __init__(
        self,
        frequency: Any = 1.0,
        quality: Any = 1.0,
        frequency_prior: Prior | None = None,
        quality_prior: Prior | None = None,
        frequency_constraint: Interval | None = None,
        quality_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_parameter("frequency", frequency, frequency_constraint, frequency_prior)
        self.add_parameter("quality", quality, quality_constraint, quality_prior)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        w, q = values["frequency"], values["quality"]
        return [1.0, 1.0, 0.0, 0.5 * w / q, w]

    def timescales(self) -> dict[str, Any]:
        """``period`` of the oscillation and ``damping`` time of its coherence."""
        return {"period": 2.0 * math.pi / self.frequency, "damping": 2.0 * self.quality / self.frequency}


class CosineKernel(StateSpaceKernel):
    """Undamped oscillation ``cos(2 pi tau / period)``.

    Args:
        period: in units of the input.
    """

    structure = (("celerite",),)

    def __init__(
        self,
        period: Any = 1.0,
        period_prior: Prior | None = None,
        period_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_parameter("period", period, period_constraint, period_prior)

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [1.0, 1.0, 0.0, 0.0, 2.0 * math.pi / values["period"]]

    def timescales(self) -> dict[str, Any]:
        """The period."""
        return {"period": self.period}


class CeleriteKernel(StateSpaceKernel):
    """celerite term ``exp(-c |tau|) (a cos(d tau) + b sin(d |tau|))``; a valid covariance for ``|b d| <= a c``.

    Unlike other base kernels its variance is a. ``b`` is not constrained in sign.

    Args:
        a, b: amplitudes.
        c: decay rate, per unit time.
        d: angular frequency, radians per unit time.
    """

    structure = (("celerite",),)

    def __init__(self, a: Any = 1.0, b: Any = 0.0, c: Any = 1.0, d: Any = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_parameter("a", a)
        self.add_parameter("b", b, real=True)
        self.add_parameter("c", c)
        self.add_parameter("d", d)
        if bool((self.b.abs() * self.d > self.a * self.c * (1.0 + 1e-12)).any()):
            raise ValueError("a celerite term needs |b d| <= a c to be a covariance")

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        return [1.0, values["a"], values["b"], values["c"], values["d"]]

    def timescales(self) -> dict[str, Any]:
        """``period`` 2 pi / d and ``damping`` time 1 / c."""
        return {"period": 2.0 * math.pi / self.d, "damping": 1.0 / self.c}


class RotationKernel(StateSpaceKernel):
    """Stellar rotation: two oscillators at the rotation period and at half of it, unit variance in total.

    Qualities are ``1/2 + quality + difference`` at the period and ``1/2 + quality`` at half the period; the second has
    the share ``mix / (1 + mix)`` of the variance.

    Args:
        period: rotation period, in units of the input.
        quality: quality of the second mode minus 1/2.
        difference: quality of the first mode minus that of the second.
        mix: variance of the second mode relative to the first.

    References:
        Foreman-Mackey et al. (2017), AJ 154, 220; celerite2's RotationTerm.
    """

    structure = (("sho",), ("sho",))

    def __init__(
        self,
        period: Any = 1.0,
        quality: Any = 1.0,
        difference: Any = 1.0,
        mix: Any = 0.5,
        mix_constraint: Interval | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.add_parameter("period", period)
        self.add_parameter("quality", quality)
        self.add_parameter("difference", difference)
        self.add_parameter("mix", mix, mix_constraint or Positive())

    def structure_parameters(self, values: Mapping[str, Any], ops: Any) -> list[Any]:
        """Structure parameters from natural values; see the base class."""
        q2 = 0.5 + values["quality"]
        q1 = q2 + values["difference"]
        share = 1.0 / (1.0 + values["mix"])
        # The damped oscillation, not the undamped frequency, has the period.
        w1 = 4.0 * math.pi * q1 / (values["period"] * ops.sqrt(4.0 * q1 * q1 - 1.0))
        w2 = 8.0 * math.pi * q2 / (values["period"] * ops.sqrt(4.0 * q2 * q2 - 1.0))
        return [share, w1, q1, values["mix"] * share, w2, q2]

    def timescales(self) -> dict[str, Any]:
        """``period``, and the damping times of both modes."""
        q2 = 0.5 + self.quality
        q1 = q2 + self.difference
        entries = self.structure_parameters(self.natural_parameters(), torch)
        return {"period": self.period, "damping": 2.0 * q1 / entries[1], "damping_half": 2.0 * q2 / entries[4]}
