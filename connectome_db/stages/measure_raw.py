"""measure_raw: quality of the raw tiles by patch, and of their place by tile, located in the aligned volume.

One unit per section. The diagnosis compares parts of the volume, so every value comes with its box there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.kernels.patch_place import SectionMap, place_boxes, section_map
from connectome_db.kernels.patch_quality import patch_quality
from connectome_db.kernels.placed import tiles_of
from connectome_db.kernels.warp import PlacedTile
from connectome_db.schema.quality import METRICS, QUALITY_RAW
from connectome_db.spec import RAW, Block, Found, Params, Plan, Result, Rows, Stage

F64 = npt.NDArray[np.float64]
MATCH = "montage.tile_match"
TRANSFORM = "montage.tile_transform"
MESH = "align.section_transform"
_COLUMNS = QUALITY_RAW.arrow().names


class MeasureRawParams(Params):
    """Parameters of `measure_raw`."""

    patch_px: int = Field(default=64, ge=32)
    """Edge of the patches that a tile is measured in; it is cut into equal ones as near to this as possible. Smaller
    ones say more exactly where quality changes, larger ones are steadier."""


def plan(found: Found, params: MeasureRawParams) -> Plan:  # noqa: ARG001 - every plan has this signature
    """One unit per section, reading its tiles, their matches and places, and the section's mesh."""
    units = plans.sections(found.inputs[RAW])
    own = plans.planes(units.cores[:, 0], units.cores[:, 3])
    return plans.reading(units, (RAW, own), (MATCH, own), (TRANSFORM, own), (MESH, own))


def compute(block: Block[MeasureRawParams]) -> Result:
    """Rows of every tile that has a place in the volume."""
    mesh = block.tables[MESH]
    parts: list[pa.Table] = [QUALITY_RAW.arrow().empty_table()]
    if mesh.num_rows:
        nodes = [mesh[c].to_numpy().astype(np.int64) for c in ("node_y_px", "node_x_px")]
        source = np.stack([mesh[c].to_numpy() for c in ("source_y_px", "source_x_px")], axis=1).astype(np.float64)
        where = section_map(nodes[0], nodes[1], source)
        matches = _matches(block.tables[MATCH].to_pydict())
        for tile in tiles_of(block.tables[TRANSFORM].to_pydict()):
            if tile.name in block.tiles:
                parts.append(_patches(block, tile, where))
                parts.append(_montage(block, tile, where, matches.get(tile.name, np.zeros((0, 3)))))
    return {QUALITY_RAW.name: pa.concat_tables(parts)}


def _patches(block: Block[MeasureRawParams], tile: PlacedTile, where: SectionMap) -> pa.Table:
    """What the pixels of one tile say, by patch."""
    found = patch_quality(np.asarray(block.tiles[tile.name]), block.params.patch_px)
    boxes = _boxes_nm(block, place_boxes(found.boxes_px, tile.linear, tile.shift_px, where))
    return pa.concat_tables(_rows(block, tile, name, boxes, values, found.pixels)
                            for name, values in found.values.items())  # fmt: skip


def _matches(columns: Mapping[str, list[Any]]) -> dict[str, F64]:
    """Per tile, (weight in the solve, residual, peak ratio) of the matches that hold it: (N, 3)."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    rows = zip(*(columns[c] for c in ("tile_a", "tile_b", "weight", "residual_px", "peak_ratio")), strict=True)
    for a, b, weight, residual, ratio in rows:
        for name in (a, b):
            found.setdefault(name, []).append((weight, residual, ratio))
    return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}


def _montage(block: Block[MeasureRawParams], tile: PlacedTile, where: SectionMap, matches: F64) -> pa.Table:
    """How well one tile fits its neighbours: residuals of the matches that carry weight, peaks of all of them."""
    whole = np.asarray([[0, 0, *tile.shape]], dtype=np.int64)
    box = _boxes_nm(block, place_boxes(whole, tile.linear, tile.shift_px, where))
    used = matches[matches[:, 0] > 0]
    parts = [QUALITY_RAW.arrow().empty_table()]
    for name, values, weights in (
        ("montage_residual", used[:, 1], used[:, 0]),
        ("montage_peak_ratio", matches[:, 2], np.ones(len(matches))),
    ):
        if len(values):
            middle = np.asarray([_weighted_median(values, weights)])
            parts.append(_rows(block, tile, name, box, middle, np.asarray([float(len(values))])))
    return pa.concat_tables(parts)


def _weighted_median(values: F64, weights: F64) -> float:
    """The smallest value at which half of the weight is reached."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _boxes_nm(block: Block[MeasureRawParams], boxes_vx: F64) -> F64:
    """Boxes (N, 6) in nm, rounded to 0.01, of boxes (N, 4) of the section in voxels."""
    z, y, x = block.voxel_nm
    section = block.unit.position[0]
    low, high = np.full((len(boxes_vx), 1), section * z), np.full((len(boxes_vx), 1), (section + 1) * z)
    size = np.asarray([y, x])
    return np.round(np.concatenate([low, boxes_vx[:, :2] * size, high, boxes_vx[:, 2:] * size], axis=1), 2)


def _rows(
    block: Block[MeasureRawParams], tile: PlacedTile, name: str, boxes: F64, values: F64, weight: F64
) -> pa.Table:
    """Rows of one metric; a NaN value gives none."""
    metric = METRICS[name]
    kept = np.flatnonzero(np.isfinite(values))
    n = len(kept)
    columns = {
        "layer": [metric.layer] * n,
        "metric": [name] * n,
        **dict(zip(_COLUMNS[2:8], boxes[kept].T, strict=True)),
        "value": _six_digits(values[kept]),
        "weight": weight[kept],
        "measure": [metric.measure] * n,
        "section": np.full(n, block.unit.position[0], dtype=np.int32),
        "tile": [tile.name] * n,
    }
    return pa.table(
        {f.name: pa.array(columns[f.name], f.type) for f in QUALITY_RAW.arrow()}, schema=QUALITY_RAW.arrow()
    )


def _six_digits(values: Iterable[float]) -> list[float]:
    """Rounded to six significant digits: machines may differ in the last bits of a Fourier transform."""
    return [float(f"{v:.6g}") for v in values]


STAGE = Stage(
    name="measure_raw",
    summary="Measure the quality of raw tiles by patch, and of their place.",
    params=MeasureRawParams,
    inputs=(RAW, MATCH, TRANSFORM, MESH),
    outputs=(Rows(QUALITY_RAW),),
    plan=plan,
    compute=compute,
)
