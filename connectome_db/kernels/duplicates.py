"""Detections of one thing by several blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

I64 = npt.NDArray[np.int64]


def duplicates(
    ids: npt.NDArray[np.uint64],
    place_nm: npt.NDArray[np.float64],
    size: I64,
    partner_a: npt.NDArray[np.uint64],
    partner_b: npt.NDArray[np.uint64],
    within_nm: float,
) -> I64:
    """For each of N detections at `place_nm` (N, 3): the index of the one it repeats, or -1.

    Two are the same when they are at most `within_nm` apart and have the same two partners, in either order. From the
    largest down (then the lowest id), each that repeats none kept so far is kept.
    """
    first = np.full(len(ids), -1, np.int64)
    if len(ids) < 2:
        return first
    pairs = cKDTree(place_nm).query_pairs(within_nm, output_type="ndarray")
    low, high = np.minimum(partner_a, partner_b), np.maximum(partner_a, partner_b)
    i, j = pairs[:, 0], pairs[:, 1]
    same = (low[i] == low[j]) & (high[i] == high[j])
    rank = np.empty(len(ids), np.int64)
    rank[np.lexsort((ids, -size))] = np.arange(len(ids))
    i, j = pairs[same, 0], pairs[same, 1]
    better, worse = np.where(rank[i] < rank[j], i, j), np.where(rank[i] < rank[j], j, i)
    # By the better one's rank: whether it was kept is known before anything is compared with it.
    for at in np.lexsort((rank[worse], rank[better])).tolist():
        if first[better[at]] < 0 and first[worse[at]] < 0:
            first[worse[at]] = better[at]
    return first
