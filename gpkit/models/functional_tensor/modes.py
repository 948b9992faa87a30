"""What a user says about the modes of a tensor, and how columns of a table become coordinates of factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpkit.errors import InvalidDataError
from gpkit.inference.structured_vb import BasisFactor, Factor, IndependentFactor, MarkovFactor

__all__ = ["Categorical", "Continuous", "Encoding", "ModeSpec", "Spatial"]

Array = NDArray[np.float64]


class ModeSpec(ABC):
    """One mode: its name, and the columns of a table that hold its coordinates."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns."""
        return (self.name,)

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> Encoding:
        """Find the distinct coordinates of the data, one array per column."""


@dataclass(frozen=True, eq=False)
class Continuous(ModeSpec):
    """A mode with an ordered coordinate, whose functions are Markov Gaussian processes.

    Args:
        name: of the column.
        kernel: any kernel with a state space: Matern, periodic, sums and products; Matern-5/2 by default.
        learn: whether length scales and variances are learned. They then start at a tenth of the range; periods are
            always kept as given.
        width: of the bins around the coordinates that entries are averages over (a day, an exposure), for a
            :class:`~gpkit.kernels.BinAveragedKernel`. Bins must not overlap.

    Raises:
        InvalidDataError: for a width without a kernel of bins, or the reverse, or one that is negative.
    """

    name: str
    kernel: Any = None
    learn: bool = True
    width: float | None = None

    def __post_init__(self) -> None:
        from gpytorch.kernels import Kernel

        from gpkit.kernels import BinAveragedKernel

        if self.kernel is not None and not isinstance(self.kernel, Kernel):
            raise InvalidDataError(f"the kernel of {self.name!r} must be a GPyTorch kernel, got {self.kernel!r}")
        if isinstance(self.kernel, BinAveragedKernel) != (self.width is not None):
            raise InvalidDataError(f"{self.name!r}: a BinAveragedKernel and the width of its bins go together")
        if self.width is not None and not 0.0 <= self.width < np.inf:
            raise InvalidDataError(f"{self.name!r}: the width of bins must not be negative, got {self.width}")

    def encode(self, values: Sequence[Any]) -> Encoding:
        """Increasing distinct values."""
        return _ContinuousEncoding(self, np.asarray(values[0], dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Categorical(ModeSpec):
    """A mode whose coordinates are names without an order; its functions are independent at each.

    Args:
        name: of the column.
    """

    name: str

    def encode(self, values: Sequence[Any]) -> Encoding:
        """Levels in the order of their names."""
        return _CategoricalEncoding(self, values[0])


@dataclass(frozen=True, eq=False)
class Spatial(ModeSpec):
    """A mode with places in several dimensions, whose functions are Gaussian processes of any GPyTorch kernel.

    Args:
        name: of the mode.
        axes: its columns, two or more.
        kernel: of the places; Matern-3/2 of the distance by default.
        components: principal components that are kept; None keeps all, which is exact at the places of the data.
        learn: whether length scales are learned.

    Raises:
        InvalidDataError: for fewer than two axes.
    """

    name: str
    axes: tuple[str, ...]
    kernel: Any = None
    components: int | None = None
    learn: bool = True

    def __post_init__(self) -> None:
        if len(self.axes) < 2:
            raise InvalidDataError(f"the axes of {self.name!r} must be two columns or more, got {self.axes!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The axes."""
        return tuple(self.axes)

    def encode(self, values: Sequence[Any]) -> Encoding:
        """Distinct places."""
        return _SpatialEncoding(self, np.stack([np.asarray(v, dtype=np.float64) for v in values], 1))


class Encoding(ABC):
    """Distinct coordinates of a mode in the data, and the way from values to them.

    Attributes:
        spec: what the user said.
        points: distinct coordinates as numbers, (J,) or (J, D).
    """

    spec: ModeSpec
    points: Array

    @property
    def size(self) -> int:
        """Number of distinct coordinates."""
        return len(self.points)

    @property
    def categorical(self) -> bool:
        """Whether the numbers are codes of a category."""
        return False

    @abstractmethod
    def numbers(self, values: Sequence[Any]) -> Array:
        """Values as the numbers that factors understand, (n,) or (n, D).

        Raises:
            InvalidDataError: for values that are not numbers, or levels that the data did not have.
        """

    def check(self, given: NDArray[Any]) -> None:
        """Refuse coordinates of a mode that are of another kind than those of the data.

        Raises:
            InvalidDataError: for numbers where the data had names, or the reverse.
        """
        return None

    def index(self, numbers: Array) -> NDArray[np.int32]:
        """Which of the distinct coordinates each of the data's own numbers is."""
        return np.searchsorted(self.points, numbers).astype(np.int32)

    def labels(self) -> NDArray[Any]:
        """Distinct coordinates as the user wrote them."""
        return self.points

    def numbers_of(self, other: Encoding) -> Array:
        """The coordinates of another encoding of the same mode in this one's numbers; -1 for unknown levels."""
        return other.points

    @abstractmethod
    def factor(self, rank: int) -> Factor:
        """A factor of this mode."""


class _ContinuousEncoding(Encoding):
    def __init__(self, spec: Continuous, values: Array) -> None:
        self.spec: Continuous = spec
        self.points = np.unique(values)

    def numbers(self, values: Sequence[Any]) -> Array:
        found = np.asarray(values[0], dtype=np.float64)
        if self.spec.width is not None:
            centres = np.unique(np.concatenate([self.points, found]))
            close = np.flatnonzero(np.diff(centres) < self.spec.width * (1.0 - 1e-12))
            if close.size:
                first, second = centres[close[0] : close[0] + 2]
                raise InvalidDataError(
                    f"bins of width {self.spec.width} at {first} and {second} of {self.spec.name!r} overlap: "
                    "coordinates must be at least a width apart"
                )
        return found

    def factor(self, rank: int) -> Factor:
        from gpkit.kernels import MaternKernel

        kernel = MaternKernel(2.5) if self.spec.kernel is None else self.spec.kernel
        return MarkovFactor(kernel, self.points, rank, learn=self.spec.learn, width=self.spec.width)


class _CategoricalEncoding(Encoding):
    def __init__(self, spec: Categorical, values: Any) -> None:
        self.spec: Categorical = spec
        self._levels = np.unique(np.asarray(values))
        self.points = np.arange(len(self._levels), dtype=np.float64)

    @property
    def categorical(self) -> bool:
        return True

    def numbers(self, values: Sequence[Any]) -> Array:
        given = np.asarray(values[0])
        self.check(given)
        at = np.minimum(np.searchsorted(self._levels, given), len(self._levels) - 1)
        strange = np.flatnonzero(self._levels[at] != given)
        if strange.size:
            known = ", ".join(map(str, self._levels[:6])) + (", ..." if len(self._levels) > 6 else "")
            raise InvalidDataError(
                f"row {strange[0]} of {self.spec.name!r} is {given[strange[0]]}, which the data of the fit did not "
                f"have ({known})"
            )
        return at.astype(np.float64)

    def check(self, given: NDArray[Any]) -> None:
        if given.dtype.kind != self._levels.dtype.kind and "U" in (given.dtype.kind, self._levels.dtype.kind):
            raise InvalidDataError(
                f"{self.spec.name!r} has levels such as {self._levels[:1].tolist()[0]!r} in the data of the "
                f"fit, got {given[:1].tolist()[0]!r}"
            )

    def labels(self) -> NDArray[Any]:
        return self._levels

    def numbers_of(self, other: Encoding) -> Array:
        known = {level: code for code, level in enumerate(self._levels)}
        return np.array([known.get(level, -1) for level in other.labels()], dtype=np.float64)

    def factor(self, rank: int) -> Factor:
        return IndependentFactor(self.size, rank)


class _SpatialEncoding(Encoding):
    def __init__(self, spec: Spatial, values: Array) -> None:
        self.spec: Spatial = spec
        self.points = np.unique(values, axis=0)

    def numbers(self, values: Sequence[Any]) -> Array:
        return np.stack([np.asarray(v, dtype=np.float64) for v in values], 1)

    def index(self, numbers: Array) -> NDArray[np.int32]:
        _, inverse = np.unique(np.concatenate([self.points, numbers]), axis=0, return_inverse=True)
        return inverse.reshape(-1)[len(self.points) :].astype(np.int32)

    def factor(self, rank: int) -> Factor:
        import gpytorch

        kernel = gpytorch.kernels.MaternKernel(nu=1.5) if self.spec.kernel is None else self.spec.kernel
        return BasisFactor(kernel, self.points, rank, components=self.spec.components, learn=self.spec.learn)
