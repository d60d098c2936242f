"""What expectations are judged on: the tables of a project, each read once, and where their rows lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import QueryError
from connectome_db.schema.all import outputs_of
from connectome_db.spec import Table

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
SixNm = tuple[float, float, float, float, float, float]
_FAR_VX = 1 << 30
"""Boxes that reach further stand for "everything" in a plan and are no place."""


@dataclass(frozen=True)
class Place:
    """Where a row lies: in words, and as far as known its unit and its box (z0, y0, x0, z1, y1, x1) in nm."""

    says: str = ""
    unit: int | None = None
    box_nm: SixNm | None = None


@dataclass(frozen=True)
class Frame:
    """Rows to judge, and how to tell where row `i` lies."""

    rows: pa.Table
    place: Callable[[int], Place] = field(default=lambda _: Place(), repr=False)


@dataclass(frozen=True)
class Links:
    """Synapses bound to neurons, or sums of them: what a row stands for, whether it counts, and whether it repeats."""

    pre: U64
    post: U64
    synapses: F64
    counted: npt.NDArray[np.bool_]
    repeats: npt.NDArray[np.bool_]


class Tables:
    """The tables of a project that are there. Nothing is read before it is asked for, and everything once.

    `declared` maps a table's name to its declaration, in the order of the pipeline.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        stages = {path.name for path in (root / "data").glob("*")}
        made = outputs_of(stages)
        self.declared: Mapping[str, Table] = {t.name: t for tables in made.values() for t in tables}
        self.stage_of: Mapping[str, str] = {t.name: stage for stage, tables in made.items() for t in tables}
        if "listed_edge" in self.declared:
            self.stage_of = {**self.stage_of, "link": "listing"}
        self._rows: dict[str, pa.Table] = {}
        self._cores: dict[str, dict[int, SixNm]] = {}
        self._records: dict[str, Mapping[str, Any]] = {}

    def path(self, table: str) -> Path:
        """Where a table's file is, or would be."""
        return self.root / "data" / self.stage_of[table] / f"{table}.parquet"

    def has(self, *tables: str) -> bool:
        """Whether the project declares these tables and has made them."""
        if "link" in tables and "listed_edge" in self.declared:
            tables = tuple({*tables, "listed_edge", "connection"} - {"link"})
        return all(t in self.declared and self.path(t).is_file() for t in tables)

    @cached_property
    def links(self) -> Links:
        """Rows of `link`; of an imported list, its sums by pair and block, of which there are fewer than synapses."""
        if "listed_edge" not in self.declared:
            counted, reason = self.rows("link")["counted"], self.rows("link")["reason"]
            repeats = pc.equal(reason, "duplicate").to_numpy()
            pre, post = self.column("link", "pre"), self.column("link", "post")
            return Links(pre, post, np.ones(len(pre)), counted.to_numpy().astype(bool), repeats.astype(bool))
        pre, post, weight = (self.column("listed_edge", c) for c in ("pre", "post", "synapses"))
        self.forget("listed_edge")
        counted = np.ones(len(pre), bool)
        if int(self.record("graph").get("params", {}).get("min_synapses", 1)) > 1:
            neuron = np.sort(self.column("neuron", "neuron"))
            key = [np.searchsorted(neuron, c).astype(np.uint64) for c in (pre, post)]
            edge = [np.searchsorted(neuron, self.column("connection", c)).astype(np.uint64) for c in ("pre", "post")]
            shift = np.uint64(32)
            counted = np.isin((key[0] << shift) | key[1], (edge[0] << shift) | edge[1])
        return Links(pre, post, weight.astype(np.float64), counted, np.zeros(len(pre), bool))

    @cached_property
    def there(self) -> tuple[str, ...]:
        """Names of the tables that have been made, in the order of the pipeline."""
        return tuple(t for t in self.declared if self.has(t))

    def rows(self, table: str) -> pa.Table:
        """A table as it lies on disk. Raises QueryError when it cannot be read."""
        if table not in self._rows:
            try:
                self._rows[table] = pq.ParquetFile(self.path(table)).read().combine_chunks()
            except (pa.ArrowInvalid, OSError) as e:
                stage = self.stage_of[table]
                raise QueryError(f"{self.path(table)} cannot be read: {e}; run `connectome finish {stage}`") from e
        return self._rows[table]

    def forget(self, table: str) -> None:
        """Let go of a table that nobody will ask for again."""
        self._rows.pop(table, None)

    def column(self, table: str, name: str) -> npt.NDArray[Any]:
        """One column as a NumPy array."""
        found: npt.NDArray[Any] = self.rows(table)[name].to_numpy()
        return found

    def record(self, stage: str) -> Mapping[str, Any]:
        """`record.json` of a stage; empty when it is not there."""
        if stage not in self._records:
            path = self.root / "data" / stage / "record.json"
            self._records[stage] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return self._records[stage]

    def voxel_nm(self, stage: str) -> F64 | None:
        """Voxel size (z, y, x) in nm as the stage recorded it."""
        found = self.record(stage).get("voxel_nm")
        return None if found is None else np.asarray(found, dtype=np.float64)

    def in_unit(self, stage: str, unit: int) -> Place:
        """The place of a unit of a stage."""
        if stage not in self._cores:
            self._cores[stage] = self._read_cores(stage)
        return Place(f"unit {unit}", unit, self._cores[stage].get(unit))

    def _read_cores(self, stage: str) -> dict[int, SixNm]:
        path, voxel = self.root / "data" / stage / "units.parquet", self.voxel_nm(stage)
        if voxel is None or not path.is_file():
            return {}
        names = [f"core_{a}{e}" for e in (0, 1) for a in "zyx"]
        units = pq.read_table(path, columns=["unit", *names])
        boxes = np.stack([units[n].to_numpy() for n in names], axis=1)
        known = (np.abs(boxes) < _FAR_VX).all(axis=1)
        nm = (boxes * np.tile(voxel, 2)).tolist()
        codes = units["unit"].to_pylist()
        return {u: tuple(b) for u, b, k in zip(codes, nm, known.tolist(), strict=True) if k}

    def in_section(self, section: int) -> Place:
        """The place of a section: its plane, as far as the aligned volume reaches."""
        box = None
        for stage in ("render", "align"):
            bounds, voxel = self.record(stage).get("bounds"), self.voxel_nm(stage)
            if bounds is not None and voxel is not None:
                _, y0, x0, _, y1, x1 = bounds
                six = (np.asarray([section, y0, x0, section + 1, y1, x1]) * np.tile(voxel, 2)).tolist()
                box = (six[0], six[1], six[2], six[3], six[4], six[5])
                break
        return Place(f"section {section}", None, box)
