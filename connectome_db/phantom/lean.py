"""Straighten tissue, so that "aligned" has one meaning.

From images alone nobody can tell tissue that leans as a whole from a stack that drifts (the "banana problem", Saalfeld
et al. 2012). Truth must have an answer, so the mean lean that an affine map per section could take off is fitted to the
walls and taken away; single neurites run in all directions. It does not vanish for every way of measuring it: block
matching on the aligned image still adds up a few px over 48 sections (seeds 7, 8, 9: 1.8, 5.4, 5.0 px by the median of
blocks, against 8.7, 7.9, 4.3 px without this step). A drift below that is no fault of an aligner.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from connectome_db.phantom.partition import WARP_STEP_NM, partition
from connectome_db.phantom.paths import Balls

F64 = npt.NDArray[np.float64]

_VOXEL_NM = (30, 24, 24)
_ROUNDS = 6
_GAIN = 2.5
"""The fit tells about 0.2-0.4 of the lean that is left, as the mean follows the walls that move least."""
_STILL_NM = 18.0
"""Walls that move further than this from a 30 nm section to the next do not look like the same line and count less."""


def straighten(balls: Balls, extent_nm: F64) -> Balls:
    """Shear `balls` with depth so that walls in the box (0 .. extent_nm) hardly move on average, nor turn."""
    shape = tuple(int(n) for n in np.ceil(extent_nm / _VOXEL_NM))
    flat = np.zeros((3, *(int(n) for n in np.ceil(extent_nm / WARP_STEP_NM).astype(int) + 3)), np.float32)
    for _ in range(_ROUNDS):
        part = partition(balls, (shape[0], shape[1], shape[2]), _VOXEL_NM, flat)
        where = np.flatnonzero(part.wall_nm < 14.0)
        first, second = part.first.ravel()[where], part.second.ravel()[where]
        point = np.stack(np.unravel_index(where, shape), axis=1) * np.asarray(_VOXEL_NM, np.float64)
        across = balls.position_nm[second] - balls.position_nm[first]
        balls = _shear(balls, extent_nm, np.asarray(point, np.float64), across)
    return balls


def _shear(balls: Balls, extent_nm: F64, point_nm: F64, normal: F64) -> Balls:
    """One round: fit the mean motion of walls, (n, 3) points and normals, at each depth, and move balls against it."""
    normal = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9)
    flat = np.linalg.norm(normal[:, 1:], axis=1) + 1e-6
    weight = np.exp(-((30.0 * normal[:, 0] / flat / _STILL_NM) ** 2))
    centre = 0.5 * extent_nm[1:]

    def place(nm: F64) -> F64:
        return np.column_stack([np.ones(len(nm)), np.clip((nm[:, 1:] - centre) / centre, -1.3, 1.3)])

    # Unknown per depth: the lean (dy/dz, dx/dz) as a linear function of the place, 3 + 3 numbers. A wall tells only its
    # motion along its normal: normal_yx . lean = -normal_z.
    row = (normal[:, 1:, None] * place(point_nm)[:, None, :]).reshape(-1, 6)
    depth = np.arange(0.0, extent_nm[0] + 30.0, 30.0)
    lean = np.zeros((len(depth), 6))
    for k, z in enumerate(depth):
        some = np.abs(point_nm[:, 0] - z) < 100
        w = weight[some] * np.exp(-0.5 * ((point_nm[some, 0] - z) / 40.0) ** 2)
        a = row[some] * w[:, None]
        lean[k] = np.linalg.solve(a.T @ row[some] + (1e-3 * w.sum() + 1e-9) * np.eye(6), -a.T @ normal[some, 0])
    path = np.concatenate([np.zeros((1, 6)), np.cumsum(15.0 * (lean[1:] + lean[:-1]), axis=0)])
    path -= path[len(path) // 2]
    x = balls.position_nm.copy()
    here = np.stack([np.interp(x[:, 0], depth, path[:, j]) for j in range(6)], axis=1).reshape(-1, 2, 3)
    x[:, 1:] -= _GAIN * np.einsum("nij,nj->ni", here, place(x))
    return replace(balls, position_nm=x)
