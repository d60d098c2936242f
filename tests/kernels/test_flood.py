"""The engine against the plain loop, over batches; phantoms with a known answer; what it refuses."""

from __future__ import annotations

from dataclasses import astuple
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from connectome_db.errors import StageError
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_distance, boundary_peaks
from connectome_db.kernels.flood_types import FloodOptions
from tests.kernels.flood_reference import Bright, Moody, one_after_the_other

SMALL = FloodOptions(min_segment_vx=20)


def tubes(shape=(24, 40, 44), axis: int = 2):
    """Bright tubes along one axis, 5 voxels wide: a window of 9 sees across from anywhere in one. Image, truth."""
    truth = np.zeros(shape, np.uint32)
    n = 0
    for a in range(4, shape[0] - 10, 10):
        for b in range(4, shape[1] - 10, 11):
            n += 1
            truth[a : a + 5, b : b + 5, 3:-3] = n
    image = np.where(truth > 0, 200, 20).astype(np.uint8)
    return (image, truth) if axis == 2 else (np.moveaxis(image, 2, axis).copy(), np.moveaxis(truth, 2, axis).copy())


def noise(seed: int, shape=(14, 16, 18)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.3)
    return np.clip(128 + smooth / smooth.std() * 60, 0, 255).astype(np.uint8)


def partition(labels) -> np.ndarray:
    """Labels renumbered by first voxel, so that two labellings of one partition are equal."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(np.where(np.unique(labels) == 0, -1, first)))
    return rank[inverse].reshape(labels.shape)


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("axis", [0, 2])
def test_tubes_come_out_as_they_are(batch: int, axis: int) -> None:
    image, truth = tubes(axis=axis)
    found = flood(image, Bright(batch), boundary_peaks(image), SMALL)
    assert (partition(found.labels) == partition(truth)).all()
    kept = [o for o in found.objects if o.label]
    assert [o.label for o in kept] == list(range(1, truth.max() + 1))
    assert [o.voxels for o in kept] == [int((found.labels == o.label).sum()) for o in kept]
    assert all(o.reason == "complete" and o.overlaps == () for o in kept)


@pytest.mark.parametrize("batch", [4, 16])
def test_objects_ahead_of_their_turn_cost_little_in_separate_tubes(batch: int) -> None:
    image, _ = tubes((44, 48, 60))  # twelve
    network = Bright(batch)
    found = flood(image, network, boundary_peaks(image), SMALL)
    alone = sum(o.moves for o in found.objects)
    assert found.work.moves == alone + found.work.redone
    assert network.rows == found.work.calls * batch
    assert found.work.calls < alone / (2 if batch == 4 else 4)


problem = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "fov": st.sampled_from([(5, 5, 5), (3, 7, 7), (7, 5, 3)]),
        "deltas": st.sampled_from([(1, 2, 1), (2, 2, 2), (1, 1, 1), (0, 2, 1)]),
        "backward": st.booleans(),
        "masked": st.booleans(),
        "options": st.builds(
            FloodOptions,
            move_threshold=st.sampled_from([0.6, 0.9]),
            segment_threshold=st.sampled_from([0.3, 0.6, 0.95]),
            disco_seed_threshold=st.sampled_from([-1.0, 0.0, 0.05]),
            min_boundary_dist_vx=st.sampled_from([(0, 0, 0), (1, 1, 1), (0, 2, 1)]),
            min_segment_vx=st.sampled_from([0, 10, 60]),
            probe_moves=st.sampled_from([0, 2]),
            probe_voxels=st.just(90),
            max_moves=st.sampled_from([0, 12]),
        ),
    }
)


@settings(max_examples=30, deadline=None)
@given(problem)
def test_every_batch_gives_what_one_object_after_the_other_gives(case) -> None:
    image = noise(case["seed"])
    deltas = tuple(min(d, f // 2) for d, f in zip(case["deltas"], case["fov"], strict=True))
    tissue = noise(case["seed"] + 1) > 70 if case["masked"] else None
    rng = np.random.default_rng(case["seed"])
    seeds = boundary_peaks(image, tissue, "backward" if case["backward"] else "forward")
    seeds = np.concatenate([seeds, rng.integers(0, image.shape, (12, 3))])  # anywhere, also where none should be
    wanted = one_after_the_other(image, Moody(1, case["fov"], deltas), seeds, case["options"], tissue)
    for batch in (1, 2, 4, 16):
        found = flood(image, Moody(batch, case["fov"], deltas), seeds, case["options"], tissue)
        assert (found.labels == wanted["labels"]).all(), batch
        assert [astuple(o) for o in found.objects] == wanted["objects"], batch
        assert found.skipped == wanted["skipped"], batch
        assert found.work.moves == sum(o.moves for o in found.objects) + found.work.redone


@pytest.mark.parametrize("start", range(24, 36))
def test_a_later_object_about_to_move_where_an_earlier_one_settles_is_filled_anew(start: int) -> None:
    """The later one runs towards the earlier and is, for some starts, one move away when the earlier is settled."""

    class Downhill(Bright):
        """The object is what is at least as bright as the middle: the later one would run over the earlier."""

        def one(self, image, mask):
            centre = tuple(n // 2 for n in image.shape)
            flooded = ndimage.binary_propagation(mask > 0, mask=image >= image[centre])
            return np.where(flooded, 4, -4).astype(np.float32)

    image = np.full((9, 9, 40), 20, np.uint8)
    image[2:7, 2:7, 5:21] = 200
    image[2:7, 2:7, 21:37] = 150
    seeds = np.array([[4, 4, 12], [4, 4, start]])
    fov, deltas = (9, 9, 9), (0, 0, 3)
    wanted = one_after_the_other(image, Downhill(1, fov, deltas), seeds, SMALL)
    for batch in (1, 2, 4):
        found = flood(image, Downhill(batch, fov, deltas), seeds, SMALL)
        assert (found.labels == wanted["labels"]).all()
        assert [astuple(o) for o in found.objects] == wanted["objects"]


def test_the_cases_meet_every_rule() -> None:
    """Or the equality above would say little."""
    reasons, skips, refused, overlaps, redone = set(), set(), np.zeros(4, int), 0, 0
    for seed in range(12):
        image, tissue = noise(seed), noise(seed + 1) > 70
        seeds = np.concatenate(
            [boundary_peaks(image, tissue), np.random.default_rng(seed).integers(0, image.shape, (12, 3))]
        )
        for options in (FloodOptions(min_segment_vx=60, segment_threshold=0.3), FloodOptions(
            min_segment_vx=10, probe_moves=2, probe_voxels=90, max_moves=12, move_threshold=0.6
        )):  # fmt: skip
            found = flood(image, Moody(4, (5, 5, 5), (2, 2, 2)), seeds, options, tissue)
            reasons |= {o.reason for o in found.objects}
            skips |= {name for name, n in found.skipped.items() if n}
            refused += np.sum([[o.low, o.border, o.no_tissue, o.taken] for o in found.objects], axis=0, dtype=int)
            overlaps += sum(n for o in found.objects for _, n in o.overlaps)
            redone += found.work.redone
    assert reasons == {"complete", "limit", "weak", "hopeless", "small"}
    assert skips == {"border", "no_tissue", "taken", "close"}
    assert (refused > 0).all()
    assert overlaps > 0
    assert redone > 0


@pytest.mark.parametrize("batch", [1, 4])
def test_the_earlier_object_keeps_what_both_claim(batch: int) -> None:
    class Generous(Bright):
        """Claims two voxels more on each side."""

        def one(self, image, mask):
            inside = super().one(image, np.where(image > 128, mask, -1)) > 0
            return np.where(ndimage.binary_dilation(inside, iterations=2), 4, -4).astype(np.float32)

    image = np.full((15, 15, 40), 20, np.uint8)
    image[5:10, 5:10, 5:18] = image[5:10, 5:10, 21:34] = 200  # a wall of three voxels: both claim its middle
    seeds = np.array([[7, 7, 26], [7, 7, 10]])
    found = flood(image, Generous(batch, deltas_vx=(0, 0, 3)), seeds, SMALL)
    first, second = found.objects
    wall = 5 * 5
    assert (first.label, first.overlaps) == (1, ())
    assert (second.label, second.overlaps) == (2, ((1, wall),))
    assert (found.labels[5:10, 5:10, 19] == 1).all()
    assert (found.labels[5:10, 5:10, 18] == 2).all()


def test_a_logit_of_zero_is_an_answer_and_not_a_voxel_never_seen() -> None:
    class Undecided(Bright):
        """Zero everywhere but on the line along x; keeps what it was shown."""

        shown: ClassVar[list[np.ndarray]] = []

        def one(self, image, mask):
            self.shown.append(mask.copy())
            out = np.zeros(image.shape, np.float32)
            out[4, 4, :] = 4
            return out

    flood(np.full((9, 9, 15), 100, np.uint8), Undecided(deltas_vx=(0, 0, 3)), np.array([[4, 4, 4]]), SMALL)
    first, second = Undecided.shown[:2]
    assert (second[:, :, :6] == np.where(np.arange(81).reshape(9, 9, 1) == 40, 4, 0)).all()
    assert (second[:, :, 6:] == first[0, 0, 0]).all()
    assert first[0, 0, 0] < -2


def test_given_seeds_are_taken_in_their_order() -> None:
    image, truth = tubes()
    seeds = np.array([[7, 18, 20], [7, 7, 20]])
    found = flood(image, Bright(4), seeds, SMALL)
    assert [o.seed for o in found.objects] == [(7, 18, 20), (7, 7, 20)]
    for k, seed in enumerate(seeds):
        assert ((found.labels == k + 1) == (truth == truth[tuple(seed)])).all()


def test_an_image_smaller_than_the_window_has_no_objects() -> None:
    found = flood(np.full((4, 40, 40), 200, np.uint8), Bright(), np.array([[2, 20, 20]]), SMALL)
    assert not found.labels.any()
    assert found.objects == ()
    assert found.skipped["border"] == 1


def test_no_seeds_no_objects() -> None:
    found = flood(noise(0), Bright(4), np.empty((0, 3), np.int64), SMALL)
    assert found.objects == ()
    assert found.work.calls == 0


def test_labels_stay_inside_tissue() -> None:
    image, truth = tubes()
    tissue = np.ones(image.shape, bool)
    tissue[:, :, 30:] = False
    found = flood(image, Bright(4), boundary_peaks(image, tissue), SMALL, tissue)
    assert (partition(found.labels) == partition(np.where(tissue, truth, 0))).all()


def test_inputs_are_left_alone() -> None:
    image, seeds = noise(3), boundary_peaks(noise(3))
    image.setflags(write=False)
    seeds.setflags(write=False)
    kept = seeds.copy()
    flood(image, Moody(4, (5, 5, 5), (2, 2, 2)), seeds, SMALL)
    assert (seeds == kept).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((9, 9, 9), np.float32)}, r"image: wanted .* got float32\(9, 9, 9\)"),
        ({"seeds": np.array([[1, 2]])}, r"seeds: wanted integers \(n, 3\)"),
        ({"seeds": np.array([[1, 2, 99]])}, r"seeds: wanted voxels .* got \(1, 2, 99\)"),
        ({"tissue": np.ones((3, 3, 3), bool)}, r"tissue: wanted bool\(14, 16, 18\)"),
        ({"network": Bright(1, (8, 9, 9))}, "odd window"),
        ({"network": Bright(1, (5, 5, 5), (3, 1, 1))}, "steps within half its window"),
    ],
)
def test_bad_input_is_refused(change, message: str) -> None:
    given_ = {"image": noise(0), "network": Bright(), "seeds": np.array([[7, 8, 9]]), "options": SMALL, **change}
    with pytest.raises(StageError, match=message):
        flood(**given_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pad_value": 0.0}, "pad_value: wanted a probability"),
        ({"init_activation": 0.8}, "at least move_threshold 0.9"),
        ({"min_boundary_dist_vx": (1, -1, 1)}, "min_boundary_dist_vx"),
        ({"max_moves": -1}, "max_moves"),
    ],
)
def test_bad_options_are_refused(change, message: str) -> None:
    with pytest.raises(StageError, match=message):
        FloodOptions(**change)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_number_is_named(value: float) -> None:
    class Broken(Bright):
        def one(self, image, mask):
            out = super().one(image, mask)
            out[0, 0, 1] = value
            return out

    with pytest.raises(StageError, match=r"finite logits, got others at \(7, 8, 9\)"):
        flood(noise(0), Broken(2), np.array([[7, 8, 9]]), SMALL)


def test_a_network_of_another_shape_is_named() -> None:
    class Short(Bright):
        def predict(self, images, masks):
            return super().predict(images, masks)[:, 1:]

    with pytest.raises(StageError, match=r"wanted logits float32\(1, 9, 9, 9\), got float32\(1, 8, 9, 9\)"):
        flood(noise(0), Short(), np.array([[7, 8, 9]]), SMALL)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_peaks_are_those_of_scikit_image(seed: int) -> None:
    """The published code calls `peak_local_max` on the same heights."""
    feature = pytest.importorskip("skimage.feature")
    image = noise(seed, (20, 24, 28))
    height = boundary_distance(image, None) + np.random.RandomState(42).random_sample(image.shape) * 1e-4
    wanted = feature.peak_local_max(height, min_distance=3, threshold_abs=0, threshold_rel=0)
    assert boundary_peaks(image).tolist() == sorted(wanted.tolist())
    assert boundary_peaks(image, order="backward").tolist() == sorted(wanted.tolist(), reverse=True)


def test_peaks_lie_in_the_middle_of_tubes() -> None:
    image, truth = tubes()
    peaks = boundary_peaks(image)
    inside = peaks[truth[tuple(peaks.T)] > 0]
    assert set(truth[tuple(inside.T)].tolist()) == set(range(1, truth.max() + 1))
    assert (boundary_distance(image, None)[tuple(inside.T)] >= 2).mean() > 0.9


def test_an_image_without_edges_is_seeded_in_its_middle() -> None:
    peaks = boundary_peaks(np.full((15, 15, 15), 100, np.uint8))
    assert [7, 7, 7] in peaks.tolist()


def test_no_seed_outside_tissue() -> None:
    image = noise(5)
    tissue = np.zeros(image.shape, bool)
    tissue[:, :, :11] = True
    peaks = boundary_peaks(image, tissue)
    assert len(peaks)
    assert (peaks[:, 2] < 11).all()
