"""Ledgers of a made-up project, written by hand so that every cause can be seen.

ingest (a unit per section) -> blur (a block per two sections) -> count (once)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids
from connectome_db.plans import FAR

AXES = ("z0", "y0", "x0", "z1", "y1", "x1")
KINDS = {"ingest": "sections", "blur": "blocks", "count": "once"}
READS = {"ingest": "raw.tiles", "blur": "ingest.tile", "count": "blur.image"}
OUTPUT = {"ingest": "tile", "blur": "image", "count": "sum"}


def code(k: int) -> int:
    """The unit code of section or block k."""
    return int(ids.pack([(k, 0, 0)])[0])


def write(
    root: Path,
    anew: str = "",
    *,
    sections: int = 4,
    tiles: Mapping[str, str | None] | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    models: Mapping[int, str] | None = None,
    stages: tuple[str, ...] = tuple(KINDS),
) -> Path:
    """Write a version. `anew` lists units with another key ("blur:1~") and those with other content, too ("blur:1").

    "blur:1!" has other content under the same key. `tiles` changes digests of tiles ("0/a"), None takes one away;
    `records` changes entries of record.json; `models` gives blocks of blur a model.
    """
    marks = {unit.rstrip("~!"): unit[-1] if unit[-1] in "~!" else "" for unit in anew.split()}
    listed = {f"{z}/{t}": f"pixels {z}{t}" for z in range(sections) for t in "ab"} | dict(tiles or {})
    blocks = range((sections + 1) // 2)
    numbers = {"ingest": range(sections), "blur": blocks, "count": range(1)}
    cores = {
        "ingest": {z: (z, -FAR, -FAR, z + 1, FAR, FAR) for z in range(sections)},
        "blur": {k: (2 * k, 0, 0, min(2 * k + 2, sections), 8, 8) for k in blocks},
        "count": {0: (0, 0, 0, sections, 8, 8)},
    }
    for stage in stages:
        units, reads, parts = [], [], []
        for k in numbers[stage]:
            mark = marks.get(f"{stage}:{k}")
            box = cores[stage][k]
            new_key, new_content = mark in {"", "~"}, mark in {"", "!"}
            units.append({"unit": code(k), "kind": KINDS[stage], **_named(box, "core_"),
                          "unit_key": f"key {stage} {k}{' anew' * new_key}",
                          "model_id": (models or {}).get(k) if stage == "blur" else None})  # fmt: skip
            reads.append({"unit": code(k), "input": READS[stage], **_named(box)})
            digest = f"content {stage} {k}{' other' * new_content}"
            parts.append({"output": OUTPUT[stage], "unit": code(k), **_named(box), "digest": digest})
        folder = root / "data" / stage
        folder.mkdir(parents=True)
        for name, rows in (("units", units), ("reads", reads), ("parts", parts)):
            schema = pa.schema([_field(column) for column in rows[0]])
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")
        record = {
            "stage": stage,
            "format": 1,
            "voxel_nm": [30.0, 8.0, 8.0],
            "code_digest": "c" * 64,
            "model_id": None,
            "params": {"sigma": 2.0} if stage == "blur" else {},
            "overrides": [],
            "bounds": [0, 0, 0, sections, 8, 8],
            "inputs": {READS[stage]: json.dumps(listed, sort_keys=True) if stage == "ingest" else ""},
        }
        (folder / "record.json").write_text(json.dumps(record | dict((records or {}).get(stage, {}))))
    if "ingest" in stages:
        rows = [{"section": int(n[0]), "tile": n, "sha256": s, "stage_y_px": 0.0, "stage_x_px": 0.0, "height_px": 8,
                 "width_px": 8, "dtype": "uint8"} for n, s in listed.items() if s is not None]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / "ingest" / "tile.parquet")
    return root


def _named(box: tuple[int, ...], prefix: str = "") -> dict[str, int]:
    return {f"{prefix}{axis}": v for axis, v in zip(AXES, box, strict=True)}


def _field(column: str) -> pa.Field:
    if column == "unit":
        return pa.field(column, pa.uint64())
    return pa.field(column, pa.string() if column in {"kind", "unit_key", "model_id", "input", "output", "digest"}
                    else pa.int64())  # fmt: skip
