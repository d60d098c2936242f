"""Imported lists as raw inputs: decoded once, cut into blocks of rows, and kept with digests.

    .connectome/lists/<digest of file bytes, mapping and reader>/000000.rows.parquet ...  index.json

Planning, every worker and every later run read the blocks instead of decoding the source again; a block is compared
with its digest before it is used. The folder is a cache: without it, it is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import tables
from connectome_db.errors import SourceError
from connectome_db.provenance import digest, table_digest
from connectome_db.spec import Table

KEPT = 4
"""Decoded lists that are kept; the one that was used longest ago goes first."""
INDEX = "index.json"

Batch = Mapping[str, pa.Table]
"""Rows by the name under which they are kept."""


@dataclass(frozen=True)
class Kind:
    """One kind of rows in a decoded list: its table, and the column that numbers the rows of the source from 1."""

    table: Table
    row: str | None = None


@dataclass(frozen=True)
class Decoded:
    """A decoded list: per kind, rows and content digest of every block, in order."""

    folder: Path
    index: Mapping[str, Any]

    def digests(self, kind: str) -> tuple[str, ...]:
        """Content digest of each block."""
        return tuple(b["digest"] for b in self.index["blocks"][kind])

    def rows(self, kind: str) -> tuple[int, ...]:
        """Rows of each block."""
        return tuple(b["rows"] for b in self.index["blocks"][kind])

    def read(self, kind: str, k: int) -> pa.Table:
        """Block `k`. Raises SourceError when its file is not what was written."""
        path = self.folder / _file(kind, k)
        try:
            with path.open("rb") as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            raise SourceError(f"{path}: {e.strerror}. Remove {self.folder}: the list is decoded again.") from e
        if found != self.index["blocks"][kind][k]["sha256"]:
            raise SourceError(f"{path}: was altered after it was decoded. Remove {self.folder} and run again.")
        return pq.ParquetFile(path).read()


def _file(kind: str, k: int) -> str:
    return f"{k:06d}.{kind}.parquet"


def source_digest(files: Sequence[Path], state: Path) -> str:
    """One digest of the bytes of the source files."""
    return digest("source files", [[path.name, file_sha256(path, state)] for path in files])


def file_sha256(path: Path, state: Path) -> str:
    """Hex SHA-256 of a source file; one whose inode, size and time did not change is not read again.

    Raises SourceError when there is no such file.
    """
    cache = state / "lists" / "files.json"
    try:
        known: dict[str, list[Any]] = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    try:
        stat = path.stat()
    except OSError as e:
        raise SourceError(f"{path}: no such file; wanted a list to import") from e
    signature = [stat.st_ino, stat.st_size, stat.st_mtime_ns]
    found = known.get(str(path))
    if found is None or found[:3] != signature:
        with path.open("rb") as f:
            known[str(path)] = found = [*signature, hashlib.file_digest(f, "sha256").hexdigest()]
        cache.parent.mkdir(parents=True, exist_ok=True)
        tmp = cache.with_name(f"{uuid.uuid4().hex}.tmp")
        tmp.write_text(json.dumps(known, sort_keys=True, indent=1))
        tmp.replace(cache)
    return str(found[3])


def decoded(
    state: Path, key: str, kinds: Mapping[str, Kind], batches: Callable[[], Iterable[Batch]], block_rows: int | None
) -> Decoded:
    """The list with the digest `key`: from the cache, or decoded now from `batches` and cut by `block_rows`.

    Without `block_rows` everything is one block. Batches come in the order of the source.
    """
    folder = state / "lists" / key[:32]
    if not (folder / INDEX).is_file():
        tmp = state / "tmp" / f"list-{uuid.uuid4().hex}"
        tmp.mkdir(parents=True)
        try:
            blocks = _write(tmp, kinds, batches(), block_rows)
            (tmp / INDEX).write_text(json.dumps({"key": key, "blocks": blocks}, sort_keys=True, indent=1))
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not (folder / INDEX).is_file():  # else another process was faster, with the same blocks
                shutil.rmtree(folder, ignore_errors=True)
                tmp.rename(folder)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
        _forget(folder)
    index = json.loads((folder / INDEX).read_text())
    folder.touch()
    return Decoded(folder, index)


def _forget(newest: Path) -> None:
    """Remove the decoded lists that were used longest ago."""
    others = [p for p in newest.parent.iterdir() if p.is_dir() and p != newest]
    for folder in sorted(others, key=lambda p: p.stat().st_mtime)[: -KEPT + 1 or None]:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    folder: Path, kinds: Mapping[str, Kind], batches: Iterable[Batch], block_rows: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Write the blocks; returns what the index says of them."""
    written: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for k, block in enumerate(_blocks(kinds, batches, block_rows)):
        for name, rows in block.items():
            path = folder / _file(name, k)
            path.write_bytes(tables.to_bytes(rows))
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            written[name].append({"rows": rows.num_rows, "digest": table_digest(rows), "sha256": sha256})
    return written


def _blocks(kinds: Mapping[str, Kind], batches: Iterable[Batch], block_rows: int | None) -> Iterator[Batch]:
    """Batches of any size -> blocks, of the rows k * block_rows + 1 .. (k + 1) * block_rows of the source each."""
    held: dict[str, list[pa.Table]] = {name: [] for name in kinds}
    k = 0
    for batch in batches:
        for name, rows in batch.items():
            held[name].append(tables.conform(kinds[name].table, rows))
        reached = max((_last(kinds[n], rows) for n, rows in batch.items()), default=0)
        while block_rows is not None and reached > (k + 1) * block_rows:
            yield {n: _take(kinds[n], held, n, (k + 1) * block_rows) for n in kinds}
            k += 1
    yield {n: _take(kinds[n], held, n, None) for n in kinds}


def _last(kind: Kind, rows: pa.Table) -> int:
    """The last row of the source that `rows` has something of; conform sorted what is held, not `rows`."""
    return int(np.max(rows[kind.row].to_numpy())) if kind.row and rows.num_rows else 0


def _take(kind: Kind, held: dict[str, list[pa.Table]], name: str, end: int | None) -> pa.Table:
    """Cut the rows up to row `end` of the source off what is held."""
    rows = pa.concat_tables(held[name] or [kind.table.arrow().empty_table()]).combine_chunks()
    at = rows.num_rows
    if end is not None and kind.row is not None:
        at = int(np.searchsorted(rows[kind.row].to_numpy(), end, side="right"))
    held[name] = [rows.slice(at)]
    return rows.slice(0, at).combine_chunks()
