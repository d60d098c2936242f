"""Affinities -> segments: the mutex watershed.

Wolf et al. 2018 (10.1007/978-3-030-01225-0_34): edges are taken from the strongest down. One between neighbours joins
its two clusters unless they exclude each other; a long-range one that says "apart" makes its two clusters exclude each
other from then on. No seeds and no threshold: how many objects there are follows from the affinities.

Only neighbours attract and only long-range edges repel, as in the paper, so every segment is connected through faces.
Strengths are whole numbers (the affinity, or what is missing to 255); equal ones are taken by channel, then in raster
order of the voxel, so the result is a function of the affinities alone.

affinity: uint8 (c, z, y, x); affinity[k, v] = 255 means that v and v - offsets[k] are surely one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from connectome_db.errors import ConfigError
from connectome_db.kernels.affinity import Offset
from connectome_db.kernels.watershed import grow

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NEIGHBOURS = 3
"""The first channels, which attract: the lower neighbour on z, y and x."""


SCATTER = np.int64(-7046029254386353131)
"""2**64 over the golden ratio, as a signed number: products with it are spread evenly (Knuth 1998, 6.4)."""


@dataclass(frozen=True)
class MutexOptions:
    """What attracts and what repels."""

    repulsion: float
    """Factor on the strength of long-range edges: 1 as in the paper; lower merges more, higher splits more."""
    attraction: float
    """Edges between neighbours of an affinity (0-1) below this join nothing."""
    min_size_vx: int
    """Smaller segments are dissolved and shared out among the others along the strongest edges."""


def mutex_watershed(affinity: U8, offsets: Sequence[Offset], tissue: Mask, options: MutexOptions) -> I32:
    """Affinities uint8 (c, z, y, x) with their offsets, and tissue bool (z, y, x) -> labels int32 (z, y, x).

    Labels are 1, 2, ... in raster order of their first voxels, 0 outside tissue and where a piece of tissue holds no
    segment of `min_size_vx`. The first three offsets must be the neighbours on z, y and x; others than these three or
    none beyond them is a ConfigError.
    """
    if tuple(offsets[:NEIGHBOURS]) != ((1, 0, 0), (0, 1, 0), (0, 0, 1)) or len(offsets) <= NEIGHBOURS:
        raise ConfigError(
            f"offsets: wanted the neighbours on z, y, x and at least one longer step, got {list(offsets)}; "
            "train a network with long-range affinities"
        )
    if affinity.shape != (len(offsets), *tissue.shape):
        raise ConfigError(f"affinity: wanted the shape {(len(offsets), *tissue.shape)}, got {affinity.shape}")
    attract = np.arange(256, dtype=np.int64)
    attract[: int(np.ceil(options.attraction * 255))] = -1
    repel = np.minimum(np.floor(options.repulsion * (255 - np.arange(256)) + 0.5), 255).astype(np.int64)
    strength = np.stack([attract] * NEIGHBOURS + [repel] * (len(offsets) - NEIGHBOURS))
    edges = _ordered(np.ascontiguousarray(affinity), np.asarray(offsets, np.int64), tissue, strength)
    step = np.asarray(offsets, np.int64) @ np.asarray([tissue.shape[1] * tissue.shape[2], tissue.shape[2], 1])
    root = _cluster(edges, step, tissue.size)
    _, index, size = np.unique(root, return_inverse=True, return_counts=True)
    keep = (size[index] >= options.min_size_vx) & tissue.ravel()
    # A cluster's root is any of its voxels; named by its first voxel that is kept, which is its first of all.
    label = np.zeros(tissue.size, np.int32)
    names, first, inverse = np.unique(index[keep], return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int32)
    rank[np.argsort(first)] = np.arange(1, len(names) + 1, dtype=np.int32)
    label[keep] = rank[inverse]
    return grow(label.reshape(tissue.shape), affinity[:NEIGHBOURS], tissue)


def held_together(affinity: U8, offsets: Sequence[Offset], bodies: npt.NDArray[np.unsignedinteger], least: float) -> U8:
    """Affinities uint8 (c, z, y, x) with their offsets -> the same, at least `least` (0-1) within one body.

    `bodies`: labels (z, y, x) of another segmentation, 0 = none. Both voxels of an edge in one body: it attracts, and a
    long-range one repels little. Edges of another pair stay as they are, so the watershed may join bodies, and cut one
    where long-range edges out of it say so more surely than `least` holds it together.
    """
    out = affinity.copy()
    level = np.uint8(np.floor(least * 255 + 0.5))
    for channel, offset in zip(out, offsets, strict=True):
        here = tuple(slice(n, None) for n in offset)
        there = tuple(slice(0, extent - n) for n, extent in zip(offset, bodies.shape, strict=True))
        same = (bodies[here] == bodies[there]) & (bodies[here] != 0)
        edges = channel[here]
        np.maximum(edges, level, out=edges, where=same)
    return out


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _ordered(affinity: U8, offsets: I64, tissue: Mask, strength: I64) -> I64:
    """Edges channel * n + voxel, strongest first, equal ones as they come. strength[channel, affinity] -1: no edge."""
    channels, depth, height, width = affinity.shape
    n = depth * height * width
    start = np.zeros(257, np.int64)
    order = np.empty(0, np.int64)
    for turn in range(2):  # count, then place
        if turn == 1:
            start[1:] = np.cumsum(start[1:])
            order = np.empty(start[256], np.int64)
        for c in range(channels):
            dz, dy, dx = offsets[c]
            for z in range(dz, depth):
                for y in range(dy, height):
                    for x in range(dx, width):
                        level = strength[c, affinity[c, z, y, x]]
                        if level < 0 or not tissue[z, y, x] or not tissue[z - dz, y - dy, x - dx]:
                            continue
                        slot = 255 - level
                        if turn == 0:
                            start[slot + 1] += 1
                        else:
                            order[start[slot]] = c * n + (z * height + y) * width + x
                            start[slot] += 1
    return order


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _find(parent: I64, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _slot(table: I64, n: int, u: int, v: int) -> int:
    """Where the pair of roots (u, v) is in the open-addressed table, or the free place where it would go."""
    key = min(u, v) * n + max(u, v)
    mask = table.size - 1
    mixed = key * SCATTER
    at = (mixed ^ (mixed >> 32)) & mask
    while table[at] >= 0 and table[at] != key:
        at = (at + 1) & mask
    return int(at)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _cluster(edges: I64, step: I64, n: int) -> I64:  # noqa: PLR0912  # one compiled loop
    """The root of each voxel's cluster.

    Who excludes whom is kept twice: as pairs of roots in a table, for the question, and as a list per root, for
    joining. Entries of lists may name voxels that are roots no more; their root is looked up. The shorter list is
    moved, and the pairs of a root that is gone stay in the table until it is built anew.
    """
    parent = np.arange(n)
    first = np.full(n, -1, np.int64)
    length = np.zeros(n, np.int64)
    other = np.empty(1024, np.int64)
    link = np.empty(1024, np.int64)
    used = 0
    table = np.full(4096, -1, np.int64)
    taken = 0
    for edge in edges:
        channel = edge // n
        voxel = edge - channel * n
        u = _find(parent, voxel)
        v = _find(parent, voxel - step[channel])
        if u == v:
            continue
        at = _slot(table, n, u, v)
        if table[at] >= 0:  # they exclude each other already
            continue
        if channel >= NEIGHBOURS:
            table[at] = min(u, v) * n + max(u, v)
            taken += 1
            if used + 2 > other.size:
                other = np.concatenate((other, np.empty(other.size, np.int64)))
                link = np.concatenate((link, np.empty(link.size, np.int64)))
            for a, b in ((u, v), (v, u)):
                other[used], link[used] = b, first[a]
                first[a] = used
                length[a] += 1
                used += 1
        else:
            if length[u] < length[v]:
                u, v = v, u
            parent[v] = u
            item = first[v]
            while item >= 0:
                after = link[item]
                w = _find(parent, other[item])
                at = _slot(table, n, u, w)
                if table[at] < 0:
                    table[at] = min(u, w) * n + max(u, w)
                    taken += 1
                    link[item] = first[u]
                    first[u] = item
                    length[u] += 1
                item = after
                if 2 * taken > table.size:
                    table, taken = _rebuilt(table, parent, n)
            first[v] = -1
        if 2 * taken > table.size:
            table, taken = _rebuilt(table, parent, n)
    for voxel in range(n):
        parent[voxel] = _find(parent, voxel)
    return parent


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _rebuilt(table: I64, parent: I64, n: int) -> tuple[I64, int]:
    """The table without pairs of roots that are gone, at most a quarter full, and how many pairs it holds."""
    live = 0
    for key in table:
        if key >= 0 and parent[key // n] == key // n and parent[key % n] == key % n:
            live += 1
    size = table.size
    while 4 * live > size:
        size *= 2
    new = np.full(size, -1, np.int64)
    for key in table:
        if key >= 0 and parent[key // n] == key // n and parent[key % n] == key % n:
            new[_slot(new, n, key // n, key % n)] = key
    return new, live
