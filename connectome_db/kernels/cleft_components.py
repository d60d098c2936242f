"""Cleft probabilities -> one component per synapse.

Hysteresis (Canny 1986): a component reaches out to `low` but must hold a voxel of at least `high`, so that its extent
is stable while its existence needs strong evidence. Components and size gates as in Turner et al. 2020,
arXiv:1904.09947.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CleftComponents:
    """Components in raster order of their first voxel; entry i has label i + 1."""

    labels: npt.NDArray[np.int32]
    """(z, y, x), 0 = none."""
    size_vx: npt.NDArray[np.int64]
    confidence: F64
    """Mean cleft probability, 0-1."""
    centre_vx: F64
    """(n, 3): centroid weighted by probability (z, y, x). It hardly moves when the rim of a component changes."""
    boxes: tuple[tuple[slice, slice, slice], ...]


def cleft_components(
    cleft: npt.NDArray[np.uint8], tissue: Mask, *, low: float, high: float, min_vx: int
) -> CleftComponents:
    """Cleft probability uint8 (255 = 1) and tissue, both (z, y, x) -> 26-connected components of at least `min_vx`."""
    found = cc3d.connected_components((cleft >= np.ceil(low * 255)) & tissue, connectivity=26)
    flat = found.ravel()
    inside = np.flatnonzero(flat)
    label = flat[inside].astype(np.int64)
    weight = cleft.ravel()[inside].astype(np.float64)
    count = int(label.max()) if len(label) else 0
    size = np.bincount(label, minlength=count + 1)
    peak = np.zeros(count + 1, np.uint8)
    np.maximum.at(peak, label, cleft.ravel()[inside])
    keep = (size >= max(1, min_vx)) & (peak >= np.ceil(high * 255))
    keep[0] = False
    total = np.bincount(label, weight, count + 1)[keep]
    place = np.unravel_index(inside, cleft.shape)
    centre = [np.bincount(label, weight * p, count + 1)[keep] / total for p in place]
    boxes = cc3d.statistics(found)["bounding_boxes"]
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return CleftComponents(
        labels=number[found],
        size_vx=size[keep].astype(np.int64),
        confidence=total / size[keep] / 255,
        centre_vx=np.stack(centre, axis=1),
        boxes=tuple(boxes[i] for i in np.flatnonzero(keep)),
    )
