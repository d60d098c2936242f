"""The life of one object: which objects hold its voxels at other revisions, and how they follow from one another.

    at v1      at v2            at v3
    A ───────▶ A  ────────────▶ A   85 % of the object's voxels
               └──────────────▶ B   15 %

What belongs to the life at a revision is told by comparing that revision with the object itself, so that a long list
of revisions neither gathers up what its neighbours were made of nor loses what came back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import QueryError, nearest
from connectome_db.revisions import Revision
from connectome_db.versions.identity.facts import Known, nearest_facts
from connectome_db.versions.identity.history import COUNTS_VX, SCHEMA, object_history
from connectome_db.versions.identity.overlaps import Progress, supervoxel_overlap

LINKS = pa.schema(
    [
        pa.field("revision_a", pa.string(), nullable=False),
        pa.field("revision_b", pa.string(), nullable=False),
        *SCHEMA,
        pa.field("share", pa.float64(), nullable=False),
    ]
)


_BLANK = {pa.string(): "none", pa.bool_(): False}


@dataclass(frozen=True)
class Life:
    """The life of `object`, an object of `size_vx` voxels at revision number `at` of `revisions` (oldest first)."""

    object: int
    size_vx: int
    at: int
    revisions: tuple[str, ...]
    shares: tuple[dict[int, float], ...]
    """Per revision: the objects of the life, the largest first, and the part of the object's voxels in each."""
    steps: tuple[pa.Table, ...]
    """Between each revision and the next: links between objects of the life; see `links`."""

    @property
    def links(self) -> pa.Table:
        """All links: the columns of `object_history`, with the revisions in front and `share` at the end.

        `share` is the part of the object's voxels that lie in that of the two which is farther from `at`. Where no
        object of the life follows, object_b is null; where none leads to an object, object_a is, and relation is none.
        """
        return pa.concat_tables([LINKS.empty_table(), *self.steps])


def life_of(revisions: Sequence[Revision], obj: int, at: str | None = None, progress: Progress | None = None) -> Life:
    """Follow the object `obj` of the revision called `at` (default: the first that has it) through `revisions`.

    Raises QueryError when it is no object there, with what it is instead.
    """
    home = _home(revisions, obj, at)
    shares, size = [], 0
    for k in range(len(revisions)):
        (a, b), side, other = ((home, k), "a", "b") if k >= home else ((k, home), "b", "a")
        history = _history(revisions[a], revisions[b], progress)
        mine = history.filter(pc.equal(history[f"object_{side}"], pa.scalar(obj, pa.uint64())))
        size = mine[f"size_{side}_vx"][0].as_py()
        rows = mine.select([f"object_{other}", f"fraction_{side}", "overlap_vx", "counts"]).to_pylist()
        rows.sort(key=lambda r: -r["overlap_vx"])
        most = rows[0]["overlap_vx"]
        kept = [r for r in rows if r["counts"] and (r["overlap_vx"] >= COUNTS_VX or r["overlap_vx"] == most)]
        shares.append({r[f"object_{other}"]: r[f"fraction_{side}"] for r in kept})
    steps = [_links(revisions[k], revisions[k + 1], shares[k : k + 2], k < home) for k in range(len(revisions) - 1)]
    return Life(obj, size, home, tuple(r.name for r in revisions), tuple(shares), tuple(steps))


def _home(revisions: Sequence[Revision], obj: int, at: str | None) -> int:
    """Which revision the object is looked up at."""
    names = [r.name for r in revisions]
    if at is not None and at not in names:
        raise QueryError(f"{at!r} is not among the revisions to look at{nearest(at, names)}")
    one = np.asarray([obj], np.uint64)
    asked = range(len(names)) if at is None else [names.index(at)]
    for k in asked:
        if Known(revisions[k]).has("object", one)[0]:
            return k
    last = Known(revisions[asked[-1]])
    facts = nearest_facts(one, "object", last, last)[obj]
    raise QueryError(f"no object {obj} at {', '.join(names[k] for k in asked)}: {facts}")


def _history(a: Revision, b: Revision, progress: Progress | None) -> pa.Table:
    return object_history(a, b, supervoxel_overlap(a, b, progress))


def _links(a: Revision, b: Revision, shares: Sequence[dict[int, float]], before: bool) -> pa.Table:
    """Links of two neighbouring revisions between objects of the life."""
    history = _history(a, b, None)
    here = [pa.array(sorted(s), pa.uint64()) for s in shares]
    from_life, to_life = pc.is_in(history["object_a"], here[0]), pc.is_in(history["object_b"], here[1])
    counting = pc.and_(pc.and_(from_life, to_life), history["counts"])
    gone = pc.and_(from_life, pc.is_null(history["object_b"]))
    rows = history.filter(pc.or_(counting, gone)).to_pylist()
    far, other = (0, "object_a") if before else (1, "object_b")
    blank = {f.name: None if f.nullable else _BLANK.get(f.type, 0) for f in SCHEMA}
    rows += [{**blank, other: i} for i in sorted(shares[far].keys() - {r[other] for r in rows})]
    for r in rows:
        r |= {"revision_a": a.name, "revision_b": b.name, "share": shares[far].get(r[other], 0.0)}
    return pa.Table.from_pylist(rows, schema=LINKS)
