"""mask: synthetic resin, folds, cracks and blank sections are found; healthy texture is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from connectome_db.geometry import Box
from connectome_db.kernels.tissue_mask import (
    BLANK,
    CRACK,
    FOLD,
    LOW_SIGNAL,
    OUTSIDE,
    RESIN,
    TISSUE,
    MaskRules,
    classify_plane,
)
from connectome_db.spec import Extent
from connectome_db.stages import mask
from tests.stages.helpers import Inputs, Stored, run_in_memory

SIZE = 384


def tissue(seed: int = 0) -> np.ndarray:
    """Cells with dark walls, mean 128, spread 32."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 7)
    grey = -np.exp(-((noise / noise.std()) ** 2) / 0.02) + 0.15 * rng.standard_normal((SIZE, SIZE))
    return (128 + 32 * (grey - grey.mean()) / grey.std()).clip(1)


def classes(plane: np.ndarray) -> np.ndarray:
    image = np.clip(np.rint(plane), 0, 255).astype(np.uint8)[None]
    box = Box((0, 0, 0), (1, SIZE, SIZE))
    inputs = Inputs()
    extent = Extent(np.zeros(1, np.uint64), np.asarray([box.flat()], np.int64))
    inputs.outputs["render.image"] = Stored(extent, volume=image, bounds=box)
    out = run_in_memory(mask.STAGE, inputs)
    areas = out["mask_area"].table.to_pandas().groupby("mask_class").voxels.sum()
    found = out["mask"].volume[0]
    assert areas.to_dict() == {c: int((found == c).sum()) for c in range(7)}
    return found


def test_healthy_tissue_is_left_alone() -> None:
    assert (classes(tissue()) == TISSUE).all()


def test_outside_is_where_no_tile_is() -> None:
    plane = tissue().clip(1)
    plane[:, :100] = 0
    found = classes(plane)
    assert (found[:, :100] == OUTSIDE).all()
    assert (found[:, 100:] == TISSUE).mean() > 0.99


@pytest.mark.parametrize(("grey", "wanted"), [(190.0, RESIN), (90.0, LOW_SIGNAL)])
def test_a_large_flat_area(grey: float, wanted: int) -> None:
    plane = tissue()
    rng = np.random.default_rng(1)
    plane[:, 180:] = grey + 3 * rng.standard_normal((SIZE, SIZE - 180))
    found = classes(plane)
    assert (found[:, 260:] == wanted).mean() > 0.95
    assert (found[:, :120] == TISSUE).mean() > 0.99


def test_a_section_of_nothing_but_amplified_noise_is_blank() -> None:
    rng = np.random.default_rng(2)
    assert (classes(128 + 32 * rng.standard_normal((SIZE, SIZE))) == BLANK).mean() > 0.99


@pytest.mark.parametrize(("grey", "width", "wanted"), [(20.0, 20, FOLD), (245.0, 12, CRACK)])
def test_a_long_band(grey: float, width: int, wanted: int) -> None:
    plane = tissue()
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    across = (x - 190) * np.cos(0.4) + (y - 190) * np.sin(0.4)
    band = np.abs(across) < width / 2
    plane[band] = grey
    found = classes(plane)
    assert (found[band] == wanted).mean() > 0.8
    assert (found[np.abs(across) > width / 2 + 6] == TISSUE).mean() > 0.99


def test_a_dark_round_body_is_no_fold() -> None:
    plane = tissue()
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    plane[np.hypot(y - 190, x - 190) < 25] = 30
    assert (classes(plane) == FOLD).sum() == 0


def test_a_sheath_around_an_axon_is_no_fold() -> None:
    rules = MaskRules(**mask.MaskParams().model_dump(exclude={"block_vx", "halo_px"}))
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    ring = np.abs(np.hypot((y - 190) / 1.8, x - 190) - 55) < 7
    dark = ring & (x > 215)  # one side of the sheath is as dark as a fold, as in AC3
    sheath, arc = tissue(), tissue()
    sheath[ring], sheath[dark], arc[dark] = 55.0, 20.0, 20.0
    assert (classify_plane(sheath.astype(np.uint8), rules) == FOLD).sum() == 0
    assert (classify_plane(arc.astype(np.uint8), rules) == FOLD).sum() > 1000  # it is the ring that decides
