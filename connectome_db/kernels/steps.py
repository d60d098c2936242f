"""Walks on a graph in compressed rows (CSR): neurons two steps away, shortest paths, and what lies within k steps.

`start` int64[N + 1] and `partner` int32[E] are the rows of the outgoing side, or of the incoming one to walk
against the connections. All results depend on the graph alone.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numba
import numpy as np

_compiled = numba.njit(cache=True, nogil=True)


@_compiled  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def two_steps(start, partner, synapses, source, top, score, seen):  # type: ignore[no-untyped-def]  # compiled
    """The `top` nodes with the largest sum, over all intermediate nodes, of the product of synapses of the two steps.

    Without `source` itself; equal sums in ascending order of nodes. Returns (nodes int64[K], sums int64[K]), K <= top.
    `score` int64[N] is zero, and is left so; `seen` int32[N] is room for the nodes that were met.
    """
    met = 0
    for i in range(start[source], start[source + 1]):
        first = np.int64(synapses[i])
        middle = partner[i]
        for j in range(start[middle], start[middle + 1]):
            v = partner[j]
            if score[v] == 0:
                seen[met] = v
                met += 1
            score[v] += first * synapses[j]
    nodes, sums = np.zeros(top, np.int64), np.zeros(top, np.int64)
    found = 0
    for n in range(met):
        v = np.int64(seen[n])
        mine = score[v]
        score[v] = 0
        if v == source or (found == top and (top == 0 or mine < sums[found - 1])):
            continue
        k = found if found < top else top
        while k > 0 and (sums[k - 1] < mine or (sums[k - 1] == mine and nodes[k - 1] > v)):
            if k < top:
                nodes[k], sums[k] = nodes[k - 1], sums[k - 1]
            k -= 1
        if k < top:
            nodes[k], sums[k] = v, mine
            found = min(found + 1, top)
    return nodes[:found], sums[:found]


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def _widen(start, partner, nodes, mine, theirs):  # type: ignore[no-untyped-def]  # compiled
    """One level of a search: the next nodes, and the node that the other side has seen, or -1.

    `mine` int32[N] has, for each node seen by this side, where it was reached from (-1: not seen); it is filled.
    """
    found = np.empty(len(mine), np.int32)
    n = 0
    for u in nodes:
        for i in range(start[u], start[u + 1]):
            v = partner[i]
            if mine[v] < 0:
                mine[v] = u
                if theirs[v] >= 0:
                    return found[:0], np.int64(v)
                found[n] = v
                n += 1
    return found[:n].copy(), np.int64(-1)


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def _size(start, nodes):  # type: ignore[no-untyped-def]  # compiled
    total = 0
    for u in nodes:
        total += start[u + 1] - start[u]
    return total


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def _joined(ahead, behind, meeting, a, b):  # type: ignore[no-untyped-def]  # compiled
    """The path through `meeting`, from the trees of both sides."""
    front = [meeting]
    while front[-1] != a:
        front.append(np.int64(ahead[front[-1]]))
    path = front[::-1]
    while path[-1] != b:
        path.append(np.int64(behind[path[-1]]))
    return np.array(path)


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def fewest_steps(out_start, out_partner, in_start, in_partner, a, b):  # type: ignore[no-untyped-def]  # compiled
    """Nodes of a path from `a` to `b` with the fewest steps, int64[L]; empty when there is none.

    Searched from both ends at once, the side with fewer connections ahead first (Pohl 1971).
    """
    a, b = np.int64(a), np.int64(b)
    if a == b:
        return np.array([a])
    nodes = len(out_start) - 1
    ahead, behind = np.full(nodes, -1, np.int32), np.full(nodes, -1, np.int32)
    ahead[a], behind[b] = a, b
    front, back = np.array([a], np.int32), np.array([b], np.int32)
    while len(front) and len(back):
        if _size(out_start, front) <= _size(in_start, back):
            front, meeting = _widen(out_start, out_partner, front, ahead, behind)
        else:
            back, meeting = _widen(in_start, in_partner, back, behind, ahead)
        if meeting >= 0:
            return _joined(ahead, behind, meeting, a, b)
    return np.empty(0, np.int64)


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def _length(synapses, share, total):  # type: ignore[no-untyped-def]  # compiled
    """Length of a connection: 1 / synapses, or -log of its share of the target's input."""
    return -np.log(synapses / total) if share else 1.0 / synapses


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def least_length(  # type: ignore[no-untyped-def]  # noqa: PLR0912  # both sides in one compiled loop
    out_start, out_partner, out_synapses, in_start, in_partner, in_synapses, into, share, a, b
):
    """A path from `a` to `b` of least length (int64[L], length); empty and inf when there is none.

    `into` int64[N] is the number of synapses onto each node; see `_length`. Dijkstra's search from both ends
    (Dijkstra 1959; Nicholson 1966).
    """
    a, b = np.int64(a), np.int64(b)
    if a == b:
        return np.array([a]), 0.0
    n = len(out_start) - 1
    ahead, behind = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    near, far = np.full(n, np.inf), np.full(n, np.inf)
    near[a], far[b] = 0.0, 0.0
    ahead[a], behind[b] = a, b
    front, back = [(0.0, a)], [(0.0, b)]
    best, meeting = np.inf, np.int64(-1)
    while front and back and front[0][0] + back[0][0] < best:
        if front[0][0] <= back[0][0]:
            d, u = heappop(front)
            if d > near[u]:
                continue
            for i in range(out_start[u], out_start[u + 1]):
                v = np.int64(out_partner[i])
                reached = d + _length(out_synapses[i], share, into[v])
                if reached < near[v]:
                    near[v], ahead[v] = reached, u
                    heappush(front, (reached, v))
                    if reached + far[v] < best:
                        best, meeting = reached + far[v], v
        else:
            d, u = heappop(back)
            if d > far[u]:
                continue
            for i in range(in_start[u], in_start[u + 1]):
                v = np.int64(in_partner[i])
                reached = d + _length(in_synapses[i], share, into[u])
                if reached < far[v]:
                    far[v], behind[v] = reached, u
                    heappush(back, (reached, v))
                    if reached + near[v] < best:
                        best, meeting = reached + near[v], v
    if meeting < 0:
        return np.empty(0, np.int64), np.inf
    return _joined(ahead, behind, meeting, a, b), best


@_compiled  # type: ignore[untyped-decorator, unused-ignore]
def within(start, partner, sources, steps):  # type: ignore[no-untyped-def]  # compiled
    """Steps from the nearest of `sources` to every node, int32[N]: 0 for these, -1 beyond `steps`."""
    hops = np.full(len(start) - 1, -1, np.int32)
    queue = np.empty(len(start) - 1, np.int32)
    tail = 0
    for u in sources:
        if hops[u] < 0:
            hops[u] = 0
            queue[tail] = u
            tail += 1
    head = 0
    while head < tail:
        u = queue[head]
        head += 1
        if hops[u] == steps:
            break
        for i in range(start[u], start[u + 1]):
            v = partner[i]
            if hops[v] < 0:
                hops[v] = hops[u] + 1
                queue[tail] = v
                tail += 1
    return hops
