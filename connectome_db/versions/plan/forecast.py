"""How long what `foresee` found would take, from the seconds that units of the same stage took before.

    at least   the sure units, at the median       at most   all that may be computed, at the 90th percentile

Blocks of different size are compared by seconds per voxel of their core. Only computing is forecast: starting workers,
planning and assembling data/ come on top. Workers are held to the end of a stage, so they cost while they wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.config import Project
from connectome_db.store import Store
from connectome_db.versions.plan import stored
from connectome_db.versions.plan.foresee import PERHAPS, SURE, Foresight, StageAhead
from connectome_db.versions.plan.present import I64, boxes_in

SAMPLE = 2000
"""Records of the store that are looked at for a stage that has no data."""

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """Seconds that a unit takes: of one voxel of its core where `per_voxel`, else of the whole unit."""

    median_s: float
    p90_s: float
    per_voxel: bool
    units: int
    """So many executions it is taken from."""
    source: str
    """Where they are recorded: provenance or store."""


@dataclass(frozen=True)
class Span:
    """From at least to at most."""

    low: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class StageTime:
    """Forecast of one stage: seconds of work, and seconds by the clock with the given workers."""

    stage: str
    pace: Pace | None
    """None: it was never run, so its times are not known."""
    work_s: Span | None
    wall_s: Span | None


@dataclass(frozen=True)
class Forecast:
    """Times of stages in order, and their sums; `unknown` are stages with something to do and no times.

    `cost` is that of `workers` held for the whole time, in what `price_per_hour` is in; None without a price.
    """

    workers: int
    stages: tuple[StageTime, ...]
    work_s: Span
    wall_s: Span
    cost: Span | None
    unknown: tuple[str, ...]


def forecast(seen: Foresight, *, workers: int | None = None, price_per_hour: float | None = None) -> Forecast:
    """Times and cost of what may be computed, for so many workers (default: `ranks` of launch.yaml, at least 1)."""
    n = max(1, seen.project.launch.ranks if workers is None else workers)
    stages = tuple(_stage(seen.project, s, n) for s in seen.stages)
    work = sum((s.work_s for s in stages if s.work_s is not None), Span(0, 0))
    wall = sum((s.wall_s for s in stages if s.wall_s is not None), Span(0, 0))
    cost = None
    if price_per_hour is not None:
        cost = Span(*(v / 3600 * n * price_per_hour for v in (wall.low, wall.high)))
    unknown = tuple(s.stage for s, a in zip(stages, seen.stages, strict=True) if s.pace is None and len(a.stale))
    return Forecast(n, stages, work, wall, cost, unknown)


def _stage(project: Project, ahead: StageAhead, workers: int) -> StageTime:
    if len(ahead.stale) == 0:
        return StageTime(ahead.stage, None, Span(0, 0), Span(0, 0))
    pace = pace_of(project, ahead.stage)
    if pace is None:
        return StageTime(ahead.stage, None, None, None)
    size = _voxels(ahead.plan.cores) if pace.per_voxel else np.ones(len(ahead.plan))
    ends = [(size[ahead.state == SURE] * pace.median_s), (size[ahead.state >= PERHAPS] * pace.p90_s)]
    work = [float(s.sum()) for s in ends]
    # no schedule is shorter than an equal share for everyone, or than the longest unit
    wall = [max(w / workers, float(s.max(initial=0.0))) for w, s in zip(work, ends, strict=True)]
    return StageTime(ahead.stage, pace, Span(*work), Span(*wall))


def pace_of(project: Project, stage: str) -> Pace | None:
    """How long a unit of a stage takes, from its last provenance, or else from what the store has; None: unknown."""
    try:
        done = pq.read_table(project.provenance(stage) / "executions.parquet", columns=["unit", "seconds"])
        units = pq.read_table(project.data(stage) / "units.parquet")
    except (OSError, pa.ArrowInvalid):
        return _from_store(Store(project.store), stage)
    size = _voxels(boxes_in(units, "core_"))
    seconds = done["seconds"].to_numpy()
    if len(size) != len(seconds) or len(size) == 0:
        return _from_store(Store(project.store), stage)
    blocks = units["kind"][0].as_py() in {"blocks", "faces"}
    return _pace(seconds / size if blocks else seconds, blocks, "provenance")


def _from_store(store: Store, stage: str) -> Pace | None:
    keys = stored.all_keys(store, stage)[:SAMPLE]
    seconds = [float(r.execution["seconds"]) for _, r in stored.records(store, stage, keys)]
    return _pace(np.asarray(seconds), False, "store") if seconds else None


def _pace(values: F64, per_voxel: bool, source: str) -> Pace:
    return Pace(float(np.median(values)), float(np.percentile(values, 90)), per_voxel, len(values), source)


def _voxels(boxes: I64) -> F64:
    sides = (boxes[:, 3:] - boxes[:, :3]).astype(np.float64)
    return np.maximum(sides[:, 0] * sides[:, 1] * sides[:, 2], 1.0)


def clock(seconds: float) -> str:
    """A time for people: < 0.1 s, 0.4 s, 12 s, 3.5 min, 7.2 h, 12.1 days."""
    if seconds < 0.05:
        return "< 0.1 s"
    for limit, step, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            value = seconds / step
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def between(span: Span) -> str:
    """A span for people: `3.0–12 s`, `0.4 s – 2.1 min`, `≤ 12 s`, `12 s`."""
    low, high = clock(span.low), clock(span.high)
    if low == high:
        return high
    if span.low < 0.05:
        return f"≤ {high}"
    number, unit = low.split()
    return f"{number}–{high}" if high.endswith(f" {unit}") else f"{low} – {high}"
