"""Cells of quality -> flags: regions that differ from the rest more than chance and normal variation allow.

Every metric is tested for boxes, trends through the depth, runs of sections, single sections and periods; the false
discovery rate is controlled over all tests; what is left must also be large enough to matter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.kernels.cell_maps import bin_cells, lattice_of
from connectome_db.kernels.fdr import benjamini_hochberg
from connectome_db.kernels.findings import Finding, examine, field_of
from connectome_db.schema.quality import FLAG, METRICS
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

RAW, VOLUME, GRAPH = "measure_raw.quality_raw", "measure_volume.quality_volume", "measure_graph.quality_graph"
F64 = npt.NDArray[np.float64]

BOX = tuple(f"{axis}{end}_nm" for end in (0, 1) for axis in "zyx")
NOT_FLAGGED = frozenset({"border_cut"})
"""Metrics that describe the volume's border and not its quality."""
RATIO = frozenset({"grey", "px"})
"""Measures in which places differ by factors: grey values by gain, lengths of residuals by how well all fits."""
SEVERITIES = ("info", "warning", "serious")


class FlagParams(Params):
    """Parameters of `flag`."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Flags are written up to this rate of false discoveries, over all metrics and kinds of test."""
    permutations: Annotated[int, Field(ge=99, le=10_000)] = 499
    """Surrogate fields per test; they have the autocorrelation of the metric."""
    most: Annotated[int, Field(ge=1, le=20)] = 3
    """At most this many boxes, and as many runs of sections, per metric."""
    min_relative: tuple[float, float, float] = (0.10, 0.20, 0.35)
    """Smallest effect over the value elsewhere, for info, warning and serious."""
    min_spread: tuple[float, float, float] = (1.0, 2.0, 3.0)
    """Smallest effect over the normal spread, for info, warning and serious. Both must be reached."""
    min_fraction: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Fractions and ratios must differ by at least this, however small they are elsewhere."""
    min_grey: Annotated[float, Field(ge=0, le=255)] = 2.5
    """The same for grey values: what is nearly 0 elsewhere (charging) is soon many times more."""


@dataclass(frozen=True)
class Tested:
    """A finding of a metric, with its box in nm."""

    layer: str
    metric: str
    measure: str
    box_nm: F64
    finding: Finding


def plan(found: Found, params: FlagParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all rows of quality."""
    whole = plans.once(found.inputs[VOLUME].bounds)
    return plans.reading(whole, (RAW, None), (VOLUME, None), (GRAPH, None))


def compute(block: Block[FlagParams]) -> Result:
    """Flags, the strongest of each metric and kind first."""
    tested: list[Tested] = []
    for name in (RAW, VOLUME, GRAPH):
        rows = block.tables[name]
        for metric in sorted(set(rows["metric"].to_pylist())):
            own = rows.filter(pa.compute.equal(rows["metric"], metric))
            if metric not in NOT_FLAGGED:
                tested += _tests(metric, own, block.params, block.seed)
    return {"flag": _table(tested, block.params)}


def _tests(metric: str, rows: pa.Table, params: FlagParams, seed: int) -> list[Tested]:
    """All tests of one metric. Its random numbers come from its name, so that no other metric changes its flags."""
    boxes = np.stack([rows[c].to_numpy() for c in BOX], axis=1).astype(np.float64)
    values, weights = (rows[c].to_numpy().astype(np.float64) for c in ("value", "weight"))
    if len(boxes) == 0:
        return []
    lattice = lattice_of(boxes)
    cells, weight = bin_cells(lattice, boxes, values, weights)
    measure, layer = str(rows["measure"][0].as_py()), str(rows["layer"][0].as_py())
    digest = hashlib.sha256(metric.encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(digest[:8], "little")]))
    found = examine(field_of(cells, weight, measure in RATIO), params.permutations, rng, params.alpha, params.most)
    return [Tested(layer, metric, measure, lattice.box_nm(f.part), f) for f in found]


def relative_of(finding: Finding, measure: str) -> float | None:
    """Effect over outside; for logarithms the ratio that they stand for, less 1; None where outside is 0."""
    if measure.startswith("log10"):
        return float(10 ** (finding.inside - finding.outside) - 1)
    return (finding.inside - finding.outside) / finding.outside if abs(finding.outside) > 1e-12 else None


def costs(metric: str, effect: float) -> bool:
    """True when a metric that changes by `effect` loses quality."""
    known = METRICS.get(metric)
    worse = known.worse if known else "either"
    return worse == "either" or (effect < 0) == (worse == "low")


def severity_of(test: Tested, q_value: float, params: FlagParams) -> str | None:
    """How much it matters: by relative size and by normal spread, both; None for what is too small to be told.

    What changes for the better is told as info, and so is what only just passes the control of false discoveries.
    """
    f = test.finding
    effect = f.inside - f.outside
    relative = relative_of(f, test.measure)
    spread = abs(effect) / f.spread if f.spread > 0 else np.inf
    floor = {"1": params.min_fraction, "grey": params.min_grey}.get(test.measure, 0.0)
    if not np.isfinite(effect) or effect == 0 or abs(effect) < floor:
        return None
    size = np.inf if relative is None else abs(relative)
    level = sum(size >= a and spread >= b for a, b in zip(params.min_relative, params.min_spread, strict=True))
    if level == 0:
        return None
    sure = q_value <= 0.5 * params.alpha
    return SEVERITIES[level - 1] if sure and costs(test.metric, effect) else "info"


def _table(tested: list[Tested], params: FlagParams) -> pa.Table:
    """The flags among all tests, as rows."""
    q_values = benjamini_hochberg(np.array([t.finding.p_value for t in tested]))
    kept = [
        (test, float(q), severity)
        for test, q in zip(tested, q_values, strict=True)
        if q <= params.alpha and (severity := severity_of(test, float(q), params)) is not None
    ]
    kept.sort(key=lambda k: (k[0].metric, k[0].finding.kind, -_spreads(k[0].finding), k[0].box_nm.tolist()))
    out = []
    numbers: dict[tuple[str, str], int] = {}
    for test, q, severity in kept:
        f = test.finding
        place = (test.metric, f.kind)
        numbers[place] = numbers.get(place, 0) + 1
        relative = relative_of(f, test.measure)
        effect = f.inside - f.outside
        out.append(
            {
                "flag": f"{test.metric}/{f.kind}/{numbers[place]}",
                "layer": test.layer,
                "metric": test.metric,
                "kind": f.kind,
                "severity": severity,
                **dict(zip(BOX, test.box_nm.tolist(), strict=True)),
                "inside": f.inside,
                "outside": f.outside,
                "effect": effect,
                "relative": relative,
                "spread": _spreads(f) * (1 if effect > 0 else -1),
                "measure": test.measure,
                "p_value": f.p_value,
                "q_value": q,
                "worse": costs(test.metric, effect),
                "evidence": _words(test, relative),
            }
        )
    return pa.Table.from_pylist(out, schema=FLAG.arrow())


def _spreads(finding: Finding) -> float:
    """Size of the effect in normal spreads; 1000 at most, also where nothing else varies."""
    effect = abs(finding.inside - finding.outside)
    return min(effect / finding.spread, 1000.0) if finding.spread > 0 else 1000.0


def _words(test: Tested, relative: float | None) -> str:
    """The finding in words."""
    f = test.finding
    unit = "" if test.measure == "1" else f" {test.measure}"
    change = "" if relative is None else f" ({relative:+.0%})"
    return f"{f.inside:.4g}{unit} instead of {f.outside:.4g}{unit}{change}: {f.words}; p = {f.p_value:.2g}"


STAGE = Stage(
    name="flag",
    summary="Regions of unusual quality.",
    params=FlagParams,
    inputs=(RAW, VOLUME, GRAPH),
    outputs=(Rows(table=FLAG),),
    plan=plan,
    compute=compute,
)
