"""Uneven illumination of a section's tiles, and the tone that makes them match: estimated with tissue kept as it is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.normalise import section_gain_offset
from connectome_db.kernels.robust import huber

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

_BLOCKS = 8
_PRIOR_LOG_GAIN = 0.15
_OVERLAP_NOISE = 0.01


@dataclass(frozen=True)
class Samples:
    """Log brightness at places of tiles: `tile` (N,), `place` (N, 2) in -1..1 over the tile, `level` (N,)."""

    tile: I64
    place: F64
    level: F64


@dataclass(frozen=True)
class Twins:
    """The same tissue seen by two tiles: places as in `Samples`, mean and spread of the grey values in each."""

    a: I64
    b: I64
    place_a: F64
    place_b: F64
    mean_a: F64
    mean_b: F64
    std_a: F64
    std_b: F64


def place_in_tile(points_px: F64, size_px: npt.ArrayLike) -> F64:
    """Points (N, 2) px of a tile of `size_px` -> -1..1 from its first to its last pixel."""
    return np.asarray(2.0 * points_px / (np.asarray(size_px, dtype=np.float64) - 1.0) - 1.0)


def block_levels(tile: U8, valid: Bool, number: int) -> Samples:
    """Log mean brightness of an 8 x 8 grid of blocks of a tile; blocks less than half valid are left out."""
    h, w = tile.shape
    rows, cols = np.linspace(0, h, _BLOCKS + 1).astype(int), np.linspace(0, w, _BLOCKS + 1).astype(int)
    places, levels = [], []
    for y0, y1 in pairwise(rows.tolist()):
        for x0, x1 in pairwise(cols.tolist()):
            inside = valid[y0:y1, x0:x1]
            if inside.mean() > 0.5:
                places.append(((y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2))
                levels.append(float(np.log(max(float(tile[y0:y1, x0:x1][inside].mean()), 1.0))))
    points = place_in_tile(np.asarray(places, dtype=np.float64).reshape(-1, 2), tile.shape)
    return Samples(np.full(len(levels), number, dtype=np.int64), points, np.asarray(levels, dtype=np.float64))


def _basis(place: F64, order: int) -> F64:
    """Products of Legendre polynomials of total degree 1..order at places (N, 2): (N, K), without the constant."""
    y = np.polynomial.legendre.legvander(place[:, 0], order)
    x = np.polynomial.legendre.legvander(place[:, 1], order)
    pairs = [(i, d - i) for d in range(1, order + 1) for i in range(d + 1)]
    return np.stack([y[:, i] * x[:, j] for i, j in pairs], axis=1)


def illumination_grid(samples: Samples, twins: Twins, tiles: int, *, order: int, nodes: int) -> F64:
    """Relative illumination over the tile area, (nodes, nodes) with mean 1, shared by all tiles of a section.

    Bayesian linear regression of log brightness on a smooth polynomial plus one level per tile. Two kinds of evidence:
    the blocks of all tiles, whose spread is tissue and which therefore weigh little when tiles are few; and the same
    tissue seen at two places of the field in overlaps, which holds no tissue at all. A zero-mean prior keeps the rest
    flat. Robust to odd blocks (Huber). The model is that of BaSiC (Peng et al. 2017) in its smooth limit.
    """
    axis = np.linspace(-1.0, 1.0, nodes)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    if order == 0 or len(samples.level) == 0:
        return np.ones((nodes, nodes))
    own = _basis(samples.place, order)
    k = own.shape[1]
    level = np.zeros((len(own), tiles))
    level[np.arange(len(own)), samples.tile] = 1.0
    both = _basis(twins.place_a, order) - _basis(twins.place_b, order)
    step = np.zeros((len(both), tiles))
    step[np.arange(len(both)), twins.a] += 1.0
    step[np.arange(len(both)), twins.b] -= 1.0
    ratio = np.log(np.maximum(twins.mean_a, 1.0) / np.maximum(twins.mean_b, 1.0))
    design = np.concatenate([np.concatenate([own, level], axis=1), np.concatenate([both, step], axis=1)])
    target = np.concatenate([samples.level, ratio])
    degree = np.asarray([d for d in range(1, order + 1) for _ in range(d + 1)], dtype=np.float64)
    prior = np.concatenate([(degree / _PRIOR_LOG_GAIN) ** 2, np.full(tiles, 1e-6)])
    n = len(own)
    sigma = np.where(np.arange(len(design)) < n, 0.1, _OVERLAP_NOISE)
    weight = 1.0 / sigma**2
    answer = np.zeros(k + tiles)
    for _ in range(8):
        answer = np.linalg.solve((design * weight[:, None]).T @ design + np.diag(prior), design.T @ (weight * target))
        left = target - design @ answer
        # Neighbouring blocks share tissue, so they count for about a quarter of independent ones: twice the spread.
        sigma[:n] = max(2.0 * 1.4826 * float(np.median(np.abs(left[:n]))), 0.01)
        if len(both):
            sigma[n:] = max(1.4826 * float(np.median(np.abs(left[n:]))), _OVERLAP_NOISE)
        weight = huber(left / sigma, 1.0) / sigma**2
    gain = np.exp(_basis(grid, order) @ answer[:k]).reshape(nodes, nodes)
    return np.asarray(gain / gain.mean(), dtype=np.float64)


def sample_grid(grid: F64, place: F64) -> F64:
    """The illumination grid (n, m) at places (N, 2) in -1..1, bilinear."""
    n, m = grid.shape
    y = np.clip((place[:, 0] + 1.0) / 2.0 * (n - 1), 0, n - 1)
    x = np.clip((place[:, 1] + 1.0) / 2.0 * (m - 1), 0, m - 1)
    i, j = np.minimum(y.astype(int), n - 2), np.minimum(x.astype(int), m - 2)
    u, v = y - i, x - j
    top = grid[i, j] * (1 - v) + grid[i, j + 1] * v
    return np.asarray(top * (1 - u) + (grid[i + 1, j] * (1 - v) + grid[i + 1, j + 1] * v) * u, dtype=np.float64)


def illumination_image(grid: F64, shape: tuple[int, ...]) -> F32:
    """The illumination grid (n, m) over a tile of `shape` (y, x), bilinear with nodes on its first and last pixels."""
    y = np.linspace(0, grid.shape[0] - 1, shape[0])
    x = np.linspace(0, grid.shape[1] - 1, shape[1])
    i, j = np.minimum(y.astype(int), grid.shape[0] - 2), np.minimum(x.astype(int), grid.shape[1] - 2)
    rows = grid[i] * (1 - (y - i))[:, None] + grid[i + 1] * (y - i)[:, None]
    return np.asarray(rows[:, j] * (1 - (x - j)) + rows[:, j + 1] * (x - j), dtype=np.float32)


def tile_tones(twins: Twins, grid: F64, tiles: int) -> tuple[F64, F64]:
    """Gain and offset per tile (T,) that make overlaps equal in mean and spread after the illumination is divided out.

    Two ridge regressions, of the log ratio of spreads and then of the differences of means; tiles without overlaps keep
    gain 1 and offset 0. The priors (a factor of 1.2; 30 grey values) are wide against what an overlap says.
    """
    if tiles == 0:
        return np.ones(0), np.zeros(0)
    light_a, light_b = sample_grid(grid, twins.place_a), sample_grid(grid, twins.place_b)
    mean_a, mean_b = twins.mean_a / light_a, twins.mean_b / light_b
    std_a, std_b = np.maximum(twins.std_a / light_a, 0.5), np.maximum(twins.std_b / light_b, 0.5)
    n = len(mean_a)
    one = np.zeros((n, tiles))
    one[np.arange(n), twins.a] = 1.0
    two = np.zeros((n, tiles))
    two[np.arange(n), twins.b] = 1.0
    log_gain = _ridge(one - two, np.log(std_b / std_a), noise=0.1, prior=0.2)
    gain = np.exp(log_gain - log_gain.mean())
    offset = _ridge(one - two, gain[twins.b] * mean_b - gain[twins.a] * mean_a, noise=2.0, prior=30.0)
    return gain, offset - offset.mean()


def _ridge(design: F64, target: F64, noise: float, prior: float) -> F64:
    weight = np.full(len(target), 1.0 / noise**2)
    answer = np.zeros(design.shape[1])
    for _ in range(5):
        normal = (design * weight[:, None]).T @ design + np.eye(design.shape[1]) / prior**2
        answer = np.linalg.solve(normal, design.T @ (weight * target))
        weight = huber(target - design @ answer, noise) / noise**2
    return np.asarray(answer, dtype=np.float64)


def section_tone(pieces: list[tuple[U8, Bool, float, float]], grid: F64) -> tuple[float, float]:
    """(gain, offset) that bring all tiles (pixels, valid, gain, offset) of a section to the target mean and spread.

    The statistics are those of `normalise.section_gain_offset`, which training uses, over the corrected pixels.
    """
    values = []
    for tile, valid, gain, offset in pieces:
        level = tile.astype(np.float32) / illumination_image(grid, tile.shape) * gain + offset
        values.append(np.clip(np.rint(level[valid]), 0, 255).astype(np.uint8))
    return section_gain_offset(np.concatenate(values)) if values else (1.0, 0.0)


def twin_stats(
    a: U8, b: U8, valid_a: Bool, valid_b: Bool, at_a: tuple[float, float], at_b: tuple[float, float], half_px: int
) -> tuple[float, float, float, float] | None:
    """Mean and spread in a and in b around one matched point, over pixels valid in both; None where too few are."""
    ya, xa, yb, xb = (round(v) for v in (*at_a, *at_b))
    up = min(half_px, ya, yb)
    left = min(half_px, xa, xb)
    down = min(half_px, a.shape[0] - ya, b.shape[0] - yb)
    right = min(half_px, a.shape[1] - xa, b.shape[1] - xb)
    if up + down < 8 or left + right < 8:
        return None
    cut_a, cut_b = ((slice(y - up, y + down), slice(x - left, x + right)) for y, x in ((ya, xa), (yb, xb)))
    both = valid_a[cut_a] & valid_b[cut_b]
    if both.mean() < 0.5:
        return None
    # A slight blur before the spread: the noise of one tile must not pass for contrast.
    pa, pb = (cv2.GaussianBlur(t.astype(np.float32), (0, 0), 1.5)[both] for t in (a[cut_a], b[cut_b]))
    return float(pa.mean()), float(pb.mean()), float(pa.std()), float(pb.std())
