"""What became of every object from one revision to another.

Two objects are linked when they share voxels. A link *counts* when it holds at least 1 % of the smaller of the two
objects and at least 100 voxels, so that a face that moved by a voxel, or dust that changed hands, splits and merges
nothing. An object none of whose links counts still counts the one that holds at least half of it: dust goes somewhere.

    same      all voxels equal, same id          split     its voxels count in several objects
    renamed   all voxels equal, other id         merged    its object holds another object that counts, too
    changed   one heir, some voxels differ       mixed     both
    vanished  no link of it counts               appeared  an object of the later revision none of whose links counts

The heir of an object carries its identity on: of its links that count the one with the most voxels. Of overlaps that
are close to the most (at least 80 % of it), those whose own main source is this object go first, then larger ones,
then lower ids. The heir is ambiguous when another link is that close, or when it holds as much or more of another
object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.errors import RevisionError
from connectome_db.kernels.union_find import locate
from connectome_db.revisions import Revision
from connectome_db.versions.identity.overlaps import read_table

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

COUNTS_FRACTION = 0.01
"""A link that counts holds at least this part of the smaller object."""
COUNTS_VX = 100
"""A link that counts holds at least so many voxels."""
CLOSE = 0.8
"""An overlap is close to another when it is at least this part of it."""

RELATIONS = ("same", "renamed", "changed", "split", "merged", "mixed", "vanished", "appeared")
SAME, RENAMED, CHANGED, SPLIT, MERGED, MIXED, VANISHED, APPEARED = range(len(RELATIONS))

SCHEMA = pa.schema(
    [
        pa.field("object_a", pa.uint64()),
        pa.field("object_b", pa.uint64()),
        *(pa.field(n, pa.int64(), nullable=False) for n in ("overlap_vx", "size_a_vx", "size_b_vx")),
        *(pa.field(n, pa.float64(), nullable=False) for n in ("fraction_a", "fraction_b")),
        pa.field("relation", pa.string(), nullable=False),
        *(pa.field(n, pa.bool_(), nullable=False) for n in ("heir", "ambiguous", "counts")),
    ]
)


@dataclass(frozen=True)
class Sizes:
    """Labels, ascending, and their voxels."""

    ids: U64
    size_vx: I64


def object_history(a: Revision, b: Revision, overlap: pa.Table) -> pa.Table:
    """Objects of revision `a` beside the objects of `b` that share voxels with them, one row per pair.

    `overlap` is `supervoxel_overlap(a, b)`. Columns: object_a, object_b; overlap_vx, size_a_vx, size_b_vx; fraction_a
    and fraction_b (the overlap over either size); relation, of object_a; heir, true on at most one row per object_a;
    ambiguous, true on all rows of an object_a whose heir is; counts, of the link. An object that vanished has a row
    without object_b, one that appeared a row without object_a (fractions 0), beside rows for links that do not count.
    Sorted by object_a, most voxels first, then by object_b; what appeared comes last. Raises RevisionError when a
    revision has no objects, or has them for another segmentation than its own.
    """
    (objects_a, of_a), (objects_b, of_b) = _objects(a), _objects(b)
    return relate(objects_a, objects_b, *_lifted(of_a, of_b, overlap))


def supervoxel_history(a: Revision, b: Revision, overlap: pa.Table) -> pa.Table:
    """As `object_history`, for supervoxels: object_a and object_b are supervoxels of either revision."""
    sizes = _supervoxel_sizes(a), _supervoxel_sizes(b)
    x, y, voxels = _columns(overlap)
    real = (x != 0) & (y != 0)
    return relate(*sizes, x[real], y[real], voxels[real])


def relate(a: Sizes, b: Sizes, x: U64, y: U64, voxels: I64) -> pa.Table:
    """What became of the labels `a`, of which x[i] shares voxels[i] with the label y[i] of `b`, as `object_history`.

    Pairs may occur more than once. Labels are named in `a` and `b`, else KeyError.
    """
    links = _links(a, b, locate(a.ids, x, "label"), locate(b.ids, y, "label"), voxels)
    strong = (links.voxels >= COUNTS_VX) & (links.voxels >= COUNTS_FRACTION * np.minimum(links.size_a, links.size_b))
    own = strong | _only_hold(links.a, links.voxels, links.size_a, strong, len(a.ids))
    theirs = strong | _only_hold(links.b, links.voxels, links.size_b, strong, len(b.ids))
    relation = _relations(a, b, links, strong, own)
    heir, ambiguous = _heirs(links, own, len(a.ids), len(b.ids))
    gone = np.flatnonzero(np.bincount(links.a[own], minlength=len(a.ids)) == 0)
    new = np.flatnonzero(np.bincount(links.b[theirs], minlength=len(b.ids)) == 0)
    pairs = pa.table(
        [
            pa.array(a.ids[links.a]),
            pa.array(b.ids[links.b]),
            *(pa.array(v) for v in (links.voxels, links.size_a, links.size_b)),
            *(pa.array(links.voxels / np.maximum(size, 1)) for size in (links.size_a, links.size_b)),
            pa.array(RELATIONS).take(pa.array(relation[links.a])),
            *(pa.array(v) for v in (heir, ambiguous[links.a], own | theirs)),
        ],
        schema=SCHEMA,
    )
    alone = _alone(a.ids[gone], a.size_vx[gone], VANISHED), _alone(b.ids[new], b.size_vx[new], APPEARED)
    return _sorted(pa.concat_tables([pairs, *alone]))


def count_relations(history: pa.Table) -> dict[str, int]:
    """How many objects have each relation, in the order of RELATIONS; those that have none are left out."""
    rows = history.group_by("relation").aggregate([("object_a", "count_distinct"), ([], "count_all")]).to_pylist()
    found = {r["relation"]: r["object_a_count_distinct"] or r["count_all"] for r in rows}
    return {name: found[name] for name in RELATIONS if name in found}


@dataclass(frozen=True)
class _Links:
    """Pairs of labels that share voxels, each once, by (a, b): places in the tables of labels, not ids."""

    a: I64
    b: I64
    voxels: I64
    size_a: I64
    size_b: I64


def _links(a: Sizes, b: Sizes, x: I64, y: I64, voxels: I64) -> _Links:
    pairs, where = np.unique(x * max(1, len(b.ids)) + y, return_inverse=True)
    total = np.zeros(len(pairs), np.int64)
    np.add.at(total, where, voxels)
    first, second = pairs // max(1, len(b.ids)), pairs % max(1, len(b.ids))
    return _Links(first, second, total, a.size_vx[first], b.size_vx[second])


def _only_hold(label: I64, voxels: I64, size: I64, strong: Mask, n: int) -> Mask:
    """Of labels without a strong link, the link that holds at least half of the label (the first of two)."""
    weak = np.bincount(label[strong], minlength=n)[label] == 0
    found = weak & (2 * voxels >= size)
    _, first = np.unique(label[found], return_index=True)
    chosen = np.zeros(len(label), np.bool_)
    chosen[np.flatnonzero(found)[first]] = True
    return chosen


def _relations(a: Sizes, b: Sizes, links: _Links, strong: Mask, own: Mask) -> I64:
    """The relation of each label of `a`, as a place in RELATIONS."""
    n = len(a.ids)
    parts = np.bincount(links.a[own], minlength=n)
    sources = np.bincount(links.b[strong], minlength=len(b.ids))
    shared = own & (sources[links.b] - strong > 0)
    joined = np.bincount(links.a[shared], minlength=n) > 0
    relation = np.where(parts > 1, np.where(joined, MIXED, SPLIT), np.where(joined, MERGED, CHANGED))
    relation[parts == 0] = VANISHED
    equal = (links.voxels == links.size_a) & (links.voxels == links.size_b)
    same = equal & (a.ids[links.a] == b.ids[links.b])
    relation[links.a[equal]] = RENAMED
    relation[links.a[same]] = SAME
    return relation


def _heirs(links: _Links, own: Mask, na: int, nb: int) -> tuple[Mask, Mask]:
    """(per link: it is the heir; per label of a: its heir is ambiguous)."""
    most, main = _most(links.a, links.voxels, na, own), _main_source(links, nb)
    close = own & (links.voxels >= CLOSE * most[links.a])
    mutual = main[links.b] == links.a
    # The first of each label after sorting is the heir.
    order = np.lexsort((links.b, -links.voxels, ~mutual, ~close, ~own, links.a))
    first = np.flatnonzero(np.diff(links.a[order], prepend=-1) > 0)
    chosen = order[first]
    chosen = chosen[own[chosen]]
    heir = np.zeros(len(links.a), np.bool_)
    heir[chosen] = True
    contested = np.bincount(links.a[close], minlength=na) > 1
    # What others hold of the heir: its largest link, or the second largest where the largest is this one.
    others = _most_of_others(links, nb)
    contested[links.a[chosen]] |= others[chosen] >= links.voxels[chosen]
    return heir, contested


def _most(label: I64, voxels: I64, n: int, where: Mask) -> I64:
    most = np.zeros(n, np.int64)
    np.maximum.at(most, label[where], voxels[where])
    return most


def _main_source(links: _Links, nb: int) -> I64:
    """Per label of b, the label of a that it shares the most voxels with (the lowest of equals); -1 for none."""
    order = np.lexsort((links.a, -links.voxels, links.b))
    first = order[np.diff(links.b[order], prepend=-1) > 0]
    main = np.full(nb, -1, np.int64)
    main[links.b[first]] = links.a[first]
    return main


def _most_of_others(links: _Links, nb: int) -> I64:
    """Per link, the voxels of the largest other link of the same label of b; 0 when there is none."""
    order = np.lexsort((-links.voxels, links.b))
    start = np.flatnonzero(np.diff(links.b[order], prepend=-1) > 0)
    largest = np.zeros(nb, np.int64)
    second = np.zeros(nb, np.int64)
    largest[links.b[order[start]]] = links.voxels[order[start]]
    next_ = start[start + 1 < np.append(start[1:], len(order))] + 1
    second[links.b[order[next_]]] = links.voxels[order[next_]]
    is_first = np.zeros(len(order), np.bool_)
    is_first[order[start]] = True
    return np.where(is_first, second[links.b], largest[links.b])


def _alone(ids: U64, size: I64, relation: int) -> pa.Table:
    """Rows of labels that have nothing on the other side."""
    n = len(ids)
    gone = relation == VANISHED
    nothing, zeros, no = pa.nulls(n, pa.uint64()), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    return pa.table(
        [
            pa.array(ids) if gone else nothing,
            nothing if gone else pa.array(ids),
            *(pa.array(v) for v in (zeros, size if gone else zeros, zeros if gone else size)),
            *(pa.array(zeros.astype(np.float64)) for _ in range(2)),
            pa.array([RELATIONS[relation]] * n, pa.string()),
            *(pa.array(no) for _ in range(3)),
        ],
        schema=SCHEMA,
    )


def _sorted(table: pa.Table) -> pa.Table:
    keys = [("object_a", "ascending"), ("overlap_vx", "descending"), ("object_b", "ascending")]
    return table.combine_chunks().sort_by(keys).combine_chunks()


def _columns(overlap: pa.Table) -> tuple[U64, U64, I64]:
    return overlap["a"].to_numpy(), overlap["b"].to_numpy(), overlap["voxels"].to_numpy()


def _lifted(of_a: pa.Table, of_b: pa.Table, overlap: pa.Table) -> tuple[U64, U64, I64]:
    """Overlaps of supervoxels -> (object of a, object of b, voxels), background left out."""
    x, y, voxels = _columns(overlap)
    real = (x != 0) & (y != 0)
    return _body(of_a, x[real]), _body(of_b, y[real]), voxels[real]


def _body(member: pa.Table, supervoxels: U64) -> U64:
    """The object of each supervoxel."""
    at = locate(member["supervoxel"].to_numpy(), supervoxels, "supervoxel")
    return np.asarray(member["object"].to_numpy()[at], np.uint64)


def _objects(revision: Revision) -> tuple[Sizes, pa.Table]:
    """(objects and their sizes, the object of each supervoxel, ascending) of a revision."""
    read = revision.record("agglomerate")["inputs"]["segment.supervoxel"]
    if read != revision.record("segment")["outputs"]["supervoxel"]:
        raise RevisionError(
            f"stage agglomerate at {revision.name} is for another segmentation than the one beside it. "
            "Run `dvc repro agglomerate`, or choose a revision at which all was run"
        )
    objects = read_table(revision, "agglomerate", "object", ["object", "size_vx"]).sort_by("object")
    member = read_table(revision, "agglomerate", "member", ["supervoxel", "object"]).sort_by("supervoxel")
    return Sizes(objects["object"].to_numpy(), objects["size_vx"].to_numpy()), member


def _supervoxel_sizes(revision: Revision) -> Sizes:
    table = read_table(revision, "segment", "supervoxel", ["supervoxel", "size_vx"]).sort_by("supervoxel")
    return Sizes(table["supervoxel"].to_numpy(), table["size_vx"].to_numpy())
