"""The connectome as a networkx graph."""

from __future__ import annotations

import networkx as nx

from connectome_db.query.database import Database


def connectome_graph(db: Database) -> nx.DiGraph:
    """Neurons as nodes (named by their uint64 id, as int), connections as directed edges pre -> post.

    Node attributes: size_vx, volume_nm3, synapses_out, synapses_in, partners_out, partners_in, touches_border.
    Edge attributes: synapses, size_vx, confidence, weakest_merge. The graph's attribute `units` gives the unit of each.
    """
    graph = nx.DiGraph(
        units={"size_vx": "vx", "volume_nm3": "nm3", "synapses": "", "confidence": "", "weakest_merge": ""}
    )
    for row in db.fetch("SELECT * EXCLUDE (unit) FROM neuron ORDER BY neuron"):
        graph.add_node(row.pop("neuron"), **row)
    for row in db.fetch("SELECT * EXCLUDE (unit) FROM connection ORDER BY pre, post"):
        graph.add_edge(row.pop("pre"), row.pop("post"), **row)
    return graph
