"""The connections as memory-mapped arrays, and what can be read off them without computing: who is whose partner.

Apart from `adjacency`, which needs compiled kernels: these take seconds to import, and SQL needs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from connectome_db.errors import QueryError, nearest

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Direction = Literal["out", "in"]
Scalar = TypeVar("Scalar", np.uint64, np.int64, np.int32)

FOLDER = Path("data", "graph", "adjacency")
REMEDY = "run `connectome finish graph` (or `connectome verify --repair`)"
"""What to do about an adjacency that is not there, or is not right."""


@dataclass(frozen=True)
class Side:
    """One direction: row i of CSR has the partners of neuron i."""

    start: I64
    """Where each row begins, int64[N + 1]."""
    partner: I32
    """Partners as indices into the neurons, ascending in a row, int32[E]."""
    synapses: I32
    """Synapses of each connection, int32[E]."""


@dataclass(frozen=True)
class Arrays:
    """Connections of a project in both directions. Arrays are read-only and memory-mapped."""

    folder: Path
    """Where they lie, for messages."""
    neurons: U64
    """Ids of all neurons, ascending, uint64[N]."""
    out: Side
    into: Side

    @classmethod
    def open(cls, project: Path | str) -> Self:
        """Of the project in a folder. Raises QueryError when it has no adjacency, or a damaged one."""
        folder = Path(project) / FOLDER
        if not folder.is_dir():
            raise QueryError(f"{folder}: no adjacency: {REMEDY}")
        try:
            neurons = _load(folder, "neuron", np.uint64)
            sides = [
                Side(
                    _load(folder, f"{way}_start", np.int64),
                    _load(folder, f"{way}_partner", np.int32),
                    _load(folder, f"{way}_synapses", np.int32),
                )
                for way in ("out", "in")
            ]
        except (OSError, ValueError) as e:
            raise QueryError(f"{folder}: cannot be read ({e}): {REMEDY}") from e
        edges = len(sides[0].partner)
        for side in sides:
            if len(side.start) != len(neurons) + 1 or not len(side.partner) == len(side.synapses) == edges:
                raise QueryError(f"{folder}: its arrays do not fit together: {REMEDY}")
        return cls(folder, neurons, *sides)

    @property
    def connections(self) -> int:
        """Number of connections."""
        return len(self.out.partner)

    def index(self, neuron: int) -> int:
        """Where a neuron stands in `neurons`. Raises QueryError that names the nearest id for one that is not there."""
        if 0 <= neuron < 1 << 64:
            at = int(np.searchsorted(self.neurons, np.uint64(neuron)))
            if at < len(self.neurons) and self.neurons[at] == neuron:
                return at
            some = [str(v) for v in self.neurons[max(at - 2, 0) : at + 2]]
            raise QueryError(f"no neuron {neuron}{nearest(str(neuron), some)}")
        raise QueryError(f"no neuron {neuron}: wanted a whole number from 1 to 2**63 - 1")

    def indices(self, neurons: Sequence[int] | U64) -> I64:
        """`index` of each, int64[len]."""
        if isinstance(neurons, np.ndarray) and neurons.dtype == np.uint64:
            at = np.minimum(np.searchsorted(self.neurons, neurons), max(len(self.neurons) - 1, 0))
            if len(self.neurons) and (self.neurons[at] == neurons).all():
                return at.astype(np.int64)
        return np.asarray([self.index(int(n)) for n in neurons], dtype=np.int64)

    def side(self, direction: str) -> Side:
        """One direction of the arrays. Raises QueryError for a word that is neither `out` nor `in`."""
        if direction not in ("out", "in"):
            raise QueryError(f"direction {direction!r}: wanted 'out' or 'in'{nearest(direction, ['out', 'in'])}")
        return self.out if direction == "out" else self.into

    def partners_of_each(self, neurons: U64, direction: Direction) -> tuple[I64, U64, I64]:
        """Partners of each of `neurons`, which may be ids that no neuron has: those have none.

        Returns where the partners of each begin, int64[len + 1], and all their ids and synapses, one after the other
        and ascending by id within each. Raises QueryError when what lies in the files cannot be right.
        """
        side, n = self.side(direction), len(self.neurons)
        if not n:
            return np.zeros(len(neurons) + 1, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self.neurons, neurons), n - 1)
        known = self.neurons[at] == neurons
        first = np.where(known, side.start[at], 0)
        end = np.where(known, side.start[at + 1], 0)
        if (first < 0).any() or (end < first).any() or (end > self.connections).any():
            raise self._damaged(direction, "start")
        count = end - first
        ends = np.concatenate([[0], np.cumsum(count)])
        edge = np.repeat(first - ends[:-1], count) + np.arange(ends[-1])
        partner = side.partner[edge]
        if (partner.view(np.uint32) >= n).any():
            raise self._damaged(direction, "partner")
        return ends, self.neurons[partner], side.synapses[edge].astype(np.int64)

    def _damaged(self, direction: Direction, name: str) -> QueryError:
        return QueryError(f"{self.folder}: {direction}_{name}.npy is damaged: {REMEDY}")


def _load(folder: Path, name: str, dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    array = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{name}.npy: wanted {np.dtype(dtype)}[N], got {array.dtype}{list(array.shape)}")
    return array
