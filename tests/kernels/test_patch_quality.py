"""Patches of a tile that was blurred, faded, made noisy or streaked in a known way say so, and say nothing else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from connectome_db.kernels.patch_quality import PatchQuality, patch_grid, patch_quality
from connectome_db.phantom.artefacts import fade

SIZE = 256


def tissue(seed: int, size: int = SIZE) -> np.ndarray:
    """Cells with dark membranes some px wide, and a fine texture; float (y, x)."""
    rng = np.random.default_rng(seed)
    broad = ndimage.gaussian_filter(rng.standard_normal((size, size)), 9)
    fine = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1.2)
    wall = np.exp(-((broad / broad.std()) ** 2) / 0.02)
    return (160 - 80 * wall + 8 * fine / fine.std()).astype(np.float32)


def seen(plane: np.ndarray, noise: float = 3.0, seed: int = 7) -> np.ndarray:
    grain = np.random.default_rng(seed).standard_normal(plane.shape) * noise
    return np.clip(np.rint(plane + grain), 0, 255).astype(np.uint8)


def means(found: PatchQuality) -> dict[str, float]:
    return {name: float(np.nanmean(values)) for name, values in found.values.items()}


@pytest.fixture(scope="module")
def usual() -> dict[str, float]:
    return means(patch_quality(seen(tissue(1)), 64))


@pytest.mark.parametrize(("shape", "count"), [((256, 256), 16), ((250, 330), 20), ((40, 40), 1), ((64, 95), 1)])
def test_patches_cover_the_tile_once(shape: tuple[int, int], count: int) -> None:
    grid = patch_grid(shape, 64)
    times = np.zeros(shape, int)
    for y0, x0, y1, x1 in grid.boxes_px().tolist():
        times[y0:y1, x0:x1] += 1
    assert (times == 1).all()
    assert len(grid.boxes_px()) == count
    assert grid.total(times).sum() == times.size


def test_fading_takes_contrast_and_leaves_focus_and_noise(usual: dict[str, float]) -> None:
    plane = tissue(1)
    half = means(patch_quality(seen(fade(plane, np.full(plane.shape, 0.5, np.float32))), 64))
    assert half["raw_membrane_contrast"] / usual["raw_membrane_contrast"] == pytest.approx(0.5, abs=0.04)
    assert half["raw_contrast_to_noise"] / usual["raw_contrast_to_noise"] == pytest.approx(0.5, abs=0.06)
    assert half["raw_sharpness"] == pytest.approx(usual["raw_sharpness"], abs=0.03)
    assert half["raw_noise"] == pytest.approx(usual["raw_noise"], rel=0.1)
    assert half["raw_mean"] == pytest.approx(usual["raw_mean"], rel=0.01)


def test_fading_is_found_where_it_is(usual: dict[str, float]) -> None:
    plane = tissue(1)
    lost = np.zeros(plane.shape, np.float32)
    lost[:128, 128:] = 0.6
    before, after = patch_quality(seen(plane), 64), patch_quality(seen(fade(plane, lost)), 64)
    ratio = (after.values["raw_membrane_contrast"] / before.values["raw_membrane_contrast"]).reshape(4, 4)
    assert (ratio[:2, 2:] < 0.6).all()
    assert (np.abs(ratio[2:] - 1) < 0.1).all()
    assert (np.abs(ratio[:2, 0] - 1) < 0.1).all()


def test_blur_takes_sharpness(usual: dict[str, float]) -> None:
    sharpness = [usual["raw_sharpness"]]
    for sigma in (1.0, 2.0, 3.0):
        blurred = ndimage.gaussian_filter(tissue(1), sigma)
        sharpness.append(means(patch_quality(seen(blurred), 64))["raw_sharpness"])
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[2] < 0.6 * sharpness[0]


@pytest.mark.parametrize("grey", [1.5, 3.0, 6.0, 9.0])
def test_noise_is_told_and_hardly_moves_the_rest(usual: dict[str, float], grey: float) -> None:
    found = means(patch_quality(seen(tissue(1), grey), 64))
    assert found["raw_noise"] == pytest.approx(grey, rel=0.12, abs=0.25)
    assert found["raw_membrane_contrast"] == pytest.approx(usual["raw_membrane_contrast"], rel=0.08)
    assert found["raw_spread"] == pytest.approx(float(np.std(tissue(1))), rel=0.12)
    assert found["raw_sharpness"] == pytest.approx(usual["raw_sharpness"], abs=0.05)


def test_white_noise_has_no_contrast_and_no_focus() -> None:
    found = patch_quality(seen(np.full((SIZE, SIZE), 128.0), 8.0), 64)
    assert np.nanmean(found.values["raw_membrane_contrast"]) < 0.8
    assert np.isnan(found.values["raw_sharpness"]).mean() > 0.8
    assert np.nanmean(found.values["raw_charging"]) < 0.5


def test_an_even_patch_has_no_sharpness_and_no_noise() -> None:
    found = patch_quality(np.full((64, 64), 90, np.uint8), 64)
    assert np.isnan(found.values["raw_sharpness"]).all()
    for name, value in (("raw_mean", 90), ("raw_noise", 0), ("raw_spread", 0), ("raw_saturation", 0)):
        assert found.values[name] == pytest.approx(value, abs=0.3)


def test_streaks_along_rows_are_charging_and_those_along_columns_are_not(usual: dict[str, float]) -> None:
    streak = np.random.default_rng(3).standard_normal((SIZE, 1)) * 5
    rows = means(patch_quality(seen(tissue(1) + streak), 64))["raw_charging"]
    cols = means(patch_quality(seen(tissue(1) + streak.T), 64))["raw_charging"]
    assert 3.5 < rows < 6.0
    assert cols < usual["raw_charging"] + 0.2 < rows / 2


def test_saturation_counts_both_ends() -> None:
    tile = seen(tissue(1))
    tile[10:20, 70:80] = 255
    tile[30:40, 70:75] = 0
    found = patch_quality(tile, 64)
    assert found.values["raw_saturation"].reshape(4, 4)[0, 1] == pytest.approx(150 / 4096)
    assert found.values["raw_saturation"].sum() == pytest.approx(150 / 4096)


def test_a_black_border_is_no_image() -> None:
    tile = seen(tissue(1))
    tile[:, :80] = 0
    found = patch_quality(tile, 64)
    assert found.boxes_px[:, 1].tolist() == [64, 128, 192] * 4
    by_column = {x: found.pixels[found.boxes_px[:, 1] == x] for x in (64, 128)}
    assert (by_column[64] == 64 * (128 - 84)).all()
    assert (by_column[128] == 64 * 64).all()
    assert found.values["raw_mean"][0] == pytest.approx(tile[:64, 84:128].mean())
    assert np.isnan(found.values["raw_sharpness"][found.boxes_px[:, 1] == 64]).all()


def test_a_tile_without_image_has_no_patches() -> None:
    assert len(patch_quality(np.zeros((128, 128), np.uint8), 64).boxes_px) == 0


def test_a_second_run_and_another_memory_order_say_the_same() -> None:
    tile = seen(tissue(2))
    again = patch_quality(np.asfortranarray(tile), 64)
    for name, values in patch_quality(tile, 64).values.items():
        np.testing.assert_array_equal(values, again.values[name])


def test_contrast_is_that_of_a_line_of_known_depth() -> None:
    """A dark Gaussian line of depth d, width s under a blur of s0 has the ridge d s0^2 s / (s^2 + s0^2)^1.5."""
    depth, wide = 60.0, 2.0
    plane = np.full((128, 128), 180.0)
    x = np.arange(128)
    for at in range(8, 128, 16):
        plane -= depth * np.exp(-((x[None, :] - at) ** 2) / (2 * wide**2))
    tile = np.clip(np.rint(plane), 0, 255).astype(np.uint8)
    peak = depth * 4 * wide / (wide**2 + 4) ** 1.5
    got = patch_quality(tile, 64).values["raw_membrane_contrast"]
    assert (got > 0.8 * peak).all()
    assert (got < 1.02 * peak).all()
    assert cv2.getNumThreads() == 1
