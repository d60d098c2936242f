"""Which units depend on which: walks up and down the ledger, a whole stage at a time.

A unit depends on another when its read box touches a part that the other made: the view `unit_edge`, which has tens of
millions of rows in a project of a million units. These walks never make it. They ask, stage by stage, which read boxes
touch any of the parts reached so far, in time linear in units and parts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.provenance import touching
from connectome_db.query.database import Database
from connectome_db.query.views import outputs_in

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Reached = dict[str, U64]
"""Unit codes, ascending, by stage. A stage of which nothing was reached is not there."""

BOX = ("z0", "y0", "x0", "z1", "y1", "x1")
_BOX = ", ".join(BOX)
_NEAR = " AND ".join(f"{axis}0 < ${axis}1 AND {axis}1 > ${axis}0" for axis in "zyx")
_READS = f"SELECT unit, {_BOX} FROM unit_read WHERE stage = $stage AND input = $input AND {_NEAR}"
_PARTS = f"SELECT unit, {_BOX} FROM part WHERE stage = $stage AND output = $output AND {_NEAR}"
_MAX_CELLS = 1 << 25
_FAR = 1 << 62
_EVERYWHERE = np.asarray([[-_FAR] * 3 + [_FAR] * 3], dtype=np.int64)


@dataclass(frozen=True)
class Pipeline:
    """The stages that have data, in order: what each reads, and the kind of its units."""

    inputs: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]

    @property
    def solves(self) -> frozenset[str]:
        """Stages with one unit that reads everything: what goes through them may change everything."""
        return frozenset(s for s, kind in self.kinds.items() if kind == "once")

    def upstream(self, stage: str) -> tuple[str, ...]:
        """The stages whose outputs `stage` reads."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.inputs[stage]))


def pipeline(db: Database) -> Pipeline:
    """The pipeline as the ledger of a project has it."""
    kinds = {r["stage"]: r["kind"] for r in db.fetch("SELECT stage, kind FROM stage_record")}
    stages = [s for s in outputs_in(db.project) if s in kinds]
    inputs: dict[str, list[str]] = {s: [] for s in stages}
    for r in db.fetch("SELECT stage, input FROM stage_input ORDER BY ALL"):
        inputs[r["stage"]].append(r["input"])
    return Pipeline({s: tuple(names) for s, names in inputs.items()}, kinds)


def downstream(db: Database, start: Mapping[str, U64], *, stop: Collection[str] = ()) -> Reached:
    """`start` and every unit that depends on it, directly or not; walks neither into nor out of the stages `stop`."""
    pipe = pipeline(db)
    found = {s: np.unique(codes) for s, codes in start.items() if len(codes)}
    for stage, inputs in pipe.inputs.items():
        if stage in stop:
            continue
        mine = [found[stage]] if stage in found else []
        for name in inputs:
            source, _, _output = name.partition(".")
            if source in found and source not in stop:
                codes = None if pipe.kinds[source] == "once" else found[source]
                _, parts = _boxes(db, _PARTS, source, name, _EVERYWHERE, codes)
                units, reads = _boxes(db, _READS, stage, name, parts)
                mine.append(units[touches(reads, parts)])
        if any(len(m) for m in mine):
            found[stage] = np.unique(np.concatenate(mine))
    return found


def upstream(db: Database, start: Mapping[str, U64]) -> Reached:
    """`start` and every unit it depends on, directly or not."""
    pipe = pipeline(db)
    found = {s: np.unique(codes) for s, codes in start.items() if len(codes)}
    for stage in reversed(tuple(pipe.inputs)):
        for name in pipe.inputs[stage] if stage in found else ():
            source, _, _output = name.partition(".")
            if source not in pipe.inputs:
                continue
            _, reads = _boxes(db, _READS, stage, name, _EVERYWHERE, found[stage])
            units, parts = _boxes(db, _PARTS, source, name, reads)
            made = units[touches(parts, reads)]
            if pipe.kinds[source] == "once" and len(made):
                made = codes_of(db.rows("SELECT min(unit) AS unit FROM unit WHERE stage = $stage", {"stage": source}))
            if len(made):
                found[source] = np.union1d(found.get(source, made), made)
    return found


def codes_of(rows: pa.Table) -> U64:
    """The column `unit`, ascending and each once."""
    return np.unique(rows["unit"].to_numpy().astype(np.uint64))


def by_stage(rows: pa.Table) -> Reached:
    """Rows (stage, unit) as units by stage."""
    stage = pa.chunked_array(rows["stage"]).combine_chunks().dictionary_encode()
    number, unit = stage.indices.to_numpy(), rows["unit"].to_numpy().astype(np.uint64)
    return {str(s): np.unique(unit[number == k]) for k, s in enumerate(stage.dictionary.to_pylist())}


def as_rows(found: Mapping[str, U64]) -> pa.Table:
    """The inverse of `by_stage`: (stage, unit)."""
    number = np.repeat(np.arange(len(found), dtype=np.int32), [len(codes) for codes in found.values()])
    stage = pa.DictionaryArray.from_arrays(pa.array(number), pa.array(list(found), pa.string())).cast(pa.string())
    return pa.table({"stage": stage, "unit": np.concatenate([np.zeros(0, np.uint64), *found.values()])})


def _boxes(db: Database, sql: str, stage: str, name: str, near: I64, codes: U64 | None = None) -> tuple[U64, I64]:
    """Units and boxes of reads (or parts) that touch the hull of the boxes `near`; of the units `codes` if given."""
    if not len(near):
        return np.zeros(0, np.uint64), np.zeros((0, 6), np.int64)
    hull = [*near[:, :3].min(axis=0).tolist(), *near[:, 3:].max(axis=0).tolist()]
    named = {"input": name} if sql is _READS else {"output": name}
    rows = db.rows(sql, {"stage": stage, **named, **dict(zip(BOX, hull, strict=True))})
    unit = rows["unit"].to_numpy().astype(np.uint64)
    boxes = np.stack([rows[c].to_numpy() for c in BOX], axis=1).astype(np.int64)
    if codes is None:
        return unit, boxes
    mine = np.isin(unit, codes)
    return unit[mine], boxes[mine]


def touches(boxes: I64, others: I64) -> Bool:
    """For each box int64[N, 6] whether it touches any of `others` int64[P, 6]; a box without volume touches nothing.

    The ends of `others` cut space into cells. The cells that some box of `others` covers are counted from the origin
    (Crow 1984, summed-area tables), so each box needs eight look-ups, however many it touches.
    """
    real = (others[:, 3:] > others[:, :3]).all(axis=1)
    others = others[real]
    hit = np.zeros(len(boxes), dtype=np.bool_)
    some = np.flatnonzero((boxes[:, 3:] > boxes[:, :3]).all(axis=1))
    if not len(others) or not len(some):
        return hit
    ends = [np.unique(others[:, [k, k + 3]]) for k in range(3)]
    shape = [len(e) for e in ends]
    if int(np.prod(shape, dtype=np.float64)) > _MAX_CELLS:  # boxes that share few ends: sections of unequal size
        unique, index = np.unique(boxes[some], axis=0, return_inverse=True)
        indptr, _ = touching(unique, others)
        hit[some] = (np.diff(indptr) > 0)[index.reshape(-1)]
        return hit
    covered = np.zeros(shape, dtype=np.int32)
    lo = [np.searchsorted(e, others[:, k]) for k, e in enumerate(ends)]
    hi = [np.searchsorted(e, others[:, k + 3]) for k, e in enumerate(ends)]
    for sign, corner in _corners(lo, hi):
        np.add.at(covered, corner, sign)
    for axis in range(3):
        np.cumsum(covered, axis=axis, out=covered)
    counted = np.zeros([n + 1 for n in shape], dtype=np.int64)
    counted[1:, 1:, 1:] = covered > 0
    for axis in range(3):
        np.cumsum(counted, axis=axis, out=counted)
    low = [np.maximum(np.searchsorted(e, boxes[some, k], side="right") - 1, 0) for k, e in enumerate(ends)]
    high = [np.maximum(np.searchsorted(e, boxes[some, k + 3]), 0) for k, e in enumerate(ends)]
    low = [np.minimum(a, b) for a, b in zip(low, high, strict=True)]
    total = sum(sign * counted[corner] for sign, corner in _corners(low, high))
    hit[some] = np.asarray(total) != 0
    return hit


def _corners(lo: list[I64], hi: list[I64]) -> list[tuple[int, tuple[I64, I64, I64]]]:
    """Signs and indices of the eight corners of boxes of cells, for sums and differences along all axes."""
    picks = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    ends = (lo, hi)
    return [((-1) ** sum(p), (ends[p[0]][0], ends[p[1]][1], ends[p[2]][2])) for p in picks]
