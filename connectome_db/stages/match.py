"""match: the same tissue found in two sections. One unit per pair (z, z + 1), (z, z + 2), ..."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.kernels.features import CoarseMap, coarse_map
from connectome_db.kernels.flow import Flow, block_flow, consistent, smooth_field
from connectome_db.kernels.placed import light_of, tiles_of
from connectome_db.kernels.warp import PlacedTile, assemble, plane_grid, tile_hull
from connectome_db.schema.alignment import PAIR_AFFINE, SECTION_MATCH
from connectome_db.spec import RAW, Block, Found, Params, Plan, Result, Rows, Stage

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
TRANSFORM = "montage.tile_transform"
LIGHT = "montage.illumination"


class MatchParams(Params):
    """Parameters of `match`. Lengths are in px of the tiles, whatever `reduce` is."""

    reach: int = 2
    """How many sections ahead each section is matched. 2 bridges a lost section and halves the drift."""
    reduce: int = 1
    """Sections are matched at 1/reduce of the tiles' resolution. 2 or 4 for large sections at fine pixels."""
    feature_px: int = 512
    """Features are sought in an image reduced to at most about this many px along its longer side."""
    feature_tolerance_px: float = 8.0
    """Features that lie within this distance of the coarse map agree with it."""
    min_inliers: int = 8
    """The coarse map is accepted when this many features agree with it; block matching then puts it to the test."""
    max_strain: float = 0.1
    """A coarse map that changes lengths by more than this is refused."""
    patch_px: int = 64
    """Edge of the patches of the block matching."""
    step_px: int = 32
    """Distance between the patches' centres, which lie on multiples of it."""
    search_px: int = 24
    """How far tissue may lie from where the coarse map puts it."""
    passes: int = Field(default=2, ge=1)
    """Block matching is repeated this often, each time on the section bent by what was found before."""
    band_px: tuple[float, float] = (1.5, 12.0)
    """Standard deviations of the band-pass: detail below the first is noise, above the second is staining."""
    min_correlation: float = 0.15
    """Patches that correlate less are refused."""
    min_peak_ratio: float = 1.15
    """Patches whose best peak does not exceed the next by this factor are refused."""
    neighbourhood_px: float = 96.0
    """A displacement must agree with those within this distance ..."""
    max_disagreement_px: float = 8.0
    """... to this many px."""
    min_agreement: float = 0.4
    """A pair in which a smaller share of the patches agrees is refused as a whole: chance alone makes some agree where
    the coarse map is wrong."""
    feather_px: float = 16.0
    """Width of the seam in which two tiles are mixed."""


def plan(found: Found, params: MatchParams) -> Plan:
    """One unit per pair, reading the tiles of its two sections and nothing between them."""
    units = plans.pairs(found.inputs[RAW], params.reach)
    position, _ = ids.unpack(units.codes)
    low, high = position[:, 0], position[:, 0] + position[:, 1]
    a, b = plans.planes(low, low + 1), plans.planes(high, high + 1)
    return plans.reading(units, (RAW, a), (RAW, b), (TRANSFORM, a), (TRANSFORM, b), (LIGHT, a), (LIGHT, b))


def compute(block: Block[MatchParams]) -> Result:
    """The coarse map of the pair, and the points that block matching finds."""
    p = block.params
    z, dz, _ = block.unit.position
    low, high = (_Section(block, s) for s in (z, z + dz))
    coarse = _coarse(low, high, p)
    flow, kept = _flow(low, high, coarse, p)
    return {
        "pair_affine": _pair_row(z, z + dz, coarse),
        "section_match": _match_rows(z, z + dz, low, flow, coarse, kept, p.reduce),
    }


class _Section:
    """One section's tiles, and its image at the working scale in its own plane."""

    def __init__(self, block: Block[MatchParams], section: int) -> None:
        self.block, self.section, p = block, section, block.params
        rows, light = (
            t.filter(pc.equal(t["section"], section)) for t in (block.tables[TRANSFORM], block.tables[LIGHT])
        )
        self.tiles: Sequence[PlacedTile] = tiles_of(rows.to_pydict())
        self.light = light_of(light.to_pydict())
        y0, x0, y1, x1 = tile_hull(self.tiles)
        # On multiples of the step, so that patches keep their places when a section grows.
        self.y0, self.x0 = (v // p.step_px * p.step_px for v in (y0, x0))
        self.shape = (max(-(-(y1 - self.y0) // p.reduce), 1), max(-(-(x1 - self.x0) // p.reduce), 1))
        self.image, self.valid = self.seen(*plane_grid(self.y0, self.x0, self.shape, p.reduce))

    def seen(self, plane_y: F64, plane_x: F64) -> tuple[U8, npt.NDArray[np.bool_]]:
        """The section at positions of its plane: (image, covered)."""
        p = self.block.params
        got = assemble(
            self.tiles,
            lambda name: np.asarray(self.block.tiles[name]),
            self.light,
            plane_y,
            plane_x,
            feather_px=p.feather_px,
            reduce=p.reduce,
        )
        return got.as_uint8(), got.covered


def _coarse(low: _Section, high: _Section, p: MatchParams) -> CoarseMap:
    """The coarse map from the plane of `low` to that of `high`, found on reduced images."""
    longest = max(*low.shape, *high.shape)
    factor = max(1, -(-longest // p.feature_px))
    found = _coarse_at(low, high, factor, p)
    if found.method != "features" and factor > 1:  # twice the resolution shows more features, and costs four times more
        finer = _coarse_at(low, high, -(-factor // 2), p)
        found = finer if finer.method == "features" or not found.trusted else found
    return found


def _coarse_at(low: _Section, high: _Section, factor: int, p: MatchParams) -> CoarseMap:
    """The coarse map found on images reduced by `factor` (of the working scale)."""
    a, b = _shrink(low.image, factor), _shrink(high.image, factor)
    va, vb = (_shrink(s.valid.astype(np.uint8) * 255, factor) > 254 for s in (low, high))
    scale = factor * p.reduce
    found = coarse_map(
        a,
        b,
        np.asarray(va),
        np.asarray(vb),
        tolerance_px=max(p.feature_tolerance_px / scale, 1.5),
        min_inliers=p.min_inliers,
        max_strain=p.max_strain,
        smooth_px=1.0,
    )
    if not found.trusted:
        return found
    # A reduced pixel i stands at i * scale + (scale - 1) / 2 from its section's corner.
    corner_a, corner_b = ((np.asarray([s.y0, s.x0]) + (scale - 1) / 2) for s in (low, high))
    shift = found.shift_px * scale + corner_b - found.linear @ corner_a
    return CoarseMap(found.linear, shift, found.method, found.features, found.inliers, found.rms_px * scale)


def _shrink(image: U8, factor: int) -> U8:
    if factor == 1:
        return image
    rows, cols = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    small = cv2.resize(image[:rows, :cols], (cols // factor, rows // factor), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _flow(low: _Section, high: _Section, coarse: CoarseMap, p: MatchParams) -> tuple[Flow, npt.NDArray[np.bool_]]:
    """Displacements, at the working scale, of the lower section's patches in the upper one seen through the map.

    Each pass after the first sees the upper section through the smoothed flow so far, so that patches compare what is
    no longer distorted inside them (window deformation, Scarano 2002). Also returns which displacements to believe.
    """
    y, x = plane_grid(low.y0, low.x0, low.shape, p.reduce)
    step, patch = max(p.step_px // p.reduce, 1), max(p.patch_px // p.reduce, 8)
    rows, cols = np.meshgrid(np.arange(0, low.shape[0], step), np.arange(0, low.shape[1], step), indexing="ij")
    at = np.stack([rows.ravel(), cols.ravel()], axis=1)
    field = (np.zeros(low.shape, np.float32), np.zeros(low.shape, np.float32))
    for n in range(p.passes):
        bent_y, bent_x = y + field[0] * p.reduce, x + field[1] * p.reduce
        image, valid = high.seen(*_through(coarse, bent_y, bent_x))
        search = p.search_px if n == 0 else max(p.search_px // 2, 4)
        band = (p.band_px[0] / float(np.sqrt(p.reduce)), p.band_px[1] / p.reduce)
        found = block_flow(
            low.image,
            image,
            low.valid,
            valid,
            at,
            patch_px=patch,
            search_px=max(-(-search // p.reduce), 2),
            band_px=band,
        )
        middle = np.rint(found.at_px).astype(np.int64)
        so_far = np.stack([f[middle[:, 0], middle[:, 1]] for f in field], axis=1)
        flow = Flow(found.at_px, found.move_px + so_far, found.peak_ratio, found.correlation)
        good = (flow.correlation >= p.min_correlation) & (flow.peak_ratio >= p.min_peak_ratio)
        reach, most = p.neighbourhood_px / p.reduce, p.max_disagreement_px / p.reduce
        kept = consistent(flow, good, reach_px=reach, max_px=most)
        if float(kept.sum()) < p.min_agreement * len(kept):
            kept = np.zeros(len(kept), dtype=np.bool_)
        field = smooth_field(flow, kept, low.shape, step)
    return flow, kept


def _through(coarse: CoarseMap, y: F64, x: F64) -> tuple[F64, F64]:
    linear, shift = coarse.linear, coarse.shift_px
    return linear[0, 0] * y + linear[0, 1] * x + shift[0], linear[1, 0] * y + linear[1, 1] * x + shift[1]


def _pair_row(a: int, b: int, coarse: CoarseMap) -> pa.Table:
    linear, shift = coarse.linear, coarse.shift_px
    row = {
        "section_a": a,
        "section_b": b,
        "yy": round(float(linear[0, 0]), 9),
        "yx": round(float(linear[0, 1]), 9),
        "xy": round(float(linear[1, 0]), 9),
        "xx": round(float(linear[1, 1]), 9),
        "ty": round(float(shift[0]), 6),
        "tx": round(float(shift[1]), 6),
        "features": coarse.features,
        "inliers": coarse.inliers,
        "rms_px": round(coarse.rms_px, 6),
        "method": coarse.method,
        "accepted": coarse.trusted,
    }
    return pa.Table.from_pylist([row], schema=PAIR_AFFINE.arrow())


def _match_rows(
    a: int, b: int, low: _Section, flow: Flow, coarse: CoarseMap, kept: npt.NDArray[np.bool_], reduce: int
) -> pa.Table:
    """The flow in the sections' planes, rounded to 1/1024 px."""
    corner = np.asarray([low.y0, low.x0]) + (reduce - 1) / 2
    here = flow.at_px * reduce + corner
    there = (here + flow.move_px * reduce) @ coarse.linear.T + coarse.shift_px
    here, there = (np.rint(v * 1024.0) / 1024.0 for v in (here, there))
    columns = {
        "section_a": np.full(len(flow), a),
        "section_b": np.full(len(flow), b),
        "a_y_px": here[:, 0],
        "a_x_px": here[:, 1],
        "b_y_px": there[:, 0],
        "b_x_px": there[:, 1],
        "peak_ratio": flow.peak_ratio,
        "correlation": flow.correlation,
        "accepted": kept,
    }
    schema = SECTION_MATCH.arrow()
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema}, schema=schema)


STAGE = Stage(
    name="match",
    summary="Find the same tissue in neighbouring sections.",
    params=MatchParams,
    inputs=(RAW, TRANSFORM, LIGHT),
    outputs=(Rows(PAIR_AFFINE), Rows(SECTION_MATCH)),
    plan=plan,
    compute=compute,
)
