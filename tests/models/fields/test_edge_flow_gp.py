"""Flows on a triangulated square with a hole: accuracy, parts, derived quantities, beside the complex's algebra."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry.cell_complex import CellComplex
from gpkit.models import EdgeFlowGP

Array = NDArray[np.float64]


def grid(side: int = 8, hole: bool = True) -> tuple[CellComplex, Array]:
    """A square of triangles, four blocks in its middle left open, and the places of its nodes."""
    numbers = np.arange(side * side).reshape(side, side)
    middle = range(side // 2 - 1, side // 2 + 1)
    edges, faces = set(), []
    for i in range(side):
        for j in range(side):
            edges |= {(int(numbers[i, j]), int(numbers[i, j + 1]))} if j + 1 < side else set()
            edges |= {(int(numbers[i, j]), int(numbers[i + 1, j]))} if i + 1 < side else set()
            if i + 1 < side and j + 1 < side and not (hole and i in middle and j in middle):
                a, b, c, d = (int(numbers[k]) for k in ((i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)))
                edges.add((a, c))
                faces += [[a, b, c], [a, c, d]]
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) / (side - 1.0)
    return CellComplex(side * side, sorted(edges), faces), places


def flow(places: Array, edges: Array) -> Array:
    """Line integrals (midpoint rule) of a smooth planar field with sources and turns."""
    middle = places[edges].mean(1)
    step = places[edges[:, 1]] - places[edges[:, 0]]
    u = np.stack([np.cos(3.0 * middle[:, 0]) - middle[:, 1], np.sin(2.0 * middle[:, 1]) + middle[:, 0]], axis=1)
    return np.asarray((u * step).sum(1) * 7.0)


@pytest.fixture(scope="module")
def case() -> tuple[EdgeFlowGP, CellComplex, Array, Array]:
    complex_, places = grid()
    true = flow(places, complex_.edges)
    train = np.sort(np.random.default_rng(0).permutation(complex_.n_edges)[: complex_.n_edges // 2])
    model = EdgeFlowGP(complex_)
    noisy = true[train] + 0.02 * np.random.default_rng(1).standard_normal(len(train))
    model.fit(train, noisy, progress=False)
    return model, complex_, train, true


def test_parts_and_parameters(case: tuple[EdgeFlowGP, CellComplex, Array, Array]) -> None:
    model, complex_, _, _ = case
    assert list(model.bases) == ["gradient", "curl", "harmonic"] and model.bases["harmonic"].k == 4
    assert sum(basis.k for basis in model.bases.values()) == complex_.n_edges
    assert model.result is not None and len(model.result.comparison.candidates) == 4
    assert {"gradient.lengthscale", "curl.amplitude", "harmonic.amplitude"} <= set(model.result.parameters)
    assert "harmonic.lengthscale" not in model.result.parameters
    assert sum(model.shares().values()) == pytest.approx(1.0)


def test_accuracy(case: tuple[EdgeFlowGP, CellComplex, Array, Array]) -> None:
    model, complex_, train, true = case
    rest = np.setdiff1d(np.arange(complex_.n_edges), train)
    found = model.predict(rest)
    error = np.sqrt(np.mean((found.mean - true[rest]) ** 2))
    assert error < 0.35 * np.sqrt(np.mean(true[rest] ** 2)), "the trivial answer is no flow"
    low, high = found.interval(0.95)
    assert 0.8 <= ((low <= true[rest]) & (true[rest] <= high)).mean() <= 1.0
    assert found.sample(3).shape == (3, len(rest))


def test_decomposition_is_that_of_the_complex(case: tuple[EdgeFlowGP, CellComplex, Array, Array]) -> None:
    model, complex_, _, _ = case
    mean = model.predict().mean
    parts = model.decompose()
    np.testing.assert_allclose(sum(part.mean for part in parts.values()), mean, atol=1e-8)
    for name, expected in complex_.decompose(mean).items():
        np.testing.assert_allclose(parts[name].mean, expected, atol=1e-6)
        assert (parts[name].variance >= 0.0).all()


def test_divergence_and_circulation(case: tuple[EdgeFlowGP, CellComplex, Array, Array]) -> None:
    model, complex_, _, _ = case
    mean = model.predict().mean
    first, second = complex_.edges.T
    outflow = np.bincount(first, mean, complex_.n_nodes) - np.bincount(second, mean, complex_.n_nodes)
    divergence, circulation = model.divergence(), model.circulation()
    np.testing.assert_allclose(divergence.mean, outflow, atol=1e-9)
    assert repr(divergence).startswith(f"FieldFunctional(divergence, {complex_.n_nodes} values, mean ")
    assert "circulation" in repr(circulation) and len(repr(circulation)) < 120
    assert len(circulation.mean) == len(complex_.faces) and (divergence.standard_deviation > 0.0).all()


def test_flow_without_sources_has_no_gradient_part() -> None:
    complex_, places = grid(hole=False)
    stream = np.sin(3.0 * places[:, 0]) * np.cos(2.0 * places[:, 1])
    curl = complex_.boundary_2 @ np.array([stream[list(face)].mean() for face in complex_.faces])
    model = EdgeFlowGP(complex_, "intrinsic:heat")
    model.fit(None, curl, progress=False)
    assert list(model.bases) == ["gradient", "curl"]
    assert model.shares()["curl"] > 0.9


def test_tree_has_gradients_only() -> None:
    chain = CellComplex(6, [(k, k + 1) for k in range(5)])
    model = EdgeFlowGP(chain, "intrinsic:matern1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # three values say nothing about the noise
        model.fit([0, 2, 4], [1.0, 1.1, 0.9], progress=False)
    assert list(model.bases) == ["gradient"] and np.isfinite(model.predict().mean).all()


def test_bad_input() -> None:
    complex_, _ = grid(4, hole=False)
    with pytest.raises(InvalidDataError, match="CellComplex, not on a ndarray: give CellComplex"):
        EdgeFlowGP(np.zeros((3, 2)))
    with pytest.raises(InvalidDataError, match="coordinates"):
        EdgeFlowGP(complex_, "projected:rbf")
    with pytest.raises(InvalidDataError, match="2 flows were given for 1 places"):
        EdgeFlowGP(complex_).fit([0], [1.0, 2.0])
    with pytest.raises(InvalidDataError, match="edge 999"):
        EdgeFlowGP(complex_).fit([999], [1.0])
    with pytest.raises(InvalidDataError, match="edges have no coordinates here: give edge numbers"):
        EdgeFlowGP(complex_).fit(np.zeros((2, 2)), [1.0, 2.0])
    with pytest.raises(InvalidDataError, match="call fit"):
        EdgeFlowGP(complex_).predict()
