"""One small connectome, written in every format that is read: what is expected of each is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import feather

EDGES = {("AVAL", "AVAR"): 5, ("AVAR", "AVAL"): 1, ("AVAL", "RIML"): 2}
"""(pre, post) -> synapses."""


def table() -> pa.Table:
    pre, post = zip(*EDGES, strict=True)
    return pa.table({"Source": pre, "Target": post, "Weight": list(EDGES.values())})


def _csv(path: Path, delimiter: str) -> None:
    pacsv.write_csv(table(), path, pacsv.WriteOptions(delimiter=delimiter))


def _packed(path: Path) -> None:
    with pa.output_stream(str(path), compression="gzip") as sink:
        pacsv.write_csv(table(), sink)


def _arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table().schema) as writer:
        writer.write_table(table(), max_chunksize=1)


def _xlsx(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["notes", "are", "here"])
    sheet = book.create_sheet("edges")
    sheet.append(["Source", "Target", "Weight"])
    for (pre, post), n in EDGES.items():
        sheet.append([pre, post, n])
    sheet.append([None, None, None])
    book.save(path)


def _neuprint(path: Path) -> None:
    rows = [[pre, post, n] for (pre, post), n in EDGES.items()]
    path.write_text(json.dumps({"columns": ["bodyId_pre", "bodyId_post", "weight"], "data": rows}))


def _records(path: Path) -> None:
    path.write_text(json.dumps([{"pre": a, "post": b, "count": n} for (a, b), n in EDGES.items()]))


def _graphml(path: Path) -> None:
    graph = nx.DiGraph()
    for (pre, post), n in EDGES.items():
        graph.add_edge(pre, post, weight=n)
    nx.set_node_attributes(graph, {"AVAL": "command", "RIML": "inter"}, "type")
    nx.write_graphml(graph, path)


def _matrix(path: Path) -> None:
    names = sorted({n for edge in EDGES for n in edge})
    lines = [",".join(["", *names])]
    lines += [",".join([a, *(str(EDGES.get((a, b), "")) for b in names)]) for a in names]
    path.write_text("\n".join(lines) + "\n")


def _npy(path: Path) -> None:
    names = sorted({n for edge in EDGES for n in edge})
    np.save(path, np.asarray([[EDGES.get((a, b), 0) for b in names] for a in names]))
    path.with_suffix(".names").write_text("\n".join(names) + "\n")


FORMATS: dict[str, Callable[[Path], None]] = {
    "edges.csv": lambda p: _csv(p, ","),
    "semicolons.csv": lambda p: _csv(p, ";"),
    "edges.tsv": lambda p: _csv(p, "\t"),
    "edges.csv.gz": _packed,
    "edges.parquet": lambda p: pq.write_table(table(), p, row_group_size=1),
    "edges.feather": lambda p: feather.write_feather(table(), p),
    "edges.arrow": _arrow,
    "edges.xlsx": _xlsx,
    "neuprint.json": _neuprint,
    "records.json": _records,
    "edges.graphml": _graphml,
    "matrix.csv": _matrix,
    "matrix.npy": _npy,
}
