"""Fields on manifolds, meshes, graphs and cell complexes."""

from gpkit.models.fields.predictions import FieldPrediction, ScalarPrediction
from gpkit.models.fields.scalar_field_gp import ScalarFieldGP
from gpkit.models.fields.vector_field_gp import VectorFieldGP

__all__ = ["FieldPrediction", "ScalarFieldGP", "ScalarPrediction", "VectorFieldGP"]
