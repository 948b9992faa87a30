"""Posterior diagnostics reports: one self-contained HTML file, and the numbers in it as JSON."""

from gpkit.reports.content import (
    Band,
    KernelSection,
    LightCurveSection,
    PowerSpectrum,
    Quantity,
    ReportContent,
    RunSection,
)
from gpkit.reports.edge_flow import build_edge_flow_report, edge_flow_report
from gpkit.reports.field_content import (
    EdgeFlowContent,
    FlowPart,
    KernelRow,
    ScalarFieldContent,
    SingularPoint,
    SpectrumPart,
    VectorFieldContent,
)
from gpkit.reports.light_curve import build_report, light_curve_report
from gpkit.reports.pde import build_pde_report, pde_report
from gpkit.reports.pde_content import FieldSection, GridFunction, LineSpectrum, PDEContent, UnknownNumber
from gpkit.reports.scalar_field import build_scalar_field_report, scalar_field_report
from gpkit.reports.summary import headline, summary
from gpkit.reports.tensor import build_tensor_report, tensor_report, tensor_summary
from gpkit.reports.tensor_content import ModeSection, ScoreRow, TensorContent
from gpkit.reports.vector_field import build_vector_field_report, vector_field_report
from gpkit.reports.writing import to_json

__all__ = [
    "Band",
    "EdgeFlowContent",
    "FieldSection",
    "FlowPart",
    "GridFunction",
    "KernelRow",
    "KernelSection",
    "LightCurveSection",
    "LineSpectrum",
    "ModeSection",
    "PDEContent",
    "PowerSpectrum",
    "Quantity",
    "ReportContent",
    "RunSection",
    "ScoreRow",
    "ScalarFieldContent",
    "SingularPoint",
    "SpectrumPart",
    "TensorContent",
    "UnknownNumber",
    "VectorFieldContent",
    "build_edge_flow_report",
    "build_pde_report",
    "build_report",
    "build_scalar_field_report",
    "build_tensor_report",
    "build_vector_field_report",
    "edge_flow_report",
    "headline",
    "light_curve_report",
    "pde_report",
    "scalar_field_report",
    "summary",
    "tensor_report",
    "tensor_summary",
    "to_json",
    "vector_field_report",
]
