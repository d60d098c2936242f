"""Two versions of a project compared unit by unit: what was added, removed or made anew, and which content differs.

Only the ledgers are read (`data/<stage>/{units,reads,parts}.parquet`, `record.json`), never voxels or science tables.
A unit whose key differs was computed anew; only its parts whose digests differ can be seen by whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import QueryError
from connectome_db.query.views import read_json

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Integer = TypeVar("Integer", np.int64, np.uint64)

AXES = ("z0", "y0", "x0", "z1", "y1", "x1")
SAME, ADDED, REMOVED, RECOMPUTED, CHANGED = range(5)
WHAT = ("same", "added", "removed", "recomputed, same content", "changed")
"""What happened to a unit, by number."""


@dataclass(frozen=True)
class StageData:
    """The ledger of one stage in one version; `units` is ascending by unit."""

    stage: str
    record: Mapping[str, Any]
    units: pa.Table
    reads: pa.Table
    parts: pa.Table

    @property
    def kind(self) -> str:
        """blocks, sections, pairs, faces or once."""
        return str(self.units["kind"][0].as_py()) if self.units.num_rows else "once"


@dataclass(frozen=True)
class Parts:
    """Parts of one output that one version has otherwise than the other: codes, boxes (k, 6), index of their units."""

    codes: U64
    boxes: I64
    unit: I64


@dataclass(frozen=True)
class UnitChanges:
    """The units of one stage in both versions.

    `codes` uint64[n] is ascending; `at_a` and `at_b` int64[n] are rows of either ledger, -1 where it lacks the unit.
    `what` int8[n] is one of SAME, ADDED, ...; `same_key` marks units whose key did not change. `cores` int64[n, 6] are
    core boxes (those of b where there are two). `parts_a` and `parts_b` hold the differing parts, by output.
    """

    stage: str
    a: StageData | None
    b: StageData | None
    codes: U64
    at_a: I64
    at_b: I64
    what: npt.NDArray[np.int8]
    same_key: Bool
    cores: I64
    parts_a: Mapping[str, Parts]
    parts_b: Mapping[str, Parts]

    def index(self, codes: U64) -> I64:
        """Rows of unit codes; -1 where neither version has the unit."""
        return positions(self.codes, codes)

    def differing(self, output: str) -> U64:
        """Codes of the parts of `output` that differ, in either version."""
        found = [side[output].codes for side in (self.parts_a, self.parts_b) if output in side]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def load_ledgers(root: Path) -> dict[str, StageData]:
    """The ledgers of every stage that has data below `root`, by stage. Raises QueryError for a damaged one."""
    return {path.parent.name: _load(path.parent) for path in sorted(root.glob("data/*/record.json"))}


def _load(folder: Path) -> StageData:
    record: Mapping[str, Any] = read_json(folder / "record.json")
    try:
        units, reads, parts = (pq.read_table(folder / f"{n}.parquet") for n in ("units", "reads", "parts"))
    except (OSError, pa.ArrowInvalid) as e:
        raise QueryError(f"{folder}: its ledger cannot be read ({e}); run `connectome finish {folder.name}`") from e
    return StageData(folder.name, record, units.sort_by("unit"), reads, parts)


def in_order(a: Mapping[str, StageData], b: Mapping[str, StageData]) -> list[str]:
    """Stages of both versions, each after all it reads."""
    feeds = {
        stage: {name.partition(".")[0] for side in (a, b) if stage in side for name in side[stage].record["inputs"]}
        for stage in sorted({*a, *b})
    }
    order: list[str] = []
    while len(order) < len(feeds):
        ready = [s for s in feeds if s not in order and not (feeds[s] & feeds.keys()) - set(order)]
        if not ready:
            raise QueryError(f"the records of {sorted(feeds.keys() - set(order))} name each other as inputs")
        order += ready
    return order


def compare(stage: str, a: StageData | None, b: StageData | None) -> UnitChanges:
    """Compare one stage; at least one of the two versions has it."""
    codes_a, codes_b = _codes(a), _codes(b)
    codes = np.union1d(codes_a, codes_b)
    at_a, at_b = positions(codes_a, codes), positions(codes_b, codes)
    both = (at_a >= 0) & (at_b >= 0)
    same_key = np.zeros(len(codes), dtype=bool)
    if a is not None and b is not None:
        same_key[both] = _equal(a.units["unit_key"], at_a[both], b.units["unit_key"], at_b[both])
    parts_a, parts_b = _differing(a, b, codes), _differing(b, a, codes)
    touched = np.zeros(len(codes), dtype=bool)
    for parts in (*parts_a.values(), *parts_b.values()):
        touched[parts.unit] = True
    what = np.where(touched, CHANGED, np.where(same_key, SAME, RECOMPUTED)).astype(np.int8)
    what[at_a < 0] = ADDED
    what[at_b < 0] = REMOVED
    cores = np.zeros((len(codes), 6), dtype=np.int64)
    for side, at in ((a, at_a), (b, at_b)):
        if side is not None:
            cores[at >= 0] = boxes_of(side.units, "core_")[at[at >= 0]]
    return UnitChanges(stage, a, b, codes, at_a, at_b, what, same_key, cores, parts_a, parts_b)


def positions(codes: npt.NDArray[Integer], wanted: npt.NDArray[Integer]) -> I64:
    """Rows of `wanted` in the ascending `codes`, -1 where it is not among them. Both are of one integer type."""
    if len(codes) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[at] == wanted, at, -1).astype(np.int64)


def boxes_of(table: pa.Table, prefix: str = "") -> I64:
    """The box columns of a ledger table: int64 (n, 6)."""
    return np.stack([table[f"{prefix}{c}"].to_numpy() for c in AXES], axis=1).astype(np.int64).reshape(-1, 6)


def _codes(side: StageData | None) -> U64:
    return np.zeros(0, np.uint64) if side is None else side.units["unit"].to_numpy().astype(np.uint64)


def _equal(x: pa.ChunkedArray, at_x: I64, y: pa.ChunkedArray, at_y: I64) -> Bool:
    found: Bool = pc.equal(x.take(pa.array(at_x)), y.take(pa.array(at_y))).to_numpy()
    return found.astype(np.bool_)


def _differing(mine: StageData | None, other: StageData | None, codes: U64) -> dict[str, Parts]:
    """By output, the parts of `mine` that `other` lacks or has with other content; outputs without any are left out."""
    found: dict[str, Parts] = {}
    if mine is None:
        return found
    for output in pc.unique(mine.parts["output"]).to_pylist():
        rows = mine.parts.filter(pc.field("output") == output).sort_by("unit")
        here = rows["unit"].to_numpy().astype(np.uint64)
        differs = np.ones(len(here), dtype=bool)
        if other is not None:
            theirs = other.parts.filter(pc.field("output") == output).sort_by("unit")
            at = positions(theirs["unit"].to_numpy().astype(np.uint64), here)
            both = np.flatnonzero(at >= 0)
            differs[both] = ~_equal(rows["digest"], both, theirs["digest"], at[both])
        if differs.any():
            unit = np.zeros(len(here), np.int64) if mine.kind == "once" else positions(codes, here)
            found[output] = Parts(here[differs], boxes_of(rows)[differs], unit[differs])
    return found
