"""ingest to render on small synthetic sections with known tile offsets, rotation and warp."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import ndimage

from connectome_db.errors import StageError
from connectome_db.spec import RAW
from connectome_db.stages import align, ingest, match, montage, render
from tests.stages.helpers import Inputs, block_of, plan_of, raw_tiles, run_in_memory

TILE, STEP = 200, 160
OVERSCAN = 60


def texture(seed: int, size: int = 520) -> np.ndarray:
    """Smooth random cells with dark borders: enough like tissue for features and correlation."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), 7)
    fine = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2)
    wall = np.exp(-((noise / noise.std()) ** 2) / 0.03)
    return (150 - 80 * wall + 12 * fine / fine.std()).astype(np.float64)


def section(tissue: np.ndarray, angle: float, move: tuple[float, float], seed: int) -> list[tuple[float, ...]]:
    """2 x 2 tiles of the tissue seen turned by `angle` (radians) and moved: (nominal y, x, true y, true x, pixels)."""
    rng = np.random.default_rng(seed)
    out = []
    c, s = np.cos(angle), np.sin(angle)
    for row in range(2):
        for col in range(2):
            true = np.asarray([row, col]) * STEP + rng.uniform(-4, 4, 2)
            y, x = np.mgrid[0:TILE, 0:TILE].astype(float)
            y, x = y + true[0] - 180, x + true[1] - 180
            at = [c * y - s * x + 180 + OVERSCAN + move[0], s * y + c * x + 180 + OVERSCAN + move[1]]
            light = 1 - 0.15 * (((y % TILE) / TILE - 0.5) ** 2)
            grey = ndimage.map_coordinates(tissue, at, order=3, mode="mirror") * light
            pixels = np.clip(np.rint(grey + 4 * rng.standard_normal(grey.shape)), 1, 255).astype(np.uint8)
            out.append((row * STEP, col * STEP, true[0], true[1], pixels))
    return out


POSES = [(0.0, (0.0, 0.0)), (0.012, (6.3, -4.1)), (-0.009, (-3.6, 7.2)), (0.004, (2.2, 2.8))]


@pytest.fixture(scope="module")
def stack() -> tuple[Inputs, dict[str, tuple[float, float]]]:
    tissue = texture(1)
    tiles, truth = [], {}
    for z, (angle, move) in enumerate(POSES):
        for n, (y, x, ty, tx, pixels) in enumerate(section(tissue, angle, move, 10 + z)):
            name = f"z{z}_{n}.png"
            tiles.append((z, name, y, x, pixels))
            truth[name] = (ty, tx)
    inputs = raw_tiles(tiles)
    for stage in (ingest.STAGE, montage.STAGE, match.STAGE, align.STAGE):
        run_in_memory(stage, inputs)
    return inputs, truth


def test_ingest_lists_usable_tiles_and_problems() -> None:
    pixels = texture(3, 128).astype(np.uint8)
    inputs = raw_tiles([(0, "a", 0, 0, pixels), (0, "b", 0, 100, np.zeros((0, 0), np.uint8))])
    out = run_in_memory(ingest.STAGE, inputs)
    assert out["tile"].table["tile"].to_pylist() == ["a"]
    assert out["tile_issue"].table.select(["tile", "problem"]).to_pylist() == [{"tile": "b", "problem": "missing"}]


def test_montage_finds_the_tiles_places(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, truth = stack
    rows = inputs.table("montage.tile_transform").to_pylist()
    for z in range(len(POSES)):
        own = [r for r in rows if r["section"] == z]
        found = np.asarray([(r["ty"] + r["yx"] * 99.5, r["tx"] + r["xy"] * 99.5) for r in own])
        miss = found - np.asarray([truth[r["tile"]] for r in own])
        miss -= miss.mean(axis=0)
        assert np.hypot(*miss.T).max() < 0.2
        assert {r["component"] for r in own} == {0}


def test_montage_keeps_the_mean_place_and_rounds(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    rows = inputs.table("montage.tile_transform").to_pylist()
    nominal = {r["tile"]: (r["stage_y_px"], r["stage_x_px"]) for r in inputs.table("ingest.tile").to_pylist()}
    moves = np.asarray([(r["ty"] - nominal[r["tile"]][0], r["tx"] - nominal[r["tile"]][1]) for r in rows])
    for z in range(len(POSES)):
        own = np.asarray([r["section"] == z for r in rows])
        assert np.abs(moves[own].mean(axis=0)).max() < 0.1
    assert (np.asarray([r["ty"] for r in rows]) * 64 % 1 == 0).all()


def test_match_is_about_its_two_sections_only(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    params = match.MatchParams()
    plan = plan_of(match.STAGE, inputs, params)
    for i in range(len(plan)):
        block = block_of(match.STAGE, inputs, plan, i, params)
        z, dz, _ = block.unit.position
        assert set(block.tables[RAW]["section"].to_pylist()) == {z, z + dz}


def test_align_brings_sections_together(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    pose = {r["section"]: r for r in inputs.table("align.section_pose").to_pylist()}
    assert pose[0]["placed"] == "anchor"
    assert {pose[z]["placed"] for z in (1, 2, 3)} == {"matches"}
    for z, (angle, _) in enumerate(POSES):
        assert abs(np.arctan2(pose[z]["xy"], pose[z]["yy"]) - angle) < 2e-3
    rows = inputs.table("align.alignment_residual").to_pandas()
    assert np.median(np.hypot(rows.residual_y_px, rows.residual_x_px)) < 0.5


def test_the_anchor_is_the_identity(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    rows = inputs.table("align.section_transform").to_pandas()
    first = rows[rows.section == 0]
    assert (first.node_y_px == first.source_y_px).all()
    assert (first.node_x_px == first.source_x_px).all()
    assert (rows.source_y_px * 16 % 1 == 0).all()


def test_align_names_an_anchor_that_is_missing(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    with pytest.raises(StageError, match="anchor section 99"):
        run_in_memory(align.STAGE, inputs, align.AlignParams(anchor=99))


def test_a_section_without_matches_lies_between_its_neighbours(
    stack: tuple[Inputs, dict[str, tuple[float, float]]],
) -> None:
    inputs, _ = stack
    lonely = Inputs(inputs.voxel_nm, dict(inputs.outputs), inputs.pixels)
    rows = inputs.outputs["match.section_match"]
    pairs = inputs.outputs["match.pair_affine"]
    table = rows.table.to_pandas()
    cut = (table.section_a == 2) | (table.section_b == 2)
    table["accepted"] &= ~cut
    lonely.outputs["match.section_match"] = type(rows)(
        rows.extent, pa.Table.from_pandas(table, schema=rows.table.schema)
    )
    affine = pairs.table.to_pandas()
    affine.loc[(affine.section_a == 2) | (affine.section_b == 2), "accepted"] = False
    lonely.outputs["match.pair_affine"] = type(pairs)(
        pairs.extent, pa.Table.from_pandas(affine, schema=pairs.table.schema)
    )
    run_in_memory(align.STAGE, lonely)
    pose = {r["section"]: r for r in lonely.table("align.section_pose").to_pylist()}
    assert pose[2]["placed"] == "neighbours"
    assert pose[3]["placed"] == "matches"
    assert min(pose[1]["ty"], pose[3]["ty"]) - 1 < pose[2]["ty"] < max(pose[1]["ty"], pose[3]["ty"]) + 1


def test_render_lays_sections_on_each_other(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    params = render.RenderParams(block_vx=(2, 128, 128))
    out = run_in_memory(render.STAGE, inputs, params)
    image, low = out["image"].volume, out["image"].bounds.lo
    assert [v % 128 for v in low[1:]] == [0, 0]
    middle = image[:, 60 - low[1] : 300 - low[1], 60 - low[2] : 300 - low[2]].astype(float)
    assert middle.min() >= 1
    for z in (1, 2, 3):
        assert np.corrcoef(middle[0].ravel(), middle[z].ravel())[0, 1] > 0.9
    assert abs(middle.mean() - 128) < 8
    assert abs(middle.std() - 32) < 8
    planes = out["image_plane"].table.to_pandas()
    assert planes.coverage.between(0, 1).all()
    pixels = out["image_source"].table.to_pandas().groupby("section").pixels.sum()
    assert (pixels.to_numpy() == (image > 0).sum(axis=(1, 2))).all()


def test_render_opens_only_tiles_that_meet_the_block(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    params = render.RenderParams(block_vx=(1, 64, 64))
    plan = plan_of(render.STAGE, inputs, params)
    corner = next(i for i, c in enumerate(plan.cores.tolist()) if c[:3] == [0, 0, 0])
    block = block_of(render.STAGE, inputs, plan, corner, params)
    render.compute(block)
    assert block.tiles.opened == {"z0_0.png"}


def test_order_of_units_changes_nothing(stack: tuple[Inputs, dict[str, tuple[float, float]]]) -> None:
    inputs, _ = stack
    params = render.RenderParams(block_vx=(2, 128, 128))
    plan = plan_of(render.STAGE, inputs, params)
    forth = run_in_memory(render.STAGE, inputs, params)
    back = run_in_memory(render.STAGE, inputs, params, order=range(len(plan))[::-1])
    assert (forth["image"].volume == back["image"].volume).all()
    assert forth["image_source"].table.equals(back["image_source"].table)


def test_a_lone_tile_stays_where_the_stage_put_it() -> None:
    tissue = texture(5)[:150, :150].astype(np.uint8)
    inputs = raw_tiles([(0, "a", 10.5, 20.25, tissue), (0, "b", 900.0, 0.0, tissue)])
    run_in_memory(ingest.STAGE, inputs)
    run_in_memory(montage.STAGE, inputs)
    rows = inputs.table("montage.tile_transform").to_pylist()
    assert [(r["ty"], r["tx"], r["component"], r["matches"]) for r in rows] == [(10.5, 20.25, 0, 0), (900.0, 0.0, 1, 0)]


def test_a_section_whose_tiles_are_all_missing_is_bridged() -> None:
    tissue, tiles = texture(1), []
    for z, (angle, move) in enumerate(POSES[:3]):
        for n, (y, x, _, _, pixels) in enumerate(section(tissue, angle, move, 10 + z)):
            tiles.append((z, f"z{z}_{n}", y, x, pixels if z != 1 else np.zeros((0, 0), np.uint8)))
    inputs = raw_tiles(tiles)
    for stage in (ingest.STAGE, montage.STAGE, match.STAGE, align.STAGE, render.STAGE):
        run_in_memory(stage, inputs)
    pose = {r["section"]: r["placed"] for r in inputs.table("align.section_pose").to_pylist()}
    assert pose == {0: "anchor", 2: "matches"}
    covered = (inputs.volume("render.image") > 0).any(axis=(1, 2))
    assert covered.tolist() == [True, False, True]
