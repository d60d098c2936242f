"""Voxels of a project as of any revision: a box of a volume, and what lies at one voxel."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from connectome_db import volumes
from connectome_db.errors import QueryError
from connectome_db.geometry import Box, Vec3, box_of
from connectome_db.revisions import Revision
from connectome_db.spec import Array

_CORE = tuple(f"core_{axis}{end}" for end in (0, 1) for axis in "zyx")


def bounds_of(revision: Revision, stage: str) -> Box:
    """The bounds of a block stage's volumes, in voxels. Raises RevisionError when the stage has no data there."""
    return box_of(revision.record(stage)["bounds"])


def read_box(revision: Revision, stage: str, volume: str, box: Box) -> Array:
    """Voxels (z, y, x) of a volume in `box`, which lies in its bounds.

    Of a commit, whole units are read from DVC's cache, and only those that the box touches: nothing is checked out.
    """
    if revision.commit is None:
        return volumes.read(revision.project / "data" / stage / volume, box)
    units = pq.read_table(revision.root / "data" / stage / "units.parquet", columns=list(_CORE))
    cores = np.stack([units[c].to_numpy() for c in _CORE], axis=1)
    touched = (cores[:, :3] < np.asarray(box.hi)).all(axis=1) & (cores[:, 3:] > np.asarray(box.lo)).all(axis=1)
    out: Array | None = None
    for core in map(box_of, cores[touched].tolist()):
        voxels = revision.read_unit(stage, volume, core)
        if out is None:
            out = np.zeros(box.shape, dtype=voxels.dtype)
        shared = core.clip(box)
        out[shared.slices(box.lo)] = voxels[shared.slices(core.lo)]
    if out is None:
        raise QueryError(f"no unit of {stage} at {revision.name} touches {box}")
    return out


def supervoxel_at(revision: Revision, zyx: Vec3) -> int:
    """The supervoxel at a voxel (z, y, x); 0 is background. Raises QueryError outside the volume."""
    if "segment" not in revision.stages:
        hint = "run `dvc repro segment`" if revision.commit is None else "nothing is known of its voxels there"
        raise QueryError(f"stage segment has no data at {revision.name}: {hint}")
    bounds = bounds_of(revision, "segment")
    box = Box(zyx, (zyx[0] + 1, zyx[1] + 1, zyx[2] + 1))
    if not bounds.contains(box):
        raise QueryError(f"voxel {zyx} (z, y, x) is outside the volume: {bounds}. Positions are voxels, not nm")
    return int(read_box(revision, "segment", "supervoxels", box)[0, 0, 0])
