"""Engines: maximisation of the evidence, samplers, and the compiled densities that they share."""
