"""What is known of a revision's quality: the measured cells of every metric, the flags, the checks of its tables.

Everything here is read from the tables in `data/` and `qa/`; what has not been measured is simply not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.diagnosis.cells import CORNERS
from connectome_db.errors import QueryError
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.revisions import Revision
from connectome_db.schema.quality import FLAG, LEVELS, METRICS, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME, Metric
from connectome_db.spec import NM3, Table

F64 = npt.NDArray[np.float64]

MEASURES: Mapping[str, Table] = {
    "measure_raw": QUALITY_RAW,
    "measure_volume": QUALITY_VOLUME,
    "measure_graph": QUALITY_GRAPH,
}
"""Stage -> its table."""
LEVEL_NAMES: Mapping[str, str] = {
    "L1": "Raw tiles",
    "L2": "Aligned volume",
    "L3": "Segmentation",
    "L4": "Objects and synapses",
    "L5": "Graph",
}
LEVELS_DOWN = tuple(reversed(list(LEVEL_NAMES)))
"""From the graph down to the raw tiles."""
SEVERITIES = ("serious", "warning", "info")
"""The worst first."""
EXPECTATIONS = Path("qa") / "expectations.parquet"
NORMAL = 1.4826
"""Median absolute deviation -> standard deviation, of a normal distribution."""


@dataclass(frozen=True)
class Measured:
    """All values of one metric. `boxes` float64[N, 6] (z0, y0, x0, z1, y1, x1) in nm; `value` and `weight` [N]."""

    metric: Metric
    boxes: F64
    value: F64
    weight: F64

    @property
    def level(self) -> str:
        """L1 to L5, or the stage's name where it belongs to none."""
        return LEVELS.get(self.metric.layer, self.metric.layer)

    @cached_property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median, third quartile of the cells."""
        low, middle, high = np.quantile(self.value, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    @cached_property
    def spread(self) -> float:
        """Normal spread between cells: robust standard deviation, of the rest where most cells are alike; or 0."""
        distance = np.abs(self.value - self.quartiles[1])
        robust = NORMAL * float(np.median(distance))
        return robust if robust > 0 else float(np.std(self.value))

    def badness(self) -> F64:
        """Distance from the median in normal spreads, [N]; positive in the direction that costs quality."""
        if self.spread == 0:
            return np.zeros(len(self.value))
        away = (self.value - self.quartiles[1]) / self.spread
        return -away if self.metric.worse == "low" else away if self.metric.worse == "high" else np.abs(away)


@dataclass(frozen=True)
class Flag:
    """A flag, as the table `flag` has it; `box_nm` is (z0, y0, x0, z1, y1, x1)."""

    name: str
    layer: str
    metric: str
    kind: str
    severity: str
    box_nm: SixNm
    inside: float
    outside: float
    effect: float
    relative: float | None
    spread: float
    measure: str
    q_value: float
    worse: bool
    evidence: str

    @property
    def level(self) -> str:
        """L1 to L5."""
        return LEVELS.get(self.layer, self.layer)

    @property
    def alarming(self) -> bool:
        """It costs quality, and is more than worth knowing."""
        return self.worse and self.severity in SEVERITIES[:2]


@dataclass(frozen=True)
class Expectation:
    """The result of one check of a table."""

    table: str
    says: str
    severity: str
    reason: str
    success: bool
    unexpected: int
    example: str
    place: str
    """Where the worst is, in words; empty when it has no place."""


@dataclass(frozen=True)
class Quality:
    """What is known of the quality of one revision."""

    revision: Revision
    metrics: Mapping[str, Measured]
    """By name, in the order of the layers; a metric without a finite value is not there."""
    flags: tuple[Flag, ...] | None
    """The worst first; None: the stage `flag` has no data."""
    expectations: tuple[Expectation, ...] | None
    """None: no checks are on record for this revision."""
    records: Mapping[str, Mapping[str, Any]]
    """`record.json` of every stage that has data."""

    @cached_property
    def hull_nm(self) -> SixNm | None:
        """The box around everything that was measured, inside the image volume; None when nothing was."""
        boxes = [m.boxes[m.weight > 0] for m in self.metrics.values() if (m.weight > 0).any()]
        if not boxes:
            return None
        every = np.concatenate(boxes)
        low, high = every[:, :3].min(axis=0), every[:, 3:].max(axis=0)
        if (image := self.image_nm) is not None:
            low, high = np.maximum(low, image[:3]), np.minimum(high, image[3:])
        return tuple(np.concatenate([low, high]).tolist()) if (low < high).all() else None

    @property
    def voxel_nm(self) -> NM3 | None:
        """Voxel size (z, y, x) of the image; None before stage render."""
        found = self.records.get("render", {}).get("voxel_nm")
        if not found:
            return None
        z, y, x = map(float, found)
        return z, y, x

    @property
    def image_nm(self) -> SixNm | None:
        """The box of the image volume; None before stage render."""
        record = self.records.get("render")
        if record is None or self.voxel_nm is None:
            return None
        return tuple(b * s for b, s in zip(record["bounds"], self.voxel_nm * 2, strict=True))

    def of_level(self, level: str) -> list[Measured]:
        """The metrics of a layer."""
        return [m for m in self.metrics.values() if m.level == level]

    def flags_of(self, level: str) -> list[Flag]:
        """The flags on a layer, the worst first."""
        return [f for f in self.flags or () if f.level == level]


def read(revision: Revision) -> Quality:
    """Everything about a revision's quality that is there. Raises QueryError for a table that is not as declared."""
    records = {stage: revision.record(stage) for stage in revision.stages}
    found: dict[str, Measured] = {}
    for stage, table in MEASURES.items():
        if stage in records:
            found |= _measured(_table(revision, stage, table))
    order = {name: k for k, name in enumerate(METRICS)}
    metrics = dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
    flags = _flags(_table(revision, "flag", FLAG)) if "flag" in records else None
    return Quality(revision, metrics, flags, _expectations(revision), records)


def _table(revision: Revision, stage: str, table: Table) -> pa.Table:
    path = revision.root / "data" / stage / f"{table.name}.parquet"
    try:
        rows = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as e:
        raise QueryError(f"{path}: wanted the table `{table.name}`, cannot read it ({e}); `connectome verify`") from e
    missing = [c.name for c in table.columns if c.name not in rows.column_names]
    if missing:
        raise QueryError(f"{path}: no column {', '.join(missing)}; was it made by another version? `dvc repro {stage}`")
    return rows


def _floats(rows: pa.Table, column: str) -> F64:
    return np.asarray(rows[column].to_numpy(), dtype=np.float64)


def _measured(rows: pa.Table) -> dict[str, Measured]:
    """Metrics of one table; cells whose value or box is not a number are left out."""
    names = np.asarray(rows["metric"].to_pylist(), dtype=object)
    boxes = np.stack([_floats(rows, c) for c in CORNERS], axis=1)
    value, weight = _floats(rows, "value"), _floats(rows, "weight")
    well = np.isfinite(value) & np.isfinite(boxes).all(axis=1)
    found = {}
    for name in dict.fromkeys(names.tolist()):
        mine = (names == name) & well
        if mine.any():
            first = rows.slice(int(np.flatnonzero(mine)[0]), 1).to_pylist()[0]
            metric = METRICS.get(name) or Metric(name, first["layer"], first["measure"], "either", "")
            found[str(name)] = Measured(metric, boxes[mine], value[mine], np.nan_to_num(weight[mine]))
    return found


def _flags(rows: pa.Table) -> tuple[Flag, ...]:
    def six(row: Mapping[str, Any]) -> SixNm:
        z0, y0, x0, z1, y1, x1 = (float(row[c]) for c in CORNERS)
        return z0, y0, x0, z1, y1, x1

    found = [
        Flag(
            r["flag"], r["layer"], r["metric"], r["kind"], r["severity"], six(r), r["inside"], r["outside"],
            r["effect"], r["relative"], r["spread"], r["measure"], r["q_value"], r["worse"], r["evidence"],
        )
        for r in rows.to_pylist()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda f: (not f.worse, _rank(f.severity), -abs(f.spread), f.name)))


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def worst(severities: Sequence[str]) -> str | None:
    """The worst of some severities; None of none."""
    return min(severities, key=_rank, default=None)


def _expectations(revision: Revision) -> tuple[Expectation, ...] | None:
    """Checks of the tables: they lie beside the working tree, and are about it alone."""
    path = revision.project / EXPECTATIONS
    if revision.commit is not None or not path.is_file():
        return None
    try:
        rows = pq.read_table(path).to_pylist()
        return tuple(
            Expectation(
                str(r["table"]), str(r.get("says") or r["expectation"]), str(r["severity"]), str(r["reason"]),
                bool(r["success"]), int(r["unexpected"] or 0), str(r["example"] or ""), str(r.get("place") or ""),
            )
            for r in rows
        )  # fmt: skip
    except (pa.ArrowInvalid, KeyError) as e:
        raise QueryError(f"{path}: wanted the results of checks, cannot read them ({e}); remove the file") from e
