"""Plots of fields: what is drawn, from which side, and what hostile input does."""

from __future__ import annotations

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.quiver import Quiver

from gpkit.diagnostics.field_plots import (
    View,
    plot_eigenfields,
    plot_field,
    plot_field_spectrum,
    plot_singularities,
    plot_streamlines,
    streamlines,
)
from gpkit.diagnostics.field_views import Horizon
from gpkit.errors import InvalidDataError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 3))
X /= np.linalg.norm(X, axis=1, keepdims=True)
TURN = np.cross([0.0, 0.0, 1.0], X)
FRAMES = np.stack([np.cross(X, [1.0, 0.0, 0.0]), np.cross(X, np.cross(X, [1.0, 0.0, 0.0]))], axis=2)
FRAMES /= np.linalg.norm(FRAMES, axis=1, keepdims=True)


def test_views() -> None:
    for view in (View(), View(90.0, -90.0), View(-30.0, 200.0)):
        np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(view.opposite().axes[2], -view.axes[2], atol=1e-12)
    np.testing.assert_allclose(View(90.0, -90.0).axes[:2, :2], np.eye(2), atol=1e-12)


def test_far_side_is_hidden() -> None:
    arrows = {}
    for name, normals in (("all", None), ("front", X)):
        ax = plot_field(X, TURN, normals=normals, value=X[:, 2], value_label="Height", arrows=1000)
        arrows[name] = next(artist for artist in ax.collections if isinstance(artist, Quiver)).N
        assert len(ax.figure.axes) == 2, "a colour bar"
    assert arrows["all"] == 300 and 100 < arrows["front"] < 200


def test_what_is_behind_another_part_is_hidden() -> None:
    """Two squares that face the eye, one behind a part of the other."""
    along = np.linspace(0.0, 1.0, 21)
    front = np.stack([*(w.ravel() for w in np.meshgrid(along, along)), np.zeros(441)], axis=1)
    points = np.concatenate([front, front + [0.5, 0.0, -1.0]])
    number = np.arange(441).reshape(21, 21)
    a, b, c, d = (w.ravel() for w in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    normals = np.tile([0.0, 0.0, 1.0], (len(points), 1))
    shown = Horizon(points, np.concatenate([faces, faces + 441]), normals).shows(points, np.arange(len(points)))
    assert shown[:441].all()
    behind = points[441:, 0]
    assert not shown[441:][behind < 0.98].any() and shown[441:][behind > 1.02].all()
    assert Horizon(points, None, normals).shows(points, np.arange(len(points))).all()


def test_surface_truth_and_observations() -> None:
    triangles = np.array([[0, 1, 2], [3, 4, 5]])
    ax = plot_field(
        X, TURN, triangles=triangles, normals=X, value=X[:, 2], diverging=True, truth=TURN, observed=[0, 1, 2],
        limits=(-1.0, 2.0),
    )  # fmt: skip
    faces = next(artist for artist in ax.collections if isinstance(artist, PolyCollection))
    assert faces.get_clim() == (-2.0, 2.0)
    assert sum(isinstance(artist, Quiver) for artist in ax.collections) == 2
    plane = plot_field(X[:, :2], TURN[:, :2], triangles=triangles)
    assert next(a for a in plane.collections if isinstance(a, Quiver)).N == 300
    wide = np.concatenate([X, X], axis=1)
    assert plot_field(wide, np.concatenate([TURN, TURN], axis=1)) is not None
    with pytest.raises(InvalidDataError, match="at least 2"):
        plot_field(X[:, :1], TURN[:, :1])


def test_singularities_are_marked_on_the_near_side() -> None:
    poles = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    ax = plot_singularities(X, poles, [1, -1], [0.9, 0.5], vectors=TURN, normals=X, view=View(60.0, 0.0))
    assert [text.get_text() for text in ax.texts] == ["+1  0.90"]
    both = plot_singularities(X, poles, [1, -1], vectors=TURN)
    assert [text.get_text() for text in both.texts] == ["+1", "−1"]
    assert not plot_singularities(X, np.zeros((0, 3)), []).texts


def test_streamlines_follow_the_field() -> None:
    paths = streamlines(X, TURN, frames=FRAMES, count=10, steps=30)
    assert 8 <= len(paths) <= 10
    for path in paths:
        radius = np.linalg.norm(path, axis=1)
        assert (np.abs(radius - 1.0) < 0.1).all(), "they stay on the sphere"
        if np.abs(path[0, 2]) < 0.8:
            assert np.abs(path[:, 2] - path[0, 2]).max() < 0.35, "a rotation keeps the height"
        along = np.einsum("mD,mD->m", np.diff(path, axis=0), np.cross([0.0, 0.0, 1.0], path[:-1]))
        assert (along > 0.0).all(), "from upstream to downstream"
    for number, path in enumerate(paths):
        others = np.concatenate([other for other in paths[:number] + paths[number + 1 :]])
        assert np.linalg.norm(path[:, None] - others[None], axis=2).min() > 0.1, "none runs into another"
    sink = streamlines(X, np.array([0.0, 0.0, 1.0]) - X * X[:, 2:], frames=FRAMES, count=40, steps=200)
    assert max(np.linalg.norm(np.diff(path, axis=0), axis=1).sum() for path in sink) < np.pi + 0.2, "they end at sinks"
    ax = plot_streamlines(X, TURN, frames=FRAMES, normals=X, count=12)
    drawn = streamlines(X, TURN, frames=FRAMES, count=12, steps=160)
    assert sum(isinstance(artist, LineCollection) for artist in ax.collections) == len(drawn) >= 4


def test_gallery_and_spectrum() -> None:
    figure = plot_eigenfields(X, [TURN, TURN, TURN], [1.0, 2.0, 3.0], normals=X, columns=2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["λ = 1", "λ = 2", "λ = 3"]
    ax = plot_field_spectrum(np.arange(10.0), np.exp(-np.arange(10.0)), unit="m")
    assert len(ax.figure.axes) == 2 and "Eigenvalue" in ax.get_ylabel()
    assert len(plot_field_spectrum(np.arange(10.0)).figure.axes) == 1


def test_no_pyplot_state() -> None:
    plot_field(X, TURN)
    assert matplotlib.pyplot.get_fignums() == []
