"""Hierarchical agglomeration of a region graph by mean affinity.

The pair with the highest area-weighted mean affinity is merged first and its contacts are pooled, until no pair
reaches the threshold (Jain et al. 2011; waterz: Funke et al. 2018, 10.1109/TPAMI.2018.2835450). Small groups ("dust")
may join their best neighbour down to a lower threshold. Each merge is returned with its score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agglomeration:
    """What was merged, in order, and what was left apart."""

    kept: I64
    """Per merge: the group that keeps its name; a group is named by its lowest node."""
    joined: I64
    score: F64
    area: F64
    group: I64
    """(nodes,) lowest node of each node's group."""
    left_a: I64
    """Pairs of groups still in contact, ascending by (a, b), with their pooled scores and areas."""
    left_b: I64
    left_score: F64
    left_area: F64


def pool(a: I64, b: I64, area: F64, weighted: F64) -> tuple[I64, I64, F64, F64]:
    """Pool contacts that name the same pair (any order of its ends; a == b is dropped).

    Returns (low, high, area, area-weighted sum), ascending by (low, high).
    """
    apart = a != b
    low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
    order = np.lexsort((high, low))
    low, high, area, weighted = low[order], high[order], area[apart][order], weighted[apart][order]
    new = np.ones(len(low), np.bool_)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    first = np.flatnonzero(new)
    if len(first) == 0:
        return low, high, area, weighted
    return low[first], high[first], np.add.reduceat(area, first), np.add.reduceat(weighted, first)


def agglomerate(
    size: I64, a: I64, b: I64, area: F64, weighted: F64, *, threshold: float, dust_size: int, dust_threshold: float
) -> Agglomeration:
    """Merge nodes 0..N-1 of `size` along pooled pairs (a < b, ascending, no repeats).

    `weighted` is the sum of affinity times area, so weighted / area is the pair's mean affinity. A pair is merged while
    its score is at least `threshold`, or at least `dust_threshold` and either group is smaller than `dust_size`. Ties
    go to the lower pair of the input.
    """
    n, m = len(size), len(a)
    parent, name = np.arange(n, dtype=np.int64), np.arange(n, dtype=np.int64)
    log_edge = np.zeros((max(n, 1), 2), np.int64)
    log_score = np.zeros((max(n, 1), 2), np.float64)
    ends = np.stack([a, b], axis=1).astype(np.int64)
    mass = np.stack([weighted, area], axis=1).astype(np.float64)
    alive = np.ones(m, np.bool_)
    bits = max(4, int(np.ceil(np.log2(max(2, 3 * m)))))
    merges = _merge(
        parent,
        name,
        size.astype(np.int64).copy(),
        ends,
        mass,
        alive,
        np.full(1 << bits, -1, np.int64),
        log_edge,
        log_score,
        threshold,
        dust_size,
        dust_threshold,
    )
    while (parent[parent] != parent).any():
        parent = parent[parent]
    group = name[parent]
    root_a, root_b = group[ends[alive, 0]], group[ends[alive, 1]]
    left_a, left_b, left_area, left_weighted = pool(root_a, root_b, mass[alive, 1], mass[alive, 0])
    return Agglomeration(
        kept=log_edge[:merges, 0].copy(),
        joined=log_edge[:merges, 1].copy(),
        score=log_score[:merges, 0].copy(),
        area=log_score[:merges, 1].copy(),
        group=group,
        left_a=left_a,
        left_b=left_b,
        left_score=left_weighted / left_area,
        left_area=left_area,
    )


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _slot(table: I64, ends: I64, u: int, v: int) -> int:
    """Where the pair (u, v) is in the open-addressed table of edges, or the free place where it would go.

    Places of edges that have moved on stay taken until the table is rebuilt: their ends no longer match any query.
    """
    low, high = min(u, v), max(u, v)
    mask = table.size - 1
    at = (low * 0x9E3779B1 + high * 0x85EBCA77) & mask
    while table[at] >= 0:
        e = table[at]
        if min(ends[e, 0], ends[e, 1]) == low and max(ends[e, 0], ends[e, 1]) == high:
            break
        at = (at + 1) & mask
    return int(at)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _settle(heap: I64, place: I64, mass: F64, count: int, hole: int) -> None:
    """Restore the heap of edges (highest score first, then lowest edge) around `hole`; place[e] is where e is."""
    item = heap[hole]
    mine = mass[item, 0] / mass[item, 1]
    while hole > 0:
        other = heap[(hole - 1) // 2]
        score = mass[other, 0] / mass[other, 1]
        if score > mine or (score == mine and other < item):
            break
        heap[hole] = other
        place[other] = hole
        hole = (hole - 1) // 2
    while 2 * hole + 1 < count:
        down = 2 * hole + 1
        other = heap[down]
        score = mass[other, 0] / mass[other, 1]
        if down + 1 < count:
            second = heap[down + 1]
            rival = mass[second, 0] / mass[second, 1]
            if rival > score or (rival == score and second < other):
                down, other, score = down + 1, second, rival
        if mine > score or (mine == score and item < other):
            break
        heap[hole] = other
        place[other] = hole
        hole = down
    heap[hole] = item
    place[item] = hole


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _merge(  # noqa: PLR0912, PLR0915  # one compiled loop over arrays that it shares
    parent: I64,
    name: I64,
    size: I64,
    ends: I64,
    mass: F64,
    alive: npt.NDArray[np.bool_],
    table: I64,
    log_names: I64,
    log_mass: F64,
    threshold: float,
    dust_size: int,
    dust_threshold: float,
) -> int:
    """The loop of `agglomerate`; changes all arrays in place and returns the number of merges.

    ends[e] are edge e's two groups; half 2 * e + side links the edges of one group into a list.
    """
    n, m = len(size), len(ends)
    first = np.full(n, -1, np.int64)
    degree = np.zeros(n, np.int64)
    link = np.full(2 * m, -1, np.int64)
    for half in range(2 * m):
        node = ends[half // 2, half % 2]
        link[half] = first[node]
        first[node] = half
        degree[node] += 1
    heap = np.arange(m)
    place = np.arange(m)
    count = m
    for hole in range(m):  # grow the heap by one edge at a time
        _settle(heap, place, mass, hole + 1, hole)
    taken = 0
    for e in range(m):
        table[_slot(table, ends, ends[e, 0], ends[e, 1])] = e
        taken += 1
    merges = 0
    while count > 0:
        best = heap[0]
        score = mass[best, 0] / mass[best, 1]
        if score < min(threshold, dust_threshold):
            break
        count -= 1
        place[best] = -1
        if count > 0:
            heap[0] = heap[count]
            _settle(heap, place, mass, count, 0)
        into, gone = ends[best, 0], ends[best, 1]
        if score < threshold and min(size[into], size[gone]) >= dust_size:
            continue
        if degree[into] < degree[gone]:
            into, gone = gone, into
        log_names[merges, 0] = min(name[into], name[gone])
        log_names[merges, 1] = max(name[into], name[gone])
        log_mass[merges, 0] = score
        log_mass[merges, 1] = mass[best, 1]
        merges += 1
        alive[best] = False
        parent[gone] = into
        name[into] = min(name[into], name[gone])
        size[into] += size[gone]
        half = first[gone]
        while half >= 0:
            after = link[half]
            e = half // 2
            if alive[e]:
                other = ends[e, 1 - half % 2]
                at = _slot(table, ends, into, other)
                twin = table[at]
                if twin < 0:
                    ends[e, half % 2] = into
                    table[at] = e
                    taken += 1
                    link[half] = first[into]
                    first[into] = half
                    degree[into] += 1
                else:
                    mass[twin, 0] += mass[e, 0]
                    mass[twin, 1] += mass[e, 1]
                    alive[e] = False
                    if place[e] >= 0:
                        hole = place[e]
                        place[e] = -1
                        count -= 1
                        if hole < count:
                            heap[hole] = heap[count]
                            _settle(heap, place, mass, count, hole)
                    if place[twin] < 0:
                        place[twin] = count
                        heap[count] = twin
                        count += 1
                    _settle(heap, place, mass, count, place[twin])
            half = after
        if 4 * taken > 3 * table.size:
            table[:] = -1
            taken = 0
            for e in range(m):
                if alive[e]:
                    table[_slot(table, ends, ends[e, 0], ends[e, 1])] = e
                    taken += 1
    return merges
