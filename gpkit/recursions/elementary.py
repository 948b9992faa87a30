"""Exponentials and sines over scalars or lanes, accurate to one or two units in the last place.

LLVM turns a call of the C library's ``exp`` into eight scalar calls; these are branch-free polynomials instead, so
that a vector of lanes costs about as much as one scalar. Arguments of ``exp`` below -708 give exactly zero, which
keeps the recursions out of (slow) subnormal numbers after long gaps.
"""

from __future__ import annotations

from gpkit.recursions.compilation import uncounted
from gpkit.recursions.simd import round_even, scale_by_power_of_two, select_less

__all__ = ["PIVOT_FLOOR", "exp_and_expm1", "pivot_margin", "sine_cosine"]

PIVOT_FLOOR = 8.0 * 2.220446049250313e-16
"""Relative size at which a pivot of the factorisation is rounding error."""

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_HALF_PI_1 = 1.5707963267948966
_HALF_PI_2 = 6.123233995736766e-17
_HALF_PI_3 = -1.4973849048591833e-33
_TWO_OVER_PI = 0.6366197723675814


@uncounted
def exp_and_expm1(x):
    """``(exp(x), exp(x) - 1)``, the second without cancellation near zero."""
    x = select_less(x, -708.0, -708.0, x)
    x = select_less(709.0, x, 709.0, x)
    n = round_even(x * _LOG2_E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    # Taylor series of exp(r) - 1 - r to r^13; the remainder is below 5e-18 on |r| <= ln(2) / 2.
    r2 = r * r
    r4 = r2 * r2
    p01 = 0.5 + r * 1.6666666666666666e-01
    p23 = 4.1666666666666664e-02 + r * 8.3333333333333332e-03
    p45 = 1.3888888888888889e-03 + r * 1.9841269841269841e-04
    p67 = 2.4801587301587302e-05 + r * 2.7557319223985893e-06
    p89 = 2.7557319223985888e-07 + r * 2.5052108385441720e-08
    pab = 2.0876756987868100e-09 + r * 1.6059043836821613e-10
    low = p01 + r2 * p23
    mid = p45 + r2 * p67
    high = p89 + r2 * pab
    q = r + r2 * (low + r4 * (mid + r4 * high))
    power = scale_by_power_of_two(q * 0.0 + 1.0, n)
    expm1 = power * q + (power - 1.0)
    exp = power * q + power
    # The order of the comparison lets a NaN through.
    return select_less(x, -707.9, 0.0, exp), expm1


@uncounted
def pivot_margin(d, scale):
    """What is left of a pivot above rounding: positive where ``d`` exceeds a few units in the last place of ``scale``.

    A pivot below that is the rounding error of a singular matrix. Rows without information (d infinite) pass.
    """
    return select_less(d, 1e300, d - PIVOT_FLOOR * scale, 1.0)


@uncounted
def sine_cosine(x):
    """``(sin(x), cos(x))``; the absolute error is about 1e-16 for arguments up to 1e9."""
    n = round_even(x * _TWO_OVER_PI)
    r = ((x - n * _HALF_PI_1) - n * _HALF_PI_2) - n * _HALF_PI_3
    z = r * r
    s = -7.6471637318198164759e-13 + z * 2.8114572543455207632e-15
    s = 1.6059043836821613e-10 + z * s
    s = -2.5052108385441720e-08 + z * s
    s = 2.7557319223985893e-06 + z * s
    s = -1.9841269841269841e-04 + z * s
    s = 8.3333333333333332e-03 + z * s
    s = r + r * z * (-1.6666666666666666e-01 + z * s)
    c = 4.7794773323873853e-14 - z * 1.5619206968586225e-16
    c = -1.1470745597729725e-11 + z * c
    c = 2.0876756987868100e-09 + z * c
    c = -2.7557319223985888e-07 + z * c
    c = 2.4801587301587302e-05 + z * c
    c = -1.3888888888888889e-03 + z * c
    c = 1.0 - 0.5 * z + z * z * (4.1666666666666664e-02 + z * c)
    # Quadrant 0..3 by floating-point remainders, so that the same lines serve scalars and lanes.
    quadrant = n - 4.0 * round_even(0.25 * n - 0.375)
    odd = quadrant - 2.0 * round_even(0.5 * quadrant - 0.25)
    sine = select_less(odd, 0.5, s, c)
    cosine = select_less(odd, 0.5, c, s)
    sine = select_less(quadrant, 1.5, sine, -sine)
    negative = select_less(quadrant, 0.5, 0.0, select_less(quadrant, 2.5, 1.0, 0.0))
    cosine = select_less(negative, 0.5, cosine, -cosine)
    return sine, cosine
