"""Judge a rule on Arrow columns: which rows are not as expected.

The meaning is that of the Great Expectations types that `rules` names: null is judged by `not_null` alone, and all
rows that share a value count when it should be unique. `greatly` has the library judge the same; it takes seconds to
import, while this takes milliseconds, which is why `dvc repro` uses this one. Tests hold the two together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.qa.rules import Rule

Mask = npt.NDArray[np.bool_]
SLACK = 1e-6
"""Means of numbers that lie in a range may leave it by rounding."""


def unexpected(rule: Rule, rows: pa.Table) -> Mask:
    """Per row, whether it breaks the rule: bool[N]. Foreign keys and order are judged on their flag column."""
    columns = [_flat(rows[c]) for c in ((flag(rule),) if rule.kind in {"foreign", "sorted"} else rule.columns)]
    match rule.kind:
        case "not_null":
            found = ~_valid(columns[0])
        case "between":
            found = _outside(columns[0], rule.low, rule.high)
        case "ordered":
            order = pc.less if rule.or_equal else pc.less_equal
            found = _mask(pc.and_(_both(*columns), pc.fill_null(order(columns[1], columns[0]), False)))
        case "same":
            found = _mask(pc.and_(_both(*columns), pc.fill_null(pc.not_equal(*columns), False)))
        case "member":
            values = pa.array(rule.members).cast(columns[0].type)
            found = _mask(pc.and_(pc.is_valid(columns[0]), pc.invert(pc.is_in(columns[0], value_set=values))))
        case "foreign" | "sorted":
            found = _mask(pc.invert(columns[0]))
        case "unique":
            found = _repeated(columns)
    return found


def flag(rule: Rule) -> str:
    """Name of the column that says per row whether a foreign key is found, or the row is in order."""
    return "row is in order" if rule.kind == "sorted" else f"{rule.columns[0]} is found"


def in_order(columns: list[pa.Array]) -> pa.Array:
    """Per row, whether it is not below the row before it, by the columns one after the other: bool[N]."""
    n = len(columns[0])
    below, tied = np.zeros(max(n - 1, 0), bool), np.ones(max(n - 1, 0), bool)
    for column in (_flat(c) for c in columns):
        if n < 2 or not tied.any():
            break
        a, b = column[:-1], column[1:]
        below |= tied & _mask(pc.fill_null(pc.less(b, a), False))
        tied &= _mask(pc.fill_null(pc.equal(a, b), True))
    return pa.array(np.concatenate([np.ones(min(n, 1), bool), ~below]))


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column


def _mask(values: pa.Array) -> Mask:
    found: Mask = np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)
    return found


def _valid(column: pa.Array) -> Mask:
    missing = pc.is_null(column, nan_is_null=True)
    return ~_mask(missing)


def _both(a: pa.Array, b: pa.Array) -> pa.Array:
    return pc.and_(pc.is_valid(a), pc.is_valid(b))


def _outside(column: pa.Array, low: float | None, high: float | None) -> Mask:
    valid = _valid(column)
    out = np.zeros(len(column), bool)
    whole = pa.types.is_integer(column.type)
    for limit, compare, slack in ((low, pc.less, -SLACK), (high, pc.greater, SLACK)):
        if limit is not None and not (whole and limit == 0 and pa.types.is_unsigned_integer(column.type)):
            edge = pa.scalar(int(limit), column.type) if whole else pa.scalar(limit + slack, column.type)
            out |= _mask(pc.fill_null(compare(column, edge), False))
    return out & valid


def _repeated(columns: list[pa.Array]) -> Mask:
    """Rows whose values, all columns taken together, occur more than once. Rows of nulls alone do not count."""
    codes = np.stack([_codes(c) for c in columns], axis=1)
    some = np.any([_valid(c) for c in columns], axis=0)
    order = np.lexsort(codes.T[::-1])
    ranked = codes[order]
    same = (ranked[1:] == ranked[:-1]).all(axis=1)
    twice = np.zeros(len(codes), bool)
    twice[order[1:][same]] = True
    twice[order[:-1][same]] = True
    found: Mask = twice & some
    return found


def _codes(column: pa.Array) -> npt.NDArray[Any]:
    """Whole numbers that are equal where values are."""
    if pa.types.is_integer(column.type) and column.null_count == 0 and column.type != pa.uint64():
        return np.asarray(column.to_numpy(), dtype=np.int64)
    coded = pc.dictionary_encode(column)
    codes = np.asarray(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.where(_valid(column), codes, -1)
