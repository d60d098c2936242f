"""The graph as a file for other programs. Ids are written as text or as whole numbers, never as decimals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from pyarrow import csv

from connectome_db.errors import QueryError, nearest
from connectome_db.query.database import Database
from connectome_db.query.graph.networks import connectome_graph
from connectome_db.query.graph.wiring import read_wiring


def export(db: Database, path: Path, *, min_synapses: int = 1) -> Path:
    """Write the graph in the format that the name ends in: .graphml, .gexf, .npz or .csv.

    GraphML and GEXF hold what is known of neurons and connections (Gephi, Cytoscape, igraph); npz holds neurons
    uint64[N], pre and post int32[E] (indices) and synapses int64[E]; csv has a row per connection. Raises QueryError
    for another format.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _WRITERS:
        raise QueryError(f"{path}: unknown format {kind!r}{nearest(kind, _WRITERS)}")
    if not path.parent.is_dir():
        raise QueryError(f"{path.parent}: no such folder")
    tmp = path.with_name(f".{path.name}.new{path.suffix}")
    try:
        _WRITERS[kind](db, tmp, min_synapses)
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    return path


def _plain_graph(db: Database, min_synapses: int) -> nx.DiGraph:
    """Node names as text; lists as text with commas: the formats know neither uint64 nor lists."""
    graph = connectome_graph(db, min_synapses=min_synapses)
    graph = nx.relabel_nodes(graph, {n: str(n) for n in graph})
    graph.graph = {"project": db.project.name, "revision": db.at or "working tree", "min_synapses": min_synapses}
    for _, said in graph.nodes(data=True):
        said.update({k: _plain(v) for k, v in said.items()})
    for *_, said in graph.edges(data=True):
        said["unit"] = str(said["unit"])
    return graph


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _graphml(db: Database, path: Path, min_synapses: int) -> None:
    nx.write_graphml_xml(_plain_graph(db, min_synapses), path)


def _gexf(db: Database, path: Path, min_synapses: int) -> None:
    nx.write_gexf(_plain_graph(db, min_synapses), path)


def _npz(db: Database, path: Path, min_synapses: int) -> None:
    w = read_wiring(db, min_synapses=min_synapses)
    np.savez_compressed(path, neurons=w.neurons, pre=w.pre, post=w.post, synapses=w.synapses)


def _csv(db: Database, path: Path, min_synapses: int) -> None:
    rows = db.rows(
        "SELECT * EXCLUDE (unit) FROM connection WHERE synapses >= $n ORDER BY pre, post", {"n": min_synapses}
    )
    csv.write_csv(rows, path)


_WRITERS: Mapping[str, Callable[[Database, Path, int], None]] = {
    "graphml": _graphml, "gexf": _gexf, "npz": _npz, "csv": _csv,
}  # fmt: skip
