"""Revisions made from arrays of labels: every block of the volume and every table that comparisons read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids, plans, volumes
from connectome_db.geometry import Box, Vec3
from connectome_db.provenance import array_digest, merkle
from connectome_db.revisions import WORKING_TREE, Revision
from connectome_db.spec import Volume

U64 = npt.NDArray[np.uint64]
VOXEL_NM = (30.0, 8.0, 8.0)


def revision_of(folder: Path, labels: npt.NDArray[np.integer], block_vx: Vec3, origin: Vec3 = (0, 0, 0)) -> Revision:
    """A revision whose objects are the labels (z, y, x), 0 = background, and its supervoxels the labels by block."""
    high = tuple(o + n for o, n in zip(origin, labels.shape, strict=True))
    bounds = Box(origin, (high[0], high[1], high[2]))
    segment, agglomerate = folder / "data" / "segment", folder / "data" / "agglomerate"
    agglomerate.mkdir(parents=True)
    volume = Volume(name="supervoxels", dtype="uint64", kind="segmentation", doc="Supervoxels.")
    layout = volumes.layout(volume, bounds, block_vx, VOXEL_NM)
    (segment / "supervoxels").mkdir(parents=True)
    (segment / "supervoxels" / "info").write_bytes(volumes.info(layout))
    grid = plans.grid(bounds, block_vx)
    rows: list[tuple[int, int, int, int]] = []  # unit, supervoxel, size, label
    digests = []
    for code, six in zip(grid.codes.tolist(), grid.cores.tolist(), strict=True):
        core = Box(tuple(six[:3]), tuple(six[3:]))
        block = labels[core.slices(origin)]
        found, first, size = np.unique(block, return_index=True, return_counts=True)
        real = found != 0
        voxels = np.stack(np.unravel_index(first[real], core.shape), axis=1) + np.asarray(core.lo)
        named = np.zeros(len(found), np.uint64)
        named[real] = ids.mint_at(code, voxels, block_vx)
        array = named[np.searchsorted(found, block)]
        for name, data in volumes.encode(layout, core, array).items():
            path = segment / "supervoxels" / volumes.absolute_name(layout, core, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        digests.append(array_digest(array))
        rows += list(zip([code] * int(real.sum()), named[real], size[real], found[real], strict=True))
    boxes = {c: grid.cores[:, k] for k, c in enumerate(("z0", "y0", "x0", "z1", "y1", "x1"))}
    parts = {"output": ["supervoxels"] * len(digests), "unit": grid.codes, **boxes, "digest": digests}
    pq.write_table(pa.table(parts), segment / "parts.parquet")
    unit, name, size, label = (np.asarray([r[k] for r in rows], t) for k, t in enumerate(("u8", "u8", "i8", "i8")))
    order = np.lexsort((name, unit))
    supervoxel = pa.table({"unit": unit[order], "supervoxel": name[order], "size_vx": size[order]})
    pq.write_table(supervoxel, segment / "supervoxel.parquet")
    outputs = {"supervoxels": merkle(grid.codes, digests), "supervoxel": merkle(unit, [f"{n:064x}" for n in name])}
    record = {"bounds": bounds.flat(), "block_vx": block_vx, "voxel_nm": VOXEL_NM, "outputs": outputs}
    (segment / "record.json").write_text(json.dumps(record))
    (agglomerate / "record.json").write_text(json.dumps({"inputs": {"segment.supervoxel": outputs["supervoxel"]}}))
    distinct, first = np.unique(label, return_index=True)
    lowest = np.asarray([name[label == one].min() for one in distinct], np.uint64)
    whole = np.asarray([size[label == one].sum() for one in distinct], np.int64)
    pq.write_table(pa.table({"object": lowest, "size_vx": whole}), agglomerate / "object.parquet")
    body = lowest[np.searchsorted(distinct, label)]
    pq.write_table(pa.table({"supervoxel": name, "object": body}), agglomerate / "member.parquet")
    return Revision(folder, WORKING_TREE, None, folder)


def voxels_of(revision: Revision, bounds: Box) -> U64:
    """Supervoxels of `bounds`, read in one piece; 0 outside the volume."""
    folder = revision.volume("segment", "supervoxels")
    held = volumes.open_info(folder).bounds.clip(bounds)
    out = np.zeros(bounds.shape, np.uint64)
    if not held.empty:
        out[held.slices(bounds.lo)] = volumes.read(folder, held)
    return out


def counted(a: U64, b: U64) -> list[tuple[int, int, int]]:
    """(a, b, voxels) of two volumes of equal shape, background on both sides left out."""
    pairs, voxels = np.unique(np.stack([a.ravel(), b.ravel()], axis=1), axis=0, return_counts=True)
    return [(int(x), int(y), int(n)) for (x, y), n in zip(pairs, voxels, strict=True) if x or y]


def rows_of(overlap: pa.Table) -> list[tuple[int, int, int]]:
    """The same of an overlap table."""
    return list(zip(*(overlap[c].to_pylist() for c in ("a", "b", "voxels")), strict=True))
