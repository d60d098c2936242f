"""Two labellings of the same voxels: how much each pair of labels shares, and which pairs are one thing."""

from __future__ import annotations

from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of labels that share voxels, ascending by (a, b)."""

    a: U64
    b: U64
    shared_vx: I64
    a_vx: I64
    """Voxels of a on these voxels."""
    b_vx: I64

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Shared voxels over the union."""
        return self.shared_vx / (self.a_vx + self.b_vx - self.shared_vx)

    @property
    def of_smaller(self) -> npt.NDArray[np.float64]:
        """Shared voxels over the smaller of the two."""
        return self.shared_vx / np.minimum(self.a_vx, self.b_vx)

    @property
    def of_larger(self) -> npt.NDArray[np.float64]:
        """Shared voxels over the larger of the two: more than half makes each the other's only such partner."""
        return self.shared_vx / np.maximum(self.a_vx, self.b_vx)


def overlaps(a: U64, b: U64) -> Overlaps:
    """Labels uint64 of equal shape -> the pairs of non-zero labels that meet. Sizes count all voxels of a label."""
    ids_a, index_a, size_a = _dense(a)
    ids_b, index_b, size_b = _dense(b)
    key = index_a.astype(np.int64) * max(1, len(ids_b)) + index_b
    pairs, shared = fastremap.unique(key, return_counts=True)
    pa, pb = pairs // max(1, len(ids_b)), pairs % max(1, len(ids_b))
    keep = (ids_a[pa] != 0) & (ids_b[pb] != 0) if len(pairs) else np.zeros(0, np.bool_)
    pa, pb, shared = pa[keep], pb[keep], shared[keep].astype(np.int64)
    return Overlaps(ids_a[pa], ids_b[pb], shared, size_a[pa], size_b[pb])


def _dense(labels: U64) -> tuple[U64, I64, I64]:
    """Labels -> (ascending ids, their index per voxel, their sizes)."""
    found, index, size = fastremap.unique(labels.ravel(), return_inverse=True, return_counts=True)
    return found.astype(np.uint64), index.astype(np.int64), size.astype(np.int64)
