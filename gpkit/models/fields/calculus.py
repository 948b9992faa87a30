r"""Derivatives of tangent fields as sparse operators: gradients of functions, divergence and curl of vector fields.

At each node, differences to its neighbours (transported into its frame) are fitted by a linear function of their
tangent positions, with the weights of the Laplacian's graph:

.. math:: J_i = \Big[\sum_j w_{ij} (O_{ij} v_j - v_i) \xi_{ij}^T\Big] \Big[\sum_j w_{ij} \xi_{ij} \xi_{ij}^T\Big]^{-1}

The divergence is its trace, the curl (on oriented surfaces) its antisymmetric part. Both are linear in the field, so
that posterior means and standard deviations follow exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpkit.errors import InvalidDataError
from gpkit.geometry import Manifold

__all__ = ["FieldFunctional", "curl_operator", "divergence_operator", "gradient_operator"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FieldFunctional:
    """A derived quantity at nodes.

    Attributes:
        mean: Posterior mean, (n,).
        standard_deviation: Posterior standard deviation, (n,).
        operator: Sparse (n, N) operator from the field's values at all nodes.
        name: What it is, in a word.
        unit: Of mean and standard deviation, where the units of the model are known.
    """

    mean: Array
    standard_deviation: Array
    operator: Any
    name: str = "functional"
    unit: str = ""

    def __repr__(self) -> str:
        if not len(self.mean):
            return f"FieldFunctional({self.name}, no values)"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"FieldFunctional({self.name}, {len(self.mean)} values, mean {self.mean.min():.4g} to "
            f"{self.mean.max():.4g}{unit}, median sd {np.median(self.standard_deviation):.2g}{unit})"
        )

    def interval(self, probability: float = 0.95) -> tuple[Array, Array]:
        """Central interval (low, high), each (n,).

        Raises:
            InvalidDataError: unless 0 < probability < 1.
        """
        if not 0.0 < probability < 1.0:
            raise InvalidDataError(f"a probability lies in (0, 1), got {probability}")
        from scipy.special import ndtri

        half = ndtri(0.5 + 0.5 * probability) * self.standard_deviation
        return self.mean - half, self.mean + half


def _local_fits(manifold: Manifold) -> tuple[NDArray[np.int64], NDArray[np.int64], Array, Array]:
    """Directed edges (2 E,), coefficients (2 E, d) of the fitted slope, and transports (2 E, d, d) into the first node.

    The slope of a function at node i is ``sum over edges (i, j) of coefficient (f_j - f_i)``.
    """
    edges, w = manifold.edges, np.maximum(manifold.edge_weights, 0.0)
    i = np.concatenate([edges[:, 0], edges[:, 1]])
    j = np.concatenate([edges[:, 1], edges[:, 0]])
    weight = np.concatenate([w, w])
    transports = np.concatenate([manifold.transports, manifold.transports.transpose(0, 2, 1)])
    step = manifold.points[j] - manifold.points[i]
    xi = np.einsum("eDa,eD->ea", manifold.frames[i], step)
    d = manifold.dim
    moments = np.zeros((manifold.n, d, d))
    np.add.at(moments, i, weight[:, None, None] * xi[:, :, None] * xi[:, None, :])
    scale = np.trace(moments, axis1=1, axis2=2)
    # A node whose neighbours lie on a line knows no slope across it: the pseudo-inverse leaves that direction out.
    inverse = np.linalg.pinv(moments / np.where(scale > 0.0, scale, 1.0)[:, None, None], rcond=1e-8, hermitian=True)
    inverse /= np.where(scale > 0.0, scale, 1.0)[:, None, None]
    coefficient = np.einsum("eab,eb->ea", inverse[i], xi) * weight[:, None]
    return i, j, coefficient, transports


def gradient_operator(manifold: Manifold) -> Any:
    """Sparse (n d, n): tangent coordinates of the gradient of a function given at all nodes."""
    i, j, coefficient, _ = _local_fits(manifold)
    n, d = manifold.n, manifold.dim
    rows = (i[:, None] * d + np.arange(d)).ravel()
    values = coefficient.ravel()
    columns = np.repeat(j, d)
    own = np.repeat(i, d)
    return sparse.csr_matrix(
        (np.concatenate([values, -values]), (np.concatenate([rows, rows]), np.concatenate([columns, own]))),
        shape=(n * d, n),
    )


def divergence_operator(manifold: Manifold) -> Any:
    """Sparse (n, n d): divergence of a field of tangent coordinates given at all nodes."""
    return _slope_functional(manifold, np.eye(manifold.dim))


def curl_operator(manifold: Manifold) -> Any:
    """Sparse (n, 2 n): curl of a field of tangent coordinates on an oriented surface.

    Raises:
        InvalidDataError: not a surface, or one without orientation.
    """
    if manifold.dim != 2:
        raise InvalidDataError(f"the curl is a number on surfaces only, not in dimension {manifold.dim}")
    if not manifold.orientable:
        raise InvalidDataError("the curl needs an orientation, and no orientation fits all edges of this surface")
    return _slope_functional(manifold, np.array([[0.0, -1.0], [1.0, 0.0]]))


def _slope_functional(manifold: Manifold, pattern: Array) -> Any:
    """Sparse (n, n d): sum over a, b of pattern[a, b] dv_a / dx_b, a contraction of the local slopes."""
    i, j, coefficient, transports = _local_fits(manifold)
    n, d = manifold.n, manifold.dim
    at_i = coefficient @ pattern.T
    at_j = np.einsum("ea,eab->eb", at_i, transports)
    rows = np.repeat(i, d)
    columns_j = (j[:, None] * d + np.arange(d)).ravel()
    columns_i = (i[:, None] * d + np.arange(d)).ravel()
    return sparse.csr_matrix(
        (
            np.concatenate([at_j.ravel(), -at_i.ravel()]),
            (np.concatenate([rows, rows]), np.concatenate([columns_j, columns_i])),
        ),
        shape=(n, n * d),
    )
