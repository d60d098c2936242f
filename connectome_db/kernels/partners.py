"""Who is on the two sides of a cleft, and which side sends.

Evidence for pre and post is summed over each supervoxel near the cleft, and the difference decides its side, so that a
neurite that is cut into several supervoxels keeps them all on one side (after Turner et al. 2020, arXiv:1904.09947;
Buhmann et al. 2021, 10.1038/s41592-021-01183-7).
"""

from __future__ import annotations

from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt
from scipy import ndimage

NM3 = tuple[float, float, float]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Partners:
    """The two sides of one cleft."""

    pre: int
    post: int
    polarity: float
    """Contrast of the evidence: 0 when it says nothing about direction, 1 when all of it agrees."""
    pre_vx: tuple[int, int, int]
    """A voxel of `pre` beside the cleft, where its evidence is strongest (z, y, x)."""
    post_vx: tuple[int, int, int]


def partners(
    cleft: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.uint64],
    pre: U8,
    post: U8,
    voxel_nm: NM3,
    *,
    reach_nm: float,
) -> Partners | None:
    """One cleft, supervoxels and evidence, all (z, y, x) -> its partners; None where only one supervoxel is near.

    `pre` and `post` are probabilities, 255 = 1; voxels at most `reach_nm` from the cleft count.
    """
    near = ndimage.distance_transform_edt(~cleft, sampling=voxel_nm) <= reach_nm
    near &= labels != 0
    ids, index = fastremap.unique(labels[near], return_inverse=True)
    if len(ids) < 2:
        return None
    for_pre = np.bincount(index, pre[near], len(ids))
    for_post = np.bincount(index, post[near], len(ids))
    tilt = for_pre - for_post
    # Ties go to the lower id (argmax takes the first).
    one = int(np.argmax(tilt))
    other = np.where(np.arange(len(ids)) == one, np.inf, tilt)
    two = int(np.argmin(other))
    evidence = for_pre[one] + for_post[one] + for_pre[two] + for_post[two]
    contrast = (tilt[one] - tilt[two]) / evidence if evidence > 0 else 0.0
    return Partners(
        pre=int(ids[one]),
        post=int(ids[two]),
        polarity=float(np.clip(contrast, 0.0, 1.0)),
        pre_vx=_strongest(near & (labels == ids[one]), pre),
        post_vx=_strongest(near & (labels == ids[two]), post),
    )


def _strongest(where: npt.NDArray[np.bool_], evidence: U8) -> tuple[int, int, int]:
    """The first voxel (z, y, x) of highest evidence within `where`."""
    at = int(np.argmax(np.where(where, evidence.astype(np.int16), -1)))
    z, y, x = np.unravel_index(at, where.shape)
    return int(z), int(y), int(x)
