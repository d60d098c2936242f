"""A stage whose units do next to nothing, so that a benchmark of it measures the framework. Importable by MPI ranks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.geometry import Box
from connectome_db.spec import RAW, Block, Column, Found, Params, Plan, Result, Rows, Stage, Table

BLOCK_VX = (4, 16, 16)

TRIVIAL = Table(
    name="trivial",
    doc="One row per unit.",
    key=("number",),
    columns=(Column(name="number", dtype="uint64", doc="The unit's code."),),
)


class TrivialParams(Params):
    """Parameters of `trivial`."""

    lattice: tuple[int, int, int] = (10, 10, 10)
    """Blocks along z, y, x."""


def plan(found: Found, params: TrivialParams) -> Plan:  # noqa: ARG001 - every plan has this signature
    """A grid of blocks; each reads the one section of raw tiles there is."""
    z, y, x = (n * b for n, b in zip(params.lattice, BLOCK_VX, strict=True))
    blocks = plans.grid(Box((0, 0, 0), (z, y, x)), BLOCK_VX)
    first = np.zeros(len(blocks), dtype=np.int64)
    return plans.reading(blocks, (RAW, plans.planes(first, first + 1)))


def compute(block: Block[TrivialParams]) -> Result:
    """The unit's own code."""
    return {"trivial": pa.table({"number": pa.array([block.unit.code], pa.uint64())})}


STAGE = Stage(
    name="trivial",
    summary="One row per block.",
    params=TrivialParams,
    inputs=(RAW,),
    outputs=(Rows(TRIVIAL),),
    plan=plan,
    compute=compute,
)
STAGES = (STAGE,)
