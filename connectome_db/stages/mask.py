"""mask: where the image shows no usable tissue. One unit per block of the image."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.kernels.tissue_mask import CLASSES, MaskRules, classify_plane
from connectome_db.schema.alignment import MASK_AREA
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage, Volume

IMAGE = "render.image"


class MaskParams(Params):
    """Parameters of `mask`. Grey values are those of the normalised image: mean 128, spread 32."""

    block_vx: tuple[int, int, int] = (16, 128, 128)
    """Voxels (z, y, x) per unit."""
    halo_px: int = 96
    """Context around a block, y and x: windows and the lengths of folds are measured in it."""
    window_px: float = 32.0
    """Standard deviation of the window in which structure is measured. Smaller windows see single large dendrites as
    resin."""
    flat_structure: float = 2.5
    """Root mean square of membrane-sized structure below which there is no tissue. Healthy tissue has about 16."""
    flat_structure_to_noise: float = 0.25
    """The same against the noise; pure noise has 0.13, tissue 1 to 3."""
    flat_area_px: int = 4096
    """Flat areas smaller than this (in the block and its halo) are tissue: a cell body's inside, a vessel."""
    resin_grey: float = 140.0
    """A flat area is resin when at least this bright, and low signal when darker."""
    blank_fraction: float = 0.9
    """A plane is blank when this much of what is covered in a block and its halo is flat."""
    fold_grey: float = 52.0
    """A fold is at most this bright (blurred by 3 px) ..."""
    fold_width_px: int = 9
    """... this wide at least, which no membrane is ..."""
    fold_length_px: float = 96.0
    """... and this long, which no mitochondrion is."""
    crack_grey: float = 215.0
    """A crack is at least this bright (blurred by 1.5 px) ..."""
    crack_width_px: int = 5
    """... this wide ..."""
    crack_length_px: float = 64.0
    """... and this long."""


def plan(found: Found, params: MaskParams) -> Plan:
    """Blocks over the image, each reading itself and the halo in y and x."""
    extent = found.inputs[IMAGE]
    units = plans.grid(extent.bounds, params.block_vx)
    halo = (0, params.halo_px, params.halo_px)
    return plans.reading(units, (IMAGE, plans.halo(units.cores, halo, extent.bounds)))


def compute(block: Block[MaskParams]) -> Result:
    """The class of each voxel, and how many there are of each."""
    core, box = block.unit.core, block.boxes[IMAGE]
    rules = MaskRules(**block.params.model_dump(exclude={"block_vx", "halo_px"}))
    image = block.arrays[IMAGE]
    inner = core.slices(box.lo)[1:]
    mask = np.zeros(core.shape, dtype=np.uint8)
    for z in range(core.shape[0]):
        mask[z] = classify_plane(image[z], rules)[inner]
    voxels = np.bincount(mask.ravel(), minlength=len(CLASSES))
    rows = {"mask_class": list(range(len(CLASSES))), "name": list(CLASSES), "voxels": voxels.tolist()}
    return {"mask": mask, "mask_area": pa.Table.from_pydict(rows, schema=MASK_AREA.arrow())}


STAGE = Stage(
    name="mask",
    summary="Find resin, folds, cracks, blank areas and low signal.",
    params=MaskParams,
    inputs=(IMAGE,),
    outputs=(
        Volume(
            name="mask", dtype="uint8", kind="segmentation", doc="Class of each voxel; see `mask_area`. 0 is tissue."
        ),
        Rows(MASK_AREA),
    ),
    plan=plan,
    compute=compute,
)
