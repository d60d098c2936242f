"""Why units were computed anew: what differs in their own records, and what they inherit from the parts they read.

A unit inherits the causes of the units whose parts it read, where the content of those parts differs; a part that was
made anew with equal content passes nothing on. Stages are taken in the order of the pipeline, and every step is an
array operation over all units of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.provenance import touching
from connectome_db.query.compare.causesets import NOTHING, Cause, CauseSets
from connectome_db.query.compare.changes import (
    AXES,
    I64,
    RECOMPUTED,
    SAME,
    WHAT,
    StageData,
    UnitChanges,
    boxes_of,
    compare,
    in_order,
    load_ledgers,
)
from connectome_db.query.compare.owncauses import own_causes
from connectome_db.query.compare.rawchanges import Differing, raw_changes, source_cause


@dataclass(frozen=True)
class Attributed:
    """A stage's units with their causes, as numbers of sets: int64[n] each.

    `own` is what differs in a unit's own record, `via` what it inherits by each input, `total` all of it; all are empty
    for units whose key did not change.
    """

    change: UnitChanges
    own: I64
    via: Mapping[str, I64]
    total: I64

    def of(self, codes: npt.NDArray[np.uint64], which: I64 | None = None) -> I64:
        """The sets of units by their codes: those in `which` (default `total`), empty for unknown units."""
        at = self.change.index(codes)
        chosen = self.total if which is None else which
        return np.where(at >= 0, chosen[at], NOTHING) if len(chosen) else np.zeros(len(codes), np.int64)


@dataclass(frozen=True)
class Attribution:
    """All stages of two versions in pipeline order, and the causes that their units name."""

    sets: CauseSets
    stages: Mapping[str, Attributed]

    def through(self, stage: str, *inputs: str) -> I64:
        """What the units of a stage inherit by some of its inputs."""
        found = self.stages[stage]
        out = np.zeros(len(found.change.codes), dtype=np.int64)
        for name in inputs:
            if name in found.via:
                out = self.sets.union(out, found.via[name])
        return out


def attribute(root_a: Path, root_b: Path) -> Attribution:
    """Compare the units of two versions, given the folders that hold their `data/`, and say why each differs."""
    sets = CauseSets()
    a, b = load_ledgers(root_a), load_ledgers(root_b)
    done: dict[str, Attributed] = {}
    raw: dict[str, Differing] = {}
    for stage in in_order(a, b):
        change = compare(stage, a.get(stage), b.get(stage))
        own = own_causes(change, sets)
        if change.a is not None and change.b is not None and (source := source_cause(change.a, change.b)):
            own[~change.same_key] = sets.union(own, np.full(len(own), sets.of([source])))[~change.same_key]
        for name in _inputs(change):
            # What no stage makes is compared here, once, by the records of the first stage that reads it.
            if name.partition(".")[0] not in done and name not in raw and change.a is not None and change.b is not None:
                raw[name] = raw_changes(name, root_a, root_b, change.a, change.b, sets)
        via = {name: _inherited(change, name, done, raw.get(name), sets) for name in _inputs(change)}
        total = own
        for inherited in via.values():
            total = sets.union(total, inherited)
        lost = (total == NOTHING) & (change.what != SAME)
        if lost.any():
            total = total.copy()
            total[lost] = _last_resort(change, lost, sets)
        done[stage] = Attributed(change, own, via, total)
    return Attribution(sets, done)


def _inputs(change: UnitChanges) -> list[str]:
    return sorted({name for side in (change.a, change.b) if side is not None for name in side.record["inputs"]})


def _inherited(
    change: UnitChanges, name: str, done: Mapping[str, Attributed], raw: Differing | None, sets: CauseSets
) -> I64:
    """What each unit inherits by one input; nothing where its key is the same."""
    rows, found = [], []
    producer, _, output = name.partition(".")
    met: list[tuple[pa.Table, I64, I64]] = []
    for k, side in enumerate((change.a, change.b)):
        if side is None:
            continue
        boxes, causes = raw or _made(done.get(producer), output, k)
        reads = side.reads.filter(pc.field("input") == name)
        # As a rule both versions read the same boxes of the same parts: the join is then made once.
        if any(r.equals(reads) and np.array_equal(b, boxes) and np.array_equal(c, causes) for r, b, c in met):
            continue
        met.append((reads, boxes, causes))
        indptr, index = touching(boxes_of(reads), boxes)
        unit = change.index(reads["unit"].to_numpy().astype(np.uint64))
        rows.append(np.repeat(unit, np.diff(indptr)))
        found.append(causes[index])
    out = sets.gather(np.concatenate(rows), np.concatenate(found), len(change.codes))
    out[change.same_key] = NOTHING
    return out


def _made(made: Attributed | None, output: str, side: int) -> Differing:
    """The differing parts of an earlier stage's output in version a (0) or b (1)."""
    parts = None if made is None else (made.change.parts_a, made.change.parts_b)[side].get(output)
    if made is None or parts is None:
        return np.zeros((0, 6), np.int64), np.zeros(0, np.int64)
    return parts.boxes, made.total[parts.unit]


def _last_resort(change: UnitChanges, lost: npt.NDArray[np.bool_], sets: CauseSets) -> I64:
    """Sets for units that nothing explains so far: what they cover or read has another extent, or nothing is known."""
    out = np.full(len(lost), sets.of([Cause("unknown", change.stage)]))
    a, b = change.a, change.b
    if a is None or b is None:
        return out[lost]
    moved = np.ones(len(lost), dtype=bool)
    both = np.flatnonzero((change.at_a >= 0) & (change.at_b >= 0))
    cores = [boxes_of(s.units, "core_")[at[both]] for s, at in ((a, change.at_a), (b, change.at_b))]
    moved[both] = (cores[0] != cores[1]).any(axis=1)
    for code in _read_otherwise(a, b):
        moved[change.index(np.asarray([code], np.uint64))] = True
    bounds = [str(s.record.get("bounds", "")) for s in (a, b)]
    out[moved] = sets.of([Cause("extent", change.stage, old=bounds[0], new=bounds[1], note="z, y, x in voxels")])
    return out[lost]


def _read_otherwise(a: StageData, b: StageData) -> Iterator[int]:
    """Units whose read boxes differ."""
    columns = ["unit", "input", *AXES]
    x, y = (s.reads.select(columns).group_by(columns, use_threads=False).aggregate([]) for s in (a, b))
    for mine, other in ((x, y), (y, x)):
        rest = mine.join(other, keys=columns, join_type="left anti")
        yield from pc.unique(rest["unit"]).to_pylist()


def unit_changes(found: Attribution) -> pa.Table:
    """One row per unit that is not the same in both versions, in the order of the pipeline."""
    pieces = []
    for stage, at in found.stages.items():
        rows = np.flatnonzero(at.change.what != SAME)
        pieces.append(
            pa.table(
                {
                    "stage": pa.array([stage] * len(rows), pa.string()),
                    "unit": pa.array(at.change.codes[rows], pa.uint64()),
                    "what": pa.array([WHAT[k] for k in at.change.what[rows].tolist()], pa.string()),
                    **{c: pa.array(at.change.cores[rows, k], pa.int64()) for k, c in enumerate(AXES)},
                    "own": found.sets.lists(at.own[rows]),
                    "causes": found.sets.lists(at.total[rows]),
                }
            )
        )
    return pa.concat_tables(pieces).combine_chunks()


def cause_table(found: Attribution) -> pa.Table:
    """One row per cause: what it is, in how many units it lies itself, and how many it reached and changed."""
    n = len(found.sets.causes)
    own, reached, changed = (np.zeros(n, dtype=np.int64) for _ in range(3))
    for at in found.stages.values():
        for counts, chosen in (
            (own, at.own),
            (reached, at.total),
            (changed, at.total[at.change.what != RECOMPUTED]),
        ):
            numbers, times = np.unique(chosen, return_counts=True)
            for number, k in zip(numbers.tolist(), times.tolist(), strict=True):
                counts[list(found.sets.ids(number))] += k
    causes = found.sets.causes
    text = {name: [getattr(c, name) for c in causes] for name in ("kind", "stage", "name", "region", "old", "new")}
    return pa.table(
        {
            "cause": pa.array(range(n), pa.int32()),
            **{name: pa.array([v or None for v in values], pa.string()) for name, values in text.items()},
            "section": pa.array([c.section for c in causes], pa.int32()),
            "note": pa.array([c.note or None for c in causes], pa.string()),
            "text": pa.array([c.text for c in causes], pa.string()),
            "boxes_vx": pa.array([[list(b.flat()) for b in c.boxes] for c in causes], pa.list_(pa.list_(pa.int64()))),
            "units_own": own,
            "units_reached": reached,
            "units_changed": changed,
        }
    )
