"""A made-up project of any size: every stage, with the keys that `connectome run` would compute, and no voxels.

Its plans read the parts that lie there, so a run would find it complete. Digests of content are random, and tables hold
a few rows per unit (`ledger_rows`). With `records` the store knows every unit, without its files.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ledger_rows import BLOCK_VX, GRID, LAP_PX, World, rows
from connectome_db import config, finish, ledger, newproject, prepare, tables
from connectome_db.environment import environment_facts, require_git
from connectome_db.geometry import Vec3
from connectome_db.inputs import Parts, scan_raw
from connectome_db.runner import Outcome
from connectome_db.spec import Rows
from connectome_db.stages.pipeline import STAGES
from connectome_db.store import Output, Record, Store

VOXEL_NM = (30.0, 8.0, 8.0)
RUN_ID = "0123456789abcdef"


def blocks_for(units: int) -> Vec3:
    """The smallest grid, nearly a cube, whose stages have at least `units` units together."""

    def total(z: int, y: int, x: int) -> int:
        faces = (z - 1) * y * x + z * (y - 1) * x + z * y * (x - 1)
        sections = z * BLOCK_VX[0]
        return 5 * z * y * x + faces + 2 * sections + (2 * sections - 3) + 4

    n = 1
    while total(n + 1, n + 1, n + 1) <= units:
        n += 1
    x = n
    while total(n, n, x) < units:
        x += 1
    return n, n, x


def make(folder: Path, units: int, *, records: bool = True) -> config.Project:
    """Make the project at `folder` (which must not exist), with about `units` units. Returns it, loaded."""
    blocks = blocks_for(units)
    _tiles(folder, blocks)
    newproject.create(
        folder,
        name="ledger",
        manifest="raw/manifest.csv",
        voxel_nm=VOXEL_NM,
        stages=STAGES,
        changes=newproject.model_changes(STAGES, "phantom"),
    )
    project = config.load(folder, STAGES)
    world = World(blocks, scan_raw(project))
    rng = np.random.default_rng(0)
    for stage in STAGES:
        _stage(project, stage.name, world, rng, records)
    return project


def _tiles(folder: Path, blocks: Vec3) -> None:
    """GRID x GRID tiles of 8 x 8 pixels per section, each unlike all others, and the list of them."""
    rng = np.random.default_rng(1)
    height, width = (n * s for n, s in zip(blocks[1:], BLOCK_VX[1:], strict=True))
    lines = ["path,section,stage_y_px,stage_x_px"]
    for z in range(blocks[0] * BLOCK_VX[0]):
        section = folder / "raw" / f"s{z:04d}"
        section.mkdir(parents=True)
        for k in range(GRID * GRID):
            _, png = cv2.imencode(".png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
            (section / f"t{k:02d}.png").write_bytes(png.tobytes())
            y, x = k // GRID * height / GRID - LAP_PX, k % GRID * width / GRID - LAP_PX
            lines.append(f"s{z:04d}/t{k:02d}.png,{z},{y},{x}")
    (folder / "raw" / "manifest.csv").write_text("\n".join(lines) + "\n")


def _digests(rng: np.random.Generator, n: int) -> list[str]:
    text = rng.bytes(32 * n).hex()
    return [text[i : i + 64] for i in range(0, 64 * n, 64)]


def _stage(project: config.Project, name: str, world: World, rng: np.random.Generator, records: bool) -> None:
    """One finished stage, written with the functions that `finish` uses."""
    prepared = prepare.prepare(project, project.stage(name))
    n, data, merkles, parts_tables = len(prepared.plan), project.data(name), {}, []
    provenance = project.provenance(name)
    data.mkdir(parents=True)
    provenance.mkdir(parents=True)
    contents: dict[str, list[str]] = {}
    for o in prepared.stage.outputs:
        contents[o.name] = _digests(rng, n)
        parts, counts = Parts(prepared.plan.codes, prepared.plan.cores, tuple(contents[o.name])), [-1] * n
        if isinstance(o, Rows):
            found = rows(world, prepared, o.table)
            pq.write_table(found, data / f"{o.name}.parquet", compression="zstd", row_group_size=tables.ROW_GROUP)
            if o.part == "section":
                parts, counts = finish.section_parts(o, found)
            else:
                counts = _rows_per_unit(found, prepared.plan.codes)
        merkles[o.name] = parts.merkle
        parts_tables.append(finish.parts_table(o.name, parts, counts))
    tables.write_small(finish.units_table(prepared), data / "units.parquet")
    tables.write_small(finish.reads_table(prepared), data / "reads.parquet")
    tables.write_small(pa.concat_tables(parts_tables).combine_chunks(), data / "parts.parquet")
    finish.write_json(data / "record.json", finish.stage_record(prepared, merkles))
    execution = _execution(project)
    store = Store(project.store)
    outcome = Outcome(name, RUN_ID, n, n, 0, 1.0, execution["started"], "serial", 1)
    one = Record("", 0, {}, execution)
    finish._write_provenance(prepared, store, [one] * n, outcome, provenance)
    if records:
        ledger.write(project.store, name, data, provenance, RUN_ID)
        _shard(store, prepared, contents, execution)


def _rows_per_unit(found: pa.Table, codes: npt.NDArray[np.uint64]) -> list[int]:
    unit = found["unit"].to_numpy()
    first, last = (np.searchsorted(unit, codes, side=side) for side in ("left", "right"))
    return list((last - first).tolist())


def _execution(project: config.Project) -> dict[str, Any]:
    git = require_git(project.root)
    return {
        "run_id": RUN_ID,
        "rank": 0,
        "seconds": 1.5,
        "started": datetime(2026, 1, 2, tzinfo=UTC).isoformat(timespec="milliseconds"),
        "host": "nowhere",
        "git_commit": git["commit"],
        "git_dirty": False,
        "git_diff": None,
        "environment": Store(project.store).put_environment(environment_facts()),
    }


def _shard(store: Store, prepared: prepare.Prepared, contents: dict[str, list[str]], execution: dict[str, Any]) -> None:
    """The records of a stage as `Store.gather` leaves them; the blobs that they name do not exist."""
    outputs = [(o.name, contents[o.name], 1 if isinstance(o, Rows) else -1) for o in prepared.stage.outputs]
    texts = []
    for i, (key, code) in enumerate(zip(prepared.keys, prepared.plan.codes.tolist(), strict=True)):
        out = {n: Output(d[i], count, d[i], (("rows.parquet", 1000),)) for n, d, count in outputs}
        texts.append(Record(key, code, out, execution).to_json())
    folder = store.root / "shards" / prepared.stage.name
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"key": prepared.keys, "record": texts}), folder / "all.parquet", compression="zstd")
