"""What lies at a voxel of a finished project."""

from __future__ import annotations

from connectome_db import volumes
from connectome_db.config import Project
from connectome_db.errors import QueryError
from connectome_db.geometry import Box, Vec3


def supervoxel_at(project: Project, zyx: Vec3) -> int:
    """The supervoxel at a voxel (z, y, x); 0 is background. Raises QueryError outside the volume."""
    folder = project.data("segment") / "supervoxels"
    if not folder.is_dir():
        raise QueryError("stage segment has not been run here: run `dvc repro segment`")
    bounds = volumes.open_info(folder).bounds
    box = Box(zyx, (zyx[0] + 1, zyx[1] + 1, zyx[2] + 1))
    if not bounds.contains(box):
        raise QueryError(f"voxel {zyx} (z, y, x) is outside the volume: {bounds}. Positions are voxels, not nm")
    return int(volumes.read(folder, box)[0, 0, 0])
