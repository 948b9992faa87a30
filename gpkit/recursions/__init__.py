"""Compiled loops over arrays: numba and numpy, nothing else."""
