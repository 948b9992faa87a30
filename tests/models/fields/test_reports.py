"""Reports about functions and edge flows: what is in them, and that the numbers are those of the model."""

from __future__ import annotations

import json
from pathlib import Path

import networkx
import numpy as np
import pytest

from gpkit.diagnostics.network_plots import network_layout, plot_flow, plot_node_values
from gpkit.errors import InvalidDataError
from gpkit.geometry import CellComplex, Graph, PointCloud
from gpkit.models import EdgeFlowGP, ScalarFieldGP
from gpkit.models.fields.local_scale import LocalScale
from gpkit.models.fields.report import field_content
from gpkit.reports import build_edge_flow_report, build_scalar_field_report
from tests.models.fields.conftest import fibonacci
from tests.models.fields.test_edge_flow_gp import flow, grid


@pytest.fixture(autouse=True)
def _not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built, but not turned into pixels, which takes most of the time."""
    for encoder in ("_pixels", "_scalable"):
        monkeypatch.setattr(f"gpkit.reports.document.{encoder}", lambda _: b"")


def test_function_on_a_surface(tmp_path: Path) -> None:
    x = fibonacci(120)
    model = ScalarFieldGP(PointCloud(x, dim=2), "intrinsic:heat", value_unit="K")
    with pytest.raises(InvalidDataError, match="call fit first"):
        model.report(tmp_path / "none.html")
    model.fit(np.arange(0, 120, 2), (3.0 + x[:, 0] * x[:, 1])[::2], progress=False)
    html, numbers = model.report(tmp_path, title="Heat", command="by hand")
    summary = json.loads(numbers.read_text())
    found = model.predict()
    assert summary["range_of_mean"] == pytest.approx([found.mean.min(), found.mean.max()])
    assert summary["observed"] == 60 and summary["nodes"] == 120 and set(summary["coverage"])
    text = html.read_text()
    assert "Heat: function report" in text and "Turn of tangent spaces" in text and text.count("<img") == 5
    content = field_content(model)
    assert len(content.triangles) == 2 * 120 - 4 and content.normals is not None
    assert (content.normals * x).sum() > 0.0, "outwards"
    assert content.calibrated == "", "one kernel by name has no factors"


def test_factors_of_variances_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x = fibonacci(120)
    model = ScalarFieldGP(PointCloud(x, dim=2), "intrinsic:heat")
    model.fit(np.arange(120), 3.0 + x[:, 0] * x[:, 1], progress=False)
    factors = np.where(x[:, 0] > 0.0, 4.0, 0.5)
    scale = LocalScale(x, factors, reach=8, widest=1.0, spare=1.1, gain=7.25)
    monkeypatch.setattr(ScalarFieldGP, "calibration", scale)
    report = build_scalar_field_report(field_content(model)).html()
    assert "Errors of left-out places ask for them, whose log density they raise by 7.2" in report


def test_function_on_a_graph() -> None:
    graph = networkx.grid_2d_graph(5, 5)
    model = ScalarFieldGP(Graph(networkx.to_scipy_sparse_array(graph)), "intrinsic:matern2")
    model.fit(np.arange(0, 25, 2), np.sin(np.arange(0, 25, 2) / 4.0), progress=False)
    content = field_content(model)
    assert content.laid_out and content.title == "Function" and len(content.edges) == 40
    report = build_scalar_field_report(content)
    assert [section.anchor for section in report.sections][:2] == ["summary", "field"]
    assert "no coordinates" in report.html() and "Edges at a node" in report.html()
    placed = field_content(model, positions=np.array(list(graph.nodes), dtype=float))
    assert not placed.laid_out and "no coordinates" not in build_scalar_field_report(placed).html()
    of_basis = ScalarFieldGP(Graph(networkx.to_scipy_sparse_array(graph)).basis(25, cut=None), "intrinsic:matern2")
    of_basis.fit(np.arange(0, 25, 2), np.sin(np.arange(0, 25, 2) / 4.0), progress=False)
    content = field_content(of_basis)
    assert content.laid_out and np.linalg.matrix_rank(content.points) == 2 and not len(content.edges)
    for wrong in (np.zeros((24, 2)), np.full((25, 2), np.nan)):
        with pytest.raises(InvalidDataError, match="positions must be finite"):
            field_content(model, positions=wrong)


def test_edge_flow(tmp_path: Path) -> None:
    domain, places = grid(6)
    true = flow(places, domain.edges)
    model = EdgeFlowGP(domain, "intrinsic:matern2")
    train = np.arange(0, domain.n_edges, 2)
    model.fit(train, true[train], progress=False)
    html, numbers = model.report(tmp_path / "flow.html", positions=places)
    summary = json.loads(numbers.read_text())
    assert numbers.name == "flow.json" and list(summary["parts"]) == ["gradient", "curl", "harmonic"]
    assert sum(part["share"] for part in summary["parts"].values()) == pytest.approx(1.0)
    exact = domain.decompose(model.predict().mean)["curl"]
    assert summary["parts"]["curl"]["rms"] == pytest.approx(np.sqrt(np.square(exact).mean()), rel=1e-6)
    divergence = model.divergence()
    sure = np.abs(divergence.mean) > 1.959963984540054 * divergence.standard_deviation
    assert summary["sure_sources"] == sure.sum()
    text = html.read_text()
    for words in ("Gradient, curl and harmonic parts", "Sources and circulation", "alike modes of eigenvalue zero"):
        assert words in text


def test_flow_of_one_kernel_for_all_parts() -> None:
    chain = CellComplex(8, [(k, k + 1) for k in range(7)])
    model = EdgeFlowGP(chain, "markov:matern1")
    model.fit([0, 2, 4, 6], [1.0, 1.2, 0.8, 1.1], noise=0.1, progress=False)
    report = build_edge_flow_report(field_content(model)).html()
    assert "Sources and circulation" in report and "Circulation</th>" not in report


def test_layouts() -> None:
    """A path is laid out along a line; parts that are not connected are apart; a single node has a place."""
    path = network_layout(9, [(k, k + 1) for k in range(8)])
    np.testing.assert_allclose(np.abs(np.diff(path[:, 0])), 1.0, atol=1e-9)
    assert np.abs(path[:, 1]).max() < 1e-6
    apart = network_layout(6, [(0, 1), (1, 2), (3, 4), (4, 5)])
    assert np.linalg.norm(apart[:3].mean(0) - apart[3:].mean(0)) > 2.0
    assert network_layout(1, np.zeros((0, 2))).shape == (1, 2)


def test_plots_refuse_other_lengths() -> None:
    places, edges = np.zeros((3, 2)), np.array([(0, 1), (1, 2)])
    with pytest.raises(InvalidDataError, match="3 nodes and 2 values"):
        plot_node_values(places, edges, np.zeros(2))
    with pytest.raises(InvalidDataError, match="2 edges and 3 flows"):
        plot_flow(places, edges, np.zeros(3))
