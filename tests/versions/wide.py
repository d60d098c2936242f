"""Toy stages for checking: a volume whose units have several chunks, and one that is not what it pretends to be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.geometry import Box
from connectome_db.spec import RAW, Block, Column, Found, Params, Plan, Result, Rows, Stage, Table, Volume

BLOCK = (8, 128, 256)

SUM = Table(
    name="brightness",
    doc="Sum of grey values per block.",
    key=("plane",),
    columns=(
        Column(name="plane", dtype="int32", doc="Plane of the block."),
        Column(name="total", dtype="float64", doc="Sum."),
    ),
)


class WideParams(Params):
    """Parameters of the wide toy."""

    size_vx: tuple[int, int, int] = (8, 128, 512)
    """Bounds."""
    least: int = 1
    """Lowest grey value."""


def plan(found: Found, params: WideParams) -> Plan:
    """Two blocks of two chunks each."""
    units = plans.grid(Box((0, 0, 0), params.size_vx), BLOCK)
    return plans.reading(units, (RAW, np.repeat([[0, 0, 0, 1, 1 << 20, 1 << 20]], len(units), axis=0)))


def _result(image: np.ndarray) -> Result:  # type: ignore[type-arg]
    sums = image.sum(axis=(1, 2)).astype(np.float64)
    rows = pa.table({"plane": pa.array(range(len(sums)), pa.int32()), "total": sums})
    return {"noise": image, "brightness": rows}


def compute(block: Block[WideParams]) -> Result:
    """Seeded noise."""
    return _result(block.rng().integers(block.params.least, 200, block.unit.core.shape, dtype=np.uint8))


COUNTER = iter(range(10**6))
"""What no stage may have, and what the code digest cannot see in use: state that outlives a unit."""


def drift(block: Block[WideParams]) -> Result:
    """The same noise, with one voxel that depends on how many units came before in this process."""
    image = block.rng().integers(block.params.least, 200, block.unit.core.shape, dtype=np.uint8)
    image[0, 0, 0] = 10 + next(COUNTER) % 40
    return _result(image)


def stage(name: str, how: object) -> Stage[WideParams]:
    """One of the two."""
    noise = Volume(name="noise", dtype="uint8", kind="image", doc="Noise.")
    return Stage(
        name=name, summary="Noise.", params=WideParams, inputs=(RAW,), outputs=(noise, Rows(SUM)), plan=plan,
        compute=how,  # type: ignore[arg-type]
    )  # fmt: skip


STAGES = (stage("wide", compute),)
DRIFTING = (stage("drifting", drift),)
