"""Small stages for testing the framework: labels from nothing, counts per block with a halo, and their sum."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.geometry import Box
from connectome_db.ids import mint
from connectome_db.spec import RAW, Block, Column, Found, Params, Plan, Result, Rows, Stage, Table, Volume

BLOCK = (4, 16, 16)

COUNT = Table(
    name="count",
    doc="Voxels per label seen in a block and its halo.",
    key=("label",),
    columns=(
        Column(name="label", dtype="uint64", doc="Label."),
        Column(name="voxels", dtype="int64", unit="vx", doc="Voxels."),
    ),
)
TOTAL = Table(
    name="total",
    doc="All of it.",
    key=("rows",),
    columns=(Column(name="rows", dtype="int64", doc="Rows read."), Column(name="voxels", dtype="int64", doc="Sum.")),
)


class PaintParams(Params):
    """Parameters of the toy volume."""

    size_vx: tuple[int, int, int] = (8, 32, 32)
    """Bounds."""
    base: int = 1
    """First local id."""
    broken: str = ""
    """What to do wrong: forget, dtype, raise."""


def paint_plan(found: Found, params: PaintParams) -> Plan:
    """Blocks over `size_vx`, reading no tile."""
    plan = plans.grid(Box((0, 0, 0), params.size_vx), BLOCK)
    return plans.reading(plan, (RAW, np.repeat([[0, 0, 0, 1, 1 << 20, 1 << 20]], len(plan), axis=0)))


def paint(block: Block[PaintParams]) -> Result:
    """One label per block half, plus a seeded speckle."""
    shape = block.unit.core.shape
    local = np.ones(shape, dtype=np.uint64) * np.uint64(block.params.base)
    local[:, : shape[1] // 2] += np.uint64(1)
    local[block.rng().random(shape) < 0.01] = 0
    if block.params.broken == "raise":
        raise ZeroDivisionError("planted")
    labels = mint(block.unit.code, local)
    if block.params.broken == "forget":
        return {}
    if block.params.broken == "dtype":
        return {"labels": labels.astype(np.int64)}
    return {"labels": labels}


PAINT = Stage(
    name="paint",
    summary="A volume from nothing.",
    params=PaintParams,
    inputs=(RAW,),
    outputs=(Volume(name="labels", dtype="uint64", kind="segmentation", doc="Labels."),),
    plan=paint_plan,
    compute=paint,
)


class CountParams(Params):
    """Parameters of the toy count."""

    halo_vx: tuple[int, int, int] = (1, 4, 4)
    """How far beyond its block a unit looks."""
    floor: int = 0
    """Labels below this count are left out."""


def count_plan(found: Found, params: CountParams) -> Plan:
    """The same blocks with a halo."""
    bounds = found.inputs["paint.labels"].bounds
    plan = plans.grid(bounds, BLOCK)
    return plans.reading(plan, ("paint.labels", plans.halo(plan.cores, params.halo_vx, bounds)))


def count(block: Block[CountParams]) -> Result:
    """Voxels per label."""
    label, n = np.unique(block.arrays["paint.labels"], return_counts=True)
    keep = (label > 0) & (n >= block.params.floor)
    return {"count": pa.table({"label": label[keep].astype(np.uint64), "voxels": n[keep].astype(np.int64)})}


COUNTS = Stage(
    name="counts",
    summary="Counts per block.",
    params=CountParams,
    inputs=("paint.labels",),
    outputs=(Rows(COUNT),),
    plan=count_plan,
    compute=count,
)


class SumParams(Params):
    """None."""


def sum_plan(found: Found, params: SumParams) -> Plan:
    """Once."""
    return plans.reading(plans.once(found.inputs["counts.count"].bounds), ("counts.count", None))


def total(block: Block[SumParams]) -> Result:
    """Sum of all rows."""
    t = block.tables["counts.count"]
    return {"total": pa.table({"rows": [t.num_rows], "voxels": [int(t["voxels"].to_numpy().sum())]})}


SUM = Stage(
    name="summing",
    summary="One sum.",
    params=SumParams,
    inputs=("counts.count",),
    outputs=(Rows(TOTAL),),
    plan=sum_plan,
    compute=total,
)

STAGES = (PAINT, COUNTS, SUM)
