"""Fields on manifolds, meshes, graphs and cell complexes."""

from gpkit.models.fields.edge_flow_gp import EdgeFlowGP
from gpkit.models.fields.predictions import FieldPrediction, ScalarPrediction
from gpkit.models.fields.scalar_field_gp import ScalarFieldGP
from gpkit.models.fields.vector_field_gp import VectorFieldGP
from gpkit.models.fields.vector_movie_gp import MoviePrediction, VectorMovieGP

__all__ = [
    "EdgeFlowGP",
    "FieldPrediction",
    "MoviePrediction",
    "ScalarFieldGP",
    "ScalarPrediction",
    "VectorFieldGP",
    "VectorMovieGP",
]
