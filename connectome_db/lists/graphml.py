"""GraphML as networkx, igraph, Gephi and yEd write it: its nodes and its edges as two tables."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa

from connectome_db.errors import SourceError

SHEETS = ("edges", "nodes")
IDS = {"edges": ("source", "target"), "nodes": ("id",)}
"""Columns that are XML attributes; the others are the `data` of the element."""


def read(path: Path, sheet: str) -> pa.Table:
    """`edges` (source, target and attributes) or `nodes` (id and attributes), all as text. Raises SourceError.

    An attribute has the name that its `key` declares; one that an element lacks has the key's default, or null.
    """
    if sheet not in SHEETS:
        raise SourceError(f"{path}: --sheet {sheet}: a GraphML file has edges and nodes")
    element = {"edges": "edge", "nodes": "node"}[sheet]
    names: dict[str, str] = {}
    defaults: dict[str, str | None] = {}
    rows: list[dict[str, str | None]] = []
    try:
        for _, found in ET.iterparse(path):  # no external entity is followed
            tag = found.tag.rpartition("}")[2]
            if tag == "key" and found.get("for") in {element, "all"}:
                _declare(found, names, defaults)
            elif tag == "graph" and sheet == "edges" and found.get("edgedefault") == "undirected":
                raise SourceError(f"{path}: the graph is undirected: it does not say which neuron is presynaptic")
            elif tag == element:
                rows.append(_row(found, IDS[sheet]))
                found.clear()
    except ET.ParseError as e:
        raise SourceError(f"{path}: is not valid GraphML: {e}") from e
    columns = {n: [r.get(n) for r in rows] for n in IDS[sheet]}
    for key, name in names.items():
        called = name if name not in columns else f"{name} (attribute)"
        columns[called] = [r.get(f"data {key}", defaults[key]) for r in rows]
    return pa.table({n: pa.array(v, pa.string()) for n, v in columns.items()})


def _declare(key: ET.Element, names: dict[str, str], defaults: dict[str, str | None]) -> None:
    number = key.get("id") or ""
    names[number] = key.get("attr.name") or number
    default = next((c for c in key if c.tag.rpartition("}")[2] == "default"), None)
    defaults[number] = default.text if default is not None else None


def _row(element: ET.Element, ids: tuple[str, ...]) -> dict[str, str | None]:
    row: dict[str, str | None] = {n: element.get(n) for n in ids}
    for data in element:
        if data.tag.rpartition("}")[2] == "data" and data.get("key"):
            row[f"data {data.get('key')}"] = data.text
    return row
