"""Which labels touch, over how many voxel faces, with which affinity, and where."""

from __future__ import annotations

from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt

NM3 = tuple[float, float, float]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contacts:
    """One entry per touching pair, ascending by (a, b), a < b."""

    a: U64
    b: U64
    faces: npt.NDArray[np.int64]
    area_nm2: F64
    affinity: F64
    """Mean over the area of the contact, 0-1."""
    affinity_low: F64
    """Lower quartile over the faces."""
    affinity_high: F64
    centre_vx: F64
    """(n, 3): mean position (z, y, x) of the faces relative to the first voxel; a face lies half a voxel low."""


def contacts(labels: U64, affinity: npt.NDArray[np.uint8], inner: tuple[int, int, int], voxel_nm: NM3) -> Contacts:
    """Labels uint64 (z, y, x) and affinities uint8 (3, z, y, x) to the lower neighbour -> contacts.

    Counts the faces between each voxel at or above `inner` (z, y, x) and its lower neighbour: with labels of a core and
    one layer below it, every face of the volume is counted by exactly one block.
    """
    ids, dense = _renumber(labels)
    keys, strengths, axes, places = [], [], [], []
    for axis in range(3):
        upper = tuple(slice(max(low, int(axis == k)), None) for k, low in enumerate(inner))
        lower = tuple(slice(max(low, 1) - 1, -1) if axis == k else slice(low, None) for k, low in enumerate(inner))
        u, v = dense[upper], dense[lower]
        at = np.flatnonzero((u != v) & (u != 0) & (v != 0))
        one, two = u.ravel()[at].astype(np.int64), v.ravel()[at].astype(np.int64)
        keys.append(np.minimum(one, two) * len(ids) + np.maximum(one, two))
        strengths.append(affinity[axis][upper].ravel()[at])
        axes.append(np.full(len(at), axis, np.int8))
        place = np.stack(np.unravel_index(at, u.shape), axis=1).astype(np.float64)
        place += np.asarray([s.start for s in upper], np.float64)
        place[:, axis] -= 0.5
        places.append(place)
    return _summarise(
        ids, np.concatenate(keys), np.concatenate(strengths), np.concatenate(axes), np.concatenate(places), voxel_nm
    )


def _renumber(labels: U64) -> tuple[U64, npt.NDArray[np.int32]]:
    """Labels -> (ascending ids with 0 first, index per voxel): small numbers make one sortable key of a pair."""
    ids, index = fastremap.unique(labels, return_inverse=True)
    if len(ids) == 0 or ids[0] != 0:
        return np.concatenate([np.zeros(1, np.uint64), ids.astype(np.uint64)]), (
            index.reshape(labels.shape) + 1
        ).astype(np.int32)
    return ids.astype(np.uint64), index.reshape(labels.shape).astype(np.int32)


def _summarise(
    ids: U64,
    key: npt.NDArray[np.int64],
    strength: npt.NDArray[np.uint8],
    axis: npt.NDArray[np.int8],
    place: F64,
    voxel_nm: NM3,
) -> Contacts:
    # Sorted by pair, then by affinity: the quartiles of a pair are at fixed ranks within its stretch.
    order = np.argsort(key * 256 + strength, kind="stable")
    key, strength, axis, place = key[order], strength[order], axis[order], place[order]
    pair, first, faces = np.unique(key, return_index=True, return_counts=True)
    z, y, x = voxel_nm
    area = np.asarray([y * x, z * x, z * y])[axis]
    total = _sums(area, first)
    value = strength.astype(np.float64) / 255
    return Contacts(
        a=ids[pair // len(ids)],
        b=ids[pair % len(ids)],
        faces=faces.astype(np.int64),
        area_nm2=total,
        affinity=_sums(value * area, first) / total,
        affinity_low=value[first + (faces - 1) // 4],
        affinity_high=value[first + (3 * (faces - 1)) // 4],
        centre_vx=np.stack([_sums(place[:, k], first) / faces for k in range(3)], axis=1),
    )


def _sums(values: F64, first: npt.NDArray[np.int64]) -> F64:
    return np.asarray(np.add.reduceat(values, first), np.float64) if len(first) else np.zeros(0)
