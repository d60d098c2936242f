"""Lists of ids as people keep them: CSV, TSV, one id per line, Parquet. Every row is kept, and no id becomes a float.

An id is read as text and turned into a uint64 only if every character of it is a digit. What is not an id stays in the
list with the reason, under its row number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.errors import QueryError, nearest

_DIGITS = re.compile(r"[0-9]+")
_NUMBER_LIKE = re.compile(r"[+-]?[0-9.,']|[+-]?(nan|inf)$", re.IGNORECASE)
_BLANK = {"", "na", "n/a", "nan", "null", "none", "-"}
_NAMES = ("id", "object", "neuron", "supervoxel", "synapse", "segment", "root", "body", "cell", "label")
_LARGEST = (1 << 64) - 1


@dataclass(frozen=True)
class IdRow:
    """One row of a list. `row` counts rows of data from 1; `line` is its place in a text file, header included."""

    row: int
    line: int | None
    text: str
    id: int | None
    problem: str | None
    """Why `text` is not an id; None when it is one."""

    @property
    def where(self) -> str:
        """Row, and line where that is another number."""
        return f"row {self.row}" + (f" (line {self.line})" if self.line not in (None, self.row) else "")


@dataclass(frozen=True)
class IdList:
    """The rows of a list in their order, and the column they come from ("" when it has no name)."""

    rows: tuple[IdRow, ...]
    column: str

    @property
    def problems(self) -> list[IdRow]:
        """Rows that are not ids."""
        return [r for r in self.rows if r.problem]


def read_ids(data: bytes, name: str, column: str | None = None) -> IdList:
    """The ids in the content of a file called `name`: Parquet by its first bytes, else text.

    `column` is a column's name, or its number from 1. Without it: the only column, or the only one called id, object,
    neuron, supervoxel, synapse or the like (also with `_id`). The first line is a header when none of its cells looks
    like a number. Raises QueryError when the file cannot be read, a column is unknown or has to be chosen, or a
    column of a Parquet file holds floats, which have lost digits of large ids.
    """
    if data[:4] == b"PAR1":
        return _from_parquet(data, name, column)
    lines = _lines(_decode(data, name))
    if not lines:
        raise QueryError(f"{name}: no rows; wanted ids, one per line or in a column")
    header = _header(lines[0][1])
    body = lines[1:] if header else lines
    names = header or [""] * max(1, *(len(cells) for _, cells in lines))
    at = _choose(names, column, name)
    texts = [(line, cells[at].strip() if at < len(cells) else "") for line, cells in body]
    return IdList(tuple(_row(i + 1, line, text) for i, (line, text) in enumerate(texts)), names[at])


def parse_id(text: str) -> tuple[int | None, str | None]:
    """(id, None), or (None, why the text is not an id). Ids are whole numbers from 1 to 2**64 - 1."""
    if text.lower() in _BLANK:
        return None, "blank"
    if not _DIGITS.fullmatch(text):
        if re.fullmatch(r"[+-][0-9]+", text):
            return None, "negative; ids are whole numbers above 0" if text[0] == "-" else "written with a sign"
        if re.fullmatch(r"[+-]?[0-9]*[.,]?[0-9]*([eE][+-]?[0-9]+)?", text) and any(c.isdigit() for c in text):
            return (
                None,
                "not a whole number: a spreadsheet or a float wrote it, and digits are lost; export ids as text",
            )
        return None, "not a number"
    value = int(text) if len(text) < 40 else _LARGEST + 1
    if value > _LARGEST:
        return None, f"{len(text)} digits do not fit in 64 bits"
    return (value, None) if value else (None, "0 is background, not an id")


def _row(row: int, line: int | None, text: str) -> IdRow:
    found, problem = parse_id(text)
    return IdRow(row, line, text, found, problem)


def _decode(data: bytes, name: str) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # "Unicode text" of spreadsheets
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise QueryError(f"{name}: neither Parquet nor text in UTF-8 ({e}); save the list as CSV") from None


def _lines(text: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of every row; a blank line is a row, too."""
    first = text.split("\n", 1)[0]
    delimiter = next((d for d in "\t,;" if d in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows, line = [], 1
    try:
        for cells in reader:
            rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as e:
        raise QueryError(f"line {line}: not readable as text with {delimiter!r} between columns ({e})") from None
    return rows


def _header(cells: Sequence[str]) -> list[str]:
    """Names of the columns, when the row holds names: a damaged number in the first row must not pass for one."""
    named = [c.strip() for c in cells]
    filled = [c for c in named if c]
    damaged = any(c.lower() in _BLANK or _NUMBER_LIKE.match(c) for c in filled)
    return named if filled and not damaged else []


def _choose(names: Sequence[str], column: str | None, where: str) -> int:
    """The place of the column to read."""
    shown = [n or f"column {i + 1}" for i, n in enumerate(names)]
    if column is not None:
        if column in names:
            return list(names).index(column)
        if _DIGITS.fullmatch(column) and 1 <= int(column) <= len(names):
            return int(column) - 1
        raise QueryError(f"{where}: no column {column!r}{nearest(column, shown)}")
    if len(names) == 1:
        return 0
    likely = [i for i, n in enumerate(names) if _is_id_name(n)]
    if len(likely) == 1:
        return likely[0]
    raise QueryError(f"{where}: which column holds the ids? Say --column with one of: {', '.join(shown)}")


def _is_id_name(name: str) -> bool:
    plain = re.sub(r"[\s_-]+", "", name.lower())
    return plain in _NAMES or any(plain in (f"{n}id", f"{n}ids", f"{n}s") for n in _NAMES)


def _from_parquet(data: bytes, name: str, column: str | None) -> IdList:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as e:
        raise QueryError(f"{name}: not readable as Parquet: {e}") from None
    at = _choose(table.column_names, column, name)
    values, label = table.column(at), table.column_names[at]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    exact = pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (exact or text or pa.types.is_null(kind)):
        why = " A float holds 53 bits: digits of large ids are lost." if pa.types.is_floating(kind) else ""
        raise QueryError(f"{name}: column {label!r} holds {kind}; wanted uint64, another integer, or text.{why}")
    texts = ["" if v is None else str(v).strip() for v in values.to_pylist()]
    return IdList(tuple(_row(i + 1, None, t) for i, t in enumerate(texts)), label)
