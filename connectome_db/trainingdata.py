"""Training volumes from finished projects that have truth: the image as the pipeline really renders it.

Networks trained on perfectly aligned tissue meet misaligned sections for the first time in use. A project made by
`connectome simulate` or from a re-acquired volume has both, the rendered image and the truth in its frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from connectome_db import volumes
from connectome_db.assess import load_frames
from connectome_db.config import Project
from connectome_db.errors import ConfigError
from connectome_db.kernels.cleft import SynapsePoints
from connectome_db.networks.datasets import Split, TrainingVolume, volume_digest
from connectome_db.phantom.frames import truth_labels_in_pipeline_frame

Ids = npt.NDArray[np.unsignedinteger]


def project_volume(project: Project) -> TrainingVolume:
    """A project's rendered image with the truth at the same voxels; pixels that no tile covers carry no loss."""
    maps = load_frames(project)
    folder = project.data("render") / "image"
    bounds = volumes.open_info(folder).bounds
    image = volumes.read(folder, bounds)
    covered: npt.NDArray[np.bool_] = np.asarray(image > 0)
    rows, columns = (np.flatnonzero(np.any(covered, axis=axes)) for axes in ((0, 2), (0, 1)))
    window = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    labels = truth_labels_in_pipeline_frame(maps, bounds.lo, bounds.shape)
    labels[~covered] = 0
    clefts = truth_labels_in_pipeline_frame(maps, bounds.lo, bounds.shape, "cleft")
    pixels, named = np.ascontiguousarray(image[window]), np.ascontiguousarray(labels[window])
    truth = maps.truth.table("synapses")
    names, pre, post = (truth[c].to_numpy() for c in ("synapse", "pre", "post"))
    return TrainingVolume(
        name=f"{project.dataset.name}, as rendered",
        image=pixels,
        labels=named,
        voxel_nm=project.voxel_nm,
        digest=volume_digest(pixels, named),
        synapses=_partners(names, pre, post, clefts[window]),
        clefts=np.ascontiguousarray(clefts[window]),
        valid=np.ascontiguousarray(covered[window]),
    )


def _partners(names: Ids, pre: Ids, post: Ids, clefts: Ids) -> SynapsePoints:
    """Synapses whose cleft is in the window, in the order of their names; the place is the cleft's centroid."""
    at = np.stack(np.nonzero(clefts), axis=1)
    _, index, count = np.unique(clefts[clefts > 0], return_inverse=True, return_counts=True)
    present = np.unique(clefts[clefts > 0])
    centre = np.stack([np.bincount(index, at[:, k]) / count for k in range(3)], axis=1)
    row = {int(n): i for i, n in enumerate(names.tolist())}
    rows = [row[int(n)] for n in present.tolist()]
    return SynapsePoints(
        points_vx=np.rint(centre).astype(np.int64),
        pre=pre[rows].astype(np.uint64),
        post=post[rows].astype(np.uint64),
        radius_nm=np.full(len(rows), 150.0),
    )


def project_split(projects: Sequence[Project]) -> Split:
    """Learn on all projects but the last, score on the last. Raises ConfigError for fewer than two."""
    if len(projects) < 2:
        raise ConfigError("training on projects wants at least two: the last one is kept for scoring")
    found = tuple(project_volume(p) for p in projects)
    source = "rendered by connectome_db from projects with truth: " + ", ".join(Path(p.root).name for p in projects)
    return Split(found[:-1], found[-1:], source)
