"""Where synapses are fewest for the tissue that is there: a spatial scan over boxes of the (y, x) plane.

Kulldorff's scan statistic (1997, Commun. Stat. Theory Methods 26(6)) for counts: the box with the largest likelihood
ratio of "fewer inside". Its p-value is that of the largest ratio under the null, so it allows for having searched.
Synapses come in groups (several of one pair), which makes counts vary more than Poisson; the null therefore draws
columns of cells anew, with the dispersion that the counts show, and not single synapses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.cells import BoxNm, Cells

F64 = npt.NDArray[np.float64]
DRAWS = 999
MOST_SIDE = 24
"""The plane is binned to at most this many columns a side, so that all boxes can be tried."""


@dataclass(frozen=True)
class Sparse:
    """A box with fewer synapses than its tissue lets expect."""

    box_nm: BoxNm
    found: float
    expected: float
    p_value: float


def sparsest(density: Cells, bounds: BoxNm, rng: np.random.Generator, draws: int = DRAWS) -> Sparse | None:
    """The box in which `density` (count per volume, with volume as weight) is lowest; None without enough tissue.

    Boxes hold from an eighth to a half of the tissue and reach through all sections.
    """
    if len(density) == 0:
        return None
    step = np.median(density.boxes[:, 3:] - density.boxes[:, :3], axis=0)[1:]
    low, high = density.boxes[:, 1:3].min(axis=0), density.boxes[:, 4:].max(axis=0)
    side = np.maximum(1, np.ceil((high - low) / step / MOST_SIDE)) * step
    at = np.floor((density.centres[:, 1:] - low) / side).astype(np.int64)
    shape = tuple((at.max(axis=0) + 1).tolist())
    flat = at[:, 0] * shape[1] + at[:, 1]
    tissue = np.bincount(flat, density.weight, shape[0] * shape[1]).reshape(shape)
    count = np.bincount(flat, density.weight * density.value, shape[0] * shape[1]).reshape(shape)
    total, usable = float(count.sum()), float(tissue.sum())
    if total < 20 or usable <= 0:
        return None
    boxes = _boxes(tissue)
    if len(boxes) == 0:
        return None
    expected = total * tissue / usable
    ratios = _ratios(_sums(count, boxes), _sums(expected, boxes), total)
    best = int(ratios.argmax())
    null = _null(expected, _dispersion(count, expected), rng, draws)
    beaten = sum(bool(_ratios(_sums(n, boxes), _sums(expected, boxes), total).max() >= ratios[best]) for n in null)
    y0, x0, y1, x1 = (int(v) for v in boxes[best])
    corner = np.maximum(low + np.asarray([y0, x0]) * side, bounds[1:3])
    end = np.minimum(low + np.asarray([y1, x1]) * side, bounds[4:])
    box = (bounds[0], float(corner[0]), float(corner[1]), bounds[3], float(end[0]), float(end[1]))
    one = boxes[best : best + 1]
    return Sparse(box, float(_sums(count, one)[0]), float(_sums(expected, one)[0]), (beaten + 1) / (draws + 1))


def _boxes(tissue: F64) -> npt.NDArray[np.int64]:
    """All boxes (y0, x0, y1, x1) of columns that hold between an eighth and a half of the tissue, int64[B, 4]."""
    height, width = tissue.shape
    rows = [(a, b) for a in range(height) for b in range(a + 1, height + 1)]
    cols = [(a, b) for a in range(width) for b in range(a + 1, width + 1)]
    y, x = np.asarray(rows), np.asarray(cols)
    every = np.concatenate([np.repeat(y, len(x), axis=0), np.tile(x, (len(y), 1))], axis=1)[:, [0, 2, 1, 3]]
    share = _sums(tissue, every) / tissue.sum()
    found: npt.NDArray[np.int64] = every[(share >= 0.125) & (share <= 0.5)]
    return found


def _sums(plane: F64, boxes: npt.NDArray[np.int64]) -> F64:
    """Sum of a plane over each box, by an integral image."""
    table = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    table[1:, 1:] = plane.cumsum(axis=0).cumsum(axis=1)
    y0, x0, y1, x1 = boxes.T
    out: F64 = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    return out


def _ratios(count: F64, expected: F64, total: float) -> F64:
    """Log likelihood ratio of fewer inside than outside, 0 where there are not fewer."""
    rest, other = total - count, total - expected
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where(count > 0, count * np.log(count / expected), 0.0)
        outside = np.where(rest > 0, rest * np.log(rest / other), 0.0)
    out: F64 = np.where(count < expected, inside + outside, 0.0)
    return out


def _dispersion(count: F64, expected: F64) -> float:
    """Variance over mean of the counts of columns against their expectation; at least 1, which is Poisson's."""
    held = expected > 0.25 * expected.max()
    freedom = max(int(held.sum()) - 1, 1)
    return max(1.0, float((((count - expected) ** 2) / np.maximum(expected, 1e-9))[held].sum()) / freedom)


def _null(expected: F64, dispersion: float, rng: np.random.Generator, draws: int) -> list[F64]:
    """Counts without any structure but the tissue, with the same total and dispersion (Gamma-Poisson columns)."""
    total = float(expected.sum())
    out = []
    for _ in range(draws):
        rate = expected
        if dispersion > 1.001:
            shape = np.maximum(expected / (dispersion - 1), 1e-9)
            rate = rng.gamma(shape) * (dispersion - 1)
        share = rate.ravel() / max(float(rate.sum()), 1e-12)
        out.append(rng.multinomial(round(total), share).reshape(expected.shape).astype(np.float64))
    return out
