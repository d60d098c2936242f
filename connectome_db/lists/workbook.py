"""Sheets of Excel workbooks. Every number there is a 64-bit floating-point number: larger ids lost their digits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pyarrow as pa

from connectome_db.errors import SourceError, nearest

EXACT = 1 << 53
"""Whole numbers below it are exact in a workbook."""


def sheets(path: Path) -> list[str]:
    """Names of the sheets. Raises SourceError when it is no workbook."""
    book = _open(path)
    try:
        return [str(n) for n in book.sheetnames]
    finally:
        book.close()


def read(path: Path, sheet: str | None) -> pa.Table:
    """A sheet (None: the first), its first row as header. Raises SourceError.

    A column of whole numbers below 2**53 is int64; one of other numbers, or with a number of 2**53 or more, is float64,
    so that whoever reads ids sees which are no longer exact; any other is text.
    """
    book = _open(path)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise SourceError(f"{path}: no sheet {sheet!r}{nearest(sheet, book.sheetnames)}")
        rows = _rows(book[sheet] if sheet is not None else book[book.sheetnames[0]])
        header = next(rows, [])
        while header and header[-1] is None:
            header.pop()
        names = ["" if n is None else str(n).strip() for n in header]
        cells: list[list[Any]] = [[] for _ in names]
        for row in rows:
            for k, column in enumerate(cells):
                column.append(row[k] if k < len(row) else None)
    finally:
        book.close()
    return pa.Table.from_arrays([_column(c) for c in cells], names=names)


def _open(path: Path) -> Any:
    # Not above: every process of every run would load it, and most never see a workbook.
    import openpyxl  # noqa: PLC0415
    from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

    try:
        return openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError, ValueError, OSError) as e:
        raise SourceError(f"{path}: cannot be read as a workbook (.xlsx): {e}") from e


def _rows(sheet: Any) -> Iterator[list[Any]]:
    """Rows with something in them; blank rows at the end of a sheet are no rows."""
    blank: list[list[Any]] = []
    for values in sheet.iter_rows(values_only=True):
        row = list(values)
        if all(v is None for v in row):
            blank.append(row)
            continue
        yield from blank
        blank = []
        yield row


def _column(values: list[Any]) -> pa.Array:
    given = [v for v in values if v is not None]
    if given and all(isinstance(v, int | float) and not isinstance(v, bool) for v in given):
        whole = all(abs(v) < EXACT and float(v).is_integer() for v in given)
        if whole:
            return pa.array([None if v is None else int(v) for v in values], pa.int64())
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array([_text(v) for v in values], pa.string())


def _text(value: Any) -> str | None:
    """A cell of a column that is not all numbers."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # A number too large to be exact keeps its exponent, which is refused where ids are read.
        return str(int(value)) if float(value).is_integer() and abs(value) < EXACT else f"{float(value):e}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)
