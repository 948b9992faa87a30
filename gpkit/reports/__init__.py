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
from gpkit.reports.light_curve import build_report, light_curve_report
from gpkit.reports.pde import build_pde_report, pde_report
from gpkit.reports.pde_content import FieldSection, GridFunction, LineSpectrum, PDEContent, UnknownNumber
from gpkit.reports.summary import headline, summary
from gpkit.reports.tensor import build_tensor_report, tensor_report, tensor_summary
from gpkit.reports.tensor_content import ModeSection, ScoreRow, TensorContent
from gpkit.reports.vector_field import build_vector_field_report, vector_field_report
from gpkit.reports.vector_field_content import KernelRow, SingularPoint, VectorFieldContent
from gpkit.reports.writing import to_json

__all__ = [
    "Band",
    "FieldSection",
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
    "SingularPoint",
    "TensorContent",
    "UnknownNumber",
    "VectorFieldContent",
    "build_pde_report",
    "build_report",
    "build_tensor_report",
    "build_vector_field_report",
    "headline",
    "light_curve_report",
    "pde_report",
    "summary",
    "tensor_report",
    "tensor_summary",
    "to_json",
    "vector_field_report",
]
