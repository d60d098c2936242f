"""Files of rows, whatever they are written in, as streams of Arrow tables with numbered rows.

.csv .tsv .txt (.gz)   delimiter found in the header; every column as text     streamed
.parquet               typed columns                                           streamed
.feather .arrow .ipc   typed columns                                           streamed
.xlsx                  a sheet; see `workbook`                                 whole
.json                  neuPrint's {columns, data}, or a list of records        whole
.graphml               sheets `nodes` and `edges`                              whole
.npy                   a matrix, see `matrix`
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import feather, ipc

from connectome_db.errors import SourceError, nearest
from connectome_db.lists import graphml, jsonrows, workbook

TEXT = {".csv": "CSV", ".tsv": "TSV", ".txt": "text"}
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".feather", ".arrow", ".ipc", ".xlsx", ".json", ".graphml", ".npy")
DELIMITERS = ",\t;|"
READ_ROWS = 1 << 18
"""Rows decoded at a time: small beside a block, so that a reader holds little more than the block."""


@dataclass(frozen=True)
class Source:
    """An open file of rows: its columns in file order, and how to read some of them."""

    path: Path
    what: str
    """What it is written in, in words."""
    columns: tuple[str, ...]
    tables: Callable[[Sequence[str]], Iterator[pa.Table]]
    """Tables of the named columns, in file order, of any number of rows each."""

    def need(self, columns: Sequence[str]) -> None:
        """Raise SourceError unless it has all of these columns."""
        for column in columns:
            if column not in self.columns:
                raise SourceError(f"{self.path}: no column {column!r}{nearest(column, self.columns)}")

    def blocks(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Tables of the named columns with exactly `rows` rows each, the last one with fewer."""
        self.need(columns)
        kept: list[pa.Table] = []
        have = 0
        try:
            for table in self.tables(list(dict.fromkeys(columns))):
                rest = table
                while have + rest.num_rows >= rows:
                    kept.append(rest.slice(0, rows - have))
                    yield pa.concat_tables(kept)
                    rest, kept, have = rest.slice(rows - have), [], 0
                if rest.num_rows:
                    kept.append(rest)
                    have += rest.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError, EOFError) as e:
            raise SourceError(f"{self.path}: cannot be read as {self.what}: {e}") from e
        if have:
            yield pa.concat_tables(kept)

    def head(self, rows: int = 3) -> pa.Table:
        """The first rows, all columns."""
        found = list(islice(self.blocks(self.columns, rows), 1))
        return found[0] if found else pa.table({c: pa.nulls(0, pa.string()) for c in self.columns})


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is written in, in lower case, without .gz."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def open_source(path: Path, sheet: str | None = None) -> Source:
    """A file of rows. Raises SourceError when it is missing, of no known sort, or damaged."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; wanted a table: {', '.join(SUFFIXES)}")
    kind = suffix_of(path)
    if kind not in SUFFIXES or kind == ".npy":
        raise SourceError(f"{path}: wanted a table ({', '.join(SUFFIXES[:-1])}, .csv.gz), got {kind or 'no suffix'}")
    if sheet is not None and kind not in {".xlsx", ".graphml"}:
        raise SourceError(f"{path}: --sheet {sheet}: only workbooks (.xlsx) and .graphml files have sheets")
    try:
        source = _open(path, kind, sheet)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError, EOFError) as e:
        raise SourceError(f"{path}: cannot be read as {kind}: {e}") from e
    _check_columns(source)
    return source


def _open(path: Path, kind: str, sheet: str | None) -> Source:
    if kind == ".parquet":
        names = tuple(pq.read_schema(path).names)
        return Source(path, "Parquet", names, lambda columns: _parquet(path, columns))
    if kind in {".feather", ".arrow", ".ipc"}:
        return _arrow(path)
    if kind == ".xlsx":
        return _whole(path, "xlsx", workbook.read(path, sheet))
    if kind == ".json":
        return _whole(path, "JSON", jsonrows.read(path))
    if kind == ".graphml":
        return _whole(path, "GraphML", graphml.read(path, sheet or "edges"))
    delimiter, names = _header(path, kind)
    return Source(path, TEXT[kind], names, lambda columns: _text(path, delimiter, names, columns))


def _check_columns(source: Source) -> None:
    if not source.columns:
        raise SourceError(f"{source.path}: has no columns; wanted a header with the names of the columns")
    twice = sorted({c for c in source.columns if source.columns.count(c) > 1})
    if twice:
        raise SourceError(f"{source.path}: the column {twice[0]!r} is there twice; rename one of them")


def _whole(path: Path, what: str, table: pa.Table) -> Source:
    return Source(path, what, tuple(table.column_names), lambda columns: iter([table.select(list(columns))]))


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(READ_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch]).select(list(columns))


def _arrow(path: Path) -> Source:
    """Feather and Arrow files; memory-mapped, so that only what is read is held."""
    try:
        with pa.memory_map(str(path)) as data:
            names = tuple(ipc.open_file(data).schema.names)
    except pa.ArrowInvalid:
        return _whole(path, "Feather", feather.read_table(path))

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        with pa.memory_map(str(path)) as data:
            reader = ipc.open_file(data)
            for k in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(k)]).select(list(columns))

    return Source(path, "Arrow", names, tables)


def _header(path: Path, kind: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter and the names of the columns, as the first line says them."""
    with pa.input_stream(str(path), compression="detect") as data:
        start = data.read(1 << 20)
    try:
        line = start.decode("utf-8-sig", errors="strict" if len(start) < 1 << 20 else "ignore")
    except UnicodeDecodeError as e:
        raise SourceError(f"{path}: is not UTF-8 text ({e}); save it as UTF-8") from e
    rows = line.splitlines()
    if not rows:
        raise SourceError(f"{path}: is empty; wanted a header with the names of the columns")
    first = rows[0]
    counts = {d: first.count(d) for d in DELIMITERS}
    delimiter = "\t" if kind == ".tsv" else max(counts, key=lambda d: counts[d])
    if kind == ".txt" and not any(counts.values()):
        delimiter = " "
    return delimiter, tuple(next(csv.reader([first], delimiter=delimiter)))


def _text(path: Path, delimiter: str, names: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    ragged: list[pacsv.InvalidRow] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    # Nulls are told from texts later: what stands there is what a message must show.
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=list(columns)
    )
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=refuse)
    read = pacsv.ReadOptions(column_names=list(names), skip_rows=1, block_size=1 << 24, use_threads=False)
    try:
        with (
            pa.input_stream(str(path), compression="detect") as data,
            pacsv.open_csv(data, read_options=read, parse_options=parse, convert_options=convert) as reader,
        ):
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as e:
        if "Empty CSV file" in str(e):
            return
        if not ragged:
            raise
        row = ragged[0]
        at = f"line {row.number}" if row.number else "a line"
        raise SourceError(
            f"{path}: {at} has {row.actual_columns} fields, the header {row.expected_columns}: {row.text!r}"
        ) from e
