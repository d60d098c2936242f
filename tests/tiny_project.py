"""A complete project small enough to read: two sections of four tiles, two blocks, six supervoxels, four synapses.

block A (x 0-60)   a1 a2 a3        objects  A1 = {a1, b1}     joined across the face by reconcile
block B (x 60-120) b1 b2 b3                 A2 = {a2, a3, b3} merges: a3 <- b3 (0.95), then a2 <- a3 (0.7)
                                            B2 = {b2}
synapses  s1, s2: A1 -> A2    s3: A2 -> B2    s4: A2 -> A1
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids
from connectome_db.plans import FAR
from connectome_db.schema.all import OUTPUTS, STAGE_OF, TABLES
from connectome_db.spec import Table
from tests.tiny_rows import BLOCK_A, BOUNDS, CORE, FACE, MODEL, ONCE, PAIR, SECTION_UNIT, VOXEL_NM, Row, all_rows, sha

KINDS = {
    "ingest": "sections",
    "montage": "sections",
    "match": "pairs",
    "align": "once",
    "render": "blocks",
    "mask": "blocks",
    "segment": "blocks",
    "overlap": "faces",
    "reconcile": "once",
    "score": "blocks",
    "agglomerate": "once",
    "synapses": "blocks",
    "graph": "once",
}
INPUTS = {
    "ingest": ("raw.tiles",),
    "montage": ("raw.tiles", "ingest.tile"),
    "match": ("raw.tiles", "montage.tile_transform", "montage.illumination"),
    "align": ("montage.tile_transform", "match.pair_affine", "match.section_match"),
    "render": ("raw.tiles", "montage.tile_transform", "montage.illumination", "align.section_transform"),
    "mask": ("render.image",),
    "segment": ("render.image", "mask.mask"),
    "overlap": ("segment.supervoxels", "segment.apron"),
    "reconcile": ("segment.supervoxel", "overlap.overlap"),
    "score": ("segment.supervoxels", "segment.affinity"),
    "agglomerate": ("segment.supervoxel", "reconcile.fragment", "score.contact"),
    "synapses": ("render.image", "segment.supervoxels", "mask.mask"),
    "graph": ("synapses.synapse", "agglomerate.member", "agglomerate.object"),
}
VOLUMES = {"render": ("image",), "mask": ("mask",), "segment": ("supervoxels", "affinity")}


def units_of(stage: str) -> list[tuple[int, tuple[int, ...]]]:
    """(unit, core box) of each unit of a stage."""
    match KINDS[stage]:
        case "sections":
            return [(u, (z, 0, 0, z + 1, 120, 120)) for z, u in SECTION_UNIT.items()]
        case "pairs":
            return [(PAIR, BOUNDS)]
        case "faces":
            return [(FACE, (0, 0, 60, 2, 120, 68))]
        case "once":
            return [(ONCE, BOUNDS)]
        case _:
            return list(CORE.items())


def read_box(stage: str, core: tuple[int, ...], source: str) -> tuple[int, ...]:
    """What a unit reads: sections whole, its core of a volume with a halo of 8 px, everything for a `once` stage."""
    if KINDS[stage] == "once":
        return BOUNDS
    if source.split(".", maxsplit=1)[0] in {"raw", "ingest", "montage", "match", "align"}:
        return (core[0], -FAR, -FAR, core[3], FAR, FAR)
    halo = 8 if stage in {"segment", "synapses"} else 0
    if stage == "overlap":
        halo = 1
    return (core[0], core[1], max(core[2] - halo, 0), core[3], core[4], min(core[5] + halo, 120))


_PLAIN = {"string": "", "bool": False, "float64": 0.5, "float32": 0.5}


def table_of(name: str, rows: Sequence[Row], declared: Table | None = None) -> pa.Table:
    """Rows of one table in its stored schema, sorted by (unit, key); columns not given have a plain value."""
    declared = declared or TABLES[name]
    full = [
        {
            "unit": r["unit"],
            **{c.name: r.get(c.name, None if c.nullable else _PLAIN.get(c.dtype, 0)) for c in declared.columns},
        }
        for r in rows
    ]
    return pa.Table.from_pylist(full, schema=declared.stored()).sort_by(
        [("unit", "ascending"), *((k, "ascending") for k in declared.key)]
    )


def _parquet(path: Path, columns: Mapping[str, pa.DataType], rows: Sequence[Sequence[Any]]) -> None:
    data = [pa.array([r[i] for r in rows], t) for i, t in enumerate(columns.values())]
    pq.write_table(pa.table(data, names=list(columns)), path)


_U64, _I64, _I32, _STR = pa.uint64(), pa.int64(), pa.int32(), pa.string()
_BOX = dict.fromkeys(("z0", "y0", "x0", "z1", "y1", "x1"), _I64)


def _geometry(folder: Path, stage: str, tables: Mapping[str, pa.Table]) -> None:
    units = units_of(stage)
    core = dict.fromkeys(("core_z0", "core_y0", "core_x0", "core_z1", "core_y1", "core_x1"), _I64)
    positions, axes = ids.unpack(np.array([u for u, _ in units], dtype=np.uint64))
    _parquet(
        folder / "units.parquet",
        {
            "unit": _U64,
            "kind": _STR,
            "z": _I32,
            "y": _I32,
            "x": _I32,
            "axis": _I32,
            **core,
            "unit_key": _STR,
            "params_digest": _STR,
            "model_id": _STR,
        },
        [
            (
                u,
                KINDS[stage],
                *p,
                axis,
                *box,
                sha(f"key {stage} {u}"),
                sha(f"params {stage}"),
                MODEL if stage == "segment" else None,
            )
            for (u, box), p, axis in zip(units, positions.tolist(), axes.tolist(), strict=True)
        ],
    )
    _parquet(
        folder / "reads.parquet",
        {"unit": _U64, "input": _STR, **_BOX},
        [(u, source, *read_box(stage, box, source)) for u, box in units for source in INPUTS[stage]],
    )
    parts: list[tuple[Any, ...]] = []
    for output in (*VOLUMES.get(stage, ()), *tables):
        by_section = output == "section_transform"
        for u, box in [(u, (z, 0, 0, z + 1, 129, 129)) for z, u in SECTION_UNIT.items()] if by_section else units:
            rows = -1 if output not in tables else sum(v == u for v in tables[output]["unit"].to_pylist())
            parts.append((output, u, *box, sha(f"content {stage}.{output} {u}"), rows))
    _parquet(folder / "parts.parquet", {"output": _STR, "unit": _U64, **_BOX, "digest": _STR, "rows": _I64}, parts)


def _records(data: Path, provenance: Path, stage: str) -> None:
    override = {"region": "corner", "box_vx": [0, 0, 60, 2, 120, 120], "params": {"threshold": 0.6}}
    outputs = [*VOLUMES.get(stage, ()), *(t.name for t in OUTPUTS[stage])]
    record = {
        "stage": stage,
        "format": 1,
        "units": len(units_of(stage)),
        "code_digest": sha(f"code {stage}"),
        "model_id": MODEL if stage == "segment" else None,
        "model_digest": sha(MODEL) if stage == "segment" else None,
        "voxel_nm": VOXEL_NM,
        "params": {"threshold": 0.5, "min_size_vx": 10},
        "overrides": [override] if stage == "segment" else [],
        "inputs": {i: sha(f"merkle {i}") for i in INPUTS[stage]},
        "outputs": {o: sha(f"merkle {stage}.{o}") for o in outputs},
    }
    (data / "record.json").write_text(json.dumps(record))
    units = [u for u, _ in units_of(stage)]
    reused = [stage == "segment" and u == BLOCK_A for u in units]
    environment = sha("environment")
    run = {
        "run_id": "run-2",
        "stage": stage,
        "started": "2026-01-02T10:00:00Z",
        "ended": "2026-01-02T10:00:09Z",
        "git": {"commit": "c0ffee" * 6 + "c0ff", "dirty": False, "diff_sha256": None, "branch": "main"},
        "user": "ada",
        "host": "lab1",
        "python": "3.11.9",
        "executor": "serial",
        "workers": 1,
        "units_total": len(units),
        "units_computed": len(units) - sum(reused),
        "units_reused": sum(reused),
        "packages": {"numpy": "2.0.0"},
        "argv": ["connectome", "run", stage],
    }
    (provenance / "run.json").write_text(json.dumps(run))
    (provenance / "environments.json").write_text(json.dumps({environment: {"python": "3.11.9", "os": "Linux"}}))
    _parquet(
        provenance / "executions.parquet",
        {
            "unit": _U64,
            "unit_key": _STR,
            "run_id": _STR,
            "reused": pa.bool_(),
            "rank": _I32,
            "seconds": pa.float64(),
            "started": _STR,
            "host": _STR,
            "git_commit": _STR,
            "environment": _STR,
            "git_dirty": pa.bool_(),
        },
        [
            (
                u,
                sha(f"key {stage} {u}"),
                "run-1" if old else "run-2",
                old,
                0,
                1.5,
                "2026-01-02T10:00:01Z",
                "lab1",
                "beef" * 10 if old else run["git"]["commit"],
                environment,
                old,
            )
            for u, old in zip(units, reused, strict=True)
        ],
    )


def write(project: Path, stages: Sequence[str] = tuple(KINDS)) -> Path:
    """Write the project (or the stages named) to `project`."""
    rows = all_rows()
    for stage in stages:
        data, provenance = project / "data" / stage, project / "provenance" / stage
        data.mkdir(parents=True)
        provenance.mkdir(parents=True)
        tables = {name: table_of(name, rows[name]) for name, made_by in STAGE_OF.items() if made_by == stage}
        for name, table in tables.items():
            pq.write_table(table, data / f"{name}.parquet")
        _geometry(data, stage, tables)
        _records(data, provenance, stage)
    return project
