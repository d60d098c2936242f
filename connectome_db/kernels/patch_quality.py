"""What small patches of a raw tile look like: contrast of membranes, focus, noise, brightness, streaks.

Everything is in absolute grey values, so that a patch that lost its contrast reads lower than its neighbours. Maps are
made once per tile and reduced over a grid of patches. A value that a patch cannot have is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.border import valid_mask
from connectome_db.kernels.tile_quality import ridge_strength

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)

_SIGMA_PX = 2.0
_REACH_PX = 6
"""Ridges are not looked for this near to invalid pixels and to the tile's edge, where the blur sees no image."""
_RIDGE_OF_NOISE = 0.2587
"""The contrast measured in white noise of standard deviation 1: the mean of 40 planes of 1024 x 1024 px."""
_ROUNDING = 1.0 / np.sqrt(12.0)
"""Standard deviation of rounding to whole grey values: no camera's noise is less."""
_MIN_PIXELS = 100
_STREAK_PX = 2.0
"""Rows' means are compared with their neighbourhood of this standard deviation."""
_EVIDENCE = 3.0
"""Power must exceed the noise's by this many standard errors before its distribution is told."""


@dataclass(frozen=True)
class PatchGrid:
    """Patches of a tile: edges (rows + 1,) and (columns + 1,) in px, from 0 to the tile's height and width."""

    y: I64
    x: I64

    def boxes_px(self) -> I64:
        """Boxes (N, 4) of the patches (y0, x0, y1, x1), half open, row by row."""
        y0, x0 = np.meshgrid(self.y[:-1], self.x[:-1], indexing="ij")
        y1, x1 = np.meshgrid(self.y[1:], self.x[1:], indexing="ij")
        return np.stack([y0, x0, y1, x1], axis=-1).reshape(-1, 4)

    def total(self, values: npt.NDArray[np.generic]) -> F64:
        """Sums (rows, columns) over the patches of an array (y, x)."""
        lines = np.add.reduceat(values, self.x[:-1], axis=1, dtype=np.float64)
        return np.asarray(np.add.reduceat(lines, self.y[:-1], axis=0), dtype=np.float64)


@dataclass(frozen=True)
class PatchQuality:
    """Measurements of N patches, in the order of `boxes_px`; float64 (N,), NaN where a patch has no such value.

    `values` is by the name of the metric (schema `quality`); `pixels` (N,) counts valid pixels.
    """

    boxes_px: I64
    pixels: F64
    values: dict[str, F64]


def patch_grid(shape: tuple[int, int], patch_px: int) -> PatchGrid:
    """The grid that covers a tile (height, width) with patches as near to `patch_px` as equal ones can be."""

    def edges(length: int) -> I64:
        count = max(1, round(length / patch_px))
        return np.asarray([length * i // count for i in range(count + 1)], dtype=np.int64)

    return PatchGrid(edges(shape[0]), edges(shape[1]))


def patch_quality(tile: U8, patch_px: int) -> PatchQuality:
    """Measure the patches of one tile, uint8 (y, x); those of which less than half is valid are left out."""
    grid = patch_grid((tile.shape[0], tile.shape[1]), patch_px)
    valid = valid_mask(tile)
    grey = tile.astype(np.float32)
    boxes = grid.boxes_px()
    pixels, area = grid.total(valid), grid.total(np.ones(tile.shape, dtype=np.uint8))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = grid.total(np.where(valid, tile, 0)) / pixels
        square = grid.total(np.where(valid, tile.astype(np.int64) ** 2, 0)) / pixels
        saturation = grid.total(valid & ((tile == 0) | (tile == 255))) / pixels
    noise = _noise(grey, valid, boxes).reshape(mean.shape)
    contrast = _contrast(grey, valid, boxes).reshape(mean.shape)
    contrast = np.sqrt(np.maximum(contrast**2 - (_RIDGE_OF_NOISE * noise) ** 2, 0.0))
    whole = pixels == area
    values = {
        "raw_membrane_contrast": contrast,
        "raw_contrast_to_noise": contrast / np.maximum(noise, _ROUNDING),
        "raw_sharpness": np.where(whole, _sharpness(grey, grid), np.nan),
        "raw_noise": noise,
        "raw_mean": mean,
        "raw_spread": np.sqrt(np.maximum(square - mean**2 - noise**2, 0.0)),
        "raw_saturation": saturation,
        "raw_charging": np.where(whole, _streaks(grey, grid), np.nan),
    }
    kept = np.flatnonzero((pixels * 2 >= area) & (pixels > 0))
    return PatchQuality(boxes[kept], pixels.ravel()[kept], {n: v.ravel()[kept] for n, v in values.items()})


def _inside(valid: Bool, reach_px: int) -> Bool:
    """Valid pixels farther than `reach_px` from every other pixel and from the tile's edge."""
    size = 2 * reach_px + 1
    return np.asarray(cv2.erode(valid.astype(np.uint8), np.ones((size, size), np.uint8), borderValue=0) > 0)


def _noise(grey: F32, valid: Bool, boxes: I64) -> F64:
    """Standard deviation (N,) of white noise per patch: Immerkaer (1996), with a median as in `tile_quality`.

    Responses are whole numbers; the median is that of a histogram, linear inside its bin, or it would move in steps.
    Texture as fine as a pixel counts as noise: no single image tells them apart. Sharp tissue therefore reads higher
    than the camera's noise, and blurred or faded tissue lower.
    """
    mask = np.asarray([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, mask)).astype(np.int64)
    inner = _inside(valid, 1)
    out = np.full(len(boxes), np.nan)
    for n, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
        found = response[y0:y1, x0:x1][inner[y0:y1, x0:x1]]
        if found.size < _MIN_PIXELS:
            continue
        count = np.bincount(found)
        below = np.cumsum(count)
        at = int(np.searchsorted(below, found.size / 2))
        share = (found.size / 2 - (below[at] - count[at])) / count[at]
        low, high = max(at - 0.5, 0.0), at + 0.5
        out[n] = (low + share * (high - low)) / (6.0 * 0.67449)
    return out


def _contrast(grey: F32, valid: Bool, boxes: I64) -> F64:
    """Mean (N,) of the top tenth of the ridge strength (Lindeberg 1998), scale-normalised, grey values with noise."""
    smooth = cv2.GaussianBlur(grey, (0, 0), _SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)
    ridge = ridge_strength(np.asarray(smooth, dtype=np.float32)) * np.float32(_SIGMA_PX * _SIGMA_PX)
    inner = _inside(valid, _REACH_PX)
    out = np.full(len(boxes), np.nan)
    for n, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
        found = ridge[y0:y1, x0:x1][inner[y0:y1, x0:x1]]
        if found.size >= _MIN_PIXELS:
            top = np.partition(found, found.size - found.size // 10)[-(found.size // 10) :]
            out[n] = float(np.maximum(top, 0.0).astype(np.float64).mean())
    return out


def _sharpness(grey: F32, grid: PatchGrid) -> F64:
    """Share (rows, columns) of the power above the noise between 0.1 and 0.3 cycles/px; NaN where noise is all.

    As `tile_quality.sharpness` (Vladar, Postek and Davidson 1998), by patch. In a small patch single coefficients are
    below the noise's mean as often as above it, so the noise is taken from the sum of a band and not from each, which
    would add to weak patches what it does not add to strong ones.
    """
    height, width = int(np.diff(grid.y).min()), int(np.diff(grid.x).min())
    empty = np.full((len(grid.y) - 1, len(grid.x) - 1), np.nan)
    if min(height, width) < 16:
        return empty
    window = (np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]).astype(np.float64)
    centre_y, centre_x = (grid.y[:-1] + grid.y[1:] - height) // 2, (grid.x[:-1] + grid.x[1:] - width) // 2
    views = np.lib.stride_tricks.sliding_window_view(grey, (height, width))
    patches = views[np.ix_(centre_y, centre_x)].astype(np.float64)
    mean = (patches * window).sum(axis=(2, 3), keepdims=True) / window.sum()
    power = np.abs(np.fft.rfft2((patches - mean) * window)) ** 2
    twice = np.full(power.shape[-1], 2.0)  # a real image's other half
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])

    def band(low: float, high: float) -> tuple[F64, float]:
        part = np.where((radius >= low) & (radius < high), twice, 0.0)
        return np.asarray((power * part).sum(axis=(2, 3))), float(part.sum())

    ring, ring_bins = band(0.42, 0.5)
    floor = ring / ring_bins
    whole, whole_bins = band(2.5 / min(height, width), 0.42)
    fine, fine_bins = band(0.1, 0.3)
    signal = whole - floor * whole_bins
    error = floor * np.sqrt(whole_bins * (1.0 + whole_bins / ring_bins))
    told = (signal > _EVIDENCE * error) & (signal > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((fine - floor * fine_bins) / signal, 0.0, 1.0)
    return np.where(told, share, empty)


def _streaks(grey: F32, grid: PatchGrid) -> F64:
    """Standard deviation (rows, columns) of streaks along the rows, in grey values.

    A patch is cut into four strips across its rows; each strip's row means are taken against their neighbourhood. A
    streak is the same in all strips, while noise and most tissue are not, so the covariance of strips that do not touch
    is the streaks' variance. The same of the columns is taken off: long structures have no preferred direction.
    """
    if min(int(np.diff(grid.y).min()), int(np.diff(grid.x).min())) < 16:
        return np.full((len(grid.y) - 1, len(grid.x) - 1), np.nan)
    along = _shared_lines(grey, grid.y, grid.x)
    across = _shared_lines(np.ascontiguousarray(grey.T), grid.x, grid.y).T
    return np.asarray(np.sqrt(np.maximum(along - np.maximum(across, 0.0), 0.0)))


def _shared_lines(grey: F32, y: I64, x: I64) -> F64:
    """Covariance (rows, columns) between strips of the patches with edges `y`, `x`, of their rows' rough means."""
    inner = np.stack([x[:-1] + (x[1:] - x[:-1]) * k // 4 for k in range(4)], axis=1).ravel()
    lines = np.add.reduceat(grey, inner, axis=1, dtype=np.float64) / np.diff(np.append(inner, x[-1]))
    kernel = cv2.getGaussianKernel(2 * round(4 * _STREAK_PX) + 1, _STREAK_PX)
    smooth = cv2.sepFilter2D(lines, cv2.CV_64F, np.ones((1, 1)), kernel, borderType=cv2.BORDER_REFLECT_101)
    rough = (lines - smooth).reshape(len(grey), -1, 4)
    shared = (rough[..., 0] * rough[..., 2] + rough[..., 1] * rough[..., 3] + rough[..., 0] * rough[..., 3]) / 3.0
    return np.asarray(np.add.reduceat(shared, y[:-1], axis=0) / np.diff(y)[:, None])
