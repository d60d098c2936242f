"""How much of a deficit the measured quality accounts for: a regression over cells that knows of place.

Counts per cell are Poisson with log mean = log tissue + a + b quality + a plane over (y, x). The plane keeps a trend of
the tissue itself from being booked on quality (spatial confounding; Dupont, Wood and Augustin 2022, Biometrics 78(4),
discuss it). The interval is a bootstrap over clusters. It tells an association, not a mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.cells import Cells
from connectome_db.diagnosis.compare import Sample

F64 = npt.NDArray[np.float64]
_ROUNDS = 25


@dataclass(frozen=True)
class Explained:
    """Share of a deficit that quality accounts for; above 1 when quality alone would have cost more."""

    fraction: float
    ci95: tuple[float, float]
    cells: int


def explained(outcome: Sample, quality: Cells, rng: np.random.Generator, resamples: int = 200) -> Explained | None:
    """Share of the difference in `outcome` between region and reference that goes with `quality` (one metric).

    None when the outcome does not differ, or too few cells hold both.
    """
    covariate = _near(quality, outcome.cells)
    used = (outcome.inside | outcome.outside) & np.isfinite(covariate)
    if int(used.sum()) < 20 or int((used & outcome.inside).sum()) < 5:
        return None
    weight, rate = outcome.cells.weight[used], np.maximum(outcome.value[used], 0.0)
    inside, cluster = outcome.inside[used], outcome.cluster[used]
    x = covariate[used]
    x = (x - x[~inside].mean()) / max(float(x.std()), 1e-12)
    place = outcome.cells.centres[used][:, 1:]
    place = (place - place.mean(axis=0)) / np.maximum(place.std(axis=0), 1e-9)
    design = np.column_stack([np.ones(len(x)), x, place])
    whole = _share(design, rate, weight, inside)
    if whole is None:
        return None
    numbers, index = np.unique(cluster, return_inverse=True)
    rows = [np.flatnonzero(index == k) for k in range(len(numbers))]
    drawn = []
    for _ in range(resamples):
        pick = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        one = _share(design[pick], rate[pick], weight[pick], inside[pick])
        if one is not None:
            drawn.append(one)
    if len(drawn) < resamples // 2:
        return None
    low, high = np.quantile(np.clip(drawn, -1, 2), [0.025, 0.975])
    return Explained(float(np.clip(whole, -1, 2)), (float(low), float(high)), int(used.sum()))


def _near(quality: Cells, cells: Cells) -> F64:
    """(N,) mean of the quality values whose centre lies in each cell; NaN where there is none."""
    edge = np.median(cells.boxes[:, 3:] - cells.boxes[:, :3], axis=0)
    base = cells.boxes[:, :3].min(axis=0)
    own = np.floor((cells.centres - base) / edge).astype(np.int64)
    other = np.floor((quality.centres - base) / edge).astype(np.int64)
    shape = tuple((np.maximum(own.max(axis=0), other.max(axis=0)) + 2).tolist())
    size = int(np.prod(shape))
    fits = (other >= 0).all(axis=1) & np.isfinite(quality.value)
    at = np.ravel_multi_index(tuple(np.maximum(other[fits], 0).T), shape)
    total = np.bincount(at, quality.weight[fits], size)
    summed = np.bincount(at, quality.weight[fits] * quality.value[fits], size)
    mine = np.ravel_multi_index(tuple(own.T), shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: F64 = np.where(total[mine] > 0, summed[mine] / total[mine], np.nan)
    return out


def _share(design: F64, rate: F64, weight: F64, inside: npt.NDArray[np.bool_]) -> float | None:
    """Relative deficit that the covariate predicts, over the observed one."""
    if not inside.any() or inside.all():
        return None
    seen_in = float(np.average(rate[inside], weights=weight[inside]))
    seen_out = float(np.average(rate[~inside], weights=weight[~inside]))
    if seen_out <= 0 or seen_in >= seen_out:
        return None
    slope = _poisson(design, rate * weight, weight)
    if slope is None:
        return None
    by_quality = np.exp(np.clip(slope * design[:, 1], -5, 5))
    here = float(np.average(by_quality[inside], weights=weight[inside]))
    there = float(np.average(by_quality[~inside], weights=weight[~inside]))
    return (1 - here / there) / (1 - seen_in / seen_out)


def _poisson(design: F64, count: F64, exposure: F64) -> float | None:
    """The covariate's coefficient in a Poisson regression with exposure, by iterated least squares."""
    total = float(count.sum())
    if total <= 0:
        return None
    beta = np.zeros(design.shape[1])
    beta[0] = np.log(total / float(exposure.sum()))
    ridge = 1e-6 * np.eye(design.shape[1])
    for _ in range(_ROUNDS):
        mean = exposure * np.exp(np.clip(design @ beta, -20, 20))
        step = np.linalg.solve(design.T @ (design * mean[:, None]) + ridge, design.T @ (count - mean))
        beta = beta + np.clip(step, -2, 2)
        if float(np.abs(step).max()) < 1e-8:
            break
    return float(beta[1])
