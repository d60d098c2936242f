"""Motifs: the sixteen kinds of triads against chance, and any pattern that dotmotif can say."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import networkx as nx
import pyarrow as pa

from connectome_db.errors import QueryError
from connectome_db.kernels.triads import TRIADS, triad_census
from connectome_db.query.graph import nulls
from connectome_db.query.graph.nulls import Nulls
from connectome_db.query.graph.wiring import Wiring

MEANING: Mapping[str, str] = {
    "003": "no connection", "012": "one connection", "102": "one reciprocal pair",
    "021D": "divergence: A <- B -> C", "021U": "convergence: A -> B <- C", "021C": "chain: A -> B -> C",
    "111D": "A <-> B <- C", "111U": "A <-> B -> C",
    "030T": "feed-forward loop: A -> B -> C, A -> C", "030C": "cycle: A -> B -> C -> A",
    "201": "A <-> B <-> C", "120D": "A <- B -> C, A <-> C", "120U": "A -> B <- C, A <-> C",
    "120C": "A -> B -> C, A <-> C", "210": "A -> B <-> C, A <-> C", "300": "all three reciprocal",
}  # fmt: skip
CONNECTED = TRIADS[3:]
"""Triads in which all three neurons are joined: those that are called motifs (Milo et al. 2002)."""


def count_triads(wiring: Wiring) -> dict[str, float]:
    """Number of triples of neurons of each kind, exactly that kind (induced); self-connections do not count."""
    counts = triad_census(wiring.pre, wiring.post, wiring.size)
    return dict(zip(TRIADS, (float(n) for n in counts.tolist()), strict=True))


def triads(wiring: Wiring, chance: Nulls) -> pa.Table:
    """The connected triads against random graphs: motif, meaning, and the columns of `nulls.table`."""
    observed, drawn = nulls.compare(wiring.simple(), count_triads, chance)
    rows = nulls.table(
        "motif", list(CONNECTED), [observed[t] for t in CONNECTED], [drawn[t] for t in CONNECTED], chance
    )
    return rows.add_column(1, "meaning", pa.array([MEANING[t] for t in CONNECTED]))


def find_motif(graph: nx.DiGraph, motif: str, *, limit: int | None = None, distinct: bool = True) -> pa.Table:
    """Where a pattern in dotmotif's language occurs: one uint64 column per node of the pattern, one row per occurrence.

        A -> B [synapses >= 5]
        B -> C
        A !> C
        A.type = "KC"

    With `distinct`, occurrences that only rename equal places of the pattern are one: those that the pattern's own
    symmetries turn into each other, conditions among them. (dotmotif's own way of leaving them out also drops one of
    the two directions in which three neurons can form a cycle.) `limit` stops the search. Uses dotmotif with grandiso
    (Matelsky et al. 2021, 10.1038/s41598-021-91025-5): for patterns of few neurons. Raises QueryError when the pattern
    is not one.
    """
    dotmotif = _dotmotif()
    try:
        asked = dotmotif.Motif(motif)
        turns = _symmetries(asked) if distinct else [{str(n): str(n) for n in asked.to_nx().nodes}]
        most = None if limit is None else limit * len(turns)
        found = dotmotif.GrandIsoExecutor(graph=graph).find(asked, limit=most)
    except Exception as e:  # the parser and the executor raise many kinds, all about the text that was given
        raise QueryError(f"dotmotif cannot search for {motif.strip()!r}: {type(e).__name__}: {e}") from e
    nodes = sorted(str(n) for n in asked.to_nx().nodes)
    rows = dict.fromkeys(min(tuple(match[turn[n]] for n in nodes) for turn in turns) for match in found)
    kept = list(rows)[:limit]
    return pa.table({n: pa.array([row[k] for row in kept], pa.uint64()) for k, n in enumerate(nodes)})


def _symmetries(asked: Any) -> list[dict[str, str]]:
    """The renamings of a pattern's nodes that leave it as it is, the one that changes nothing among them."""
    pattern = asked.to_nx()
    same = {str(n): str(n) for n in pattern.nodes}
    if asked.list_dynamic_node_constraints() or asked.list_dynamic_edge_constraints():
        return [same]  # conditions between two neurons: which of them are alike is not told
    of_node, of_edge = asked.list_node_constraints(), asked.list_edge_constraints()
    marked = nx.DiGraph()
    for n in pattern.nodes:
        marked.add_node(n, says=repr(of_node.get(n)))
    for a, b, said in pattern.edges(data=True):
        marked.add_edge(a, b, says=repr((said.get("exists"), of_edge.get((a, b)))))
    equal = nx.algorithms.isomorphism.categorical_node_match("says", None)
    equal_edge = nx.algorithms.isomorphism.categorical_edge_match("says", None)
    matcher = nx.algorithms.isomorphism.DiGraphMatcher(marked, marked, equal, equal_edge)
    return [{str(a): str(b) for a, b in turn.items()} for turn in matcher.isomorphisms_iter()] or [same]


def _dotmotif() -> Any:
    try:
        return importlib.import_module("dotmotif")
    except ImportError:
        raise QueryError("dotmotif is not installed: pip install 'connectome-db[motifs]'") from None
