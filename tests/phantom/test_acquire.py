"""Tiles show what the truth says, the manifest is right, artefacts are where they are said to be."""

import csv
import hashlib
import json

import cv2
import numpy as np
import pytest

from connectome_db.errors import ConfigError, QueryError, SourceError
from connectome_db.phantom.acquire import AcquireConfig, acquire
from connectome_db.phantom.artefacts import Artefacts, TileName
from connectome_db.phantom.simulate import CropConfig, SimulateConfig, reacquire, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.phantom.truth import Truth
from tests.phantom.conftest import FIRST, SMALL


def manifest(folder):
    with (folder / "raw" / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tile(folder, name):
    return cv2.imread(str(folder / "raw" / name), cv2.IMREAD_UNCHANGED)


def test_manifest_lists_all_tiles_with_their_digests(acquired, truth):
    rows = manifest(acquired)
    assert list(rows[0]) == ["path", "section", "stage_y_px", "stage_x_px", "height_px", "width_px", "sha256"]
    assert len(rows) == 4 * SMALL.shape_vx[0] == len(truth.tiles)
    missing = 0
    for row in rows:
        path = acquired / "raw" / row["path"]
        if not path.exists():
            missing += 1
            assert row["path"] == f"s{FIRST + 2:04d}_r1_c0.png"
            continue
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        pixels = tile(acquired, row["path"])
        assert pixels.shape == (int(row["height_px"]), int(row["width_px"]))
        assert pixels.dtype == np.uint8
    assert missing == 1
    assert {int(row["section"]) for row in rows} == set(range(FIRST, FIRST + SMALL.shape_vx[0]))


def test_nominal_positions_are_off_by_the_stage_error(acquired, truth):
    off = []
    for row in manifest(acquired):
        true = truth.tiles[row["path"]].true_px
        off.append([true[0] - float(row["stage_y_px"]), true[1] - float(row["stage_x_px"])])
    off = np.abs(off)
    assert off.max() <= 4.0
    assert off.max() > 2.5


def test_maps_invert_each_other(truth):
    points = np.random.default_rng(0).uniform(0, 150, (200, 2))
    for section in truth.maps.section:
        there = truth.section_to_tissue(int(section), points)
        assert np.abs(truth.tissue_to_section(int(section), there) - points).max() < 1e-6
        assert np.abs(there - points).max() > 1


def test_maps_survive_a_round_trip_to_disk(truth, acquired):
    again = Truth.load(acquired / "truth")
    points = np.array([[3.25, 90.5], [70.0, 11.0]])
    for section in truth.maps.section:
        assert np.array_equal(
            again.section_to_tissue(int(section), points), truth.section_to_tissue(int(section), points)
        )


def test_tiles_show_what_the_truth_says(acquired, truth, tissue):
    """Correlate each tile with the tissue at the true place, and a pixel away: the true place must win."""
    checked = 0
    for name, at in truth.tiles.items():
        plane = truth.plane(at.section)
        if plane in (2, 4, 7, 9):  # artefacts have their own tests
            continue
        pixels = tile(acquired, name)[4:-4, 4:-4].astype(np.float32)
        grid = np.stack(np.mgrid[4 : at.shape_px[0] - 4, 4 : at.shape_px[1] - 4], axis=-1).astype(np.float64)
        scores = []
        for shift in ((0, 0), (0.7, 0), (-0.7, 0), (0, 0.7), (0, -0.7)):
            source = truth.tile_to_tissue(name, grid + shift).astype(np.float32)
            seen = cv2.remap(tissue.image[plane], source[..., 1], source[..., 0], cv2.INTER_CUBIC)
            scores.append(np.corrcoef(seen.ravel(), pixels.ravel())[0, 1])
        assert scores[0] > 0.8
        assert scores[0] == max(scores)
        checked += 1
    assert checked >= 36


def test_overlapping_tiles_show_the_same_tissue(acquired, truth):
    """The two tiles' pixels agree at the places that the truth calls the same."""
    a, b = (f"s{FIRST:04d}_r0_c{c}.png" for c in (0, 1))
    shift = np.subtract(truth.tiles[b].true_px, truth.tiles[a].true_px)
    left, right = tile(acquired, a).astype(np.float32), tile(acquired, b).astype(np.float32)
    rows, cols = np.mgrid[8 : right.shape[0] - 8, 1:8].astype(np.float32)
    seen = cv2.remap(left, cols + np.float32(shift[1]), rows + np.float32(shift[0]), cv2.INTER_CUBIC)
    assert np.corrcoef(seen.ravel(), right[8:-8, 1:8].ravel())[0, 1] > 0.8


def test_artefacts_are_recorded_and_there(acquired, truth):
    kinds = [entry["kind"] for entry in truth.artefacts]
    assert kinds == ["staining_gradient", "missing_tile", "fold", "defocus", "blank_section"]
    by = {entry["kind"]: entry for entry in truth.artefacts}
    assert by["staining_gradient"]["lo_vx"] == [0, 0, 108]
    assert by["staining_gradient"]["hi_vx"] == [14, 100, 216]
    assert by["missing_tile"]["lo_vx"][0] == 2
    assert by["fold"]["lo_vx"] == [4, 0, 0]
    contrast = {}
    for plane in range(14):
        name = f"s{FIRST + plane:04d}_r1_c1.png"
        pixels = tile(acquired, name).astype(np.float32)
        sharp = (
            cv2.Laplacian(cv2.GaussianBlur(pixels, (0, 0), 1.0), cv2.CV_32F).std() / truth.acquisition["gain"][plane]
        )
        contrast[plane] = (sharp, pixels.std())
    others = [contrast[p][0] for p in contrast if p not in (4, 7, 9)]
    assert contrast[7][0] < 0.6 * min(others)
    assert contrast[9][1] < 0.6 * min(contrast[p][1] for p in contrast if p != 9)


def test_poor_staining_lowers_contrast_in_its_corner_only(acquired, acquire_config, tissue, tmp_path):
    """Against the same acquisition well stained: same tiles, same noise."""
    fine = acquire_config.artefacts.model_copy(update={"staining": None})
    acquire(tissue.image, acquire_config.model_copy(update={"artefacts": fine}), tmp_path, voxel_nm=SMALL.voxel_nm)
    ratio = {}
    for place, part in {"r0_c1": np.s_[:30, -30:], "r1_c0": np.s_[-30:, :30]}.items():
        poor, well = (
            np.mean([tile(folder, f"s{FIRST + p:04d}_{place}.png")[part].std() for p in (0, 1, 3, 5, 6)])
            for folder in (acquired, tmp_path)
        )
        ratio[place] = poor / well
    assert ratio["r0_c1"] < 0.75
    assert ratio["r1_c0"] == 1.0


def test_the_fold_is_dark_and_hides_tissue(acquired, truth):
    section = FIRST + 4
    fold = truth.maps.fold[4]
    normal = np.array([np.sin(fold[2]), np.cos(fold[2])])
    ends = truth.section_to_tissue(section, np.stack([fold[:2] - 20 * normal, fold[:2] + 20 * normal]))
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(50, abs=4)
    assert truth.maps.fold_darkness(section, fold[:2]) == pytest.approx(1)
    assert truth.maps.fold_darkness(section, fold[:2] + 30 * normal) < 1e-9
    dark, light = [], []
    for name, at in truth.tiles.items():
        if at.section == section:
            grid = np.stack(np.mgrid[: at.shape_px[0], : at.shape_px[1]], axis=-1) + np.array(at.true_px)
            depth = truth.maps.fold_darkness(section, grid)
            pixels = tile(acquired, name)
            dark.append(pixels[depth > 0.9])
            light.append(pixels[depth < 0.01])
    assert np.concatenate(dark).mean() < np.concatenate(light).mean() - 30


def test_imaged_points(truth):
    middle = np.array([[p, 90.0, 120.0] for p in range(14)])
    assert truth.imaged(middle).tolist() == [p != 9 for p in range(14)]
    assert not truth.imaged([[0, 0, 0], [0, 199, 215], [99, 100, 108]]).any()
    assert truth.imaged([[0, 100, 108]], margin_px=5).all()
    assert not truth.imaged([[0, 100, 108]], margin_px=150).any()
    lower_left = truth.section_to_tissue(FIRST + 2, [truth.acquisition["window_px"][0] - 30, 30])
    assert not truth.imaged([[2, *lower_left]])[0]
    assert truth.imaged([[1, *lower_left]])[0]


def test_same_configuration_same_bytes(tissue, acquire_config, acquired, tmp_path):
    acquire(
        tissue.image,
        acquire_config,
        tmp_path,
        voxel_nm=SMALL.voxel_nm,
        labels=tissue.labels,
        cleft=tissue.cleft,
        synapses=tissue.synapses,
    )
    one, two = (
        {str(p.relative_to(f)): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in (acquired, tmp_path)
    )
    # An npz holds a fixed date; HDF5 holds none. So all files are equal, not only the tiles.
    assert list(one) == list(two)
    assert [name for name in one if one[name] != two[name]] == []


def test_unknown_names_and_second_runs_are_refused(truth, tissue, acquired, tmp_path):
    with pytest.raises(QueryError, match=r"did you mean 's0005_r0_c0\.png'"):
        truth.tile_to_tissue("s0005_r0_c0.pgn", [0, 0])
    with pytest.raises(QueryError, match="no section 99"):
        truth.section_to_tissue(99, [0, 0])
    with pytest.raises(QueryError, match="no volume 'label'"):
        truth.volume("label")
    with pytest.raises(SourceError, match=r"tiles\.csv is missing"):
        Truth.load(tmp_path)
    with pytest.raises(ConfigError, match="never replaced"):
        acquire(tissue.image, AcquireConfig(), acquired, voxel_nm=(30, 8, 8))
    with pytest.raises(ConfigError, match="sections are 0 to 13"):
        acquire(tissue.image, AcquireConfig(artefacts=Artefacts(blank_section=14)), tmp_path, voxel_nm=(30, 8, 8))
    far = Artefacts(missing_tiles=(TileName(section=0, row=2, col=0),))
    with pytest.raises(ConfigError, match="2 rows"):
        acquire(tissue.image, AcquireConfig(artefacts=far), tmp_path, voxel_nm=(30, 8, 8))
    with pytest.raises(ConfigError, match="larger volume"):
        acquire(tissue.image, AcquireConfig(shift_px=60), tmp_path, voxel_nm=(30, 8, 8))
    assert not (tmp_path / "raw").exists()


def test_simulate_writes_everything(tmp_path):
    config = SimulateConfig(
        tissue=TissueConfig(seed=1, shape_vx=(3, 140, 140), dust_vx=100, synapses_per_um3=20),
        acquire=AcquireConfig(shift_px=3, warp_px=1, stage_error_px=2),
    )
    done = []
    tissue = simulate(config, tmp_path, progress=lambda k, n: done.append((k, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    truth = Truth.load(tmp_path)
    assert np.array_equal(truth.volume("labels"), tissue.labels)
    assert np.array_equal(truth.volume("cleft"), tissue.cleft)
    assert truth.table("synapses").equals(tissue.synapses)
    assert truth.table("graph").equals(tissue.graph)
    assert json.loads((tmp_path / "truth" / "tissue.json").read_text())["seed"] == 1
    assert truth.voxel_nm == (30, 8, 8)


def test_real_volume_is_imaged_again(shared_data, tmp_path):
    ac3 = shared_data / "ac3"
    config = CropConfig(z=(2, 5), y=(300, 700), x=(400, 820), acquire=AcquireConfig(seed=4))
    reacquire(ac3 / "ac3_z000-039.h5", tmp_path, config, synapses_csv=ac3 / "synapses_z000-039.csv")
    truth = Truth.load(tmp_path)
    image = truth.volume("image")
    assert image.shape == (3, 400, 420)
    name = "s0001_r1_c0.png"
    grid = np.stack(np.mgrid[: truth.tiles[name].shape_px[0], : truth.tiles[name].shape_px[1]], axis=-1)
    y, x = np.rint(truth.tile_to_tissue(name, grid)).astype(int).transpose(2, 0, 1)
    assert np.corrcoef(image[1][y, x].ravel(), tile(tmp_path, name).ravel())[0, 1] > 0.9
    synapses = truth.table("synapses").to_pylist()
    labels = truth.volume("labels")
    for row in synapses:
        z, y, x = int(row["z"]), int(row["y"]), int(row["x"])
        near = labels[z, max(0, y - 30) : y + 30, max(0, x - 30) : x + 30]
        assert row["pre"] in near
        assert row["post"] in near
    with pytest.raises(SourceError, match="axis z"):
        reacquire(ac3 / "ac3_z000-039.h5", tmp_path / "b", CropConfig(z=(30, 41)))
