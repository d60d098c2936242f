"""Triad census: how many of all triples of nodes are of each of the sixteen kinds.

Batagelj & Mrvar 2001, 10.1016/S0378-8733(01)00035-1: only triples with a connection are visited, so the work grows
with the connections and not with the cube of the nodes. Names are those of Holland & Leinhardt 1970: counts of mutual,
asymmetric and null pairs, and a letter for the direction (D down, U up, C cycle, T transitive).
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

TRIADS = (
    "003", "012", "102", "021D", "021U", "021C", "111D", "111U",
    "030T", "030C", "201", "120D", "120U", "120C", "210", "300",
)  # fmt: skip
"""The kinds, in the order of the counts."""

_CODES = np.array(
    [
        1, 2, 2, 3, 2, 4, 6, 8, 2, 6, 5, 7, 3, 8, 7, 11, 2, 6, 4, 8, 5, 9, 9, 13, 6, 10, 9, 14, 7, 14, 12, 15,
        2, 5, 6, 7, 6, 9, 10, 14, 4, 9, 9, 12, 8, 13, 14, 15, 3, 7, 8, 11, 7, 12, 14, 15, 8, 14, 13, 15, 11, 15, 15, 16,
    ],
    dtype=np.int64,
)  # fmt: skip
"""Kind (from 1) by the six possible connections v->u 1, u->v 2, v->w 4, w->v 8, u->w 16, w->u 32 (Batagelj & Mrvar)."""


def neighbours(pre: I32, post: I32, nodes: int) -> tuple[I64, I32, npt.NDArray[np.uint8]]:
    """Undirected neighbours: start int64[N+1], neighbour int32[M] ascending within a node, code uint8[M].

    The code of neighbour v of u: 1 for u -> v, 2 for v -> u, 3 for both. Self-connections are left out.
    """
    apart = pre != post
    a, b = pre[apart].astype(np.int64), post[apart].astype(np.int64)
    key = np.concatenate([a * nodes + b, b * nodes + a])
    code = np.concatenate([np.full(len(a), 1, np.uint8), np.full(len(a), 2, np.uint8)])
    order = np.argsort(key, kind="stable")
    key, code = key[order], code[order]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, np.int64)
    merged = np.bitwise_or.reduceat(code, first) if len(key) else code
    pairs = key[first]
    start = np.searchsorted(pairs, np.arange(nodes + 1, dtype=np.int64) * nodes)
    return start.astype(np.int64), (pairs % max(nodes, 1)).astype(np.int32), merged


def triad_census(pre: I32, post: I32, nodes: int) -> I64:
    """Counts int64[16], in the order of TRIADS, of a graph of `nodes` nodes with connections pre[k] -> post[k].

    Connections that are listed twice count once; self-connections do not count.
    """
    counts = np.zeros(16, np.int64)
    start, neighbour, code = neighbours(pre, post, nodes)
    _census(start, neighbour, code, nodes, _CODES, counts)
    counts[0] = nodes * (nodes - 1) * (nodes - 2) // 6 - counts[1:].sum()
    return counts


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _census(start, neighbour, code, nodes, codes, counts):  # type: ignore[no-untyped-def]  # compiled
    """Every connected pair v < u with every third node, each triple once."""
    for v in range(nodes):
        for k in range(start[v], start[v + 1]):
            u = neighbour[k]
            if u <= v:
                continue
            pair = code[k]
            i, j = start[v], start[u]
            union = 0
            while i < start[v + 1] or j < start[u + 1]:
                of_v = neighbour[i] if i < start[v + 1] else nodes
                of_u = neighbour[j] if j < start[u + 1] else nodes
                w = min(of_v, of_u)
                to_v = to_u = 0
                if of_v == w:
                    to_v = code[i]
                    i += 1
                if of_u == w:
                    to_u = code[j]
                    j += 1
                if w == u:
                    continue
                if w == v:
                    continue
                union += 1
                if u < w or (v < w < u and to_v == 0):
                    counts[codes[pair + 4 * to_v + 16 * to_u] - 1] += 1
            counts[2 if pair == 3 else 1] += nodes - union - 2
