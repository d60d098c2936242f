"""A project whose quality is known by construction: a corner of low contrast from the raw tiles to the graph.

Volume 16 x 256 x 256 voxels at 30 x 8 x 8 nm; cells of 4 x 32 x 32 voxels. Corner: y and x from 1024 nm on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import config, paramsfile, plans, volumes
from connectome_db.config import Dataset, Project
from connectome_db.geometry import Box
from connectome_db.newproject import model_changes
from connectome_db.schema.quality import FLAG, METRICS, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME
from connectome_db.spec import Table, Volume
from connectome_db.stages.pipeline import STAGES

VOXEL_NM = (30.0, 8.0, 8.0)
SHAPE = (16, 256, 256)
CELL = (4, 32, 32)
CORNER_NM = (0.0, 1024.0, 1024.0, 480.0, 2048.0, 2048.0)
USUAL = {
    "raw_membrane_contrast": 40.0, "raw_noise": 6.0, "raw_charging": 1.0, "alignment_residual": 0.4, "coverage": 1.0,
    "section_continuity": 0.8, "image_contrast": 30.0, "affinity_certainty": 0.8, "supervoxel_density": 900.0,
    "synapse_density": 1.2, "synapse_confidence": 0.9, "connection_density": 1.1, "degree": 5.0, "border_cut": 0.4,
}  # fmt: skip
"""Metric -> its value away from the corner."""
LOWERED = {
    "raw_membrane_contrast": 0.6, "image_contrast": 0.65, "affinity_certainty": 0.85, "supervoxel_density": 1.4,
    "synapse_density": 0.75, "synapse_confidence": 0.85, "connection_density": 0.7, "degree": 0.7,
}  # fmt: skip
"""Metric -> the factor in the corner."""
EVIL = '<script>document.documentElement.dataset.evil="1"</script><img src=x onerror=alert(1)>"\'&`$(touch /tmp/evil)`'


def cells() -> list[tuple[float, ...]]:
    """Boxes of all cells in nm."""
    out = []
    for z in range(0, SHAPE[0], CELL[0]):
        for y in range(0, SHAPE[1], CELL[1]):
            for x in range(0, SHAPE[2], CELL[2]):
                low = (z, y, x)
                out.append(tuple(v * s for v, s in zip(low, VOXEL_NM, strict=True))
                           + tuple((v + c) * s for v, c, s in zip(low, CELL, VOXEL_NM, strict=True)))  # fmt: skip
    return out


def in_corner(box: tuple[float, ...]) -> bool:
    """Whether a cell lies in the corner."""
    return box[1] >= CORNER_NM[1] and box[2] >= CORNER_NM[2]


def flags() -> list[dict[str, Any]]:
    """Two flags of the corner, one that costs nothing, one whose every text is an attack."""
    found = [
        _flag("raw_membrane_contrast/trend/1", "raw_membrane_contrast", "serious", -16.0, -0.4, 8.0,
              "contrast of membranes is 40 % lower in the corner"),
        _flag("connection_density/local/1", "connection_density", "warning", -0.33, -0.3, -3.0,
              "connections are 30 % fewer in the corner"),
        _flag("raw_noise/local/1", "raw_noise", "info", -1.0, None, -2.2, "less noise") | {"worse": False},
        _flag(f"degree/local/{EVIL}", "degree", "info", -1.5, -0.3, -2.0, EVIL),
    ]  # fmt: skip
    return found


def _flag(
    name: str, metric: str, severity: str, effect: float, relative: float | None, spread: float, evidence: str
) -> dict[str, Any]:
    usual = USUAL[metric]
    return {
        "flag": name, "layer": METRICS[metric].layer, "metric": metric, "kind": "local", "severity": severity,
        **box_columns(CORNER_NM), "inside": usual + effect, "outside": usual, "effect": effect, "relative": relative,
        "spread": spread, "measure": METRICS[metric].measure, "p_value": 0.001, "q_value": 0.004, "worse": True,
        "evidence": evidence,
    }  # fmt: skip


def box_columns(box: tuple[float, ...]) -> dict[str, float]:
    """A box as the columns of the tables."""
    return {f"{a}{end}_nm": box[3 * end + k] for end in (0, 1) for k, a in enumerate("zyx")}


def write(root: Path, *, flagged: bool = True) -> Project:
    """Write the project; `flagged=False` leaves the stage `flag` out."""
    rng = np.random.default_rng(7)
    rows: dict[str, list[dict[str, Any]]] = {"measure_raw": [], "measure_volume": [], "measure_graph": []}
    for name, usual in USUAL.items():
        metric = METRICS[name]
        stage = "measure_raw" if name.startswith("raw_") else "measure_volume"
        stage = "measure_graph" if metric.layer in {"graph", "agglomerate"} else stage
        for box in cells():
            factor = LOWERED.get(name, 1.0) if in_corner(box) else 1.0
            value = usual if name == "coverage" else usual * factor * (1 + 0.05 * rng.standard_normal())
            row: dict[str, Any] = {"layer": metric.layer, "metric": name, **box_columns(box), "value": value}
            row |= {"weight": 4096.0, "measure": metric.measure, "section": int(box[0] // 30), "tile": "s0_r0"}
            rows[stage].append(row)
    for stage, table in (
        ("measure_raw", QUALITY_RAW), ("measure_volume", QUALITY_VOLUME), ("measure_graph", QUALITY_GRAPH)
    ):  # fmt: skip
        write_stage(root, stage, table, rows[stage])
    if flagged:
        write_stage(root, "flag", FLAG, flags())
    _image(root, rng)
    text = paramsfile.render(Dataset(name="corner & co", voxel_nm=VOXEL_NM), STAGES, model_changes(STAGES, "phantom"))
    (root / "params.yaml").write_text(text)
    return config.load(root, STAGES)


def write_stage(root: Path, stage: str, table: Table, rows: list[dict[str, Any]]) -> None:
    """One table with its record."""
    folder = root / "data" / stage
    folder.mkdir(parents=True, exist_ok=True)
    columns = {c.name: [r[c.name] for r in rows] for c in table.columns}
    unit = pa.array(["once"] * len(rows))
    made = pa.Table.from_pydict(columns, schema=pa.schema(list(table.arrow())))
    pq.write_table(made.add_column(0, "unit", unit), folder / f"{table.name}.parquet")
    record = {"stage": stage, "units": 1, "outputs": {table.name: f"digest of {len(rows)} rows"}, "code_digest": "ab12"}
    (folder / "record.json").write_text(json.dumps(record))


def _image(root: Path, rng: np.random.Generator) -> None:
    folder = root / "data" / "render" / "image"
    folder.mkdir(parents=True)
    box = Box((0, 0, 0), SHAPE)
    layout = volumes.layout(Volume(name="image", dtype="uint8", kind="image", doc=""), box, SHAPE, VOXEL_NM)
    grey = rng.integers(90, 160, SHAPE).astype(np.uint8)
    (folder / "info").write_bytes(volumes.info(layout))
    for core in plans.grid(box, SHAPE).cores:
        at = Box(tuple(core[:3].tolist()), tuple(core[3:].tolist()))
        for name, data in volumes.encode(layout, at, grey[at.slices(box.lo)]).items():
            path = folder / volumes.absolute_name(layout, at, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    record = {
        "stage": "render", "units": 1, "outputs": {"image": "0"}, "code_digest": "cd34", "model_id": "a-model@12",
        "bounds": [0, 0, 0, *SHAPE], "voxel_nm": list(VOXEL_NM),
    }  # fmt: skip
    (folder.parent / "record.json").write_text(json.dumps(record))
