"""measure_volume: the quality of the aligned image, the segmentation and the synapses, by cell. One unit per block.

Two lattices of cells: `cell_vx` for what is made in three dimensions, and its footprint one section thick for what is
made section by section. Blocks hold whole cells, and a row of a table (a supervoxel, a contact, a synapse) counts in
the cell that its centre lies in, so no value depends on the blocks.

The residuals of section matches are taken from the matches and the sections' maps, as `align` takes them, and not from
its table `alignment_residual`: that table is one part, and every block would change with any section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.cell_quality import RIDGE_PX, box_px, ridge_contrast, section_continuity
from connectome_db.kernels.cells import Cells
from connectome_db.kernels.quality_rows import Values, quality_rows
from connectome_db.kernels.section_place import SectionPlace, places_of
from connectome_db.kernels.tissue_mask import BLANK, CRACK, FOLD, LOW_SIGNAL, TISSUE
from connectome_db.schema.quality import QUALITY_VOLUME
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

IMAGE, MASK = "render.image", "mask.mask"
AFFINITIES = ("segment.affinity_z", "segment.affinity_y", "segment.affinity_x")
SUPERVOXEL, CONTACT, SYNAPSE = "segment.supervoxel", "score.contact", "synapses.synapse"
MATCH, MESH = "match.section_match", "align.section_transform"
AMBIGUOUS = (0.3, 0.7)
"""Contacts of an affinity from the first to the second may be either."""

BOUNDARY = 0.5
"""A voxel whose mean affinity is below this is boundary, as by default in `segment`."""

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Extent = Annotated[int, Field(ge=1)]


class MeasureVolumeParams(Params):
    """Parameters of `measure_volume`."""

    block_vx: tuple[Extent, Extent, Extent] = (16, 128, 128)
    """Voxels (z, y, x) per unit: a multiple of `cell_vx`."""
    cell_vx: tuple[Extent, Extent, Extent] = (8, 64, 64)
    """Voxels (z, y, x) of a cell, on the lattice of the origin. Smaller cells see smaller faults and bear more noise;
    what is made section by section is measured in cells of this footprint, one section thick."""
    band_px: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.5, 12.0)
    """Standard deviations of the band-pass before neighbouring sections are compared: detail below the first is noise,
    above the second is staining."""
    match_reach: Extent = 2
    """A section's matches are those with the next section that it was matched to, at most this many ahead; the
    sections up to this many away also say where a section should be covered."""
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Cells in which less than this part is tissue have no values of the segmentation and of the synapses."""


def plan(found: Found, params: MeasureVolumeParams) -> Plan:
    """Blocks; the image is read with its surroundings in y and x and one section above, all else in the core."""
    if any(block % cell for block, cell in zip(params.block_vx, params.cell_vx, strict=True)):
        raise StageError(
            f"measure_volume: block_vx {params.block_vx} must be a multiple of cell_vx {params.cell_vx} on each axis, "
            "so that no cell lies in two blocks; change either"
        )
    bounds = found.inputs[IMAGE].bounds
    blocks = plans.grid(bounds, params.block_vx)
    cores = blocks.cores
    halo = max(*(box_px(s) // 2 for s in params.band_px), RIDGE_PX)
    image = plans.clip(plans.grow(cores, (0, halo, halo), (1, halo, halo)), bounds)
    own = plans.planes(cores[:, 0], cores[:, 3])
    around = plans.planes(cores[:, 0] - params.match_reach, cores[:, 3] + params.match_reach)
    within = [(name, cores) for name in (MASK, *AFFINITIES, SUPERVOXEL, CONTACT, SYNAPSE)]
    return plans.reading(blocks, (IMAGE, image), *within, (MATCH, own), (MESH, around))


def compute(block: Block[MeasureVolumeParams]) -> Result:
    """The values of all cells of the block."""
    core = block.unit.core
    _, y, x = block.params.cell_vx
    sheets, cells = Cells(core, (1, y, x)), Cells(core, block.params.cell_vx)
    covered = block.arrays[IMAGE][core.slices(block.boxes[IMAGE].lo)] > 0
    mesh = block.tables[MESH]
    places = places_of({name: mesh[name].to_numpy() for name in mesh.column_names})
    values = [
        ("coverage", sheets.boxes(), *_coverage(block, sheets, covered, places)),
        *_image(block, sheets, covered),
        *_matches(block, sheets, places),
        *_tissue(block, cells, covered),
    ]
    return {"quality_volume": quality_rows(values, block.voxel_nm, QUALITY_VOLUME.arrow())}


def _coverage(
    block: Block[MeasureVolumeParams], sheets: Cells, covered: Bool, places: Mapping[int, SectionPlace]
) -> tuple[F64, F64]:
    """Covered part of the pixels that should be covered, and their number, per cell.

    A section should be covered where it or one of its neighbours has a map: volumes are rounded out to whole blocks,
    and beyond the sections there is nothing to miss.
    """
    core, reach = block.unit.core, block.params.match_reach
    wanted = np.zeros(covered.shape, np.bool_)
    for n, z in enumerate(range(core.lo[0], core.hi[0])):
        spans = np.asarray([places[k].span() for k in range(z - reach, z + reach + 1) if k in places], np.int64)
        if len(spans):
            (y0, x0), (y1, x1) = spans[:, :2].min(axis=0), spans[:, 2:].max(axis=0)
            y0, x0, y1, x1 = (max(v - core.lo[1 + k % 2], 0) for k, v in enumerate((y0, x0, y1, x1)))
            wanted[n, y0:y1, x0:x1] = True
    pixels = sheets.sums(wanted)
    least = block.params.min_tissue * _voxels(sheets)
    return _share(sheets.sums(covered & wanted), pixels), _enough(pixels, least)


def _image(block: Block[MeasureVolumeParams], sheets: Cells, covered: Bool) -> Iterator[Values]:
    """What the rendered image looks like, and what is damaged of it."""
    image, box, boxes = block.arrays[IMAGE], block.boxes[IMAGE], sheets.boxes()
    least = block.params.min_tissue * _voxels(sheets)
    seen = _enough(sheets.sums(covered), least)
    value, weight = section_continuity(image, box, sheets, block.params.band_px)
    yield "section_continuity", boxes, value, _enough(weight, least)
    value, weight = ridge_contrast(image, box, sheets)
    yield "image_contrast", boxes, value, _enough(weight, least)
    damage = np.zeros(256, np.bool_)
    damage[[FOLD, CRACK, BLANK, LOW_SIGNAL]] = True
    yield "damaged", boxes, _share(sheets.sums(damage[block.arrays[MASK]] & covered), seen), seen


def _tissue(block: Block[MeasureVolumeParams], cells: Cells, covered: Bool) -> Iterator[Values]:
    """The segmentation and the synapses in the cells that hold enough tissue."""
    boxes = cells.boxes()
    tissue = covered & (block.arrays[MASK] == TISSUE)
    voxels = _enough(cells.sums(tissue), block.params.min_tissue * _voxels(cells))
    um3 = voxels * float(np.prod(block.voxel_nm)) * 1e-9
    certainty = np.abs(2 * np.arange(256) - 255).astype(np.uint16)
    certain, affinity = np.zeros(tissue.shape, np.uint16), np.zeros(tissue.shape, np.uint16)
    for name in AFFINITIES:
        certain += certainty[block.arrays[name]]
        affinity += block.arrays[name]
    certain[~tissue] = 0
    yield "affinity_certainty", boxes, _share(cells.sums(certain), 3 * 255 * voxels), voxels
    weak = affinity < 3 * 255 * BOUNDARY
    yield "boundary_fraction", boxes, _share(cells.sums(weak & tissue), voxels), voxels
    yield "supervoxel_density", boxes, _share(cells.tally(_cell(cells, block.tables[SUPERVOXEL])), um3), um3

    contact = block.tables[CONTACT]
    place, area, affinity = _cell(cells, contact), contact["area_nm2"].to_numpy(), contact["affinity"].to_numpy()
    unsure = (affinity >= AMBIGUOUS[0]) & (affinity <= AMBIGUOUS[1])
    share = _share(cells.tally(place, area * unsure), cells.tally(place, area))
    yield "contact_ambiguous", boxes, share, _where(um3, cells.tally(place))

    synapse = block.tables[SYNAPSE]
    place = _cell(cells, synapse)
    count = cells.tally(place)
    yield "synapse_density", boxes, _share(count, um3), um3
    for name, column, scale in (
        ("synapse_confidence", "confidence", 1.0),
        ("synapse_polarity", "polarity", 1.0),
        ("cleft_size", "size_vx", float(np.prod(block.voxel_nm))),
    ):
        yield name, boxes, scale * _share(cells.tally(place, synapse[column].to_numpy()), count), _where(um3, count)


def _matches(block: Block[MeasureVolumeParams], sheets: Cells, places: Mapping[int, SectionPlace]) -> Iterator[Values]:
    """How well each section was found again in the next one, at the places where it was sought."""
    core, rows = block.unit.core, block.tables[MATCH]
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    index, points, gaps = [np.zeros(0, np.int64)], [np.zeros((0, 3))], [np.zeros(0)]
    for a in range(core.lo[0], core.hi[0]):
        own = np.flatnonzero(columns["section_a"] == a)
        ahead = columns["section_b"][own]
        b = int(ahead.min()) if own.size else a
        if b == a or a not in places or b not in places:
            continue
        own, at, gap = _placed(columns, own[ahead == b], places[a], places[b], core)
        index.append(own)
        points.append(np.concatenate([np.full((len(at), 1), float(a)), at], axis=1))
        gaps.append(gap)
    own, cell = np.concatenate(index), sheets.of(np.concatenate(points))
    taken = np.where(columns["accepted"][own].astype(np.bool_), cell, -1)
    boxes, tried = sheets.boxes(), sheets.tally(cell)
    yield "match_refused", boxes, _share(tried - sheets.tally(taken), tried), tried
    for name, found in (
        ("alignment_residual", np.concatenate(gaps)),
        ("match_correlation", columns["correlation"][own]),
        ("match_peak_ratio", columns["peak_ratio"][own]),
    ):
        yield name, boxes, *sheets.medians(taken, found)


def _placed(
    columns: dict[str, npt.NDArray[np.generic]], own: I64, a: SectionPlace, b: SectionPlace, core: Box
) -> tuple[I64, F64, F64]:
    """The rows of `own` near the core, their places (n, 2) in the volume, and the residuals (n,) after alignment, px.

    A residual is the distance between the two sides of a match where the sections' maps put them.
    """
    sides = [np.stack([columns[f"{side}_{axis}_px"][own] for axis in "yx"], axis=1).astype(float) for side in "ab"]
    near = a.near(sides[0], core.lo[1:], core.hi[1:])
    at, there = a.aligned(sides[0][near]), b.aligned(sides[1][near])
    return own[near], at, np.asarray(np.hypot(*(there - at).T), np.float64)


def _voxels(cells: Cells) -> F64:
    """Voxels of each cell."""
    boxes = cells.boxes()
    return np.asarray(np.prod(boxes[:, 3:] - boxes[:, :3], axis=1), np.float64)


def _cell(cells: Cells, rows: pa.Table) -> I64:
    """The cell of each row's centre; -1 for those of neighbouring blocks."""
    return cells.of(np.stack([rows[f"{axis}_vx"].to_numpy() for axis in "zyx"], axis=1))


def _share(part: F64, whole: F64) -> F64:
    """part / whole, NaN where there is no whole."""
    out = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _enough(weight: F64, least: F64) -> F64:
    """The weight, or 0 where it is below `least`."""
    return np.where(weight >= least, weight, 0.0)


def _where(tissue: F64, weight: F64) -> F64:
    """The weight, or 0 where there is no tissue to speak of."""
    return np.where(tissue > 0, weight, 0.0)


STAGE = Stage(
    name="measure_volume",
    summary="Quality of the aligned image, the segmentation and the synapses, by cell.",
    params=MeasureVolumeParams,
    inputs=(IMAGE, MASK, *AFFINITIES, SUPERVOXEL, CONTACT, SYNAPSE, MATCH, MESH),
    outputs=(Rows(QUALITY_VOLUME),),
    plan=plan,
    compute=compute,
)
