"""The splits that the bundled models were trained on, and volumes grown for training."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from connectome_db.errors import SourceError
from connectome_db.kernels.cleft import cleft_targets, synapse_masks
from connectome_db.networks.datasets import load_ac3, load_fib25
from connectome_db.networks.registry import BUNDLED, read_card
from connectome_db.phantom.training import phantom_split

DATA = Path(os.environ.get("CONNECTOME_SHARED", Path(__file__).parents[3] / "shared")) / "data"


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "ac3").is_dir(), reason=f"no AC3 data in {DATA}")
def test_ac3_split_has_disjoint_sections_and_synapses_between_their_partners() -> None:
    split = load_ac3(DATA / "ac3")
    (train,), (test,) = split.train, split.test
    assert train.image.shape == (28, 1024, 1024)
    assert test.image.shape == (12, 1024, 1024)
    assert train.synapses is not None
    assert test.synapses is not None
    assert len(train.synapses.pre) + len(test.synapses.pre) == 45
    masks = synapse_masks(test.labels, test.synapses, test.voxel_nm)
    assert all(mask is not None and mask.masks.any(axis=(1, 2, 3)).all() for mask in masks)
    means = test.image.mean(axis=(1, 2))
    assert means.max() - means.min() < 6


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "fib25").is_dir(), reason=f"no FIB-25 data in {DATA}")
def test_fib25_split_is_the_one_on_the_card() -> None:
    split = load_fib25(DATA / "fib25")
    assert split.train[0].image.shape == (100, 250, 250)
    assert split.test[0].image.shape == (40, 250, 250)
    if (BUNDLED / "fib25-affinity").is_dir():
        card = read_card(BUNDLED / "fib25-affinity")
        assert [d["sha256"] for d in card["training_data"]] == [split.train[0].digest]


def test_a_file_without_the_wanted_datasets_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "ts2_z000-139.h5", "w") as handle:
        handle["raw"] = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(SourceError, match="missing gt"):
        load_fib25(tmp_path)


def test_phantom_volumes_are_seeded_and_know_their_clefts() -> None:
    split = phantom_split((301,), (302,), (12, 160, 160))
    again = phantom_split((301,), (302,), (12, 160, 160))
    assert [v.digest for v in (*split.train, *split.test)] == [v.digest for v in (*again.train, *again.test)]
    plain, acquired = split.test
    assert plain.digest != acquired.digest
    assert np.array_equal(plain.labels, acquired.labels)
    volume = split.train[0]
    assert volume.synapses is not None
    assert volume.clefts is not None
    masks = cleft_targets(volume.labels, volume.synapses, volume.voxel_nm, volume.clefts)
    assert np.array_equal(masks[0], volume.clefts > 0)
    assert masks[0].any()
    found = [m for m in synapse_masks(volume.labels, volume.synapses, volume.voxel_nm, volume.clefts) if m is not None]
    both = sum(bool(m.masks[1].any() and m.masks[2].any()) for m in found)
    assert both >= 0.8 * len(found)
