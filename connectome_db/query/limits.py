"""How much a query may take: time, memory, and rows that come back.

DuckDB bounds the memory of its sorts, joins and groups itself (`memory_limit`), but not that of strings and lists on
their way through a query, nor that of the answer. Those are watched from outside, in the size of the process.
"""

from __future__ import annotations

import os
import threading
import time
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
_IDLE_S = 10.0
"""After this long without a query the watching thread ends."""
_BATCH = 122_880
"""Rows of a batch: those of a row group of DuckDB."""
_STATM = Path("/proc/self/statm")


@dataclass(eq=False)
class Watch:
    """What a watched query was stopped for: "time", "memory", or nothing (None)."""

    con: duckdb.DuckDBPyConnection
    deadline: float
    start: int
    growth: int
    stopped: str | None = None

    def look(self, now: float, resident: int) -> None:
        """Interrupt the query when its time is over, or when the process has grown by too much."""
        if now > self.deadline:
            self.stopped = "time"
        elif resident - self.start > self.growth:
            self.stopped = "memory"
        else:
            return
        self.con.interrupt()


class _Watcher:
    """One thread for all queries of the process: to start one for each would take longer than a small query does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        with self._lock:
            self._watches.add(watch)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="query limits", daemon=True)
                self._thread.start()

    def drop(self, watch: Watch) -> None:
        """Forget a query: once this returns it is not interrupted any more."""
        with self._lock:
            self._watches.discard(watch)

    def _run(self) -> None:
        idle_s = 0.0
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                idle_s = 0.0 if self._watches else idle_s + _LOOK_S
                if idle_s > _IDLE_S:
                    self._thread = None
                    return
                if self._watches:
                    self._look()

    def _look(self) -> None:
        """Apart from the loop, which sleeps: a variable of it would hold a connection, and a process may end then."""
        now, resident = time.monotonic(), _resident()
        for watch in self._watches:
            watch.look(now, resident)


_WATCHER = _Watcher()


@contextmanager
def watched(con: duckdb.DuckDBPyConnection, timeout_s: float, *, growth: int = _GROWTH) -> Iterator[Watch]:
    """Interrupt what runs on `con` after `timeout_s`, or when the process has grown by more than `growth` bytes."""
    watch = Watch(con, time.monotonic() + timeout_s, _resident(), growth)
    _WATCHER.add(watch)
    try:
        yield watch
    finally:
        _WATCHER.drop(watch)


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
