"""Kernels of montage and alignment against known shifts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from connectome_db.kernels import features
from connectome_db.kernels.border import valid_box, valid_mask
from connectome_db.kernels.correlate import bandpass, masked_ncc, phase_correlation, refine_shift, translate
from connectome_db.kernels.features import coarse_map
from connectome_db.kernels.illumination import Samples, Twins, illumination_grid
from connectome_db.kernels.mesh import backward, lattice_over
from connectome_db.kernels.montage_solve import TileLinks, place_tiles
from connectome_db.kernels.tile_quality import noise_std, sharpness, tile_quality


def scene(seed: int = 0, size: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2.0)
    return 128 + 30 * values / values.std()


def cut(image: np.ndarray, y: float, x: float, size: int, noise: float, seed: int) -> np.ndarray:
    rows, cols = np.mgrid[0:size, 0:size].astype(float)
    seen = ndimage.map_coordinates(image, [rows + y, cols + x], order=3)
    return (seen + noise * np.random.default_rng(seed).standard_normal(seen.shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [2.0, 12.0])
def test_subpixel_shift(noise: float) -> None:
    image, errors = scene(), []
    valid = np.ones((128, 128), bool)
    for n in range(8):
        dy, dx = np.random.default_rng(n).uniform(-5, 5, 2)
        a = bandpass(cut(image, 100, 100, 128, noise, 2 * n), valid, 1.0, 8.0)
        b = bandpass(cut(image, 100 + dy, 100 + dx, 128, noise, 2 * n + 1), valid, 1.0, 8.0)
        peak = phase_correlation(a, b, 12)
        shift, correlation = refine_shift(a, b, valid, valid, peak.shift_px)
        errors.append(np.hypot(shift[0] - dy, shift[1] - dx))
        assert peak.ratio > 2
        assert correlation > 0.8
    assert np.median(errors) < 0.05


def test_masked_ncc_ignores_a_black_border() -> None:
    a, b = scene(1)[100:200, 100:220].astype(np.float32), scene(1)[110:210, 93:213].astype(np.float32)
    seen = np.ones(a.shape, bool)
    a[:, :30], seen[:, :30] = 0, False
    surface, overlap, origin = masked_ncc(a, b, seen, np.ones(b.shape, bool), 2000)
    y, x = np.unravel_index(surface.argmax(), surface.shape)
    assert (y + origin[0], x + origin[1]) == (10, -7)
    assert surface.max() > 0.999
    assert overlap.max() == seen.sum()


def test_translate_is_exact_for_whole_pixels() -> None:
    image = scene(2, 64).astype(np.float32)
    np.testing.assert_allclose(translate(image, (3.0, -2.0))[5:50, 5:50], image[8:53, 3:48], rtol=1e-6)


def test_valid_mask_takes_borders_and_leaves_dark_tissue() -> None:
    tile = scene(3, 200).clip(1, 255).astype(np.uint8)
    tile[:, :20] = 0
    tile[80:120, 80:120] = 0
    valid = valid_mask(tile)
    assert valid_box(valid) == (0, 24, 200, 200)
    assert valid[100, 100]


def test_tile_quality_orders_tiles() -> None:
    clear = scene(4)
    blurred = ndimage.gaussian_filter(clear, 3)
    noise = 6 * np.random.default_rng(5).standard_normal(clear.shape)
    a, b = (np.clip(v + noise, 0, 255).astype(np.uint8) for v in (clear, blurred))
    valid = np.ones(a.shape, bool)
    assert sharpness(a, valid) > 1.5 * sharpness(b, valid)
    assert noise_std(b, valid) == pytest.approx(6, rel=0.1)
    assert tile_quality(np.zeros((64, 64), np.uint8)).valid_fraction == 0


def test_a_dark_speck_at_the_rim_does_not_take_a_small_tiles_sharpness() -> None:
    tile = np.clip(scene(4, 251), 5, 255).astype(np.uint8)
    whole = tile_quality(tile).sharpness
    tile[:16, 100:116] = 0
    spotted = tile_quality(tile)
    assert spotted.valid_fraction < 1
    assert spotted.sharpness == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_place_tiles_survives_outliers(model: str) -> None:
    rng = np.random.default_rng(6)
    nominal = np.asarray([(0, 0), (0, 900), (900, 0), (900, 900)], float)
    true = nominal + rng.uniform(-20, 20, nominal.shape)
    rows = []
    for i, j in ((0, 1), (0, 2), (1, 3), (2, 3)):
        along = 0 if j - i == 1 else 1
        for k in range(12):
            point = np.asarray([950.0, 950.0])
            point[along] = 50 + 80 * k
            rows.append((i, j, *point, *(point + true[i] - true[j] + 0.05 * rng.standard_normal(2))))
    t = np.asarray(rows)
    t[::9, 4:6] += 12.0
    links = TileLinks(t[:, 0].astype(int), t[:, 1].astype(int), t[:, 2:4], t[:, 4:6], np.ones(len(t)))
    solved = place_tiles(nominal, np.full((4, 2), 1000.0), links, model=model, shape_prior=0.2)
    centre = solved.apply(np.arange(4), np.full((4, 2), 499.5)) - 499.5
    miss = centre - true
    assert np.hypot(*(miss - miss.mean(axis=0)).T).max() < 0.15
    assert (solved.weight[::9] == 0).all()
    assert np.abs((centre - nominal).mean(axis=0)).max() < 0.02


def test_coarse_map_finds_a_turn() -> None:
    image = (scene(7) + 2 * ndimage.gaussian_filter(scene(8) - 128, 5)).clip(1, 255)
    turn = cv2.getRotationMatrix2D((200, 200), 3.0, 1.0)
    turn[:, 2] += (14, -9)
    other = cv2.warpAffine(image.astype(np.uint8), turn, (400, 400))
    a, b = image.astype(np.uint8), other
    found = coarse_map(a, b, a > 0, b > 0, tolerance_px=3, min_inliers=12, max_strain=0.1, smooth_px=1.0)
    assert found.method == "features"
    points = np.asarray([(50.0, 60.0), (300.0, 200.0)])
    wanted = (turn[:, :2] @ points[:, ::-1].T).T + turn[:, 2]
    np.testing.assert_allclose(points @ found.linear.T + found.shift_px, wanted[:, ::-1], atol=0.5)


def test_features_of_a_section_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in several pairs; another mask or smoothing is another question."""
    asked = []
    detect = features._detect
    monkeypatch.setattr(features, "_detect", lambda *of: asked.append(of) or detect(*of))
    features._features_of.cache_clear()
    a, b, c = (np.random.default_rng(n).integers(0, 255, (120, 130), dtype=np.uint8) for n in range(3))
    how = {"tolerance_px": 3.0, "min_inliers": 12, "max_strain": 0.1, "smooth_px": 1.0}
    first = coarse_map(a, b, a >= 0, b >= 0, **how)
    coarse_map(a, c, a >= 0, c >= 0, **how)
    assert len(asked) == 3
    assert repr(coarse_map(a, b, a >= 0, b >= 0, **how)) == repr(first)
    assert len(asked) == 3
    coarse_map(a, b, a > 99, b >= 0, **how)
    coarse_map(a, b, a >= 0, b >= 0, **(how | {"smooth_px": 1.5}))
    assert len(asked) == 6


def test_coarse_map_says_when_it_found_nothing() -> None:
    a, b = (np.random.default_rng(s).integers(1, 255, (200, 200)).astype(np.uint8) for s in (1, 2))
    seen = np.ones(a.shape, bool)
    found = coarse_map(a, b, seen, seen, tolerance_px=3, min_inliers=12, max_strain=0.1, smooth_px=1.0)
    assert not found.trusted


def test_illumination_is_found_and_tissue_is_not_removed() -> None:
    rng = np.random.default_rng(9)
    axis = np.linspace(-0.9, 0.9, 8)
    place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    for strength in (0.0, 0.2):
        samples = Samples(
            np.repeat(np.arange(4), 64),
            np.tile(place, (4, 1)),
            5 - strength * (np.tile(place, (4, 1)) ** 2).sum(axis=1) / 2 + 0.05 * rng.standard_normal(256),
        )
        none = np.zeros(0)
        twins = Twins(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)), np.zeros((0, 2)), none, none, none, none)
        grid = illumination_grid(samples, twins, 4, order=4, nodes=9)
        wanted = np.exp(-strength * (np.linspace(-1, 1, 9)[:, None] ** 2 + np.linspace(-1, 1, 9)[None] ** 2) / 2)
        assert np.abs(grid - wanted / wanted.mean()).max() < 0.06
        assert grid.mean() == pytest.approx(1)


def test_backward_inverts_a_mesh() -> None:
    grid = lattice_over(np.asarray([(0.0, 0.0), (300.0, 300.0)]), 32, pad=1)
    moves = 3 * np.sin(grid.nodes_px().reshape(-1, 2) / 40.0)
    points = np.random.default_rng(10).uniform(10, 290, (50, 2))
    before = backward(grid, moves, points)
    np.testing.assert_allclose(before + grid.sample(moves, before), points, atol=1e-3)


def test_slant_is_taken_out_as_far_as_the_stage_speaks_against_it() -> None:
    from connectome_db.kernels.slant import without_slant

    rng = np.random.default_rng(4)
    stage = rng.normal(0, 5, (60, 2))
    lean = np.arange(60)[:, None] * np.array([0.4, -0.3])
    straight = without_slant(stage + lean, 0.5)
    trend = np.polyfit(np.arange(60), straight - stage, 1)[0] * 59
    assert np.abs(trend).max() < 0.4 * np.abs(lean[-1]).max()
    assert (without_slant(stage + lean, 0.0) == stage + lean).all()
    # sections that the stage put anywhere: their positions say nothing, so nothing is taken out
    far = stage * 100 + lean
    assert np.abs(np.diff(without_slant(far, 0.5) - far, axis=0)).max() < 0.3


def test_a_change_in_one_section_leaves_those_far_below_as_they_were() -> None:
    """The solve is global, but anchored; robust scales go in steps: rows rounded to 1/16 px stay equal."""
    from connectome_db.kernels.pose import PointMatches, solve_poses

    rng = np.random.default_rng(3)
    sections, n = 40, 60
    stage = rng.normal(0, 5, (sections, 2))
    places = rng.uniform(0, 400, (n, 2))
    pairs = [(z, z + d) for d in (1, 2) for z in range(sections - d)]
    a, b = (np.repeat(np.asarray(s), n) for s in zip(*pairs, strict=True))
    a_px = np.concatenate([places + stage[i] for i, _ in pairs])
    b_px = np.concatenate([places + stage[j] + rng.normal(0, 0.8, (n, 2)) for _, j in pairs])
    trust = np.where(b - a == 1, 1.0, 0.02)
    centre, reach = np.full((sections, 2), 200.0), np.full(sections, 200.0)

    def rounded(moved: np.ndarray) -> np.ndarray:
        poses = solve_poses(PointMatches(a, b, a_px, moved, trust), centre, reach, 0, rigidity=0.2)
        nodes = np.stack(np.meshgrid(np.arange(0, 400, 20.0), np.arange(0, 400, 20.0)), axis=-1).reshape(-1, 2)
        return np.stack([np.round(poses.apply(np.full(len(nodes), z), nodes) * 16) for z in range(sections)])

    touched = (a == 36) | (b == 36)
    moved = b_px + np.where(touched & (rng.random(len(a)) < 0.1), 0.5, 0.0)[:, None]
    before, after = rounded(b_px), rounded(moved)
    assert (before[:30] == after[:30]).all()
    assert (before != after).any()
