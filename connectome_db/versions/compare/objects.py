"""Objects of two revisions, group by group: split, merged, changed, renamed; and why.

Objects that share voxels worth counting (`history`) are one group, so a split is one object of A and several of B.
A group's causes are those of the evidence that touches its supervoxels and differs, and what `reconcile` and
`agglomerate` have otherwise themselves. Where both occur, agglomeration is tried with the old parameters on the new
evidence, and the other way round (`trial`), which says which of the two it took.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from connectome_db.query.compare.causes import Attribution
from connectome_db.query.compare.causesets import NOTHING
from connectome_db.query.compare.changes import positions
from connectome_db.revisions import Revision
from connectome_db.versions.compare.evidence import Supervoxels, read
from connectome_db.versions.compare.trial import Trial, try_parameters

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ONCE = ("reconcile", "agglomerate")
BOX = tuple(f"{axis}{end}_vx" for end in (0, 1) for axis in "zyx")


@dataclass(frozen=True)
class Reasons:
    """Per row: the set of causes, whether every one of them took part for certain, and whether none lies close by."""

    causes: I64
    certain: Mask
    indirect: Mask


@dataclass(frozen=True)
class Objects:
    """Objects of both revisions, ascending, with the group of each (-1: the same object in both) and its heir."""

    ids_a: U64
    ids_b: U64
    group_a: I64
    group_b: I64
    heir: I64
    """Row in `ids_b` of the object that carries on each object of a, -1 for none. No two have the same."""
    reasons: Reasons
    """Per group."""
    table: pa.Table

    def group_of(self, side: int, ids: U64) -> I64:
        """The group of objects of revision a (0) or b (1); -1 for objects that did not change."""
        known, group = ((self.ids_a, self.group_a), (self.ids_b, self.group_b))[side]
        at = positions(known, ids)
        return np.where(at >= 0, group[at], -1) if len(group) else at

    def carried_on(self, ids: U64) -> U64:
        """What objects of a are called in b; 0 where none carries them on."""
        at = positions(self.ids_a, ids)
        heir = np.where(at >= 0, self.heir[at], -1) if len(self.heir) else at
        return np.where(heir >= 0, self.ids_b[heir], np.uint64(0)) if len(self.ids_b) else np.zeros(len(ids), np.uint64)


def compare_objects(
    a: Revision, b: Revision, history: pa.Table, sides: tuple[Supervoxels, Supervoxels], why: Attribution
) -> Objects:
    """Groups of objects that are not the same, from `object_history(a, b, ...)` and the evidence of both sides."""
    objects = [read(r, "agglomerate", "object", ["object", "size_vx", *BOX]).sort_by("object") for r in (a, b)]
    ids_a, ids_b = (t["object"].to_numpy() for t in objects)
    counted = history.filter(pc.field("counts"))
    x, y = positions(ids_a, counted["object_a"].to_numpy()), positions(ids_b, counted["object_b"].to_numpy())
    group_a, group_b, n = _groups(history, ids_a, ids_b, x, y)
    about = _describe(objects, (group_a, group_b), n, history)
    reasons = _reasons(a, b, (ids_a, ids_b), (group_a, group_b), about.kind == "renamed", sides, why)
    table = _table(objects, (group_a, group_b), n, about, reasons, why)
    return Objects(ids_a, ids_b, group_a, group_b, _one_heir(history, ids_a, ids_b), reasons, table)


def _groups(history: pa.Table, ids_a: U64, ids_b: U64, x: I64, y: I64) -> tuple[I64, I64, int]:
    """The group of each object, numbered from 0; -1 for an object that is the same in both revisions."""
    na, nb = len(ids_a), len(ids_b)
    links = coo_array((np.ones(len(x), np.int8), (x, y + na)), shape=(na + nb, na + nb))
    _, group = connected_components(links, directed=False)
    same = history.filter(pc.field("relation") == "same")["object_a"].to_numpy()
    unchanged = np.zeros(int(group.max(initial=-1)) + 1, dtype=bool)
    unchanged[group[positions(ids_a, same)]] = True
    number = np.where(unchanged, -1, np.cumsum(~unchanged) - 1)
    renumbered = number[group]
    return renumbered[:na], renumbered[na:], int((~unchanged).sum())


def _one_heir(history: pa.Table, ids_a: U64, ids_b: U64) -> I64:
    """Of objects that have one heir, the one that shares the most voxels with it (of equals the lower) keeps it."""
    rows = history.filter(pc.field("heir"))
    x, y = positions(ids_a, rows["object_a"].to_numpy()), positions(ids_b, rows["object_b"].to_numpy())
    order = np.lexsort((x, -rows["overlap_vx"].to_numpy(), y))
    first = order[np.diff(y[order], prepend=-1) > 0]
    heir = np.full(len(ids_a), -1, dtype=np.int64)
    heir[x[first]] = y[first]
    return heir


def _reasons(
    a: Revision, b: Revision, ids: tuple[U64, U64], groups: tuple[I64, I64], renamed: Mask,
    sides: tuple[Supervoxels, Supervoxels], why: Attribution,
) -> Reasons:  # fmt: skip
    """The causes of each group; `renamed` marks groups of one object that has another name and nothing else."""
    n = len(renamed)
    members = [_members(r, side, known) for r, side, known in zip((a, b), sides, ids, strict=True)]
    rows = np.concatenate([g[m] for g, m in zip(groups, members, strict=True)])
    inside = rows >= 0
    local, voxels, names = (
        why.sets.gather(rows[inside], np.concatenate([getattr(s, of) for s in sides])[inside], n)
        for of in ("near", "own", "called")
    )
    local = np.where(renamed, why.sets.union(voxels, names), local)
    own = why.sets.union_all(np.concatenate([why.stages[s].own for s in ONCE]))
    evidence = local != NOTHING
    itself = (own != NOTHING) & ~(renamed & evidence)  # an object is named by its supervoxels
    decided = ~(evidence & itself)
    trial = None if decided.all() else try_parameters(a, b, why)
    if trial is not None:
        found = _judge(trial, ids, groups, n, sides, members, evidence, voxels != NOTHING)
        evidence, itself, decided = (
            np.where(renamed, x, y) for x, y in zip((evidence, itself, decided), found, strict=True)
        )
    local = np.where(evidence, local, NOTHING)
    causes = why.sets.union(local, np.where(itself, own, NOTHING))
    indirect = causes == NOTHING
    causes = np.where(indirect, why.sets.union_all(why.stages["agglomerate"].total), causes)
    certain = decided & (why.sets.sizes(local) <= 1) & ~indirect
    return Reasons(causes, certain, indirect)


def _members(revision: Revision, side: Supervoxels, objects: U64) -> I64:
    """Row of the object of each supervoxel."""
    member = read(revision, "agglomerate", "member", ["supervoxel", "object"]).sort_by("supervoxel")
    at = positions(member["supervoxel"].to_numpy(), side.ids)
    return positions(objects, member["object"].to_numpy()[at])


def _judge(
    trial: Trial, ids: tuple[U64, U64], groups: tuple[I64, I64], n: int,
    sides: tuple[Supervoxels, Supervoxels], members: list[I64], evidence: Mask, voxels: Mask,
) -> tuple[Mask, Mask, Mask]:  # fmt: skip
    """Per group: the evidence took part, the parameters took part, and this is decided.

    New evidence with old parameters gives what is there now: the parameters were not needed. Old evidence with new
    parameters does: the evidence was not needed. Where neither was needed, either would have done: not decided.
    """
    needed = _group_any(trial.differs(1, ids[1][members[1]]), groups[1][members[1]], n)
    gone = np.bincount(groups[1][groups[1] >= 0], minlength=n) == 0
    needed |= gone & _group_any(trial.differs(0, ids[0][members[0]]), groups[0][members[0]], n)
    # Old evidence can be compared with what is there now only where the supervoxels are the same.
    alone = ~voxels & ~_group_any(_now_apart(trial, sides, ids[1][members[1]]), groups[1][members[1]], n)
    alone &= evidence
    return evidence & ~(alone & needed), needed | alone, needed | ~alone


def _now_apart(trial: Trial, sides: tuple[Supervoxels, Supervoxels], object_b: U64) -> Mask:
    """Per supervoxel of b: with the old evidence and the new parameters it would lie in other company than it does."""
    a, b = sides
    order = np.argsort(a.thing)
    at = np.minimum(np.searchsorted(a.thing[order], b.thing), max(0, len(order) - 1))
    row = order[at] if len(order) else np.zeros(len(b.thing), np.int64)
    same = (a.thing[row] == b.thing) if len(order) else np.zeros(len(b.thing), bool)
    tried = np.where(same, trial.old_evidence[row] if len(order) else 0, 0).astype(np.uint64)
    other = ~same | _apart(tried, object_b)
    # A group of the trial may hold supervoxels that b has no more.
    whole, now = np.unique(trial.old_evidence, return_counts=True), np.unique(tried[same], return_counts=True)
    lost = whole[1][positions(whole[0], now[0])] != now[1]
    other[np.isin(tried, now[0][lost])] = True
    return _spread(other, object_b)


def _apart(x: U64, y: U64) -> Mask:
    """Elements whose label in one partition meets several labels of the other."""
    _, i, times = np.unique(np.stack([x, y], axis=1), axis=0, return_inverse=True, return_counts=True)
    together = times[i.ravel()]
    sizes = [np.unique(v, return_inverse=True, return_counts=True) for v in (x, y)]
    return np.asarray((together != sizes[0][2][sizes[0][1]]) | (together != sizes[1][2][sizes[1][1]]))


def _spread(marked: Mask, label: U64) -> Mask:
    """Marked where any element of the same label is."""
    return np.isin(label, np.unique(label[marked]))


def _group_any(marked: Mask, group: I64, n: int) -> Mask:
    return np.bincount(group[marked & (group >= 0)], minlength=n) > 0


@dataclass(frozen=True)
class _Groups:
    """Per group: its kind, its voxels in either revision, and those that are in it in both."""

    kind: npt.NDArray[np.str_]
    sizes: list[I64]
    shared: I64


def _describe(objects: list[pa.Table], groups: tuple[I64, I64], n: int, history: pa.Table) -> _Groups:
    counts = [np.bincount(g[g >= 0], minlength=n) for g in groups]
    sizes = [_total(t["size_vx"].to_numpy(), g, n) for t, g in zip(objects, groups, strict=True)]
    pairs = history.filter(pc.is_valid(pc.field("object_a")) & pc.is_valid(pc.field("object_b")))
    ga = groups[0][positions(objects[0]["object"].to_numpy(), pairs["object_a"].to_numpy())]
    gb = groups[1][positions(objects[1]["object"].to_numpy(), pairs["object_b"].to_numpy())]
    shared = _total(pairs["overlap_vx"].to_numpy(), np.where(ga == gb, ga, -1), n)
    kind = np.select(
        [counts[0] == 0, counts[1] == 0, (counts[0] == 1) & (counts[1] > 1), (counts[0] > 1) & (counts[1] == 1),
         (counts[0] > 1) & (counts[1] > 1), (shared == sizes[0]) & (shared == sizes[1])],
        ["appeared", "vanished", "split", "merged", "mixed", "renamed"], "changed",
    )  # fmt: skip
    return _Groups(kind, sizes, shared)


def _table(
    objects: list[pa.Table], groups: tuple[I64, I64], n: int, about: _Groups, reasons: Reasons, why: Attribution
) -> pa.Table:
    low = np.full((n, 3), np.iinfo(np.int64).max)
    high = np.full((n, 3), np.iinfo(np.int64).min)
    for table, group in zip(objects, groups, strict=True):
        box = np.stack([table[c].to_numpy().astype(np.int64) for c in BOX], axis=1).reshape(-1, 6)[group >= 0]
        np.minimum.at(low, group[group >= 0], box[:, :3])
        np.maximum.at(high, group[group >= 0], box[:, 3:])
    return pa.table(
        {
            "change": pa.array(np.arange(n), pa.int64()),
            "kind": pa.array(about.kind.tolist(), pa.string()),
            "objects_a": _lists(objects[0]["object"].to_numpy(), groups[0], n),
            "objects_b": _lists(objects[1]["object"].to_numpy(), groups[1], n),
            "size_a_vx": about.sizes[0],
            "size_b_vx": about.sizes[1],
            "shared_vx": about.shared,
            **dict(zip(BOX, np.concatenate([low, high], axis=1).T, strict=True)),
            "causes": why.sets.lists(reasons.causes),
            "certain": reasons.certain,
            "indirect": reasons.indirect,
        }
    )


def _total(values: I64, group: I64, n: int) -> I64:
    out = np.zeros(n, dtype=np.int64)
    np.add.at(out, group[group >= 0], values[group >= 0])
    return out


def _lists(ids: U64, group: I64, n: int) -> pa.ListArray:
    """The ids of each group, ascending."""
    kept = group >= 0
    order = np.lexsort((ids[kept], group[kept]))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(group[kept], minlength=n))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids[kept][order], pa.uint64()))
