"""Two bodies filled once more from each side, by networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.errors import StageError
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.kernels.resegment import Refilling, Resegmentation, resegment
from tests.kernels.flood_reference import Bright

SHAPE = (21, 21, 41)
MOST = 0.75
"""Share of a rod that is filled at least: windows move by three voxels, and leave some of the ends and edges."""
OPTIONS = FloodOptions(min_segment_vx=1, disco_seed_threshold=-1)


def tube(low: int, high: int) -> np.ndarray:
    """A rod along x, 9 voxels thick, from `low` to `high`."""
    mask = np.zeros(SHAPE, np.bool_)
    mask[6:15, 6:15, low:high] = True
    return mask


def judged(image: np.ndarray, a: np.ndarray, b: np.ndarray, **more) -> Resegmentation:
    free = more.pop("free", np.ones(SHAPE, np.bool_))
    return resegment(image, free, a, b, Refilling(Bright(), OPTIONS, more.pop("voxel_nm", (1.0, 1.0, 1.0)), **more))


def bright(*masks: np.ndarray) -> np.ndarray:
    return np.where(np.logical_or.reduce(masks), 200, 40).astype(np.uint8)


def test_a_neurite_that_was_cut_is_filled_from_either_side() -> None:
    a, b = tube(2, 20), tube(20, 39)
    done = judged(bright(a, b), a, b)
    for side in (done.a, done.b):
        assert min(side.own, side.other) > MOST
        assert side.moves > 3
    assert done.iou > MOST
    assert a[done.a.seed]
    assert b[done.b.seed]


def test_a_membrane_stops_it() -> None:
    a, b = tube(2, 20), tube(20, 39)
    wall = np.s_[:, :, 19:21]
    image = bright(a, b)
    image[wall] = 40
    done = judged(image, a, b)
    assert min(done.a.own, done.b.own) > MOST
    assert (done.a.other, done.b.other, done.iou) == (0, 0, 0)


def test_a_way_through_a_third_body_does_not_count() -> None:
    a, third, b = tube(2, 17), tube(17, 24), tube(24, 39)
    open_way = judged(bright(a, third, b), a, b)
    assert min(open_way.a.other, open_way.b.other) > MOST
    shut = judged(bright(a, third, b), a, b, free=~third)
    assert min(shut.a.own, shut.b.own) > MOST
    assert (shut.a.other, shut.b.other, shut.iou) == (0, 0, 0)


def test_another_seed_is_tried_when_the_first_finds_little() -> None:
    a, b = tube(2, 20), tube(20, 39)
    image = bright(a, b)
    # A dark ball around the deepest voxel of a: nothing comes of it there.
    first = judged(image, a, b).a.seed
    ball = tuple(slice(n - 1, n + 2) for n in first)
    image[ball] = 40
    once = judged(image, a, b, tries=1)
    assert (once.a.seed, once.a.moves) == (first, 1)
    assert once.a.own < 0.01
    twice = judged(image, a, b, tries=2)
    assert twice.a.own > MOST
    assert twice.a.moves > 3
    assert twice.a.seed != first
    assert any(abs(n - m) > 4 for n, m in zip(twice.a.seed, first, strict=True))
    assert twice.b == once.b
    patient = judged(image, a, b, tries=2, enough=0.0)
    assert patient.a == once.a


def test_the_seed_is_deepest_in_nanometres() -> None:
    """Flat voxels: what is deep in voxels across sections is shallow in nm."""
    a = np.zeros(SHAPE, np.bool_)
    a[4:17, 8:13, 5:12] = True  # 13 sections of 5 x 7
    a[9:12, 5:16, 14:26] = True  # 3 sections of 11 x 12
    a[9:12, 8:13, 11:15] = True
    b = tube(30, 39)
    cubes, slabs = (judged(bright(a, b), a, b, voxel_nm=nm).a.seed for nm in ((1.0, 1.0, 1.0), (10.0, 1.0, 1.0)))
    assert cubes[2] < 13
    assert slabs[2] > 13


def test_a_body_in_which_no_window_fits_is_not_filled() -> None:
    a, b = tube(0, 3), tube(3, 39)
    done = judged(bright(a, b), a, b)
    assert (done.a.seed, done.a.moves, done.a.own, done.a.other) == (None, 0, 0.0, 0.0)
    assert done.b.own > MOST
    assert done.iou == 0.0


def test_masks_of_another_shape_are_refused() -> None:
    a, b = tube(2, 20), tube(20, 39)
    with pytest.raises(StageError, match=r"masks: wanted bool\(21, 21, 41\) like the image, got bool\(20, 21, 41\)"):
        judged(bright(a, b), a, b[1:])
