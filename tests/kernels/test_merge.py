from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from connectome_db.kernels.merge import agglomerate, pool


def naive(
    size: list[int], pairs: dict[tuple[int, int], list[float]], threshold: float, dust: int, dust_threshold: float
) -> tuple[list[tuple[int, int]], list[int], dict[tuple[int, int], float]]:
    """The definition: look at all pairs, merge the best, pool, repeat."""
    group, size, log = list(range(len(size))), list(size), []
    while True:
        able = [
            (-w / a, pair)
            for pair, (w, a) in pairs.items()
            if w / a >= threshold or (w / a >= dust_threshold and min(size[pair[0]], size[pair[1]]) < dust)
        ]
        if not able:
            return log, group, {pair: w / a for pair, (w, a) in pairs.items()}
        _, (kept, gone) = min(able)
        log.append((kept, gone))
        size[kept] += size[gone]
        del pairs[kept, gone]
        for pair in [p for p in pairs if gone in p]:
            w, a = pairs.pop(pair)
            other = pair[0] if pair[1] == gone else pair[1]
            now = pairs.setdefault((min(kept, other), max(kept, other)), [0.0, 0.0])
            now[0] += w
            now[1] += a
        group = [kept if g == gone else g for g in group]


def graph(seed: int, nodes: int, edges: int) -> tuple[NDArray[np.int64], ...]:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, nodes, (2, edges))
    area = rng.integers(1, 50, edges).astype(np.float64)
    return (rng.integers(1, 100, nodes), *pool(a, b, area, area * rng.random(edges)))


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_definition(seed: int) -> None:
    size, a, b, area, weighted = graph(seed, 40, 150)
    done = agglomerate(size, a, b, area, weighted, threshold=0.6, dust_size=20, dust_threshold=0.4)
    pairs = {(x, y): [w, s] for x, y, w, s in zip(a.tolist(), b.tolist(), weighted, area, strict=True)}
    log, group, left = naive(size.tolist(), pairs, 0.6, 20, 0.4)
    assert log
    assert list(zip(done.kept.tolist(), done.joined.tolist(), strict=True)) == log
    assert done.group.tolist() == group
    assert list(zip(done.left_a.tolist(), done.left_b.tolist(), strict=True)) == sorted(left)
    np.testing.assert_allclose(done.left_score, [left[k] for k in sorted(left)])


def test_groups_are_named_by_their_lowest_node() -> None:
    size, a, b, area, weighted = graph(1, 3000, 20000)
    done = agglomerate(size, a, b, area, weighted, threshold=0.55, dust_size=0, dust_threshold=0.5)
    lowest = np.full(3000, 3000)
    np.minimum.at(lowest, done.group, np.arange(3000))
    assert (lowest[done.group] == done.group).all()
    assert len(done.kept) == 3000 - len(np.unique(done.group))
    assert (done.kept < done.joined).all()


def test_nothing_to_merge() -> None:
    none, zero = np.zeros(0, np.int64), np.zeros(0)
    done = agglomerate(np.ones(3, np.int64), none, none, zero, zero, threshold=0.5, dust_size=5, dust_threshold=0.1)
    assert done.group.tolist() == [0, 1, 2]
    assert len(done.kept) == len(done.left_a) == 0
    empty = agglomerate(none, none, none, zero, zero, threshold=0.5, dust_size=5, dust_threshold=0.1)
    assert len(empty.group) == 0


def test_pool_adds_what_recurs_and_drops_what_became_one() -> None:
    a, b = np.asarray([3, 1, 2, 1]), np.asarray([1, 3, 2, 2])
    low, high, area, weighted = pool(a, b, np.asarray([1.0, 3, 9, 2]), np.asarray([1.0, 0, 9, 1]))
    assert low.tolist() == [1, 1]
    assert high.tolist() == [2, 3]
    assert area.tolist() == [2.0, 4.0]
    assert weighted.tolist() == [1.0, 1.0]
