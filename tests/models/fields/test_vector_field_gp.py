"""Vector fields end to end: accuracy, indices of every kind, places of every kind, bad input, files, draws."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpkit.errors import DataWarning, InvalidDataError
from gpkit.geometry import Graph, PointCloud
from gpkit.kernels import ConnectionLaplacianKernel
from gpkit.models import VectorFieldGP
from tests.models.fields.conftest import Surface, field

Array = NDArray[np.float64]
TRAIN = np.arange(0, 200, 2)


def angle(found: Array, true: Array) -> float:
    cosine = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())


def noisy(surface: Surface, sd: float = 0.05) -> Array:
    noise = np.random.default_rng(0).standard_normal((surface.cloud.n, surface.cloud.dim))
    return np.asarray(surface.cloud.to_ambient(surface.cloud.to_tangent(surface.vectors)[0] + sd * noise))


@pytest.fixture(scope="module")
def fitted(sphere: Surface) -> VectorFieldGP:
    model = VectorFieldGP(sphere.cloud)
    model.fit(TRAIN, noisy(sphere)[TRAIN], progress=False)
    return model


def test_auto_says_what_it_compared(fitted: VectorFieldGP, sphere: Surface) -> None:
    result = fitted.result
    assert result is not None
    table = result.comparison.table
    assert table.index[0] == result.kernel and (table["delta"] <= 0.0).all() and len(table) == 17
    assert {name.partition(":")[0] for name in table.index} == {"intrinsic", "projected", "helmholtz"}
    assert sum("+" in name for name in table.index) == 3 and sum("* speed" in name for name in table.index) == 2
    assert "highest evidence" in result.comparison.verdict() and result.kernel in repr(result)
    assert result.converged and result.n == 100 and result.parameters["noise"] == pytest.approx(0.05, rel=0.25)


def test_accuracy_at_nodes_and_between(fitted: VectorFieldGP, sphere: Surface) -> None:
    rest = np.setdiff1d(np.arange(200), TRAIN)
    inside = fitted.predict(rest)
    assert angle(inside.mean, sphere.vectors[rest]) < 4.0
    between = fitted.predict(sphere.others)
    assert angle(between.mean, sphere.other_vectors) < 1.25 * angle(inside.mean, sphere.vectors[rest]) + 0.5
    assert 0.85 <= inside.covers(sphere.vectors[rest]).mean() <= 1.0
    low, high = between.interval(0.95)
    with pytest.raises(InvalidDataError, match="got 1.5"):
        between.interval(1.5)
    assert (low <= between.mean).all() and (between.mean <= high).all()
    trivial = np.degrees(np.arccos(0.0))
    assert angle(between.mean, sphere.other_vectors) < 0.1 * trivial
    with pytest.raises(InvalidDataError, match="the number of draws must be an integer of at least 1"):
        between.sample(-1)


def test_mixture_and_single_kernels(fitted: VectorFieldGP, sphere: Surface) -> None:
    assert fitted.result is not None
    weights = fitted.result.comparison.weights
    assert sum(weights.values()) == pytest.approx(1.0)
    rest = np.setdiff1d(np.arange(200), TRAIN)
    mixed = fitted.predict(rest)
    left_out = fitted.leave_one_out()
    assert left_out.covers(noisy(sphere)[TRAIN]).mean() > 0.85
    best_single = min(c.elpd for c in fitted.result.comparison.candidates)
    assert left_out.log_density(noisy(sphere)[TRAIN], noisy=False).sum() > best_single
    errors = {}
    for candidate in fitted.result.comparison.candidates:
        fitted.use(candidate.name)
        errors[candidate.name] = angle(fitted.predict(rest).mean, sphere.vectors[rest])
    fitted.use()
    np.testing.assert_array_equal(fitted.predict(rest).mean, mixed.mean)
    singles = [error for name, error in errors.items() if "+" not in name]
    assert angle(mixed.mean, sphere.vectors[rest]) < 1.05 * min(singles)
    with pytest.raises(InvalidDataError, match="was not compared"):
        fitted.use("projected:cubic")


def test_every_kernel_alone(fitted: VectorFieldGP, sphere: Surface) -> None:
    """Nodes given as points are the same places, whatever the kernel; regions hold the truth."""
    for name in ("intrinsic:heat", "projected:matern52", "helmholtz:rbf"):
        model = VectorFieldGP(sphere.cloud, name)
        result = model.fit(TRAIN, noisy(sphere)[TRAIN], progress=False)
        assert result.kernel == name and "nothing was compared" in result.comparison.verdict()
        nodes, points = model.predict([3, 5]), model.predict(sphere.cloud.points[[3, 5]])
        np.testing.assert_allclose(nodes.mean, points.mean, atol=1e-8)
        np.testing.assert_allclose(nodes.variance, points.variance, atol=1e-8)


def test_kernels_of_gpytorch(sphere: Surface) -> None:
    """An RBF kernel of space is the projected one; kernels that know the manifold take node numbers and points."""
    vectors = noisy(sphere)[TRAIN]
    own = VectorFieldGP(sphere.cloud, "projected:rbf")
    own.fit(TRAIN, vectors)
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
    model = VectorFieldGP(sphere.cloud, kernel)
    result = model.fit(TRAIN, vectors)
    assert set(result.parameters) == {"noise", "outputscale", "base_kernel.lengthscale"}
    np.testing.assert_allclose(model.predict(sphere.others).mean, own.predict(sphere.others).mean, atol=0.02)
    intrinsic = VectorFieldGP(sphere.cloud, ConnectionLaplacianKernel(sphere.cloud, "heat", rank=60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # damped modes between 200 nodes
        intrinsic.fit(TRAIN, vectors)
        between = intrinsic.predict(sphere.others)
    rest = np.setdiff1d(np.arange(200), TRAIN)
    assert angle(intrinsic.predict(rest).mean, sphere.vectors[rest]) < 12.0 and len(between) == 60
    with pytest.raises(InvalidDataError, match="batch"):
        VectorFieldGP(sphere.cloud, gpytorch.kernels.RBFKernel(batch_shape=torch.Size([2])))


def test_indices_of_every_kind(sphere: Surface) -> None:
    vectors = noisy(sphere)
    mask = np.zeros(200, dtype=np.bool_)
    mask[TRAIN] = True
    forms: list[Any] = [TRAIN, TRAIN.astype(np.int32), TRAIN.astype(np.uint8), TRAIN.tolist(), TRAIN[:, None], mask]
    forms += [TRAIN.astype(np.float64), sphere.cloud.points[TRAIN]]
    means = []
    for where in forms:
        model = VectorFieldGP(sphere.cloud, "projected:rbf")
        model.fit(where, vectors[TRAIN], noise=0.05)
        means.append(model.predict(mask).mean)
    for mean in means[1:]:
        np.testing.assert_allclose(mean, means[0], atol=1e-6)


def test_known_noise_and_points_as_manifold(sphere: Surface) -> None:
    model = VectorFieldGP(sphere.cloud.points, "helmholtz")
    noise = np.full(100, 0.05)
    result = model.fit(TRAIN, noisy(sphere)[TRAIN], noise=noise, progress=False)
    assert "noise" not in result.parameters and len(result.comparison.candidates) == 4
    assert np.isnan(model.predict([0]).noise).all()


def test_draws_of_fields(fitted: VectorFieldGP, sphere: Surface) -> None:
    prediction = fitted.predict(sphere.others)
    draws = prediction.sample(4000, seed=1)
    assert draws.shape == (4000, 60, 3)
    spread = np.sqrt(prediction.variance.max())
    np.testing.assert_allclose(draws.mean(0), prediction.mean, atol=0.3 * spread)
    np.testing.assert_allclose(draws.var(0), prediction.variance, atol=0.3 * spread**2)
    np.testing.assert_array_equal(draws, prediction.sample(4000, seed=1))
    np.testing.assert_allclose(prediction.weights.sum(), 1.0)
    axes, directions = prediction.region(0.95)
    assert axes.shape == (60, 2) and (np.diff(axes) >= 0.0).all() and directions.shape == (60, 3, 2)
    assert prediction.log_density(sphere.other_vectors).shape == (60,)


def test_parameters_are_sampled(sphere: Surface) -> None:
    model = VectorFieldGP(sphere.cloud, "intrinsic:heat", rank=60, full_below=0)
    model.fit(TRAIN, noisy(sphere)[TRAIN], progress=False)
    before = model.predict([1])
    data = model.sample(60, 60, 2, seed=4, progress=False)
    assert set(data.posterior.data_vars) == {"noise", "lengthscale", "amplitude"}
    assert data.posterior.sizes == {"chain": 2, "draw": 60} and "observed_data" in data.groups()
    after = model.predict([1])
    assert after.weights.sum() == pytest.approx(1.0)
    assert len(after.component_means) == 20 and len(before.component_means) == 1
    np.testing.assert_allclose(after.mean, before.mean, atol=0.1)
    assert len(model.predict([1], draws=5).component_means) == 5
    first, again = (model.sample(8, 15, 2, seed=4, progress=False) for _ in range(2))
    np.testing.assert_array_equal(first.posterior["noise"], again.posterior["noise"])


def test_files(fitted: VectorFieldGP, sphere: Surface, tmp_path: Path) -> None:
    path = fitted.save(tmp_path / "model.gpkit")
    loaded = VectorFieldGP.load(path)
    np.testing.assert_allclose(loaded.predict(sphere.others).mean, fitted.predict(sphere.others).mean, atol=1e-12)
    assert repr(loaded.result) == repr(fitted.result)
    with pytest.raises(InvalidDataError, match="no file"):
        VectorFieldGP.load(tmp_path / "absent")
    (tmp_path / "text").write_text("not a model")
    with pytest.raises(InvalidDataError, match="not a gpkit"):
        VectorFieldGP.load(tmp_path / "text")
    for version in (1, 2):
        torch.save({"format": "gpkit field model", "version": version, "model": {}}, tmp_path / "old")
        with pytest.raises(InvalidDataError, match="written by an older gpkit"):
            VectorFieldGP.load(tmp_path / "old")


def test_normal_parts_are_left_out_and_reported(sphere: Surface) -> None:
    pure, tilted = VectorFieldGP(sphere.cloud, "projected:rbf"), VectorFieldGP(sphere.cloud, "projected:rbf")
    vectors = noisy(sphere)
    pure.fit(TRAIN, vectors[TRAIN])
    with pytest.warns(DataWarning, match="components normal to the manifold"):
        tilted.fit(TRAIN, vectors[TRAIN] + 0.2 * sphere.cloud.normals[TRAIN])
    np.testing.assert_allclose(tilted.predict([1]).mean, pure.predict([1]).mean, atol=1e-7)
    assert tilted.observations is not None and tilted.observations.normal == pytest.approx(0.2)


def test_far_places_are_flagged(fitted: VectorFieldGP) -> None:
    places = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]])
    with pytest.warns(DataWarning, match="1 of 2 places are far"):
        found = fitted.predict(places)
    assert found.far.tolist() == [False, True] and found.distance[1] > 2.5
    assert found.standard_deviation[1] > 3.0 * found.standard_deviation[0]


def test_too_few_modes_are_told(sphere: Surface) -> None:
    """A rough field and eight modes: the rest of its variance would be taken for noise."""
    rng = np.random.default_rng(3)
    rough = sphere.cloud.to_ambient(rng.standard_normal((200, 2)))
    with pytest.warns(DataWarning, match="modes are too few for intrinsic:matern1"):
        VectorFieldGP(sphere.cloud, "intrinsic:matern1", rank=8, full_below=0).fit(None, rough)


def test_one_place_and_repeated_places(sphere: Surface) -> None:
    one = VectorFieldGP(sphere.cloud, "helmholtz:rbf")
    one.fit([7], sphere.vectors[[7]])
    assert angle(one.predict([7]).mean, sphere.vectors[[7]]) < 10.0
    repeated = VectorFieldGP(sphere.cloud, "projected:rbf")
    where = np.repeat(TRAIN, 2)
    repeated.fit(where, noisy(sphere)[where] + 0.0)
    assert repeated.observations is not None and repeated.observations.repeated == 100


def test_too_many_rows_for_dense_kernels(sphere: Surface) -> None:
    vectors = noisy(sphere)[TRAIN]
    with pytest.raises(InvalidDataError, match="dense_rows"):
        VectorFieldGP(sphere.cloud, "projected", dense_rows=100).fit(TRAIN, vectors)
    model = VectorFieldGP(sphere.cloud, dense_rows=100)
    with pytest.warns(DataWarning, match="9 kernels were not compared"):
        result = model.fit(TRAIN, vectors, progress=False)
    assert result.kernel.startswith("intrinsic") and len(result.comparison.left_out) == 9


@pytest.mark.parametrize(
    ("where", "vectors", "message"),
    [
        ([0, 1], np.ones((3, 3)), "3 vectors were given for 2 places"),
        ([0, 200], np.ones((2, 3)), "node 200"),
        ([0.5], np.ones((1, 3)), "whole node numbers"),
        (np.array([0.6, 0.0, 0.8]), np.ones((1, 3)), r"one point is a table of one row, of shape \(1, 3\)"),
        (np.ones(7, dtype=np.bool_), np.ones((7, 3)), "mask of 7"),
        ([0], np.full((1, 3), np.nan), "row 0"),
        ([0], np.ones((1, 2)), r"\(m, 3\)"),
        ([0], np.zeros((1, 3)), "all vectors are zero"),
        ([], np.zeros((0, 3)), "one place at least"),
        (np.ones((1, 2)), np.ones((1, 3)), "3 columns"),
        (np.full((1, 3), 9.0), np.ones((1, 3)), "far from the manifold"),
        ([[np.nan, 0.0, 1.0]], np.ones((1, 3)), "finite"),
        ("all", np.ones((1, 3)), "where must be"),
    ],
)
def test_bad_data(sphere: Surface, where: Any, vectors: Array, message: str) -> None:
    with pytest.raises(InvalidDataError, match=message):
        VectorFieldGP(sphere.cloud, "projected:rbf").fit(where, vectors)


def test_bad_settings(sphere: Surface) -> None:
    for kernel, message in (
        ("cubic", "unknown kernel"),
        ("projected + intrinsic:heat", "in full"),
        ("projected:", "unknown kernel"),
        ([1], "list of terms"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            VectorFieldGP(sphere.cloud, kernel)
    with pytest.raises(InvalidDataError, match="not on a Graph: functions on it are modelled by ScalarFieldGP"):
        VectorFieldGP(Graph(np.ones((4, 4))))
    with pytest.raises(InvalidDataError, match="rank"):
        VectorFieldGP(sphere.cloud, rank=0)
    with pytest.raises(InvalidDataError, match="call fit"):
        VectorFieldGP(sphere.cloud).predict()
    with pytest.raises(InvalidDataError, match="starts must be an integer of at least 1"):
        VectorFieldGP(sphere.cloud, "projected:rbf").fit([0], sphere.vectors[[0]], starts=0)
    with pytest.raises(InvalidDataError, match="noise\\[0\\]"):
        VectorFieldGP(sphere.cloud, "projected:rbf").fit([0], sphere.vectors[[0]], noise=-1.0)


def test_curve_in_the_plane() -> None:
    """One-dimensional manifolds have fields along them, and no gradient kernels."""
    t = np.linspace(0.0, 2.0 * np.pi, 80, endpoint=False)
    cloud = PointCloud(np.stack([np.cos(t), np.sin(t)], axis=1), dim=1, n_neighbors=6)
    vectors = np.cos(t)[:, None] * np.stack([-np.sin(t), np.cos(t)], axis=1)
    model = VectorFieldGP(cloud)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        result = model.fit(np.arange(0, 80, 4), vectors[::4], progress=False)
    assert not any("helmholtz" in name for name in result.comparison.table.index)
    assert np.abs(model.predict().mean - vectors).max() < 0.05


def test_derived_quantities(fitted: VectorFieldGP, sphere: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    x = sphere.cloud.points
    divergence = fitted.divergence()
    monkeypatch.setattr(fitted, "length_unit", "km")
    monkeypatch.setattr(fitted, "value_unit", "m/s")
    curl = fitted.curl()
    assert divergence.unit == "" and curl.unit == "m/s / km"
    expected = -6.0 * (x[:, 0] * x[:, 1] + x[:, 2] ** 2 - 1.0 / 3.0)
    turning = 2.0 * x[:, 1]
    for found, true in ((divergence, expected), (curl, turning)):
        assert np.abs(found.mean - true).mean() < 0.03 * np.abs(true).mean()
        low, high = found.interval(0.95)
        assert ((low < true) & (true < high)).mean() > 0.9, "errors of the slopes are no part of the deviations"
        assert (found.standard_deviation > 0.0).all() and found.degree is not None and (found.degree == 3).all()
    assert repr(divergence).startswith("FieldFunctional(divergence, 200 values, mean -") and "median sd 0" in repr(curl)


def test_singularities(fitted: VectorFieldGP) -> None:
    found = fitted.singularities(draws=60, seed=1)
    assert found.closed and found.euler_characteristic == 2 == found.total
    assert (found.draw_totals == 2).all() and len(found.draw_totals) == 60
    sure = [s for s in found.found if s.probability > 0.9]
    assert len(sure) >= 2
    for s in sure:
        place = s.location / np.linalg.norm(s.location)
        assert np.linalg.norm(field(place[None])) < 0.35, "a sure singularity lies where the true field vanishes"
    again = fitted.singularities(draws=60, seed=1)
    assert [s.probability for s in again.found] == [s.probability for s in found.found]


def test_few_noisy_places_are_not_taken_for_white_noise(sphere: Surface) -> None:
    """A field without correlation is a maximum of its own of the posterior density, 40 nats below the right one."""
    rng, points = np.random.default_rng(11), sphere.cloud.points
    pull = rng.standard_normal(3)
    vectors = pull - points * (points @ pull)[:, None]
    vectors /= np.sqrt(np.square(vectors).sum(1).mean())
    train = rng.permutation(len(points))[:30]
    rest = np.setdiff1d(np.arange(len(points)), train)
    noise = sphere.cloud.to_tangent(0.3 * rng.standard_normal(vectors.shape))[0]
    model = VectorFieldGP(sphere.cloud, "helmholtz:rbf")
    model.fit(train, (vectors + sphere.cloud.to_ambient(noise))[train], progress=False)
    errors = np.linalg.norm(model.predict(rest).mean - vectors[rest], axis=1)
    assert np.sqrt(np.square(errors).mean()) < 0.25, "a prediction of zero has 1"


def test_directions_where_speeds_differ(sphere: Surface) -> None:
    """Smooth directions at speeds that go up and down: kernels of one amplitude lose the directions of slow places."""
    rng = np.random.default_rng(3)
    speed = np.exp(1.5 * np.sin(6.0 * sphere.cloud.points[:, :1]))
    true = speed * sphere.vectors
    coordinates = sphere.cloud.to_tangent(true)[0] + 0.02 * rng.standard_normal((200, 2))
    coordinates[0] = 0.0
    train, rest = np.arange(0, 200, 4), np.setdiff1d(np.arange(200), np.arange(0, 200, 4))
    model = VectorFieldGP(sphere.cloud, "projected")
    model.fit(train, sphere.cloud.to_ambient(coordinates)[train], progress=False)
    before = model.predict(rest).mean
    turned = model.directions(progress=False)
    assert angle(turned.predict(rest).mean, true[rest]) < 0.8 * angle(before, true[rest])
    assert turned.observations is not None and len(turned.observations) == len(train) - 1, "zero has no direction"
    np.testing.assert_allclose(np.linalg.norm(turned.observations.coordinates, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(model.predict(rest).mean, before, atol=1e-14)
    with pytest.raises(InvalidDataError, match="has not been fitted"):
        VectorFieldGP(sphere.cloud).directions()


def test_directions_of_known_noise(sphere: Surface) -> None:
    train = np.arange(0, 200, 9)
    model = VectorFieldGP(sphere.cloud, "projected:rbf")
    result = model.fit(train, sphere.vectors[train], noise=0.1, progress=False)
    assert result.comparison.noise is None, "what is known is not estimated"
    turned = model.directions(progress=False).observations
    assert turned is not None and turned.noise is not None
    sizes = np.linalg.norm(sphere.cloud.to_tangent(sphere.vectors[train], train)[0], axis=1)
    np.testing.assert_allclose(turned.noise, 0.1 / sizes)
