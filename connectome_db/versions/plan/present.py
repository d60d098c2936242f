"""What lies in `data/<stage>` now: units with their keys, what they read, and the parts they made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.config import Project
from connectome_db.errors import StoreError
from connectome_db.provenance import Digests, from_hex
from connectome_db.spec import Plan

BOX = ("z0", "y0", "x0", "z1", "y1", "x1")

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_PARTS = np.zeros(0, np.uint64), np.zeros((0, 6), np.int64), np.zeros((0, 32), np.uint8)
"""Codes, boxes and digests of nothing."""


def boxes_in(table: pa.Table, prefix: str = "") -> I64:
    """The box columns of a ledger table as int64[N, 6]."""
    return np.stack([table[f"{prefix}{c}"].to_numpy() for c in BOX], axis=1).astype(np.int64).reshape(-1, 6)


@dataclass(frozen=True)
class Labels:
    """A text per unit, as distinct values and the number of its value for each unit; None is allowed."""

    values: tuple[str | None, ...]
    index: I64


def labels_of(column: pa.ChunkedArray) -> Labels:
    """A column of few distinct texts."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return Labels(tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64))


@dataclass(frozen=True)
class Present:
    """The finished data of one stage. Units ascend by code; `keys` is uint8 (N, 32), `cores` int64[N, 6]."""

    folder: Path
    record: Mapping[str, Any]
    codes: U64
    cores: I64
    keys: Digests
    params: Labels
    models: Labels

    @cached_property
    def _parts(self) -> pa.Table:
        return pq.read_table(self.folder / "parts.parquet", columns=["output", "unit", *BOX, "digest"])

    def parts(self, output: str) -> tuple[U64, I64, Digests]:
        """Parts of an output: codes (ascending), boxes int64[P, 6], digests uint8 (P, 32)."""
        mine = self._parts.filter(pc.equal(self._parts["output"], output))
        return mine["unit"].to_numpy(), boxes_in(mine), from_hex(mine["digest"].to_pylist())

    def rows(self, codes: U64) -> I64:
        """The row of each unit code, or -1: int64[N]."""
        if len(self.codes) == 0:
            return np.full(len(codes), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[at] == codes, at, -1)

    def reads_digest(self) -> U64:
        """Per unit a number that stands for its read boxes (see `reads_of_plan`)."""
        table = pq.read_table(self.folder / "reads.parquet", columns=["unit", "input", *BOX])
        out = np.zeros(len(self.codes), dtype=np.uint64)
        for name in table["input"].unique().to_pylist():
            mine = table.filter(pc.equal(table["input"], name))
            np.add.at(out, self.rows(mine["unit"].to_numpy()), _mix(boxes_in(mine), name))
        return out


def read_present(project: Project, stage: str) -> Present | None:
    """What lies in data/ of a stage; None when it was never finished. Raises StoreError when it cannot be read."""
    folder = project.data(stage)
    if not (folder / "record.json").exists():
        return None
    try:
        record = json.loads((folder / "record.json").read_text())
        columns = ["unit", *(f"core_{c}" for c in BOX), "unit_key", "params_digest", "model_id"]
        table = pq.read_table(folder / "units.parquet", columns=columns)
        keys = from_hex(table["unit_key"].to_pylist())
    except (OSError, ValueError, pa.ArrowInvalid) as e:
        raise StoreError(
            f"data/{stage} cannot be read ({e}). `connectome finish {stage}` makes it again from the store, or remove "
            "the folder: then the units are looked up in the store"
        ) from e
    return Present(
        folder, record, table["unit"].to_numpy(), boxes_in(table, "core_"), keys,
        labels_of(table["params_digest"]), labels_of(table["model_id"]),
    )  # fmt: skip


def reads_of_plan(plan: Plan, rows: I64, hulls: Mapping[str, I64]) -> U64:
    """Per unit of a plan at `rows` a number that stands for its read boxes, as `Present.reads_digest` has it.

    `hulls` has, per input, the box int64[6] that is recorded for reading all of it.
    """
    out = np.zeros(len(rows), dtype=np.uint64)
    for r in plan.reads:
        boxes = np.repeat(hulls[r.input][None], len(rows), axis=0) if r.boxes is None else r.boxes[rows]
        real = (boxes[:, 3:] > boxes[:, :3]).all(axis=1)
        out[real] += _mix(boxes[real], r.input)
    return out


def _mix(boxes: I64, name: str) -> U64:
    """A 64-bit hash (splitmix64) of each box of an input; sums of them stand for sets of boxes."""
    h = np.full(len(boxes), int.from_bytes(name.encode()[-8:].rjust(8, b"\0"), "big"), dtype=np.uint64)
    for k in range(6):
        h = (h ^ boxes[:, k].astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    return h
