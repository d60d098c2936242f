"""Metrics against numbers worked out by hand, and against scikit-image where it has the same score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import metrics as skimage_metrics

from connectome_db.kernels.metrics import (
    adapted_rand,
    best_truth,
    f_score,
    match_points,
    overlap,
    variation_of_information,
)


def test_overlap_counts_by_hand():
    truth = np.array([[1, 1, 2], [2, 2, 0]], np.uint64)
    seg = np.array([[7, 7, 7], [9, 9, 9]], np.uint32)
    shared = overlap(seg, truth)
    assert shared.truth.tolist() == [1, 2, 2]
    assert shared.seg.tolist() == [7, 7, 9]
    assert shared.voxels.tolist() == [2, 1, 2]


def test_overlap_keeps_large_ids_exactly():
    big = (1 << 62) + 1
    shared = overlap(np.array([big, big + 1], np.uint64), np.array([big, big + 2], np.uint64))
    assert shared.seg.tolist() == [big, big + 1]
    assert shared.truth.tolist() == [big, big + 2]


def test_overlap_refuses_two_shapes():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        overlap(np.ones(2, np.uint8), np.ones(3, np.uint8))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30))
def test_scores_equal_scikit_image(seed, truths, segments):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, truths, (4, 12, 13)).astype(np.uint32)
    seg = np.where(rng.random(truth.shape) < 0.7, truth // 2, rng.integers(0, segments, truth.shape)).astype(np.uint32)
    truth.flat[0] = 1
    rand = adapted_rand(overlap(seg, truth))
    error, precision, recall = skimage_metrics.adapted_rand_error(truth, seg, ignore_labels=(0,))
    assert rand.error == pytest.approx(error, abs=1e-9)
    # scikit-image 0.26 divides its "precision" by the pairs of the true image, so its two names are exchanged.
    assert (rand.recall, rand.precision) == pytest.approx((precision, recall), abs=1e-9)
    # scikit-image ignores a label in both images; without ignoring, its two entropies are ours.
    merge_first = skimage_metrics.variation_of_information(truth, seg)
    ours = variation_of_information(overlap(seg, truth, ignore_truth=None))
    assert (ours.split, ours.merge) == pytest.approx(tuple(merge_first), abs=1e-9)


def test_direction_of_split_and_merge():
    truth = np.repeat([1, 2], 8)
    split = variation_of_information(overlap(np.repeat([1, 2, 3, 4], 4), truth))
    assert (split.split, split.merge) == pytest.approx((1.0, 0.0))
    merged = variation_of_information(overlap(np.ones(16, int), truth))
    assert (merged.split, merged.merge) == pytest.approx((0.0, 1.0))
    assert adapted_rand(overlap(np.ones(16, int), truth)).recall == 1.0
    assert adapted_rand(overlap(np.ones(16, int), truth)).precision < 0.5


def test_perfect_and_empty():
    labels = np.repeat([3, 5, 9], 4)
    assert adapted_rand(overlap(labels * 10, labels)).error == 0.0
    assert variation_of_information(overlap(labels * 10, labels)).total == 0.0
    assert np.isnan(adapted_rand(overlap(labels, labels * 0)).error)
    assert np.isnan(variation_of_information(overlap(labels, labels * 0)).total)


def test_best_truth_breaks_ties_low():
    seg = np.array([1, 1, 2, 2, 2])
    truth = np.array([8, 4, 6, 6, 9])
    ids, names, share = best_truth(overlap(seg, truth))
    assert ids.tolist() == [1, 2]
    assert names.tolist() == [4, 6]
    assert share.tolist() == [0.5, pytest.approx(2 / 3)]


def test_matching_prefers_more_pairs_to_nearer_ones():
    # Greedy would pair 0 with 0.1 and leave the rest alone.
    predicted = np.array([[0.0], [1.0]])
    truth = np.array([[0.1], [-0.9]])
    match = match_points(predicted, truth, radius=1.0)
    assert match.predicted.tolist() == [0, 1]
    assert match.truth.tolist() == [1, 0]
    assert match.f1 == 1.0


def test_matching_by_hand():
    predicted = np.array([[0.0, 0, 0], [10, 0, 0], [50, 0, 0]])
    truth = np.array([[0.0, 0, 0], [11, 0, 0], [90, 0, 0], [12, 0, 0]])
    match = match_points(predicted, truth, radius=5.0)
    assert list(zip(match.predicted.tolist(), match.truth.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert match.distance.tolist() == [0.0, 1.0]
    assert match.precision == pytest.approx(2 / 3)
    assert match.recall == 0.5
    assert match.f1 == pytest.approx(f_score(2 / 3, 0.5))


def test_matching_nothing():
    none = np.empty((0, 3))
    assert match_points(none, none, 1.0).f1 == 1.0
    assert match_points(np.zeros((2, 3)), none, 1.0).precision == 0.0
    assert match_points(none, np.zeros((2, 3)), 1.0).recall == 0.0
    assert match_points(np.zeros((1, 3)), np.ones((1, 3)) * 9, 1.0).f1 == 0.0
