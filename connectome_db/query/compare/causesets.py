"""Causes, and sets of causes kept once each: a unit or a row holds the number of its set.

A dataset has few distinct sets however many units it has, so sets are unions of Python integers used as bit masks (any
number of causes), and arrays hold int64 numbers of sets. Set 0 is the empty one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.geometry import Box

I64 = npt.NDArray[np.int64]
NOTHING = 0
"""The set without causes."""


@dataclass(frozen=True)
class Cause:
    """One thing that differs between two versions and made units differ. Equal fields (but `boxes`) are one cause."""

    kind: str
    """parameter, model, code, tile, source, voxel size, format, stage, extent, environment or unknown."""
    stage: str
    name: str = ""
    """Parameter, tile or input."""
    region: str = ""
    """The region whose override it is; empty for the whole dataset."""
    old: str = ""
    new: str = ""
    note: str = ""
    section: int | None = None
    boxes: tuple[Box, ...] = field(default=(), compare=False)
    """Where it applies, in voxels; empty for the whole dataset."""

    @property
    def text(self) -> str:
        """The cause in words."""
        what = {
            "parameter": f"{self.stage}.{self.name}",
            "model": f"model of {self.stage}",
            "code": f"code of {self.stage}",
            "tile": f"section {self.section}" + (f", tile {self.name}" if self.name else ""),
            "source": f"source {self.name}",
            "stage": f"stage {self.stage}",
            "format": "format of keys",
            "extent": f"extent of {self.stage}",
            "environment": f"{self.stage} gave other content under the same key",
            "unknown": f"{self.stage}: nothing recorded explains it",
        }.get(self.kind, self.kind)
        change = f": {self.old or 'none'} → {self.new or 'none'}" if self.old or self.new else ""
        return (
            (f"region {self.region}: " if self.region else "") + what + change + (f" ({self.note})" * bool(self.note))
        )


def shown(value: Any) -> str:
    """A parameter's value as it is written in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


class CauseSets:
    """Causes by number, and the distinct sets of them, both in the order in which they were first met."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []
        self._ids: dict[Cause, int] = {}
        self._masks: list[int] = [0]
        self._number: dict[int, int] = {0: NOTHING}

    def __len__(self) -> int:
        return len(self._masks)

    def of(self, causes: Iterable[Cause]) -> int:
        """The number of the set of these causes; new ones are entered."""
        mask = 0
        for cause in causes:
            if cause not in self._ids:
                self._ids[cause] = len(self.causes)
                self.causes.append(cause)
            mask |= 1 << self._ids[cause]
        return self._intern(mask)

    def ids(self, number: int) -> tuple[int, ...]:
        """The cause ids of a set, ascending."""
        mask, found = self._masks[number], []
        while mask:
            low = mask & -mask
            found.append(low.bit_length() - 1)
            mask ^= low
        return tuple(found)

    def union(self, a: I64, b: I64) -> I64:
        """Element by element, the union of two arrays of sets."""
        out = np.where(a == NOTHING, b, a)
        both = np.flatnonzero((a != NOTHING) & (b != NOTHING) & (a != b))
        if len(both):
            pairs, index = np.unique(np.stack([a[both], b[both]], axis=1), axis=0, return_inverse=True)
            joined = [self._intern(self._masks[x] | self._masks[y]) for x, y in pairs.tolist()]
            out[both] = np.asarray(joined, dtype=np.int64)[index.ravel()]
        return np.asarray(out, dtype=np.int64)

    def union_all(self, sets: I64) -> int:
        """The union of all sets of an array."""
        mask = 0
        for number in np.unique(sets).tolist():
            mask |= self._masks[number]
        return self._intern(mask)

    def gather(self, rows: I64, sets: I64, n: int) -> I64:
        """The union of `sets` over equal `rows` (0 <= row < n): int64[n], the empty set where a row has none.

        Neighbours are joined in pairs, so the rounds are the logarithm of the longest row and nothing is looped over.
        """
        out = np.zeros(n, dtype=np.int64)
        rows, sets = _distinct(rows[sets != NOTHING], sets[sets != NOTHING])
        while len(rows):
            new = np.ones(len(rows), dtype=bool)
            new[1:] = rows[1:] != rows[:-1]
            start = np.flatnonzero(new)
            place = np.arange(len(rows)) - np.repeat(start, np.diff(np.append(start, len(rows))))
            if len(start) == len(rows):
                out[rows] = sets
                break
            left = np.flatnonzero(place % 2 == 0)
            paired = np.append(~new[1:], False)[left]
            joined = sets[left].copy()
            joined[paired] = self.union(sets[left[paired]], sets[left[paired] + 1])
            rows, sets = _distinct(rows[left], joined)
        return out

    def lists(self, sets: I64) -> pa.ListArray:
        """Cause ids per element, as a column of lists of int32."""
        numbers, index = np.unique(sets, return_inverse=True)
        known = pa.array([self.ids(k) for k in numbers.tolist()], pa.list_(pa.int32()))
        return known.take(pa.array(index.ravel(), pa.int64()))

    def sizes(self, sets: I64) -> I64:
        """How many causes each element has."""
        numbers, index = np.unique(sets, return_inverse=True)
        counts = np.asarray([self._masks[k].bit_count() for k in numbers.tolist()], dtype=np.int64)
        return counts[index.ravel()] if len(sets) else np.zeros(0, np.int64)

    def _intern(self, mask: int) -> int:
        number = self._number.get(mask)
        if number is None:
            number = self._number[mask] = len(self._masks)
            self._masks.append(mask)
        return number


def _distinct(rows: I64, sets: I64) -> tuple[I64, I64]:
    """Pairs (row, set) without repeats, ascending by row."""
    order = np.lexsort((sets, rows))
    rows, sets = rows[order], sets[order]
    if len(rows) > 1:
        keep = np.ones(len(rows), dtype=bool)
        keep[1:] = (rows[1:] != rows[:-1]) | (sets[1:] != sets[:-1])
        rows, sets = rows[keep], sets[keep]
    return rows, sets
