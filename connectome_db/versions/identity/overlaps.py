"""Which supervoxels of two revisions lie on the same voxels.

    unit of A ── same box, same content digest ── unit of B      (id, id, size_vx), from the supervoxel table
    unit of A ── anything else ───────────────── units of B      voxels of the two are read and counted

Work grows with what differs between the revisions, not with the volume. The result is a pure function of two segment
outputs, so it is kept in `.connectome/overlaps/` under their digests; that folder may be deleted at any time.

Voxels are compared at equal positions (z, y, x) of the two volumes. Where a new alignment has moved the tissue, they
are not the same tissue, and this says so: few supervoxels will match.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fastremap
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import RevisionError
from connectome_db.geometry import Box, box_of
from connectome_db.kernels.overlaps import overlaps
from connectome_db.provenance import Digests, digest, from_hex, touching
from connectome_db.revisions import Revision

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with the number of block pairs that are counted, and how many there are."""

STAGE, VOLUME = "segment", "supervoxels"
FORMAT = 1
"""Of the tables in the cache; goes into their names."""
SCHEMA = pa.schema([pa.field(n, t, nullable=False) for n, t in (("a", pa.uint64()), ("b", pa.uint64()))]).append(
    pa.field("voxels", pa.int64(), nullable=False)
)
_KEPT_BYTES = 1 << 28
_AXES = ("z0", "y0", "x0", "z1", "y1", "x1")


def supervoxel_overlap(a: Revision, b: Revision, progress: Progress | None = None, *, cache: bool = True) -> pa.Table:
    """Voxels that each pair of supervoxels shares: columns a, b (uint64), voxels (int64), sorted by (a, b).

    0 stands for background and for what lies outside the other volume; no row has 0 on both sides. For every
    supervoxel the rows add up to its size. Raises RevisionError when a revision has no segmentation, or when the two
    have voxels of different sizes.
    """
    path = _cache_path(a, b)
    if cache and (found := _cached(path)) is not None:
        return found
    table = count_overlap(a, b, progress)
    if cache:
        with contextlib.suppress(OSError):  # a project that may only be read, a full disk: it is counted again
            _keep(table, path)
    return table


def count_overlap(a: Revision, b: Revision, progress: Progress | None = None) -> pa.Table:
    """As `supervoxel_overlap`, without looking at what was counted before."""
    _comparable(a, b)
    units_a, units_b = blocks_of(a), blocks_of(b)
    same_a, same_b = _equal_units(units_a, units_b)
    table_a, table_b = (read_table(r, STAGE, "supervoxel", ["unit", "supervoxel", "size_vx"]) for r in (a, b))
    kept = table_a.filter(pc.is_in(table_a["unit"], pa.array(units_a.codes[same_a])))
    whole: U64 = kept["supervoxel"].to_numpy()
    left = _changed(table_a, units_a.codes[same_a]), _changed(table_b, units_b.codes[same_b])
    x, y, voxels = _count(a, b, units_a.boxes[~same_a], units_b.boxes[~same_b], progress)
    rest_a, rest_b = _rest(*left[0], x, voxels, a), _rest(*left[1], y, voxels, b)
    columns = (
        np.concatenate([whole, x, rest_a[0], np.zeros(len(rest_b[0]), np.uint64)]),
        np.concatenate([whole, y, np.zeros(len(rest_a[0]), np.uint64), rest_b[0]]),
        np.concatenate([kept["size_vx"].to_numpy(), voxels, rest_a[1], rest_b[1]]),
    )
    order = np.lexsort((columns[1], columns[0]))
    return pa.table([pa.array(c[order]) for c in columns], schema=SCHEMA)


@dataclass(frozen=True)
class Blocks:
    """Blocks of a volume: unit codes, boxes int64 (N, 6) and content digests (N, 32)."""

    codes: U64
    boxes: I64
    digests: Digests


def _comparable(a: Revision, b: Revision) -> None:
    sizes = [tuple(float(v) for v in r.record(STAGE)["voxel_nm"]) for r in (a, b)]
    if sizes[0] != sizes[1]:
        raise RevisionError(
            f"{a.name} has voxels of {sizes[0]} nm and {b.name} of {sizes[1]} nm (z, y, x): the two cannot be compared "
            "voxel by voxel"
        )


def _cache_path(a: Revision, b: Revision) -> Path:
    facts = [
        {**{n: r.record(STAGE)[n] for n in ("bounds", "block_vx", "voxel_nm")}, "outputs": _digests(r)} for r in (a, b)
    ]
    name = digest("supervoxel overlap", {"format": FORMAT, "sides": facts})
    return a.project / ".connectome" / "overlaps" / f"{name}.parquet"


def _digests(revision: Revision) -> dict[str, str]:
    outputs = revision.record(STAGE)["outputs"]
    return {name: str(outputs[name]) for name in (VOLUME, "supervoxel")}


def _cached(path: Path) -> pa.Table | None:
    try:
        found = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid):  # not there, or cut short: it is counted anew
        return None
    return found if found.schema.equals(SCHEMA) else None


def _keep(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(table, tmp, compression="zstd")
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def blocks_of(revision: Revision) -> Blocks:
    """The blocks of a revision's supervoxels."""
    table = read_table(revision, STAGE, "parts", ["output", "unit", *_AXES, "digest"])
    table = table.filter(pc.equal(table["output"], VOLUME))
    boxes = np.stack([table[c].to_numpy() for c in _AXES], axis=1).astype(np.int64)
    return Blocks(table["unit"].to_numpy(), boxes.reshape(-1, 6), from_hex(table["digest"].to_pylist()))


def read_table(revision: Revision, stage: str, table: str, columns: list[str]) -> pa.Table:
    """Columns of a table of a revision. Raises RevisionError when the stage has no data, or the file is damaged."""
    revision.record(stage)
    try:
        return pq.read_table(revision.root / "data" / stage / f"{table}.parquet", columns=columns).combine_chunks()
    except (OSError, pa.ArrowInvalid) as e:
        raise RevisionError(
            f"table {table} of stage {stage} at {revision.name} cannot be read: {e}. `connectome verify` says what is "
            f"damaged; `connectome finish {stage}` writes it anew"
        ) from e


def _equal_units(a: Blocks, b: Blocks) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which units of a, and which of b, have the same code, box and content on the other side."""
    common, ia, ib = np.intersect1d(a.codes, b.codes, return_indices=True)
    same = (a.boxes[ia] == b.boxes[ib]).all(axis=1) & (a.digests[ia] == b.digests[ib]).all(axis=1)
    found = np.zeros(len(a.codes), np.bool_), np.zeros(len(b.codes), np.bool_)
    if len(common):
        found[0][ia[same]] = True
        found[1][ib[same]] = True
    return found


def _changed(table: pa.Table, same: U64) -> tuple[U64, I64]:
    """(supervoxels, sizes) of all units but `same`; supervoxels ascend."""
    rows = table.filter(pc.invert(pc.is_in(table["unit"], pa.array(same))))
    names: U64 = rows["supervoxel"].to_numpy()
    order = np.argsort(names)
    return names[order], rows["size_vx"].to_numpy()[order]


def _count(a: Revision, b: Revision, boxes_a: I64, boxes_b: I64, progress: Progress | None) -> tuple[U64, U64, I64]:
    """Pairs of supervoxels of the given blocks, background left out: (a, b, voxels), each pair once."""
    indptr, other = touching(boxes_a, boxes_b)
    reader_a, reader_b = _Reader(a), _Reader(b)
    found: list[tuple[U64, U64, I64]] = []
    for i in range(len(boxes_a)):
        for k in range(indptr[i], indptr[i + 1]):
            mine, theirs = box_of(boxes_a[i]), box_of(boxes_b[other[k]])
            both = mine.clip(theirs)
            found.append(
                pairs_of(reader_a.read(mine)[both.slices(mine.lo)], reader_b.read(theirs)[both.slices(theirs.lo)])
            )
            if progress is not None:
                progress(k + 1, len(other))
    return _sum(found)


@dataclass
class _Reader:
    """Blocks of one revision; the last few stay in memory, for lattices that differ."""

    revision: Revision
    _kept: dict[Box, U64] = field(default_factory=dict)

    def read(self, box: Box) -> U64:
        if box not in self._kept:
            array = self.revision.read_unit(STAGE, VOLUME, box)
            while self._kept and sum(v.nbytes for v in self._kept.values()) + array.nbytes > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
            self._kept[box] = array
        return self._kept[box]


def pairs_of(a: U64, b: U64) -> tuple[U64, U64, I64]:
    """Labels of equal shape -> pairs of non-zero labels that meet, and on how many voxels."""
    real = (a != 0) & (b != 0)
    x, y = a[real], b[real]
    if len(x) == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    low_x, low_y = x.min(), y.min()
    span_x, span_y = (int(v.max()) - int(low) + 1 for v, low in ((x, low_x), (y, low_y)))
    if span_x * span_y >= 1 << 64:  # labels that no one block could have minted
        met = overlaps(x, y)
        return met.a, met.b, met.shared_vx
    span = np.uint64(span_y)
    pairs, voxels = fastremap.unique((x - low_x) * span + (y - low_y), return_counts=True)
    return pairs // span + low_x, pairs % span + low_y, voxels.astype(np.int64)


def _sum(found: list[tuple[U64, U64, I64]]) -> tuple[U64, U64, I64]:
    """All counts, with pairs that several blocks report added up."""
    a, b = (np.concatenate([np.zeros(0, np.uint64), *(f[k] for f in found)]) for k in (0, 1))
    voxels = np.concatenate([np.zeros(0, np.int64), *(f[2] for f in found)])
    order = np.lexsort((b, a))
    a, b, voxels = a[order], b[order], voxels[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(1, len(a)), np.bool_), (a[1:] != a[:-1]) | (b[1:] != b[:-1])]))
    return a[first], b[first], np.add.reduceat(voxels, first) if len(first) else voxels


def _rest(names: U64, sizes: I64, seen: U64, voxels: I64, revision: Revision) -> tuple[U64, I64]:
    """Supervoxels that the pairs do not use up, and the voxels left: they meet background, or lie outside."""
    at = np.minimum(np.searchsorted(names, seen), max(0, len(names) - 1))
    known = names[at] == seen if len(names) else np.zeros(len(seen), np.bool_)
    left = sizes.astype(np.int64).copy()
    if known.all():
        np.subtract.at(left, at, voxels)
    if not known.all() or (left < 0).any():
        raise RevisionError(
            f"stage {STAGE} at {revision.name}: its volume holds voxels that its table of supervoxels does not count; "
            "`connectome verify` says what is damaged"
        )
    return names[left > 0], left[left > 0]
