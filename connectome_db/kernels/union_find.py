"""Pairs that are one thing -> groups, each named by its lowest member."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

U64 = npt.NDArray[np.uint64]


def locate(ids: U64, wanted: U64, what: str) -> npt.NDArray[np.int64]:
    """Indices of `wanted` in the ascending `ids`. Raises KeyError naming the first that is absent."""
    at = np.searchsorted(ids, wanted)
    at = np.minimum(at, max(0, len(ids) - 1))
    absent = np.ones(len(wanted), np.bool_) if len(ids) == 0 else ids[at] != wanted
    if absent.any():
        raise KeyError(f"{what} {int(wanted[absent][0])} is not among the {len(ids)} known ({int(absent.sum())} such)")
    return at.astype(np.int64)


def lowest_names(ids: U64, a: U64, b: U64, what: str) -> U64:
    """Ascending ids uint64[N] and joined pairs (a, b) uint64[M] -> the lowest member of each id's group, uint64[N].

    Linear in N + M. Raises KeyError when a pair names an id that is not in `ids`.
    """
    n = len(ids)
    if n == 0 or len(a) == 0:
        locate(ids, a, what)
        return ids.copy()
    row, column = locate(ids, a, what), locate(ids, b, what)
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    # Ids ascend, so the first id seen of a group is its lowest.
    _, first = np.unique(group, return_index=True)
    return np.asarray(ids[first][group], dtype=np.uint64)
