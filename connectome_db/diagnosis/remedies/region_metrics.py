"""What a remedy is measured by: every metric of quality in the region against the reference, before and after.

None of them needs the truth. The comparison is that of the diagnosis (`compare`); in a region too small for its test,
the weighted means are told without an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from connectome_db.diagnosis.cells import BoxNm, Cells, load
from connectome_db.diagnosis.compare import compare, share_inside
from connectome_db.errors import QueryError

DEFAULT = "connection_density"
"""The metric of the deficit, where no diagnosis names another."""
PROXIES = ("synapse_density", "object_size", "supervoxel_density", "boundary_fraction", "uncounted")
"""By these a search chooses among tries: what a region of equal tissue has in common with the reference. Confidence is
not among them: whoever lowers a threshold finds weaker synapses, and that is no fault of the threshold."""
FLOOR = 0.02
"""Shares are compared from here on: 0.1 % against 0.2 % is no halving of quality."""


@dataclass(frozen=True)
class Difference:
    """A metric in the region and in the reference, in `measure`; `relative` is region over reference, minus 1.

    `ci95` is the 95% interval of `relative`. None: the reference is 0, or there is too little for an interval.
    """

    metric: str
    layer: str
    measure: str
    region: float
    reference: float
    relative: float | None
    ci95: tuple[float, float] | None
    n_region: int
    n_reference: int
    worse: str

    @property
    def distance(self) -> float:
        """How far the region is from the reference: |ln ratio|, or the difference where the measure is a logarithm."""
        if self.measure.startswith("log10"):
            return abs(self.region - self.reference) * float(np.log(10))
        a, b = (max(v, FLOOR if self.measure == "1" else 1e-9) for v in (self.region, self.reference))
        return min(abs(float(np.log(a / b))), 5.0)


def measure(root: Path, region: BoxNm, reference: BoxNm | None) -> dict[str, Difference]:
    """Every metric that was measured in both places, in the order of the layers; `reference` None is all the rest.

    Raises QueryError when the stages that measure quality have not been run.
    """
    measured = load(root)
    found = {}
    for name, cells in measured.cells.items():
        if (d := _difference(cells, region, measured.bounds_nm, reference)) is not None:
            found[name] = d
    return found


def _difference(cells: Cells, region: BoxNm, bounds: BoxNm, reference: BoxNm | None) -> Difference | None:
    c = compare(cells, region, bounds, reference)
    m = cells.metric
    if c is not None:
        return Difference(m.name, m.layer, m.measure, c.region, c.reference, c.relative, c.relative_ci95,
                          c.n_region, c.n_reference, m.worse)  # fmt: skip
    share = share_inside(cells.boxes, region)
    usable = np.isfinite(cells.value) & (cells.weight > 0)
    inside = usable & (share >= 0.5)
    outside = usable & (share < 0.1) if reference is None else usable & (share_inside(cells.boxes, reference) >= 0.5)
    outside &= ~inside
    if not inside.any() or not outside.any():
        return None
    a, b = (float(np.average(cells.value[k], weights=cells.weight[k])) for k in (inside, outside))
    relative = (a - b) / b if b else None
    return Difference(m.name, m.layer, m.measure, a, b, relative, None, int(inside.sum()), int(outside.sum()), m.worse)


def deficit_of(found: Mapping[str, Difference], metric: str) -> Difference:
    """The difference in the metric of the deficit. Raises QueryError when either place has none of it."""
    if metric not in found:
        raise QueryError(
            f"metric {metric!r}: no cell of it in the region or in the reference, so there is no deficit to follow. "
            f"Measured in both: {', '.join(found) or '(none)'}"
        )
    return found[metric]


def score(found: Mapping[str, Difference]) -> float:
    """How unlike the reference the region is: the mean distance of the PROXIES that were measured; 0 is alike."""
    distances = [found[m].distance for m in PROXIES if m in found]
    return float(np.mean(distances)) if distances else float("nan")
