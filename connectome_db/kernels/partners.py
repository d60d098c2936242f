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
    facing_nm: float,
) -> Partners | None:
    """One cleft, supervoxels and evidence, all (z, y, x) -> its partners; None where only one supervoxel is near.

    `pre` and `post` are probabilities, 255 = 1. Evidence counts up to `reach_nm` from the cleft. Of all pairs of
    supervoxels, the one wins whose evidence differs most, weighted by how much of the cleft lies between the two: at
    most `facing_nm` from both (one voxel on each axis counts as that near). So a neighbour at the rim is no partner.
    """
    near = ndimage.distance_transform_edt(~cleft, sampling=voxel_nm) <= reach_nm
    near &= labels != 0
    ids, index = fastremap.unique(labels[near], return_inverse=True)
    if len(ids) < 2:
        return None
    for_pre = np.bincount(index, pre[near], len(ids))
    for_post = np.bincount(index, post[near], len(ids))
    tilt = for_pre - for_post
    contrast = tilt[:, None] - tilt[None, :]
    between = _between(cleft, labels, ids, voxel_nm, facing_nm)
    # A cleft that no two supervoxels face (all of it in one of them) leaves the evidence alone to decide.
    worth = contrast * between if between.any() else contrast
    np.fill_diagonal(worth, -np.inf)
    # Ties go to the lower ids (argmax takes the first).
    one, two = (int(k) for k in np.unravel_index(int(np.argmax(worth)), worth.shape))
    evidence = for_pre[one] + for_post[one] + for_pre[two] + for_post[two]
    return Partners(
        pre=int(ids[one]),
        post=int(ids[two]),
        polarity=float(np.clip(contrast[one, two] / evidence, 0.0, 1.0)) if evidence > 0 else 0.0,
        pre_vx=_strongest(near & (labels == ids[one]), pre),
        post_vx=_strongest(near & (labels == ids[two]), post),
    )


def _between(
    cleft: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.uint64],
    ids: npt.NDArray[np.uint64],
    voxel_nm: NM3,
    reach_nm: float,
) -> npt.NDArray[np.float64]:
    """(n, n): share of the cleft's voxels that are near both of two labels; 0 on the diagonal."""
    steps = [max(1, int(reach_nm / step)) for step in voxel_nm]
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in steps), indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.sqrt(((grid * np.asarray(voxel_nm)) ** 2).sum(axis=1))
    grid = grid[(distance <= reach_nm) | (np.abs(grid).sum(axis=1) <= 1)]
    padded = np.pad(labels, [(n, n) for n in steps])
    at = np.argwhere(cleft) + np.asarray(steps)
    seen = np.zeros((len(ids), len(at)), np.float32)
    voxel = np.arange(len(at))
    for offset in grid:
        found = padded[tuple((at + offset).T)]
        k = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        known = ids[k] == found
        seen[k[known], voxel[known]] = 1
    share = (seen @ seen.T).astype(np.float64) / len(at)
    np.fill_diagonal(share, 0.0)
    return share


def _strongest(where: npt.NDArray[np.bool_], evidence: U8) -> tuple[int, int, int]:
    """The first voxel (z, y, x) of highest evidence within `where`."""
    at = int(np.argmax(np.where(where, evidence.astype(np.int16), -1)))
    z, y, x = np.unravel_index(at, where.shape)
    return int(z), int(y), int(x)
