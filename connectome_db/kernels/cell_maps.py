"""Cells of quality on a lattice: from rows (box, value, weight) to an array over (z, y, x), and what is normal in it.

Rows need not lie on a lattice (patches of turned tiles do not); each is shared out to the cells it covers. Gain and
brightness swing from section to section, so what is compared within a plane is first freed of the section's level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Slab = tuple[slice, slice, slice]

MAD_SD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of cells: first corner and cell size (z, y, x) in nm, and the number of cells."""

    lo_nm: F64
    cell_nm: F64
    shape: tuple[int, int, int]

    def box_nm(self, part: Slab) -> F64:
        """The box (z0, y0, x0, z1, y1, x1) in nm of a part of the lattice, given as three slices."""
        lo = [s.start for s in part]
        hi = [s.stop for s in part]
        return np.concatenate([self.lo_nm + self.cell_nm * lo, self.lo_nm + self.cell_nm * hi])


def lattice_of(boxes_nm: F64, most: tuple[int, int, int] = (64, 24, 24)) -> Lattice:
    """The lattice that suits boxes (N, 6) in nm: over their hull, with cells of their median size.

    Never more than `most` cells (z, y, x); a larger dataset gets larger cells. Raises ValueError without boxes.
    """
    if len(boxes_nm) == 0:
        raise ValueError("lattice_of() of no boxes: at least one is needed")
    lo, hi = boxes_nm[:, :3].min(axis=0), boxes_nm[:, 3:].max(axis=0)
    size = np.maximum(np.median(boxes_nm[:, 3:] - boxes_nm[:, :3], axis=0), 1e-9)
    n = [int(np.clip(round(float(v)), 1, m)) for v, m in zip((hi - lo) / size, most, strict=True)]
    return Lattice(lo, (hi - lo) / n, (n[0], n[1], n[2]))


def bin_cells(lattice: Lattice, boxes_nm: F64, values: F64, weights: F64) -> tuple[F64, F64]:
    """Weighted mean of the rows over each cell, and its weight: two arrays (z, y, x); NaN and 0 where nothing is.

    A row is shared out by the part of its box (N, 6) that lies in a cell. Cells with less than 5% of the median
    weight are left out: they rest on next to nothing.
    """
    good = np.isfinite(values) & (weights > 0)
    boxes, v, w = boxes_nm[good], values[good], weights[good]
    lo = (boxes[:, :3] - lattice.lo_nm) / lattice.cell_nm
    hi = np.maximum((boxes[:, 3:] - lattice.lo_nm) / lattice.cell_nm, lo + 1e-9)
    first = np.clip(np.floor(lo + 1e-6).astype(np.int64), 0, np.array(lattice.shape) - 1)
    span = np.clip(np.ceil(hi - 1e-6).astype(np.int64), 1, lattice.shape) - first
    total, weight = np.zeros(lattice.shape), np.zeros(lattice.shape)
    for step in np.ndindex(*(int(s) for s in span.max(axis=0, initial=1))):
        at = first + np.array(step)
        rows = (np.array(step) < np.maximum(span, 1)).all(axis=1)
        at, own = at[rows], w[rows]
        part = np.minimum(hi[rows], at + 1) - np.maximum(lo[rows], at)
        own = own * np.prod(np.clip(part, 0, None) / (hi[rows] - lo[rows]), axis=1)
        place = (at[:, 0], at[:, 1], at[:, 2])
        np.add.at(total, place, own * v[rows])
        np.add.at(weight, place, own)
    some = weight > 0
    if some.any():
        weight[weight < 0.05 * np.median(weight[some])] = 0.0
    return np.where(weight > 0, total / np.maximum(weight, 1e-300), np.nan), weight


def pool(cells: F64, most: tuple[int, int, int]) -> F64:
    """Cells (z, y, x) with NaN, averaged over neighbours until no axis has more than `most`."""
    out = cells
    for axis, limit in enumerate(most):
        if out.shape[axis] > limit:
            edges = np.round(np.linspace(0, out.shape[axis], limit + 1)).astype(int)[:-1]
            count = np.add.reduceat(np.isfinite(out).astype(float), edges, axis=axis)
            summed = np.add.reduceat(np.nan_to_num(out), edges, axis=axis)
            out = np.where(count > 0, summed / np.maximum(count, 1), np.nan)
    return out


def section_level(cells: F64) -> F64:
    """Median of each section (z,) of cells (z, y, x); NaN where a section has none."""
    flat = cells.reshape(len(cells), -1)
    some = np.isfinite(flat).any(axis=1)
    out = np.full(len(cells), np.nan)
    if some.any():
        out[some] = np.nanmedian(flat[some], axis=1)
    return out


def column_mean(cells: F64, weights: F64 | None = None) -> F64:
    """The (y, x) map of cells (z, y, x): mean through z, by `weights` if given; NaN where a column has none."""
    w = np.isfinite(cells).astype(float) if weights is None else np.where(np.isfinite(cells), weights, 0.0)
    total = w.sum(axis=0)
    return np.where(total > 0, (np.nan_to_num(cells) * w).sum(axis=0) / np.maximum(total, 1e-300), np.nan)


def robust_spread(values: F64) -> float:
    """Standard deviation of values by their median absolute deviation; NaN are left out, 0.0 for less than two.

    Where more than half are equal, the standard deviation of the middle 90% is taken instead.
    """
    v = values[np.isfinite(values)]
    if v.size < 2:
        return 0.0
    mad = MAD_SD * float(np.median(np.abs(v - np.median(v))))
    if mad > 0:
        return mad
    lo, hi = np.quantile(v, [0.05, 0.95])
    return float(np.std(np.clip(v, lo, hi)))


def normal_scores(cells: F64) -> F64:
    """Values replaced by the Gaussian quantile of their rank (van der Waerden); ties share one; NaN stay NaN."""
    out = np.full(cells.shape, np.nan)
    good = np.isfinite(cells)
    v = cells[good]
    if v.size:
        unique, index, count = np.unique(v, return_inverse=True, return_counts=True)
        rank = np.cumsum(count) - 0.5 * (count - 1)
        out[good] = ndtri(rank / (v.size + 1))[index.ravel()].reshape(v.shape) if unique.size else 0.0
    return out
