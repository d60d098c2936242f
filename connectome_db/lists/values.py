"""Columns of a list -> numbers and places, with the rows that do not hold what they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.lists.names import EXACT, NOBODY, Mask

Axis = Literal["x", "y", "z", "xyz"]
AXES: tuple[Literal["z", "y", "x"], ...] = ("z", "y", "x")
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NOT_WHOLE = "is no whole number of synapses"
NO_SYNAPSE = "stands for no synapse (0)"
NEGATIVE = "is negative; wanted a number of synapses"
NO_NUMBER = "is no number"
NO_PLACE = "is no place [x, y, z]"
PART_PLACE = "says only a part of the place"
INEXACT = "is a floating-point number so large that its digits may be lost; export it as an integer or as text"


@dataclass(frozen=True)
class Fault:
    """Rows of one column that cannot be used, and why."""

    column: str
    reason: str
    rows: Mask


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any column as trimmed text; whole floating-point numbers without `.0`, lists as `[x, y, z]`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    if pa.types.is_nested(kind):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())])
    return column.cast(pa.string())


def unsaid(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a text says nothing: null, empty, or a word such as NaN."""
    return pc.fill_null(pc.is_in(pc.utf8_lower(text), value_set=pa.array(sorted(NOBODY))), True)


def labels(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of names as text, null where it says nothing."""
    text = as_text(column)
    return pc.if_else(unsaid(text), pa.scalar(None, pa.string()), text)


def own_names(name: str, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[Fault]]:
    """A list's own names of its rows, as text; floating-point numbers that are no longer exact are faults."""
    faults = []
    if pa.types.is_floating(column.type):
        values = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy()
        if (large := np.abs(values) >= EXACT).any():
            faults.append(Fault(name, INEXACT, large))
    return labels(column), faults


def numbers(name: str, column: pa.ChunkedArray) -> tuple[F64, list[Fault]]:
    """A column as float64, NaN where it says nothing."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # Rounding a measure to 53 bits is no loss; ids never come this way.
        values = np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy())
        bad = np.isinf(values)
    else:
        text = as_text(column)
        is_number = np.asarray(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False))
        bad = ~is_number & ~np.asarray(unsaid(text))
        values = np.full(len(text), np.nan)
        values[is_number] = text.filter(pa.array(is_number)).cast(pa.float64()).to_numpy()
    return values, [Fault(name, NO_NUMBER, bad)] if bad.any() else []


def weights(name: str, column: pa.ChunkedArray) -> tuple[I64, list[Fault]]:
    """A column of numbers of synapses as int64, 1 or more."""
    kind = column.type
    if pa.types.is_integer(kind):
        empty = np.asarray(pc.is_null(column))
        values = np.asarray(pc.fill_null(column.cast(pa.int64(), safe=False), 0).to_numpy())
        bad = empty
    elif pa.types.is_floating(kind):
        measured = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
        bad = ~(np.floor(measured) == measured) | (np.abs(measured) >= EXACT)
        values = np.where(bad, 0, measured).astype(np.int64)
    else:
        text = as_text(column)
        whole = pc.fill_null(pc.match_substring_regex(text, r"^[+-]?[0-9]{1,15}(\.0*)?$"), False)
        bad = ~np.asarray(whole)
        values = np.zeros(len(text), np.int64)
        values[~bad] = pc.replace_substring_regex(text.filter(whole), r"^\+|\.0*$", "").cast(pa.int64()).to_numpy()
    faults = [
        Fault(name, NOT_WHOLE, bad),
        Fault(name, NO_SYNAPSE, ~bad & (values == 0)),
        Fault(name, NEGATIVE, ~bad & (values < 0)),
    ]
    return values, [f for f in faults if f.rows.any()]


def places(columns: Mapping[Axis, str], table: pa.Table, nm: float) -> tuple[dict[str, F64], list[Fault]]:
    """z, y and x, each float64 with NaN where unknown, times `nm`; `columns` as `SynapseList.position`."""
    if "xyz" in columns:
        return _listed_places(columns["xyz"], table[columns["xyz"]], nm)
    found, faults = {}, []
    for axis in AXES:
        found[axis], wrong = numbers(columns[axis], table[columns[axis]])
        faults += wrong
    missing = {axis: np.isnan(v) for axis, v in found.items()}
    some, every = missing["z"] | missing["y"] | missing["x"], missing["z"] & missing["y"] & missing["x"]
    wrong_already = np.zeros(len(some), bool)
    for f in faults:
        wrong_already |= f.rows
    part = some & ~every & ~wrong_already
    for axis in AXES:
        if (rows := part & missing[axis]).any():
            faults.append(Fault(columns[axis], PART_PLACE, rows))
    return {axis: v * nm for axis, v in found.items()}, faults


def _listed_places(name: str, column: pa.ChunkedArray, nm: float) -> tuple[dict[str, F64], list[Fault]]:
    kind = column.type
    found = {axis: np.full(len(column), np.nan) for axis in "zyx"}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        given = np.asarray(pc.is_valid(column))
        three = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(column), 3), False))
        good = column.filter(pa.array(three))
        for k, axis in enumerate("xyz"):
            values = pc.fill_null(pc.list_element(good, k).cast(pa.float64()), np.nan)
            found[axis][three] = values.to_numpy()
    else:
        text = as_text(column)
        given = ~np.asarray(unsaid(text))
        three = np.asarray(pc.fill_null(pc.match_substring_regex(text, _PLACE), False))
        parts = pc.extract_regex(text.filter(pa.array(three)), _PLACE)
        for axis in "xyz":
            found[axis][three] = pc.struct_field(parts, axis).cast(pa.float64()).to_numpy()
    bad = given & (~three | np.isnan(found["x"] + found["y"] + found["z"]))
    return {axis: v * nm for axis, v in found.items()}, [Fault(name, NO_PLACE, bad)] if bad.any() else []


_N = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_NUMBER = rf"^{_N}$"
_PLACE = rf"^[\[(]?\s*(?P<x>{_N})\s*[,;\s]\s*(?P<y>{_N})\s*[,;\s]\s*(?P<z>{_N})\s*[\])]?$"
