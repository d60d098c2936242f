"""Image -> supervoxels, block by block: affinities from a U-Net, then a seeded watershed.

    read   core grown by `halo_vx`
      ├── aprons: what this block says about the first voxels of its upper neighbours, for `overlap`
      └── core: the only voxels this block writes

The halo gives the network its context and lets two neighbours see the same seeds around their face, so that they cut
the tissue there in the same way.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import cc3d
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box, Vec3
from connectome_db.kernels.affinity import offsets_of
from connectome_db.kernels.bridge import bridge
from connectome_db.kernels.local_contrast import equalise
from connectome_db.kernels.mutex import MutexOptions, mutex_watershed
from connectome_db.kernels.runs import encode
from connectome_db.kernels.watershed import WatershedOptions, supervoxels
from connectome_db.schema.segmentation import APRON, SUPERVOXEL
from connectome_db.spec import Block, Found, Network, Params, Plan, Result, Rows, Stage, Volume

IMAGE, MASK = "render.image", "mask.mask"
NEIGHBOURS = ("aff_z1", "aff_y1", "aff_x1")
U8 = npt.NDArray[np.uint8]
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
    method: Literal["affinity", "mutex"] = "affinity"
    """How labels are made from the image: "affinity" is a seeded watershed that splits too much on purpose, and leaves
    merging to `agglomerate`; "mutex" is the mutex watershed, which uses the network's long-range affinities as well."""
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


def plan(found: Found, params: SegmentParams) -> Plan:
    """Blocks over the image; each reads its core grown by the halo."""
    if any(a > h for a, h in zip(params.apron_vx, params.halo_vx, strict=True)):
        raise StageError(
            f"segment.apron_vx {params.apron_vx}: wanted at most halo_vx {params.halo_vx} (z, y, x), which is all "
            "that a block sees of its neighbours; lower apron_vx or raise halo_vx"
        )
    bounds = found.inputs[IMAGE].bounds
    blocks = plans.grid(bounds, params.block_vx)
    reads = plans.halo(blocks.cores, params.halo_vx, bounds)
    return plans.reading(blocks, (IMAGE, reads), (MASK, reads))


def compute(block: Block[SegmentParams]) -> Result:
    """Supervoxels, affinities and aprons of one block."""
    params, core = block.params, block.unit.core
    box = block.boxes[IMAGE]
    image, tissue = bridge(block.arrays[IMAGE], block.arrays[MASK], params.bridge_sections)
    if params.equalise_px:
        image = equalise(image, params.equalise_px)
    names: tuple[str, ...] = NEIGHBOURS
    if params.method == "mutex":
        names += tuple(n for n in offsets_of(block.model.channels) if n not in NEIGHBOURS)
    affinity = affinities(block.model, image, box, names)
    labels = segment(affinity, names, tissue, block)
    inside = core.slices(box.lo)
    present, first = np.unique(labels[inside], return_index=True)
    present, first = present[present != 0], first[present != 0]
    voxels = np.stack(np.unravel_index(first, core.shape), axis=1) + np.asarray(core.lo)
    local = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    local[present] = np.arange(1, len(present) + 1, dtype=np.uint32)
    minted = np.zeros(len(local), np.uint64)
    minted[present] = ids.mint_at(block.unit.code, voxels, params.block_vx)  # by its first voxel in the core
    core_affinity = affinity[(slice(0, 3), *inside)]
    local_core = local[labels[inside]]
    return {
        "supervoxels": minted[labels[inside]],
        "affinity_z": core_affinity[0],
        "affinity_y": core_affinity[1],
        "affinity_x": core_affinity[2],
        "supervoxel": _rows(local_core, core_affinity, minted[present], core, params.method),
        "apron": _apron(minted, labels, box, core, params.apron_vx),
    }


def segment(
    affinity: U8, names: tuple[str, ...], tissue: npt.NDArray[np.bool_], block: Block[SegmentParams]
) -> npt.NDArray[np.int32]:
    """Labels int32 (z, y, x) of what the block reads, 0 = background, by the method that the parameters name.

    `names` are those of the channels of `affinity`.

    A method that works on the image itself, such as a flood-filling network, gets its branch here.
    """
    params = block.params
    match params.method:
        case "affinity":
            options = WatershedOptions(
                boundary=params.boundary,
                seed_depth_nm=params.seed_depth_nm,
                seed_window_nm=params.seed_window_nm,
                smooth_nm=params.smooth_nm,
                max_depth_nm=params.max_depth_nm,
                interior=params.interior,
                min_interior_vx=params.min_interior_vx,
            )
            return supervoxels(affinity, tissue, block.voxel_nm, options)
        case "mutex":
            offsets = tuple(offsets_of(names).values())
            if len(offsets) == len(NEIGHBOURS):
                raise StageError(
                    f"model {block.model.model_id}: the method 'mutex' wants long-range affinities such as aff_y9, got "
                    f"the channels {', '.join(block.model.channels)}; name another model, or use the method 'affinity'"
                )
            return mutex_watershed(
                affinity,
                offsets,
                tissue,
                MutexOptions(
                    repulsion=params.mutex_repulsion,
                    attraction=params.mutex_attraction,
                    min_size_vx=params.mutex_min_vx,
                ),
            )


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


def _rows(
    local: npt.NDArray[np.uint32], affinity: U8, names: npt.NDArray[np.uint64], core: Box, method: str
) -> pa.Table:
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
    columns["origin"] = [method] * n
    schema = SUPERVOXEL.arrow()
    return pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)


def _apron(
    minted: npt.NDArray[np.uint64], labels: npt.NDArray[np.int32], box: Box, core: Box, apron_vx: Vec3
) -> pa.Table:
    """The block's labels beyond its upper faces; those that are not in its core have no name and are null."""
    parts: list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]] = []
    for axis in range(3):
        lo, hi = list(core.lo), list(core.hi)
        lo[axis], hi[axis] = core.hi[axis], core.hi[axis] + apron_vx[axis]
        slab = Box((lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2])).clip(box)
        if not slab.empty:
            parts.append((axis, *encode(minted[labels[slab.slices(box.lo)]], axis)))
    if not parts:
        return APRON.arrow().empty_table()
    name = np.concatenate([p[3] for p in parts])
    return pa.table(
        {
            "axis": np.repeat([p[0] for p in parts], [len(p[1]) for p in parts]).astype(np.int32),
            "start": np.concatenate([p[1] for p in parts]),
            "length": np.concatenate([p[2] for p in parts]),
            "supervoxel": pa.array(name, mask=name == 0),
        },
        schema=APRON.arrow(),
    )


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
