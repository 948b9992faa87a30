"""The part of the interface of GeometricKernels that gpkit uses, on spaces simple enough to be written down.

The package itself needs an older numpy than the rest of the test environment. What is written here follows its version
1.0.1: names, argument order, shapes, and where random states are taken and given back. ``make geometric`` runs the same
tests against the package.
"""

from __future__ import annotations

import math
import sys
import types

import torch


class DiscreteSpectrumSpace:
    dimension = 1


class HodgeDiscreteSpectrumSpace(DiscreteSpectrumSpace):
    pass


class CompactMatrixLieGroup(DiscreteSpectrumSpace):
    pass


class HammingGraph(DiscreteSpectrumSpace):
    pass


class GraphEdges(HodgeDiscreteSpectrumSpace):
    pass


class Circle(DiscreteSpectrumSpace):
    """Angles (m, 1); level l has the eigenvalue l^2 and cos, sin of l times the angle."""

    element_shape = [1]

    def get_eigenvalues(self, num):
        return torch.arange(float(num), dtype=torch.float64).square().reshape(-1, 1).numpy()

    def get_repeated_eigenvalues(self, num):
        levels = torch.arange(1.0, num, dtype=torch.float64).repeat_interleave(2)
        return torch.cat([torch.zeros(1, dtype=torch.float64), levels.square()]).reshape(-1, 1).numpy()

    def get_eigenfunctions(self, num):
        def functions(x):
            if num > 200:
                raise ValueError("not tabulated")
            columns = [torch.ones_like(x[:, 0])]
            for level in range(1, num):
                columns += [math.sqrt(2.0) * f(level * x[:, 0]) for f in (torch.cos, torch.sin)]
            return torch.stack(columns, 1)

        return functions

    def random(self, key, number):
        return key, 2.0 * math.pi * torch.rand(number, 1, generator=key, dtype=torch.float64)


class Rotations(CompactMatrixLieGroup):
    """SO(2) as matrices (m, 2, 2): no eigenfunctions, but their products."""

    element_shape = [2, 2]

    def angle(self, x):
        return torch.atan2(x[:, 1, 0], x[:, 0, 0])

    def get_eigenvalues(self, num):
        return Circle().get_eigenvalues(num)

    def random(self, key, number):
        angle = 2.0 * math.pi * torch.rand(number, generator=key, dtype=torch.float64)
        rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1)
        return key, rows.reshape(-1, 2, 2)


class Line:
    """A space with a continuous spectrum: points (m, 1)."""

    element_shape = [1]
    dimension = 1

    def random(self, key, number):
        return key, torch.randn(number, 1, generator=key, dtype=torch.float64)


def spectrum(eigenvalues, nu, lengthscale, dimension):
    values = torch.as_tensor(eigenvalues)
    if math.isinf(float(nu)):
        return torch.exp(-0.5 * lengthscale**2 * values)
    return (2.0 * nu / lengthscale**2 + values) ** (-nu - dimension / 2)


class MaternKarhunenLoeveKernel:
    spectrum = staticmethod(spectrum)

    def __init__(self, space, num_levels):
        self.space, self.num_levels = space, num_levels

    def K(self, params, x, x2=None, **kwargs):
        angles = [self.space.angle(p) if isinstance(self.space, Rotations) else p[:, 0] for p in (x, x2)]
        levels = torch.arange(float(self.num_levels), dtype=torch.float64)
        weights = spectrum(levels.square(), dimension=1, **params)
        weights = weights * torch.where(levels > 0.0, 2.0, 1.0)
        return torch.cos((angles[0][:, None] - angles[1])[..., None] * levels) @ (weights / weights.sum())

    def K_diag(self, params, x, **kwargs):
        return self.K(params, x, x).diagonal()


class RandomPhaseFeatureMapCompact:
    def __init__(self, space, num_levels, num_random_phases):
        self.space, self.num_levels, self.num_random_phases = space, num_levels, num_random_phases

    def __call__(self, x, params, *, key, normalize=True, **kwargs):
        key, phases = self.space.random(key, self.num_random_phases)
        levels = torch.arange(float(self.num_levels), dtype=torch.float64)
        weights = spectrum(levels.square(), dimension=1, **params).sqrt()
        turn = self.space.angle(x)[:, None] - self.space.angle(phases)
        weights = weights * torch.where(levels > 0.0, 2.0, 1.0)
        found = (torch.cos(turn[..., None] * levels) * weights).reshape(len(x), -1)
        return key, found / found.square().sum(-1, keepdim=True).sqrt() if normalize else found


class RandomPhaseFeatureMapNoncompact:
    def __init__(self, space, num_random_phases):
        self.space, self.num_random_phases = space, num_random_phases

    def __call__(self, x, params, *, key, normalize=True, **kwargs):
        frequencies = torch.randn(self.num_random_phases, generator=key, dtype=torch.float64) / params["lengthscale"]
        turn = x * frequencies
        found = torch.cat([turn.cos(), turn.sin()], 1)
        return key, found / math.sqrt(self.num_random_phases) if normalize else found


def default_num(space):
    return 25


def default_feature_map(*, space=None, num=None, kernel=None):
    assert kernel is None and isinstance(space, Line)
    return RandomPhaseFeatureMapNoncompact(space, num)


def MaternGeometricKernel(space, num=None, normalize=True, return_feature_map=False, **kwargs):
    return MaternKarhunenLoeveKernel(space, num or default_num(space))


def install(monkeypatch):
    """Put the stand-in where ``import geometric_kernels`` looks."""
    contents = {
        "geometric_kernels": (),
        "geometric_kernels.torch": (),
        "geometric_kernels.spaces": (
            DiscreteSpectrumSpace, HodgeDiscreteSpectrumSpace, CompactMatrixLieGroup, HammingGraph, GraphEdges, Circle,
        ),
        "geometric_kernels.feature_maps": (RandomPhaseFeatureMapCompact,),
        "geometric_kernels.kernels": (MaternGeometricKernel, MaternKarhunenLoeveKernel, default_feature_map),
        "geometric_kernels.kernels.matern_kernel": (default_num,),
    }  # fmt: skip
    for name, objects in contents.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for thing in objects:
            setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
