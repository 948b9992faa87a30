"""The only place that knows nutpie's private interface: compiled densities without Python in the loop.

nutpie's public entry point for a user's density calls a Python function. The interface that it uses itself for
compiled models takes the address of a C function; it is used here where it exists in the expected form, and
``nutpie.compiled_pyfunc.from_pyfunc`` otherwise.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gpkit.inference.potential import Compiled
from gpkit.recursions import potential as _potential

__all__ = ["DensityError", "Rows", "compiled_model", "has_compiled_interface", "python_model", "run"]

Array = NDArray[np.float64]
InitialPoint = Callable[[int], Array]


class DensityError(ArithmeticError):
    """Tells nutpie that a point has no density: the trajectory diverges, the chain goes on."""

    is_recoverable = True


@runtime_checkable
class Rows(Protocol):
    """A density that is evaluated at many points at once."""

    @property
    def dimension(self) -> int:
        """Number of coordinates, D."""
        ...

    def rows(self, points: Array) -> tuple[Array, Array, NDArray[np.int64]]:
        """Values (S,), gradients (S, D) and status (S,), zero where there is a density, at (S, D)."""
        ...


def _nutpie() -> Any:
    with warnings.catch_warnings():
        # nutpie imports arviz, which announces its next major version to whoever imports it.
        warnings.simplefilter("ignore", FutureWarning)
        import nutpie
        import nutpie.compiled_pyfunc
    return nutpie


def has_compiled_interface() -> bool:
    """Whether the private interface is what it was when this module was written."""
    library = _nutpie()._lib
    expected = {
        "LogpFunc": "(ptr, user_data_ptr, keep_alive)",
        "ExpandFunc": "(dim, expanded_dim, ptr, user_data_ptr, keep_alive)",
        "PyMcModel": "(density, expand, variables, dim, dim_sizes, coords, init_func, transform_adapter)",
    }
    signatures = {name: getattr(getattr(library, name, None), "__text_signature__", None) for name in expected}
    return signatures == expected and hasattr(getattr(library, "PySampler", None), "from_pymc")


def compiled_model(compiled: Compiled, initial_point: InitialPoint, progress: Callable[[str], None] | None) -> Any:
    """A nutpie model whose density is called by its address, outside the interpreter lock."""
    nutpie = _nutpie()
    library = nutpie._lib
    base: Any = importlib.import_module("nutpie.sample").CompiledModel  # nutpie.sample itself is a function
    dimension = compiled.dimension
    function, copy = _potential.callback(), _potential.copy_callback()

    class Model(base):
        n_dim = dimension
        shapes = {"z": (dimension,)}
        coords = {"coordinate": pd.RangeIndex(dimension)}

        def _make_model(self, init_mean: Any) -> Any:
            density = library.LogpFunc(function.address, compiled.address, (compiled, function))
            expand = library.ExpandFunc(dimension, dimension, copy.address, compiled.address, copy)
            sizes = {"coordinate": dimension}
            variables = library.PyVariable.new_variables(["z"], ["float64"], [(dimension,)], sizes, self.dims)
            return library.PyMcModel(
                density, expand, variables, dimension, sizes, self.coords, initial_point, lambda *a, **k: None
            )

        def _make_sampler(self, settings: Any, init_mean: Any, cores: int, kind: Any, store: Any) -> Any:
            if progress is not None:
                kind = library.ProgressType.template_callback(250, "{{ total_finished_draws }}", cores, progress)
            return library.PySampler.from_pymc(settings, cores, self._make_model(init_mean), kind, store)

    return Model(dims={"z": ("coordinate",)})


def python_model(compiled: Rows, initial_point: InitialPoint) -> Any:
    """The same model through nutpie's public interface; slower, since every evaluation takes the interpreter lock."""

    def make_density() -> Any:
        def density(z: Array) -> tuple[float, Array]:
            values, gradients, status = compiled.rows(np.array(z, dtype=np.float64)[None])
            if status[0] != 0:
                raise DensityError(f"no density at this point (code {status[0]})")
            return float(values[0]), gradients[0]

        return density

    def make_expand(*seeds: Any) -> Any:
        return lambda z: {"z": np.array(z)}

    return _nutpie().compiled_pyfunc.from_pyfunc(
        compiled.dimension,
        make_density,
        make_expand,
        [np.dtype(np.float64)],
        [(compiled.dimension,)],
        ["z"],
        coords={"coordinate": pd.RangeIndex(compiled.dimension)},
        dims={"z": ("coordinate",)},
        make_initial_point_fn=initial_point,
    )


def run(
    model: Any, *, draws: int, tune: int, chains: int, cores: int, seed: int, low_rank: bool, settings: dict[str, Any]
) -> tuple[Array, dict[str, NDArray[Any]]]:
    """Sample; draws (chains, draws, D) and nutpie's statistics, each (chains, draws).

    An interrupt stops the sampler and is raised again: there are no partial results.
    """
    nutpie = _nutpie()
    sampler = nutpie.sample(
        model,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=cores,
        seed=seed,
        save_warmup=False,
        progress_bar=False,
        low_rank_modified_mass_matrix=low_rank,
        blocking=False,
        **settings,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # raised by xarray and arviz about each other's versions
            trace = sampler.wait()
    except BaseException:
        sampler.cancel()
        raise
    statistics = {
        str(name): np.asarray(values) for name, values in trace.sample_stats.items() if values.dims == ("chain", "draw")
    }
    return np.asarray(trace.posterior["z"]), statistics
