"""Problems stated in TOML files, in the expression language of `parsing`; nothing in them is executed.

A file has an equation (or a list ``equations``), a domain, boundary conditions and a grid::

    equation = "laplacian(u) = -2*sin(x)*sin(y)"
    grid = [60, 60]

    [domain]
    x = [0, "pi"]
    y = [0, "pi"]

    [[boundary]]
    type = "dirichlet"
    value = 0
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpkit.errors import InvalidDataError
from gpkit.models.pde.calculus import coordinates
from gpkit.models.pde.conditions import Dirichlet, Initial, Neumann, Observe, Periodic, Robin
from gpkit.models.pde.domain import Box
from gpkit.models.pde.evaluation import PlainFunction
from gpkit.models.pde.expressions import Equation, Expression, Unknown, convert
from gpkit.models.pde.fields import Field
from gpkit.models.pde.gridded import Gridded, Noisy
from gpkit.models.pde.parsing import equation_from_text, expression_from_text, number_from_text
from gpkit.models.pde.problem import PDE

__all__ = ["ProblemFile", "read_problem"]

_SECTIONS = {
    "title": str,
    "equations": list,
    "exact": str,
    "domain": dict,
    "fields": dict,
    "unknowns": dict,
    "definitions": dict,
    "data": dict,
    "condition": list,
    "observation": list,
    "solve": dict,
}
_ALSO = {"equation": "equations", "boundary": "condition"}  # other words for sections
_GRID = "grid"  # may stand at the top, or under [solve]


@dataclass(frozen=True)
class ProblemFile:
    """What a file says.

    Attributes:
        pde: The problem.
        title: Its title, or empty.
        exact: The known solution of the first field, or None.
        solve: Arguments of `PDE.solve`: grid, method, basis, hidden, seed.
        sampling: Of an inference: draws, tune and chains, where they are given.
        inference: "laplace" or "nuts".
    """

    pde: PDE
    title: str = ""
    exact: Callable[..., Any] | None = None
    solve: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, int] = field(default_factory=dict)
    inference: str = "laplace"


def read_problem(path: str | Path) -> ProblemFile:
    """Read a problem.

    Args:
        path: A TOML file; data files that it names are looked for beside it.

    Raises:
        InvalidDataError: The file is not there, is not TOML, or states no problem; the entry is named.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except FileNotFoundError:
        raise InvalidDataError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise InvalidDataError(f"{file} is a folder: name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDataError(f"{file.name} is not a TOML file: {error}") from None
    return _Reader(content, file).problem()


class _Reader:
    def __init__(self, content: dict[str, Any], file: Path) -> None:
        self.file = file
        self.content = content = self._renamed(content)
        for name, value in content.items():
            if name not in _SECTIONS:
                known = [*_ALSO, _GRID, *_SECTIONS]
                raise self._error(f"there is no entry {name!r}{_meant(name, known)}")
            if not isinstance(value, _SECTIONS[name]):
                raise self._error(f"{name} must be a {_TYPES[_SECTIONS[name]]}")
        for name in ("domain", "equations"):
            if not content.get(name):
                raise self._error(f"the entry {name!r} is missing")

    def _renamed(self, content: dict[str, Any]) -> dict[str, Any]:
        """The same content under one word for each section, with one equation as a list and the grid under solve."""
        found = {name: value for name, value in content.items() if name not in _ALSO and name != _GRID}
        for name, section in _ALSO.items():
            if name not in content:
                continue
            if section in content:
                raise self._error(f"{name} and {section} are two words for the same: use one of them")
            value = content[name]
            single = isinstance(value, str | dict)
            if not single and not isinstance(value, list):
                raise self._error(f"{name} must be {'a text' if name == 'equation' else 'a table'}, or a list of them")
            found[section] = [value] if single else value
        if _GRID in content:
            solve = found.get("solve", {})
            if not isinstance(solve, dict) or _GRID in solve:
                raise self._error("the grid is given twice: at the top and under solve")
            found["solve"] = {**solve, _GRID: content[_GRID]}
        return found

    def _error(self, message: str) -> InvalidDataError:
        return InvalidDataError(f"{self.file.name}: {message}")

    def _checked(self, table: Any, where: str, known: Sequence[str], needed: Sequence[str] = ()) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise self._error(f"{where} must be a table")
        for name in table:
            if name not in known:
                raise self._error(f"{where} has no entry {name!r}{_meant(name, known)}")
        for name in needed:
            if name not in table:
                raise self._error(f"{where} needs the entry {name!r}")
        return table

    def problem(self) -> ProblemFile:
        """Everything."""
        ends = {name: self._ends(name, ends) for name, ends in self.content["domain"].items()}
        try:
            box = Box(**ends)
        except InvalidDataError as error:
            raise self._error(f"domain: {error}") from None
        self.box = box
        names: dict[str, Any] = {c.name: c for c in coordinates(box)}
        declared = self.content.get("fields") or {"u": {}}
        self.fields = {name: self._field(name, entry) for name, entry in declared.items()}
        self._add(names, self.fields)
        self._add(names, {name: self._unknown(name, e) for name, e in self.content.get("unknowns", {}).items()})
        for name, text in self.content.get("definitions", {}).items():
            self._add(names, {name: self._expression(text, names, f"definition {name}")})
        self.names = names
        self.data = {name: self._data(name, entry) for name, entry in self.content.get("data", {}).items()}
        equations = [self._equation(text, k) for k, text in enumerate(self.content["equations"])]
        conditions = [self._condition(c, k) for k, c in enumerate(self.content.get("condition", []))]
        conditions += [self._observation(o, k) for k, o in enumerate(self.content.get("observation", []))]
        try:
            pde = PDE(equations, [c for group in conditions for c in (group if isinstance(group, list) else [group])])
        except InvalidDataError as error:
            raise self._error(str(error)) from None
        for name in self.content.get("unknowns", {}):
            if name not in pde.form.unknowns:
                raise self._error(f"unknowns.{name} stands in no equation and no condition")
        exact = None
        if "exact" in self.content:
            found = convert(self._expression(self.content["exact"], self.names, "exact"))
            if found.jets:
                raise self._error("exact must not hold fields")
            exact = PlainFunction(found, box)
        known = (_GRID, "method", "basis", "hidden", "seed", "inference", "draws", "tune", "chains")
        solve = dict(self._checked(self.content.get("solve", {}), "solve", known))
        if isinstance(solve.get(_GRID), dict):
            sizes = self._checked(solve[_GRID], "grid", box.names, box.names)
            solve[_GRID] = [sizes[name] for name in box.names]
        if not isinstance(solve.get("hidden", False), bool):
            raise self._error(f"solve: hidden is true or false, got {solve['hidden']!r}")
        for name, choices in _CHOICES.items():
            if name in solve and solve[name] not in choices:
                raise self._error(f"solve: there is no {name} {solve[name]!r}{_meant(solve[name], choices)}")
        for name, least in (*_SAMPLING.items(), ("seed", 0)):
            value = solve.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise self._error(f"solve: {name} must be a whole number, {least} or more; got {value!r}")
        if pde.form.unknowns or pde.form.free:
            for name, usual in (("method", "auto"), ("basis", "auto"), ("hidden", False)):
                if solve.get(name, usual) != usual:
                    raise self._error(f"solve: {name} is for problems without unknowns; these take inference")
        return ProblemFile(
            pde, self.content.get("title", ""), exact, inference=solve.pop("inference", "laplace"),
            sampling={name: solve.pop(name) for name in _SAMPLING if name in solve}, solve=solve,
        )  # fmt: skip

    def _add(self, names: dict[str, Any], more: Mapping[str, Any]) -> None:
        for name, value in more.items():
            if name in names:
                raise self._error(f"the name {name!r} is used twice")
            if not name.isidentifier():
                raise self._error(f"{name!r} is not a name")
            names[name] = value

    def _expression(self, text: Any, names: Mapping[str, Any], where: str) -> Any:
        if isinstance(text, int | float) and not isinstance(text, bool):
            return text
        try:
            return expression_from_text(text, names)
        except InvalidDataError as error:
            raise self._error(f"{where}: {error}") from None

    def _number(self, value: Any, where: str) -> float:
        try:
            return number_from_text(value) if isinstance(value, str) else float(value)
        except (InvalidDataError, TypeError, ValueError) as error:
            raise self._error(f"{where}: {error}") from None

    def _noise(self, value: Any, where: str) -> float | None:
        """A standard deviation, or None where it is to be found."""
        if isinstance(value, str) and value != _UNKNOWN and value.isalpha():
            raise self._error(f"{where} is a number or {_UNKNOWN!r}; got {value!r}")
        return None if value == _UNKNOWN else self._number(value, where)

    def _ends(self, name: str, ends: Any) -> tuple[float, float]:
        if not isinstance(ends, list) or len(ends) != 2:
            raise self._error(f'domain.{name} needs two ends, such as [0, "2*pi"]')
        return self._number(ends[0], f"domain.{name}"), self._number(ends[1], f"domain.{name}")

    def _field(self, name: str, entry: Any) -> Field:
        known = ("mean", "amplitude", "lengthscale")
        numbers = self._checked(entry, f"fields.{name}", known)
        return Field(name, self.box, **{k: self._number(v, f"fields.{name}.{k}") for k, v in numbers.items()})

    def _unknown(self, name: str, entry: Any) -> Unknown:
        where = f"unknowns.{name}"
        table = self._checked(entry, where, ("prior", *sorted({k for p in _PRIORS.values() for k in p[1]})), ("prior",))
        if table["prior"] not in _PRIORS:
            raise self._error(f"{where}: there is no prior {table['prior']!r}{_meant(table['prior'], _PRIORS)}")
        make, arguments = _PRIORS[table["prior"]]
        given = {k: v for k, v in table.items() if k != "prior"}
        if set(given) != set(arguments):
            raise self._error(f"{where}: the prior {table['prior']} needs {' and '.join(arguments)}")
        values = {arguments[k]: torch.tensor(self._number(v, f"{where}.{k}")).double() for k, v in given.items()}
        try:
            return Unknown(name, make(**values))
        except ValueError:
            raise self._error(f"{where}: {', '.join(f'{k} = {v}' for k, v in given.items())} is no prior") from None

    def _array(self, name: str, where: str) -> np.ndarray:
        file = self.file.parent / str(name)
        try:
            if file.suffix == ".npy":
                return np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
            return np.loadtxt(file, delimiter=",", ndmin=1, dtype=np.float64)
        except FileNotFoundError:
            raise self._error(f"{where}: there is no file {file.name} beside the problem") from None
        except (ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise self._error(f"{where}: {file.name} is not an array (.npy, or text with commas): {reason}") from None

    def _data(self, name: str, entry: Any) -> Any:
        table = self._checked(entry, f"data.{name}", ("file", "noise"), ("file",))
        if name in self.names:
            raise self._error(f"the name {name!r} is used twice")
        values = self._array(table["file"], f"data.{name}")
        if "noise" in table:
            try:
                return Noisy(values, self._noise(table["noise"], f"data.{name}.noise"))
            except InvalidDataError as error:
                message = str(error)
                raise error if message.startswith(self.file.name) else self._error(f"data.{name}: {error}") from None
        return Gridded.of(values, what=f"data.{name}")

    def _equation(self, text: Any, index: int) -> Equation:
        where = f"equation {index + 1}"
        if not isinstance(text, str):
            raise self._error(f"{where}: an equation is a text, got {type(text).__name__}")
        if text.replace("==", "=").count("=") == 1:
            left, right = (part.strip() for part in text.replace("==", "=").split("="))
            if right in self.data:
                return convert(self._expression(left, self.names, where)) == self.data[right]
        try:
            left_side, right_side = equation_from_text(text, self.names)
        except InvalidDataError as error:
            raise self._error(f"{where}: {error}") from None
        return convert(left_side) == right_side

    def _condition(self, entry: Any, index: int) -> Any:
        where = f"condition {index + 1}"
        known = ("type", "of", "on", "value", "alpha", "beta", "velocity", "axes")
        table = self._checked(entry, where, known, ("type",))
        kind = table["type"]
        if kind not in _CONDITIONS:
            raise self._error(f"{where}: there is no type {kind!r}{_meant(kind, _CONDITIONS)}")
        self._checked(table, f"{where} ({kind})", ("type", *_CONDITIONS[kind]))
        try:
            if kind == "periodic":
                return Periodic(*table.get("axes", ()))
            target = self._target(table.get("of"), where)
            value = self._value(table.get("value", 0.0), where)
            if kind == "initial":
                velocity = table.get("velocity")
                given = None if velocity is None else self._value(velocity, where)
                return Initial(target, str(table.get("on", "t=0")), value, velocity=given)
            faces = table.get("on")
            places = [target.on(f) for f in ([faces] if isinstance(faces, str) else faces)] if faces else [target]
            if kind == "robin":
                alpha, beta = (self._value(table.get(k, 1.0), where) for k in ("alpha", "beta"))
                return [Robin(place, alpha, beta, value) for place in places]
            return [(Dirichlet if kind == "dirichlet" else Neumann)(place, value) for place in places]
        except InvalidDataError as error:
            message = str(error)
            raise error if message.startswith(self.file.name) else self._error(f"{where}: {error}") from None

    def _target(self, text: Any, where: str) -> Expression:
        if text is None:
            return next(iter(self.fields.values()))
        found = self._expression(text, self.names, where)
        if not isinstance(found, Expression) or not found.jets:
            raise self._error(f"{where}: {text!r} holds no field")
        return found

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, str) and value in self.data:
            return self.data[value]
        return self._expression(value, self.names, where)

    def _observation(self, entry: Any, index: int) -> Observe:
        where = f"observation {index + 1}"
        table = self._checked(entry, where, ("of", "file", "points", "values", "noise"))
        target = self._target(table.get("of"), where)
        if "file" in table:
            array = np.atleast_2d(self._array(table["file"], where))
            d = self.box.dim
            if array.shape[1] not in (d + 1, d + 2):
                raise self._error(
                    f"{where}: {table['file']} needs the columns {', '.join(self.box.names)}, value and, optionally, "
                    f"noise; it has {array.shape[1]}"
                )
            points: Any = array[:, :d]
            values: Any = array[:, d]
            noise: Any = array[:, d + 1] if array.shape[1] == d + 2 else table.get("noise")
        else:
            points, values, noise = table.get("points"), table.get("values"), table.get("noise")
        if points is None or values is None or noise is None:
            raise self._error(f"{where} needs a file, or points and values; and noise (a number, or {_UNKNOWN!r})")
        try:
            return Observe(target, points, values, self._noise(noise, where) if isinstance(noise, str) else noise)
        except InvalidDataError as error:
            raise self._error(f"{where}: {error}") from None


def _meant(name: Any, known: Iterable[str]) -> str:
    """What was probably meant, or what there is."""
    choices = list(known)
    close = difflib.get_close_matches(str(name), choices, 1, 0.6)
    return f": did you mean {close[0]!r}?" if close else f": choose from {', '.join(choices)}"


_UNKNOWN = "unknown"
_SAMPLING = {"draws": 4, "tune": 0, "chains": 1}  # at least
_CHOICES = {
    "method": ("auto", "spectral", "exact", "gphm"),
    "inference": ("laplace", "nuts"),
    "basis": ("auto", "picked", "broadband"),
}
_TYPES = {str: "text", list: "list", dict: "table"}
_CONDITIONS = {
    "dirichlet": ("of", "on", "value"),
    "neumann": ("of", "on", "value"),
    "robin": ("of", "on", "value", "alpha", "beta"),
    "initial": ("of", "on", "value", "velocity"),
    "periodic": ("axes",),
}
_PRIORS: dict[str, tuple[Any, dict[str, str]]] = {
    "normal": (torch.distributions.Normal, {"mean": "loc", "sd": "scale"}),
    "lognormal": (torch.distributions.LogNormal, {"mean_log": "loc", "sd_log": "scale"}),
    "uniform": (torch.distributions.Uniform, {"low": "low", "high": "high"}),
    "halfnormal": (torch.distributions.HalfNormal, {"sd": "scale"}),
    "gamma": (torch.distributions.Gamma, {"shape": "concentration", "rate": "rate"}),
}
