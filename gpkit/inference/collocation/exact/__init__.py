"""Exact conditioning of Gaussian process priors on rows of differential equations."""
