"""Examples made ahead of their turn, by a thread or by several processes, so that the device does not wait."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import TracebackType

from connectome_db.errors import ConfigError
from connectome_db.networks.ffn_sampling import Example, Pool

_held: dict[str, Pool] = {}
"""The pool of a process that makes examples."""


class Supply:
    """The examples of some rows of the batch, in order. One per row waits, and the first of the next round."""

    def __init__(self, pool: Pool, seed: int, rows: Sequence[int], processes: int = 0) -> None:
        """`rows`: numbers of this rank's rows in the whole batch. `processes` 0: a thread of this process."""
        if processes < 0:
            raise ConfigError(f"makers: wanted a number of processes from 0 on, got {processes}")
        self._pool, self._seed, self._rows = pool, seed, list(rows)
        self._here = processes == 0
        self._executor: Executor
        if self._here:
            self._executor = ThreadPoolExecutor(1)
        else:  # fresh ones: a copy of a process with a device in it would hang
            self._executor = ProcessPoolExecutor(processes, get_context("spawn"), _hold, (pool,))
        self._turn = -1
        self._count = [0] * len(self._rows)
        self._waiting: list[Future[Example]] = []
        self._following: list[Future[Example]] = []

    def __enter__(self) -> Supply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def begin(self, turn: int) -> None:
        """Start round `turn`: every row goes on with its first example of it."""
        for future in self._waiting:
            future.cancel()
        ready = self._following if turn == self._turn + 1 else []
        self._turn, self._count = turn, [0] * len(self._rows)
        self._waiting = ready or [self._order(turn, row, 0) for row in range(len(self._rows))]
        self._following = []

    def take(self, row: int) -> Example:
        """The next example of this rank's `row`, counted from 0; the one after it is ordered."""
        example = self._waiting[row].result()
        self._count[row] += 1
        self._waiting[row] = self._order(self._turn, row, self._count[row])
        if not self._following and all(self._count):  # behind what this round needs first
            self._following = [self._order(self._turn + 1, r, 0) for r in range(len(self._rows))]
        return example

    def _order(self, turn: int, row: int, number: int) -> Future[Example]:
        asked = (self._seed, turn, self._rows[row], number)
        if self._here:
            return self._executor.submit(self._pool.example, *asked)
        return self._executor.submit(_make, *asked)


def _hold(pool: Pool) -> None:
    _held["pool"] = pool


def _make(seed: int, turn: int, row: int, number: int) -> Example:
    return _held["pool"].example(seed, turn, row, number)
