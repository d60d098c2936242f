"""Contacts between supervoxels, scored by the affinity on exactly the faces they share.

Each block counts the faces inside its core and across its lower faces, so every face of the volume is counted once; a
pair that touches in several blocks has a row in each, pooled by `agglomerate`.

In a pipeline with `flood`, voxels that a body grew into do not count where `segment` lets bodies grow: two bodies that
touch only where they were grown together are on two sides of a membrane, wherever in it the two met.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.kernels.contact import contacts
from connectome_db.schema.segmentation import CONTACT
from connectome_db.spec import Block, Found, Params, Plan, Read, Result, Rows, Stage

SUPERVOXELS, BODIES = "segment.supervoxels", "flood.bodies"
ROWS = "segment.supervoxel"
AFFINITIES = ("segment.affinity_z", "segment.affinity_y", "segment.affinity_x")
Extent = Annotated[int, Field(ge=1)]


class ScoreParams(Params):
    """Parameters of `score`."""

    block_vx: tuple[Extent, Extent, Extent] = (16, 128, 128)
    """Voxels (z, y, x) of one block; equal to segment.block_vx reads the fewest units."""


def plan(found: Found, params: ScoreParams) -> Plan:
    """Blocks; supervoxels are read with one layer below the core, affinities in the core."""
    bounds = found.inputs[SUPERVOXELS].bounds
    blocks = plans.grid(bounds, params.block_vx)
    low = plans.clip(plans.grow(blocks.cores, (1, 1, 1), (0, 0, 0)), bounds)
    return plans.reading(blocks, (SUPERVOXELS, low), *((name, blocks.cores) for name in AFFINITIES))


def plan_flooded(found: Found, params: ScoreParams) -> Plan:
    """As `plan`; bodies and the rows of supervoxels are read like supervoxels."""
    first = plan(found, params)
    boxes = first.reads[0].boxes
    return replace(first, reads=(*first.reads, Read(BODIES, boxes), Read(ROWS, boxes)))


def compute(block: Block[ScoreParams]) -> Result:
    """Scored contacts of one block."""
    core, box = block.unit.core, block.boxes[SUPERVOXELS]
    labels = block.arrays[SUPERVOXELS]
    if BODIES in block.arrays:
        rows = block.tables[ROWS]
        grows = rows["supervoxel"].to_numpy()[rows["origin"].to_numpy() == "ffn"]
        grown = (block.arrays[BODIES] != labels) & np.isin(labels, grows)
        labels = np.where(grown, np.uint64(0), labels)
    inner = (core.lo[0] - box.lo[0], core.lo[1] - box.lo[1], core.lo[2] - box.lo[2])
    affinity = np.zeros((3, *labels.shape), np.uint8)
    for k, name in enumerate(AFFINITIES):
        affinity[(k, *core.slices(box.lo))] = block.arrays[name]
    found = contacts(labels, affinity, inner, block.voxel_nm)
    centre = found.centre_vx + np.asarray(box.lo, np.float64)
    table = pa.table(
        {
            "a": found.a,
            "b": found.b,
            "faces": found.faces,
            "area_nm2": found.area_nm2,
            "affinity": found.affinity,
            "affinity_low": found.affinity_low,
            "affinity_high": found.affinity_high,
            "z_vx": centre[:, 0],
            "y_vx": centre[:, 1],
            "x_vx": centre[:, 2],
        },
        schema=CONTACT.arrow(),
    )
    return {"contact": table}


STAGE = Stage(
    name="score",
    summary="Contacts between supervoxels, scored by affinity.",
    params=ScoreParams,
    inputs=(SUPERVOXELS, *AFFINITIES),
    outputs=(Rows(table=CONTACT),),
    plan=plan,
    compute=compute,
)

FLOODED = replace(STAGE, inputs=(*STAGE.inputs, BODIES, ROWS), plan=plan_flooded)
"""The same stage in a pipeline that has `flood`."""
