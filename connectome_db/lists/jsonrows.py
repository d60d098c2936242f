"""Rows in JSON: what neuPrint answers ({"columns": [...], "data": [[...], ...]}), or a list of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectome_db.errors import SourceError


def read(path: Path) -> pa.Table:
    """The rows; whole numbers stay exact, other values become text as they are written. Raises SourceError."""
    try:
        # Numbers with a point or an exponent stay text: whether digits were lost is judged where they are used.
        value = json.loads(path.read_text(encoding="utf-8-sig"), parse_float=str, parse_constant=str)
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise SourceError(f"{path}: is not valid JSON: {e}") from e
    if isinstance(value, dict) and isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        names = [str(c) for c in value["columns"]]
        rows = value["data"]
        for number, row in enumerate(rows, 1):
            if not isinstance(row, list) or len(row) != len(names):
                raise SourceError(f"{path}: row {number} of `data` is no list of {len(names)} values: {str(row)[:100]}")
        columns = [[row[k] for row in rows] for k in range(len(names))]
    elif isinstance(value, list) and all(isinstance(row, dict) for row in value):
        names = list(dict.fromkeys(str(k) for row in value for k in row))
        columns = [[row.get(n) for row in value] for n in names]
    else:
        raise SourceError(
            f'{path}: wanted {{"columns": [...], "data": [[...], ...]}} as neuPrint answers, or a list of records'
        )
    return pa.Table.from_arrays([_column(c) for c in columns], names=names)


def _column(values: list[Any]) -> pa.Array:
    if all(v is None or (isinstance(v, int) and not isinstance(v, bool) and abs(v) < 1 << 63) for v in values):
        return pa.array(values, pa.int64())
    return pa.array([_text(v) for v in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
