"""render: the aligned, contrast-normalised image volume, interpolated once from the raw tiles. One unit per block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db import plans
from connectome_db.geometry import Box
from connectome_db.kernels.mesh import Lattice
from connectome_db.kernels.placed import light_of, tiles_of
from connectome_db.kernels.warp import Assembled, PlacedTile, assemble
from connectome_db.schema.alignment import IMAGE_PLANE, IMAGE_SOURCE
from connectome_db.spec import RAW, Block, Found, Params, Plan, Result, Rows, Stage, Volume

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
TRANSFORM = "montage.tile_transform"
LIGHT = "montage.illumination"
MESH = "align.section_transform"


class RenderParams(Params):
    """Parameters of `render`."""

    block_vx: tuple[int, int, int] = (16, 128, 128)
    """Voxels (z, y, x) per unit, on the lattice of the origin; the volume is rounded out to whole blocks in y, x."""
    crop_vx: tuple[int, int, int, int] | None = None
    """(y0, x0, y1, x1): only this part of the aligned volume; null renders all that the sections cover."""
    feather_px: float = 16.0
    """Width of the seam in which two tiles are mixed."""


def plan(found: Found, params: RenderParams) -> Plan:
    """Blocks over the hull of all sections, each reading whatever its sections have."""
    hull = found.inputs[MESH].bounds
    (z0, y0, x0), (z1, y1, x1) = hull.lo, hull.hi
    if params.crop_vx is not None:
        cy0, cx0, cy1, cx1 = params.crop_vx
        y0, x0, y1, x1 = max(y0, cy0), max(x0, cx0), min(y1, cy1), min(x1, cx1)
    _, step_y, step_x = params.block_vx
    bounds = Box((z0, y0, x0), (z1, y1, x1)).snap((1, step_y, step_x))
    if params.crop_vx is not None:
        bounds = bounds.clip(Box((z0, y0, x0), (z1, y1, x1)))
    units = plans.grid(bounds, params.block_vx)
    own = plans.planes(units.cores[:, 0], units.cores[:, 3])
    return plans.reading(units, (RAW, own), (TRANSFORM, own), (LIGHT, own), (MESH, own))


def compute(block: Block[RenderParams]) -> Result:
    """The block's image, plane by plane, and which tiles it comes from."""
    core = block.unit.core
    image = np.zeros(core.shape, dtype=np.uint8)
    planes, sources = [], []
    for n, z in enumerate(range(core.lo[0], core.hi[0])):
        tiles, light, mesh = (_of_section(block, name, z) for name in (TRANSFORM, LIGHT, MESH))
        placed = tiles_of(tiles.to_pydict())
        seen = _plane(block, placed, light_of(light.to_pydict()), mesh)
        image[n] = seen.as_uint8()
        rows = _source_rows(z, placed, seen, core)
        planes.append(_plane_row(z, image[n], seen, len(rows)))
        sources.extend(rows)
    return {
        "image": image,
        "image_plane": pa.Table.from_pylist(planes, schema=IMAGE_PLANE.arrow()),
        "image_source": pa.Table.from_pylist(sources, schema=IMAGE_SOURCE.arrow()),
    }


def _of_section(block: Block[RenderParams], name: str, section: int) -> pa.Table:
    table = block.tables[name]
    return table.filter(pc.equal(table["section"], section))


def _plane(block: Block[RenderParams], tiles: list[PlacedTile], light: F64, mesh: pa.Table) -> Assembled:
    """One plane of the block, from the section's mesh and tiles."""
    _, height, width = block.unit.core.shape
    if mesh.num_rows == 0:
        nowhere = np.full((height, width), np.nan)
        plane_y, plane_x = nowhere, nowhere
    else:
        grid, source = _lattice(mesh)
        plane_y, plane_x = grid.over_pixels(source, block.unit.core.lo[1:], (height, width))
    return assemble(
        tiles,
        lambda name: np.asarray(block.tiles[name]),
        light,
        plane_y,
        plane_x,
        feather_px=block.params.feather_px,
    )


def _lattice(mesh: pa.Table) -> tuple[Lattice, F64]:
    """The mesh of one section from its rows, which hold every node of a rectangle."""
    y, x = mesh["node_y_px"].to_numpy().astype(np.int64), mesh["node_x_px"].to_numpy().astype(np.int64)
    rows, cols = np.unique(y), np.unique(x)
    step = int(rows[1] - rows[0])
    grid = Lattice(step, (int(rows[0]) // step, int(cols[0]) // step), (len(rows), len(cols)))
    source = np.stack([mesh["source_y_px"].to_numpy(), mesh["source_x_px"].to_numpy()], axis=1).astype(np.float64)
    return grid, source[np.lexsort((x, y))]


def _plane_row(section: int, image: U8, seen: Assembled, tiles: int) -> dict[str, object]:
    values = image[seen.covered].astype(np.float64)
    return {
        "section": section,
        "coverage": values.size / image.size,
        "mean": round(float(values.mean()), 6) if values.size else 0.0,
        "std": round(float(values.std()), 6) if values.size else 0.0,
        "tiles": tiles,
    }


def _source_rows(section: int, tiles: list[PlacedTile], seen: Assembled, core: Box) -> list[dict[str, object]]:
    """Per tile, the pixels it gives most of, and their hull in the volume."""
    rows: list[dict[str, object]] = []
    for number in np.unique(seen.owner[seen.covered]).tolist():
        own = seen.owner == number
        y, x = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
        rows.append(
            {
                "section": section,
                "tile": tiles[number].name,
                "pixels": int(own.sum()),
                "y0_px": core.lo[1] + int(y[0]),
                "x0_px": core.lo[2] + int(x[0]),
                "y1_px": core.lo[1] + int(y[-1]) + 1,
                "x1_px": core.lo[2] + int(x[-1]) + 1,
            }
        )
    return rows


STAGE = Stage(
    name="render",
    summary="Render the aligned, contrast-normalised image volume.",
    params=RenderParams,
    inputs=(RAW, TRANSFORM, LIGHT, MESH),
    outputs=(
        Volume(name="image", dtype="uint8", kind="image", doc="Normalised grey values 1-255; 0 where no tile is."),
        Rows(IMAGE_PLANE),
        Rows(IMAGE_SOURCE),
    ),
    plan=plan,
    compute=compute,
)
