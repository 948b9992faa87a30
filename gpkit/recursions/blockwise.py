"""Records of a state with block-diagonal transition, and the products that its recursions are made of.

Symmetric matrices are kept as their lower block triangle: block ``(I, K)`` with ``I >= K`` starts at
``(I (I + 1) / 2 + K) b^2`` and is stored by rows, diagonal blocks in full. Rows of the workspace hold dt, y/alpha,
R/kappa, d/d(dt), 1/D, v/D, then A, g, m', e and A-bar. Offsets count values of the type of ``like``.
"""

from __future__ import annotations

from gpkit.recursions.compilation import uncounted
from gpkit.recursions.simd import broadcast, load, store

SLOT_DT, SLOT_Y, SLOT_R, SLOT_TDOT, SLOT_INVD, SLOT_U, SLOT_A = 0, 1, 2, 3, 4, 5, 6


@uncounted
def shape_n(order):
    """Number of blocks and their size."""
    return load(order[1], 0, 0), order[0]


@uncounted
def dimension_n(order):
    """State dimension J."""
    nb, b = shape_n(order)
    return nb * b


@uncounted
def total_variance_n(order, prior, lane, w):
    """k(0) of one lane."""
    nb, b = shape_n(order)
    total = 0.0
    for i in range(nb):
        total += load(prior, i * b * w + lane, 0.0)
    return total


@uncounted
def diagonal_n(order, component):
    """Word of a state or adjoint record, and of the prior, that holds a diagonal entry."""
    nb, b = shape_n(order)
    i = component // b
    r = component - i * b
    word = nb * b + (i * (i + 1) // 2 + i) * b * b + r * b + r
    return word, word


@uncounted
def inverse_slot_n(order):
    """Slot of the reciprocal innovation variance."""
    return SLOT_INVD


@uncounted
def transition_slot_n(order):
    """First slot of the transition."""
    return SLOT_A


@uncounted
def triangle_words(nb, b):
    """Words of a symmetric matrix."""
    return nb * (nb + 1) // 2 * b * b


@uncounted
def element_words(nb, b):
    """Words of an element: m, Delta, T, J and eta."""
    j = nb * b
    return 2 * j + triangle_words(nb, b) + 2 * j * j


@uncounted
def sizes_n(order):
    """``(slots, state, element, adjoint, prior)`` in words per lane."""
    nb, b = shape_n(order)
    j = nb * b
    triangle = triangle_words(nb, b)
    slots = SLOT_A + 2 * j * b + 2 * j + triangle
    # Compositions work on seven matrices and a vector of one lane, kept after the element; there are eight lanes.
    return slots, j + triangle, element_words(nb, b) + j * j + j, j + triangle, j + triangle


@uncounted
def offsets(nb, b):
    """Slots of g, m', e and A-bar."""
    g = SLOT_A + nb * b * b
    m = g + nb * b
    e = m + nb * b
    return g, m, e, e + triangle_words(nb, b)


@uncounted
def gain(prior, matrix, start, out, out_start, nb, b, like):
    """``w = p - Delta h`` into ``out``; returns ``h . w``."""
    bb = b * b
    total = broadcast(0.0, like)
    at = 0
    row_base = start
    for i in range(nb):
        for r in range(b):
            value = load(prior, at, like)
            place = row_base + r * b
            for _ in range(i + 1):
                value = value - load(matrix, place, like)
                place += bb
            place += r - r * b + i * bb
            for k in range(i + 1, nb):
                value = value - load(matrix, place, like)
                place += (k + 1) * bb
            store(out, out_start + at, value)
            at += 1
        total = total + load(out, out_start + at - b, like)
        row_base += (i + 1) * bb
    return total


@uncounted
def congruence(transition, offset, matrix, start, out, out_start, nb, b, like):
    """``out = A matrix A^T`` by blocks; ``transition[offset:]`` holds the diagonal blocks of A."""
    bb = b * b
    base = 0
    for i in range(nb):
        ai = offset + i * bb
        for k in range(i + 1):
            ak = offset + k * bb
            for r in range(b):
                for q in range(b):
                    total = broadcast(0.0, like)
                    for s in range(b):
                        inner = broadcast(0.0, like)
                        for z in range(b):
                            inner = inner + load(transition, ai + r * b + z, like) * load(
                                matrix, start + base + z * b + s, like
                            )
                        total = total + inner * load(transition, ak + q * b + s, like)
                    store(out, out_start + base + r * b + q, total)
            base += bb


@uncounted
def advance(transition, offset, vector, start, out, out_start, stride, nb, b, like):
    """``out = A vector``; the entries of ``out`` are ``stride`` apart."""
    for _ in range(nb):
        for _ in range(b):
            total = broadcast(0.0, like)
            for z in range(b):
                total = total + load(transition, offset + z, like) * load(vector, start + z, like)
            store(out, out_start, total)
            out_start += stride
            offset += b
        start += b


@uncounted
def advance_transposed(transition, offset, vector, out, nb, b, like):
    """``out = A^T vector``."""
    for i in range(nb):
        for q in range(b):
            total = broadcast(0.0, like)
            for r in range(b):
                total = total + load(transition, offset + (i * b + r) * b + q, like) * load(vector, i * b + r, like)
            store(out, i * b + q, total)


@uncounted
def multiply(matrix, base, vector, start, out, out_start, nb, b, like):
    """``out = matrix vector`` for a symmetric matrix."""
    bb = b * b
    for i in range(nb):
        for r in range(b):
            total = broadcast(0.0, like)
            place = base + i * (i + 1) // 2 * bb + r * b
            at = start
            for _ in range(i + 1):
                for q in range(b):
                    total = total + load(matrix, place + q, like) * load(vector, at + q, like)
                place += bb
                at += b
            place += r - r * b + i * bb
            for k in range(i + 1, nb):
                for q in range(b):
                    total = total + load(matrix, place + q * b, like) * load(vector, at + q, like)
                place += (k + 1) * bb
                at += b
            store(out, out_start + i * b + r, total)


@uncounted
def entry(matrix, base, i, r, k, q, b, like):
    """Entry ((i, r), (k, q)) of a symmetric record that starts at ``base``."""
    if i >= k:
        return load(matrix, base + ((i * (i + 1) // 2 + k) * b + r) * b + q, like)
    return load(matrix, base + ((k * (k + 1) // 2 + i) * b + q) * b + r, like)


@uncounted
def rank_one(source, source_base, left, right, out, base, ws, nb, b, like):
    """``out = source + left right^T`` for a symmetric matrix; the vectors are at ``ws[left:]`` and ``ws[right:]``."""
    at = 0
    for i in range(nb):
        for k in range(i + 1):
            for r in range(b):
                x = load(ws, left + i * b + r, like)
                for q in range(b):
                    value = load(source, source_base + at, like) + x * load(ws, right + k * b + q, like)
                    store(out, base + at, value)
                    at += 1


@uncounted
def downdate(source, source_base, seen, seen_base, kappa, out, base, nb, b, like):
    """``out = C - h f^T - f h^T + kappa h h^T`` for a symmetric C, ``f = seen[seen_base:]``."""
    at = 0
    for i in range(nb):
        for k in range(i + 1):
            for r in range(b):
                for q in range(b):
                    value = load(source, source_base + at, like)
                    if r == 0:
                        value = value - load(seen, seen_base + k * b + q, like)
                    if q == 0:
                        value = value - load(seen, seen_base + i * b + r, like)
                    if r + q == 0:
                        value = value + kappa
                    store(out, base + at, value)
                    at += 1
