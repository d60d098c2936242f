"""The ledger in memory, for many lineages one after the other: rows are found by bisection, not by joins.

SQL about 70 of 100,000 units scans the tables whole for each question: see `benchmarks/lineage.py`.
What is asked and what comes is that of the statements of `query.units`; a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.query.database import Database
from connectome_db.query.inmemory.memo import remembered
from connectome_db.spec import RAW

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Key = tuple[str, int]
"""(stage, unit code)."""
Row = dict[str, Any]
TABLES = ("unit", "unit_read", "part", "executed")
BOX = ("z0", "y0", "x0", "z1", "y1", "x1")
_RUN = ("git_commit", "git_dirty", "environment", "run_id", "started", "host", "seconds", "reused")
WHOLE = """
SELECT 'inputs' AS side, stage, input AS name, digest FROM stage_input
WHERE stage IN (SELECT unnest($stages::VARCHAR[]))
UNION ALL
SELECT 'outputs', stage, output, digest FROM stage_output WHERE stage IN (SELECT unnest($stages::VARCHAR[]))
ORDER BY ALL
"""
"""Digests of all that stages read and made."""


class ByUnit:
    """Rows of a table in the order of stage and unit."""

    def __init__(self, rows: pa.Table) -> None:
        names = rows["stage"].combine_chunks().dictionary_encode()
        stage, unit = names.indices.to_numpy(), rows["unit"].to_numpy()
        order = np.lexsort([unit, stage])
        self.rows = rows.take(order).combine_chunks()
        self._unit: U64 = unit[order]
        edges = np.searchsorted(stage[order], np.arange(len(names.dictionary) + 1))
        self._span = {
            s: (int(a), int(b)) for s, a, b in zip(names.dictionary.to_pylist(), edges[:-1], edges[1:], strict=True)
        }

    def at(self, keys: Sequence[Key]) -> I64:
        """Places of the rows of these units."""
        units: dict[str, list[int]] = {}
        for stage, unit in keys:
            units.setdefault(stage, []).append(unit)
        found = [np.empty(0, np.int64)]
        for stage, wanted in units.items():
            start, end = self._span.get(stage, (0, 0))
            codes = np.asarray(wanted, dtype=np.uint64)
            low, high = (start + np.searchsorted(self._unit[start:end], codes, side) for side in ("left", "right"))
            found += [np.arange(a, b) for a, b in zip(low, high, strict=True) if a < b]
        return np.concatenate(found)

    def of(self, keys: Sequence[Key]) -> list[Row]:
        """The rows of these units."""
        rows: list[Row] = self.rows.take(self.at(keys)).to_pylist()
        return rows

    def stage(self, name: str) -> pa.Table:
        """All rows of a stage, by unit."""
        start, end = self._span.get(name, (0, 0))
        return self.rows.slice(start, end - start)


class Boxes:
    """Boxes in the order of their lower z, to be asked which of them touch another."""

    def __init__(self, boxes: I64) -> None:
        self.order = np.argsort(boxes[:, 0], kind="stable")
        self._box = np.ascontiguousarray(boxes[self.order].T)
        self._deepest = int((boxes[:, 3] - boxes[:, 0]).max(initial=0))

    def touching(self, box: Sequence[int]) -> I64:
        """Which boxes share a voxel with this one (z0, y0, x0, z1, y1, x1): their rows in what was given."""
        z0, y0, x0, z1, y1, x1 = box
        low, high = np.searchsorted(self._box[0], [z0 - self._deepest, z1])
        b = self._box[:, low:high]
        hit = (b[3] > z0) & (b[1] < y1) & (b[4] > y0) & (b[2] < x1) & (b[5] > x0)
        found: I64 = self.order[low + np.flatnonzero(hit)]
        return found


@dataclass(frozen=True)
class Found:
    """What the ledger knows of some units: rows as the statements of `query.units` give them."""

    units: list[Row]
    tiles: list[Row]
    inputs: list[Row]
    outputs: list[Row]
    whole: list[Row]
    """Digests of all that a stage with one unit reads (`side` is inputs) and makes (outputs)."""


class Ledger:
    """The tables `unit`, `unit_read`, `part`, `executed` and `tile` of an open database, and the stages' records."""

    def __init__(self, db: Database) -> None:
        self.unit = ByUnit(db.rows("SELECT * FROM unit"))
        self._executed = ByUnit(db.rows(f"SELECT stage, unit, {', '.join(_RUN)} FROM executed"))
        self._records = {r["stage"]: r for r in db.fetch("SELECT stage, kind, code_digest, params FROM stage_record")}
        self.overridden = bool(db.fetch("SELECT 1 FROM stage_override LIMIT 1"))
        """True when some region has parameters of its own."""
        self.once = {s for s, r in self._records.items() if r["kind"] == "once"}
        self._whole = db.fetch(WHOLE, {"stages": sorted(self.once)})
        self._reads = ByUnit(db.rows("SELECT * FROM unit_read"))
        parts = db.rows("SELECT stage, unit, output, digest, z0, y0, x0, z1, y1, x1 FROM part")
        self._parts = ByUnit(parts)
        self._made: dict[str, tuple[Boxes, U64, pa.ChunkedArray]] = {}
        for name in pc.unique(parts["output"]).to_pylist():
            mine = parts.filter(pc.equal(parts["output"], name))
            self._made[name] = (Boxes(boxes_in(mine)), mine["unit"].to_numpy(), mine["digest"].combine_chunks())
        self._tiles = db.rows("SELECT section, tile, sha256 FROM tile ORDER BY ALL") if db.has("tile") else None
        self._tile_section = self._tiles["section"].to_numpy() if self._tiles is not None else np.empty(0, np.int64)
        rendered = self.unit.stage("render")
        self._rendered = rendered["unit"].to_numpy()
        self._images = Boxes(boxes_in(rendered, "core_"))

    def first(self, stage: str) -> int | None:
        """The lowest unit of a stage; None when it was not run."""
        units = self.unit.stage(stage)
        return units["unit"][0].as_py() if len(units) else None

    def image_blocks(self, box: Sequence[int]) -> list[int]:
        """Units of `render` whose core touches a box in the aligned volume."""
        found: list[int] = np.sort(self._rendered[self._images.touching(box)]).tolist()
        return found

    def parts(self, name: str, box: Sequence[int]) -> list[tuple[int, str]]:
        """(unit, digest) of each part of an output, as stage.output, that a read box touches, by unit."""
        if name not in self._made or any(a >= b for a, b in zip(box[:3], box[3:], strict=True)):
            return []
        boxes, units, digests = self._made[name]
        hit = boxes.touching(box)
        return sorted(set(zip(units[hit].tolist(), digests.take(pa.array(hit)).to_pylist(), strict=True)))

    def image_read_by(self, segments: Sequence[int]) -> list[Row]:
        """Image blocks (`upstream_unit`) that each of these units of `segment` read."""
        reads = [r for r in self._reads.of([("segment", u) for u in segments]) if r["input"] == "render.image"]
        found = {(r["unit"], part) for r in reads for part, _ in self.parts("render.image", [r[n] for n in BOX])}
        return [{"unit": u, "upstream_unit": part} for u, part in sorted(found)]

    def look_up(self, keys: Sequence[Key]) -> Found:
        """What is known of these units."""
        runs = {(r["stage"], r["unit"]): r for r in self._executed.of(keys)}
        nobody = dict.fromkeys(_RUN)
        units = [
            {**self._records[r["stage"]], **nobody, **runs.get((r["stage"], r["unit"]), {}), **r}
            for r in self.unit.of(keys)
            if r["stage"] in self._records
        ]
        tiles: list[Row] = []
        inputs: dict[tuple[str, int, str], set[tuple[int, str]]] = {}
        for r in self._reads.of([k for k in keys if k[0] not in self.once]):
            if r["input"] == RAW:
                tiles.append({"stage": r["stage"], "unit": r["unit"], "parts": self._tiles_in(r["z0"], r["z1"])})
            elif parts := self.parts(r["input"], [r[n] for n in BOX]):
                inputs.setdefault((r["stage"], r["unit"], r["input"]), set()).update(parts)
        read = [
            {"stage": s, "unit": u, "input": n, "parts": [{"unit": p, "digest": d} for p, d in sorted(parts)]}
            for (s, u, n), parts in sorted(inputs.items())
        ]
        outputs = self._parts.of([k for k in keys if k[0] not in self.once])
        outputs.sort(key=lambda r: (r["stage"], r["unit"], r["output"], r["digest"]))
        stages = {k[0] for k in keys}
        whole = [w for w in self._whole if w["stage"] in stages]
        return Found(units, [t for t in tiles if t["parts"]], read, outputs, whole)

    def _tiles_in(self, z0: int, z1: int) -> list[Row]:
        if self._tiles is None:
            return []
        low, high = np.searchsorted(self._tile_section, [z0, z1])
        shown = self._tiles.slice(low, high - low).to_pylist()
        return [{"tile": t["tile"], "digest": t["sha256"]} for t in shown]


def boxes_in(rows: pa.Table, prefix: str = "") -> I64:
    """The boxes of a table as an array (n, 6): z0, y0, x0, z1, y1, x1."""
    return np.stack([rows[f"{prefix}{n}"].to_numpy() for n in BOX], axis=1).astype(np.int64)


def ledger_of(db: Database) -> Ledger | None:
    """The ledger of a database that holds small tables in memory; None where it does not, or where it is too large."""
    return remembered(db, TABLES, Ledger)
