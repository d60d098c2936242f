"""Synapses of two revisions, matched one to one, and why each differs.

Rows of units with equal content are the same. Of the others, a row with the same id at the same place is the same
synapse; then those that are each other's nearest, within a tolerance. What counts as one partner is said by heirs:
a synapse whose neuron was renamed, or grew, has not changed its partner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.query.compare.causes import Attribution
from connectome_db.query.compare.causesets import NOTHING
from connectome_db.query.compare.changes import positions
from connectome_db.revisions import Revision
from connectome_db.versions.compare.evidence import Supervoxels, read
from connectome_db.versions.compare.objects import Objects, Reasons
from connectome_db.versions.identity.synapse_match import TOLERANCE_NM, mutually_nearest

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

SUPERVOXELS = "segment.supervoxels"
PLACE = ("z_vx", "y_vx", "x_vx")
KINDS = ("same", "gained", "lost", "repartnered", "recounted", "moved", "altered", "renamed")
SAME, GAINED, LOST, REPARTNERED, RECOUNTED, MOVED, ALTERED, RENAMED = range(len(KINDS))


@dataclass(frozen=True)
class Side:
    """The synapses of one revision, ascending by id, with the neurons they bind."""

    table: pa.Table
    ids: U64
    unit: U64
    place_nm: F64
    pre: U64
    post: U64
    counted: Mask

    def cleft(self) -> F64:
        """What was measured of the cleft: place, size, confidence (n, 5)."""
        return np.column_stack([self.table[c].to_numpy() for c in (*PLACE, "size_vx", "confidence")]).astype(np.float64)


@dataclass(frozen=True)
class Synapses:
    """Every synapse of either revision once: rows of both sides (-1: not there), what happened to it, and why."""

    sides: tuple[Side, Side]
    at_a: I64
    at_b: I64
    kind: npt.NDArray[np.int8]
    reasons: Reasons
    table: pa.Table

    def neurons(self, side: int) -> tuple[U64, U64, Mask]:
        """(pre, post, counted) of each synapse in revision a (0) or b (1); 0 and False where it is not there."""
        at, s = ((self.at_a, self.at_b)[side], self.sides[side])
        return _taken(s.pre, at), _taken(s.post, at), _taken(s.counted, at)


def compare_synapses(
    a: Revision, b: Revision, objects: Objects, supervoxels: tuple[Supervoxels, Supervoxels], why: Attribution,
    tolerance_nm: float = TOLERANCE_NM,
) -> Synapses:  # fmt: skip
    """Match the synapses of both revisions and say what happened to each."""
    sides = _side(a), _side(b)
    at_a, at_b = _match(*sides, why.stages["synapses"].change.differing("synapse"), tolerance_nm)
    kind = _kinds(sides, at_a, at_b, objects, min(a.record("synapses")["voxel_nm"]))
    reasons = _reasons(sides, at_a, at_b, kind, objects, supervoxels, why)
    return Synapses(sides, at_a, at_b, kind, reasons, _table(sides, at_a, at_b, kind, reasons, why))


def _side(revision: Revision) -> Side:
    columns = ["unit", "synapse", *PLACE, "size_vx", "confidence", "polarity", "pre_supervoxel", "post_supervoxel"]
    rows = read(revision, "synapses", "synapse", columns).sort_by("synapse")
    link = read(revision, "graph", "link", ["synapse", "pre", "post", "counted", "reason"]).sort_by("synapse")
    link = link.take(pa.array(positions(link["synapse"].to_numpy(), rows["synapse"].to_numpy())))
    voxel_nm = np.asarray(revision.record("synapses")["voxel_nm"], dtype=np.float64)
    place = np.stack([rows[c].to_numpy() for c in PLACE], axis=1).reshape(-1, 3) * voxel_nm
    rows = rows.append_column("reason", link["reason"])
    return Side(
        rows, rows["synapse"].to_numpy(), rows["unit"].to_numpy(), place,
        link["pre"].to_numpy(), link["post"].to_numpy(), link["counted"].to_numpy().astype(np.bool_),
    )  # fmt: skip


def _match(a: Side, b: Side, differing: U64, tolerance_nm: float) -> tuple[I64, I64]:
    """Rows of both sides, paired; -1 where a synapse is in one revision only. Ascending by a, then what is new in b."""
    partner = positions(b.ids, a.ids)
    near = partner >= 0
    changed_a, changed_b = np.isin(a.unit, differing), np.isin(b.unit, differing)
    moved = near & changed_a
    moved[moved] = (a.place_nm[moved] != b.place_nm[partner[moved]]).any(axis=1)
    partner[moved] = -1
    taken = np.zeros(len(b.ids), dtype=bool)
    taken[partner[partner >= 0]] = True
    left_a, left_b = np.flatnonzero(changed_a & (partner < 0)), np.flatnonzero(changed_b & ~taken)
    i, k = mutually_nearest(a.place_nm[left_a], b.place_nm[left_b], tolerance_nm)
    partner[left_a[i]] = left_b[k]
    taken[left_b[k]] = True
    new = np.flatnonzero(~taken)
    return np.concatenate([np.arange(len(a.ids)), np.full(len(new), -1)]), np.concatenate([partner, new])


def _taken(values: npt.NDArray[Scalar], at: I64) -> npt.NDArray[Scalar]:
    """values[at], zero where `at` is -1."""
    out = np.zeros(len(at), dtype=values.dtype)
    out[at >= 0] = values[at[at >= 0]]
    return out


def _kinds(sides: tuple[Side, Side], at_a: I64, at_b: I64, objects: Objects, voxel_nm: float) -> npt.NDArray[np.int8]:
    """What happened to each synapse; the first of KINDS that holds."""
    a, b = sides
    both = (at_a >= 0) & (at_b >= 0)
    i, k = at_a[both], at_b[both]
    kind = np.where(at_a < 0, GAINED, np.where(at_b < 0, LOST, SAME)).astype(np.int8)
    partner = np.zeros(len(i), dtype=bool)
    named = a.ids[i] != b.ids[k]
    for x, y in ((a.pre[i], b.pre[k]), (a.post[i], b.post[k])):
        partner |= objects.carried_on(x) != y
        named |= x != y
    far = np.linalg.norm(a.place_nm[i] - b.place_nm[k], axis=1) > voxel_nm
    other = (a.cleft()[i] != b.cleft()[k]).any(axis=1)
    recounted = a.counted[i] != b.counted[k]
    kind[both] = np.select(
        [partner, recounted, far, other, named], [REPARTNERED, RECOUNTED, MOVED, ALTERED, RENAMED], SAME
    )
    return kind


def _reasons(
    sides: tuple[Side, Side], at_a: I64, at_b: I64, kind: npt.NDArray[np.int8], objects: Objects,
    supervoxels: tuple[Supervoxels, Supervoxels], why: Attribution,
) -> Reasons:  # fmt: skip
    """The causes of each synapse that is not the same: of its cleft, of its two supervoxels, of its two neurons."""
    n = len(kind)
    out, certain, indirect = np.zeros(n, np.int64), np.ones(n, bool), np.zeros(n, bool)
    rows = np.flatnonzero(kind != SAME)
    x, y, what = at_a[rows], at_b[rows], kind[rows]
    both = (x >= 0) & (y >= 0)
    made = why.stages["synapses"]
    units = [np.where(at >= 0, s.unit[at], np.uint64(0)) if len(s.unit) else np.zeros(len(at), np.uint64)
             for s, at in zip(sides, (x, y), strict=True)]  # fmt: skip
    image = why.through("synapses", *(name for name in made.via if name != SUPERVOXELS))
    of_unit, of_cleft = (
        why.sets.union(*(np.where(at >= 0, made.of(u, which), NOTHING) for u, at in zip(units, (x, y), strict=True)))
        for which in (made.total, why.sets.union(made.own, image))
    )
    cleft, name = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    i, k = x[both], y[both]
    cleft[both] = (sides[0].cleft()[i] != sides[1].cleft()[k]).any(axis=1)
    name[both] = sides[0].ids[i] != sides[1].ids[k]
    causes = np.where(both, np.where(cleft, of_cleft, np.where(name, of_unit, NOTHING)), of_unit)
    sure = why.sets.sizes(causes) <= 1
    for end in ("pre", "post"):
        more, known, far = _of_end(end, sides, (x, y), both, what == RENAMED, of_unit, objects, supervoxels, why)
        sure &= known & ((more == NOTHING) | (causes == NOTHING) | (more == causes))
        causes, indirect[rows] = why.sets.union(causes, more), indirect[rows] | far
    counted = (what == RECOUNTED) | (both & (_taken(sides[0].counted, x) != _taken(sides[1].counted, y)))
    graph = why.stages["graph"]
    own = np.where(counted, why.sets.union_all(graph.own), NOTHING)
    sure &= (own == NOTHING) | (causes == NOTHING)
    causes = why.sets.union(causes, own)
    lost = causes == NOTHING  # its twin came or went: the graph reads all synapses
    out[rows] = np.where(lost, why.sets.union_all(graph.total), causes)
    indirect[rows] |= lost
    certain[rows] = sure & ~indirect[rows]
    return Reasons(out, certain, indirect)


def _of_end(
    end: str, sides: tuple[Side, Side], at: tuple[I64, I64], both: Mask, renamed: Mask, of_unit: I64,
    objects: Objects, supervoxels: tuple[Supervoxels, Supervoxels], why: Attribution,
) -> tuple[I64, Mask, Mask]:  # fmt: skip
    """For one end of each synapse whose neuron is another one: the causes, whether sure, whether indirect."""
    nothing = np.zeros(len(both), np.int64)
    neuron = [_taken(getattr(s, end), k) for s, k in zip(sides, at, strict=True)]
    other = both & ((objects.carried_on(neuron[0]) != neuron[1]) | (renamed & (neuron[0] != neuron[1])))
    if not other.any():
        return nothing, np.ones(len(both), bool), np.zeros(len(both), bool)
    index = [s.at(_taken(side.table[f"{end}_supervoxel"].to_numpy(), k)) for s, side, k in
             zip(supervoxels, sides, at, strict=True)]  # fmt: skip
    moved = other & (supervoxels[0].thing[index[0]] != supervoxels[1].thing[index[1]])
    atoms = why.sets.union(supervoxels[0].own[index[0]], supervoxels[1].own[index[1]])
    causes = np.where(moved, np.where(atoms == NOTHING, of_unit, atoms), nothing)
    sure, far = why.sets.sizes(causes) <= 1, np.zeros(len(both), bool)
    for side in (0, 1):
        group = np.where(other, objects.group_of(side, neuron[side]), -1)
        chosen = group >= 0
        causes[chosen] = why.sets.union(causes[chosen], objects.reasons.causes[group[chosen]])
        sure[chosen] &= objects.reasons.certain[group[chosen]]
        far[chosen] |= objects.reasons.indirect[group[chosen]]
    return causes, sure, far


def _table(
    sides: tuple[Side, Side], at_a: I64, at_b: I64, kind: npt.NDArray[np.int8], reasons: Reasons, why: Attribution
) -> pa.Table:
    rows = np.flatnonzero(kind != SAME)
    columns: dict[str, pa.Array] = {"kind": pa.array([KINDS[k] for k in kind[rows].tolist()], pa.string())}
    at = at_a[rows], at_b[rows]
    for name, side, k in zip("ab", sides, at, strict=True):
        columns[f"synapse_{name}"] = _or_null(side.ids, k)
    for end in ("pre", "post"):
        for name, side, k in zip("ab", sides, at, strict=True):
            columns[f"{end}_{name}"] = _or_null(getattr(side, end), k)
    for column in ("counted", "reason"):
        for name, side, k in zip("ab", sides, at, strict=True):
            values = side.counted if column == "counted" else side.table["reason"].to_pylist()
            columns[f"{column}_{name}"] = _or_null(np.asarray(values, dtype=object), k, from_pandas=True)
    for name in PLACE:
        here = [s.table[name].to_numpy() for s in sides]
        columns[name] = pa.array(np.where(at[1] >= 0, _taken(here[1], at[1]), _taken(here[0], at[0])), pa.float64())
    both = (at[0] >= 0) & (at[1] >= 0)
    shift = np.linalg.norm(sides[0].place_nm[at[0][both]] - sides[1].place_nm[at[1][both]], axis=1)
    moved = np.full(len(rows), np.nan)
    moved[both] = shift
    columns["shift_nm"] = pa.array(moved, pa.float64(), from_pandas=True)
    columns["causes"] = why.sets.lists(reasons.causes[rows])
    columns["certain"], columns["indirect"] = pa.array(reasons.certain[rows]), pa.array(reasons.indirect[rows])
    return pa.table(columns)


def _or_null(values: npt.NDArray[np.generic], at: I64, *, from_pandas: bool = False) -> pa.Array:
    """values[at], null where `at` is -1."""
    if len(values) == 0:
        return pa.nulls(len(at), pa.from_numpy_dtype(values.dtype) if not from_pandas else pa.string())
    return pa.array(values[at], mask=at < 0)
