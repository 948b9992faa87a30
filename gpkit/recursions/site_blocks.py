"""Products with block-diagonal transitions, for states stacked from blocks of one size.

The lengths of ``shape`` are b, R and NB (see :class:`gpkit.recursions.sites.Prior`). ``step`` holds the distinct
transitions (nb, b, b) of one node, and ``which`` (NB,) names the one that each block of the state follows.
"""

from __future__ import annotations

from gpkit.recursions.compilation import uncounted

__all__ = ["advance", "congruence", "transpose"]


@uncounted
def transpose(shape, step, out):
    """``out`` are the transposed transitions."""
    b = len(shape[0])
    for k in range(step.shape[0]):
        for i in range(b):
            for h in range(b):
                out[k, i, h] = step[k, h, i]


@uncounted
def advance(shape, step, which, x, out):
    """``out = A x``."""
    b = len(shape[0])
    for k in range(len(shape[2])):
        w = which[k]
        for i in range(b):
            total = step[w, i, 0] * x[k * b]
            for h in range(1, b):
                total += step[w, i, h] * x[k * b + h]
            out[k * b + i] = total


@uncounted
def congruence(shape, step, which, source, out, room):
    """``out = A source A^T`` for a symmetric matrix, by pairs of blocks; ``room`` is (b, b)."""
    b = len(shape[0])
    for k in range(len(shape[2])):
        left = which[k]
        for q in range(k + 1):
            right = which[q]
            for i in range(b):
                for h in range(b):
                    total = step[left, i, 0] * source[k * b, q * b + h]
                    for a in range(1, b):
                        total += step[left, i, a] * source[k * b + a, q * b + h]
                    room[i, h] = total
            for i in range(b):
                for h in range(b):
                    total = step[right, h, 0] * room[i, 0]
                    for a in range(1, b):
                        total += step[right, h, a] * room[i, a]
                    out[k * b + i, q * b + h] = total
                    out[q * b + h, k * b + i] = total
