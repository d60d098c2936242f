"""In which order the neurons of a matrix stand: by type, community, size or id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.plots.about import I64, UNTYPED, groups_of, kinds_of, type_kind
from connectome_db.query.database import Database
from connectome_db.query.graph.communities import communities
from connectome_db.query.graph.wiring import Wiring

MOST_FOR_COMMUNITIES = 300_000
"""Connections up to which communities are looked for: a minute at most."""
WAYS = ("auto", "type", "community", "size", "id")
"""How neurons can be sorted without naming a kind of annotation."""


def wiring_of(rows: pa.Table) -> Wiring:
    """Rows of pre, post, synapses (uint64, sorted by pre and post) as arrays; only neurons that are in them."""
    pre, post = rows["pre"].to_numpy(), rows["post"].to_numpy()
    neurons = np.unique(np.concatenate([pre, post]))
    ends = [np.searchsorted(neurons, side).astype(np.int32) for side in (pre, post)]
    return Wiring(neurons, ends[0], ends[1], rows["synapses"].to_numpy().astype(np.int64))


@dataclass(frozen=True)
class Order:
    """`place` int64[N]: the neurons in their order; `group` their groups there, or [] without; `told` in words."""

    place: I64
    group: list[str]
    told: str


def order_of(db: Database, edges: Wiring, by: str, seed: int) -> Order:
    """Neurons in order: groups from the largest on, in each the neurons with the most synapses first.

    `by` is type, community, size, id, a kind of annotation, or auto: the first of the first three that there is. Raises
    QueryError for another.
    """
    if by == "auto":
        by = "type" if type_kind(db) else "community" if len(edges.pre) <= MOST_FOR_COMMUNITIES else "size"
    if by == "id":
        return Order(np.arange(len(edges.neurons)), [], "id")
    if by == "size":
        return Order(np.argsort(-_totals(edges), kind="stable"), [], "synapses of the neuron")
    if by == "community":
        if len(edges.pre) > MOST_FOR_COMMUNITIES:
            raise QueryError(
                f"communities of {len(edges.pre):,} connections would take too long (up to {MOST_FOR_COMMUNITIES:,}): "
                "give min_synapses, or sort by size"
            )
        found = communities(edges, seed=seed)["community"].to_pylist()
        return _grouped(edges, [str(c) for c in found], f"community (Louvain, seed {seed})")
    kind = type_kind(db) if by == "type" else by
    if kind is not None and kind not in kinds_of(db):
        raise QueryError(f"neurons cannot be sorted by {by!r}{nearest(by, [*WAYS, *kinds_of(db)])}")
    if kind is None:
        there = ", ".join([*kinds_of(db), "community", "size", "id"])
        raise QueryError(f"the neurons have no annotation that says their type; sort by one of {there}")
    return _grouped(edges, groups_of(db, kind, edges.neurons), kind)


def _totals(edges: Wiring) -> I64:
    """Synapses of each neuron, made and received: int64[N]."""
    both = np.bincount(edges.pre, edges.synapses, edges.size) + np.bincount(edges.post, edges.synapses, edges.size)
    return both.astype(np.int64)


def _grouped(edges: Wiring, groups: list[str], told: str) -> Order:
    names, number, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    last = names == UNTYPED
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.lexsort((names, np.char.str_len(names), -size, last))] = np.arange(len(names))
    place = np.lexsort((edges.neurons, -_totals(edges), rank[number]))
    return Order(place, [groups[k] for k in place], told)
