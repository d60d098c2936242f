"""An imported connectome small enough to read: tables as `finish` leaves them, without their companions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.schema.imported import ANNOTATION, IMPORTED_CONNECTION, IMPORTED_NEURON, LISTED_SYNAPSE
from connectome_db.spec import Table
from tests import tiny_rows as t

VOXEL_NM = (40.0, 8.0, 8.0)
A, B, C, D = t.A1, t.A2, t.B2, 2**64 - 1
Row = dict[str, Any]

ROWS: list[Row] = [
    {"pre": A, "post": B, "z_vx": 0.0, "y_vx": 10.0, "x_vx": 10.0, "confidence": 0.9, "roi": "EB", "source_id": "s1"},
    {"pre": A, "post": B, "z_vx": 1.0, "y_vx": 20.0, "x_vx": 10.0, "confidence": 0.5, "roi": "EB"},
    {"pre": B, "post": C, "z_vx": 1.0, "y_vx": 20.0, "x_vx": 70.0, "confidence": 0.8, "roi": "FB"},
    {"pre": A, "post": C, "z_vx": 1.0, "y_vx": 90.0, "x_vx": 30.0, "confidence": 0.7},
    {"pre": B, "post": A, "z_vx": 5.0, "y_vx": 90.0, "x_vx": 30.0, "synapses": 3},
    {"pre": C, "post": D},
]
"""Rows of the list. A > B twice, B > A, B > C, A > C, C > D; the ids of A, B and C are those of the tiny project."""
TYPES = {A: "PN", B: "PN", C: "KC"}
NEEDED = {"unit": 0, "synapses": 1}


def write(folder: Path, rows: Sequence[Row] = ROWS, types: dict[int, str] | None = None) -> Path:
    """Write the project of these rows at `folder` and return it."""
    listed = [NEEDED | r | {"synapse": i} for i, r in enumerate(rows, 1)]
    edges: dict[tuple[int, int], int] = {}
    for r in listed:
        edges[r["pre"], r["post"]] = edges.get((r["pre"], r["post"]), 0) + r["synapses"]
    neurons = sorted({n for e in edges for n in e})
    _table(folder, "listing", LISTED_SYNAPSE, listed)
    connections = [{"unit": 0, "pre": a, "post": b, "synapses": n} for (a, b), n in sorted(edges.items())]
    _table(folder, "graph", IMPORTED_CONNECTION, connections)
    _table(folder, "graph", IMPORTED_NEURON, [
        {"unit": 0, "neuron": x,
         "synapses_out": sum(n for (a, _), n in edges.items() if a == x), "partners_out": sum(a == x for a, _ in edges),
         "synapses_in": sum(n for (_, b), n in edges.items() if b == x), "partners_in": sum(b == x for _, b in edges)}
        for x in neurons
    ])  # fmt: skip
    said = [{"unit": 0, "neuron": n, "kind": "type", "value": v, "source": "types.csv"}
            for n, v in sorted((TYPES if types is None else types).items())]  # fmt: skip
    _table(folder, "annotations", ANNOTATION, said)
    for stage in ("listing", "annotations", "graph"):
        record = {"stage": stage, "format": 1, "units": 1, "code_digest": "", "model_id": None, "model_digest": None,
                  "voxel_nm": VOXEL_NM, "params": {}, "overrides": [], "inputs": {}, "outputs": {}}  # fmt: skip
        (folder / "data" / stage / "record.json").write_text(json.dumps(record))
    return folder


def _table(folder: Path, stage: str, table: Table, rows: Sequence[Row]) -> None:
    path = folder / "data" / stage / f"{table.name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=table.stored()), path)
