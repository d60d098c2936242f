"""Local contrast normalisation: a pale corner gets the contrast of the rest; what no tile covers stays 0."""

from __future__ import annotations

import numpy as np

from connectome_db.kernels.local_contrast import MEAN_GREY, SPREAD_GREY, equalise
from connectome_db.phantom.artefacts import StainingGradient, fade, stain_weight


def test_a_faded_corner_gets_the_contrast_of_the_rest():
    rng = np.random.default_rng(3)
    plane = np.clip(128 + 32 * rng.standard_normal((256, 256)), 1, 255).astype(np.float32)
    weight = stain_weight(StainingGradient(strength=0.8, plateau=0.5), plane.shape)
    pale = np.clip(np.rint(fade(plane, weight)), 1, 255).astype(np.uint8)[None]
    done = equalise(pale, 24.0)[0]
    before, after = (a[200:, 200:].std() / a[:56, :56].std() for a in (pale[0].astype(float), done.astype(float)))
    assert before < 0.35
    assert after > 0.7
    assert abs(done.mean() - MEAN_GREY) < 2
    assert abs(done.std() - SPREAD_GREY) < 3


def test_what_no_tile_covers_stays_0_and_does_not_count():
    rng = np.random.default_rng(4)
    plane = rng.integers(90, 160, (1, 96, 96)).astype(np.uint8)
    plane[0, :, :40] = 0
    done = equalise(plane, 12.0)
    assert (done[0, :, :40] == 0).all()
    assert (done[0, :, 40:] > 0).all()
    assert abs(done[0, :, 42:60].mean() - MEAN_GREY) < 6


def test_flat_grey_is_not_blown_up_and_the_input_is_left_alone():
    flat = np.full((1, 64, 64), 120, np.uint8)
    flat[0, 30, 30] = 121
    kept = flat.copy()
    assert np.ptp(equalise(flat, 16.0)) <= 20
    assert (flat == kept).all()
