"""Balls to voxels: the two nearest neurites of each voxel, exactly, and painting of organelles' distance fields.

The partition is a power diagram of the balls (Aurenhammer 1987): a voxel belongs to the ball with the least
`distance^2 - radius^2`. With the best ball of a *different* neurite, it gives a smooth distance to the membrane and the
membrane's tilt, which a distance transform of labels on 30 nm sections cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from connectome_db.phantom.paths import Balls

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

WARP_STEP_NM = 60.0


@dataclass(frozen=True)
class Partition:
    """Per voxel (z, y, x): the nearest balls of two neurites and the wall between them."""

    first: I32
    """Row of the ball that owns the voxel."""
    second: I32
    """Row of the nearest ball of another neurite."""
    wall_nm: F32
    """Distance to the border between the two, >= 0."""
    tilt: F32
    """|z component| of the wall's normal: 0 = cut across, 1 = parallel to the section."""


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> F32:
    """Gaussian-smoothed white noise of unit standard deviation and zero mean."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    out: F32 = ((field - field.mean()) / max(float(field.std()), 1e-6)).astype(np.float32)
    return out


def warp_field(rng: np.random.Generator, extent_nm: F64, amplitude_nm: float) -> F32:
    """(3, z, y, x) displacement in nm on a grid of WARP_STEP_NM, one node beyond the extent: irregular borders."""
    shape = tuple(int(v) for v in np.ceil(extent_nm / WARP_STEP_NM).astype(int) + 3)
    parts = [smooth_field(rng, shape, 1.9) + 0.45 * smooth_field(rng, shape, 0.9) for _ in range(3)]
    return np.clip(np.stack(parts) * amplitude_nm, -3 * amplitude_nm, 3 * amplitude_nm).astype(np.float32)


def partition(balls: Balls, shape_vx: tuple[int, int, int], voxel_nm: tuple[int, int, int], warp_nm: F32) -> Partition:
    """Assign every voxel of `shape_vx` (z, y, x). `warp_nm` comes from `warp_field`."""
    first = np.empty(shape_vx, np.int32)
    second = np.empty(shape_vx, np.int32)
    wall_nm = np.empty(shape_vx, np.float32)
    tilt = np.empty(shape_vx, np.float32)
    block = np.maximum(1, np.round(120.0 / np.asarray(voxel_nm))).astype(np.int64)
    _assign(
        balls.position_nm.astype(np.float32),
        (balls.radius_nm).astype(np.float32),
        balls.neurite.astype(np.int32),
        np.asarray(voxel_nm, np.float32),
        block,
        np.float32(np.sqrt((warp_nm.astype(np.float64) ** 2).sum(axis=0)).max()),
        warp_nm,
        first,
        second,
        wall_nm,
        tilt,
    )
    return Partition(first, second, wall_nm, tilt)


# One loop nest on purpose: numba keeps the candidates of a block in registers and cache.
def _assign_loop(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915  # compiled by numba: as in partition()
    position, radius, neurite, voxel, block, warp_max, warp, first, second, wall, tilt
):
    n_z, n_y, n_x = first.shape
    n = position.shape[0]
    candidates = np.empty(n, np.int32)
    half = np.float32(0.0)
    for axis in range(3):
        half += (np.float32(block[axis]) * voxel[axis] * np.float32(0.5)) ** 2
    half = np.float32(np.sqrt(half)) + warp_max
    p = np.empty(3, np.float32)
    far = np.float32(1e18)
    for z0 in range(0, n_z, block[0]):
        for y0 in range(0, n_y, block[1]):
            for x0 in range(0, n_x, block[2]):
                cz = (z0 + 0.5 * (block[0] - 1)) * voxel[0]
                cy = (y0 + 0.5 * (block[1] - 1)) * voxel[1]
                cx = (x0 + 0.5 * (block[2] - 1)) * voxel[2]
                # Two least upper bounds of different neurites: no ball whose lower bound is above the second matters.
                up1, up2, who = far, far, -1
                for i in range(n):
                    d = (
                        np.sqrt((position[i, 0] - cz) ** 2 + (position[i, 1] - cy) ** 2 + (position[i, 2] - cx) ** 2)
                        + half
                    )
                    s = d * d - radius[i] * radius[i]
                    if s < up1:
                        if neurite[i] != who:
                            up2, who = up1, neurite[i]
                        up1 = s
                    elif s < up2 and neurite[i] != who:
                        up2 = s
                count = 0
                for i in range(n):
                    d = (
                        np.sqrt((position[i, 0] - cz) ** 2 + (position[i, 1] - cy) ** 2 + (position[i, 2] - cx) ** 2)
                        - half
                    )
                    if d < 0:
                        d = 0.0
                    if d * d - radius[i] * radius[i] <= up2:
                        candidates[count] = i
                        count += 1
                for z in range(z0, min(z0 + block[0], n_z)):
                    for y in range(y0, min(y0 + block[1], n_y)):
                        for x in range(x0, min(x0 + block[2], n_x)):
                            p[0], p[1], p[2] = z * voxel[0], y * voxel[1], x * voxel[2]
                            fz, fy, fx = p[0] / WARP_STEP_NM, p[1] / WARP_STEP_NM, p[2] / WARP_STEP_NM
                            iz, iy, ix = int(fz), int(fy), int(fx)
                            fz, fy, fx = fz - iz, fy - iy, fx - ix
                            for axis in range(3):
                                w = warp[axis]
                                low = (w[iz, iy, ix] * (1 - fx) + w[iz, iy, ix + 1] * fx) * (1 - fy) + (
                                    w[iz, iy + 1, ix] * (1 - fx) + w[iz, iy + 1, ix + 1] * fx
                                ) * fy
                                high = (w[iz + 1, iy, ix] * (1 - fx) + w[iz + 1, iy, ix + 1] * fx) * (1 - fy) + (
                                    w[iz + 1, iy + 1, ix] * (1 - fx) + w[iz + 1, iy + 1, ix + 1] * fx
                                ) * fy
                                p[axis] += np.float32(low * (1 - fz) + high * fz)
                            b1, b2, i1, i2, l1 = far, far, -1, -1, -1
                            for c in range(count):
                                i = candidates[c]
                                dz, dy, dx = position[i, 0] - p[0], position[i, 1] - p[1], position[i, 2] - p[2]
                                s = dz * dz + dy * dy + dx * dx - radius[i] * radius[i]
                                if s < b1:
                                    if neurite[i] != l1:
                                        b2, i2 = b1, i1
                                        l1 = neurite[i]
                                    b1, i1 = s, i
                                elif s < b2 and neurite[i] != l1:
                                    b2, i2 = s, i
                            dz = position[i2, 0] - position[i1, 0]
                            dy = position[i2, 1] - position[i1, 1]
                            dx = position[i2, 2] - position[i1, 2]
                            gap = np.sqrt(dz * dz + dy * dy + dx * dx) + np.float32(1e-3)
                            first[z, y, x], second[z, y, x] = i1, i2
                            wall[z, y, x] = (b2 - b1) / (2 * gap)
                            tilt[z, y, x] = abs(dz) / gap


_assign = numba.njit(cache=True)(_assign_loop)


def ball_distance(
    shape_vx: tuple[int, int, int], voxel_nm: tuple[int, int, int], position_nm: F64, radius_nm: F64, reach_nm: float
) -> F32:
    """(z, y, x) signed distance in nm to the union of balls, `reach_nm` where further outside than that."""
    out = np.full(shape_vx, reach_nm, np.float32)
    _splat(
        position_nm.astype(np.float32),
        radius_nm.astype(np.float32),
        np.asarray(voxel_nm, np.float32),
        np.float32(reach_nm),
        out,
    )
    return out


def _splat_loop(position, radius, voxel, reach, out):  # type: ignore[no-untyped-def]  # compiled by numba
    low = np.empty(3, np.int64)
    high = np.empty(3, np.int64)
    for i in range(position.shape[0]):
        far = radius[i] + reach
        for axis in range(3):
            low[axis] = max(0, int(np.ceil((position[i, axis] - far) / voxel[axis])))
            high[axis] = min(out.shape[axis] - 1, int(np.floor((position[i, axis] + far) / voxel[axis])))
        for z in range(low[0], high[0] + 1):
            for y in range(low[1], high[1] + 1):
                for x in range(low[2], high[2] + 1):
                    dz = z * voxel[0] - position[i, 0]
                    dy = y * voxel[1] - position[i, 1]
                    dx = x * voxel[2] - position[i, 2]
                    d = np.float32(np.sqrt(dz * dz + dy * dy + dx * dx)) - radius[i]
                    out[z, y, x] = min(out[z, y, x], d)


_splat = numba.njit(cache=True)(_splat_loop)
