"""GP-HM's objective as published: kernel derivatives by nested automatic differentiation over all pairs of points."""

from __future__ import annotations

import math

import torch
from torch.func import grad, vmap


def kernel(x, y, log_w, log_inverse, mu):
    """Student-t mixture of two points."""
    r = torch.sqrt((x - y) ** 2 + 1e-300) * torch.exp(log_inverse)
    envelope = (1.0 + math.sqrt(5.0) * r + 5.0 * r**2 / 3.0) * torch.exp(-math.sqrt(5.0) * r)
    return (torch.exp(log_w) * envelope * torch.cos(2.0 * math.pi * mu * (x - y))).sum()


def smooth_kernel(x, y, log_w, log_inverse, mu):
    """The Gaussian mixture, whose derivatives at zero distance automatic differentiation gets right."""
    envelope = torch.exp(-((x - y) ** 2) * torch.exp(log_inverse))
    return (torch.exp(log_w) * envelope * torch.cos(2.0 * math.pi * mu * (x - y))).sum()


def over_pairs(function):
    inner = vmap(function, in_dims=(None, 0, None, None, None))
    return vmap(inner, in_dims=(0, None, None, None, None))


class Port:
    """The objective for u'' = f, or u_xx + u_yy = f, with values on the boundary."""

    def __init__(self, axes, source, boundary, envelope="gaussian", mixtures=30, highest=20.0, weight=200.0):
        function = smooth_kernel if envelope == "gaussian" else kernel
        self.values_of, self.second_of = over_pairs(function), over_pairs(grad(grad(function)))
        self.axes, self.source, self.boundary, self.weight = axes, source, boundary, weight
        d = len(axes)
        self.u = torch.zeros([len(x) for x in axes], dtype=torch.float64)
        self.log_w = torch.full((d, mixtures), -math.log(mixtures), dtype=torch.float64)
        self.log_inverse = torch.zeros(d, mixtures, dtype=torch.float64)
        self.mu = torch.linspace(0.0, highest, mixtures, dtype=torch.float64).expand(d, mixtures).clone()
        self.log_tau, self.log_v = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        self.tensors = [self.u, self.log_w, self.log_inverse, self.mu, self.log_tau, self.log_v]
        for t in self.tensors:
            t.requires_grad_()
        self.optimiser = torch.optim.Adam(self.tensors, lr=0.01)

    def loss(self):
        cells = self.u.numel()
        solved, total, left = self.u, 0.0, 0.0
        second = []
        for j, x in enumerate(self.axes):
            hyper = (self.log_w[j], self.log_inverse[j], self.mu[j])
            c = self.values_of(x, x, *hyper) + 1e-6 * torch.eye(len(x), dtype=torch.float64)
            second.append((c, self.second_of(x, x, *hyper)))
            total = total + 0.5 * cells / len(x) * torch.linalg.slogdet(c)[1]
        for j, (c, k2) in enumerate(second):
            solved = (
                torch.linalg.solve(c, solved.movedim(j, 0).reshape(len(c), -1))
                .reshape(solved.movedim(j, 0).shape)
                .movedim(0, j)
            )
            own = torch.linalg.solve(c, self.u.movedim(j, 0).reshape(len(c), -1))
            left = left + (k2 @ own).reshape(self.u.movedim(j, 0).shape).movedim(0, j)
        total = total + 0.5 * (solved * self.u).sum()
        square, count = 0.0, 0
        for index, target in self.boundary:
            square = square + ((self.u[index] - target) ** 2).sum()
            count += target.numel()
        total = total + self.weight * (0.5 * torch.exp(self.log_tau) * square - 0.5 * count * self.log_tau)
        residual = ((left - self.source) ** 2).sum()
        return total + 0.5 * torch.exp(self.log_v) * residual - 0.5 * cells * self.log_v

    def step(self):
        self.optimiser.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())
