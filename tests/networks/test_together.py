"""Computations that share the batch of a flood-filling network: each gets what it would get alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import Flooded, FloodOptions
from connectome_db.networks.ffn import FFNConfig, FloodNetwork
from connectome_db.networks.together import Together
from tests.kernels.flood_reference import Moody

CONFIG = FFNConfig(fov_vx=(9, 9, 9), deltas_vx=(3, 3, 3))
OPTIONS = FloodOptions(min_segment_vx=20, disco_seed_threshold=-1)


class Counting:
    """A network of some rows that keeps how many of each call were in use."""

    def __init__(self, batch: int, sleep_s: float = 0.0) -> None:
        self.used: list[int] = []
        self.sleep_s = sleep_s
        self.network = FloodNetwork("counting@0", CONFIG, batch, lambda: self.answer)

    def answer(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        assert images.shape == masks.shape == (self.network.batch, 9, 9, 9)
        time.sleep(self.sleep_s)
        answer = Moody(self.network.batch).predict(images, masks)
        self.used.append(int((masks != 0).any(axis=(1, 2, 3)).sum()))
        masks[:] = 0  # so that rows that are not asked about the next time are seen
        return answer


def tasks(number: int) -> list[Callable[..., Flooded]]:
    out = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        image = rng.integers(60, 200, (20, 24 + seed, 28), dtype=np.uint8)
        image[:, ::12] = 20
        out.append(partial(flood, image, seeds=boundary_peaks(image, np.ones(image.shape, np.bool_)), options=OPTIONS))
    return out


@pytest.mark.parametrize(("batch", "at_once"), [(1, 1), (1, 3), (3, 2), (4, 8), (2, 50)])
def test_each_is_filled_as_alone(batch: int, at_once: int) -> None:
    counting = Counting(batch)
    together = Together(counting.network, at_once)
    given = tasks(9)
    found = dict(together.run(partial(task, network=together.window) for task in given))
    assert sorted(found) == list(range(9))
    moves = 0
    for number, task in enumerate(given):
        alone = task(network=Moody())
        assert (found[number].labels == alone.labels).all()
        assert found[number].objects == alone.objects
        moves += alone.work.moves
    assert sum(counting.used) == moves > 100
    assert max(counting.used) == min(batch, at_once)
    if at_once >= 2 * batch:  # rows are idle at the end alone
        assert np.mean(counting.used) > 0.7 * batch


class Late:
    """An answer that is computed when it is wanted, from what was asked about then."""

    def __init__(self, *asked: np.ndarray) -> None:
        self.asked = asked

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return Moody(len(self.asked[0])).predict(*self.asked)


def test_what_was_asked_about_stays_until_the_answer_is_there() -> None:
    together = Together(FloodNetwork("late@0", CONFIG, 2, lambda: Late), 8)
    given = tasks(8)
    found = dict(together.run(partial(task, network=together.window) for task in given))
    assert all((found[number].labels == task(network=Moody()).labels).all() for number, task in enumerate(given))


def test_no_more_are_under_way_than_asked_for() -> None:
    begun, ended, most = [], [], 0
    together = Together(Counting(2).network, 3)

    def watched(task: Callable[..., Flooded]) -> int:
        nonlocal most
        begun.append(1)
        most = max(most, len(begun) - len(ended))
        moves = task(network=together.window).work.moves
        ended.append(1)
        return moves

    assert len(list(together.run(partial(watched, task) for task in tasks(7)))) == 7
    assert most == 3


def test_what_asks_nothing_just_ends() -> None:
    together = Together(Counting(2).network, 2)
    assert sorted(together.run((lambda k=k: k * k) for k in range(5))) == [(k, k * k) for k in range(5)]
    assert list(together.run([])) == []


def test_an_error_ends_all_and_the_next_run_is_whole() -> None:
    together = Together(Counting(2).network, 2)

    def fails() -> Flooded:
        together.window.predict(np.zeros((1, 9, 9, 9), np.uint8), np.ones((1, 9, 9, 9), np.float32))
        raise ValueError("no")

    given = tasks(3)
    with pytest.raises(ValueError, match="no"):
        list(together.run([partial(given[0], network=together.window), fails]))
    again = dict(together.run(partial(task, network=together.window) for task in given))
    assert (again[0].labels == given[0](network=Moody()).labels).all()


def test_seconds_are_shared_out() -> None:
    """What all have cost together is what it took; a call of the network is shared by those who asked."""
    counting = Counting(4, sleep_s=0.002)
    together = Together(counting.network, 4)

    def timed(task: Callable[..., Flooded]) -> float:
        task(network=together.window)
        return together.seconds()

    start = time.perf_counter()
    seconds = dict(together.run(partial(timed, task) for task in tasks(6)))
    whole = time.perf_counter() - start
    assert 0.3 * whole < sum(seconds.values()) <= whole
