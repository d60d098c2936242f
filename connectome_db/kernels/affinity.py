"""Labels -> affinity targets: does a voxel belong to the same object as the voxel `offset` before it?

Turaga et al. 2010 (nearest neighbours); Lee et al. 2017, arXiv:1706.00120 (long-range ones as an auxiliary task).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError

Offset = tuple[int, int, int]


def channel_names(offsets: Sequence[Offset]) -> tuple[str, ...]:
    """Name the channel of each offset: (1, 0, 0) -> "aff_z1", the affinity of voxel z to voxel z - 1."""
    names = []
    for offset in offsets:
        moved = [(axis, step) for axis, step in zip("zyx", offset, strict=True) if step != 0]
        if len(moved) != 1 or moved[0][1] < 0:
            raise ConfigError(f"offset: wanted one positive step along one axis (z, y, x), got {offset}")
        names.append(f"aff_{moved[0][0]}{moved[0][1]}")
    return tuple(names)


def offsets_of(channels: Sequence[str]) -> dict[str, Offset]:
    """The offset (z, y, x) of each channel that is an affinity, in their order: "aff_y9" -> (0, 9, 0)."""
    found = {}
    for name in channels:
        match = re.fullmatch(r"aff_([zyx])([1-9][0-9]*)", name)
        if match:
            z, y, x = (int(match[2]) if axis == match[1] else 0 for axis in "zyx")
            found[name] = (z, y, x)
    return found


def affinity_targets(
    labels: NDArray[np.unsignedinteger], offsets: Sequence[Offset]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(z, y, x) labels -> (target, valid), each (offset, z, y, x).

    target[k, v] is true if v and v - offsets[k] have the same non-zero label; valid[k, v] is false where v - offsets[k]
    lies outside the array. Label 0 is boundary or extracellular space: affine to nothing.
    """
    target = np.zeros((len(offsets), *labels.shape), np.bool_)
    valid = np.zeros_like(target)
    for k, offset in enumerate(offsets):
        here = tuple(slice(step, None) for step in offset)
        there = tuple(slice(0, max(0, n - step)) for n, step in zip(labels.shape, offset, strict=True))
        target[k][here] = (labels[here] == labels[there]) & (labels[here] != 0)
        valid[k][here] = True
    return target, valid


def thicken_boundaries(labels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Set to 0 every voxel with a different label among its 4 neighbours in the section.

    Truth without a boundary label (two touching labels) would ask for an infinitely thin boundary; this makes it two
    voxels wide, about a membrane at 8 nm.
    """
    edge = np.zeros(labels.shape, np.bool_)
    across_y = labels[:, 1:] != labels[:, :-1]
    across_x = labels[:, :, 1:] != labels[:, :, :-1]
    edge[:, 1:] |= across_y
    edge[:, :-1] |= across_y
    edge[:, :, 1:] |= across_x
    edge[:, :, :-1] |= across_x
    out = labels.copy()
    out[edge] = 0
    return out
