"""The graph as memory-mapped arrays: who connects to whom at once, without SQL.

`finish` makes them beside the table `connection` (data/graph/adjacency/): rows in both directions, ascending. Opening
reads nothing; an answer reads the pages it needs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from connectome_db.errors import QueryError
from connectome_db.kernels import steps
from connectome_db.query.csr import I32, I64, U64, Arrays, Direction

Weight = Literal["steps", "synapses", "share"]


@dataclass(frozen=True)
class Adjacency(Arrays):
    """Connections of a project, by neuron id."""

    def partners(self, neuron: int, direction: Direction = "out", *, min_synapses: int = 1) -> tuple[U64, I32]:
        """Ids of the neurons it connects to ("in": that connect to it), ascending, and their synapses."""
        side, i = self.side(direction), self.index(neuron)
        row = slice(int(side.start[i]), int(side.start[i + 1]))
        found, synapses = self.neurons[side.partner[row]], side.synapses[row]
        if min_synapses > 1:
            strong = synapses >= min_synapses
            return found[strong], synapses[strong]
        return found, synapses

    def synapses(self, pre: int, post: int) -> int:
        """Synapses of the connection from `pre` to `post`; 0 when there is none."""
        i, j = self.index(pre), self.index(post)
        a, b = int(self.out.start[i]), int(self.out.start[i + 1])
        at = a + int(np.searchsorted(self.out.partner[a:b], j))
        return int(self.out.synapses[at]) if at < b and self.out.partner[at] == j else 0

    def adjacency(self, pre: Sequence[int] | U64, post: Sequence[int] | U64) -> tuple[U64, U64, I32]:
        """Connections from neurons of `pre` to neurons of `post`: (pre, post, synapses), ascending."""
        rows, wanted = np.unique(self.indices(pre)), np.unique(self.indices(post))
        first, end = self.out.start[rows], self.out.start[rows + 1]
        count = end - first
        at = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        found = self.out.partner[at]
        mine = np.zeros(len(self.neurons), np.bool_)
        mine[wanted] = True
        kept = mine[found]
        return self.neurons[np.repeat(rows, count)[kept]], self.neurons[found[kept]], self.out.synapses[at[kept]]

    def two_hop(self, neuron: int, *, top: int = 10, direction: Direction = "out") -> tuple[U64, I64]:
        """Neurons two steps away with the strongest indirect connection: ids and scores, strongest first.

        The score is the sum over all intermediate neurons of the product of the synapses of the two steps. The neuron
        itself is left out; direct partners are not.
        """
        side = self.side(direction)
        score, seen = _room(len(self.neurons))
        i = self.index(neuron)
        found, sums = steps.two_steps(side.start, side.partner, side.synapses, i, max(top, 0), score, seen)
        return self.neurons[found], sums

    def shortest_path(self, pre: int, post: int, *, weight: Weight = "steps") -> U64:
        """Neurons of a shortest path from `pre` to `post`, both included; empty when there is none.

        The length of a connection is 1 ("steps"), 1 / synapses ("synapses"), or -log of its share of the synapses onto
        its target ("share": the path with the largest product of input shares).
        """
        i, j = self.index(pre), self.index(post)
        o, t = self.out, self.into
        if weight == "steps":
            found: I64 = steps.fewest_steps(o.start, o.partner, t.start, t.partner, i, j)
            return self.neurons[found]
        if weight not in ("synapses", "share"):
            raise QueryError(f"weight {weight!r}: wanted steps, synapses or share")
        path: I64
        path, _ = steps.least_length(
            o.start, o.partner, o.synapses, t.start, t.partner, t.synapses, self.input_synapses, weight == "share", i, j
        )
        return self.neurons[path]

    def k_hop(self, neurons: Sequence[int] | U64, k: int, direction: Direction = "out") -> tuple[U64, I32]:
        """Neurons within `k` steps of any of `neurons`, ascending, and how many steps each is away (0: one of them)."""
        side = self.side(direction)
        hops = steps.within(side.start, side.partner, self.indices(neurons), k)
        near = hops >= 0
        return self.neurons[near], hops[near]

    @cached_property
    def input_synapses(self) -> I64:
        """Synapses onto each neuron, int64[N]."""
        ends = np.concatenate([[0], np.cumsum(self.into.synapses, dtype=np.int64)])
        return np.asarray(ends[self.into.start[1:]] - ends[self.into.start[:-1]], dtype=np.int64)

    def csr(self, direction: Direction = "out") -> csr_array:
        """The matrix of synapses, int32[N, N], on the mapped arrays: rows are presynaptic ("in": postsynaptic)."""
        side = self.side(direction)
        start = side.start.astype(np.int32) if self.connections < 1 << 31 else side.start
        n = len(self.neurons)
        return csr_array((side.synapses, side.partner, start), shape=(n, n), copy=False)


def _room(nodes: int) -> tuple[I64, I32]:
    """Zeros int64[N] and room int32[N], kept by each thread: making them takes as long as an answer."""
    kept = getattr(_ROOM, "kept", None)
    if kept is None or len(kept[0]) != nodes:
        kept = _ROOM.kept = np.zeros(nodes, np.int64), np.empty(nodes, np.int32)
    found: tuple[I64, I32] = kept
    return found


_ROOM = threading.local()
