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

    With `distinct`, occurrences that only rename equal places of the pattern are one. `limit` stops the search. Uses
    dotmotif with grandiso (Matelsky et al. 2021, 10.1038/s41598-021-91025-5): for patterns of few neurons. Raises
    QueryError when the pattern is not one.
    """
    dotmotif = _dotmotif()
    try:
        asked = dotmotif.Motif(motif, exclude_automorphisms=distinct)
        found = dotmotif.GrandIsoExecutor(graph=graph).find(asked, limit=limit)
    except Exception as e:  # the parser and the executor raise many kinds, all about the text that was given
        raise QueryError(f"dotmotif cannot search for {motif.strip()!r}: {type(e).__name__}: {e}") from e
    nodes = sorted(str(n) for n in asked.to_nx().nodes)
    return pa.table({n: pa.array([r[n] for r in found], pa.uint64()) for n in nodes})


def _dotmotif() -> Any:
    try:
        return importlib.import_module("dotmotif")
    except ImportError:
        raise QueryError("dotmotif is not installed: pip install 'connectome-db[motifs]'") from None
