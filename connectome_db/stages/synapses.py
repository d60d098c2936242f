"""Image and supervoxels -> synapses: a cleft U-Net, components, and the partner on each side.

A synapse belongs to the block whose core holds its anchor, the rounded centroid of the cleft weighted by probability.
With a halo larger than half a synapse, the owner sees all of it and the neighbours compute the same anchor. A cleft
that is longer than the halo may be claimed twice; `graph` finds such duplicates by distance and partners.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.bridge import tissue_of
from connectome_db.kernels.cleft_components import CleftComponents, cleft_components
from connectome_db.kernels.local_contrast import equalise
from connectome_db.kernels.partners import Partners, partners
from connectome_db.schema.wiring import SYNAPSE
from connectome_db.spec import NM3, Block, Found, Network, Params, Plan, Result, Rows, Stage

IMAGE, SUPERVOXELS, MASK = "render.image", "segment.supervoxels", "mask.mask"
U8 = npt.NDArray[np.uint8]
Fraction = Annotated[float, Field(ge=0, le=1)]
Extent = Annotated[int, Field(ge=1)]


class SynapsesParams(Params):
    """Parameters of `synapses`."""

    networks: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "phantom-cleft"
    """Name of the cleft network."""
    block_vx: tuple[Extent, Extent, Extent] = (16, 128, 128)
    """Voxels (z, y, x) whose synapses one block reports; larger blocks waste less on the halo."""
    halo_nm: Annotated[float, Field(ge=0)] = 300.0
    """Context on each side: half of the longest cleft plus the network's margin."""
    equalise_px: Annotated[float, Field(ge=0)] = 0.0
    """Bring every neighbourhood of this size to the same contrast before the network sees it; 0 leaves the image as it
    is. 48 for a region that is weakly stained; it raises noise as well."""
    low: Fraction = 0.75
    """A cleft reaches out to this probability: lower it when clefts break into pieces."""
    high: Fraction = 0.9
    """A cleft holds a voxel of at least this probability: lower it when synapses are missed."""
    min_volume_nm3: Annotated[float, Field(ge=0)] = 400_000.0
    """Clefts of a smaller volume are dropped: raise it when specks count as synapses."""
    reach_nm: Annotated[float, Field(gt=0)] = 60.0
    """Evidence for pre and post counts up to this far from the cleft."""
    facing_nm: Annotated[float, Field(gt=0)] = 24.0
    """The cleft lies between two partners where it is at most this far from both."""
    min_polarity: Fraction = 0.0
    """Synapses whose evidence for a direction is below this are dropped."""


def plan(found: Found, params: SynapsesParams) -> Plan:
    """Blocks; each reads its core grown by the halo."""
    bounds = found.inputs[IMAGE].bounds
    blocks = plans.grid(bounds, params.block_vx)
    z, y, x = (int(np.ceil(params.halo_nm / step)) for step in found.voxel_nm)
    reads = plans.halo(blocks.cores, (z, y, x), bounds)
    return plans.reading(blocks, (IMAGE, reads), (SUPERVOXELS, reads), (MASK, reads))


def compute(block: Block[SynapsesParams]) -> Result:
    """The synapses whose anchor lies in the block's core."""
    params, core, box = block.params, block.unit.core, block.boxes[IMAGE]
    tissue = tissue_of(block.arrays[MASK])
    image = block.arrays[IMAGE]
    if params.equalise_px:
        image = equalise(image, params.equalise_px)
    cleft, pre, post = evidence(block.model, image, box)
    min_vx = int(np.ceil(params.min_volume_nm3 / float(np.prod(block.voxel_nm))))
    found = cleft_components(cleft, tissue, low=params.low, high=params.high, min_vx=min_vx)
    anchor = np.floor(found.centre_vx + 0.5).astype(np.int64) + np.asarray(box.lo)
    mine = np.flatnonzero(((anchor >= core.lo) & (anchor < core.hi)).all(axis=1))
    mine = mine[np.lexsort((-found.size_vx[mine], anchor[mine, 2], anchor[mine, 1], anchor[mine, 0]))]
    rows: list[tuple[int, Partners, tuple[int, int, int]]] = []
    for i in mine.tolist():
        cell = _cell(found, i, box, params.reach_nm, block.voxel_nm)
        sides = partners(
            found.labels[cell] == i + 1,
            block.arrays[SUPERVOXELS][cell],
            pre[cell],
            post[cell],
            block.voxel_nm,
            reach_nm=params.reach_nm,
            facing_nm=params.facing_nm,
        )
        if sides is not None and sides.polarity >= params.min_polarity:
            rows.append((i, sides, (cell[0].start, cell[1].start, cell[2].start)))
    named = ids.mint_at(block.unit.code, anchor[np.asarray([i for i, _, _ in rows], np.int64)], params.block_vx)
    return {"synapse": _table(rows, found, box, named)}


def evidence(network: Network, image: U8, box: Box) -> tuple[U8, U8, U8]:
    """Probabilities of cleft, presynaptic side and postsynaptic side: uint8 (z, y, x), 255 = 1."""
    wanted = ("cleft", "pre", "post")
    absent = [name for name in wanted if name not in network.channels]
    if absent:
        raise StageError(
            f"model {network.model_id}: wanted the channels {', '.join(wanted)}, got {', '.join(network.channels)}; "
            "name a model for the task 'cleft' in synapses.model"
        )
    # Mirrored outwards to the network's lattice, so that all blocks see one lattice.
    extra = [lo % step for lo, step in zip(box.lo, network.alignment_vx, strict=True)]
    padded = np.pad(image, [(n, 0) for n in extra], mode="symmetric")
    predicted = network.predict(padded)[(slice(None), *(slice(n, None) for n in extra))]
    cleft, pre, post = (
        np.floor(predicted[network.channels.index(name)] * 255 + 0.5).astype(np.uint8) for name in wanted
    )
    return cleft, pre, post


def _cell(found: CleftComponents, i: int, box: Box, reach_nm: float, voxel_nm: NM3) -> tuple[slice, slice, slice]:
    """The component's box grown by the reach, within what was read."""
    grown = [
        slice(max(0, s.start - reach), min(n, s.stop + reach))
        for s, n, reach in zip(
            found.boxes[i], box.shape, (int(np.ceil(reach_nm / step)) for step in voxel_nm), strict=True
        )
    ]
    return grown[0], grown[1], grown[2]


def _table(
    rows: list[tuple[int, Partners, tuple[int, int, int]]],
    found: CleftComponents,
    box: Box,
    named: npt.NDArray[np.uint64],
) -> pa.Table:
    """Rows of SYNAPSE, named by the voxel at their centre."""
    index = np.asarray([i for i, _, _ in rows], dtype=np.int64)
    lo = np.asarray(box.lo, np.float64)
    centre = found.centre_vx[index] + lo
    columns: dict[str, npt.NDArray[np.generic]] = {
        "synapse": named,
        "size_vx": found.size_vx[index],
        "confidence": found.confidence[index],
        "polarity": np.asarray([p.polarity for _, p, _ in rows], np.float64),
        "pre_supervoxel": np.asarray([p.pre for _, p, _ in rows], np.uint64),
        "post_supervoxel": np.asarray([p.post for _, p, _ in rows], np.uint64),
    }
    sides = {
        "pre_": np.asarray([p.pre_vx for _, p, _ in rows], np.float64).reshape(-1, 3),
        "post_": np.asarray([p.post_vx for _, p, _ in rows], np.float64).reshape(-1, 3),
    }
    corner = np.asarray([c for _, _, c in rows], np.float64).reshape(-1, 3) + lo
    for k, axis in enumerate("zyx"):
        columns[f"{axis}_vx"] = centre[:, k]
        for side, place in sides.items():
            columns[f"{side}{axis}_vx"] = place[:, k] + corner[:, k]
    schema = SYNAPSE.arrow()
    return pa.table([pa.array(columns[name]) for name in schema.names], schema=schema)


STAGE = Stage(
    name="synapses",
    summary="Cleft U-Net and partners: synapses.",
    params=SynapsesParams,
    inputs=(IMAGE, SUPERVOXELS, MASK),
    outputs=(Rows(table=SYNAPSE),),
    plan=plan,
    compute=compute,
    network="cleft",
)
