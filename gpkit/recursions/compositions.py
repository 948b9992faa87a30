"""Composition of block elements for a state of any dimension, one lane at a time.

The counterparts of :func:`gpkit.recursions.order2.combine2` and :func:`gpkit.recursions.order2.combine_adjoint2`;
dense J x J matrices are kept by rows in the spare words of the element.
"""

from __future__ import annotations

from gpkit.recursions.blockwise import element_words, shape_n, triangle_words
from gpkit.recursions.compilation import inner
from gpkit.recursions.simd import load, store, view


@inner
def _dense(matrix, at, lane, w, s, out, nb, b):  # type: ignore[no-untyped-def]
    """One lane of a symmetric record that starts at word ``at``, as a dense matrix."""
    j = nb * b
    for i in range(nb):
        for k in range(i + 1):
            for r in range(i * b, i * b + b):
                for q in range(k * b, k * b + b):
                    value = load(matrix, at * w + lane, 0.0)
                    store(s, out + r * j + q, value)
                    store(s, out + q * j + r, value)
                    at += 1


@inner
def _subtract(s, x, y, size):  # type: ignore[no-untyped-def]
    """``x = x - y``."""
    for k in range(size):
        store(s, x + k, load(s, x + k, 0.0) - load(s, y + k, 0.0))


@inner
def _store_symmetric(s, dense, matrix, at, lane, w, nb, b):  # type: ignore[no-untyped-def]
    """One lane of a symmetric record, from the symmetric part of a dense matrix."""
    j = nb * b
    for i in range(nb):
        for k in range(i + 1):
            for r in range(i * b, i * b + b):
                for q in range(k * b, k * b + b):
                    value = 0.5 * (load(s, dense + r * j + q, 0.0) + load(s, dense + q * j + r, 0.0))
                    store(matrix, at * w + lane, value)
                    at += 1


@inner
def _product(s, x, x_row, x_col, y, y_row, y_col, out, n):  # type: ignore[no-untyped-def]
    """``out = x y``, all (n, n); the strides of x and y allow for transposes."""
    for i in range(n):
        for c in range(n):
            total = 0.0
            for k in range(n):
                total += load(s, x + i * x_row + k * x_col, 0.0) * load(s, y + k * y_row + c * y_col, 0.0)
            store(s, out + i * n + c, total)


@inner
def _invert(s, x, out, n):  # type: ignore[no-untyped-def]
    """``out = x^-1`` by Gauss-Jordan elimination with partial pivoting; x is overwritten."""
    for k in range(n):
        for c in range(n):
            store(s, out + k * n + c, 1.0 if c == k else 0.0)
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(load(s, x + i * n + k, 0.0)) > abs(load(s, x + pivot * n + k, 0.0)):
                pivot = i
        scale = 1.0 / load(s, x + pivot * n + k, 0.0)
        for base in (x, out):
            for c in range(n):
                value = load(s, base + pivot * n + c, 0.0) * scale
                store(s, base + pivot * n + c, load(s, base + k * n + c, 0.0))
                store(s, base + k * n + c, value)
        for i in range(n):
            if i != k:
                factor = load(s, x + i * n + k, 0.0)
                for base in (x, out):
                    for c in range(n):
                        value = load(s, base + i * n + c, 0.0) - factor * load(s, base + k * n + c, 0.0)
                        store(s, base + i * n + c, value)


@inner
def _closed_loop(prior, element, lane, w, state, s, nb, b):  # type: ignore[no-untyped-def]
    """``E = P_inf - Delta``, ``J``, ``M = (I + E J)^-1``, ``T`` and ``T M`` of a lane, one after the other in ``s``."""
    j = nb * b
    jj = j * j
    _dense(prior, j, lane, w, s, 0, nb, b)
    _dense(state, j, lane, w, s, jj, nb, b)
    _subtract(s, 0, jj, jj)
    t_base = j + triangle_words(nb, b)
    j_base = t_base + jj
    for i in range(j):
        for k in range(j):
            store(s, 3 * jj + i * j + k, load(element, (t_base + i * j + k) * w + lane, 0.0))
            lower = max(i, k) * j + min(i, k)
            store(s, jj + i * j + k, load(element, (j_base + lower) * w + lane, 0.0))
    _product(s, 0, j, 1, jj, j, 1, 4 * jj, j)
    for i in range(j):
        at = 4 * jj + i * j + i
        store(s, at, load(s, at, 0.0) + 1.0)
    _invert(s, 4 * jj, 2 * jj, j)
    _product(s, 3 * jj, j, 1, 2 * jj, j, 1, 4 * jj, j)


@inner
def combine_n(order, prior, element, lane, w, state_in, state_out, lane_out):  # type: ignore[no-untyped-def]
    """State that leaves block ``lane`` given the one that enters; written to lane ``lane_out`` of ``state_out``."""
    nb, b = shape_n(order)
    j = nb * b
    jj = j * j
    s = view(element, element_words(nb, b) * w)
    _closed_loop(prior, element, lane, w, state_in, s, nb, b)
    eta = (j + triangle_words(nb, b) + 2 * jj) * w + lane
    closed = 4 * jj
    for i in range(j):
        value = load(state_in, i * w + lane, 0.0)
        for k in range(j):
            value += load(s, i * j + k, 0.0) * load(element, eta + k * w, 0.0)
        store(s, 7 * jj + i, value)
    for i in range(j):
        value = load(element, i * w + lane, 0.0)
        for k in range(j):
            value += load(s, closed + i * j + k, 0.0) * load(s, 7 * jj + k, 0.0)
        store(state_out, i * w + lane_out, value)
    _product(s, closed, j, 1, 0, j, 1, 2 * jj, j)
    _product(s, 2 * jj, j, 1, 3 * jj, 1, j, 5 * jj, j)
    _dense(element, j, lane, w, s, 0, nb, b)
    _subtract(s, 0, 5 * jj, jj)
    _store_symmetric(s, 0, state_out, j, lane_out, w, nb, b)


@inner
def combine_adjoint_n(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):  # type: ignore[no-untyped-def]
    """Adjoint that leaves block ``lane`` backwards, given the one at its end."""
    nb, b = shape_n(order)
    j = nb * b
    jj = j * j
    s = view(element, element_words(nb, b) * w)
    _closed_loop(prior, element, lane, w, state_in, s, nb, b)
    information, inverse, closed = jj, 2 * jj, 4 * jj
    eta = (j + triangle_words(nb, b) + 2 * jj) * w + lane
    for i in range(j):
        value = load(element, eta + i * w, 0.0)
        for k in range(j):
            value -= load(s, information + i * j + k, 0.0) * load(state_in, k * w + lane, 0.0)
        store(s, 7 * jj + i, value)
    for i in range(j):
        value = 0.0
        for k in range(j):
            value += load(s, inverse + k * j + i, 0.0) * load(s, 7 * jj + k, 0.0)
            value += load(s, closed + k * j + i, 0.0) * load(adjoint, k * w + lane, 0.0)
        store(adjoint_out, i * w + lane_out, value)
    _dense(adjoint, j, lane, w, s, 5 * jj, nb, b)
    _product(s, 5 * jj, j, 1, closed, j, 1, 6 * jj, j)
    _product(s, closed, 1, j, 6 * jj, j, 1, 5 * jj, j)
    _product(s, information, j, 1, inverse, j, 1, 6 * jj, j)
    for k in range(jj):
        store(s, 6 * jj + k, load(s, 5 * jj + k, 0.0) + load(s, 6 * jj + k, 0.0))
    _store_symmetric(s, 6 * jj, adjoint_out, j, lane_out, w, nb, b)
