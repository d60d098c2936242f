"""Local shape descriptors as a second task of affinity networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectome_db.errors import ConfigError
from connectome_db.geometry import Box
from connectome_db.kernels.affinity import channel_names
from connectome_db.kernels.shape_descriptors import DESCRIPTORS, shape_descriptors, stored_descriptors
from connectome_db.networks.architecture import UNetConfig, flops_per_voxel
from connectome_db.networks.augment import AugmentConfig, oriented, oriented_descriptors
from connectome_db.networks.backend import PREDICTION_THREADS, keras_module, use_threads
from connectome_db.networks.command import score
from connectome_db.networks.inference import load_network
from connectome_db.networks.presets import default_training
from connectome_db.networks.registry import model_digest, read_card
from connectome_db.networks.sampling import SamplingConfig, batch_at, prepare
from connectome_db.networks.training import TrainConfig, loss_of, train
from connectome_db.stages.segment import affinities
from tests.networks.test_network_training import cells

QUIET = AugmentConfig(contrast=0, brightness=0, gamma=0, noise=0, blur_share=0, defocus_share=0, missing_share=0)
SIGMA_NM = 40.0


def with_descriptors(network: UNetConfig, **more: Any) -> TrainConfig:
    channels = (*channel_names(((1, 0, 0), (0, 1, 0), (0, 0, 1))), *DESCRIPTORS)
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 32, 32), descriptor_sigma_nm=SIGMA_NM)
    chosen = network.model_copy(update={"channels": channels})
    return TrainConfig(network=chosen, sampling=sampling, **{"steps": 4, "seed": 4, **more})


@pytest.mark.parametrize("isotropic", [False, True])
def test_descriptors_turn_with_their_labels(isotropic: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (3, 3, 3)), np.ones((3, 4, 5), np.int64))
    voxel_nm = (10.0, 10.0, 10.0)
    before = stored_descriptors(labels, voxel_nm, 25.0)
    for code in range(48 if isotropic else 16):
        turned = np.ascontiguousarray(oriented(labels, code, isotropic))
        after = stored_descriptors(turned, voxel_nm, 25.0)
        inside = turned != 0
        off = np.abs(oriented_descriptors(before, code, isotropic).astype(int) - after)[:, inside]
        assert off.max() <= 1, code


def test_a_batch_holds_the_descriptors_of_its_place() -> None:
    volume = cells(1)
    still = QUIET.model_copy(update={"shift_px": 0})
    sampling = SamplingConfig(
        task="affinity", patch_vx=(4, 32, 32), descriptor_sigma_nm=SIGMA_NM, augment=still, balance=0
    )
    truth = batch_at([prepare(volume, sampling)], sampling, 3, 5)[1][0]
    assert truth.shape == (4, 32, 32, 26)
    shape, weight = truth[..., 3:13], truth[..., 16:]
    labelled = weight.all(-1)
    assert set(np.unique(weight)) == {0, 1}
    assert (shape[~labelled] == 0).all()
    assert 0.5 < labelled.mean() < 0.9
    plain = sampling.model_copy(update={"descriptor_sigma_nm": None})
    alone = batch_at([prepare(volume, plain)], plain, 3, 5)[1][0]
    assert np.array_equal(alone, truth[..., [0, 1, 2, 13, 14, 15]])
    # Of a column that the patch holds whole, the window sees the same from inside the patch, but for its sections.
    size = shape_descriptors(volume.labels, volume.voxel_nm, SIGMA_NM)[-1]
    assert abs(np.median(shape[..., 9][labelled]) - np.median(size[volume.labels != 0])) < 0.1


def test_the_loss_is_cross_entropy_and_squared_error() -> None:
    use_threads(PREDICTION_THREADS)  # before anything else starts TensorFlow
    keras = keras_module()
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 4, 4), descriptor_sigma_nm=50.0, descriptor_weight=3.0)
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 3, 4, 5, 13)).astype(np.float32)
    target = rng.random(logits.shape).astype(np.float32)
    target[..., :3] = target[..., :3] > 0.5
    weight = rng.random(logits.shape).astype(np.float32)
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    crossed = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))[..., :3]
    squared = ((probability - target) ** 2)[..., 3:]
    wanted = (crossed * weight[..., :3]).sum() / weight[..., :3].sum()
    wanted += 3 * (squared * weight[..., 3:]).sum() / weight[..., 3:].sum()
    got = float(loss_of(keras, sampling)(np.concatenate([target, weight], -1), logits))
    assert got == pytest.approx(wanted, rel=1e-4)


def test_training_learns_both_tasks_and_affinities_are_picked_by_name(small_config: UNetConfig, tmp_path: Path) -> None:
    losses: list[float] = []
    levels = tuple(level.model_copy(update={"features": 12}) for level in small_config.levels)
    wider = small_config.model_copy(update={"levels": levels})
    chosen = with_descriptors(wider, steps=150, learning_rate=1e-2, average=0.9)
    sampling = chosen.sampling.model_copy(update={"descriptor_weight": 20.0, "augment": QUIET})
    chosen = chosen.model_copy(update={"sampling": sampling})
    train(chosen, [cells(1), cells(2)], tmp_path / "m", lambda _, loss: losses.append(loss))
    assert np.median(losses[-10:]) < 0.5 * np.median(losses[:5])
    card = score(tmp_path / "m", [cells(3)])
    assert card["scores_on_held_out_data"][0]["boundary_aff_y1"]["auc"] > 0.9
    assert list(read_card(tmp_path / "m")["channels"])[3:] == list(DESCRIPTORS)
    network, volume = load_network(tmp_path / "m"), cells(3)
    predicted = network.predict(volume.image)
    assert predicted.shape == (13, *volume.image.shape)
    true = shape_descriptors(volume.labels, volume.voxel_nm, SIGMA_NM)
    inside = volume.labels != 0
    for channel, name in ((1, "mean_y"), (2, "mean_x"), (9, "size")):
        assert np.corrcoef(predicted[3 + channel][inside], true[channel][inside])[0, 1] > 0.35, name
    picked = affinities(network, volume.image, Box((0, 0, 0), volume.image.shape))
    assert np.array_equal(picked, np.floor(predicted[:3] * 255 + 0.5))


def test_more_helpers_change_nothing(small_config: UNetConfig, tmp_path: Path) -> None:
    chosen = with_descriptors(small_config)
    for helpers in (1, 3):
        train(chosen, [cells(1)], tmp_path / str(helpers), helpers=helpers)
    assert model_digest(tmp_path / "1") == model_digest(tmp_path / "3")


def test_presets_with_descriptors() -> None:
    chosen = default_training("affinity", (30.0, 6.0, 6.0), lsd=True, width=2, batch=3)
    assert chosen.network.channels[-10:] == DESCRIPTORS
    assert chosen.sampling.batch == 3
    plain = default_training("affinity", (30.0, 6.0, 6.0))
    assert 3.5 < flops_per_voxel(chosen.network) / flops_per_voxel(plain.network) < 4.1
    with pytest.raises(ConfigError, match="wanted the task affinity, got cleft"):
        default_training("cleft", (30.0, 6.0, 6.0), lsd=True)
