"""Small kernels on labels: runs, overlaps, union-find, clefts, partners, duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.kernels.cleft_components import cleft_components
from connectome_db.kernels.duplicates import duplicates
from connectome_db.kernels.overlaps import overlaps
from connectome_db.kernels.partners import partners
from connectome_db.kernels.runs import decode, encode
from connectome_db.kernels.union_find import locate, lowest_names

NM = (30.0, 8.0, 8.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_runs_give_the_labels_back_at_any_depth(axis: int) -> None:
    rng = np.random.default_rng(axis)
    slab = rng.integers(0, 3, (3, 4, 5)).astype(np.uint64)
    start, length, label = encode(slab, axis)
    shuffled = rng.permutation(len(start))
    assert (decode(start[shuffled], length[shuffled], label[shuffled], slab.shape, axis) == slab).all()
    thin = list(slab.shape)
    thin[axis] = 2
    cut = np.take(slab, range(2), axis)
    assert (decode(start, length, label, (thin[0], thin[1], thin[2]), axis) == cut).all()


def test_runs_that_do_not_cover_the_slab_are_refused() -> None:
    start, length, label = encode(np.ones((2, 3, 3), np.uint64), 0)
    with pytest.raises(ValueError, match="cover 27 voxels"):
        decode(start, length, label, (3, 3, 3), 0)
    with pytest.raises(ValueError, match="without gaps, got 27"):
        decode(np.asarray([0, 10]), np.asarray([9, 18]), np.ones(2, np.uint64), (3, 3, 3), 0)


def test_overlaps_count_shared_voxels() -> None:
    big = np.uint64(1 << 60)
    a = np.asarray([[[big, big, big, 0, 2, 2]]], np.uint64)
    b = np.asarray([[[7, 7, 0, 7, 9, 7]]], np.uint64)
    found = overlaps(a, b)
    assert list(zip(found.a.tolist(), found.b.tolist(), found.shared_vx.tolist(), strict=True)) == [
        (2, 7, 1),
        (2, 9, 1),
        (int(big), 7, 2),
    ]
    assert found.a_vx.tolist() == [2, 2, 3]
    assert found.b_vx.tolist() == [4, 1, 4]
    assert found.of_smaller.tolist() == [0.5, 1.0, 2 / 3]
    assert found.iou.tolist() == [1 / 5, 1 / 2, 2 / 5]
    assert len(overlaps(np.zeros((2, 2, 2), np.uint64), np.ones((2, 2, 2), np.uint64)).a) == 0


def test_groups_are_named_by_their_lowest_member() -> None:
    ids = np.asarray([3, 5, 8, 1 << 62, (1 << 62) + 1], np.uint64)
    a, b = np.asarray([8, 1 << 62], np.uint64), np.asarray([5, 3], np.uint64)
    assert lowest_names(ids, a, b, "id").tolist() == [3, 5, 5, 3, (1 << 62) + 1]
    assert lowest_names(ids, a[:0], b[:0], "id").tolist() == ids.tolist()
    with pytest.raises(KeyError, match="id 4 is not among the 5 known"):
        locate(ids, np.asarray([3, 4], np.uint64), "id")
    with pytest.raises(KeyError):
        lowest_names(ids[:0], a, b, "id")


def test_cleft_components_need_a_strong_voxel_and_size() -> None:
    cleft = np.zeros((4, 20, 20), np.uint8)
    cleft[1, 2:6, 2:6] = 120
    cleft[1, 3, 3] = 250
    cleft[1, 12:16, 2:6] = 120  # never strong
    cleft[2, 18, 18] = 255  # too small
    tissue = np.ones(cleft.shape, np.bool_)
    found = cleft_components(cleft, tissue, low=0.4, high=0.7, min_vx=4)
    assert found.size_vx.tolist() == [16]
    assert found.labels.max() == 1
    np.testing.assert_allclose(found.confidence, (15 * 120 + 250) / 16 / 255)
    np.testing.assert_allclose(found.centre_vx[0, 0], 1.0)
    assert 3.4 < found.centre_vx[0, 1] < 3.5  # pulled towards the strong voxel
    tissue[1, 3, 3] = False
    assert len(cleft_components(cleft, tissue, low=0.4, high=0.7, min_vx=4).size_vx) == 0


def test_partners_are_the_two_sides_even_when_cut_into_pieces() -> None:
    labels = np.zeros((3, 20, 30), np.uint64)
    labels[:, :, :10] = 5
    labels[:, 10:, :10] = 6  # the same neurite, cut
    labels[:, :, 12:] = 9
    cleft = np.zeros(labels.shape, np.bool_)
    cleft[1, 4:14, 10:12] = True
    pre = np.where(labels == 9, 200, 20).astype(np.uint8)
    post = np.where((labels == 5) | (labels == 6), 200, 20).astype(np.uint8)
    found = partners(cleft, labels, pre, post, NM, reach_nm=50, facing_nm=24)
    assert found is not None
    assert (found.pre, found.post) == (9, 5)
    assert found.polarity == pytest.approx(180 / 220)
    assert labels[found.pre_vx] == 9
    assert labels[found.post_vx] == 5
    swapped = partners(cleft, labels, post, pre, NM, reach_nm=50, facing_nm=24)
    assert swapped is not None
    assert (swapped.pre, swapped.post) == (5, 9)
    assert partners(cleft, np.where(labels == 9, labels, 0), pre, post, NM, reach_nm=50, facing_nm=24) is None


def test_a_neighbour_at_the_rim_is_no_partner() -> None:
    labels = np.zeros((3, 30, 30), np.uint64)
    labels[:, :, :14], labels[:, :, 16:] = 4, 8
    labels[:, 20:, 16:] = 7  # beside the end of the cleft, with more evidence than the true partner
    cleft = np.zeros(labels.shape, np.bool_)
    cleft[:, 2:19, 14:16] = True
    pre = np.where(labels == 4, 200, 0).astype(np.uint8)
    post = np.where(labels == 8, 20, np.where(labels == 7, 255, 0)).astype(np.uint8)
    found = partners(cleft, labels, pre, post, NM, reach_nm=80, facing_nm=16)
    assert found is not None
    assert (found.pre, found.post) == (4, 8)


def test_partners_across_sections() -> None:
    labels = np.full((3, 12, 12), 5, np.uint64)
    labels[0], labels[1] = 2, 0
    cleft = np.zeros(labels.shape, np.bool_)
    cleft[1, 3:9, 3:9] = True
    pre, post = (np.where(labels == n, 200, 0).astype(np.uint8) for n in (5, 2))
    found = partners(cleft, labels, pre, post, NM, reach_nm=60, facing_nm=16)
    assert found is not None
    assert (found.pre, found.post) == (5, 2)


def test_duplicates_keep_the_largest_of_the_same_partners() -> None:
    ids = np.asarray([1, 2, 3, 4], np.uint64)
    place = np.asarray([[0, 0, 0], [0, 0, 50], [0, 0, 60], [0, 0, 500]], np.float64)
    size = np.asarray([10, 30, 20, 40])
    a, b = np.asarray([7, 8, 7, 7], np.uint64), np.asarray([8, 7, 9, 8], np.uint64)
    assert duplicates(ids, place, size, a, b, 100).tolist() == [1, -1, -1, -1]
    assert duplicates(ids, place, size, a, b, 600).tolist() == [3, 3, -1, -1]
    # A chain: the middle repeats the largest, so the far one stands for itself.
    chain = np.asarray([[0, 0, 0], [0, 0, 80], [0, 0, 160]], np.float64)
    same = np.full(3, 7, np.uint64)
    assert duplicates(ids[:3], chain, np.asarray([3, 2, 1]), same, same, 100).tolist() == [-1, 0, -1]
