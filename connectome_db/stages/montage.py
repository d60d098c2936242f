"""montage: the tiles of a section placed against each other, and their illumination. One unit per section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import plans
from connectome_db.kernels.border import valid_mask
from connectome_db.kernels.illumination import (
    Samples,
    Twins,
    block_levels,
    illumination_grid,
    place_in_tile,
    section_tone,
    tile_tones,
    twin_stats,
)
from connectome_db.kernels.montage_solve import Placement, TileLinks, place_tiles
from connectome_db.kernels.tile_pairs import PatchMatches, PatchPlan, TilePair, match_tiles
from connectome_db.schema.imaging import ILLUMINATION, TILE_MATCH, TILE_TRANSFORM
from connectome_db.spec import RAW, Block, Found, Params, Plan, Result, Rows, Stage

F64 = npt.NDArray[np.float64]
TILES = "ingest.tile"


class MontageParams(Params):
    """Parameters of `montage`."""

    search_px: int = 48
    """How far a tile may lie from its nominal place, against its neighbour. Raise it when `tile_match` finds nothing;
    time grows with its square."""
    min_overlap_px: int = 24
    """Overlaps thinner than this are not matched."""
    patch_px: int = 128
    """Edge of the patches matched along an overlap. Larger ones bear more noise, smaller ones more distortion."""
    patches: int = 12
    """At most this many patches along each axis of an overlap."""
    smooth_px: float = 1.0
    """Standard deviation of the blur before matching. 2 for noisy or sparse images (resin with few fibres)."""
    min_correlation: float = 0.3
    """Patches that correlate less are left out of the solve."""
    min_peak_ratio: float = 1.2
    """Patches whose best peak does not exceed the next by this factor are left out of the solve."""
    max_disagreement_px: float = 16.0
    """Patches of one overlap whose shifts differ more than this from their median are left out of the solve."""
    model: Literal["translation", "rigid", "affine"] = "rigid"
    """What a tile may do: move; move and turn; or also stretch and shear (little)."""
    shape_prior: float = 0.2
    """Weight of one px of turn or stretch at a tile's edge, against one px at a patch. Keeps poor overlaps straight."""
    illumination_order: int = 4
    """Degree of the polynomial of the log illumination over the tile; 0 turns the correction off."""
    illumination_nodes: int = 9
    """The illumination is stored on a grid of this many nodes along each axis of the tile."""


def plan(found: Found, params: MontageParams) -> Plan:  # noqa: ARG001 - every plan has this signature
    """One unit per section, reading that section's tiles and their measurements."""
    units = plans.sections(found.inputs[RAW])
    own = plans.planes(units.cores[:, 0], units.cores[:, 3])
    return plans.reading(units, (RAW, own), (TILES, own))


def compute(block: Block[MontageParams]) -> Result:
    """Match overlaps, solve for the tiles' places, estimate illumination and tone."""
    p = block.params
    table = block.tables[TILES].sort_by("tile")
    names: list[str] = table["tile"].to_pylist()
    section = block.unit.position[0]
    nominal, size = _columns(table, "stage_y_px", "stage_x_px"), _columns(table, "height_px", "width_px")
    pixels = {name: np.asarray(block.tiles[name]) for name in names}
    valid = {name: valid_mask(pixels[name]) for name in names}
    found = _match_all(names, pixels, valid, nominal, size, p)
    links = _links(found, nominal, p)
    solved = place_tiles(nominal, size, links, model=p.model, shape_prior=p.shape_prior)
    twins = _twins(names, pixels, valid, size, links, solved)
    samples = _samples([block_levels(pixels[n], valid[n], i) for i, n in enumerate(names)])
    grid = np.round(
        illumination_grid(samples, twins, len(names), order=p.illumination_order, nodes=p.illumination_nodes), 6
    )
    gain, offset = tile_tones(twins, grid, len(names))
    scale, level = section_tone([(pixels[n], valid[n], gain[i], offset[i]) for i, n in enumerate(names)], grid)
    return {
        "tile_match": _match_rows(section, names, found, links, solved, nominal),
        "tile_transform": _transform_rows(section, names, size, solved, gain * scale, offset * scale + level),
        "illumination": _illumination_rows(section, grid if names else np.zeros((0, 0))),
    }


def _columns(table: pa.Table, y: str, x: str) -> F64:
    return np.stack([table[y].to_numpy(), table[x].to_numpy()], axis=1).astype(np.float64).reshape(-1, 2)


def _match_all(
    names: list[str],
    pixels: Mapping[str, npt.NDArray[np.uint8]],
    valid: Mapping[str, npt.NDArray[np.bool_]],
    nominal: F64,
    size: F64,
    p: MontageParams,
) -> dict[tuple[int, int], PatchMatches]:
    """Patches of every pair of tiles that may overlap, by the tiles' numbers (low, high)."""
    how = PatchPlan(p.search_px, p.patch_px, p.patches, p.min_overlap_px, p.smooth_px)
    reach = p.search_px - p.min_overlap_px
    found = {}
    for i in range(len(names)):
        near = (nominal < nominal[i] + size[i] + reach).all(axis=1) & (nominal + size > nominal[i] - reach).all(axis=1)
        for j in (int(v) for v in np.flatnonzero(near) if v > i):
            at = (float(nominal[j, 0] - nominal[i, 0]), float(nominal[j, 1] - nominal[i, 1]))
            a, b = names[i], names[j]
            matches = match_tiles(TilePair(pixels[a], pixels[b], valid[a], valid[b], at), how)
            if len(matches):
                found[i, j] = matches
    return found


def _links(found: Mapping[tuple[int, int], PatchMatches], nominal: F64, p: MontageParams) -> TileLinks:
    """All patches as links. The weight of a good one is its inverse variance, rho / (1 - rho) up to a factor."""
    parts = []
    for (i, j), m in found.items():
        good = (m.correlation >= p.min_correlation) & (m.peak_ratio >= p.min_peak_ratio)
        rho = np.clip(m.correlation, 0.0, 0.95)
        move = m.a_px - m.b_px - (nominal[j] - nominal[i])
        good &= np.hypot(*move.T) <= p.search_px * 1.5
        if good.any():  # patches of one overlap must agree: tiles turn by a few px at most across it
            good &= np.hypot(*(move - np.median(move[good], axis=0)).T) <= p.max_disagreement_px
        number = np.tile(np.asarray([[i, j]], dtype=np.float64), (len(m), 1))
        parts.append(np.concatenate([number, m.a_px, m.b_px, (good * rho / (1.0 - rho) / 4.0)[:, None]], axis=1))
    rows = np.concatenate(parts) if parts else np.zeros((0, 7))
    return TileLinks(rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2:4], rows[:, 4:6], rows[:, 6])


def _twins(
    names: list[str],
    pixels: Mapping[str, npt.NDArray[np.uint8]],
    valid: Mapping[str, npt.NDArray[np.bool_]],
    size: F64,
    links: TileLinks,
    solved: Placement,
) -> Twins:
    """Brightness of the same tissue in two tiles, around the patches that the solve accepted."""
    rows = []
    for n in np.flatnonzero(solved.weight > 0).tolist():
        i, j = int(links.a[n]), int(links.b[n])
        a, b = names[i], names[j]
        at_a, at_b = tuple(links.a_px[n].tolist()), tuple(links.b_px[n].tolist())
        stats = twin_stats(pixels[a], pixels[b], valid[a], valid[b], at_a, at_b, 32)
        if stats is not None:
            place_a, place_b = place_in_tile(links.a_px[n], size[i]), place_in_tile(links.b_px[n], size[j])
            rows.append((i, j, *place_a, *place_b, *stats))
    t = np.asarray(rows, dtype=np.float64).reshape(-1, 10)
    return Twins(
        t[:, 0].astype(np.int64), t[:, 1].astype(np.int64), t[:, 2:4], t[:, 4:6], t[:, 6], t[:, 7], t[:, 8], t[:, 9]
    )


def _samples(parts: list[Samples]) -> Samples:
    if not parts:
        return Samples(np.zeros(0, dtype=np.int64), np.zeros((0, 2)), np.zeros(0))
    return Samples(*(np.concatenate([getattr(s, k) for s in parts]) for k in ("tile", "place", "level")))


def _match_rows(
    section: int,
    names: list[str],
    found: Mapping[tuple[int, int], PatchMatches],
    links: TileLinks,
    solved: Placement,
    nominal: F64,
) -> pa.Table:
    matches = list(found.values())
    number = [np.arange(len(m)) for m in matches]
    shift = links.a_px - links.b_px - (nominal[links.b] - nominal[links.a])
    none = [np.zeros(0)]
    columns = {
        "section": np.full(len(links.a), section),
        "tile_a": [names[i] for i in links.a],
        "tile_b": [names[i] for i in links.b],
        "patch": np.concatenate(number) if number else none[0],
        "a_y_px": links.a_px[:, 0],
        "a_x_px": links.a_px[:, 1],
        "b_y_px": links.b_px[:, 0],
        "b_x_px": links.b_px[:, 1],
        "shift_y_px": shift[:, 0],
        "shift_x_px": shift[:, 1],
        "peak_ratio": np.concatenate([m.peak_ratio for m in matches] or none),
        "correlation": np.concatenate([m.correlation for m in matches] or none),
        "weight": solved.weight,
        "residual_px": solved.residual_px,
    }
    schema = TILE_MATCH.arrow()
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema}, schema=schema)


def _transform_rows(section: int, names: list[str], size: F64, solved: Placement, gain: F64, offset: F64) -> pa.Table:
    columns = {
        "section": np.full(len(names), section),
        "tile": pa.array(names, pa.string()),
        "yy": solved.linear[:, 0, 0],
        "yx": solved.linear[:, 0, 1],
        "xy": solved.linear[:, 1, 0],
        "xx": solved.linear[:, 1, 1],
        "ty": solved.shift_px[:, 0],
        "tx": solved.shift_px[:, 1],
        "height_px": size[:, 0].astype(np.int32),
        "width_px": size[:, 1].astype(np.int32),
        "gain": np.round(gain, 6),
        "offset": np.round(offset, 4),
        "component": solved.component,
        "matches": solved.matches,
    }
    schema = TILE_TRANSFORM.arrow()
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema}, schema=schema)


def _illumination_rows(section: int, grid: F64) -> pa.Table:
    y, x = np.indices(grid.shape)
    columns = {"section": np.full(grid.size, section), "node_y": y.ravel(), "node_x": x.ravel(), "gain": grid.ravel()}
    schema = ILLUMINATION.arrow()
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema}, schema=schema)


STAGE = Stage(
    name="montage",
    summary="Place the tiles of each section, and estimate its illumination.",
    params=MontageParams,
    inputs=(RAW, TILES),
    outputs=(Rows(TILE_MATCH), Rows(TILE_TRANSFORM), Rows(ILLUMINATION)),
    plan=plan,
    compute=compute,
)
