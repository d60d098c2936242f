"""Run-length coding of labels on the slabs next to a block's upper faces.

Voxels of a slab are counted with the slab's own axis slowest, then the other two in (z, y, x) order, so that a reader
who wants a thinner slab takes the first part of the runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def encode(slab: U64, axis: int) -> tuple[I64, I64, U64]:
    """Labels uint64 (z, y, x) on the slab of `axis` -> (start, length, label) of its runs, background included."""
    flat = np.moveaxis(slab, axis, 0).ravel()
    if flat.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64)
    start = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.int64)
    length = np.diff(np.append(start, flat.size)).astype(np.int64)
    return start, length, flat[start]


def decode(start: I64, length: I64, label: U64, shape: tuple[int, int, int], axis: int) -> U64:
    """Runs -> labels uint64 of `shape` (z, y, x), the first `shape[axis]` layers of the slab.

    Raises ValueError when the runs do not cover that many voxels without gaps.
    """
    order = np.argsort(start, kind="stable")
    start, length, label = start[order], length[order], label[order]
    size = int(np.prod(shape))
    covered = int(length.sum())
    if covered < size or (size and (start[0] != 0 or (start[1:] != start[:-1] + length[:-1]).any())):
        raise ValueError(f"wanted runs that cover {size} voxels of the slab without gaps, got {covered} voxels")
    front = (shape[axis], *(n for k, n in enumerate(shape) if k != axis))
    flat = np.repeat(label, length)[:size]
    return np.ascontiguousarray(np.moveaxis(flat.reshape(front), 0, axis))
