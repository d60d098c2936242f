"""Many computations at once that ask one flood-filling network: their windows share a batch.

    computation ──ask──> waits ──┐
    computation ──ask──> waits ──┼── a batch is full, or nobody can go on ── network ── answers ──> they go on
    computation ──ask──> waits ──┘

What fills an image asks about one window after another, so alone it leaves a GPU idle. Here each computation asks as if
it were alone, and is put aside (greenlets, in one thread) until its answer is there. While the device answers one
batch, the others go on. An answer depends on its own window alone, so the results are those of one after the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import greenlet
import numpy as np
from numpy.typing import NDArray

from connectome_db.geometry import Vec3
from connectome_db.networks.ffn import FloodNetwork

T = TypeVar("T")


@dataclass(eq=False)
class _Job:
    """A computation under way."""

    number: int
    flow: Any
    """Its greenlet."""
    asks: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
    """Image and mask so far, (z, y, x), that it asks about; they are its own, which it changes when it goes on."""
    answer: Any = None
    """What it goes on with: logits (1, z, y, x)."""
    seconds: float = 0.0
    """Of its own, and its share of the time that was waited for its batches."""


@dataclass(frozen=True, eq=False)
class _Flight:
    """A batch that the network was asked about."""

    jobs: list[_Job]
    images: NDArray[np.uint8]
    masks: NDArray[np.float32]
    """Not to be changed before the answer is there."""
    asked: Any


@dataclass(eq=False)
class Together:
    """A flood-filling network that several computations ask through `window`, as long as `run` runs them."""

    network: FloodNetwork
    at_once: int
    """Computations under way. Twice the network's batch keeps a device busy: one batch waits while another is
    answered."""
    _jobs: dict[int, _Job] = field(default_factory=dict)
    _since: float = 0.0
    _free: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = field(default_factory=list)
    """Inputs of batches that were answered: making them anew costs more than filling them."""

    @property
    def window(self) -> Asking:
        """The network as one computation sees it."""
        return Asking(self)

    def run(self, computations: Iterable[Callable[[], T]]) -> Iterator[tuple[int, T]]:
        """Yield (number, result) of each computation as they end. An error of one ends all."""
        self._jobs.clear()
        queue = enumerate(computations)
        ready: deque[_Job] = deque()
        asking: list[_Job] = []
        flying: deque[_Flight] = deque()
        while True:
            while len(self._jobs) < self.at_once and (new := next(queue, None)) is not None:
                number, compute = new
                job = _Job(number, greenlet.greenlet(lambda _, compute=compute: compute()))
                self._jobs[id(job.flow)] = job
                ready.append(job)
            if ready:
                job = ready.popleft()
                self._since = time.perf_counter()
                came = job.flow.switch(job.answer)
                job.seconds += time.perf_counter() - self._since
                if job.flow.dead:
                    del self._jobs[id(job.flow)]
                    yield job.number, came
                    continue
                job.asks = came
                asking.append(job)
                if len(asking) == self.network.batch:
                    flying.append(self._ask(asking))
                    asking = []
            elif flying:
                ready.extend(self._land(flying.popleft()))
            elif asking:
                flying.append(self._ask(asking))
                asking = []
            else:
                return

    def seconds(self) -> float:
        """What the computation that calls this has cost so far."""
        job = self._jobs[id(greenlet.getcurrent())]
        return job.seconds + time.perf_counter() - self._since

    def _ask(self, jobs: list[_Job]) -> _Flight:
        """Ask about all their windows; what comes back may not be computed yet."""
        start = time.perf_counter()
        shape = (self.network.batch, *self.network.fov_vx)
        images, masks = self._free.pop() if self._free else (np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
        for row, job in enumerate(jobs):
            if job.asks is not None:
                images[row], masks[row] = job.asks
        flight = _Flight(jobs, images, masks, self.network.answer(images, masks))
        self._share(jobs, time.perf_counter() - start)
        return flight

    def _land(self, flight: _Flight) -> list[_Job]:
        start = time.perf_counter()
        logits = np.asarray(flight.asked)
        self._free.append((flight.images, flight.masks))
        for row, job in enumerate(flight.jobs):
            job.answer = logits[row : row + 1]
        self._share(flight.jobs, time.perf_counter() - start)
        return flight.jobs

    @staticmethod
    def _share(jobs: list[_Job], seconds: float) -> None:
        for job in jobs:
            job.seconds += seconds / len(jobs)


@dataclass(frozen=True)
class Asking:
    """A `spec.Window` of one row, for computations that `Together.run` runs."""

    together: Together

    @property
    def model_id(self) -> str:
        """That of the network."""
        return self.together.network.model_id

    @property
    def fov_vx(self) -> Vec3:
        """That of the network."""
        return self.together.network.fov_vx

    @property
    def deltas_vx(self) -> Vec3:
        """That of the network."""
        return self.together.network.deltas_vx

    @property
    def batch(self) -> int:
        """One: whoever asks goes on when it is answered."""
        return 1

    def predict(self, images: NDArray[np.uint8], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        """As the network does, (1, z, y, x); the computation is put aside until the answer is there."""
        answer: NDArray[np.float32] = greenlet.getcurrent().parent.switch((images[0], masks[0]))
        return answer
