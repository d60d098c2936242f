"""Where synapses are fewest for the room that is there: a spatial scan over boxes of the (y, x) plane.

Kulldorff's scan statistic (1997, Commun. Stat. Theory Methods 26(6)) for counts: the box with the largest likelihood
ratio of "fewer inside". Only its place is used. As a test it is too eager: in phantoms without any difference, thick
dendrites make one in five a "sparse box" at a nominal 5 %. Whether there is a difference says `density_trend`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.cells import BoxNm
from connectome_db.diagnosis.density_columns import Columns

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sparse:
    """A box with fewer synapses than it has room for."""

    box_nm: BoxNm
    found: float
    expected: float


def sparsest(columns: Columns, bounds: BoxNm) -> Sparse | None:
    """The box in which synapses are fewest; None where none has fewer than expected.

    Boxes hold from an eighth to a half of the room and reach through all sections.
    """
    boxes = _boxes(columns.room)
    if len(boxes) == 0:
        return None
    expected = _sums(columns.expected, boxes)
    count = _sums(columns.count, boxes)
    ratios = _ratios(count, expected, float(columns.count.sum()))
    best = int(ratios.argmax())
    if ratios[best] <= 0:
        return None
    y0, x0, y1, x1 = (int(v) for v in boxes[best])
    return Sparse(columns.box_nm(y0, x0, y1, x1, bounds), float(count[best]), float(expected[best]))


def _boxes(room: F64) -> npt.NDArray[np.int64]:
    """All boxes (y0, x0, y1, x1) of columns that hold between an eighth and a half of the room, int64[B, 4]."""
    height, width = room.shape
    rows = [(a, b) for a in range(height) for b in range(a + 1, height + 1)]
    cols = [(a, b) for a in range(width) for b in range(a + 1, width + 1)]
    y, x = np.asarray(rows), np.asarray(cols)
    every = np.concatenate([np.repeat(y, len(x), axis=0), np.tile(x, (len(y), 1))], axis=1)[:, [0, 2, 1, 3]]
    share = _sums(room, every) / room.sum()
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
