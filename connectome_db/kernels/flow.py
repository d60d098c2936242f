"""Block matching: points of one image found again in another that is already roughly in place.

As in TrakEM2's elastic alignment (Saalfeld et al. 2012, Nature Methods 9) and SOFIMA (Januszewski et al. 2024):
patches, correlation peaks, gates on the peak, and a filter that drops what disagrees with its neighbourhood.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from connectome_db.kernels.correlate import Bool, bandpass, best_peaks, parabola

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Flow:
    """Places (N, 2) of `a` and the displacement (N, 2) to the same tissue in `b`, (y, x) px, with its evidence."""

    at_px: F64
    move_px: F64
    peak_ratio: F64
    correlation: F64

    def __len__(self) -> int:
        return len(self.at_px)


def block_flow(
    a: npt.NDArray[np.uint8],
    b: npt.NDArray[np.uint8],
    valid_a: Bool,
    valid_b: Bool,
    at_px: npt.NDArray[np.int64],
    *,
    patch_px: int,
    search_px: int,
    band_px: tuple[float, float],
    min_valid: float = 0.75,
) -> Flow:
    """Match patches of `a` around `at_px` (N, 2) in `b` (same frame) within `search_px`; left out: too little valid.

    Normalised correlation after a band-pass, its peak to subpixel by parabolas. `peak_ratio` is the peak's height above
    the surface's median over the next peak's.
    """
    fa, fb = bandpass(a, valid_a, *band_px), bandpass(b, valid_b, *band_px)
    half = patch_px // 2
    rim = half + search_px
    fa, fb = (cv2.copyMakeBorder(f, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=0) for f in (fa, fb))
    seen_a, seen_b = _share(valid_a, patch_px), _share(valid_b, patch_px)
    rows = []
    for y, x in at_px.tolist():
        if min(float(seen_a[y, x]), float(seen_b[y, x])) < min_valid:
            continue
        patch = fa[y + search_px : y + search_px + patch_px, x + search_px : x + search_px + patch_px]
        area = fb[y : y + patch_px + 2 * search_px, x : x + patch_px + 2 * search_px]
        if float(patch.std()) < 1e-3:
            continue
        surface = cv2.matchTemplate(area, patch, cv2.TM_CCOEFF_NORMED)
        peaks = best_peaks(surface, 2, 6)
        py, px = (int(v) for v in peaks[0])
        if not (0 < py < surface.shape[0] - 1 and 0 < px < surface.shape[1] - 1):
            continue  # the peak lies at the end of the search: no maximum
        floor = float(np.median(surface))
        top = float(surface[py, px])
        second = float(surface[peaks[1][0], peaks[1][1]]) if len(peaks) > 1 else floor
        ratio = (top - floor) / max(second - floor, 1e-3)
        dy, dx = parabola(surface, py, px)
        rows.append((y, x, py - search_px + dy, px - search_px + dx, ratio, top))
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 6)
    # The middle of an even patch lies half a pixel before its centre index.
    middle = (patch_px - 1) / 2 - half
    return Flow(table[:, 0:2] + middle, table[:, 2:4], table[:, 4], table[:, 5])


def _share(valid: Bool, patch_px: int) -> F32:
    """Share of valid pixels in the patch around each pixel."""
    return np.asarray(
        cv2.blur(valid.astype(np.float32), (patch_px, patch_px), borderType=cv2.BORDER_CONSTANT), dtype=np.float32
    )


def consistent(flow: Flow, good: Bool, *, reach_px: float, max_px: float) -> Bool:
    """Which of the `good` displacements (N,) agree with their neighbourhood within `max_px`.

    Each is compared with the affine map that fits its good neighbours within `reach_px`, itself left out, weighted by a
    Gaussian and refitted once without what lies far off (the local smoothness filter of Saalfeld et al. 2012). With
    fewer than four neighbours there is nothing to agree with, and it is dropped.
    """
    kept = np.array(good, dtype=np.bool_)
    for _ in range(2):
        kept = kept & _agree(flow, kept, reach_px, max_px)
    return kept


def _agree(flow: Flow, good: Bool, reach_px: float, max_px: float) -> Bool:
    out = np.zeros(len(flow), dtype=np.bool_)
    if int(good.sum()) < 5:
        return out
    index = np.flatnonzero(good)
    tree = cKDTree(flow.at_px[index])
    for n in index.tolist():
        near = index[np.sort(np.asarray(tree.query_ball_point(flow.at_px[n], reach_px), dtype=np.int64))]
        near = near[near != n]
        if len(near) < 4:
            continue
        offset = flow.at_px[near] - flow.at_px[n]
        moves = flow.move_px[near]
        weight = np.exp(-(offset**2).sum(axis=1) / (2.0 * (reach_px / 2.0) ** 2))
        close = np.hypot(*(moves - np.median(moves, axis=0)).T) <= 2.0 * max_px
        weight = weight * close
        if int(close.sum()) < 4:
            continue
        design = np.concatenate([np.ones((len(near), 1)), offset / reach_px], axis=1)
        # A little ridge on the slopes: neighbours on a line cannot carry a full affine map.
        normal = (design * weight[:, None]).T @ design + np.diag([0.0, 0.05, 0.05])
        fit = np.linalg.solve(normal, design.T @ (weight[:, None] * moves))
        out[n] = float(np.hypot(*(flow.move_px[n] - fit[0]))) <= max_px
    return out


def smooth_field(flow: Flow, good: Bool, shape: tuple[int, int], step_px: int) -> tuple[F32, F32]:
    """A dense displacement field (y, x) of `shape` through the `good` displacements, smooth over about a step.

    Gaussian-weighted means on a grid of half steps, then bicubic in between; far from all points it is their mean.
    """
    half = max(step_px // 2, 1)
    rows, cols = -(-shape[0] // half) + 1, -(-shape[1] // half) + 1
    if int(good.sum()) == 0:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    at, moves = flow.at_px[good], flow.move_px[good]
    mean = moves.mean(axis=0)
    y, x = np.arange(rows) * half, np.arange(cols) * half
    wy = np.exp(-((y[:, None] - at[None, :, 0]) ** 2) / (2.0 * (0.75 * step_px) ** 2))
    wx = np.exp(-((x[:, None] - at[None, :, 1]) ** 2) / (2.0 * (0.75 * step_px) ** 2))
    weight = wy @ wx.T + 0.05
    out = []
    for c in (0, 1):
        grid = mean[c] + (wy * (moves[:, c] - mean[c])) @ wx.T / weight
        # Grid node k lies at pixel k * half; resize() would put it at the middle of its cell.
        big = cv2.warpAffine(
            grid.astype(np.float32),
            np.asarray([[1.0 / half, 0.0, 0.0], [0.0, 1.0 / half, 0.0]]),
            (shape[1], shape[0]),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        out.append(np.asarray(big, dtype=np.float32))
    return out[0], out[1]
