"""What the provenance says of a region: other parameters, another network, another environment, tiles that are gone.

Everything here is read from records that the runner wrote; nothing is measured.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.diagnosis.cells import BoxNm, voxel_nm
from connectome_db.diagnosis.compare import share_inside
from connectome_db.schema.quality import LEVELS

Kind = Literal["params", "model", "environment", "code", "tiles"]
_CORE = tuple(f"core_{axis}{end}" for end in (0, 1) for axis in "zyx")


@dataclass(frozen=True)
class Fact:
    """Something that the records say is other in the region than elsewhere."""

    stage: str
    fact: Kind
    region: str
    reference: str
    says: str
    box_nm: BoxNm | None = None
    """Where it holds, if that is known more closely than "in the region"."""
    params: Mapping[str, Any] | None = None
    """Of an override: its parameters."""
    usual: Mapping[str, Any] | None = None
    """The same parameters elsewhere."""
    override: str = ""
    """Name of the region of params.yaml that the override belongs to."""


@dataclass(frozen=True)
class _Stage:
    name: str
    record: Mapping[str, Any]
    boxes: npt.NDArray[np.float64]
    units: pa.Table
    environment: list[str | None]


def facts(root: Path, region: BoxNm) -> list[Fact]:
    """Everything in the records that differs inside `region`, in the order of the pipeline."""
    found: list[Fact] = []
    for stage in _stages(root):
        if stage.name == "ingest":
            found += _tiles(root, region)
        found += _overrides(stage, region, voxel_nm(root))
        found += _environments(stage, region)
    return found


def overridden(root: Path) -> list[tuple[str, BoxNm]]:
    """Regions in which some stage was run with other parameters: name and box, each once."""
    out: dict[tuple[str, BoxNm], None] = {}
    size = voxel_nm(root)
    for stage in _stages(root):
        for o in stage.record.get("overrides") or ():
            out[(str(o["region"]), _nm(o["box_vx"], size))] = None
    return list(out)


def tiles_missing(root: Path) -> list[tuple[int, str, str]]:
    """Section, tile and problem of every tile of the manifest that could not be used."""
    path = root / "data" / "ingest" / "tile_issue.parquet"
    if not path.is_file():
        return []
    rows = pq.read_table(path, columns=["section", "tile", "problem"])
    return list(zip(*(rows[c].to_pylist() for c in ("section", "tile", "problem")), strict=True))


def _stages(root: Path) -> Iterator[_Stage]:
    for name in LEVELS:
        folder = root / "data" / name
        if not (folder / "units.parquet").is_file():
            continue
        units = pq.read_table(folder / "units.parquet")
        core = np.stack([units[c].to_numpy().astype(np.float64) for c in _CORE], axis=1)
        size = np.asarray(voxel_nm(root) * 2)
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        yield _Stage(name, record, core * size, units, _environment(root, name, units))


def _environment(root: Path, stage: str, units: pa.Table) -> list[str | None]:
    path = root / "provenance" / stage / "executions.parquet"
    if not path.is_file():
        return [None] * units.num_rows
    rows = pq.read_table(path, columns=["unit", "environment"])
    by_unit = dict(zip(rows["unit"].to_pylist(), rows["environment"].to_pylist(), strict=True))
    return [by_unit.get(u) for u in units["unit"].to_pylist()]


def _nm(box_vx: Any, size: tuple[float, float, float]) -> BoxNm:
    six = [float(v) * s for v, s in zip(box_vx, (*size, *size), strict=True)]
    return (six[0], six[1], six[2], six[3], six[4], six[5])


def _overrides(stage: _Stage, region: BoxNm, size: tuple[float, float, float]) -> Iterator[Fact]:
    """Overrides whose box holds a good part of the region, or lies in it."""
    usual = stage.record["params"]
    for o in stage.record.get("overrides") or ():
        box = _nm(o["box_vx"], size)
        lap = float(share_inside(np.asarray([region]), box)[0]), float(share_inside(np.asarray([box]), region)[0])
        if max(lap) < 0.3:
            continue
        values = dict(o["params"])
        names = sorted(values)
        kind: Kind = "model" if "model" in values else "params"
        here = ", ".join(f"{n} {values[n]}" for n in names)
        there = ", ".join(f"{n} {usual.get(n)}" for n in names)
        says = f"{stage.name} ran with {here} in region {o['region']!r} and with {there} elsewhere"
        normal = {n: usual.get(n) for n in names}
        yield Fact(stage.name, kind, here, there, says, box, values, normal, str(o["region"]))


def _environments(stage: _Stage, region: BoxNm) -> Iterator[Fact]:
    """Units of the region that were made in another environment than most of the rest."""
    if len(stage.boxes) < 2:
        return
    share = share_inside(stage.boxes, region)
    inside = Counter(e for e, s in zip(stage.environment, share, strict=True) if s >= 0.5 and e)
    outside = Counter(e for e, s in zip(stage.environment, share, strict=True) if s < 0.1 and e)
    if not inside or not outside:
        return
    here, there = inside.most_common(1)[0][0], outside.most_common(1)[0][0]
    if here != there:
        says = f"{stage.name}: most units of the region were made in environment {here[:12]}, the rest in {there[:12]}"
        yield Fact(stage.name, "environment", here[:12], there[:12], says)


def _tiles(root: Path, region: BoxNm) -> Iterator[Fact]:
    """Tiles that are gone in the region's sections."""
    lost = tiles_missing(root)
    z = voxel_nm(root)[0]
    mine = [(s, t, p) for s, t, p in lost if region[0] <= (s + 0.5) * z < region[3]]
    if mine:
        sections = sorted({s for s, _, _ in mine})
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(p for _, _, p in mine).most_common())
        says = f"{len(mine)} tiles of sections {sections[0]}-{sections[-1]} could not be used: {kinds}"
        yield Fact("ingest", "tiles", f"{len(mine)} tiles lost", f"{len(lost) - len(mine)} tiles lost", says)
