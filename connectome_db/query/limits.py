"""How much a query may take: time, memory, and rows that come back.

DuckDB bounds the memory of its sorts, joins and groups itself (`memory_limit`), but not that of strings and lists on
their way through a query, nor that of the answer. Those are watched from outside, in the size of the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from connectome_db.errors import QueryError

ANSWER = 4 << 30
"""Bytes of an answer, as Arrow holds it."""
_GROWTH = 6 << 30
"""Bytes that the process may grow while a query runs: DuckDB's memory_limit of 4 GB and 2 GiB beside it."""
_LOOK_S = 0.05
_BATCH = 122_880
"""Rows of a batch: those of a row group of DuckDB."""
_STATM = Path("/proc/self/statm")


@dataclass
class Watch:
    """What a watched query was stopped for: "time", "memory", or nothing (None)."""

    stopped: str | None = None


@contextmanager
def watched(con: duckdb.DuckDBPyConnection, timeout_s: float, *, growth: int = _GROWTH) -> Iterator[Watch]:
    """Interrupt what runs on `con` after `timeout_s`, or when the process has grown by more than `growth` bytes."""
    watch, done, start = Watch(), threading.Event(), _resident()

    def look() -> None:
        left = timeout_s
        while left > 0:
            if done.wait(min(left, _LOOK_S)):
                return
            left -= _LOOK_S
            if _resident() - start > growth:
                watch.stopped = "memory"
                con.interrupt()
                return
        watch.stopped = "time"
        con.interrupt()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()  # it holds the connection: a process that ends before it does complains of a leak


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def read(relation: duckdb.DuckDBPyRelation, *, most: int = ANSWER) -> pa.Table:
    """All rows of `relation`. Raises QueryError once they take more than `most` bytes, before the memory is full."""
    reader = relation.to_arrow_reader(_BATCH)
    batches: list[pa.RecordBatch] = []
    size = 0
    for batch in reader:
        size += batch.nbytes
        if size > most:
            rows = sum(b.num_rows for b in batches)
            raise QueryError(
                f"the answer is larger than {most / 2**30:.3g} GiB (after {rows:,} rows): "
                "ask for fewer columns or rows, add LIMIT, or let SQL sum up"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=reader.schema)
