"""The scores: a perfect pipeline scores perfectly, and a known error is found with its size."""

import numpy as np
import pyarrow as pa
import pytest

from connectome_db.errors import QueryError
from connectome_db.phantom.evaluate import (
    alignment_error_px,
    edge_scores,
    edges_of,
    montage_error_px,
    objects_to_truth,
    segmentation_scores,
    synapse_scores,
)
from connectome_db.phantom.frames import (
    Frames,
    connected_truth,
    frames,
    meshes,
    plane_offsets,
    points_to_tissue_nm,
    truth_labels_in_pipeline_frame,
)

CORNER = np.array([20.0, 25.0])
"""Where the aligned volume of the pretended pipeline starts in the tissue."""


def tile_transform(truth, section_shift=None, tile_error=None):
    """What a perfect montage would write, but for a shift per section (no error) and an error per tile."""
    rows = []
    for name, tile in truth.tiles.items():
        shift = np.zeros(2) if section_shift is None else section_shift[tile.section]
        error = np.zeros(2) if tile_error is None else tile_error.get(name, np.zeros(2))
        ty, tx = np.array(tile.true_px) + shift + error
        rows.append(
            {"section": tile.section, "tile": name, "yy": 1.0, "yx": 0.0, "xy": 0.0, "xx": 1.0, "ty": ty, "tx": tx}
        )
    return pa.Table.from_pylist(rows)


def section_transform(truth, section_shift=None, error=lambda _section, _yx: 0.0, step=8):
    """A perfect alignment: aligned (y, x) = tissue - CORNER, as a mesh, plus an error in tissue px."""
    rows = []
    for section in truth.maps.section:
        yx = np.stack(np.meshgrid(np.arange(0, 161, step), np.arange(0, 161, step), indexing="ij"), axis=-1)
        source = truth.tissue_to_section(int(section), yx + CORNER + error(int(section), yx))
        source = source + (np.zeros(2) if section_shift is None else section_shift[int(section)])
        for node, at in zip(yx.reshape(-1, 2), source.reshape(-1, 2), strict=True):
            rows.append((int(section), int(node[0]), int(node[1]), at[0], at[1]))
    names = ("section", "node_y_px", "node_x_px", "source_y_px", "source_x_px")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


@pytest.fixture(scope="module")
def shifts(truth):
    rng = np.random.default_rng(0)
    return {int(s): rng.uniform(-40, 40, 2) for s in truth.maps.section}


@pytest.fixture(scope="module")
def perfect(truth, shifts):
    return frames(tile_transform(truth, shifts), section_transform(truth, shifts), truth)


def test_a_perfect_montage_scores_zero_whatever_its_origin(truth, shifts):
    score = montage_error_px(tile_transform(truth, shifts), truth)
    assert score.max_px < 1e-9
    offsets = plane_offsets(tile_transform(truth, shifts), truth)
    assert all(np.allclose(offsets[s], -shifts[s]) for s in shifts)


def test_one_wrong_tile_is_found(truth):
    name = next(iter(truth.tiles))
    score = montage_error_px(tile_transform(truth, tile_error={name: np.array([4.0, 0.0])}), truth)
    # One of four tiles: the section's mean moves by 1, so it is 3 off and the others 1.
    by = dict(zip(score.tiles, score.error_px, strict=True))
    assert by[name] == pytest.approx(3.0)
    assert score.max_px == pytest.approx(3.0)
    assert score.median_px == pytest.approx(0.0, abs=1e-9)


def test_a_foreign_tile_is_refused(truth):
    table = tile_transform(truth)
    wrong = table.set_column(1, "tile", pa.array(["x.png"] * len(table)))
    with pytest.raises(QueryError, match=r"x\.png"):
        montage_error_px(wrong, truth)


def test_mesh_is_bilinear_and_refuses_holes(truth):
    table = section_transform(truth)
    mesh = next(iter(meshes(table).values()))
    assert np.allclose(mesh([[8, 16]]), mesh.source_px[1, 2])
    assert np.allclose(mesh([[4, 4]]), mesh.source_px[:2, :2].mean(axis=(0, 1)))
    with pytest.raises(QueryError, match="full grid"):
        meshes(table.slice(1))


GRID = np.stack(np.meshgrid(np.arange(20, 120, 10), np.arange(20, 120, 10), indexing="ij"), axis=-1).reshape(-1, 2)
FOLD = 9
"""The section with the fold: its mesh cannot follow the step."""


def test_a_perfect_alignment_scores_near_zero(perfect):
    score = alignment_error_px(perfect, GRID, skip=(FOLD,))
    assert score.median_px < 0.1  # what a mesh of 8 px cannot follow of the warp
    assert score.absolute_median_px < 0.1
    assert score.drift_px < 0.1


def test_turning_the_whole_stack_is_no_error(truth):
    def turned(_, yx):
        return yx @ np.array([[0.0, 0.03], [-0.03, 0.02]]) + 3

    maps = frames(tile_transform(truth), section_transform(truth, error=turned), truth)
    assert alignment_error_px(maps, GRID, skip=(FOLD,)).absolute_median_px < 0.1


def test_drift_and_jitter_are_told_apart(truth):
    drift = frames(tile_transform(truth), section_transform(truth, error=lambda s, _: np.array([0.5 * s, 0])), truth)
    score = alignment_error_px(drift, GRID, skip=(FOLD,))
    assert score.drift_px == pytest.approx(0.5 * 13, abs=0.2)
    assert score.median_px == pytest.approx(0.5, abs=0.1)
    jitter = frames(tile_transform(truth), section_transform(truth, error=lambda s, _: np.array([0, s % 2])), truth)
    score = alignment_error_px(jitter, GRID, skip=(FOLD,))
    assert score.median_px == pytest.approx(1.0, abs=0.1)
    assert score.drift_px < 0.6


def test_labels_come_back_in_the_aligned_frame(perfect, tissue, truth):
    lo, shape = (5, 24, 16), (4, 90, 100)
    found = truth_labels_in_pipeline_frame(perfect, lo, shape)
    y, x = (int(v) for v in CORNER + lo[1:])
    wanted = tissue.labels[:4, y : y + 90, x : x + 100]
    assert (found == wanted).mean() > 0.99
    outside = truth_labels_in_pipeline_frame(perfect, (0, 0, 0), (2, 8, 8))
    assert not outside.any()  # sections 0 and 1 do not exist
    assert segmentation_scores(found, wanted).adapted_rand_error < 0.02


def test_points_go_to_tissue_nm(perfect, truth):
    found = points_to_tissue_nm(perfect, [[5, 40, 50], [6.4, 40, 50]])
    place = CORNER + np.array([40, 50])
    assert np.allclose(found[0], [0, *(place * 8)], atol=2)
    assert np.allclose(found[1], [1.4 * 30, *(place * 8)], atol=2)


def test_connected_truth_splits_what_the_window_cuts():
    labels = np.array([[[7, 0, 7, 7, 3]]], np.uint64)
    assert connected_truth(labels).tolist() == [[[1, 0, 2, 2, 3]]]
    assert connected_truth(labels, dust_vx=2).tolist() == [[[0, 0, 1, 1, 0]]]


def test_segmentation_scores_by_hand():
    truth = np.array([1] * 8 + [2] * 8 + [0] * 4)
    seg = np.array([5] * 16 + [6] * 4)
    score = segmentation_scores(seg, truth)
    # Voxel pairs: 2 * 28 together in truth, 120 in seg: precision 56/120, recall 1.
    assert score.rand_precision == pytest.approx(56 / 120)
    assert score.rand_recall == 1.0
    assert (score.vi_split, score.vi_merge) == pytest.approx((0, 1))
    assert (score.voxels, score.objects_truth, score.objects_seg) == (16, 2, 1)
    assert objects_to_truth(score.shared) == {5: 1}
    assert objects_to_truth(segmentation_scores(np.zeros(20, int), truth).shared) == {}


def test_synapse_scores_by_hand():
    truth_nm = np.array([[0.0, 0, 0], [0, 500, 0], [0, 1000, 0], [0, 2000, 0]])
    truth_pairs = np.array([[1, 2], [1, 3], [4, 2], [4, 3]], np.uint64)
    found_nm = np.array([[0.0, 1010, 0], [0, 30, 0], [0, 480, 0], [0, 5000, 0]])
    found_pairs = np.array([[2, 4], [1, 2], [1, 9], [1, 2]], np.uint64)
    score = synapse_scores(found_nm, found_pairs, truth_nm, truth_pairs, radius_nm=100)
    assert (score.precision, score.recall, score.f1) == (0.75, 0.75, 0.75)
    assert score.median_distance_nm == pytest.approx(20)
    assert score.partners_right == pytest.approx(1 / 3)
    assert score.partners_swapped == pytest.approx(1 / 3)
    nothing = synapse_scores(np.empty((0, 3)), np.empty((0, 2), np.uint64), truth_nm, truth_pairs, 100)
    assert nothing.recall == 0
    assert np.isnan(nothing.partners_right)


def test_edge_scores_by_hand():
    truth = {(1, 2): 3, (1, 3): 2, (4, 2): 1, (4, 3): 2}
    found = edges_of(np.array([[1, 2], [1, 2], [1, 3], [4, 2], [4, 2], [7, 7], [7, 7], [0, 2], [0, 2]], np.uint64))
    assert found == {(1, 2): 2, (1, 3): 1, (4, 2): 2, (7, 7): 2}
    score = edge_scores(found, truth)
    assert (score.true_edges, score.predicted_edges) == (3, 3)
    assert score.recall == pytest.approx(2 / 3)  # (4, 3) is missing
    assert score.precision == pytest.approx(2 / 3)  # (7, 7) is not true
    assert score.recall_strict == pytest.approx(1 / 3)
    assert score.precision_strict == pytest.approx(1 / 3)
    assert edge_scores(truth, truth).f1 == 1.0


def test_frames_refuse_unknown_sections(truth):
    maps = Frames(truth, meshes(section_transform(truth)), {})
    with pytest.raises(QueryError, match="section 5"):
        maps.to_tissue(5, [[0, 0]])
