"""One union-find over all accepted overlaps: supervoxels become fragments."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.kernels.union_find import lowest_names
from connectome_db.schema.segmentation import FRAGMENT
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

SUPERVOXEL, OVERLAP = "segment.supervoxel", "overlap.overlap"


class ReconcileParams(Params):
    """Parameters of `reconcile`: none, every decision was made by `overlap`."""


def plan(found: Found, params: ReconcileParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all supervoxels and all overlaps."""
    return plans.reading(plans.once(found.inputs[SUPERVOXEL].bounds), (SUPERVOXEL, None), (OVERLAP, None))


def compute(block: Block[ReconcileParams]) -> Result:
    """The fragment of every supervoxel, named by the lowest supervoxel in it."""
    names = np.sort(block.tables[SUPERVOXEL]["supervoxel"].to_numpy())
    pairs = block.tables[OVERLAP]
    joined = pairs.filter(pairs["accepted"])
    try:
        fragment = lowest_names(names, joined["a"].to_numpy(), joined["b"].to_numpy(), "supervoxel")
    except KeyError as error:
        raise StageError(f"overlap names a supervoxel that segment did not make: {error.args[0]}") from error
    return {"fragment": pa.table({"supervoxel": names, "fragment": fragment}, schema=FRAGMENT.arrow())}


STAGE = Stage(
    name="reconcile",
    summary="Accepted overlaps joined into fragments.",
    params=ReconcileParams,
    inputs=(SUPERVOXEL, OVERLAP),
    outputs=(Rows(table=FRAGMENT),),
    plan=plan,
    compute=compute,
)
