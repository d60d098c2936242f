"""True contacts between pieces of neurites, and the synapses put on them."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from connectome_db.phantom.partition import Partition
from connectome_db.phantom.paths import AXON, Balls

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_PATCH_NM = 130.0
_AREA_PER_SAMPLE_NM2 = 1500.0


@dataclass(frozen=True)
class Pieces:
    """Neurites as the volume cuts them: each label is 6-connected inside the volume."""

    labels: U32
    """(z, y, x), 0 = membrane, gap, or dust."""
    of_ball: I64
    """(n balls,) the label that most of a ball's voxels have; 0 = none."""
    neurite: I64
    """(labels + 1,) the neurite of each label; entry 0 is -1."""
    dust_balls: npt.NDArray[np.bool_]
    """(n balls,) balls all of whose voxels lie in pieces below the dust size."""


@dataclass(frozen=True)
class Site:
    """A synapse: a disc on the wall between two labels."""

    centre_nm: F64
    radius_nm: float
    pre: int
    post: int


def pieces(balls: Balls, part: Partition, gap_nm: float, dust_vx: int) -> Pieces:
    """Connected pieces of each neurite, numbered densely from 1 in raster order; pieces below `dust_vx` become 0."""
    neurite = (balls.neurite[part.first] + 1).astype(np.uint32)
    neurite[part.wall_nm < gap_nm] = 0
    found = cc3d.connected_components(neurite, connectivity=6)
    size = np.bincount(found.ravel())
    kept = size >= dust_vx
    kept[0] = False
    renumber = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    owner = np.full(int(kept.sum()) + 1, -1, np.int64)
    labels: U32 = renumber[found]
    inside = labels > 0
    owner[labels[inside]] = neurite[inside].astype(np.int64) - 1

    count = len(balls.radius_nm)
    # A quarter of the voxels decides a majority as well as all of them.
    ball, piece = part.first[:, ::2, ::2].ravel().astype(np.int64), found[:, ::2, ::2].ravel().astype(np.int64)
    pair, votes = np.unique(ball[piece > 0] * (size.size) + piece[piece > 0], return_counts=True)
    best = np.zeros(count, np.int64)
    order = np.lexsort((-pair, votes))
    best[pair[order] // size.size] = pair[order] % size.size
    of_ball = renumber[best].astype(np.int64)
    dust = (best > 0) & (of_ball == 0)
    for _ in range(3):  # a ball just outside the volume belongs to its neighbour's piece
        for other in (balls.before, balls.after):
            lone = (best == 0) & (of_ball == 0)
            of_ball = np.where(lone, of_ball[other], of_ball)
    return Pieces(labels, of_ball, owner, dust)


def half_thickness_nm(part: Partition, voxel_nm: tuple[int, int, int], base_nm: float) -> F32:
    """Distance from a wall up to which voxel centres count as on it, so that a tilted wall stays connected."""
    return (base_nm + 0.5 * voxel_nm[0] * part.tilt).astype(np.float32)


def place_synapses(
    rng: np.random.Generator,
    balls: Balls,
    part: Partition,
    cut: Pieces,
    voxel_nm: tuple[int, int, int],
    per_um3: float,
    apart_nm: float,
) -> list[Site]:
    """Choose synapse sites on axon-dendrite contacts wide enough for them; many pairs get more than one.

    Sites keep `apart_nm` from each other, so that each is one component for whoever segments clefts.
    """
    thick = half_thickness_nm(part, voxel_nm, 6.0)
    role = balls.role[balls.neurite]
    pre_side = (part.wall_nm < thick) & (role == AXON)[part.first] & (role != AXON)[part.second]
    pre_side[:2], pre_side[-2:] = False, False
    where = np.flatnonzero(pre_side)
    voxel_area = float(np.prod(voxel_nm)) / thick.ravel()[where]
    where = where[rng.random(where.size) < voxel_area / _AREA_PER_SAMPLE_NM2]
    pre = cut.of_ball[part.first.ravel()[where]]
    post = cut.of_ball[part.second.ravel()[where]]
    real = (pre > 0) & (post > 0)
    where, pre, post = where[real], pre[real], post[real]
    point = np.stack(np.unravel_index(where, part.first.shape), axis=1) * np.asarray(voxel_nm, np.float64)
    pair, number, samples = np.unique(pre * len(cut.neurite) + post, return_inverse=True, return_counts=True)
    if pair.size == 0:
        return []
    # The pair's number as a far-apart fourth coordinate: one tree answers for all pairs at once.
    tree = cKDTree(np.column_stack([point, number * 1e6]))
    near = tree.query_ball_point(tree.data, _PATCH_NM, return_length=True)
    fullness: F64 = np.asarray(near, np.float64) * _AREA_PER_SAMPLE_NM2 / (np.pi * _PATCH_NM**2)
    wanted = max(1, round(per_um3 * part.first.size * float(np.prod(voxel_nm)) * 1e-9))
    turn = np.argsort(-(samples**1.5) * rng.exponential(1.0, pair.size), kind="stable")
    several = 1 + np.minimum(3, rng.poisson(1.8, pair.size))
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(samples)[:-1])
    sites: list[Site] = []
    taken = np.empty((0, 3))
    for k in turn:
        rows = members[k]
        rows = rows[fullness[rows] >= 0.62]
        rows = rows[np.argsort(-fullness[rows] - 0.5 * rng.random(rows.size), kind="stable")]
        here = 0
        while rows.size and here < several[k] and len(sites) < wanted:
            if len(taken):
                free = ((point[rows][:, None] - taken) ** 2).sum(axis=2).min(axis=1) >= apart_nm**2
                rows = rows[free]
                if not rows.size:
                    break
            i = rows[0]
            sites.append(Site(point[i], float(rng.uniform(120, 185)), int(pre[i]), int(post[i])))
            taken = np.vstack([taken, point[i]])
            here += 1
    return sites


@dataclass(frozen=True)
class Painted:
    """What the synapses leave in the volume."""

    cleft: U32
    """(z, y, x) synapse id (1-based, in the order of sites that left voxels) on the cleft, 0 elsewhere."""
    darkness: F32
    """(z, y, x) grey levels to take off: postsynaptic density and active zone."""
    rows: list[tuple[float, float, float, int, int, float, int]]
    """Per id: centroid z, y, x (voxels), pre, post, area in nm2, cleft voxels."""
    sites: list[Site]
    """The site of each id."""


def paint_clefts(sites: list[Site], part: Partition, cut: Pieces, voxel_nm: tuple[int, int, int]) -> Painted:
    """Mark cleft voxels and the dark densities: thick on the postsynaptic side, thin on the presynaptic one."""
    shape = part.first.shape
    voxel = np.asarray(voxel_nm, np.float64)
    cleft = np.zeros(shape, np.uint32)
    darkness = np.zeros(shape, np.float32)
    rows: list[tuple[float, float, float, int, int, float, int]] = []
    kept: list[Site] = []
    for site in sites:
        reach = site.radius_nm + 60
        low = np.maximum(0, np.ceil((site.centre_nm - reach) / voxel)).astype(int)
        high = np.minimum(shape, np.floor((site.centre_nm + reach) / voxel).astype(int) + 1)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        own, other = cut.of_ball[part.first[box]], cut.of_ball[part.second[box]]
        after = (own == site.post) & (other == site.pre)
        between = after | ((own == site.pre) & (other == site.post))
        grid = [np.arange(a, b) * v - c for a, b, v, c in zip(low, high, voxel, site.centre_nm, strict=True)]
        away = np.sqrt(grid[0][:, None, None] ** 2 + grid[1][:, None] ** 2 + grid[2] ** 2)
        wall, tilt = part.wall_nm[box], part.tilt[box]
        half = 10.0 + 0.5 * voxel[0] * tilt
        mine = between & (wall < half) & (away < site.radius_nm)
        if mine.sum() < 20:
            continue
        kept.append(site)
        cleft[box][mine] = len(kept)
        centroid = [float(v) for v in np.mean(np.nonzero(mine), axis=1) + low]
        area = float((np.prod(voxel) / (2 * half[mine])).sum())
        rows.append((centroid[0], centroid[1], centroid[2], site.pre, site.post, area, int(mine.sum())))
        rim = between / (1 + np.exp((away - site.radius_nm) / 9.0))
        blur = 5.0 * tilt**2 * voxel[0] / 30
        depth = np.where(after, 122 * np.exp(-((wall / (40 + blur)) ** 4)), 96 * np.exp(-((wall / (17 + blur)) ** 2)))
        darkness[box] = np.maximum(darkness[box], (rim * depth).astype(np.float32))
    return Painted(cleft, darkness, rows, kept)
