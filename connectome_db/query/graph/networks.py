"""The connectome as a networkx graph, with what is known of every neuron and connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx

from connectome_db.query.database import Database

UNITS: Mapping[str, str] = {
    "size_vx": "vx", "volume_nm3": "nm3", "synapses": "", "confidence": "", "weakest_merge": "", "quality_mean": "",
}  # fmt: skip

_EDGES = """
SELECT c.*, q.quality_mean, q.quality_min FROM connection c LEFT JOIN connection_quality q USING (pre, post)
WHERE c.synapses >= $least ORDER BY c.pre, c.post
"""


def connectome_graph(db: Database, *, min_synapses: int = 1, quality: bool = False) -> nx.DiGraph:
    """Neurons as nodes (named by their uint64 id, as int), connections as directed edges pre -> post.

    Node attributes: size_vx, volume_nm3, synapses_out, synapses_in, partners_out, partners_in, touches_border, the
    source's name, and one per kind of annotation (several values become a list). Edge attributes: synapses, size_vx,
    confidence, weakest_merge, the `unit` of the stage graph that made the edge (for `trace`), and with `quality` also
    quality_mean and quality_min. What is unknown is left out. The graph's attribute `units` gives the unit of each, and
    `min_synapses` what was left out.
    """
    graph = nx.DiGraph(units=dict(UNITS), min_synapses=min_synapses, project=db.project.name, revision=db.at or "")
    for row in db.fetch("SELECT * EXCLUDE (unit) FROM neuron ORDER BY neuron"):
        graph.add_node(row.pop("neuron"), **_known(row))
    if db.has("neuron_name"):
        for row in db.fetch("SELECT neuron, name FROM neuron_name ORDER BY neuron"):
            graph.nodes[row["neuron"]]["name"] = row["name"]
    if db.has("annotation"):
        said = "SELECT neuron, kind, list(value ORDER BY value) AS held FROM annotation GROUP BY ALL ORDER BY ALL"
        for row in db.fetch(said):
            held = row["held"]
            graph.nodes[row["neuron"]][row["kind"]] = held[0] if len(held) == 1 else held
    select = _EDGES if quality else "SELECT * FROM connection WHERE synapses >= $least ORDER BY pre, post"
    for row in db.fetch(select, {"least": min_synapses}):
        graph.add_edge(row.pop("pre"), row.pop("post"), **_known(row))
    return graph


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
