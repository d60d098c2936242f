"""measure_raw on small synthetic sections with known tile offsets, rotation and contrast."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from connectome_db.kernels.mesh import Lattice
from connectome_db.kernels.patch_place import SectionMap, place_boxes, section_map
from connectome_db.kernels.patch_quality import patch_quality
from connectome_db.phantom.artefacts import fade
from connectome_db.schema.quality import METRICS, QUALITY_RAW
from connectome_db.spec import RAW
from connectome_db.stages import align, ingest, match, measure_raw, montage
from tests.stages.helpers import Inputs, Stored, block_of, plan_of, raw_tiles, run_in_memory
from tests.stages.test_imaging import OVERSCAN, POSES, section, texture

VOXEL_NM = (30.0, 6.0, 6.0)


@pytest.fixture(scope="module")
def stack() -> tuple[Inputs, dict[str, tuple[float, float]]]:
    """Sections whose tissue lost 60% of its contrast where its y and x are below 200; true places by tile."""
    plain = texture(1).astype(np.float32)
    lost = np.zeros(plain.shape, np.float32)
    lost[: 200 + OVERSCAN, : 200 + OVERSCAN] = 0.6
    tissue = fade(plain, lost)
    tiles, truth = [], {}
    for z, (angle, move) in enumerate(POSES):
        for n, (y, x, ty, tx, pixels) in enumerate(section(tissue, angle, move, 10 + z)):
            tiles.append((z, f"z{z}_{n}.png", y, x, pixels))
            truth[f"z{z}_{n}.png"] = (ty, tx)
    inputs = raw_tiles(tiles, voxel_nm=VOXEL_NM)
    for stage in (ingest.STAGE, montage.STAGE, match.STAGE, align.STAGE):
        run_in_memory(stage, inputs)
    return inputs, truth


@pytest.fixture(scope="module")
def rows(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    made = run_in_memory(measure_raw.STAGE, stack[0])["quality_raw"].table
    assert made is not None
    return made.to_pandas()


def centre_px(rows: pd.DataFrame) -> np.ndarray:
    """Centres (N, 2) of boxes as points where voxels' centres are whole numbers."""
    return np.stack([(rows[f"{a}0_nm"] + rows[f"{a}1_nm"]) / 2 / VOXEL_NM[1] - 0.5 for a in "yx"], axis=1)


def test_every_metric_of_raw_tiles_is_there_as_the_schema_says(rows: pd.DataFrame) -> None:
    wanted = [n for n in METRICS if n.startswith(("raw_", "montage_"))]
    assert sorted(rows.metric.unique()) == sorted(wanted)
    for name, found in rows.groupby("metric"):
        assert set(found.measure) == {METRICS[name].measure}
        assert set(found.layer) == {METRICS[name].layer}
        assert (found.value >= 0).all()
        assert (found.weight > 0).all()
        assert len(found) == (4 * len(POSES) if name.startswith("montage_") else 4 * len(POSES) * 9)
    assert (rows.z0_nm == rows.section * 30).all()
    assert (rows.z1_nm == rows.z0_nm + 30).all()
    assert np.isfinite(rows.select_dtypes(float)).all(axis=None)
    assert (rows.value == [float(f"{v:.6g}") for v in rows.value]).all()


def test_patches_lie_where_their_tissue_is(
    stack: tuple[Inputs, dict[str, tuple[float, float]]], rows: pd.DataFrame
) -> None:
    """The truth of each tile says which tissue a patch shows; section 0 is the anchor and says where tissue lies."""
    inputs, truth = stack
    still = np.mean([np.asarray(truth[f"z0_{n}.png"]) for n in range(4)], axis=0) - 80.0  # the montage's mean is kept
    found = rows[rows.metric == "raw_mean"]
    boxes = patch_quality(inputs.pixels["z0_0.png"], 64).boxes_px
    for name, own in found.groupby("tile"):
        angle, move = POSES[int(own.section.iloc[0])]
        c, s = np.cos(angle), np.sin(angle)
        y, x = ((boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5 + truth[name] - 180).T
        tissue = np.stack([c * y - s * x + 180 + move[0], s * y + c * x + 180 + move[1]], axis=1) - still
        placed = centre_px(own)
        gap = np.hypot(*(placed[:, None] - tissue[None]).transpose(2, 0, 1)).min(axis=1)
        assert gap.max() < 2.0
        assert np.median(gap) < 0.8
        edges = np.stack([own.y1_nm - own.y0_nm, own.x1_nm - own.x0_nm]) / VOXEL_NM[1]
        assert (np.abs(edges - 200 / 3) < 2.5).all()


def test_lost_contrast_shows_in_its_place_in_the_volume(rows: pd.DataFrame) -> None:
    found = rows[rows.metric == "raw_membrane_contrast"]
    y, x = centre_px(found).T
    inside, outside = found[(y < 165) & (x < 165)].value, found[(y > 235) | (x > 235)].value
    assert inside.mean() < 0.55 * outside.mean()
    sharp = rows[rows.metric == "raw_sharpness"]
    y, x = centre_px(sharp).T
    within = (y < 165) & (x < 165)
    assert abs(sharp[within].value.mean() - sharp[~within].value.mean()) < 0.06


def test_montage_metrics_are_medians_of_the_tiles_matches(
    stack: tuple[Inputs, dict[str, tuple[float, float]]], rows: pd.DataFrame
) -> None:
    matches = stack[0].table("montage.tile_match").to_pandas()
    for name, own in rows[rows.layer == "montage"].groupby("tile"):
        mine = matches[(matches.tile_a == name) | (matches.tile_b == name)]
        used = mine[mine.weight > 0].sort_values("residual_px")
        repeated = np.repeat(used.residual_px.to_numpy(), np.rint(used.weight * 10_000).astype(int))
        residual = own[own.metric == "montage_residual"].iloc[0]
        assert residual.value == pytest.approx(np.quantile(repeated, 0.5), rel=1e-5)
        assert residual.weight == len(used)
        ratio = own[own.metric == "montage_peak_ratio"].iloc[0]
        assert ratio.value == pytest.approx(np.quantile(mine.peak_ratio, 0.5, method="inverted_cdf"), rel=1e-5)
        assert ratio.weight == len(mine)
        patches = rows[(rows.tile == name) & (rows.metric == "raw_mean")]
        assert abs(residual.y0_nm - patches.y0_nm.min()) < 15
        assert abs(residual.x1_nm - patches.x1_nm.max()) < 15


def test_a_unit_depends_on_its_section_alone(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, params = stack[0], measure_raw.MeasureRawParams()
    plan = plan_of(measure_raw.STAGE, inputs, params)
    for i in range(len(plan)):
        block = block_of(measure_raw.STAGE, inputs, plan, i, params)
        for name in (RAW, measure_raw.MATCH, measure_raw.TRANSFORM, measure_raw.MESH):
            assert set(block.tables[name]["section"].to_pylist()) == {block.unit.position[0]}


def test_another_order_gives_the_same_rows(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    one = run_in_memory(measure_raw.STAGE, stack[0])["quality_raw"].table
    two = run_in_memory(measure_raw.STAGE, stack[0], order=[3, 1, 2, 0])["quality_raw"].table
    assert one is not None
    assert one.equals(two)


def test_a_section_or_a_tile_without_a_place_is_left_out(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs = Inputs(VOXEL_NM, dict(stack[0].outputs), stack[0].pixels)
    for name, column, value in ((measure_raw.MESH, "section", 1), (measure_raw.TRANSFORM, "tile", "z2_3.png")):
        stored = inputs.outputs[name]
        assert stored.table is not None
        kept = [v != value for v in stored.table[column].to_pylist()]
        inputs.outputs[name] = Stored(stored.extent, stored.table.filter(pa.array(kept)))
    made = run_in_memory(measure_raw.STAGE, inputs)["quality_raw"].table
    assert made is not None
    assert set(made["section"].to_pylist()) == {0, 2, 3}
    assert "z2_3.png" not in made["tile"].to_pylist()
    assert made.schema.equals(QUALITY_RAW.stored())


def bent() -> SectionMap:
    """A mesh that turns, moves and bends, as a plain function gives it at the nodes, rows in no order."""
    y, x = (v.ravel() for v in np.meshgrid(np.arange(-64, 512, 32), np.arange(-96, 512, 32), indexing="ij"))
    order = np.random.default_rng(0).permutation(len(y))
    angle = 0.15
    source = np.stack(
        [
            np.cos(angle) * y - np.sin(angle) * x + 20 + 5 * np.sin(x / 60),
            np.sin(angle) * y + np.cos(angle) * x - 9 + 4 * np.cos(y / 70),
        ],
        axis=1,
    )
    return section_map(y[order], x[order], source[order])


def test_the_inverse_of_a_bent_mesh_is_its_inverse() -> None:
    mesh = bent()
    points = np.random.default_rng(1).uniform(-90, 540, (500, 2))
    forward = mesh.grid.sample(mesh.source_px, points)
    np.testing.assert_allclose(mesh.to_aligned(forward), points, atol=1e-4)


def test_a_folded_mesh_still_gives_places_nearby() -> None:
    grid = Lattice(32, (0, 0), (12, 12))
    source = grid.nodes_px().reshape(-1, 2).copy()
    source[5 * 12 : 6 * 12, 0] += 50.0  # one row of nodes lies beyond the next
    points = np.random.default_rng(2).uniform(0, 350, (200, 2))
    found = SectionMap(grid, source).to_aligned(points)
    assert np.isfinite(found).all()
    assert np.hypot(*(found - points).T).max() < 80


def test_boxes_of_an_untouched_tile_are_its_pixels() -> None:
    grid = Lattice(32, (0, 0), (9, 9))
    mesh = SectionMap(grid, grid.nodes_px().reshape(-1, 2))
    boxes = np.asarray([[0, 0, 64, 64], [64, 0, 128, 60]])
    moved = place_boxes(boxes, np.eye(2), np.asarray([3.0, -2.0]), mesh)
    np.testing.assert_allclose(moved, [[3, -2, 67, 62], [67, -2, 131, 58]])
    turned = place_boxes(boxes[1:], np.asarray([[0.0, 1.0], [-1.0, 0.0]]), np.asarray([0.0, 200.0]), mesh)
    np.testing.assert_allclose(turned, [[0, 73, 60, 137]])  # row y of the tile lies at column 200 - y, pixel centres
