"""Cells: the lattice on which quality is measured, and sums over its cells. Axes (z, y, x)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.geometry import Box, Vec3

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """The cells of `cell_vx` voxels on the lattice of the origin that touch `box`, clipped to it.

    Cells are numbered in (z, y, x) order. The same cell has the same voxels in every box that holds all of it.
    """

    box: Box
    cell_vx: Vec3

    @property
    def shape(self) -> Vec3:
        """Number of cells along each axis."""
        z, y, x = (len(self.starts(k)) for k in range(3))
        return z, y, x

    @property
    def size(self) -> int:
        """Number of cells."""
        z, y, x = self.shape
        return z * y * x

    def starts(self, axis: int) -> I64:
        """Lowest voxel of each cell along an axis, clipped to the box."""
        lo, hi, step = self.box.lo[axis], self.box.hi[axis], self.cell_vx[axis]
        return np.maximum(np.arange(lo // step, -(-hi // step), dtype=np.int64) * step, lo)

    def boxes(self) -> I64:
        """Boxes (n, 6) in voxels, lo then hi."""
        low = [self.starts(k) for k in range(3)]
        high = [np.append(v[1:], self.box.hi[k]).astype(np.int64) for k, v in enumerate(low)]
        corners = [np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 3) for side in (low, high)]
        return np.concatenate(corners, axis=1)

    def of(self, points_vx: F64) -> I64:
        """The cell of the voxel that each point (n, 3) lies in; -1 outside the box. Voxels are centred on integers."""
        voxel = np.floor(points_vx + 0.5).astype(np.int64).reshape(-1, 3)
        inside = ((voxel >= self.box.lo) & (voxel < self.box.hi)).all(axis=1)
        step, shape = np.asarray(self.cell_vx), self.shape
        z, y, x = (voxel // step - np.asarray(self.box.lo) // step).T
        return np.where(inside, (z * shape[1] + y) * shape[2] + x, -1).astype(np.int64)

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Sum of `values`, an array over the box, in each cell. Exact for whole numbers of up to 16 bits."""
        first: type = np.float64 if values.dtype.kind == "f" else np.uint32
        z, y, x = (self.starts(k) - self.box.lo[k] for k in range(3))
        rows = np.add.reduceat(values, y, axis=1, dtype=first)
        return np.add.reduceat(np.add.reduceat(rows, x, axis=2, dtype=np.float64), z, axis=0).ravel()

    def tally(self, cell: I64, values: F64 | None = None) -> F64:
        """Sum of `values` (or the count) over rows whose cells are `cell`; those outside (-1) are left out."""
        inside = cell >= 0
        weights = None if values is None else np.asarray(values, np.float64)[inside]
        return np.bincount(cell[inside], weights, self.size).astype(np.float64)

    def medians(self, cell: I64, values: F64) -> tuple[F64, F64]:
        """Median of `values` in each cell (NaN where none), and how many there are."""
        count = self.tally(cell)
        order = np.lexsort((values, cell))
        ranked = values[order[np.searchsorted(cell[order], 0) :]]
        out = np.full(self.size, np.nan)
        has = np.flatnonzero(count > 0)
        n = count[has].astype(np.int64)
        first = np.cumsum(n) - n
        out[has] = 0.5 * (ranked[first + (n - 1) // 2] + ranked[first + n // 2])
        return out, count
