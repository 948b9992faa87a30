"""Where problems are looked at before they are solved: points, names, values of unknowns."""

from __future__ import annotations

import torch
from torch import Tensor

from gpkit.inference.collocation.forms import Jet, Problem

__all__ = ["face_name", "face_points", "jet_name", "middle_of_priors", "probe_points"]

_PROBES = {1: 257, 2: 17, 3: 7}


def probe_points(problem: Problem, per_axis: int | None = None) -> list[Tensor]:
    """Coordinates (m,) of a tensor grid with both ends, off any symmetry but for the ends."""
    n = per_axis or _PROBES[problem.box.dim]
    axes = []
    for a, b in zip(problem.box.lower, problem.box.upper, strict=True):
        s = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
        axes.append(a + (b - a) * (s + 0.013 * torch.sin(2.0 * torch.pi * s)))
    return [m.reshape(-1) for m in torch.meshgrid(*axes, indexing="ij")]


def face_name(problem: Problem, face: tuple[int, int]) -> str:
    """A face by axis and side as a user writes it: "x=0"."""
    axis, side = face
    box = problem.box
    return f"{box.names[axis]}={(box.upper if side else box.lower)[axis]:.6g}"


def middle_of_priors(problem: Problem) -> dict[str, Tensor]:
    """A value for each unknown: that of its prior's middle, where it has one."""
    values = {}
    for name, prior in problem.unknowns.items():
        try:
            values[name] = torch.as_tensor(prior.mean, dtype=torch.float64).reshape(())
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            values[name] = torch.tensor(1.0, dtype=torch.float64)
        if not bool(torch.isfinite(values[name])):
            values[name] = torch.tensor(1.0, dtype=torch.float64)
    return values


def jet_name(problem: Problem, jet: Jet) -> str:
    """A jet as it is printed: "u_xx"."""
    axes = "".join(name * order for name, order in zip(problem.box.names, jet.orders, strict=True))
    return problem.fields[jet.field] + (f"_{axes}" if axes else "")


def face_points(problem: Problem, face: tuple[int, int]) -> list[Tensor]:
    """Coordinates (m,) of points of a face, each as often as the probes that lie behind it."""
    axis, side = face
    box = problem.box
    end = (box.upper if side else box.lower)[axis]
    return [torch.full_like(c, end) if k == axis else c for k, c in enumerate(probe_points(problem))]
