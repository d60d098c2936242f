"""Numbers of steps between nodes of a graph: breadth first from many sources."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


def hop_counts(start: I64, neighbour: I32, sources: I64) -> I64:
    """Ordered pairs (source, node) that lie 0, 1, 2 ... steps apart, int64[longest + 1]; unreached ones are left out.

    `start` int64[N+1] and `neighbour` int32[M] are the rows of a CSR matrix.
    """
    counts = np.zeros(len(start), np.int64)
    _count(start, neighbour, sources.astype(np.int64), counts)
    reached = np.flatnonzero(counts)
    return counts[: int(reached[-1]) + 1] if len(reached) else counts[:0]


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _count(start, neighbour, sources, counts):  # type: ignore[no-untyped-def]  # compiled
    nodes = len(start) - 1
    seen = np.full(nodes, -1, np.int64)
    queue = np.empty(nodes, np.int64)
    for k in range(len(sources)):
        queue[0] = sources[k]
        seen[sources[k]] = k
        head, tail, far = 0, 1, 0
        while head < tail:
            end = tail
            counts[far] += end - head
            while head < end:
                u = queue[head]
                head += 1
                for i in range(start[u], start[u + 1]):
                    w = neighbour[i]
                    if seen[w] != k:
                        seen[w] = k
                        queue[tail] = w
                        tail += 1
            far += 1
