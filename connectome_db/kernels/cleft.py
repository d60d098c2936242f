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


@dataclass(frozen=True)
class SynapseMask:
    """One synapse's masks, cut to a box of the volume."""

    box: tuple[slice, slice, slice]
    masks: NDArray[np.bool_]
    """(3, z, y, x) of the box, in the order of CLEFT_CHANNELS."""


def synapse_masks(
    labels: NDArray[np.unsignedinteger],
    synapses: SynapsePoints,
    voxel_nm: tuple[float, float, float],
    clefts: NDArray[np.unsignedinteger] | None = None,
    *,
    reach_nm: float = 24.0,
    side_nm: float = 60.0,
) -> list[SynapseMask | None]:
    """(z, y, x) labels and synapses -> per synapse its masks, or None where the partners do not face each other.

    Given `clefts` (z, y, x), in which value i + 1 marks the cleft of synapse i, that is the cleft. Without it, the
    cleft is where voxels are at most `reach_nm` from both partners and at most `radius_nm` from the point: the
    connected part nearest to the point. The sides: voxels of a partner at most `side_nm` from the cleft.
    """
    painted = [] if clefts is None else ndimage.find_objects(clefts.astype(np.int64), len(synapses.pre))
    result: list[SynapseMask | None] = []
    for i in range(len(synapses.pre)):
        point, pre, post = synapses.points_vx[i], synapses.pre[i], synapses.post[i]
        if clefts is None:
            radius_nm = float(synapses.radius_nm[i])
            box = _around(point, point + 1, radius_nm + side_nm + reach_nm, voxel_nm, labels.shape)
            near = _distance_to_point(box, point, voxel_nm)
            cleft = _facing_part(labels[box], int(pre), int(post), near, radius_nm, reach_nm, voxel_nm)
        elif painted[i] is None:
            cleft = None
        else:
            low, high = np.array([(part.start, part.stop) for part in painted[i]]).T
            box = _around(low, high, side_nm, voxel_nm, labels.shape)
            cleft = clefts[box] == i + 1
        if cleft is None:
            result.append(None)
            continue
        beside = _distance_nm(cleft, voxel_nm) <= side_nm
        sides = [(labels[box] == partner) & beside for partner in (pre, post)]
        result.append(SynapseMask(box, np.stack([cleft, *sides])))
    return result


def cleft_targets(
    labels: NDArray[np.unsignedinteger],
    synapses: SynapsePoints,
    voxel_nm: tuple[float, float, float],
    clefts: NDArray[np.unsignedinteger] | None = None,
) -> NDArray[np.bool_]:
    """(z, y, x) labels and synapses -> (3, z, y, x) masks in the order of CLEFT_CHANNELS, as by `synapse_masks`."""
    out = np.zeros((3, *labels.shape), np.bool_)
    for found in synapse_masks(labels, synapses, voxel_nm, clefts):
        if found is not None:
            for channel in range(3):
                out[channel][found.box] |= found.masks[channel]
    return out


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
        box = _around(point, point + 1, near_nm, voxel_nm, labels.shape)
        weight[box][_distance_to_point(box, point, voxel_nm) <= near_nm] = 1.0
    return weight


def _facing_part(
    part: NDArray[np.unsignedinteger],
    pre: int,
    post: int,
    near_nm: NDArray[np.float64],
    radius_nm: float,
    reach_nm: float,
    voxel_nm: tuple[float, float, float],
) -> NDArray[np.bool_] | None:
    is_pre, is_post = part == pre, part == post
    if not is_pre.any() or not is_post.any():
        return None
    facing = (_distance_nm(is_pre, voxel_nm) <= reach_nm) & (_distance_nm(is_post, voxel_nm) <= reach_nm)
    pieces, count = ndimage.label(facing & (near_nm <= radius_nm), np.ones((3, 3, 3)))
    if count == 0:
        return None
    nearest = np.argmin(np.where(pieces > 0, near_nm, np.inf))
    cleft: NDArray[np.bool_] = pieces == pieces.flat[nearest]
    return cleft


def _around(
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    reach_nm: float,
    voxel_nm: tuple[float, float, float],
    shape: tuple[int, ...],
) -> tuple[slice, slice, slice]:
    """The box [low, high) grown by `reach_nm` on all sides, within the volume."""
    reach = [int(np.ceil(reach_nm / step)) for step in voxel_nm]
    z, y, x = (
        slice(max(0, int(lo) - r), min(n, int(hi) + r)) for lo, hi, r, n in zip(low, high, reach, shape, strict=True)
    )
    return z, y, x


def _distance_nm(mask: NDArray[np.bool_], voxel_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~mask, sampling=voxel_nm)
    return distance


def _distance_to_point(
    box: tuple[slice, slice, slice], point: NDArray[np.int64], voxel_nm: tuple[float, float, float]
) -> NDArray[np.float64]:
    axes = [
        (np.arange(part.start, part.stop) - int(p)) * step for part, p, step in zip(box, point, voxel_nm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance: NDArray[np.float64] = np.sqrt(z * z + y * y + x * x)
    return distance
