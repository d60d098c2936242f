"""What a flood-filling network is shown: shares, strata, examples that are a function of their numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from connectome_db.errors import ConfigError, SourceError
from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.datasets import TrainingVolume, volume_digest
from connectome_db.networks.ffn_sampling import (
    DISTANCES_VX,
    OBJECT,
    OTHER,
    SHARES,
    UNKNOWN,
    Example,
    FFNSamplingConfig,
    Pool,
    object_shares,
    shifts_of,
    strata_of,
)
from connectome_db.networks.ffn_supply import Supply
from tests.networks.ffn_volumes import STILL, tubes

WINDOW, DELTAS = (5, 11, 11), (1, 3, 3)


def cells(seed: int, shape: tuple[int, int, int] = (24, 40, 40), voxel_nm=(10.0, 10.0, 10.0)) -> TrainingVolume:
    """Objects of many sizes: the nearest of some points, those near two of them background."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (25, 3)) ** 2 * shape
    far = np.sort(np.linalg.norm(np.indices(shape).reshape(3, -1).T[:, None] - points[None], axis=-1), axis=1)
    near = np.linalg.norm(np.indices(shape).reshape(3, -1).T[:, None] - points[None], axis=-1).argmin(axis=1)
    labels = np.where(far[:, 1] - far[:, 0] < 1, 0, near * 7 + 3).reshape(shape).astype(np.uint64)
    image = np.where(labels == 0, 60, 100 + labels % 100).astype(np.uint8)
    return TrainingVolume(f"cells {seed}", image, labels, voxel_nm, volume_digest(image, labels))


def pool(volume: TrainingVolume, **more) -> Pool:
    config = FFNSamplingConfig(**({"min_object_vx": 20, "augment": STILL} | more))
    return Pool([volume], config, WINDOW, DELTAS)


def centre(example: Example) -> tuple[int, ...]:
    return tuple(n // 2 for n in example.truth.shape)


def test_shares_are_counted_in_the_window_around_each_voxel() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (7, 9, 8)).astype(np.int32)
    window = (3, 5, 7)
    found = object_shares(labels, window)
    padded = np.pad(labels, [(n // 2, n // 2) for n in window], constant_values=-1)
    for place in np.ndindex(labels.shape):
        around = padded[tuple(slice(p, p + n) for p, n in zip(place, window, strict=True))]
        wanted = (around == labels[place]).mean() if labels[place] else 0
        assert found[place] == pytest.approx(wanted, abs=1e-6)


def test_strata_are_bins_of_the_share_and_classes_of_the_distance() -> None:
    labels = np.ones((3, 21, 21), np.int32)
    labels[:, :, :2] = 2
    strata = strata_of(labels, (3, 5, 7), (40.0, 10.0, 10.0))
    classes = len(DISTANCES_VX) + 1
    row = strata[1, 10]
    assert (row[:2] // classes == np.digitize(2 / 7, SHARES)).all()
    assert row[2] // classes == np.digitize(4 / 7, SHARES)
    assert row[10] // classes == len(SHARES)
    distance = np.maximum(np.arange(21) - 2, 0)  # to the first voxel of the object, which is its border
    assert (row[3:] % classes == np.digitize(distance[3:], DISTANCES_VX)).all()


def test_shifts_are_all_combinations_of_steps() -> None:
    assert shifts_of((2, 3, 3)).shape == (27, 3)
    flat = shifts_of((0, 3, 4))
    assert flat[0].tolist() == [0, 0, 0]
    assert {tuple(s) for s in flat.tolist()} == {(0, y, x) for y in (-3, 0, 3) for x in (-4, 0, 4)}


def test_examples_are_around_voxels_of_objects_in_all_bins_alike() -> None:
    some = pool(cells(1))
    examples = [some.example(3, 0, 0, n) for n in range(400)]
    assert all(e.truth[centre(e)] == OBJECT for e in examples)
    assert len(some.bins) >= 6
    # Without parts that do not count, the share of the window that is the object is what was drawn.
    simple = pool(cells(1), connected=False)
    whole = [simple.example(3, 0, 0, n) for n in range(400)]
    found = np.digitize([(e.truth == OBJECT).mean() for e in whole], SHARES)
    counts = np.bincount(found, minlength=len(SHARES) + 1)
    assert np.flatnonzero(counts).tolist() == some.bins
    assert counts[some.bins].min() > 400 / len(some.bins) / 2
    assert counts[some.bins].max() < 400 / len(some.bins) * 2


def test_voxels_near_and_far_from_the_border_are_shown_alike() -> None:
    some = pool(tubes(1, (10, 60, 60), width=20))
    near = 0
    for n in range(300):
        truth = some.example(0, 0, 0, n).truth
        distance = ndimage.distance_transform_edt(truth[2] == OBJECT)
        near += distance[5, 5] <= 1.5
    assert 300 / (len(DISTANCES_VX) + 1) * 0.5 < near < 300 * 0.5


def test_an_example_is_a_function_of_its_four_numbers() -> None:
    some = pool(cells(1), augment=AugmentConfig(isotropic=True))
    one, same = some.example(1, 2, 3, 4), some.example(1, 2, 3, 4)
    for other in (
        some.example(0, 2, 3, 4),
        some.example(1, 0, 3, 4),
        some.example(1, 2, 0, 4),
        some.example(1, 2, 3, 0),
    ):
        assert not np.array_equal(one.image, other.image)
    for name in ("image", "truth", "order"):
        assert np.array_equal(getattr(one, name), getattr(same, name))


def test_the_truth_follows_the_image_through_turns_and_shifts() -> None:
    moved = STILL.model_copy(update={"isotropic": True, "shift_px": 2, "shift_share": 1.0})
    some = pool(cells(2), augment=moved, connected=False)
    for n in range(60):
        example = some.example(0, 0, 0, n)
        assert example.image.shape == WINDOW
        own = example.image[centre(example)]
        assert (example.image[example.truth == OBJECT] == own).all()
        assert (example.image[example.truth == OTHER] != own).all()


def test_each_shift_has_its_turn_and_no_shift_is_first() -> None:
    orders = [pool(cells(1)).example(0, 0, 0, n).order for n in range(2)]
    assert all(order[0] == 0 and sorted(order.tolist()) == list(range(27)) for order in orders)
    assert (orders[0] != orders[1]).any()


def test_a_part_that_is_not_connected_within_the_window_does_not_count() -> None:
    """A wall through a tube, at places a hole in it: behind the wall the object goes on, without a way to it."""
    volume = tubes(1, (12, 40, 40), width=40)
    labels = np.ones_like(volume.labels)
    labels[:, :, 20] = 0
    volume = replace(volume, labels=labels)
    seen = {flag: set() for flag in (True, False)}
    for flag, values in seen.items():
        some = pool(volume, connected=flag)
        for n in range(40):
            values |= set(np.unique(some.example(0, 0, 0, n).truth).tolist())
    assert seen == {True: {OTHER, OBJECT, UNKNOWN}, False: {OTHER, OBJECT}}


def test_what_is_not_valid_does_not_count_and_is_no_start() -> None:
    volume = cells(3)
    valid = np.ones(volume.image.shape, bool)
    valid[:, :, :20] = False
    some = pool(replace(volume, valid=valid), connected=False)
    unknown = [float((some.example(0, 0, 0, n).truth == UNKNOWN).mean()) for n in range(60)]
    assert 0 < max(unknown) < 0.6
    assert min(unknown) == 0


def test_small_objects_are_no_start() -> None:
    volume = cells(4)
    ids, counts = np.unique(volume.labels[volume.labels > 0], return_counts=True)
    limit = int(np.median(counts))
    some = pool(volume, min_object_vx=limit)
    large = set((100 + ids[counts >= limit] % 100).tolist())
    assert {int(e.image[centre(e)]) for e in (some.example(0, 0, 0, n) for n in range(100))} <= large


def test_volumes_that_give_no_example_are_refused() -> None:
    with pytest.raises(SourceError, match=r"cells 1: wanted at least \(5, 11, 11\) voxels .* got \(4, 40, 40\)"):
        pool(cells(1, (4, 40, 40)))
    with pytest.raises(SourceError, match=r"wanted at least \(11, 11, 11\)"):
        pool(cells(1, (10, 40, 40)), augment=AugmentConfig(isotropic=True))
    with pytest.raises(SourceError, match="objects of at least 1000000 voxels"):
        pool(cells(1), min_object_vx=1000000)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_supply_gives_each_row_its_own_examples(processes: int) -> None:
    """Rows 2 and 3 of a batch, as the second of two ranks has them; rounds begin anew, also one out of turn."""
    some = pool(cells(1))
    with Supply(some, 9, [2, 3], processes) as supply:
        for turn in (0, 1, 5):
            supply.begin(turn)
            for row, number in ((0, 0), (1, 0), (1, 1), (0, 1), (1, 2)):
                wanted = some.example(9, turn, row + 2, number)
                assert np.array_equal(supply.take(row).image, wanted.image)


def test_a_supply_needs_a_number_of_processes() -> None:
    with pytest.raises(ConfigError, match="from 0 on, got -1"):
        Supply(pool(cells(1)), 0, [0], -1)
