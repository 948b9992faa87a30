"""Models: what users instantiate."""

from gpkit.models.exact_gp import ExactGP

__all__ = ["ExactGP"]
