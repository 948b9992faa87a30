"""Pyro's samplers and covariances that have no Cholesky factor."""

from __future__ import annotations

from gpkit.errors import NotPositiveDefiniteError

__all__ = ["count_failures_as_divergent"]


def count_failures_as_divergent() -> None:
    """Let Pyro's integrator reject a step whose covariance is not positive definite, as for torch's own errors.

    Steps of a trajectory may reach parameters that overflow; without this, one of them ends the whole run.
    """
    from pyro.ops.integrator import register_exception_handler

    register_exception_handler(
        "gpkit_not_positive_definite",
        lambda error: isinstance(error, NotPositiveDefiniteError),
        warn_on_overwrite=False,
    )
