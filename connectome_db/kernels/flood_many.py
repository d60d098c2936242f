"""Flood-filling of many images by one network: what fills the batch of a fast device.

One image rarely has more to ask at once than one window: its objects are filled in turn, and what is filled ahead may
be in vain. So every row of the batch belongs to another image, and as many images are under way as there are rows.
Two batches take turns: while the device answers one, the host goes on with the other. Each image comes out as `flood`
fills it alone, whatever is beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db.kernels.flood import Filling, checked
from connectome_db.kernels.flood_types import Flooded, FloodOptions
from connectome_db.spec import Window

Answer = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], Any]


@dataclass(frozen=True, eq=False)
class FloodTask:
    """One image to fill; see `kernels.flood.flood`."""

    image: npt.NDArray[np.uint8]
    seeds: npt.NDArray[np.int64]
    tissue: npt.NDArray[np.bool_] | None = None


class _Batch:
    """Rows of one call of the network, each with the image that it is about."""

    def __init__(self, network: Window, pad: float) -> None:
        self.shape = (network.batch, *network.fov_vx)
        self.images = np.zeros(self.shape, np.uint8)
        self.masks = np.full(self.shape, pad, np.float32)
        self.rows: list[tuple[int, Filling] | None] = [None] * network.batch
        self.asked: Any = None

    def wants(self, row: int) -> bool:
        """Say whether a row has an image with more to ask."""
        held = self.rows[row]
        return held is not None and held[1].wants()

    def gather(self) -> int:
        """Fill the rows that have an image, and return how many."""
        used = 0
        for row, held in enumerate(self.rows):
            if held is not None:
                used += held[1].gather(self.images[row : row + 1], self.masks[row : row + 1])
        return used

    def take(self) -> None:
        """Hand the answer to the images that asked."""
        if self.asked is None:
            return
        logits = checked(np.asarray(self.asked), self.shape)
        self.asked = None
        for row, held in enumerate(self.rows):
            if held is not None:
                held[1].take(logits[row : row + 1])


def flood_many(
    tasks: Iterable[FloodTask], network: Window, options: FloodOptions, answer: Answer | None = None
) -> Iterator[tuple[int, Flooded]]:
    """Fill each of `tasks` and yield (its number, what came of it) as they end.

    `answer` is `network.predict` if it is None; one that returns before the device is done lets host and device work
    at the same time. Tasks are taken when a row is free: memory is that of two batches of them.
    """
    ask = network.predict if answer is None else answer
    queue = enumerate(tasks)
    pad = np.log(options.pad_value / (1 - options.pad_value))
    turns = [_Batch(network, pad), _Batch(network, pad)]
    asking = True
    while asking:
        asking = False
        for batch in turns:
            batch.take()
            for row in range(network.batch):
                while not batch.wants(row):
                    held = batch.rows[row]
                    if held is not None:
                        yield held[0], held[1].result()
                    number, task = next(queue, (-1, None))
                    if task is None:
                        batch.rows[row] = None
                        break
                    batch.rows[row] = number, Filling(task.image, network, task.seeds, options, task.tissue, 1)
            if batch.gather():
                batch.asked = ask(batch.images, batch.masks)
                asking = True
