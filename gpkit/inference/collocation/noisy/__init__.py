"""Weights under a learned spectrum, for noisy equations, conditions and observations."""
