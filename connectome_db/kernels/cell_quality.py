"""What an image looks like in each cell of each of its sections: membranes, and how sections continue each other."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.geometry import Box
from connectome_db.kernels.cells import Cells
from connectome_db.kernels.tile_quality import ridge_strength

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)

NEUTRAL = 128
"""Mean grey value of the normalised image (stage `render`): what stands where no tile is."""
_RIDGE_SIGMA_PX = 2.0
_BLUR_PX = 17
RIDGE_PX = _BLUR_PX // 2 + 1
"""Pixels around a pixel that decide its ridge strength."""


def box_px(sigma_px: float) -> int:
    """Odd edge of the box whose standard deviation is nearest to `sigma_px`: that of a box of n px is (n^2-1)/12."""
    return 2 * int(np.floor((np.sqrt(12.0 * sigma_px * sigma_px + 1.0) - 1.0) / 2.0 + 0.5)) + 1


def band_pass(plane: U8, band_px: tuple[float, float]) -> F32:
    """Detail between two standard deviations, in grey values, of a plane (y, x); 0 in it counts as `NEUTRAL`.

    Boxes stand for Gaussians of the same standard deviations: their sums of whole numbers are exact, so that a pixel
    has the same value in any block that holds its surroundings, and their cost does not grow with their size.
    """
    grey = np.where(plane == 0, np.uint8(NEUTRAL), plane)
    fine, coarse = (
        cv2.boxFilter(grey, cv2.CV_32F, (n, n), borderType=cv2.BORDER_REFLECT_101) for n in map(box_px, band_px)
    )
    return np.asarray(fine - coarse, dtype=np.float32)


def section_continuity(image: U8, box: Box, cells: Cells, band_px: tuple[float, float]) -> tuple[F64, F64]:
    """Correlation of each section with the next, and the pixels that it rests on, per cell of `cells`.

    `image` (z, y, x) uint8 covers `box`, which holds the cells' box and may hold more: one section above, and the
    surroundings in y and x. The correlation (-1 to 1; NaN where there is no variation) is that of the band-passed
    sections over the pixels that both cover. `cells` are one section thick; the last section of `box` has none (0).
    """
    inner = cells.box.slices(box.lo)[1:]
    count = min(cells.box.hi[0] + 1, box.hi[0]) - cells.box.lo[0]
    first = cells.box.lo[0] - box.lo[0]
    value, weight = (np.full((cells.box.shape[0], cells.size // cells.box.shape[0]), v) for v in (np.nan, 0.0))
    layer = Cells(Box((0, *cells.box.lo[1:]), (1, *cells.box.hi[1:])), cells.cell_vx)
    below: tuple[F32, Bool] | None = None
    for n in range(count):
        plane = image[first + n]
        here = band_pass(plane, band_px)[inner], plane[inner] > 0
        if below is not None:
            value[n - 1], weight[n - 1] = _correlation(below, here, layer)
        below = here
    return value.ravel(), weight.ravel()


def _correlation(a: tuple[F32, Bool], b: tuple[F32, Bool], layer: Cells) -> tuple[F64, F64]:
    """Normalised correlation of two planes where both are covered, and the number of such pixels, per cell."""
    both = a[1] & b[1]
    n = layer.sums(both[None])
    u, v = (np.where(both, p, np.float32(0)) for p in (a[0], b[0]))
    su, sv, uu, vv, uv = (layer.sums(p[None]) for p in (u, v, u * u, v * v, u * v))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((uu - su * su / n) * (vv - sv * sv / n))
        # A flat cell has no spread but that of rounding.
        return np.where(spread > 1e-3 * n, (uv - su * sv / n) / spread, np.nan), n


def ridge_contrast(image: U8, box: Box, cells: Cells) -> tuple[F64, F64]:
    """Depth of dark ridges (membranes) in grey values, and the pixels that it rests on, per cell of `cells`.

    As `kernels.tile_quality.membrane_contrast`: the mean of the top tenth of the scale-normalised ridge strength
    (Lindeberg 1998, IJCV 30(2)) at sigma = 2 px, over covered pixels away from uncovered ones. `image` covers `box`,
    which holds the cells' box and its surroundings in y and x; `cells` are one section thick.
    """
    depth = np.zeros((cells.box.shape[0], cells.size // cells.box.shape[0]))
    weight = np.zeros_like(depth)
    layer = Cells(Box((0, *cells.box.lo[1:]), (1, *cells.box.hi[1:])), cells.cell_vx).boxes()
    near = cells.box.grow((0, RIDGE_PX, RIDGE_PX)).clip(box)
    inner = cells.box.slices(near.lo)[1:]
    (_, y0, x0), windows = cells.box.lo, layer[:, [1, 4, 2, 5]].tolist()
    for n, plane in enumerate(image[near.slices(box.lo)]):
        covered = plane > 0
        ridge = _ridge(plane, covered)[inner]
        whole = bool(covered.all())
        seen = covered[inner] if whole else _away_from_gaps(covered)[inner]
        for k, (ya, yb, xa, xb) in enumerate(windows):
            window = slice(ya - y0, yb - y0), slice(xa - x0, xb - x0)
            values = ridge[window].ravel() if whole else ridge[window][seen[window]]
            weight[n, k] = values.size
            depth[n, k] = _top_tenth(values)
    return depth.ravel(), weight.ravel()


def _ridge(plane: U8, covered: Bool) -> F32:
    grey = np.where(covered, plane, np.uint8(NEUTRAL)).astype(np.float32)
    size = (_BLUR_PX, _BLUR_PX)
    smooth = cv2.GaussianBlur(grey, size, _RIDGE_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(ridge_strength(smooth) * np.float32(_RIDGE_SIGMA_PX**2), dtype=np.float32)


def _away_from_gaps(covered: Bool) -> Bool:
    """Covered pixels whose surroundings (three standard deviations of the blur) are covered."""
    reach = 2 * round(3 * _RIDGE_SIGMA_PX) + 1
    eroded = cv2.erode(
        covered.astype(np.uint8), np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1
    )
    return np.asarray(eroded > 0, dtype=np.bool_)


def _top_tenth(values: F32) -> float:
    """Mean of the largest tenth of the values (at least one), negative ones as 0."""
    if values.size == 0:
        return 0.0
    top = max(values.size // 10, 1)
    largest = np.partition(values, values.size - top)[-top:]
    return float(np.maximum(largest, 0).astype(np.float64).mean())
