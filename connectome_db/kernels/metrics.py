"""Scores of a segmentation and of points against the truth. Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Overlap:
    """How many voxels each pair of labels shares; only pairs that occur, sorted by (truth, seg)."""

    truth: U64
    seg: U64
    voxels: I64


def overlap(seg: Labels, truth: Labels, *, ignore_truth: int | None = 0, ignore_seg: int | None = None) -> Overlap:
    """Count shared voxels of two label arrays of one shape; voxels with an ignored label do not count.

    Raises:
        ValueError: the shapes differ.
    """
    if seg.shape != truth.shape:
        raise ValueError(f"labels of one shape wanted, got seg {seg.shape} and truth {truth.shape}")
    keep = np.ones(truth.shape, np.bool_)
    if ignore_truth is not None:
        keep &= truth != ignore_truth
    if ignore_seg is not None:
        keep &= seg != ignore_seg
    a, b = truth[keep], seg[keep]
    if a.size == 0:
        empty = np.empty(0, np.uint64)
        return Overlap(empty, empty, np.empty(0, np.int64))
    # Dense numbers first: a pair then fits one integer, which is counted by sorting.
    ids_a, dense_a = fastremap.unique(a, return_inverse=True)
    ids_b, dense_b = fastremap.unique(b, return_inverse=True)
    pair, voxels = fastremap.unique(
        dense_a.ravel().astype(np.uint64) * np.uint64(len(ids_b)) + dense_b.ravel().astype(np.uint64),
        return_counts=True,
    )
    row, column = np.divmod(pair, np.uint64(len(ids_b)))
    return Overlap(
        ids_a[row.astype(np.int64)].astype(np.uint64),
        ids_b[column.astype(np.int64)].astype(np.uint64),
        voxels.astype(np.int64),
    )


def _sums(shared: Overlap) -> tuple[F64, F64, F64, F64, F64]:
    """Per pair: its share p of all voxels, its truth label's and its segment's; and those shares per label once."""
    n = float(shared.voxels.sum())
    p: F64 = shared.voxels.astype(np.float64) / n
    _, of_truth = np.unique(shared.truth, return_inverse=True)
    _, of_seg = np.unique(shared.seg, return_inverse=True)
    truth: F64 = np.bincount(of_truth, weights=p).astype(np.float64)
    seg: F64 = np.bincount(of_seg, weights=p).astype(np.float64)
    return p, truth[of_truth], seg[of_seg], truth, seg


@dataclass(frozen=True)
class RandScore:
    """Adapted Rand error and its parts."""

    error: float
    """1 - F score; 0 is perfect."""
    precision: float
    """Low when objects are merged."""
    recall: float
    """Low when objects are split."""


def adapted_rand(shared: Overlap) -> RandScore:
    """Adapted Rand error (Arganda-Carreras et al. 2015; SNEMI3D's score). NaN where no voxel counts.

    As `skimage.metrics.adapted_rand_error`, which corrects for pairing a voxel with itself.
    """
    if shared.voxels.size == 0:
        return RandScore(float("nan"), float("nan"), float("nan"))
    n = float(shared.voxels.sum())
    _, _, _, truth, seg = _sums(shared)
    together = float((shared.voxels.astype(np.float64) ** 2).sum()) - n
    in_seg = float(((seg * n) ** 2).sum()) - n
    in_truth = float(((truth * n) ** 2).sum()) - n
    precision = together / in_seg if in_seg > 0 else 1.0
    recall = together / in_truth if in_truth > 0 else 1.0
    total = in_seg + in_truth
    return RandScore(1.0 - (2.0 * together / total if total > 0 else 1.0), precision, recall)


@dataclass(frozen=True)
class VariationOfInformation:
    """Conditional entropies in bits; 0 is perfect."""

    split: float
    """H(seg | truth): true objects in several segments."""
    merge: float
    """H(truth | seg): segments over several true objects."""

    @property
    def total(self) -> float:
        """Split plus merge."""
        return self.split + self.merge


def variation_of_information(shared: Overlap) -> VariationOfInformation:
    """Variation of information (Meila 2003; split and merge: Nunez-Iglesias et al. 2013). NaN where no voxel counts."""
    if shared.voxels.size == 0:
        return VariationOfInformation(float("nan"), float("nan"))
    p, truth, seg, _, _ = _sums(shared)
    split = float(-(p * np.log2(p / truth)).sum())
    merge = float(-(p * np.log2(p / seg)).sum())
    return VariationOfInformation(abs(split), abs(merge))


def best_truth(shared: Overlap) -> tuple[U64, U64, F64]:
    """Per segment, the truth label it overlaps most: (seg ids ascending, truth ids, share of the segment it covers).

    The lower truth label wins a tie.
    """
    order = np.lexsort((shared.truth, -shared.voxels, shared.seg))
    ids, start = np.unique(shared.seg[order], return_index=True)
    total = np.add.reduceat(shared.voxels[order], start) if len(ids) else np.empty(0, np.int64)
    chosen = order[start]
    return ids, shared.truth[chosen], shared.voxels[chosen] / np.maximum(total, 1)


@dataclass(frozen=True)
class PointMatch:
    """Which predicted point was paired with which true one."""

    predicted: I64
    """(m,) rows of the predicted points that found a partner, ascending."""
    truth: I64
    """(m,) rows of their partners."""
    distance: F64
    """(m,) in the points' unit."""
    predicted_count: int
    truth_count: int

    @property
    def precision(self) -> float:
        """Share of predicted points with a partner; 1 where nothing was predicted."""
        return len(self.predicted) / self.predicted_count if self.predicted_count else 1.0

    @property
    def recall(self) -> float:
        """Share of true points with a partner; 1 where there is none to find."""
        return len(self.truth) / self.truth_count if self.truth_count else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return f_score(self.precision, self.recall)


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def match_points(predicted: F64, truth: F64, radius: float) -> PointMatch:
    """Pair points (n, d) and (m, d) one to one within `radius`: most pairs first, then nearest (Kuhn 1955).

    Points further apart than `radius` never compete, so each connected group of candidates is solved alone.
    """
    p, t = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    none = np.empty(0, np.int64)
    if len(p) == 0 or len(t) == 0:
        return PointMatch(none, none, np.empty(0), len(p), len(t))
    found = cKDTree(p).sparse_distance_matrix(cKDTree(t), radius, output_type="coo_matrix")
    order = np.lexsort((found.col, found.row))
    row, column = found.row[order].astype(np.int64), found.col[order].astype(np.int64)
    distance = np.linalg.norm(p[row] - t[column], axis=1)
    size = len(p) + len(t)
    links = coo_array((np.ones(len(row)), (row, column + len(p))), shape=(size, size))
    _, group = connected_components(links, directed=False)
    order = np.argsort(group[row], kind="stable")
    pairs: list[tuple[int, int, float]] = []
    for members in np.split(order, np.flatnonzero(np.diff(group[row][order])) + 1):
        if not len(members):
            continue
        rows, i = np.unique(row[members], return_inverse=True)
        columns, j = np.unique(column[members], return_inverse=True)
        # A pair is worth more than any distance that it could save elsewhere.
        cost = np.zeros((len(rows), len(columns)))
        cost[i, j] = distance[members] - radius * (len(rows) + len(columns) + 1)
        chosen_i, chosen_j = linear_sum_assignment(cost)
        for a, b in zip(chosen_i, chosen_j, strict=True):
            if cost[a, b] < 0:
                apart = float(np.linalg.norm(p[rows[a]] - t[columns[b]]))
                pairs.append((int(rows[a]), int(columns[b]), apart))
    pairs.sort()
    return PointMatch(
        np.array([a for a, _, _ in pairs], np.int64),
        np.array([b for _, b, _ in pairs], np.int64),
        np.array([d for _, _, d in pairs], np.float64),
        len(p),
        len(t),
    )
