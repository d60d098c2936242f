"""Synapse truth -> training masks: the cleft, and the pre- and postsynaptic sides next to it.

Truth comes as one point per synapse with the labels of the two partners. The cleft is where the two partners face each
other near that point; the sides are what lies near the cleft in either partner, so a network that learns them tells
who is presynaptic (after Turner et al. 2020, arXiv:1904.09947, and Buhmann et al. 2021, 10.1038/s41592-021-01183-7).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLEFT_CHANNELS = ("cleft", "pre", "post")


@dataclass(frozen=True)
class SynapsePoints:
    """True synapses: positions in voxels (z, y, x) of the volume, partners' labels, extent."""

    points_vx: NDArray[np.int64]
    """(n, 3): z, y, x of a voxel in or next to the cleft."""
    pre: NDArray[np.uint64]
    post: NDArray[np.uint64]
    radius_nm: NDArray[np.float64]
    """(n,): how far from its point the cleft reaches at most."""


def cleft_targets(
    labels: NDArray[np.unsignedinteger],
    synapses: SynapsePoints,
    voxel_nm: tuple[float, float, float],
    *,
    reach_nm: float = 24.0,
    side_nm: float = 60.0,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(z, y, x) labels and synapses -> ((3, z, y, x) masks in the order of CLEFT_CHANNELS, (n,) found).

    The cleft of a synapse: voxels at most `reach_nm` from both partners and at most `radius_nm` from the point, the
    connected part nearest to the point. The sides: voxels of a partner at most `side_nm` from that cleft.
    found[i] is false where the partners do not come that close near the point; such a synapse marks nothing.
    """
    masks = np.zeros((3, *labels.shape), np.bool_)
    found = np.zeros(len(synapses.points_vx), np.bool_)
    for i, (point, pre, post, radius_nm) in enumerate(
        zip(synapses.points_vx, synapses.pre, synapses.post, synapses.radius_nm, strict=True)
    ):
        reach = [int(np.ceil((radius_nm + side_nm + reach_nm) / step)) for step in voxel_nm]
        low = [max(0, int(p) - r) for p, r in zip(point, reach, strict=True)]
        cell = tuple(
            slice(lo, min(n, int(p) + r + 1)) for lo, p, r, n in zip(low, point, reach, labels.shape, strict=True)
        )
        part = labels[cell]
        centre = np.asarray(point) - np.array(low, np.int64)
        near = _distance_to_point(part.shape, centre, voxel_nm)
        is_pre, is_post = part == pre, part == post
        if not is_pre.any() or not is_post.any():
            continue
        facing = (_distance_nm(is_pre, voxel_nm) <= reach_nm) & (_distance_nm(is_post, voxel_nm) <= reach_nm)
        pieces, count = ndimage.label(facing & (near <= radius_nm), np.ones((3, 3, 3)))
        if count == 0:
            continue
        nearest = np.argmin(np.where(pieces > 0, near, np.inf))
        cleft = pieces == pieces.flat[nearest]
        beside = _distance_nm(cleft, voxel_nm) <= side_nm
        for channel, mask in enumerate((cleft, is_pre & beside, is_post & beside)):
            masks[channel][cell] |= mask
        found[i] = True
    return masks, found


def known_negatives(
    labels: NDArray[np.unsignedinteger],
    synapses: SynapsePoints,
    voxel_nm: tuple[float, float, float],
    *,
    near_nm: float = 350.0,
    interior_nm: float = 90.0,
    interior_weight: float = 0.3,
    elsewhere_weight: float = 0.05,
) -> NDArray[np.float32]:
    """Weight (z, y, x) of each voxel in the loss where the list of synapses is not exhaustive.

    1 within `near_nm` of a listed synapse; `interior_weight` deep inside a cell, at least `interior_nm` (within the
    section) from its boundary, where no cleft can be; `elsewhere_weight` at all other membranes, most of which
    are no synapses but some are unlisted ones.
    """
    weight = np.full(labels.shape, elsewhere_weight, np.float32)
    for z in range(labels.shape[0]):
        section = labels[z]
        edge = section == 0
        edge[1:] |= section[1:] != section[:-1]
        edge[:, 1:] |= section[:, 1:] != section[:, :-1]
        if edge.all() or not edge.any():
            continue
        inside = ndimage.distance_transform_edt(~edge, sampling=voxel_nm[1:]) >= interior_nm
        weight[z][inside] = interior_weight
    for point in synapses.points_vx:
        reach = [int(np.ceil(near_nm / step)) for step in voxel_nm]
        low = [max(0, int(p) - r) for p, r in zip(point, reach, strict=True)]
        cell = tuple(
            slice(lo, min(n, int(p) + r + 1)) for lo, p, r, n in zip(low, point, reach, labels.shape, strict=True)
        )
        part = weight[cell]
        part[_distance_to_point(part.shape, np.asarray(point) - np.array(low, np.int64), voxel_nm) <= near_nm] = 1.0
    return weight


def _distance_nm(mask: NDArray[np.bool_], voxel_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~mask, sampling=voxel_nm)
    return distance


def _distance_to_point(
    shape: tuple[int, ...], centre: NDArray[np.int64], voxel_nm: tuple[float, float, float]
) -> NDArray[np.float64]:
    axes = [(np.arange(n) - c) * step for n, c, step in zip(shape, centre, voxel_nm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance: NDArray[np.float64] = np.sqrt(z * z + y * y + x * x)
    return distance
