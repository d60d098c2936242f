"""Companions of tables: the same rows in another order, and the adjacency of the graph. `finish` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from connectome_db.spec import Adjacency, Companion, Sorted, Table

CONNECTION = (Sorted(name="by_post", by=("post", "pre")), Adjacency(name="adjacency"))
"""Edges by postsynaptic neuron, and as arrays in both directions."""

_BY_SIDE = (Sorted(name="by_pre", by=("pre", "post", "synapse")), Sorted(name="by_post", by=("post", "pre", "synapse")))

LINK = _BY_SIDE
"""Synapses by presynaptic and by postsynaptic neuron."""

LISTED_SYNAPSE = (*_BY_SIDE, Sorted(name="by_place", by=("synapse",), place=("z_vx", "y_vx", "x_vx")))
"""The same for an imported list, and by place where the list gives places."""

COMPANIONS: Mapping[str, tuple[Companion, ...]] = {
    "connection": CONNECTION,
    "link": LINK,
    "listed_synapse": LISTED_SYNAPSE,
}
"""Table name -> its companions, of both pipelines."""


def sorted_tables(table: Table) -> tuple[tuple[Sorted, Table], ...]:
    """The sorted companions of a table, with the declaration of the table that each is shown as."""
    found = [c for c in COMPANIONS.get(table.name, ()) if isinstance(c, Sorted)]
    return tuple(
        (c, replace(table, name=f"{table.name}_{c.name}", doc=f"The rows of {table.name}, {_order(c)}.")) for c in found
    )


def _order(c: Sorted) -> str:
    return "in an order that keeps places together (Morton)" if c.place else f"sorted by {', '.join(c.by)}"
