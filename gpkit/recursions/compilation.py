"""How this package's functions are compiled: inner functions are optimised once, inside the entry that calls them.

By default numba optimises every function as a unit of its own, generates machine code for it, links it into each of
its callers and optimises the result again; a nest of small functions so pays for the whole pipeline at each level.
Functions with ``OPTIONS`` stop at unoptimised LLVM code, which is linked into the entry point (``ENTRY``) that needs
them; the entry is optimised as a whole, once. They cannot be called from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.core.untyped_passes import FixupArgs, GenericRewrites, IRProcessing, ReconstructSSA, TranslateByteCode

__all__ = ["ENTRY", "OPTIONS", "inner", "selector", "uncounted"]


class _NoEnvironment:
    """A code generator whose functions need no Python environment (they raise nothing and touch no objects)."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, env_name: str, env: Any) -> None:
        pass


class _DeferredLibrary(JITCodeLibrary):
    """LLVM code that is linked into its callers as it is, neither optimised nor turned into machine code."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    @property
    def codegen(self) -> Any:
        return _NoEnvironment(self._codegen)


@register_pass(mutates_CFG=True, analysis_only=False)
class _DeferredLowering(NativeLowering):
    _name = "deferred_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _DeferredLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return bool(super().run_pass(state))


_PASSES = (
    TranslateByteCode,
    FixupArgs,
    IRProcessing,
    GenericRewrites,
    ReconstructSSA,
    NopythonTypeInference,
    PreLowerStripPhis,
    IRLegalization,
    AnnotateTypes,
    _DeferredLowering,
    NoPythonBackend,
)


class _InnerCompiler(CompilerBase):
    """The passes that loops over scalars, lanes and unchecked loads need; numba's others rewrite what is not here."""

    def define_pipelines(self) -> list[Any]:
        manager = PassManager("inner")
        for step in _PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


_ARITHMETIC = {"error_model": "numpy", "fastmath": {"contract"}, "nogil": True}

OPTIONS: dict[str, Any] = {
    **_ARITHMETIC,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _InnerCompiler,
}
"""Options of inner compiled functions: IEEE division, fused multiply-add, nothing else relaxed."""

ENTRY: dict[str, Any] = {**_ARITHMETIC, "no_cfunc_wrapper": True, "cache": True}
"""Options of functions called from Python: the same, kept on disk for later processes."""


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = numba.njit(**OPTIONS, **options)(function)
    resolve = dispatcher.get_call_template

    def without_literals(args: Any, kws: Any) -> Any:
        return resolve(tuple(types.unliteral(arg) for arg in args), kws)

    dispatcher.get_call_template = without_literals
    return dispatcher


def inner(function: Callable[..., Any]) -> Any:
    """Compile with ``OPTIONS``, once for constant and variable arguments alike."""
    return _compile(function)


def uncounted(function: Callable[..., Any]) -> Any:
    """As ``inner``, without reference counts, which take longer than the arithmetic in small functions.

    The function works in arrays that its callers own: it can neither allocate nor return an array.
    """
    return _compile(function, _nrt=False)


def selector(name: str, doc: str, choose: Callable[[tuple[Any, ...]], Any]) -> Any:
    """A function for compiled code that stands for the dispatcher ``choose(argument types)``.

    The call goes straight to the chosen function; ``numba.extending.overload`` would compile a wrapper around it.
    """

    def function(*args: Any) -> Any:
        raise TypeError(f"{name} is only available inside compiled code")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc

    class Selection(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            return types.Dispatcher(choose(args)).get_call_type(self.context, args, kws)

        def get_impl_key(self, sig: Any) -> Any:
            return types.Dispatcher(choose(sig.args)).get_impl_key(sig)

    infer_global(function, types.Function(Selection))
    return function
