"""Spatial scan: the box of cells that differs most from the rest, tested against surrogates.

The scan statistic of Kulldorff (1997, Commun. Stat. 26:1481) for Gaussian scores: the sum over a box, over what such a
sum usually is among surrogates, at its largest over all boxes. The surrogates carry the autocorrelation, so a box that
holds one thick neurite is nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from connectome_db.kernels.cell_maps import Slab
from connectome_db.kernels.surrogates import Likeness, draw, tail_p, value_table

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

CHUNK = 16
"""Surrogates handled at a time."""
SCALING = 64
"""Surrogates that say how much the sum of each box varies; they take no part in the test."""


@dataclass(frozen=True)
class Windows:
    """Boxes that are scanned: runs (K, 2) per axis, and which combinations are (kz, ky, kx)."""

    runs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
    allowed: Bool

    def matrices(self, shape: tuple[int, int, int]) -> list[F32]:
        """Per axis the (K, n) matrix of 0 and 1 that sums over each run."""
        return [
            ((np.arange(n) >= r[:, :1]) & (np.arange(n) < r[:, 1:])).astype(np.float32)
            for n, r in zip(shape, self.runs, strict=True)
        ]


def _runs(n: int, shortest: int) -> npt.NDArray[np.int64]:
    """Runs (first, end) along an axis: lengths about a factor 1.5 apart, in steps of a third of the length."""
    out: list[tuple[int, int]] = []
    for length in (1, 2, 3, 4, 6, 8, 12, 16, 24):
        if min(shortest, n) <= length < n:
            starts = {*range(0, n - length + 1, max(1, length // 3)), n - length}
            out += [(s, s + length) for s in sorted(starts)]
    return np.asarray([*out, (0, n)], dtype=np.int64)


@lru_cache(maxsize=32)
def windows(shape: tuple[int, int, int]) -> Windows:
    """The boxes to scan on a lattice (z, y, x): up to half of the cells, and never a whole section."""
    runs = [_runs(n, 2 if n > 6 else 1) for n in shape]
    z, y, x = (r[:, 1] - r[:, 0] for r in runs)
    plane = y[:, None] * x[None]
    size = z[:, None, None] * plane
    allowed = (plane <= 0.5 * shape[1] * shape[2]) & (size >= min(4, shape[0])) & (size <= 0.5 * np.prod(shape))
    return Windows((runs[0], runs[1], runs[2]), np.asarray(allowed, dtype=np.bool_))


def centred(fields: F32, good: Bool) -> F32:
    """Fields (n, z, y, x) less the mean of each section over the cells that are `good` (z, y, x); 0 elsewhere."""
    count = np.maximum(good.sum(axis=(1, 2)), 1).astype(np.float32)
    kept = fields * good
    return np.asarray((kept - (kept.sum(axis=(2, 3)) / count)[:, :, None, None]) * good, dtype=np.float32)


def box_sums(fields: F32, matrices: list[F32]) -> F32:
    """Sums (n, kz, ky, kx) over every box of fields (n, z, y, x)."""
    out = np.einsum("kz,nzyx->nkyx", matrices[0], fields, optimize=True)
    out = np.matmul(matrices[1], out)
    return np.asarray(np.matmul(out, matrices[2].T), dtype=np.float32)


@dataclass(frozen=True)
class Scan:
    """The most unusual box as slices (z, y, x), its score (standard deviations, with sign) and its p-value."""

    part: Slab
    score: float
    p_value: float


def scan(
    scores: F64, usual: F64, like: Likeness, n: int, rng: np.random.Generator, stop_after: int = 20
) -> Scan | None:
    """Scan scores (z, y, x; NaN where nothing is) with up to `n` surrogates; None when no box fits.

    Surrogates have the values of `usual`: the scores without the box that is under suspicion.

    Draws end early once `stop_after` surrogates beat the observed box: what is unremarkable needs no precise p-value
    (Besag and Clifford 1991, Biometrika 78:301).
    """
    shape = (scores.shape[0], scores.shape[1], scores.shape[2])
    good = np.isfinite(scores)
    boxes = windows(shape)
    if not boxes.allowed.any() or good.sum() < 8:
        return None
    matrices = boxes.matrices(shape)
    table = value_table(usual)
    held = box_sums(good.astype(np.float32)[None], matrices)[0]
    power = np.zeros(held.shape)
    for _ in range(SCALING // CHUNK):
        sums = box_sums(centred(draw(CHUNK, shape, like, table, rng), good), matrices)
        power += np.einsum("nzyx,nzyx->zyx", sums, sums)
    root = np.sqrt(power / SCALING)
    usable = boxes.allowed & (held >= 1) & (root > 1e-6)
    if not usable.any():
        return None
    scale = np.where(usable, 1 / np.maximum(root, 1e-6), 0).astype(np.float32)
    own = centred(np.nan_to_num(scores).astype(np.float32)[None], good)
    seen = box_sums(own, matrices)[0] * scale
    place = np.unravel_index(int(np.argmax(np.abs(seen))), seen.shape)
    best = float(abs(seen[place]))
    null: list[float] = []
    while len(null) < n:
        k = min(CHUNK, n - len(null))
        sums = box_sums(centred(draw(k, shape, like, table, rng), good), matrices)
        sums *= scale
        flat = sums.reshape(k, -1)
        null += np.maximum(flat.max(axis=1), -flat.min(axis=1)).tolist()
        if np.sum(np.asarray(null) >= best) >= stop_after:
            break
    lo_hi = [boxes.runs[k][int(i)] for k, i in enumerate(place)]
    part = (slice(*map(int, lo_hi[0])), slice(*map(int, lo_hi[1])), slice(*map(int, lo_hi[2])))
    return Scan(part, float(seen[place]), tail_p(np.asarray(null), best))


def candidate(scores: F64) -> Slab | None:
    """The box with the largest sum over the square root of its cells: a first guess, before anything is known."""
    shape = (scores.shape[0], scores.shape[1], scores.shape[2])
    boxes = windows(shape)
    if not boxes.allowed.any():
        return None
    good = np.isfinite(scores)
    matrices = boxes.matrices(shape)
    held = box_sums(good.astype(np.float32)[None], matrices)[0]
    own = centred(np.nan_to_num(scores).astype(np.float32)[None], good)
    score = np.abs(box_sums(own, matrices)[0]) / np.sqrt(np.maximum(held, 1)) * boxes.allowed
    place = np.unravel_index(int(np.argmax(score)), score.shape)
    lo_hi = [boxes.runs[k][int(i)] for k, i in enumerate(place)]
    return (slice(*map(int, lo_hi[0])), slice(*map(int, lo_hi[1])), slice(*map(int, lo_hi[2])))


def sharpen(cells: F64, part: Slab, rounds: int = 40) -> Slab:
    """Move the faces of a box by single cells while that sets it apart better from the rest of its lattice.

    What is maximised is the sum of squares between inside and outside, the likelihood of a shifted box in white
    noise. `cells` (z, y, x) may hold NaN.
    """
    good = np.isfinite(cells)
    value = np.where(good, cells - np.nanmean(cells), 0.0)
    total = int(good.sum())
    box = [[s.start, s.stop] for s in part]

    def score(b: list[list[int]]) -> float:
        cut = tuple(slice(*e) for e in b)
        n = int(good[cut].sum())
        return float(value[cut].sum() ** 2 / (n * (1 - n / total))) if 0 < n < total else 0.0

    best = score(box)
    for _ in range(rounds):
        tried = []
        for axis in range(3):
            for end in range(2):
                for step in (-1, 1):
                    b = [list(e) for e in box]
                    b[axis][end] += step
                    if 0 <= b[axis][0] < b[axis][1] <= cells.shape[axis]:
                        tried.append((score(b), b))
        top = max(tried, key=lambda t: t[0])
        if top[0] <= best * (1 + 1e-9):
            break
        best, box = top
    return (slice(*box[0]), slice(*box[1]), slice(*box[2]))
