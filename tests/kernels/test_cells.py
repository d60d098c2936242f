"""The lattice of cells, medians per cell, rounding, and the way back from a section's plane."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from connectome_db.geometry import Box, box_of
from connectome_db.kernels.cell_quality import box_px
from connectome_db.kernels.cells import Cells
from connectome_db.kernels.mesh import Lattice
from connectome_db.kernels.quality_rows import quality_rows, significant
from connectome_db.kernels.section_place import SectionPlace, places_of
from connectome_db.schema.quality import QUALITY_VOLUME

BOX = Box((-3, 5, 8), (6, 37, 50))
CELLS = Cells(BOX, (4, 16, 10))


def test_cells_tile_the_box_on_the_lattice_of_the_origin() -> None:
    seen = np.zeros(BOX.shape, np.int64)
    for row in CELLS.boxes():
        cell = box_of(row)
        seen[cell.slices(BOX.lo)] += 1
        assert all(lo % n == 0 or lo == b for lo, n, b in zip(cell.lo, CELLS.cell_vx, BOX.lo, strict=True))
    assert (seen == 1).all()
    assert CELLS.shape == (3, 3, 5)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.float32])
def test_sums_are_those_of_the_cells_voxels(dtype: type) -> None:
    values = np.random.default_rng(1).integers(0, 2 if dtype is np.bool_ else 250, BOX.shape).astype(dtype)
    wanted = [float(values[box_of(b).slices(BOX.lo)].astype(float).sum()) for b in CELLS.boxes()]
    assert CELLS.sums(values).tolist() == wanted


def test_sums_of_large_cells_do_not_overflow() -> None:
    box = Box((0, 0, 0), (18, 640, 640))
    assert Cells(box, box.shape).sums(np.full(box.shape, 765, np.uint16)).tolist() == [765 * box.size_vx]


def test_points_lie_in_the_cell_of_their_voxel() -> None:
    boxes = [box_of(b) for b in CELLS.boxes()]
    points = np.random.default_rng(2).uniform((-6, 0, 0), (9, 42, 55), (400, 3))
    for point, cell in zip(points, CELLS.of(points).tolist(), strict=True):
        voxel = tuple(int(v) for v in np.rint(point))
        inside = [k for k, b in enumerate(boxes) if all(b.lo[i] <= voxel[i] < b.hi[i] for i in range(3))]
        assert [cell] == (inside or [-1])


def test_medians_leave_out_what_lies_outside() -> None:
    rng = np.random.default_rng(3)
    cell, values = rng.integers(-1, 12, 61), rng.normal(size=61)
    got, count = CELLS.medians(cell, values)
    for k in range(CELLS.size):
        own = values[cell == k]
        assert count[k] == len(own)
        assert np.isnan(got[k]) if len(own) == 0 else got[k] == pytest.approx(np.median(own))


def test_six_significant_digits() -> None:
    values = np.asarray([0.0, 1.23456789, -98765.4321, 0.000123456789, 6543217.0, 1e-9, 0.1 + 0.2, 255.0])
    assert significant(values).tolist() == [float(f"{v:.6g}") for v in values.tolist()]


def test_rows_only_where_something_was_measured() -> None:
    boxes = np.asarray([[0, 0, 0, 8, 64, 64], [0, 0, 64, 8, 64, 100], [8, 0, 0, 10, 64, 64]])
    value, weight = np.asarray([0.5, np.nan, 0.25]), np.asarray([3.0, 4.0, 0.0])
    rows = quality_rows([("damaged", boxes, value, weight)], (30.0, 4.5, 8.0), QUALITY_VOLUME.arrow())
    assert rows.to_pylist() == [
        {"layer": "mask", "metric": "damaged", "value": 0.5, "weight": 3.0, "measure": "1"}
        | {"z0_nm": 0.0, "y0_nm": 0.0, "x0_nm": 0.0, "z1_nm": 240.0, "y1_nm": 288.0, "x1_nm": 512.0}
    ]
    assert quality_rows([], (1.0, 1.0, 1.0), QUALITY_VOLUME.arrow()).equals(
        pa.table(QUALITY_VOLUME.arrow().empty_table())
    )


def test_boxes_have_the_standard_deviation_nearest_to_the_one_asked_for() -> None:
    for sigma in (0.5, 1.0, 1.5, 4.0, 12.0):
        spread = {n: abs(np.sqrt((n * n - 1) / 12) - sigma) for n in range(1, 99, 2)}
        assert box_px(sigma) == min(spread, key=lambda n: spread[n])


def bent() -> SectionPlace:
    """A map that turns, shears and bends by a few px."""
    grid = Lattice(32, (-1, 2), (9, 8))
    y, x = grid.nodes_px().reshape(-1, 2).T
    source = np.stack([y + 0.04 * x + 2 * np.sin(x / 50) - 7, x - 0.03 * y + 2 * np.cos(y / 60) + 11], axis=1)
    return SectionPlace(grid, source)


def test_the_way_back_undoes_the_map() -> None:
    place = bent()
    at = np.random.default_rng(5).uniform((0, 70), (220, 280), (200, 2))
    plane = place.grid.sample(place.source_px, at)
    assert np.abs(place.aligned(plane) - at).max() < 1e-3
    low, high = (64, 128), (128, 200)
    inside = ((at >= low) & (at < high)).all(axis=1)
    near = place.near(plane, low, high)
    assert near[inside].all()
    far = ((at < np.asarray(low) - 90) | (at >= np.asarray(high) + 90)).any(axis=1)
    assert far.any()
    assert not near[far].any()
    assert place.span() == (0, 96, 192, 256)


def test_maps_come_from_rows_in_any_order() -> None:
    place = bent()
    nodes = place.grid.nodes_px().reshape(-1, 2)
    order = np.random.default_rng(6).permutation(len(nodes))
    columns = {
        "section": np.full(len(nodes), 7, np.int32),
        "node_y_px": nodes[order, 0].astype(np.int32),
        "node_x_px": nodes[order, 1].astype(np.int32),
        "source_y_px": place.source_px[order, 0],
        "source_x_px": place.source_px[order, 1],
    }
    got = places_of(columns)
    assert list(got) == [7]
    assert got[7].grid == place.grid
    assert np.array_equal(got[7].source_px, place.source_px)
