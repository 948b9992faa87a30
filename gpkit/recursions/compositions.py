"""Composition of block elements of two-dimensional states and of those of any dimension, one lane at a time.

An element maps the state that enters a block of rows to the one that leaves it (see
:func:`gpkit.recursions.order2.element2`). For the general order, dense J x J matrices are kept by rows in the spare
words of the element.
"""

from __future__ import annotations

from gpkit.recursions.blockwise import element_words, shape_n, triangle_words
from gpkit.recursions.compilation import uncounted
from gpkit.recursions.simd import load, store, view


@uncounted
def _closed_loop2(prior, element, lane, w, d11, d12, d22):
    """``E = P_inf - Delta``, ``M = (I + E J)^-1`` and ``T M`` of one lane."""
    e11 = load(prior, 2 * w + lane, 0.0) - d11
    e12 = load(prior, 3 * w + lane, 0.0) - d12
    e22 = load(prior, 4 * w + lane, 0.0) - d22
    j11 = load(element, 9 * w + lane, 0.0)
    j12 = load(element, 10 * w + lane, 0.0)
    j22 = load(element, 11 * w + lane, 0.0)
    k11 = 1.0 + e11 * j11 + e12 * j12
    k12 = e11 * j12 + e12 * j22
    k21 = e12 * j11 + e22 * j12
    k22 = 1.0 + e12 * j12 + e22 * j22
    scale = 1.0 / (k11 * k22 - k12 * k21)
    n11 = k22 * scale
    n12 = -k12 * scale
    n21 = -k21 * scale
    n22 = k11 * scale
    t11 = load(element, 5 * w + lane, 0.0)
    t12 = load(element, 6 * w + lane, 0.0)
    t21 = load(element, 7 * w + lane, 0.0)
    t22 = load(element, 8 * w + lane, 0.0)
    c11 = t11 * n11 + t12 * n21
    c12 = t11 * n12 + t12 * n22
    c21 = t21 * n11 + t22 * n21
    c22 = t21 * n12 + t22 * n22
    return (e11, e12, e22), (n11, n12, n21, n22), (c11, c12, c21, c22)


@uncounted
def combine2(order, prior, element, lane, w, state_in, state_out, lane_out):
    """State that leaves block ``lane`` given the one that enters; written to lane ``lane_out`` of ``state_out``."""
    m1 = load(state_in, lane, 0.0)
    m2 = load(state_in, w + lane, 0.0)
    e, _, c = _closed_loop2(
        prior,
        element,
        lane,
        w,
        load(state_in, 2 * w + lane, 0.0),
        load(state_in, 3 * w + lane, 0.0),
        load(state_in, 4 * w + lane, 0.0),
    )
    h1 = load(element, 12 * w + lane, 0.0)
    h2 = load(element, 13 * w + lane, 0.0)
    z1 = m1 + e[0] * h1 + e[1] * h2
    z2 = m2 + e[1] * h1 + e[2] * h2
    store(state_out, lane_out, load(element, lane, 0.0) + c[0] * z1 + c[1] * z2)
    store(state_out, w + lane_out, load(element, w + lane, 0.0) + c[2] * z1 + c[3] * z2)
    t11 = load(element, 5 * w + lane, 0.0)
    t12 = load(element, 6 * w + lane, 0.0)
    t21 = load(element, 7 * w + lane, 0.0)
    t22 = load(element, 8 * w + lane, 0.0)
    q11 = c[0] * e[0] + c[1] * e[1]
    q12 = c[0] * e[1] + c[1] * e[2]
    q21 = c[2] * e[0] + c[3] * e[1]
    q22 = c[2] * e[1] + c[3] * e[2]
    store(state_out, 2 * w + lane_out, load(element, 2 * w + lane, 0.0) - (q11 * t11 + q12 * t12))
    store(state_out, 3 * w + lane_out, load(element, 3 * w + lane, 0.0) - (q11 * t21 + q12 * t22))
    store(state_out, 4 * w + lane_out, load(element, 4 * w + lane, 0.0) - (q21 * t21 + q22 * t22))


@uncounted
def combine_adjoint2(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):
    """Adjoint that leaves block ``lane`` backwards, given the one at its end (both in the layout of ADJOINT)."""
    m1 = load(state_in, lane, 0.0)
    m2 = load(state_in, w + lane, 0.0)
    _, n, c = _closed_loop2(
        prior,
        element,
        lane,
        w,
        load(state_in, 2 * w + lane, 0.0),
        load(state_in, 3 * w + lane, 0.0),
        load(state_in, 4 * w + lane, 0.0),
    )
    j11 = load(element, 9 * w + lane, 0.0)
    j12 = load(element, 10 * w + lane, 0.0)
    j22 = load(element, 11 * w + lane, 0.0)
    z1 = load(element, 12 * w + lane, 0.0) - j11 * m1 - j12 * m2
    z2 = load(element, 13 * w + lane, 0.0) - j12 * m1 - j22 * m2
    l1 = load(adjoint, lane, 0.0)
    l2 = load(adjoint, w + lane, 0.0)
    q11 = load(adjoint, 2 * w + lane, 0.0)
    q12 = load(adjoint, 3 * w + lane, 0.0)
    q22 = load(adjoint, 4 * w + lane, 0.0)
    store(adjoint_out, lane_out, n[0] * z1 + n[2] * z2 + c[0] * l1 + c[2] * l2)
    store(adjoint_out, w + lane_out, n[1] * z1 + n[3] * z2 + c[1] * l1 + c[3] * l2)
    r11 = q11 * c[0] + q12 * c[2]
    r12 = q11 * c[1] + q12 * c[3]
    r21 = q12 * c[0] + q22 * c[2]
    r22 = q12 * c[1] + q22 * c[3]
    store(adjoint_out, 2 * w + lane_out, j11 * n[0] + j12 * n[2] + c[0] * r11 + c[2] * r21)
    store(adjoint_out, 3 * w + lane_out, j11 * n[1] + j12 * n[3] + c[0] * r12 + c[2] * r22)
    store(adjoint_out, 4 * w + lane_out, j12 * n[1] + j22 * n[3] + c[1] * r12 + c[3] * r22)


@uncounted
def _dense(matrix, at, lane, w, s, out, nb, b):
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


@uncounted
def _subtract(s, x, y, size):
    """``x = x - y``."""
    for k in range(size):
        store(s, x + k, load(s, x + k, 0.0) - load(s, y + k, 0.0))


@uncounted
def _store_symmetric(s, dense, matrix, at, lane, w, nb, b):
    """One lane of a symmetric record, from the symmetric part of a dense matrix."""
    j = nb * b
    for i in range(nb):
        for k in range(i + 1):
            for r in range(i * b, i * b + b):
                for q in range(k * b, k * b + b):
                    value = 0.5 * (load(s, dense + r * j + q, 0.0) + load(s, dense + q * j + r, 0.0))
                    store(matrix, at * w + lane, value)
                    at += 1


@uncounted
def _product(s, x, x_row, x_col, y, y_row, y_col, out, n):
    """``out = x y``, all (n, n); the strides of x and y allow for transposes."""
    for i in range(n):
        for c in range(n):
            total = 0.0
            for k in range(n):
                total += load(s, x + i * x_row + k * x_col, 0.0) * load(s, y + k * y_row + c * y_col, 0.0)
            store(s, out + i * n + c, total)


@uncounted
def _invert(s, x, out, n):
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


@uncounted
def _closed_loop(prior, element, lane, w, state, s, nb, b):
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


@uncounted
def combine_n(order, prior, element, lane, w, state_in, state_out, lane_out):
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


@uncounted
def combine_adjoint_n(order, prior, element, lane, w, state_in, adjoint, adjoint_out, lane_out):
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
