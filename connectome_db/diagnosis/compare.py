"""Compare a region with a reference in one metric, so that neither neighbouring cells nor the border deceive.

Neighbouring cells show the same neurites, so they are not independent: cells are gathered into clusters (blocks some
dendrites wide), and the variance is that between the reference's clusters (as Liang and Zeger 1986, Biometrika 73(1)).
What the volume's border does to neurites is taken out by strata: a cell that lies as
near to the border as the region's is compared with such cells of the reference (post-stratification).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are used: stats takes a second

from connectome_db.diagnosis.cells import BoxNm, Cells

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

CLUSTER_NM = (480.0, 1024.0, 1024.0)
"""Edge of a cluster (z, y, x): about what one dendrite or a few axons fill."""
RUN_NM = 60.0
"""Thickness of a cluster where whole sections are compared with such: the microscope sets gains anew each time."""
BORDER_NM = 600.0
"""Cells nearer than this to the volume's sides show neurites that the border cuts."""
_BORDER_LAYERS = ("agglomerate", "graph")
_MIN_CLUSTERS = 3


@dataclass(frozen=True)
class Comparison:
    """A region against a reference in one metric, in the metric's own measure."""

    metric: str
    layer: str
    measure: str
    region: float
    reference: float
    effect: float
    """Region minus reference."""
    se: float
    ci95: tuple[float, float]
    """Of the effect."""
    p_value: float
    spread: float
    """Normal spread between places of the reference (robust standard deviation)."""
    worse: bool
    """True: the effect has the direction that costs quality."""
    n_region: int
    n_reference: int
    edge_corrected: bool

    @property
    def relative(self) -> float | None:
        """Effect over the reference; None where the reference is 0."""
        return self.effect / self.reference if self.reference else None

    @property
    def relative_ci95(self) -> tuple[float, float] | None:
        """95 % interval of `relative`."""
        if not self.reference:
            return None
        a, b = (v / abs(self.reference) for v in self.ci95)
        return (a, b)

    @property
    def spreads(self) -> float:
        """Effect in normal spreads."""
        return self.effect / self.spread if self.spread > 0 else 0.0


@dataclass(frozen=True)
class Sample:
    """Cells of one metric as a comparison uses them: which are in the region, which in the reference, and clusters."""

    cells: Cells
    value: F64
    """(N,) values, without the section's own level where region and reference share sections."""
    inside: Bool
    outside: Bool
    cluster: I64
    stratum: I64


def share_inside(boxes: F64, region: BoxNm) -> F64:
    """(N,) share of each box (N, 6) that lies in the region."""
    low, high = np.asarray(region[:3]), np.asarray(region[3:])
    lap = np.clip(np.minimum(boxes[:, 3:], high) - np.maximum(boxes[:, :3], low), 0, None)
    size = np.maximum(boxes[:, 3:] - boxes[:, :3], 1e-9)
    share: F64 = np.prod(lap / size, axis=1)
    return share


def whole_sections(region: BoxNm, bounds: BoxNm, share: float = 0.8) -> bool:
    """Whether a region covers the volume's sections from side to side."""
    out = 1.0
    for axis in (1, 2):
        lap = min(region[axis + 3], bounds[axis + 3]) - max(region[axis], bounds[axis])
        out *= max(0.0, lap) / max(bounds[axis + 3] - bounds[axis], 1e-9)
    return out >= share


def sample(cells: Cells, region: BoxNm, bounds: BoxNm, reference: BoxNm | None = None) -> Sample:
    """Sort cells into region and reference (None: all that the region does not touch)."""
    share = share_inside(cells.boxes, region)
    usable = np.isfinite(cells.value) & (cells.weight > 0)
    inside = (share >= 0.5) & usable
    if reference is None:
        outside = (share < 0.1) & usable
    else:
        outside = (share_inside(cells.boxes, reference) >= 0.5) & ~inside & usable
    runs = whole_sections(region, bounds)
    value = cells.value if runs else _level(cells, outside)
    near = _near_border(cells, bounds) if cells.metric.layer in _BORDER_LAYERS and not runs else None
    if cells.cut is not None:
        near = cells.cut.astype(np.int64)
    stratum = np.zeros(len(cells), np.int64) if near is None else near
    finite = np.isfinite(value)
    return Sample(cells, value, inside & finite, outside & finite, _clusters(cells, runs), stratum)


def _level(cells: Cells, outside: Bool) -> F64:
    """Values without each section's own level, which a microscope sets anew; for cells one section thick.

    The level is the median of the section's reference cells. Grey values are scaled, others moved. A section without
    reference cells is left out (NaN).
    """
    z = np.round(cells.centres[:, 0], 3)
    thick = cells.boxes[:, 3] - cells.boxes[:, 0]
    planes, section = np.unique(z, return_inverse=True)
    if len(planes) < 4 or cells.cut is not None or cells.metric.layer in ("graph", "agglomerate", "synapses"):
        return cells.value
    if np.median(thick) > 1.5 * float(np.median(np.diff(planes))):
        return cells.value
    level = np.full(len(planes), np.nan)
    for k in range(len(planes)):
        own = cells.value[(section == k) & outside]
        if len(own) >= 3:
            level[k] = np.median(own)
    usual = float(np.nanmedian(level)) if np.isfinite(level).any() else 0.0
    if cells.metric.measure == "grey" and usual > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(level[section] > 0, cells.value * usual / level[section], np.nan)
    moved: F64 = cells.value - level[section] + usual
    return moved


def _near_border(cells: Cells, bounds: BoxNm) -> I64:
    """How many sides (y, x) of the volume each cell is near to: 0, 1 or 2."""
    count = np.zeros(len(cells), np.int64)
    for axis in (1, 2):
        at = cells.centres[:, axis]
        count += (at - bounds[axis] < BORDER_NM) | (bounds[axis + 3] - at < BORDER_NM)
    return count


def _clusters(cells: Cells, runs: bool) -> I64:
    """The number of each cell's cluster: a section or two where images of whole sections are compared, or a block."""
    if runs and float(np.median(cells.boxes[:, 3] - cells.boxes[:, 0])) <= RUN_NM:
        key = np.floor(cells.centres[:, :1] / RUN_NM).astype(np.int64)
    else:
        key = np.floor(cells.centres / np.asarray(CLUSTER_NM)).astype(np.int64)
    _, number = np.unique(key, axis=0, return_inverse=True)
    return number.ravel().astype(np.int64)


def compare(cells: Cells, region: BoxNm, bounds: BoxNm, reference: BoxNm | None = None) -> Comparison | None:
    """The comparison, or None where one side has too little to compare."""
    return estimate(sample(cells, region, bounds, reference))


def estimate(s: Sample) -> Comparison | None:
    """Difference of the weighted means with its standard error and test; None with too few clusters on a side."""
    weight = s.cells.weight
    shares = _shares(s)
    kept = np.isin(s.stratum, [k for k, _ in shares])
    inside, outside = s.inside & kept, s.outside & kept
    n_in, n_out = len(np.unique(s.cluster[inside])), len(np.unique(s.cluster[outside]))
    if n_in < _MIN_CLUSTERS or n_out < _MIN_CLUSTERS:
        return None
    mean_in = float(np.average(s.value[inside], weights=weight[inside]))
    usual = np.zeros(len(weight))
    mean_out = 0.0
    for k, share in shares:
        mine = outside & (s.stratum == k)
        mean = float(np.average(s.value[mine], weights=weight[mine]))
        mean_out += share * mean
        usual[s.stratum == k] = mean
    se = _error(s, usual, inside, outside)
    effect = float(mean_in - mean_out)
    reach = float(scipy.stats.t.ppf(0.975, n_out - 1)) * se
    p = float(2 * scipy.stats.t.sf(abs(effect) / se, n_out - 1)) if se > 0 else float(effect == 0)
    m = s.cells.metric
    return Comparison(
        m.name, m.layer, m.measure, mean_in, mean_out, effect, se, (effect - reach, effect + reach), p,
        _spread(s, outside), bool(m.worse == "either" or (effect < 0) == (m.worse == "low")),
        int(inside.sum()), int(outside.sum()), len(shares) > 1,
    )  # fmt: skip


def _shares(s: Sample) -> list[tuple[int, float]]:
    """The strata that both sides have, and the region's share of weight in each."""
    weight = s.cells.weight
    found = [
        (int(k), float(weight[s.inside & (s.stratum == k)].sum()))
        for k in np.unique(s.stratum[s.inside])
        if (s.outside & (s.stratum == k)).sum() >= 3
    ]
    total = sum(w for _, w in found)
    return [(k, w / total) for k, w in found] if total > 0 else []


def _error(s: Sample, usual: F64, inside: Bool, outside: Bool) -> float:
    """Standard error of the effect: clusters of both sides vary about their strata as those of the reference do.

    A gradient makes the region itself uneven. That is the effect and not its error, so it must not hide it.
    """
    weight, off = s.cells.weight, s.value - usual
    numbers, index = np.unique(s.cluster[outside], return_inverse=True)
    there = np.bincount(index, weight[outside], len(numbers))
    mean = np.bincount(index, (weight * off)[outside], len(numbers)) / there
    variance = float(((there * mean) ** 2).sum() / (there**2).sum()) * len(there) / max(len(there) - 1, 1)
    _, index = np.unique(s.cluster[inside], return_inverse=True)
    here = np.bincount(index, weight[inside])
    shares = sum(float((w**2).sum()) / float(w.sum()) ** 2 for w in (here, there))
    return float(np.sqrt(variance * shares))


def _spread(s: Sample, outside: Bool) -> float:
    """Robust standard deviation of the means of the reference's clusters; the plain one where most are equal."""
    weight = s.cells.weight[outside]
    numbers, index = np.unique(s.cluster[outside], return_inverse=True)
    total = np.bincount(index, weight, len(numbers))
    mean = np.bincount(index, weight * s.value[outside], len(numbers)) / total
    full = mean[total >= 0.25 * np.median(total)]
    robust = 1.4826 * float(np.median(np.abs(full - np.median(full))))
    return robust if robust > 0.2 * float(full.std()) else float(full.std())


def false_discovery(p: list[float]) -> list[float]:
    """q-values of Benjamini and Hochberg (1995, J. R. Stat. Soc. B 57(1)) for p-values in any order."""
    return [float(v) for v in scipy.stats.false_discovery_control(p, method="bh")] if p else []
