"""Halving arrays for multiscale pyramids: images by their mean, labels by their mode.

A cell is the block of 1 or 2 voxels per axis that becomes one output voxel. Cells lie on the lattice of the origin, so
a block cut at a volume's border may begin or end inside a cell: `phase_vx` says how many voxels of its first cell are
missing, and a cell counts only the voxels it has. Applied again and again, one step per level (a cascade, as tinybrain
and igneous do).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from connectome_db.geometry import Vec3


def halved_shape(shape: Vec3, factor: Vec3, phase_vx: Vec3) -> Vec3:
    """Shape (z, y, x) of the result: the number of cells that the array touches on each axis."""
    z, y, x = (-(-(n + p) // f) for n, f, p in zip(shape, factor, phase_vx, strict=True))
    return z, y, x


def average(image: npt.NDArray[np.uint8], factor: Vec3, phase_vx: Vec3 = (0, 0, 0)) -> npt.NDArray[np.uint8]:
    """Mean of each cell of a uint8 image (z, y, x), halves rounded up.

    `factor` is 1 or 2 per axis. The result has `halved_shape`. Raises ValueError for any other factor or phase.
    """
    _check(factor, phase_vx)
    out = np.empty(halved_shape(_shape(image), factor, phase_vx), dtype=np.uint8)
    _average(np.ascontiguousarray(image), factor, phase_vx, out)
    return out


def mode(labels: npt.NDArray[Any], factor: Vec3, phase_vx: Vec3 = (0, 0, 0)) -> npt.NDArray[Any]:
    """The most frequent label of each cell of an unsigned array (z, y, x); ties go to the smallest that is not 0.

    `factor` is 1 or 2 per axis. The result has `halved_shape`. Raises ValueError for any other factor or phase.
    """
    _check(factor, phase_vx)
    out = np.empty(halved_shape(_shape(labels), factor, phase_vx), dtype=labels.dtype)
    _mode(np.ascontiguousarray(labels), factor, phase_vx, out)
    return out


def _shape(array: npt.NDArray[Any]) -> Vec3:
    z, y, x = array.shape
    return z, y, x


def _check(factor: Vec3, phase_vx: Vec3) -> None:
    if any(f not in {1, 2} for f in factor) or any(not 0 <= p < f for f, p in zip(factor, phase_vx, strict=True)):
        raise ValueError(f"wanted factors of 1 or 2 and phases below them, came {factor} and {phase_vx}")


def _average_loop(image, factor, phase, out):  # type: ignore[no-untyped-def]  # compiled by numba: as in average()
    nz, ny, nx = image.shape
    row = np.empty(nx, dtype=np.uint16)
    for cz in range(out.shape[0]):
        z0, z1 = max(cz * factor[0] - phase[0], 0), min((cz + 1) * factor[0] - phase[0], nz)
        for cy in range(out.shape[1]):
            y0, y1 = max(cy * factor[1] - phase[1], 0), min((cy + 1) * factor[1] - phase[1], ny)
            row[:] = 0
            for z in range(z0, z1):
                for y in range(y0, y1):
                    for x in range(nx):
                        row[x] += image[z, y, x]
            # A cell holds 1, 2, 4 or 8 voxels, so the division is a shift.
            shift = (z1 - z0) // 2 + (y1 - y0) // 2
            half = (1 << shift) >> 1
            if factor[2] == 1:
                for x in range(nx):
                    out[cz, cy, x] = (row[x] + half) >> shift
                continue
            first = phase[2]
            last = out.shape[2] - (nx + first) % 2
            if first:
                out[cz, cy, 0] = (row[0] + half) >> shift
            for cx in range(first, last):
                out[cz, cy, cx] = (row[2 * cx - first] + row[2 * cx - first + 1] + 2 * half + (shift == 0)) >> (
                    shift + 1
                )
            if last < out.shape[2] and last >= first:
                out[cz, cy, last] = (row[nx - 1] + half) >> shift


_average = numba.njit(cache=True, nogil=True)(_average_loop)


def _mode_loop(labels, factor, phase, out):  # type: ignore[no-untyped-def]  # compiled by numba: as in mode()
    nz, ny, nx = labels.shape
    seen = np.empty(8, dtype=labels.dtype)
    zero = labels.dtype.type(0)
    for cz in range(out.shape[0]):
        z0, z1 = max(cz * factor[0] - phase[0], 0), min((cz + 1) * factor[0] - phase[0], nz)
        for cy in range(out.shape[1]):
            y0, y1 = max(cy * factor[1] - phase[1], 0), min((cy + 1) * factor[1] - phase[1], ny)
            for cx in range(out.shape[2]):
                x0, x1 = max(cx * factor[2] - phase[2], 0), min((cx + 1) * factor[2] - phase[2], nx)
                # Most cells lie inside one object: compare the corners without a loop, and vote only where they differ.
                best = labels[z0, y0, x0]
                y2, x2 = y1 - 1, x1 - 1
                alike = (labels[z0, y0, x2] == best) & (labels[z0, y2, x0] == best) & (labels[z0, y2, x2] == best)
                if z1 - z0 == 2:
                    alike &= (labels[z0 + 1, y0, x0] == best) & (labels[z0 + 1, y0, x2] == best)
                    alike &= (labels[z0 + 1, y2, x0] == best) & (labels[z0 + 1, y2, x2] == best)
                if not alike:
                    n = 0
                    for z in range(z0, z1):
                        for y in range(y0, y1):
                            for x in range(x0, x1):
                                seen[n] = labels[z, y, x]
                                n += 1
                    votes = 0
                    for i in range(n):
                        count = 0
                        for j in range(n):
                            count += seen[j] == seen[i]
                        smaller = seen[i] != zero and (best == zero or seen[i] < best)
                        if count > votes or (count == votes and smaller):
                            best, votes = seen[i], count
                out[cz, cy, cx] = best


_mode = numba.njit(cache=True, nogil=True)(_mode_loop)
