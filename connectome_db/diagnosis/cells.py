"""What was measured, as arrays: per metric the boxes in nm, the values and what they rest on.

Metrics of cells come from the tables `quality_*`; those of neurons (`out_degree` ...) from `neuron`, with each neuron
at the centre of its supervoxels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import QueryError, nearest
from connectome_db.schema.quality import METRICS, Metric

F64 = npt.NDArray[np.float64]
BoxNm = tuple[float, float, float, float, float, float]
"""(z0, y0, x0, z1, y1, x1) in nm, in the frame of the aligned volume."""
TABLES: Mapping[str, str] = {
    "measure_raw": "quality_raw",
    "measure_volume": "quality_volume",
    "measure_graph": "quality_graph",
}
"""Stage -> its table of quality."""
CORNERS = ("z0_nm", "y0_nm", "x0_nm", "z1_nm", "y1_nm", "x1_nm")
_NEURON = {
    "out_degree": ("partners_out", "Distinct postsynaptic partners per neuron."),
    "in_degree": ("partners_in", "Distinct presynaptic partners per neuron."),
    "synapses_out": ("synapses_out", "Counted synapses per neuron where it is presynaptic."),
    "synapses_in": ("synapses_in", "Counted synapses per neuron where it is postsynaptic."),
}
NEURON_METRICS: Mapping[str, Metric] = {
    name: Metric(name, "graph", "1", "low", doc) for name, (_, doc) in _NEURON.items()
}
"""Metrics of neurons, which are points and not cells."""
KNOWN: Mapping[str, Metric] = {**METRICS, **NEURON_METRICS}
"""Every metric that a region can be compared in."""


@dataclass(frozen=True)
class Cells:
    """One metric everywhere: boxes float64[N, 6] in nm, values and weights float64[N].

    `cut` says, where it is known, which rows belong to something that the volume's border cuts: they are compared with
    their like.
    """

    metric: Metric
    boxes: F64
    value: F64
    weight: F64
    cut: npt.NDArray[np.bool_] | None = None

    @property
    def centres(self) -> F64:
        """Centres (z, y, x) in nm, float64[N, 3]."""
        return 0.5 * (self.boxes[:, :3] + self.boxes[:, 3:])

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class Measured:
    """Everything that was measured of a project, and the box of its volume."""

    cells: Mapping[str, Cells]
    bounds_nm: BoxNm

    def of(self, metric: str) -> Cells:
        """The cells of a metric. Raises QueryError when there is no such metric, or nothing was measured of it."""
        if metric not in KNOWN:
            raise QueryError(f"unknown metric {metric!r}{nearest(metric, KNOWN)}; `connectome diagnose --list` has all")
        if metric not in self.cells:
            raise QueryError(f"metric {metric!r}: nothing was measured of it in this project; see {KNOWN[metric].doc}")
        return self.cells[metric]


def load(root: Path) -> Measured:
    """Read the tables of quality and the neurons below `root` (a project, or a revision's folder).

    Raises QueryError when a stage that measures has not been run.
    """
    cells: dict[str, Cells] = {}
    for stage, name in TABLES.items():
        path = root / "data" / stage / f"{name}.parquet"
        if not path.is_file():
            raise QueryError(f"{root}: no table {name}: stage {stage} has not been run; run `dvc repro {stage}`")
        cells |= _cells(path)
    cells |= _neurons(root)
    order = [m for m in KNOWN if m in cells]
    return Measured({m: cells[m] for m in order}, _bounds(root))


def _cells(path: Path) -> dict[str, Cells]:
    table = pq.read_table(path, columns=["metric", *CORNERS, "value", "weight"])
    out = {}
    for name in pc.unique(table["metric"]).to_pylist():
        if name not in METRICS:
            continue  # measured by a later version of this package
        mine = table.filter(pc.equal(table["metric"], name))
        boxes = np.stack([mine[c].to_numpy() for c in CORNERS], axis=1)
        out[name] = Cells(METRICS[name], boxes, mine["value"].to_numpy(), mine["weight"].to_numpy())
    return out


def _neurons(root: Path) -> dict[str, Cells]:
    """Degrees of neurons, each at the mean place of its supervoxels, weighted by size."""
    neuron = pq.read_table(root / "data" / "graph" / "neuron.parquet")
    if neuron.num_rows == 0:
        return {}
    names = neuron["neuron"].to_numpy()
    order = np.argsort(names)
    member = pq.read_table(root / "data" / "agglomerate" / "member.parquet", columns=["supervoxel", "object"])
    parts = pq.read_table(
        root / "data" / "segment" / "supervoxel.parquet", columns=["supervoxel", "size_vx", "z_vx", "y_vx", "x_vx"]
    )
    owner = owner_of(parts["supervoxel"].to_numpy(), member["supervoxel"].to_numpy(), member["object"].to_numpy())
    at = np.minimum(np.searchsorted(names[order], owner), len(names) - 1)
    mine = names[order][at] == owner
    row, size = order[at[mine]], parts["size_vx"].to_numpy()[mine].astype(np.float64)
    total = np.maximum(np.bincount(row, size, len(names)), 1.0)
    voxel = voxel_nm(root)
    place = np.stack(
        [
            np.bincount(row, size * parts[f"{axis}_vx"].to_numpy()[mine], len(names)) / total * step
            for axis, step in zip("zyx", voxel, strict=True)
        ],
        axis=1,
    )
    half = 0.5 * np.asarray(voxel)
    boxes = np.concatenate([place - half, place + half], axis=1)
    cut = neuron["touches_border"].to_numpy(zero_copy_only=False).astype(np.bool_)
    weight = np.ones(len(names))
    return {
        metric: Cells(NEURON_METRICS[metric], boxes, neuron[column].to_numpy().astype(np.float64), weight, cut)
        for metric, (column, _) in _NEURON.items()
    }


def owner_of(
    wanted: npt.NDArray[np.uint64], supervoxel: npt.NDArray[np.uint64], owner: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """The owner (N,) of each of the wanted supervoxels; 0 for those that have none."""
    order = np.argsort(supervoxel)
    at = np.minimum(np.searchsorted(supervoxel[order], wanted), len(order) - 1)
    found: npt.NDArray[np.uint64] = np.where(supervoxel[order][at] == wanted, owner[order][at], 0).astype(np.uint64)
    return found


def _bounds(root: Path) -> BoxNm:
    """The box that holds all supervoxels, in nm: the volume without the blank rim to which its blocks round it out."""
    columns = [f"{axis}{end}_vx" for end in (0, 1) for axis in "zyx"]
    parts = pq.read_table(root / "data" / "segment" / "supervoxel.parquet", columns=columns)
    if parts.num_rows == 0:
        raise QueryError(f"{root}: the segmentation holds no supervoxel, so there is nothing to compare")
    low = [float(parts[f"{axis}0_vx"].to_numpy().min()) for axis in "zyx"]
    high = [float(parts[f"{axis}1_vx"].to_numpy().max()) for axis in "zyx"]
    z, y, x = voxel_nm(root)
    return (low[0] * z, low[1] * y, low[2] * x, high[0] * z, high[1] * y, high[2] * x)


def voxel_nm(root: Path) -> tuple[float, float, float]:
    """Voxel size (z, y, x) in nm, as the segmentation's record says it."""
    z, y, x = json.loads((root / "data" / "segment" / "record.json").read_text(encoding="utf-8"))["voxel_nm"]
    return float(z), float(y), float(x)
