"""dotmotif on the whole larva against plain counts and our triad census: python -m benchmarks.motifs EDGES.parquet

EDGES has columns pre, post (neurons), one row per connection. Prints occurrences and seconds of each way.
"""

from __future__ import annotations

import sys
import time

import networkx as nx
import numpy as np
import pyarrow.parquet as pq

from connectome_db.query.graph.motifs import count_triads, find_motif
from connectome_db.query.graph.wiring import Wiring

PATTERNS = {
    "reciprocal pair": "A -> B\nB -> A",
    "3-cycle": "A -> B\nB -> C\nC -> A",
    "feed-forward loop": "A -> B\nB -> C\nA -> C",
}
IN_TRIAD = {
    "3-cycle": {"030C": 1, "120C": 1, "210": 1, "300": 2},
    "feed-forward loop": {"030T": 1, "120D": 2, "120U": 2, "120C": 1, "210": 3, "300": 6},
}
"""How many of a pattern a triad of each kind holds."""


def plain(name: str, targets: dict[int, set[int]]) -> int:
    """Occurrences by Python sets alone."""
    if name == "reciprocal pair":
        return sum(a in targets[b] for a in targets for b in targets[a]) // 2
    if name == "3-cycle":
        return sum(a in targets[c] for a in targets for b in targets[a] for c in targets[b]) // 3
    return sum(len(targets[a] & targets[b]) for a in targets for b in targets[a])


def main(path: str) -> None:
    table = pq.read_table(path)
    pre, post = (table[c].to_numpy().astype(np.uint64) for c in ("pre", "post"))
    apart = pre != post
    pre, post = pre[apart], post[apart]
    names = np.unique(np.concatenate([pre, post]))
    ends = [np.searchsorted(names, side).astype(np.int32) for side in (pre, post)]
    wiring = Wiring(names, ends[0], ends[1], np.ones(len(pre), np.int64))
    count_triads(wiring)  # compiles
    start = time.perf_counter()
    triads = count_triads(wiring)
    print(f"triad census: {time.perf_counter() - start:.2f} s for {len(pre):,} connections")
    targets: dict[int, set[int]] = {n: set() for n in names.tolist()}
    for a, b in zip(pre.tolist(), post.tolist(), strict=True):
        targets[a].add(b)
    graph = nx.DiGraph(zip(pre.tolist(), post.tolist(), strict=True))
    for name, pattern in PATTERNS.items():
        start = time.perf_counter()
        truth = plain(name, targets)
        counted = time.perf_counter() - start
        start = time.perf_counter()
        found = find_motif(graph, pattern).num_rows
        searched = time.perf_counter() - start
        ours = sum(triads[t] * n for t, n in IN_TRIAD[name].items()) if name in IN_TRIAD else None
        census = "" if ours is None else f", triads {ours:,.0f}"
        print(f"{name}: plain {truth:,} ({counted:.1f} s), dotmotif {found:,} ({searched:.1f} s){census}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
