"""Sums, medians and shares per group, and frames of one measured value per place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.qa.frames import F64, Frame, Place, Tables

VALUE = "value"


def groups(keys: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Distinct keys, ascending, and per row the number of its key."""
    found, index = np.unique(keys, return_inverse=True)
    return found, np.asarray(index, dtype=np.int64).reshape(-1)


def sums(index: npt.NDArray[np.int64], values: npt.NDArray[Any], n: int) -> F64:
    """Sum of `values` per group: float64[n]."""
    return np.bincount(index, np.asarray(values, dtype=np.float64), n).astype(np.float64)


def medians(index: npt.NDArray[np.int64], values: F64, n: int) -> F64:
    """Median of `values` per group, NaN for a group without any: float64[n]."""
    order = np.lexsort((values, index))
    count = np.bincount(index, minlength=n)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    ranked, some = values[order], count > 0
    out = np.full(n, np.nan)
    low, high = start + (count - 1) // 2, start + count // 2
    out[some] = (ranked[low[some]] + ranked[high[some]]) / 2
    return out


def ratio(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> F64:
    """a / b, NaN where b is 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    out: F64 = np.divide(a, b, out=np.full(len(b), np.nan), where=b != 0)
    return out


def frame(values: npt.NDArray[Any] | Sequence[float], place: Callable[[int], Place]) -> Frame:
    """A frame of one value per place; places without a value (NaN) are left out, because there is nothing to judge."""
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    kept = np.flatnonzero(np.isfinite(found))
    return Frame(pa.table({VALUE: found[kept]}), lambda i: place(int(kept[i])))


def whole(value: float) -> Frame:
    """One value for the whole dataset."""
    return frame([value], lambda _: Place("whole dataset"))


def per_section(t: Tables, sections: npt.NDArray[Any], values: npt.NDArray[Any]) -> Frame:
    """One value per section."""
    return frame(values, lambda i: t.in_section(int(sections[i])))


def per_unit(t: Tables, stage: str, units: npt.NDArray[Any], values: npt.NDArray[Any]) -> Frame:
    """One value per unit of a stage."""
    return frame(values, lambda i: t.in_unit(stage, int(units[i])))
