"""Image -> supervoxels, block by block: affinities from a U-Net, then a seeded watershed, or bodies of `flood`.

    read   core grown by `halo_vx`
      ├── aprons: what this block says about the first voxels of its upper neighbours, for `overlap`
      └── core: the only voxels this block writes

The halo gives the network its context and lets two neighbours see the same seeds around their face, so that they cut
the tissue there in the same way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import cc3d
import fastremap
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.affinity import offsets_of
from connectome_db.kernels.aprons import apron_labels, apron_rows, slabs
from connectome_db.kernels.bridge import bridge
from connectome_db.kernels.local_contrast import equalise
from connectome_db.kernels.mutex import MutexOptions, held_together, mutex_watershed
from connectome_db.kernels.watershed import WatershedOptions, grow, supervoxels
from connectome_db.schema.flooding import SUPERVOXEL_BODY
from connectome_db.schema.segmentation import APRON, SUPERVOXEL
from connectome_db.spec import Block, Found, Network, Params, Plan, Read, Result, Rows, Stage, Volume

IMAGE, MASK = "render.image", "mask.mask"
BODIES, FLOOD_APRON = "flood.bodies", "flood.flood_apron"
NEIGHBOURS = ("aff_z1", "aff_y1", "aff_x1")
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Fraction = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Extent = Annotated[int, Field(ge=1)]


class SegmentParams(Params):
    """Parameters of `segment`."""

    networks: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "phantom-affinity"
    """Name of the affinity network."""
    block_vx: tuple[Extent, Extent, Extent] = (16, 128, 128)
    """Voxels (z, y, x) that one block writes: larger blocks waste less on the halo and need more memory."""
    halo_vx: tuple[Count, Count, Count] = (4, 32, 32)
    """Context (z, y, x) read on each side: the network's margin plus about 100 nm of tissue."""
    apron_vx: tuple[Extent, Extent, Extent] = (2, 8, 8)
    """Thickness (z, y, x) of the slabs beyond the upper faces that are compared with the neighbours' own result."""
    method: Literal["affinity", "mutex", "ffn"] = "affinity"
    """How labels are made: "affinity" is a seeded watershed that splits too much on purpose, and leaves merging to
    `agglomerate`; "mutex" is the mutex watershed, which uses the network's long-range affinities as well; "ffn" starts
    from the bodies of `flood` (`connectome init --method ffn`)."""
    fill: Literal["affinity", "mutex", "grow", "none"] = "affinity"
    """Method "ffn": what becomes of tissue that no body has. "affinity": bodies grow into it along strong affinities,
    and what is far from any becomes supervoxels of its own; "mutex": a mutex watershed in which a body holds together
    (`mutex_body`), so that long-range affinities may also cut a body; "grow": bodies share it; "none": it stays 0."""
    bridge_sections: Count = 2
    """Up to this many missing sections are filled with the nearest one, so that neurites go on; 0 = never."""
    equalise_px: Annotated[float, Field(ge=0)] = 0.0
    """Bring every neighbourhood of this size to the same contrast before the network sees it; 0 leaves the image as it
    is. 48 for a region that is weakly stained; it raises noise as well."""
    boundary: Fraction = 0.5
    """A voxel whose mean affinity is below this is boundary: raise it when neurites merge."""
    seed_depth_nm: Length = 10.0
    """A seed lies at least this far from any boundary."""
    seed_window_nm: Length = 40.0
    """Seeds are at least about this far apart along each axis: raise it for fewer, larger supervoxels."""
    smooth_nm: Length = 12.0
    """Smoothing of the distance to the boundary before its maxima are taken."""
    max_depth_nm: Length = 150.0
    """Distances to the boundary are cut off here."""
    interior: Fraction = 0.5
    """Weaker edges are crossed only after every interior has a seed."""
    min_interior_vx: Count = 30
    """A connected interior without a seed of its own becomes a supervoxel from this size on."""
    mutex_repulsion: Annotated[float, Field(ge=0, le=4)] = 2.0
    """Method "mutex": factor on the strength of long-range affinities, which keep objects apart: lower it when neurites
    are split."""
    mutex_attraction: Fraction = 0.7
    """Method "mutex": weaker edges between neighbours join nothing: raise it when neurites merge."""
    mutex_min_vx: Count = 30
    """Method "mutex": smaller pieces are shared out among their neighbours."""
    mutex_body: Fraction = 0.9
    """Fill "mutex": affinities between voxels of one body are at least this: lower it when bodies merge neurites."""


def plan(found: Found, params: SegmentParams) -> Plan:
    """Blocks over the image; each reads its core grown by the halo."""
    if any(a > h for a, h in zip(params.apron_vx, params.halo_vx, strict=True)):
        raise StageError(
            f"segment.apron_vx {params.apron_vx}: wanted at most halo_vx {params.halo_vx} (z, y, x), which is all "
            "that a block sees of its neighbours; lower apron_vx or raise halo_vx"
        )
    if params.method == "ffn" and BODIES not in found.inputs:
        raise StageError(
            "segment.method 'ffn': wanted bodies of the stage `flood`, which this project does not have; make one with "
            "`connectome init --method ffn`, or take the method 'affinity'"
        )
    bounds = found.inputs[IMAGE].bounds
    blocks = plans.grid(bounds, params.block_vx)
    reads = plans.halo(blocks.cores, params.halo_vx, bounds)
    return plans.reading(blocks, (IMAGE, reads), (MASK, reads))


def plan_flooded(found: Found, params: SegmentParams) -> Plan:
    """As `plan`; bodies are read like the image, and the aprons of the block's own filling."""
    first = plan(found, params)
    cores = found.inputs[BODIES].boxes
    if len(cores) != len(first.cores) or (cores != first.cores).any():
        raise StageError(
            f"segment.block_vx {params.block_vx}: wanted the blocks of flood.block_vx (z, y, x), whose bodies it takes "
            "over by name; set both to one value"
        )
    return replace(first, reads=(*first.reads, Read(BODIES, first.reads[0].boxes), Read(FLOOD_APRON, first.cores)))


def compute(block: Block[SegmentParams]) -> Result:
    """Supervoxels, affinities and aprons of one block."""
    params, core = block.params, block.unit.core
    box = block.boxes[IMAGE]
    image, tissue = bridge(block.arrays[IMAGE], block.arrays[MASK], params.bridge_sections)
    if params.equalise_px:
        image = equalise(image, params.equalise_px)
    bodies = block.arrays[BODIES] if params.method == "ffn" else None
    rule = params.fill if bodies is not None else params.method
    channels: tuple[str, ...] = NEIGHBOURS
    if rule == "mutex":
        channels += tuple(n for n in offsets_of(block.model.channels) if n not in NEIGHBOURS)
    affinity = affinities(block.model, image, box, channels)
    inside = core.slices(box.lo)
    known, own = np.zeros(1, np.uint64), np.zeros(0, np.int32)
    if bodies is None:
        labels = segment(affinity, channels, tissue, block)
    elif rule == "mutex":
        whole = held_together(
            affinity, tuple(offsets_of(channels).values()), _with_bodies(bodies, block), params.mutex_body
        )
        labels = mutex(whole, channels, tissue, block)
    else:
        known, seeds = _dense(bodies)
        own = np.unique(seeds[inside])
        labels = fill(seeds, affinity, tissue, block)
    names = _named(labels, known, own, block)
    beyond = names if bodies is None or rule == "mutex" else _with_bodies(names, block)
    core_affinity = affinity[(slice(0, 3), *inside)]
    present, local = np.unique(names[inside], return_inverse=True)
    number = local.reshape(core.shape) + int(present[0] != 0)
    ours = present[present != 0]
    filled = "fill" if bodies is not None and rule != "mutex" else rule
    origin = np.where(np.isin(ours, known[own]), "ffn", filled)
    return {
        "supervoxels": names[inside],
        "affinity_z": core_affinity[0],
        "affinity_y": core_affinity[1],
        "affinity_x": core_affinity[2],
        "supervoxel": _rows(number.astype(np.uint32), core_affinity, ours, core, origin.tolist()),
        "apron": apron_rows(beyond, box, core, params.apron_vx, APRON),
    }


def compute_flooded(block: Block[SegmentParams]) -> Result:
    """As `compute`, and which bodies became which supervoxels."""
    result = compute(block)
    bodies = block.arrays[BODIES][block.unit.core.slices(block.boxes[IMAGE].lo)]
    labels = np.asarray(result["supervoxels"])
    both = (labels != 0) & (bodies != 0) & (block.params.method == "ffn")
    ours, i = np.unique(labels[both], return_inverse=True)
    theirs, j = np.unique(bodies[both], return_inverse=True)
    pair, voxels = np.unique(i * len(theirs) + j, return_counts=True)
    rows = {
        "supervoxel": ours[pair // max(len(theirs), 1)],
        "body": theirs[pair % max(len(theirs), 1)],
        "voxels": voxels.astype(np.int64),
    }
    return {**result, "supervoxel_body": pa.table(rows, schema=SUPERVOXEL_BODY.arrow())}


def _dense(bodies: U64) -> tuple[U64, I32]:
    """Body ids uint64 -> (ascending ids with 0 first, their index per voxel)."""
    found = fastremap.unique(bodies)
    ids_ = np.concatenate([np.zeros(1, np.uint64), found[found != 0]])
    return ids_, np.searchsorted(ids_, bodies).astype(np.int32)


def _named(labels: I32, known: U64, own: I32, block: Block[SegmentParams]) -> U64:
    """Ids uint64 (z, y, x) of all that reaches into the core: the labels `own` have one in `known`, others get that of
    their first voxel in the core. So does a neighbour's body that grew into it: a name belongs to one block."""
    core, box = block.unit.core, block.boxes[IMAGE]
    present, first = np.unique(labels[core.slices(box.lo)], return_index=True)
    new = (present != 0) & ~np.isin(present, own)
    voxels = np.stack(np.unravel_index(first[new], core.shape), axis=1) + np.asarray(core.lo)
    minted = np.zeros(max(int(labels.max(initial=0)) + 1, len(known)), np.uint64)
    minted[present[new]] = ids.mint_at(block.unit.code, voxels, block.params.block_vx)
    minted[own] = known[own]
    return minted[labels]


def _with_bodies(names: U64, block: Block[SegmentParams]) -> U64:
    """`names`, with what the block's own filling says beyond its upper faces: its bodies go on where a neighbour's are.

    Only bodies that reach into the core have a name there, in both.
    """
    core, box, rows = block.unit.core, block.boxes[IMAGE], block.tables[FLOOD_APRON]
    out = names.copy()
    for axis, slab in slabs(core, block.params.apron_vx, box):
        try:
            said = apron_labels(rows, axis, slab.shape)
        except ValueError as error:
            raise StageError(
                f"flood.flood_apron: does not cover {slab}: {error}; segment.apron_vx must be at most flood.apron_vx"
            ) from error
        place = slab.slices(box.lo)
        out[place] = np.where(said != 0, said, names[place])
    return out


def fill(bodies: I32, affinity: U8, tissue: Mask, block: Block[SegmentParams]) -> I32:
    """Bodies int32 (z, y, x), 0 = none -> labels of what the block reads, by the rule that the parameters name."""
    match block.params.fill:
        case "none":
            return np.where(tissue, bodies, 0).astype(np.int32)
        case "grow":
            return grow(bodies, affinity, tissue)
        case _:
            return supervoxels(affinity, tissue, block.voxel_nm, _watershed(block.params), bodies)


def _watershed(params: SegmentParams) -> WatershedOptions:
    return WatershedOptions(
        boundary=params.boundary,
        seed_depth_nm=params.seed_depth_nm,
        seed_window_nm=params.seed_window_nm,
        smooth_nm=params.smooth_nm,
        max_depth_nm=params.max_depth_nm,
        interior=params.interior,
        min_interior_vx=params.min_interior_vx,
    )


def segment(affinity: U8, names: tuple[str, ...], tissue: Mask, block: Block[SegmentParams]) -> I32:
    """Labels int32 (z, y, x) of what the block reads, 0 = background, by the method that the parameters name.

    `names` are those of the channels of `affinity`.
    """
    if block.params.method == "mutex":
        return mutex(affinity, names, tissue, block)
    return supervoxels(affinity, tissue, block.voxel_nm, _watershed(block.params))


def mutex(affinity: U8, names: tuple[str, ...], tissue: Mask, block: Block[SegmentParams]) -> I32:
    """Labels int32 (z, y, x) by the mutex watershed; `names` are those of the channels of `affinity`."""
    offsets = tuple(offsets_of(names).values())
    if len(offsets) == len(NEIGHBOURS):
        raise StageError(
            f"model {block.model.model_id}: a mutex watershed wants long-range affinities such as aff_y9, got the "
            f"channels {', '.join(block.model.channels)}; name another model, or use the method or fill 'affinity'"
        )
    params = block.params
    options = MutexOptions(
        repulsion=params.mutex_repulsion, attraction=params.mutex_attraction, min_size_vx=params.mutex_min_vx
    )
    return mutex_watershed(affinity, offsets, tissue, options)


def affinities(network: Network, image: U8, box: Box, wanted: tuple[str, ...] = NEIGHBOURS) -> U8:
    """Affinity uint8 (c, z, y, x) of the channels `wanted`, the lower neighbours on z, y, x unless given; 255 = surely
    the same object.

    Rounded to 8 bits at once: differences in the last bits of a network's output do not reach the labels. The image is
    mirrored outwards from the start of `box` to the network's lattice, so that all blocks see one lattice.
    """
    absent = [name for name in wanted if name not in network.channels]
    if absent:
        raise StageError(
            f"model {network.model_id}: wanted the channels {', '.join(wanted)}, got {', '.join(network.channels)}; "
            "name a model for the task 'affinity' in segment.model"
        )
    extra = [lo % step for lo, step in zip(box.lo, network.alignment_vx, strict=True)]
    padded = np.pad(image, [(n, 0) for n in extra], mode="symmetric")
    predicted = network.predict(padded)[(slice(None), *(slice(n, None) for n in extra))]
    chosen = predicted[[network.channels.index(name) for name in wanted]]
    return np.asarray(np.floor(chosen * 255 + 0.5), dtype=np.uint8)


def _rows(local: npt.NDArray[np.uint32], affinity: U8, names: U64, core: Box, origin: list[str]) -> pa.Table:
    """One row per supervoxel; local numbers 1..n name the supervoxels `names`."""
    stats = cc3d.statistics(local, no_slice_conversion=True)
    n = len(names)
    size = stats["voxel_counts"][1 : n + 1].astype(np.int64)
    # (z0, z1, y0, y1, x0, x1), upper ends inclusive
    bounds = stats["bounding_boxes"][1 : n + 1].astype(np.int64).reshape(-1, 6)
    centre = stats["centroids"][1 : n + 1].reshape(-1, 3) + np.asarray(core.lo)
    weak = 255 * 3 - affinity.sum(axis=0, dtype=np.int64)
    boundary = np.bincount(local.ravel(), weak.ravel(), n + 1)[1 : n + 1] / np.maximum(size, 1) / (3 * 255)
    columns: dict[str, npt.NDArray[np.generic] | list[str]] = {"supervoxel": names, "size_vx": size}
    for k, axis in enumerate("zyx"):
        columns[f"{axis}0_vx"] = bounds[:, 2 * k] + core.lo[k]
        columns[f"{axis}1_vx"] = bounds[:, 2 * k + 1] + core.lo[k] + 1
        columns[f"{axis}_vx"] = centre[:, k]
    columns["boundary"] = boundary
    columns["origin"] = origin
    schema = SUPERVOXEL.arrow()
    return pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)


_AFFINITY = "uint8, 255 = surely the same object as the lower neighbour on this axis; for `score`."
STAGE = Stage(
    name="segment",
    summary="Affinity U-Net and seeded watershed: supervoxels.",
    params=SegmentParams,
    inputs=(IMAGE, MASK),
    outputs=(
        Volume(name="supervoxels", dtype="uint64", kind="segmentation", doc="Supervoxel ids, 0 = no tissue."),
        Volume(name="affinity_z", dtype="uint8", kind="image", doc=f"Affinity between sections: {_AFFINITY}"),
        Volume(name="affinity_y", dtype="uint8", kind="image", doc=f"Affinity along y: {_AFFINITY}"),
        Volume(name="affinity_x", dtype="uint8", kind="image", doc=f"Affinity along x: {_AFFINITY}"),
        Rows(table=SUPERVOXEL),
        Rows(table=APRON),
    ),
    plan=plan,
    compute=compute,
    network="affinity",
)

FLOODED = replace(
    STAGE,
    summary="Bodies of a flood-filling network, and affinities where there is none: supervoxels.",
    inputs=(IMAGE, MASK, BODIES, FLOOD_APRON),
    outputs=(*STAGE.outputs, Rows(table=SUPERVOXEL_BODY)),
    plan=plan_flooded,
    compute=compute_flooded,
)
"""The same stage in a pipeline that has `flood`."""
