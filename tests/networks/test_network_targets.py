import numpy as np
import pytest

from connectome_db.errors import ConfigError
from connectome_db.kernels.affinity import affinity_targets, channel_names, thicken_boundaries
from connectome_db.kernels.cleft import SynapsePoints, cleft_targets, known_negatives, synapse_masks
from connectome_db.kernels.normalise import apply_gain_offset, normalise_section, normalise_stack, section_gain_offset


def test_affinity_is_sameness_of_nonzero_labels() -> None:
    labels = np.array([[[1, 1, 0], [2, 1, 0]], [[1, 2, 0], [2, 2, 2]]], np.uint32)
    target, valid = affinity_targets(labels, ((1, 0, 0), (0, 1, 0), (0, 0, 2)))
    for k, offset in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 2))):
        for index in np.ndindex(labels.shape):
            other = tuple(i - o for i, o in zip(index, offset, strict=True))
            inside = min(other) >= 0
            assert valid[(k, *index)] == inside
            assert target[(k, *index)] == (inside and labels[index] == labels[other] != 0)


def test_offset_longer_than_the_block_is_never_valid() -> None:
    target, valid = affinity_targets(np.ones((2, 4, 4), np.uint8), ((3, 0, 0),))
    assert not target.any()
    assert not valid.any()


def test_channel_names() -> None:
    assert channel_names(((1, 0, 0), (0, 9, 0))) == ("aff_z1", "aff_y9")
    with pytest.raises(ConfigError, match="one positive step"):
        channel_names(((1, 1, 0),))


def test_thickened_boundary_is_two_wide() -> None:
    labels = np.ones((1, 4, 8), np.uint16)
    labels[..., 4:] = 2
    assert (thicken_boundaries(labels)[0] == [[1, 1, 1, 0, 0, 2, 2, 2]] * 4).all()


def _two_cells() -> tuple[np.ndarray, SynapsePoints]:
    labels = np.zeros((6, 40, 40), np.uint32)
    labels[:, :, :18] = 5
    labels[:, :, 21:] = 9
    one = SynapsePoints(np.array([[3, 20, 19]]), np.array([9], np.uint64), np.array([5], np.uint64), np.array([60.0]))
    return labels, one


def test_cleft_lies_between_the_partners_and_sides_tell_polarity() -> None:
    labels, synapses = _two_cells()
    cleft, pre, post = cleft_targets(labels, synapses, (30.0, 8.0, 8.0))
    assert cleft[3, 20, 19]
    z, y, x = np.nonzero(cleft)
    assert ((30 * (z - 3)) ** 2 + (8 * (y - 20)) ** 2 + (8 * (x - 19)) ** 2 <= 60**2).all()
    assert x.min() >= 16
    assert x.max() <= 22
    assert set(np.unique(labels[pre])) == {9}
    assert set(np.unique(labels[post])) == {5}


def test_partners_that_do_not_touch_give_no_cleft() -> None:
    labels, synapses = _two_cells()
    labels[:, :, 18:35] = 3
    assert synapse_masks(labels, synapses, (30.0, 8.0, 8.0)) == [None]


def test_painted_clefts_are_taken_as_they_are() -> None:
    labels, synapses = _two_cells()
    clefts = np.zeros(labels.shape, np.uint32)
    clefts[2:4, 10:14, 18:21] = 1
    cleft, pre, _ = cleft_targets(labels, synapses, (30.0, 8.0, 8.0), clefts)
    assert np.array_equal(cleft, clefts == 1)
    assert pre.any()
    assert set(np.unique(labels[pre])) == {9}


def test_unlisted_membrane_weighs_least() -> None:
    labels = np.zeros((3, 120, 120), np.uint32)
    labels[:, :, :60] = 5
    labels[:, :, 61:] = 9
    at = SynapsePoints(np.array([[1, 10, 60]]), np.array([9], np.uint64), np.array([5], np.uint64), np.array([60.0]))
    weight = known_negatives(labels, at, (30.0, 8.0, 8.0), near_nm=100.0, interior_nm=90.0)
    assert weight[1, 10, 60] == 1.0
    assert weight[1, 110, 60] == np.float32(0.05)
    assert weight[1, 110, 20] == np.float32(0.3)


def test_normalised_section_has_the_wanted_mean_and_spread() -> None:
    image = np.random.default_rng(0).normal(180, 9, (200, 200)).clip(0, 255).astype(np.uint8)
    image[:4] = 0  # dirt beyond the 1% tail would count; this is 2%
    image[:2] = 255
    gain, offset = section_gain_offset(image)
    core = apply_gain_offset(image, gain, offset)[4:].astype(float)
    assert abs(core.mean() - 128) < 8
    assert 20 < core.std() < 45


def test_brightness_swings_vanish() -> None:
    rng = np.random.default_rng(1)
    section = rng.integers(60, 120, (64, 64)).astype(np.uint8)
    stack = np.stack([section, section + 40, (section * 1.5).astype(np.uint8)])
    out = normalise_stack(stack).astype(int)
    assert np.abs(out[0] - out[1]).max() == 0
    assert np.abs(out[0] - out[2]).max() <= 2


def test_invalid_voxels_do_not_count_and_flat_sections_stay() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(80, 160, (40, 40)).astype(np.uint8)
    valid = np.ones(image.shape, np.bool_)
    valid[:10] = False
    changed = image.copy()
    changed[:10] = 255
    assert np.array_equal(normalise_section(image, valid), normalise_section(changed, valid))
    assert section_gain_offset(np.full((5, 5), 77, np.uint8)) == (1.0, 0.0)
    assert section_gain_offset(image, np.zeros(image.shape, np.bool_)) == (1.0, 0.0)
