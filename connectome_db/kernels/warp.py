"""Section images from raw tiles: each output pixel is interpolated once, from the tile it lies deepest in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.border import valid_mask
from connectome_db.kernels.illumination import illumination_image

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

cv2.setNumThreads(1)

_RIM_PX = 3
"""Pixels around a sample that cubic interpolation may touch."""


@dataclass(frozen=True)
class PlacedTile:
    """A tile in its section's plane: plane = linear (2, 2) @ tile px + shift; grey' = gain * grey / light + offset."""

    name: str
    linear: F64
    shift_px: F64
    shape: tuple[int, int]
    gain: float
    offset: float

    def corners_px(self) -> F64:
        """The centres of the four corner pixels in the plane, (4, 2)."""
        h, w = self.shape
        own = np.asarray([(0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1)], dtype=np.float64)
        return np.asarray(own @ self.linear.T + self.shift_px)


@dataclass(frozen=True)
class Assembled:
    """Float grey values (y, x), 0 where no tile is; `owner` is the number of the tile that gives most, -1 for none."""

    grey: F32
    owner: I32

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """True where some tile gives a value."""
        return np.asarray(self.owner >= 0)

    def as_uint8(self) -> U8:
        """Rounded to 1..255 where covered, 0 elsewhere."""
        return np.where(self.covered, np.clip(np.rint(self.grey), 1, 255), 0).astype(np.uint8)


def assemble(
    tiles: Sequence[PlacedTile],
    pixels: Callable[[str], U8],
    light: F64,
    plane_y: F64,
    plane_x: F64,
    *,
    feather_px: float,
    reduce: int = 1,
) -> Assembled:
    """Grey values of a section at the plane positions `plane_y`, `plane_x` (h, w); NaN positions stay uncovered.

    Cubic interpolation from the raw pixels, after dividing by the illumination grid `light` (n, m). Where tiles overlap
    a pixel comes from the one whose edge is farther; within `feather_px` of that seam the two are mixed linearly, so
    that noise and texture stay those of one tile nearly everywhere. Only tiles that the positions meet are opened.
    `reduce` > 1 averages tiles over that many pixels first, for positions that far apart.
    """
    shape = plane_y.shape
    nothing = Assembled(np.zeros(shape, np.float32), np.full(shape, -1, np.int32))
    known = np.isfinite(plane_y) & np.isfinite(plane_x)
    if not known.any():
        return nothing
    y, x = plane_y[known], plane_x[known]
    hull = (float(y.min()), float(x.min()), float(y.max()), float(x.max()))
    met = ((n, _meet(t, plane_y, plane_x, hull)) for n, t in enumerate(tiles))
    seen = [(n, maps) for n, maps in met if maps is not None]
    values, depths = [], []
    for n, maps in seen:
        value, depth = _sample(tiles[n], pixels(tiles[n].name), light, *maps, reduce)
        values.append(value)
        depths.append(depth)
    if not seen:
        return nothing
    depth = np.stack(depths)
    best = depth.max(axis=0)
    covered = best > 0
    owner = np.where(covered, np.asarray([n for n, _ in seen], dtype=np.int32)[depth.argmax(axis=0)], -1)
    if len(seen) == 1:
        return Assembled(np.where(covered, values[0], 0).astype(np.float32), owner.astype(np.int32))
    weight = np.clip(1.0 + (depth - best) / np.float32(max(feather_px, 1e-3)), 0.0, 1.0) * (depth > 0)
    grey = (weight * np.stack(values)).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-6)
    return Assembled(np.where(covered, grey, 0).astype(np.float32), owner.astype(np.int32))


def _meet(
    tile: PlacedTile, plane_y: F64, plane_x: F64, hull: tuple[float, float, float, float]
) -> tuple[F64, F64] | None:
    """Positions (whose hull is y0, x0, y1, x1) in tile pixels, or None when none of them is in the tile."""
    corners = tile.corners_px()
    lo, hi = corners.min(axis=0), corners.max(axis=0)
    y0, x0, y1, x1 = hull
    if y1 < lo[0] or x1 < lo[1] or y0 > hi[0] or x0 > hi[1]:
        return None
    back = np.linalg.inv(tile.linear)
    y, x = plane_y - tile.shift_px[0], plane_x - tile.shift_px[1]
    ty, tx = back[0, 0] * y + back[0, 1] * x, back[1, 0] * y + back[1, 1] * x
    h, w = tile.shape
    with np.errstate(invalid="ignore"):
        inside = (ty >= 0) & (ty <= h - 1) & (tx >= 0) & (tx <= w - 1)
    return (ty, tx) if inside.any() else None


def _sample(tile: PlacedTile, image: U8, light: F64, ty: F64, tx: F64, reduce: int) -> tuple[F32, F32]:
    """Corrected grey values and the depth inside the tile's valid area in px (0 outside), at positions in the tile."""
    h, w = tile.shape
    y, x = np.nan_to_num(ty, nan=-10.0), np.nan_to_num(tx, nan=-10.0)
    valid = valid_mask(image)
    if valid.all():
        depth = np.minimum(np.minimum(y, h - 1 - y), np.minimum(x, w - 1 - x)) + 1.0
    else:
        framed = cv2.copyMakeBorder(valid.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        far = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
        depth = _remap(far, y, x, cv2.INTER_LINEAR).astype(np.float64)
    depth = np.where((y >= 0) & (y <= h - 1) & (x >= 0) & (x <= w - 1), depth, 0.0)
    used = depth > 0
    if not used.any():
        return np.zeros(y.shape, np.float32), np.zeros(y.shape, np.float32)
    y0, x0 = max(int(y[used].min()) - _RIM_PX, 0), max(int(x[used].min()) - _RIM_PX, 0)
    y1, x1 = int(y[used].max()) + _RIM_PX + 2, int(x[used].max()) + _RIM_PX + 2
    window = (slice(y0, y1), slice(x0, x1))
    part = image[window].astype(np.float32) / illumination_image(light, tile.shape)[window]
    y, x = y - y0, x - x0
    if reduce > 1:
        rows, cols = max(part.shape[0] // reduce, 1), max(part.shape[1] // reduce, 1)
        part = cv2.resize(part[: rows * reduce, : cols * reduce], (cols, rows), interpolation=cv2.INTER_AREA)
        y, x = (y + 0.5) / reduce - 0.5, (x + 0.5) / reduce - 0.5
    value = _remap(part, y, x, cv2.INTER_CUBIC) * np.float32(tile.gain) + np.float32(tile.offset)
    return np.asarray(value, dtype=np.float32), np.minimum(depth, 1e6).astype(np.float32)


def _remap(image: F32, y: F64, x: F64, interpolation: int) -> F32:
    """`cv2.remap` with replicated edges; positions are exact to 1/32 px."""
    return np.asarray(
        cv2.remap(image, x.astype(np.float32), y.astype(np.float32), interpolation, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.float32,
    )


def plane_grid(y0: int, x0: int, shape: tuple[int, int], step: int = 1) -> tuple[F64, F64]:
    """Positions (y, x) of pixels `step` apart; a reduced pixel sits in the middle of those it stands for."""
    y = y0 + np.arange(shape[0], dtype=np.float64) * step + (step - 1) / 2
    x = x0 + np.arange(shape[1], dtype=np.float64) * step + (step - 1) / 2
    grid = np.meshgrid(y, x, indexing="ij")
    return grid[0], grid[1]


def tile_hull(tiles: Sequence[PlacedTile]) -> tuple[int, int, int, int]:
    """The smallest integer box (y0, x0, y1, x1) of the plane that holds all tiles; empty at 0 without tiles."""
    if not tiles:
        return 0, 0, 0, 0
    corners = np.concatenate([t.corners_px() for t in tiles])
    lo, hi = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    return int(lo[0]), int(lo[1]), int(hi[0]), int(hi[1])
