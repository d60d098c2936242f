"""Two segmentations of the same voxels -> one that splits wherever either does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]


def split_consensus(first: U32, second: U32, min_size_vx: int) -> tuple[U32, npt.NDArray[np.int64]]:
    """Voxels stay together only if both segmentations have them together (Januszewski et al. 2018, "oversegmentation
    consensus", 10.1038/s41592-018-0049-4).

    Labels uint32 (z, y, x) of equal shape, 0 = none -> labels 1, 2, ... in ascending order of their pair, and the pairs
    (n, 2). What either leaves empty, and pieces below `min_size_vx`, are 0: an error of one run does not join what the
    other keeps apart.
    """
    width = np.int64(second.max(initial=0)) + 1
    both = np.where((first > 0) & (second > 0), first.astype(np.int64) * width + second, 0)
    pairs, index, size = np.unique(both, return_inverse=True, return_counts=True)
    keep = (pairs > 0) & (size >= max(min_size_vx, 1))
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    chosen = pairs[keep]
    return number[index].reshape(first.shape), np.stack([chosen // width, chosen % width], axis=1)
