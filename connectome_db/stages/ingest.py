"""ingest: every raw tile checked and measured. One unit per section; nothing is copied or changed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from connectome_db import plans
from connectome_db.kernels.tile_quality import tile_quality
from connectome_db.schema.imaging import TILE, TILE_ISSUE
from connectome_db.spec import RAW, Block, Found, Params, Plan, Result, Rows, Stage


class IngestParams(Params):
    """Parameters of `ingest`."""

    allow_missing: bool = False
    """Go on without the tiles that are missing, truncated, duplicate or of a wrong size, which are listed in
    `tile_issue`. While False, the runner refuses to finish when there are any."""


def plan(found: Found, params: IngestParams) -> Plan:  # noqa: ARG001 - every plan has this signature
    """One unit per section, reading that section's tiles."""
    units = plans.sections(found.inputs[RAW])
    return plans.reading(units, (RAW, plans.planes(units.cores[:, 0], units.cores[:, 3])))


def compute(block: Block[IngestParams]) -> Result:
    """A row per usable tile with what its pixels look like, and a row per tile with a problem."""
    listed = block.tables[RAW]
    usable = listed.filter(pc.equal(listed["problem"], ""))
    broken = listed.filter(pc.not_equal(listed["problem"], ""))
    measured = [tile_quality(block.tiles[name]) for name in usable["tile"].to_pylist()]
    columns = {name: usable[name] for name in TILE.arrow().names if name in usable.column_names}
    for name in TILE.arrow().names:
        if name not in columns:
            columns[name] = pa.array([getattr(m, name) for m in measured], pa.float64())
    return {
        "tile": pa.table(columns).select(TILE.arrow().names).cast(TILE.arrow()),
        "tile_issue": broken.select(TILE_ISSUE.arrow().names).cast(TILE_ISSUE.arrow()),
    }


STAGE = Stage(
    name="ingest",
    summary="Check and measure every raw tile.",
    params=IngestParams,
    inputs=(RAW,),
    outputs=(Rows(TILE), Rows(TILE_ISSUE)),
    plan=plan,
    compute=compute,
)
