"""Cells of a metric as pictures see them: a map in the plane, averaged over sections, and a profile along z.

Cells of one metric may have any size and place (patches of tiles lie askew), so each is spread over the bins that it
overlaps, by its weight and by the part of the bin that it covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from connectome_db.diagnosis.pages.measured import F64, Measured
from connectome_db.regional.neuroglancer import SixNm

MOST_BINS = 96
"""Along either axis of a map."""
MOST_PLACES = 400
"""Along a profile."""
LARGE = 0.6
"""Cells that span more than this part of the plane along both axes make no map."""
_CHUNK = 200_000


@dataclass(frozen=True)
class Plane:
    """A map. `values` float64[y, x], NaN without data; `box_nm` (y0, x0, y1, x1)."""

    values: F64
    box_nm: tuple[float, float, float, float]


@dataclass(frozen=True)
class Profile:
    """A profile along z: `z_nm` the middles [N], `mean`, and the quartiles `low` and `high` of the cells there."""

    z_nm: F64
    mean: F64
    low: F64
    high: F64


def plane(m: Measured, hull_nm: SixNm) -> Plane | None:
    """The map of a metric inside `hull_nm`, averaged over sections; None when its cells are as wide as the plane."""
    _, y0, x0, _, y1, x1 = hull_nm
    inside = (m.boxes[:, 1] < y1) & (m.boxes[:, 4] > y0) & (m.boxes[:, 2] < x1) & (m.boxes[:, 5] > x0)
    boxes, value, weight = m.boxes[inside], m.value[inside], m.weight[inside]
    if not len(boxes):
        return None
    size = np.median(boxes[:, 4:] - boxes[:, 1:3], axis=0)
    if (size >= LARGE * np.asarray([y1 - y0, x1 - x0])).all():
        return None
    edges = [_edges(lo, hi, float(s)) for lo, hi, s in ((y0, y1, size[0]), (x0, x1, size[1]))]
    shape = tuple(len(e) - 1 for e in edges)
    total, mass = np.zeros(shape), np.zeros(shape)
    for at in range(0, len(boxes), _CHUNK):
        part = slice(at, at + _CHUNK)
        down, across = (_overlap(boxes[part, 1 + k], boxes[part, 4 + k], e) for k, e in enumerate(edges))
        down = down * np.maximum(weight[part], 0)[:, None]
        mass += down.T @ across
        total += down.T @ (across * value[part, None])
    # A sliver of a cell says little about a bin: one that is covered by less than a percent of the usual has no data.
    usual = float(np.median(mass[mass > 0])) if (mass > 0).any() else 0.0
    values = np.divide(total, mass, out=np.full(shape, np.nan), where=mass > 0.01 * usual)
    return Plane(values, (y0, x0, y1, x1))


def profile(m: Measured, hull_nm: SixNm) -> Profile | None:
    """The profile of a metric along z; None when it has one place only."""
    middle = (m.boxes[:, 0] + m.boxes[:, 3]) / 2
    places = np.unique(np.round(middle, 3))
    if len(places) > MOST_PLACES:
        edges = np.linspace(hull_nm[0], hull_nm[3], MOST_PLACES + 1)
        group = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, MOST_PLACES - 1)
        places = (edges[1:] + edges[:-1]) / 2
    else:
        group = np.searchsorted(places, np.round(middle, 3))
    kept, mean, low, high = [], [], [], []
    order = np.argsort(group, kind="stable")
    for k, rows in zip(*_runs(group[order]), strict=True):
        value, weight = m.value[order[rows]], np.maximum(m.weight[order[rows]], 0)
        kept.append(places[k])
        mean.append(float(np.average(value, weights=weight)) if weight.sum() > 0 else float(np.mean(value)))
        first, third = np.quantile(value, (0.25, 0.75))
        low.append(float(first))
        high.append(float(third))
    if len(kept) < 2:
        return None
    return Profile(np.asarray(kept), np.asarray(mean), np.asarray(low), np.asarray(high))


def _runs(ordered: np.typing.NDArray[np.int64]) -> tuple[list[int], list[slice]]:
    """Values of a sorted array and where each stands."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    return ordered[starts].tolist(), [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _edges(lo: float, hi: float, size: float) -> F64:
    n = int(np.clip(round((hi - lo) / max(size, 1e-9)), 1, MOST_BINS))
    return np.linspace(lo, hi, n + 1)


def _overlap(lo: F64, hi: F64, edges: F64) -> F64:
    """Length that each cell [N] shares with each bin [B], as a part of the bin: [N, B]."""
    shared = np.minimum(hi[:, None], edges[None, 1:]) - np.maximum(lo[:, None], edges[None, :-1])
    part: F64 = np.maximum(shared, 0) / np.diff(edges)
    return part
