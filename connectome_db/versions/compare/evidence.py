"""What agglomeration went by, supervoxel by supervoxel, and where it differs between two revisions.

Objects are made of supervoxels, accepted overlaps (`reconcile`), contacts and, in a pipeline with a flood-filling
network, pairs that were filled once more (`agglomerate`). Each supervoxel holds the causes of all of these that touch
it and differ: its own voxels, overlaps that are accepted in one revision only, contacts with another area or affinity,
and pairs of which the fillings have other shares. Supervoxels with equal voxels are one, whatever they are called, so a
new name alone is no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import RevisionError
from connectome_db.query.compare.causes import Attribution
from connectome_db.query.compare.causesets import NOTHING
from connectome_db.query.compare.changes import positions
from connectome_db.revisions import Revision
from connectome_db.versions.identity.overlaps import read_table

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

AFFINITIES = ("segment.affinity_z", "segment.affinity_y", "segment.affinity_x")
APRON = "segment.apron"


@dataclass(frozen=True)
class Supervoxels:
    """Supervoxels of one revision, ascending by id, as far as they matter to a comparison.

    `thing` numbers them across both revisions: equal voxels, equal number. `own` is the set of causes of a supervoxel
    whose voxels differ (empty for the others), `near` that of all evidence that touches it and differs, and `called`
    that of a supervoxel which has the same voxels under another id.
    """

    ids: U64
    thing: I64
    own: I64
    near: I64
    called: I64

    def at(self, ids: U64) -> I64:
        """Rows of supervoxel ids; -1 for unknown ones."""
        return positions(self.ids, ids)


def read(revision: Revision, stage: str, table: str, columns: list[str], units: U64 | None = None) -> pa.Table:
    """Columns of a table, of all or some of its units. Raises RevisionError when it cannot be read."""
    if units is None:
        return read_table(revision, stage, table, columns)
    path = revision.root / "data" / stage / f"{table}.parquet"
    try:
        return pq.read_table(path, columns=columns, filters=pc.field("unit").isin(pa.array(units, pa.uint64())))
    except (OSError, pa.ArrowInvalid) as e:
        raise RevisionError(f"table {table} of stage {stage} at {revision.name} cannot be read: {e}") from e


def find_evidence(a: Revision, b: Revision, overlap: pa.Table, why: Attribution) -> tuple[Supervoxels, Supervoxels]:
    """The supervoxels of both revisions; `overlap` is `supervoxel_overlap(a, b)`."""
    tables = [read(r, "segment", "supervoxel", ["unit", "supervoxel", "size_vx"]).sort_by("supervoxel") for r in (a, b)]
    ids = [t["supervoxel"].to_numpy() for t in tables]
    same_a, same_b = _equal(overlap, *tables)
    thing_a, thing_b = np.arange(len(ids[0])), np.arange(len(ids[1])) + len(ids[0])
    thing_b[same_b] = same_a
    own, called = [], []
    for table, same, other in zip(tables, (same_a, same_b), (ids[1][same_b], ids[0][same_a]), strict=True):
        causes = why.stages["segment"].of(table["unit"].to_numpy())
        differs, renamed = np.ones(table.num_rows, dtype=bool), np.zeros(table.num_rows, dtype=bool)
        differs[same] = False
        renamed[same] = table["supervoxel"].to_numpy()[same] != other
        own.append(np.where(differs, causes, NOTHING))
        called.append(np.where(renamed, causes, NOTHING))
    sides = [Supervoxels(*columns) for columns in zip(ids, (thing_a, thing_b), own, own, called, strict=True)]
    contacts = _touching(a, b, sides, why, "score", "contact", ["area_nm2", "affinity"], AFFINITIES)
    accepted = _touching(a, b, sides, why, "overlap", "overlap", ["accepted"], (APRON,))
    near = [why.sets.union(why.sets.union(s.own, c), o) for s, c, o in zip(sides, contacts, accepted, strict=True)]
    if all((r.root / "data" / "resegment").is_dir() for r in (a, b)):
        shares = ["a_own", "a_other", "b_own", "b_other"]
        again = _touching(a, b, sides, why, "resegment", "resegmentation", shares, ("render.image", "mask.mask"))
        near = [why.sets.union(n, r) for n, r in zip(near, again, strict=True)]
    return replace(sides[0], near=near[0]), replace(sides[1], near=near[1])


def _equal(overlap: pa.Table, a: pa.Table, b: pa.Table) -> tuple[I64, I64]:
    """Rows of supervoxels of `a` and of `b` that have exactly the same voxels, paired."""
    real = overlap.filter((pc.field("a") != 0) & (pc.field("b") != 0))
    at = [positions(t["supervoxel"].to_numpy(), real[n].to_numpy()) for t, n in ((a, "a"), (b, "b"))]
    if len(at[0]) == 0:
        return at[0], at[1]
    voxels = real["voxels"].to_numpy()
    equal = (voxels == a["size_vx"].to_numpy()[at[0]]) & (voxels == b["size_vx"].to_numpy()[at[1]])
    return at[0][equal], at[1][equal]


def _touching(
    a: Revision, b: Revision, sides: list[Supervoxels], why: Attribution,
    stage: str, table: str, values: list[str], inputs: tuple[str, ...],
) -> list[I64]:  # fmt: skip
    """For the supervoxels of both sides, the causes of the pairs of `table` that touch them and differ.

    A pair differs for what differs in its two supervoxels, for what differs in the stage itself, and for what comes by
    `inputs`, which hold what the voxels of the two do not say.
    """
    made = why.stages[stage]
    units = made.change.differing(table)
    rows = [_pairs(r, s, stage, table, values, units) for r, s in zip((a, b), sides, strict=True)]
    unmatched = _unmatched([k for k, _, _ in rows], [v for _, v, _ in rows])
    by_input = why.through(stage, *inputs)
    found = []
    for side, (keys, _, ends), odd in zip(sides, rows, unmatched, strict=True):
        unit = keys[odd, 0].astype(np.uint64)
        causes = why.sets.union(made.of(unit, made.own), made.of(unit, by_input))
        for end in (ends[0][odd], ends[1][odd]):
            causes = why.sets.union(causes, side.own[end])
        causes = np.where(causes == NOTHING, made.of(unit), causes)
        both = np.concatenate([ends[0][odd], ends[1][odd]])
        found.append(why.sets.gather(both, np.tile(causes, 2), len(side.ids)))
    return found


def _pairs(
    revision: Revision, side: Supervoxels, stage: str, table: str, values: list[str], units: U64
) -> tuple[I64, npt.NDArray[np.float64], tuple[I64, I64]]:
    """Pairs of some units: keys (unit, lower thing, higher thing), their values, and rows of their two supervoxels."""
    rows = read(revision, stage, table, ["unit", "a", "b", *values], units)
    if "accepted" in values:
        rows = rows.filter(pc.field("accepted"))
    ends = side.at(rows["a"].to_numpy()), side.at(rows["b"].to_numpy())
    if rows.num_rows and min(ends[0].min(), ends[1].min()) < 0:
        raise RevisionError(
            f"table {table} at {revision.name} names supervoxels that its segmentation does not have; "
            "run `dvc repro` there, or choose a revision at which all was run"
        )
    things = np.stack([side.thing[e] for e in ends], axis=1)
    keys = np.column_stack([rows["unit"].to_numpy().astype(np.int64), things.min(axis=1), things.max(axis=1)])
    held = [pc.cast(rows[v], pa.float64()).to_numpy() for v in values]
    return keys.reshape(-1, 3), np.column_stack(held).reshape(-1, len(values)), ends


def _unmatched(keys: list[I64], values: list[npt.NDArray[np.float64]]) -> tuple[Mask, Mask]:
    """Rows of either side that have no row with equal key and equal values on the other."""
    both = np.concatenate(keys)
    _, number = np.unique(both, axis=0, return_inverse=True)
    x, y = number.ravel()[: len(keys[0])], number.ravel()[len(keys[0]) :]
    odd = np.ones(len(x), dtype=bool), np.ones(len(y), dtype=bool)
    _, at_x, at_y = np.intersect1d(x, y, return_indices=True)
    equal = (values[0][at_x] == values[1][at_y]).all(axis=1)
    odd[0][at_x[equal]] = False
    odd[1][at_y[equal]] = False
    return odd
