"""Rows of an answer as CSV, JSON or Parquet. Ids keep all their digits: in JSON they are text."""

from __future__ import annotations

import csv
import io
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.errors import QueryError

FORMATS = ("csv", "json", "parquet")


def read_bytes(path: Path) -> bytes:
    """The content of a file that a user named. Raises QueryError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise QueryError(f"{path}: cannot be read ({e.strerror})") from None


def text_of(table: pa.Table, how: str) -> str:
    """The rows as `csv` (lists joined by ;) or `json` (a list of objects, ids as text)."""
    if how == "csv":
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_cell(v) for v in row.values()] for row in table.to_pylist())
        return sink.getvalue()
    wide = {f.name for f in table.schema if "uint64" in str(f.type)}
    rows = [{k: _as_text(v) if k in wide else v for k, v in r.items()} for r in table.to_pylist()]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def write(table: pa.Table, path: Path, how: str | None = None) -> None:
    """Write the rows to a new file, as `how` or as its name ends (.csv, .json, .parquet); CSV for other names.

    Raises QueryError when the file cannot be written.
    """
    ending = path.suffix.lower().removeprefix(".")
    chosen = how or (ending if ending in FORMATS else "csv")
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        if chosen == "parquet":
            pq.write_table(table, tmp, compression="zstd")
        else:
            tmp.write_text(text_of(table, chosen), encoding="utf-8", newline="")
        tmp.replace(path)
    except OSError as e:
        raise QueryError(f"{path}: cannot be written ({e.strerror or e})") from None
    finally:
        tmp.unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ";".join("" if v is None else str(v) for v in value)
    return "" if value is None else value


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [str(v) for v in value]
    return None if value is None else str(value)
