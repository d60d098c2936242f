"""How good a trained network is on volumes it has not seen; the numbers of the model cards."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed

from connectome_db.kernels.affinity import affinity_targets
from connectome_db.kernels.cleft import synapse_masks
from connectome_db.networks.datasets import TrainingVolume
from connectome_db.networks.inference import Network

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(18, 1, -1))


def detection_scores(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Voxelwise scores of `truth` being true: area under the ROC curve, best F1 and its threshold.

    Both arrays have the same shape. Probabilities are counted in 256 levels, which is exact enough for three digits.
    """
    level = np.minimum((probability * 256).astype(np.int64), 255)
    positive = np.bincount(level[truth], minlength=256).astype(np.float64)
    negative = np.bincount(level[~truth], minlength=256).astype(np.float64)
    hit = np.cumsum(positive[::-1])  # at or above each level, from the top
    false = np.cumsum(negative[::-1])
    if hit[-1] == 0 or false[-1] == 0:
        return {"auc": float("nan"), "best_f1": float("nan"), "threshold": float("nan")}
    auc = np.trapezoid(np.append(0.0, hit / hit[-1]), np.append(0.0, false / false[-1]))
    f1 = 2 * hit / (hit[-1] + hit + false)
    best = int(np.argmax(f1))
    return {"auc": _round(auc), "best_f1": _round(f1[best]), "threshold": _round((255 - best) / 256)}


def affinity_scores(network: Network, volume: TrainingVolume, crop_vx: int = 512) -> dict[str, Any]:
    """Boundary detection per nearest-neighbour channel over the volume, and a simple segmentation of its middle.

    The segmentation (watershed, then merging by mean affinity) takes the middle `crop_vx` of y and x; its adapted Rand
    error and variation of information are given at the best of THRESHOLDS, ignoring voxels of label 0. Truth is scored
    by connected pieces: what the crop cuts in two cannot be joined by anyone.
    """
    names = network.channels[:3]
    affinity = network.predict(volume.image)[:3]
    target, valid = affinity_targets(volume.labels, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    scores: dict[str, Any] = {
        f"boundary_{name}": detection_scores(1 - affinity[c][valid[c]], ~target[c][valid[c]])
        for c, name in enumerate(names)
    }
    middle = tuple(
        slice(max(0, (n - crop_vx) // 2), max(0, (n - crop_vx) // 2) + crop_vx) for n in volume.labels.shape[1:]
    )
    labels = connected_pieces(volume.labels[:, middle[0], middle[1]])
    fragments = watershed_fragments(affinity[:, :, middle[0], middle[1]], volume.voxel_nm)
    scores["fragments_adapted_rand_error"] = _adapted_rand_error(labels, fragments)
    best: dict[str, float] = {}
    for threshold, merged in zip(
        THRESHOLDS, merged_at(fragments, affinity[:, :, middle[0], middle[1]], THRESHOLDS), strict=True
    ):
        error = _adapted_rand_error(labels, merged)
        if not best or error < best["adapted_rand_error"]:
            split, merge = variation_of_information(labels, merged, ignore_labels=[0])
            best = {
                "adapted_rand_error": error,
                "merge_threshold": threshold,
                "voi_false_splits": _round(split),
                "voi_false_merges": _round(merge),
            }
    return {**scores, **best}


def connected_pieces(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Each 26-connected piece of each label under its own number; 0 stays 0."""
    _, dense = np.unique(labels, return_inverse=True)
    number = dense.reshape(labels.shape).astype(np.uint32) + np.uint32(1)
    number[labels == 0] = 0
    found: NDArray[np.unsignedinteger] = cc3d.connected_components(number, connectivity=26)
    return found


def watershed_fragments(
    affinity: NDArray[np.float32], voxel_nm: tuple[float, float, float], seed_nm: float = 20.0
) -> NDArray[np.int32]:
    """(3, z, y, x) affinities -> fragments: watershed of the boundary map in each section, seeded where it is far.

    Sections of anisotropic volumes are flooded one by one and joined later by affinity along z; others in 3-D.
    """
    if voxel_nm[0] > 1.5 * voxel_nm[2]:
        boundary = 1 - affinity[1:].mean(0)
        out = np.zeros(boundary.shape, np.int32)
        last = 0
        for z in range(boundary.shape[0]):
            out[z] = _flood(boundary[z], voxel_nm[1:], seed_nm)
            out[z][out[z] > 0] += last
            last = max(last, int(out[z].max()))
        return out
    return _flood(1 - affinity.mean(0), voxel_nm, seed_nm)


def _flood(boundary: NDArray[np.float32], step_nm: tuple[float, ...], seed_nm: float) -> NDArray[np.int32]:
    distance = ndimage.distance_transform_edt(boundary < 0.5, sampling=step_nm)
    smooth = ndimage.gaussian_filter(distance, [seed_nm / s / 2 for s in step_nm])
    size = tuple(2 * max(1, round(seed_nm / s)) + 1 for s in step_nm)
    peaks = (smooth == ndimage.maximum_filter(smooth, size)) & (distance > min(step_nm))
    seeds, _ = ndimage.label(peaks, np.ones((3,) * boundary.ndim))
    fragments: NDArray[np.int32] = watershed(boundary, seeds).astype(np.int32)
    return fragments


def merged_at(
    fragments: NDArray[np.int32], affinity: NDArray[np.float32], thresholds: tuple[float, ...]
) -> list[NDArray[np.int32]]:
    """Merge touching fragments of mean affinity at or above each threshold, from the highest to the lowest.

    Means are taken again over the merged objects after each threshold, as in hierarchical agglomeration by mean
    affinity (Lee et al. 2017), in steps.
    """
    a, b, total, count = _faces(fragments, affinity)
    name = np.arange(int(fragments.max()) + 1)
    results = []
    for threshold in thresholds:
        while True:
            low, high = np.minimum(name[a], name[b]), np.maximum(name[a], name[b])
            key = low.astype(np.int64) * len(name) + high
            pair, inverse = np.unique(key, return_inverse=True)
            mean = np.bincount(inverse, total) / np.bincount(inverse, count)
            joined = (mean >= threshold) & (pair // len(name) != pair % len(name))
            if not joined.any():
                break
            for one, other in zip(pair[joined] // len(name), pair[joined] % len(name), strict=True):
                keep, drop = sorted((int(name[one]), int(name[other])))
                name[name == drop] = keep
        results.append(name[fragments].astype(np.int32))
    return results


def _faces(fragments: NDArray[np.int32], affinity: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Touching pairs (a < b) of fragments with the sum of affinities and the number of faces between them."""
    keys, values = [], []
    size = int(fragments.max()) + 1
    for axis in range(3):
        here = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
        there = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
        one, other = fragments[here], fragments[there]
        differ = (one != other) & (one > 0) & (other > 0)
        low = np.minimum(one, other)[differ].astype(np.int64)
        keys.append(low * size + np.maximum(one, other)[differ])
        values.append(affinity[axis][here][differ])
    pair, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(inverse, np.concatenate(values).astype(np.float64))
    return pair // size, pair % size, total, np.bincount(inverse).astype(np.float64, copy=False)


def cleft_scores(network: Network, volume: TrainingVolume, min_voxels: int = 20) -> dict[str, Any]:
    """Synapses found: components of the cleft channel at several thresholds against the listed synapses.

    A listed synapse counts as found where a component overlaps its cleft, and a component as true where it lies within
    a pixel or two of a listed cleft; precision is given only where the list is exhaustive. Polarity is right where
    "pre" exceeds "post" by more in the presynaptic partner next to the cleft than in the postsynaptic one.
    """
    if volume.synapses is None:
        return {}
    probability = network.predict(volume.image)
    every = synapse_masks(volume.labels, volume.synapses, volume.voxel_nm, volume.clefts)
    listed = [mask for mask in every if mask is not None]
    anywhere = np.zeros(volume.labels.shape, np.bool_)
    for mask in listed:
        anywhere[mask.box] |= mask.masks[0]
    near = ndimage.binary_dilation(anywhere, np.ones((3, 5, 5), np.bool_))
    result: dict[str, Any] = {"listed_synapses": len(listed)}
    rows = []
    for threshold in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        components, _ = ndimage.label(probability[0] >= threshold, np.ones((3, 3, 3)))
        kept = np.bincount(components.ravel()) >= min_voxels
        kept[0] = False
        recall = float(np.mean([bool(kept[components[mask.box][mask.masks[0]]].any()) for mask in listed]))
        row = {"threshold": threshold, "recall": _round(recall), "components": int(kept.sum())}
        if volume.synapses_exhaustive:
            precision = float(kept[np.unique(components[near])].sum()) / max(1, int(kept.sum()))
            row |= {
                "precision": _round(precision),
                "f1": _round(2 * precision * recall / max(1e-9, precision + recall)),
            }
        rows.append(row)
    if volume.synapses_exhaustive:
        result["cleft_voxels"] = detection_scores(probability[0], anywhere)
        result["best"] = max(rows, key=lambda row: row["f1"])
    result["by_threshold"] = rows
    polarity = probability[1] - probability[2]
    right = [
        float(polarity[mask.box][mask.masks[1]].mean()) > float(polarity[mask.box][mask.masks[2]].mean())
        for mask in listed
        if mask.masks[1].any() and mask.masks[2].any()
    ]
    result["polarity_right"] = _round(float(np.mean(right))) if right else None
    return result


def _adapted_rand_error(labels: NDArray[np.unsignedinteger], segments: NDArray[np.int32]) -> float:
    return _round(adapted_rand_error(labels, segments, ignore_labels=[0])[0])


def _round(value: float) -> float:
    return round(float(value), 4)
