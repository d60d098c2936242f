"""Digests of a query's answer: of its rows in their order, and of the same rows in any order."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from connectome_db.provenance import digest, table_digest


def columns(rows: pa.Table) -> list[tuple[str, str]]:
    """(name, type) of each column, types as Arrow names them: ids are `uint64`."""
    return [(f.name, str(f.type)) for f in rows.schema]


def answer_digests(rows: pa.Table) -> tuple[str, str]:
    """Two SHA-256 digests over column names, types and values: rows as they came, and rows sorted by all columns.

    Values are compared as they are: ids as integers, floats bit by bit (-0.0 as 0.0, one NaN).
    """
    head = columns(rows)
    # The names are in the head; here they would have to be unique, which those of an answer need not be.
    plain = pa.table({str(i): _plain(c) for i, c in enumerate(rows.columns)})
    by_all = plain.sort_by([(name, "ascending") for name in plain.column_names])
    ordered, sorted_ = (digest("answer", [head, table_digest(t)]) for t in (plain, by_all))
    return ordered, sorted_


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of numbers, truth values or text: other types as text that tells their values apart."""
    kind = column.type
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_string(kind):
        return column
    texts = [None if v is None else json.dumps(v, default=_text, ensure_ascii=False) for v in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, type=pa.string())])


def _text(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)
