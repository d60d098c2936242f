"""What two neighbouring blocks say about the same voxels: candidates for being one supervoxel, accepted or refused.

The lower block segmented a slab beyond its face (its apron); the upper block wrote that slab. A pair is accepted when
each is the other's majority there, so a supervoxel has at most one partner per face and errors cannot chain through a
third. What is refused is not lost: the two still touch at the face, and `agglomerate` judges that contact by affinity.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.kernels.aprons import apron_labels
from connectome_db.kernels.overlaps import Overlaps, overlaps
from connectome_db.schema.segmentation import OVERLAP
from connectome_db.spec import Array, Block, Found, Params, Plan, Result, Rows, Stage

SUPERVOXELS, APRON = "segment.supervoxels", "segment.apron"
Extent = Annotated[int, Field(ge=1)]


class OverlapParams(Params):
    """Parameters of `overlap`."""

    block_vx: tuple[Extent, Extent, Extent] = (16, 128, 128)
    """Blocks whose faces are compared (z, y, x): equal to segment.block_vx."""
    depth_vx: tuple[Extent, Extent, Extent] = (2, 8, 8)
    """Thickness (z, y, x) of the compared slab: at most segment.apron_vx."""
    min_shared_vx: Annotated[int, Field(ge=1)] = 2
    """Pairs that share fewer voxels are not candidates."""
    accept_shared_vx: Annotated[int, Field(ge=1)] = 12
    """An accepted pair shares at least this many voxels."""
    accept_share: Annotated[float, Field(ge=0.5, lt=1)] = 0.7
    """An accepted pair shares more than this part of the larger of the two: raise it when bodies merge at faces."""


def plan(found: Found, params: OverlapParams) -> Plan:
    """Faces; each reads the upper block's slab and, through a layer at the face, the lower block's rows."""
    faces = plans.faces(found.inputs[SUPERVOXELS].bounds, params.block_vx, params.depth_vx)
    below = faces.cores.copy()
    _, axis = ids.unpack(faces.codes)
    rows = np.arange(len(faces))
    below[rows, 3 + axis] = below[rows, axis]
    below[rows, axis] -= 1
    return plans.reading(faces, (SUPERVOXELS, faces.cores), (APRON, below))


def compute(block: Block[OverlapParams]) -> Result:
    """All candidate pairs of one face with the decision on each."""
    upper = block.arrays[SUPERVOXELS]
    lower = _decode(block)
    pairs = overlaps(lower, upper)
    keep = pairs.shared_vx >= block.params.min_shared_vx
    accepted, reason = _judge(pairs, block.params)
    table = pa.table(
        {
            "a": pairs.a,
            "b": pairs.b,
            "overlap_vx": pairs.shared_vx,
            "a_vx": pairs.a_vx,
            "b_vx": pairs.b_vx,
            "score": pairs.of_smaller,
            "iou": pairs.iou,
            "accepted": accepted,
            "reason": reason,
        },
        schema=OVERLAP.arrow(),
    )
    return {"overlap": table.filter(pa.array(keep))}


def _decode(block: Block[OverlapParams]) -> Array:
    """The lower block's labels on the slab, 0 where it has none."""
    try:
        return apron_labels(block.tables[APRON], block.unit.axis, block.unit.core.shape)
    except ValueError as error:
        raise StageError(
            f"{block.unit}: the lower block's apron does not match this face: {error}; overlap.block_vx must equal "
            "segment.block_vx, and overlap.depth_vx must be at most segment.apron_vx"
        ) from error


def _judge(pairs: Overlaps, params: OverlapParams) -> tuple[Array, list[str]]:
    """Accepted or not, and why, per pair."""
    share = pairs.of_larger
    enough = pairs.shared_vx >= params.accept_shared_vx
    mutual = share > params.accept_share
    reasons = [
        "each is the other's majority"
        if m and e
        else f"shares fewer than {params.accept_shared_vx} voxels"
        if m
        else f"shares {100 * s:.0f}% of the larger; more than {100 * params.accept_share:.0f}% wanted"
        for s, e, m in zip(share.tolist(), enough.tolist(), mutual.tolist(), strict=True)
    ]
    return enough & mutual, reasons


STAGE = Stage(
    name="overlap",
    summary="Supervoxels matched across block faces.",
    params=OverlapParams,
    inputs=(SUPERVOXELS, APRON),
    outputs=(Rows(table=OVERLAP),),
    plan=plan,
    compute=compute,
)
