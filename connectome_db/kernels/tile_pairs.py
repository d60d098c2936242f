"""How two overlapping tiles lie on each other: a search over the whole overlap, then patches along it to subpixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.border import valid_box
from connectome_db.kernels.correlate import F32, Bool, bandpass, best_peaks, masked_ncc, phase_correlation, refine_shift

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

_COARSE_AREA_PX = 160_000
_CANDIDATES = 4
_SURE = 0.5
"""A candidate whose patches correlate this well in the median ends the search for a better one."""


@dataclass(frozen=True)
class PatchMatches:
    """Patches found in both tiles: centres (N, 2) as (y, x) px in each tile, and what the correlation says of each."""

    a_px: F64
    b_px: F64
    peak_ratio: F64
    correlation: F64

    def __len__(self) -> int:
        return len(self.a_px)


NONE = PatchMatches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class TilePair:
    """Two tiles (y, x) with their valid masks, and where stage coordinates put b's origin in a."""

    a: U8
    b: U8
    valid_a: Bool
    valid_b: Bool
    nominal_px: tuple[float, float]


@dataclass(frozen=True)
class PatchPlan:
    """How to look: see the parameters of `montage` with the same names."""

    search_px: int = 48
    patch_px: int = 128
    patches: int = 12
    min_overlap_px: int = 24
    smooth_px: float = 1.0


def match_tiles(pair: TilePair, how: PatchPlan) -> PatchMatches:
    """Find `pair.b` in `pair.a` within `search_px` of its nominal place.

    Masked normalised correlation (Padfield 2012) of the reduced overlap gives up to four places; each is tried with up
    to `patches` patches of `patch_px` along the overlap (phase correlation, then Gauss-Newton), and the place whose
    patches correlate best is kept. Returns no patches when the overlap is thinner than `min_overlap_px` everywhere.
    """
    best, best_score = NONE, 0.0
    for offset, slack in coarse_offsets(pair, how.search_px, how.min_overlap_px):
        found = match_patches(pair, offset, slack, how)
        score = float(np.median(found.correlation)) if len(found) else 0.0
        if score > best_score:
            best, best_score = found, score
        if best_score > _SURE:
            break
    return best


def coarse_offsets(pair: TilePair, search_px: int, min_overlap_px: int) -> list[tuple[tuple[int, int], int]]:
    """Places of b's origin in a worth a closer look, best first, each with how far off it may be, in px."""
    cut_a = _reachable(pair.a.shape, pair.b.shape, pair.nominal_px, search_px)
    back = (-pair.nominal_px[0], -pair.nominal_px[1])
    cut_b = _reachable(pair.b.shape, pair.a.shape, back, search_px)
    if cut_a is None or cut_b is None:
        return []
    factor = 1
    while _area(cut_a) // (factor * factor) > _COARSE_AREA_PX and factor < 8:
        factor *= 2
    small_a, mask_a = _reduce(pair.a, pair.valid_a, cut_a, factor)
    small_b, mask_b = _reduce(pair.b, pair.valid_b, cut_b, factor)
    if min(*small_a.shape, *small_b.shape) < 4:
        return []
    band = (1.0, 6.0)
    need = (min_overlap_px / factor) * max(min_overlap_px, 64) / factor
    surface, overlap, origin = masked_ncc(
        bandpass(small_a, mask_a, *band), bandpass(small_b, mask_b, *band), mask_a, mask_b, need
    )
    dy = (np.arange(surface.shape[0]) + origin[0]) * factor + cut_a[0] - cut_b[0]
    dx = (np.arange(surface.shape[1]) + origin[1]) * factor + cut_a[1] - cut_b[1]
    near_y = np.abs(dy - pair.nominal_px[0]) <= search_px + factor
    near_x = np.abs(dx - pair.nominal_px[1]) <= search_px + factor
    # Fisher's z over its standard error: a correlation counts for more over a larger overlap.
    score = np.arctanh(np.clip(surface, -0.999, 0.999)) * np.sqrt(overlap)
    score = np.where(near_y[:, None] & near_x[None, :], score, -np.inf)
    peaks = best_peaks(score, _CANDIDATES, 3)
    kept = [(int(y), int(x)) for y, x in peaks if score[y, x] > 0.3 * score[peaks[0][0], peaks[0][1]] > 0]
    return [((int(dy[y]), int(dx[x])), 2 * factor + 3) for y, x in kept]


def match_patches(pair: TilePair, offset: tuple[int, int], slack_px: int, how: PatchPlan) -> PatchMatches:
    """Match patches along the overlap of two tiles whose b's origin lies at `offset` in a, up to `slack_px` off."""
    y0a, x0a, y1a, x1a = valid_box(pair.valid_a)
    y0b, x0b, y1b, x1b = valid_box(pair.valid_b)
    y0, x0 = max(y0a, y0b + offset[0]), max(x0a, x0b + offset[1])
    y1, x1 = min(y1a, y1b + offset[0]), min(x1a, x1b + offset[1])
    if min(y1 - y0, x1 - x0) < how.min_overlap_px:
        return NONE
    shape = (min(how.patch_px, y1 - y0), min(how.patch_px, x1 - x0))
    # Both overlaps are cut with a rim, so that patches can move by the slack and filters see no cut edge.
    rim = slack_px + 16
    cut_a = _clip((y0 - rim, x0 - rim, y1 + rim, x1 + rim), pair.a.shape)
    cut_b = _clip(
        (y0 - rim - offset[0], x0 - rim - offset[1], y1 + rim - offset[0], x1 + rim - offset[1]), pair.b.shape
    )
    a = _Part(pair.a, pair.valid_a, cut_a, how.smooth_px)
    b = _Part(pair.b, pair.valid_b, cut_b, how.smooth_px)
    found = []
    for y in _places(y0, y1, shape[0], how.patches):
        for x in _places(x0, x1, shape[1], how.patches):
            hit = _match_one(a, b, (y, x), shape, offset, slack_px)
            if hit is not None:
                found.append(hit)
    if not found:
        return NONE
    table = np.asarray(found, dtype=np.float64)
    return PatchMatches(table[:, 0:2], table[:, 2:4], table[:, 4], table[:, 5])


class _Part:
    """A piece of a tile after the band-pass, addressed in the tile's own coordinates."""

    def __init__(self, tile: U8, valid: Bool, cut: tuple[int, int, int, int], smooth_px: float) -> None:
        y0, x0, y1, x1 = cut
        self.cut = cut
        self.valid: Bool = np.ascontiguousarray(valid[y0:y1, x0:x1])
        self.image: F32 = bandpass(tile[y0:y1, x0:x1], self.valid, smooth_px, 8.0)

    def has(self, y: int, x: int, shape: tuple[int, int]) -> bool:
        y0, x0, y1, x1 = self.cut
        return y0 <= y and x0 <= x and y + shape[0] <= y1 and x + shape[1] <= x1

    def get(self, y: int, x: int, shape: tuple[int, int]) -> tuple[F32, Bool]:
        window = (
            slice(y - self.cut[0], y - self.cut[0] + shape[0]),
            slice(x - self.cut[1], x - self.cut[1] + shape[1]),
        )
        return np.ascontiguousarray(self.image[window]), np.ascontiguousarray(self.valid[window])


def _match_one(
    a: _Part, b: _Part, corner: tuple[int, int], shape: tuple[int, int], offset: tuple[int, int], slack_px: int
) -> tuple[float, float, float, float, float, float] | None:
    """One patch: (a_y, a_x, b_y, b_x, peak ratio, correlation), or None where it cannot be cut or nothing is valid."""
    y, x = corner
    by, bx = y - offset[0], x - offset[1]
    if not (a.has(y, x, shape) and b.has(by, bx, shape)):
        return None
    image_a, valid_a = a.get(y, x, shape)
    image_b, valid_b = b.get(by, bx, shape)
    if min(float(valid_a.mean()), float(valid_b.mean())) < 0.5 or min(float(image_a.std()), float(image_b.std())) == 0:
        return None
    peak = phase_correlation(image_a, image_b, slack_px)
    whole = (round(peak.shift_px[0]), round(peak.shift_px[1]))
    rest = (peak.shift_px[0] - whole[0], peak.shift_px[1] - whole[1])
    if b.has(by - whole[0], bx - whole[1], shape):  # cut b again where the peak says, so that the patches overlap fully
        by, bx = by - whole[0], bx - whole[1]
        image_b, valid_b = b.get(by, bx, shape)
    elif a.has(y + whole[0], x + whole[1], shape):
        y, x = y + whole[0], x + whole[1]
        image_a, valid_a = a.get(y, x, shape)
    else:
        rest = peak.shift_px
    shift, correlation = refine_shift(image_a, image_b, valid_a, valid_b, rest)
    half = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    a_y, a_x = y + half[0], x + half[1]
    return a_y, a_x, by + half[0] - shift[0], bx + half[1] - shift[1], min(peak.ratio, 1e3), correlation


def _places(lo: int, hi: int, size: int, most: int) -> list[int]:
    """Starts of at most `most` windows of `size` spread evenly over lo..hi, about one per window length."""
    count = int(np.clip(round((hi - lo) / size), 1, most))
    return [round(v) for v in np.linspace(lo, hi - size, count)] if count > 1 else [(lo + hi - size) // 2]


def _reachable(
    own: tuple[int, ...], other: tuple[int, ...], at_px: tuple[float, float], search_px: int
) -> tuple[int, int, int, int] | None:
    """The part of a tile that the other one, placed at `at_px`, may cover: (y0, x0, y1, x1)."""
    lo = [int(np.floor(v)) - search_px for v in at_px]
    hi = [int(np.ceil(v)) + n + search_px for v, n in zip(at_px, other, strict=True)]
    y0, x0, y1, x1 = _clip((lo[0], lo[1], hi[0], hi[1]), own)
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def _clip(cut: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    return max(cut[0], 0), max(cut[1], 0), min(cut[2], shape[0]), min(cut[3], shape[1])


def _area(cut: tuple[int, int, int, int]) -> int:
    return (cut[2] - cut[0]) * (cut[3] - cut[1])


def _reduce(tile: U8, valid: Bool, cut: tuple[int, int, int, int], factor: int) -> tuple[F32, Bool]:
    """A piece of a tile averaged over factor x factor px; a pixel is valid when all it averages are."""
    y0, x0, y1, x1 = cut
    rows, cols = (y1 - y0) // factor, (x1 - x0) // factor
    window = (slice(y0, y0 + rows * factor), slice(x0, x0 + cols * factor))
    if factor == 1 or rows == 0 or cols == 0:
        return tile[window].astype(np.float32), np.ascontiguousarray(valid[window])
    image = cv2.resize(tile[window], (cols, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    mask = valid[window].reshape(rows, factor, cols, factor).all(axis=(1, 3))
    return image, np.asarray(mask, dtype=np.bool_)
