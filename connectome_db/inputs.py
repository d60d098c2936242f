"""What a stage reads: the parts of its inputs (geometry and digests), and the block of one unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import ids, plans, rawparts, sources, tables, volumes
from connectome_db.config import Project
from connectome_db.errors import RunError, StageError, nearest
from connectome_db.geometry import Box
from connectome_db.manifest import Manifest, read_manifest
from connectome_db.parts import Parts
from connectome_db.provenance import from_hex, seed_of, table_digest, touching, upstream_digests
from connectome_db.rawparts import Listed
from connectome_db.spec import (
    LISTS,
    RAW,
    AnyStage,
    Array,
    Block,
    Extent,
    Found,
    Network,
    Params,
    Plan,
    Read,
    Volume,
    Window,
)

WHOLE_TABLE_BYTES = 1 << 28
"""Tables up to this size are read once per worker and sliced; larger ones are read unit by unit."""
KEPT_BYTES = 1 << 25
"""A table that is read whole by a `once` stage is kept for the next reader up to this size."""


def open_manifest(project: Project) -> Manifest:
    """The list of tiles."""
    d = project.dataset
    return read_manifest(
        project.manifest,
        origin_px=d.origin_px,
        pixel_nm=(d.voxel_nm[1], d.voxel_nm[2]),
        overlap_px=d.tile_overlap_px,
        section=d.section,
        value_range=d.value_range,
    )


def scan_raw(project: Project) -> pa.Table:
    """The tiles of the manifest as found on disk (cached by file signature), columns of `raw.tiles`."""
    return sources.scan(open_manifest(project), project.state / "scan.parquet")


def raw_parts(rows: pa.Table) -> Parts:
    """One part per section: its hull in nominal coordinates and the digest of its rows (which hold each sha256)."""
    z = rows["section"].to_numpy()
    numbers = np.unique(z)
    boxes, digests = [], []
    for s in numbers:
        mine = rows.filter(pc.equal(rows["section"], pa.scalar(int(s), rows["section"].type)))
        y, x = mine["stage_y_px"].to_numpy(), mine["stage_x_px"].to_numpy()
        h, w = mine["height_px"].to_numpy(), mine["width_px"].to_numpy()
        low = np.floor([y.min(), x.min()]).astype(np.int64)
        high = np.ceil([(y + h).max(), (x + w).max()]).astype(np.int64)
        boxes.append([int(s), *low, int(s) + 1, *high])
        digests.append(table_digest(mine))
    codes = ids.pack([(int(s), 0, 0) for s in numbers])
    return Parts(codes, np.asarray(boxes, dtype=np.int64).reshape(-1, 6), tuple(digests))


def stage_parts(project: Project, name: str) -> Parts:
    """Parts of "stage.output". Raises RunError when that stage is not finished."""
    stage, _, output = name.partition(".")
    path = project.data(stage) / "parts.parquet"
    if not path.exists():
        raise RunError(
            f"{name} is needed, and stage {stage!r} has no finished data in {path.parent}. "
            f"Run `dvc repro {stage}` (or `connectome run {stage}`) first."
        )
    table = pq.read_table(path, filters=pc.field("output") == output)
    if table.num_rows == 0 and output not in set(pq.read_table(path, columns=["output"])["output"].to_pylist()):
        declared = [o.name for o in project.stage(stage).outputs]
        if output not in declared:
            raise StageError(f"input {name!r}: stage {stage} has no such output{nearest(output, declared)}")
    box = np.stack([table[c].to_numpy() for c in ("z0", "y0", "x0", "z1", "y1", "x1")], axis=1).astype(np.int64)
    return Parts(table["unit"].to_numpy(), box, tuple(table["digest"].to_pylist()))


@dataclass(frozen=True)
class Inputs:
    """All inputs of a stage: their parts, the scanned rows of raw tiles, and imported lists by input."""

    parts: Mapping[str, Parts]
    raw: pa.Table | None
    lists: Mapping[str, Listed] = field(default_factory=dict)

    def found(self, project: Project) -> Found:
        """What `plan` may look at."""
        return Found(project.voxel_nm, {n: Extent(p.codes, p.boxes) for n, p in self.parts.items()})

    def upstream(self, plan: Plan) -> list[tuple[str, list[bytes]]]:
        """Per read of the plan, each unit's digest of what it reads."""
        out = []
        for r in plan.reads:
            p = self.parts[r.input]
            out.append((r.input, upstream_digests(r.boxes, len(plan), p.codes, p.boxes, from_hex(p.digests))))
        return out


def load_inputs(project: Project, stage: AnyStage) -> Inputs:
    """Look at every input of a stage."""
    raw = scan_raw(project) if RAW in stage.inputs else None
    lists = {name: rawparts.open_list(project, name) for name in stage.inputs if name in LISTS}
    parts: dict[str, Parts] = {}
    for name in stage.inputs:
        if raw is not None and name == RAW:
            parts[name] = raw_parts(raw)
        elif name in lists:
            parts[name] = lists[name].parts
        else:
            parts[name] = stage_parts(project, name)
    return Inputs(parts, raw, lists)


@lru_cache(maxsize=16)
def _whole_table(path: Path, signature: tuple[int, int]) -> tuple[pa.Table, npt.NDArray[np.uint64]]:  # noqa: ARG001
    table = tables.read_units(path, None).combine_chunks()
    return table, table["unit"].to_numpy()


def _rows(path: Path, codes: npt.NDArray[np.uint64], everything: bool) -> pa.Table:
    """Rows of the given units in stored order."""
    stat = path.stat()
    if everything and stat.st_size > KEPT_BYTES:
        return tables.read_units(path, None)  # once: it is neither kept nor copied into one piece
    if stat.st_size > WHOLE_TABLE_BYTES:
        return tables.read_units(path, codes.tolist())
    table, unit = _whole_table(path, (stat.st_ino, stat.st_mtime_ns))
    if everything:
        return table
    first = np.searchsorted(unit, codes, side="left")
    last = np.searchsorted(unit, codes, side="right")
    pieces = [table.slice(a, b - a) for a, b in zip(first.tolist(), last.tolist(), strict=True) if b > a]
    return pa.concat_tables(pieces).combine_chunks() if pieces else table.slice(0, 0)


class BlockReader:
    """Makes the `Block` of any unit of a plan. Holds only caches; every worker has its own."""

    def __init__(
        self, project: Project, stage: AnyStage, plan: Plan, inputs: Inputs, network: Network | Window | None
    ) -> None:
        self.project, self.stage, self.plan, self.inputs, self.network = project, stage, plan, inputs, network
        self._outputs = {f"{s.name}.{o.name}": o for s in project.stages for o in s.outputs}
        self._tiles: Mapping[str, npt.NDArray[np.uint8]] = {}
        if inputs.raw is not None:
            self._tiles = sources.Tiles(inputs.raw, open_manifest(project).root)

    def _touched(self, read: Read, box: Box | None) -> npt.NDArray[np.uint64]:
        parts = self.inputs.parts[read.input]
        if box is None:
            return parts.codes
        _, index = touching(np.asarray([box.flat()], dtype=np.int64), parts.boxes)
        return parts.codes[index]

    def block(self, i: int, params: Params) -> Block[Any]:
        """The block of the `i`-th unit of the plan."""
        unit = plans.unit(self.plan, i)
        arrays: dict[str, Array] = {}
        boxes: dict[str, Box] = {}
        units: dict[str, tuple[npt.NDArray[np.uint64], bool]] = {}
        for read, (name, box) in zip(self.plan.reads, unit.reads, strict=True):
            output = self._outputs.get(name)
            if isinstance(output, Volume):
                if name in arrays:
                    raise StageError(f"stage {self.stage.name}: volume {name} is read twice; one box per volume")
                where = box if box is not None else Extent(*self._extent(name)).bounds
                arrays[name] = self._volume(name, output, where)
                boxes[name] = where
            else:
                codes, everything = units.get(name, (np.zeros(0, dtype=np.uint64), False))
                units[name] = (np.union1d(codes, self._touched(read, box)), everything or box is None)
        read_tables = {n: self._table(n, codes, everything) for n, (codes, everything) in units.items()}
        return Block(
            unit=unit,
            params=params,
            voxel_nm=self.project.voxel_nm,
            arrays=arrays,
            boxes=boxes,
            tables=read_tables,
            tiles=self._tiles if RAW in read_tables else {},
            network=self.network,
            seed=seed_of(self.stage.name, unit.code),
        )

    def _extent(self, name: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        parts = self.inputs.parts[name]
        return parts.codes, parts.boxes

    def _volume(self, name: str, output: Volume, box: Box) -> Array:
        stage = name.partition(".")[0]
        if box.empty:
            array = np.zeros((0, 0, 0), dtype=output.dtype)
        else:
            array = volumes.read(self.project.data(stage) / output.name, box)
        array.flags.writeable = False
        return array

    def _table(self, name: str, codes: npt.NDArray[np.uint64], everything: bool) -> pa.Table:
        if name == RAW:
            raw = self.inputs.raw
            if raw is None:
                raise StageError("raw tiles were not scanned")
            sections = pa.array(ids.unpack(codes)[0][:, 0], type=raw["section"].type)
            return raw.filter(pc.is_in(raw["section"], value_set=sections))
        if name in self.inputs.lists:
            return self.inputs.lists[name].read(codes)
        stage, _, output = name.partition(".")
        return _rows(self.project.data(stage) / f"{output}.parquet", codes, everything)
