"""Affinities -> supervoxels: a seeded watershed on the affinity graph.

Seeds are the local maxima of the anisotropic distance to the nearest boundary (Beucher & Lantuejoul 1979; in this
field: Beier et al. 2017, 10.1038/nmeth.4151; Funke et al. 2018, 10.1109/TPAMI.2018.2835450), and the graph is flooded
from them along its strongest edges first (watershed cut: Cousty et al. 2009, 10.1109/TPAMI.2008.173; on affinities:
Zlateski & Seung 2015, arXiv:1505.00249). Point-like seeds split too much on purpose: merges are decided later, with a
score each, and splitting is all that they cannot do.

affinity: uint8 (3, z, y, x); affinity[k, v] = 255 means that v and its lower neighbour on axis k are surely one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

NM3 = tuple[float, float, float]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WatershedOptions:
    """How supervoxels are seeded and grown. Lengths in nm, affinities 0-1."""

    boundary: float
    """A voxel whose mean affinity within the section is below this is boundary."""
    seed_depth_nm: float
    """A seed lies at least this far from any boundary."""
    seed_window_nm: float
    """A seed is the deepest point within this distance along each axis (a box)."""
    smooth_nm: float
    """Standard deviation of the Gaussian that smooths the distances."""
    max_depth_nm: float
    """Distances are cut off here, which bounds how far a seed can depend on its surroundings."""
    interior: float
    """Edges below this are crossed only after every connected interior has a seed of its own."""
    min_interior_vx: int
    """A connected interior without a seed becomes one from this size on."""


def in_plane(voxel_nm: NM3) -> tuple[int, ...]:
    """Axes whose affinities tell boundary from interior: all, or y and x where sections are far apart."""
    return (1, 2) if voxel_nm[0] > 1.5 * max(voxel_nm[1:]) else (0, 1, 2)


def interior_map(affinity: U8, voxel_nm: NM3) -> npt.NDArray[np.float32]:
    """Mean affinity, 0-1, of each voxel over its faces on the axes of `in_plane`: float32 (z, y, x)."""
    axes = in_plane(voxel_nm)
    total = np.zeros(affinity.shape[1:], np.float32)
    for axis in axes:
        here = affinity[axis].astype(np.float32)
        total += here
        inner: list[slice] = [slice(None)] * 3
        upper: list[slice] = [slice(None)] * 3
        inner[axis], upper[axis] = slice(0, -1), slice(1, None)
        total[tuple(inner)] += here[tuple(upper)]
        inner[axis] = slice(-1, None)
        total[tuple(inner)] += here[tuple(inner)]  # no upper neighbour: its lower face speaks for both
    return total / np.float32(255 * 2 * len(axes))


def seeds(affinity: U8, tissue: Mask, voxel_nm: NM3, options: WatershedOptions) -> I32:
    """Numbered seeds 1, 2, ... in raster order: int32 (z, y, x), 0 elsewhere."""
    inside = (interior_map(affinity, voxel_nm) >= options.boundary) & tissue
    if not inside.any():
        return np.zeros(inside.shape, np.int32)
    if inside.all():
        depth = np.full(inside.shape, options.max_depth_nm, np.float32)
    else:
        depth = ndimage.distance_transform_edt(inside, sampling=voxel_nm).astype(np.float32)
    depth = np.minimum(depth, np.float32(options.max_depth_nm))
    smooth = ndimage.gaussian_filter(depth, [options.smooth_nm / step for step in voxel_nm], truncate=3.0)
    # Whole numbers, so that two blocks that see the same tissue agree on every comparison.
    level = np.round(smooth * 4).astype(np.int32)
    window = [2 * max(1, round(options.seed_window_nm / step)) + 1 for step in voxel_nm]
    top = (ndimage.maximum_filter(level, size=window) == level) & (depth >= options.seed_depth_nm) & inside
    return np.asarray(cc3d.connected_components(top, connectivity=26), dtype=np.int32)


def supervoxels(affinity: U8, tissue: Mask, voxel_nm: NM3, options: WatershedOptions, bodies: I32 | None = None) -> I32:
    """Affinities uint8 (3, z, y, x) and tissue bool (z, y, x) -> labels int32 (z, y, x), 0 outside tissue.

    Every label is connected through faces, except perhaps those of `bodies` (int32 (z, y, x), 0 = none): what has a
    body keeps it, bodies grow like other labels, and a seed that touches one is not used; new labels come after the
    highest of them. First the interiors are flooded (edges of at least `interior`), then what
    interior is left without a label gets its own, then the boundaries are shared out.
    """
    labels = seeds(affinity, tissue, voxel_nm, options)
    if bodies is not None:
        inside = np.unique(labels[bodies > 0])
        free = (labels > 0) & ~np.isin(labels, inside)
        labels = np.where(free, labels + int(bodies.max()), bodies).astype(np.int32)
    blocked = np.where(tissue, labels, -1).astype(np.int32)
    padded = np.pad(blocked, 1, constant_values=-1)
    edges = np.pad(affinity, ((0, 0), (1, 1), (1, 1), (1, 1)))
    floor = int(np.ceil(options.interior * 255))
    _flood(padded.ravel(), edges.reshape(3, -1), np.asarray(padded.strides) // padded.itemsize, floor)
    core = padded[1:-1, 1:-1, 1:-1]
    left = (core == 0) & (interior_map(affinity, voxel_nm) >= options.boundary)
    if left.any():
        rest, count = cc3d.connected_components(left, connectivity=6, return_N=True)
        large = np.bincount(rest.ravel(), minlength=count + 1) >= options.min_interior_vx
        large[0] = False
        number = np.where(large, np.cumsum(large) + int(labels.max()), 0).astype(np.int32)
        core[left] = number[rest[left]]
    _flood(padded.ravel(), edges.reshape(3, -1), np.asarray(padded.strides) // padded.itemsize, 0)
    return np.ascontiguousarray(np.maximum(core, 0))


def grow(labels: I32, affinity: U8, tissue: Mask) -> I32:
    """Share out the tissue without a label among the labels int32 (z, y, x), along the strongest edges first.

    Affinities as for `supervoxels`. Tissue that no label reaches through faces stays 0.
    """
    padded = np.pad(np.where(tissue, labels, -1).astype(np.int32), 1, constant_values=-1)
    edges = np.pad(affinity, ((0, 0), (1, 1), (1, 1), (1, 1)))
    _flood(padded.ravel(), edges.reshape(3, -1), np.asarray(padded.strides) // padded.itemsize, 0)
    return np.ascontiguousarray(np.maximum(padded[1:-1, 1:-1, 1:-1], 0))


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _flood(labels: I32, affinity: U8, stride: npt.NDArray[np.int64], floor: int) -> None:  # noqa: PLR0912  # one compiled loop
    """Grow labels > 0 over labels == 0 in place, strongest edge first, first in first out among equals.

    `labels` is flat with a border of -1 (blocked); `affinity` (3, n) is laid out alike. An edge is named by
    axis * n + upper voxel and waits at most once: it is queued when its first end is labelled. So one array of links
    holds all 256 queues.
    """
    n = labels.size
    link = np.empty(3 * n, np.int32)
    head = np.full(256, -1, np.int32)
    tail = np.full(256, -1, np.int32)
    level = -1
    start = 0
    while True:
        # Take the next labelled voxel: first all that have labels already, in raster order, then those just reached.
        voxel = -1
        while start < n and voxel < 0:
            if labels[start] > 0:
                voxel = start
            start += 1
        while voxel < 0:
            while level >= floor and head[level] < 0:
                level -= 1
            if level < floor:
                return
            edge = head[level]
            head[level] = link[edge]
            axis = edge // n
            upper = edge - axis * n
            lower = upper - stride[axis]
            if labels[upper] == 0:
                labels[upper] = labels[lower]
                voxel = upper
            elif labels[lower] == 0:
                labels[lower] = labels[upper]
                voxel = lower
        for axis in range(3):
            for side in range(2):
                upper = voxel + side * stride[axis]
                other = upper - stride[axis] if side == 0 else upper
                if labels[other] != 0:
                    continue
                strength = affinity[axis, upper]
                edge = axis * n + upper
                link[edge] = -1
                if head[strength] < 0:
                    head[strength] = edge
                else:
                    link[tail[strength]] = edge
                tail[strength] = edge
                level = max(level, strength)
