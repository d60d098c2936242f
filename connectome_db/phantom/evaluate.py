"""Compare what a pipeline made with the truth. Tables and arrays in, scores out; frames are told in `frames.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.errors import QueryError
from connectome_db.kernels.metrics import (
    Overlap,
    PointMatch,
    adapted_rand,
    best_truth,
    f_score,
    match_points,
    overlap,
    variation_of_information,
)
from connectome_db.phantom.frames import Frames, tile_errors
from connectome_db.phantom.truth import Truth

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class MontageScore:
    """Errors of tile positions in px, after one translation per section."""

    error_px: F64
    """(tiles,) distance of each tile's centre from its true place."""
    tiles: tuple[str, ...]
    median_px: float
    p95_px: float
    max_px: float


def montage_error_px(tile_transform: pa.Table, truth: Truth) -> MontageScore:
    """Distance of each tile from its true place, after the mean translation of its section is taken off.

    `tile_transform` has section, tile, yy, yx, xy, xx, ty, tx: y' = yy y + yx x + ty, x' = xy y + xx x + tx.

    Raises:
        QueryError: a tile is not in the truth.
    """
    names, section, miss = tile_errors(tile_transform, truth)
    _, of = np.unique(section, return_inverse=True)
    count = np.bincount(of)
    mean = np.stack([np.bincount(of, miss[:, axis]) / count for axis in (0, 1)], axis=1)
    error = np.linalg.norm(miss - mean[of], axis=1)
    return MontageScore(
        error, tuple(names), float(np.median(error)), float(np.quantile(error, 0.95)), float(error.max())
    )


@dataclass(frozen=True)
class AlignmentScore:
    """How well sections lie on each other, in tissue px."""

    neighbour_px: F64
    """(pairs, points) distance in the tissue of what lies at one aligned point in neighbouring sections."""
    median_px: float
    p95_px: float
    absolute_median_px: float
    """Median distance from the truth after one affine map, the same for all sections."""
    section_mean_px: F64
    """(sections, 2) mean displacement (y, x) of each section after that map."""
    drift_px: float
    """Length of the straight trend of `section_mean_px` from the first section to the last."""


def alignment_error_px(maps: Frames, points_yx: npt.ArrayLike, skip: tuple[int, ...] = ()) -> AlignmentScore:
    """Score the alignment at `points_yx` (n, 2), places of the aligned volume that have tissue in every section.

    The gauge is one affine map fitted over all sections: turning or scaling the whole stack alike is no error, a trend
    along z is. Sections in `skip` (a blank one, say) are left out, and what lay beside them counts as neighbours.

    Raises:
        QueryError: fewer than two sections or three points are left.
    """
    points = np.asarray(points_yx, np.float64)
    sections = [number for number in sorted(maps.mesh) if number not in skip and number in maps.offset_px]
    if len(sections) < 2 or len(points) < 3:
        raise QueryError(f"alignment wants 2 sections and 3 points, got {len(sections)} and {len(points)}")
    tissue = np.stack([maps.to_tissue(number, points) for number in sections])
    neighbour = np.linalg.norm(np.diff(tissue, axis=0), axis=2)
    design = np.column_stack([points, np.ones(len(points))])
    # The same points in every section: the fit over all sections is the fit to their mean.
    gauge, *_ = np.linalg.lstsq(design, tissue.mean(axis=0), rcond=None)
    miss = tissue - design @ gauge
    mean = miss.mean(axis=1)
    z = np.asarray(sections, np.float64)
    slope = (z - z.mean()) @ mean / ((z - z.mean()) ** 2).sum()
    return AlignmentScore(
        neighbour,
        float(np.median(neighbour)),
        float(np.quantile(neighbour, 0.95)),
        float(np.median(np.linalg.norm(miss, axis=2))),
        mean,
        float(np.linalg.norm(slope) * (z[-1] - z[0])),
    )


@dataclass(frozen=True)
class SegmentationScore:
    """Scores over the voxels that have a true object."""

    adapted_rand_error: float
    rand_precision: float
    rand_recall: float
    vi_split: float
    vi_merge: float
    voxels: int
    objects_truth: int
    objects_seg: int
    shared: Overlap


def segmentation_scores(seg: npt.NDArray[np.integer], truth_labels: npt.NDArray[np.integer]) -> SegmentationScore:
    """Score `seg` against the truth, both (z, y, x), where the truth is not 0. All background (0) of `seg` is one."""
    shared = overlap(seg, truth_labels)
    rand, vi = adapted_rand(shared), variation_of_information(shared)
    return SegmentationScore(
        rand.error,
        rand.precision,
        rand.recall,
        vi.split,
        vi.merge,
        int(shared.voxels.sum()),
        len(np.unique(shared.truth)),
        int((np.unique(shared.seg) > 0).sum()),
        shared,
    )


def objects_to_truth(shared: Overlap) -> dict[int, int]:
    """Segment id -> the true label it overlaps most; background is left out."""
    seg, truth, _ = best_truth(shared)
    return {int(a): int(b) for a, b in zip(seg, truth, strict=True) if a != 0}


@dataclass(frozen=True)
class SynapseScore:
    """Detection, and partners of what was detected."""

    precision: float
    recall: float
    f1: float
    median_distance_nm: float
    """NaN where nothing matched."""
    partners_right: float
    """Share of matched synapses whose pre and post are both the true ones; NaN where nothing matched."""
    partners_swapped: float
    """Share whose pre and post are the true ones the wrong way round."""
    match: PointMatch


def synapse_scores(
    predicted_nm: F64, predicted_pre_post: U64, truth_nm: F64, truth_pre_post: U64, radius_nm: float
) -> SynapseScore:
    """Match synapses one to one within `radius_nm`, then compare partners.

    Points are (n, 3) z, y, x in tissue nm; partners (n, 2) pre, post, the predicted ones already named by true labels
    (`objects_to_truth`; 0 for objects without one).
    """
    match = match_points(predicted_nm, truth_nm, radius_nm)
    found = np.asarray(predicted_pre_post, np.uint64).reshape(-1, 2)[match.predicted]
    true = np.asarray(truth_pre_post, np.uint64).reshape(-1, 2)[match.truth]
    some = len(found) > 0
    return SynapseScore(
        match.precision,
        match.recall,
        match.f1,
        float(np.median(match.distance)) if some else float("nan"),
        float((found == true).all(axis=1).mean()) if some else float("nan"),
        float((found == true[:, ::-1]).all(axis=1).mean()) if some else float("nan"),
        match,
    )


@dataclass(frozen=True)
class EdgeScore:
    """Directed edges with at least `min_synapses`."""

    min_synapses: int
    true_edges: int
    predicted_edges: int
    recall: float
    """Share of the true ones that are predicted, with any count; 1 where there is none."""
    precision: float
    """Share of the predicted ones that are true, with any count; 1 where there is none."""
    f1: float
    recall_strict: float
    """Share of the true ones that are predicted with at least `min_synapses`."""
    precision_strict: float
    """Share of the predicted ones that are true with at least `min_synapses`."""


def edge_scores(
    predicted: Mapping[tuple[int, int], int], truth: Mapping[tuple[int, int], int], min_synapses: int = 2
) -> EdgeScore:
    """Compare directed edges {(pre, post): synapses} named by true labels.

    By default a strong edge on one side is right if the other side has it at all, for a missed synapse is the synapse
    score's business; the strict scores ask for `min_synapses` on both sides.
    """
    true = {edge for edge, count in truth.items() if count >= min_synapses}
    found = {edge for edge, count in predicted.items() if count >= min_synapses}

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 1.0

    recall = share(len(true & predicted.keys()), len(true))
    precision = share(len(found & truth.keys()), len(found))
    both = len(true & found)
    return EdgeScore(
        min_synapses,
        len(true),
        len(found),
        recall,
        precision,
        f_score(precision, recall),
        share(both, len(true)),
        share(both, len(found)),
    )


def edges_of(pre_post: U64) -> dict[tuple[int, int], int]:
    """Synapse counts per directed pair from one row (pre, post) per synapse; rows with a 0 are left out."""
    rows = np.asarray(pre_post, np.uint64).reshape(-1, 2)
    pairs, counts = np.unique(rows[(rows > 0).all(axis=1)], axis=0, return_counts=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts, strict=True)}
