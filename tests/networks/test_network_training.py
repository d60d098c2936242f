from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from connectome_db.errors import ConfigError, SourceError
from connectome_db.kernels.cleft import SynapsePoints
from connectome_db.networks.architecture import UNetConfig
from connectome_db.networks.augment import AugmentConfig, degrade, oriented
from connectome_db.networks.command import score, train_and_score
from connectome_db.networks.datasets import Split, TrainingVolume, load_split, volume_digest
from connectome_db.networks.evaluate import detection_scores, merged_at, watershed_fragments
from connectome_db.networks.registry import model_digest, model_id, read_card, read_weights
from connectome_db.networks.sampling import SamplingConfig, batch_at, prepare
from connectome_db.networks.training import TrainConfig, train


def cells(seed: int, shape: tuple[int, int, int] = (8, 64, 64)) -> TrainingVolume:
    """Bright columns divided by dark walls."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    y, x = y + rng.integers(16), x + rng.integers(16)
    column = (y // 16) * 8 + x // 16 + 1
    wall = (y % 16 < 2) | (x % 16 < 2)
    labels = np.broadcast_to(np.where(wall, 0, column), shape).astype(np.uint32)
    image = np.clip(np.where(labels == 0, 70, 150) + rng.normal(0, 15, shape), 0, 255).astype(np.uint8)
    at = np.array([[4, 20, 20], [4, 40, 40]])
    synapses = SynapsePoints(at, np.array([1, 2], np.uint64), np.array([2, 1], np.uint64), np.array([50.0, 50.0]))
    clefts = np.zeros(shape, np.uint32)
    clefts[3:6, 18:24, 18:24] = 1
    clefts[3:6, 38:44, 38:44] = 2
    digest = volume_digest(image, labels)
    return TrainingVolume(f"cells {seed}", image, labels, (30.0, 8.0, 8.0), digest, synapses, clefts)


def config(network: UNetConfig, **more: Any) -> TrainConfig:
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 32, 32))
    return TrainConfig(network=network, sampling=sampling, **{"steps": 12, "seed": 4, "checkpoint_every": 5, **more})


class StopHereError(Exception):
    pass


def test_a_resumed_training_ends_with_the_same_weights(small_config: UNetConfig, tmp_path: Path) -> None:
    chosen = config(small_config)
    volumes = [cells(1), cells(2)]
    train(chosen, volumes, tmp_path / "unbroken")

    def stop(done: int, loss: float) -> None:
        if done == 8:
            raise StopHereError

    with pytest.raises(StopHereError):
        train(chosen, volumes, tmp_path / "resumed", stop)
    assert not (tmp_path / "resumed" / "weights.npz").exists()
    seen: list[int] = []
    train(chosen, volumes, tmp_path / "resumed", lambda done, _: seen.append(done))
    assert seen == list(range(6, 13))
    assert model_digest(tmp_path / "resumed") == model_digest(tmp_path / "unbroken")
    for name in ("loss.csv", "card.json"):
        assert (tmp_path / "resumed" / name).read_text() == (tmp_path / "unbroken" / name).read_text()
    assert (tmp_path / "resumed" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "resumed").glob("checkpoint*"))


def test_a_checkpoint_of_other_parameters_is_refused(small_config: UNetConfig, tmp_path: Path) -> None:
    def stop(done: int, loss: float) -> None:
        if done == 6:
            raise StopHereError

    with pytest.raises(StopHereError):
        train(config(small_config), [cells(1)], tmp_path, stop)
    with pytest.raises(ConfigError, match="other parameters or data"):
        train(config(small_config, learning_rate=1e-4), [cells(1)], tmp_path)
    with pytest.raises(ConfigError, match="other parameters or data"):
        train(config(small_config), [cells(2)], tmp_path)


def test_training_learns_and_scores(small_config: UNetConfig, tmp_path: Path) -> None:
    losses: list[float] = []
    chosen = config(small_config, steps=80, learning_rate=5e-3, average=0.9)
    train(chosen, [cells(1), cells(2)], tmp_path / "m", lambda _, loss: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    card = score(tmp_path / "m", [cells(3)])
    result = card["scores_on_held_out_data"][0]
    assert result["boundary_aff_y1"]["auc"] > 0.9
    assert result["adapted_rand_error"] < 0.5
    assert read_card(tmp_path / "m") == card


def test_cleft_training_writes_a_scored_card(small_config: UNetConfig, tmp_path: Path) -> None:
    network = small_config.model_copy(update={"channels": ("cleft", "pre", "post")})
    sampling = SamplingConfig(task="cleft", patch_vx=(4, 32, 32))
    chosen = TrainConfig(network=network, sampling=sampling, steps=3, seed=1)
    split = Split((cells(1),), (cells(3),), "made in this test")
    card = train_and_score(split, tmp_path / "c", task="cleft", config=chosen, show_progress=False)
    assert list(card["channels"]) == ["cleft", "pre", "post"]
    assert card["scores_on_held_out_data"][0]["listed_synapses"] == 2
    assert card["source"] == "made in this test"


def test_batches_are_a_function_of_seed_and_step() -> None:
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 32, 32), batch=2)
    sources = [prepare(cells(1), sampling)]
    image, truth = batch_at(sources, sampling, 7, 3)
    again, same = batch_at(sources, sampling, 7, 3)
    assert np.array_equal(image, again)
    assert np.array_equal(truth, same)
    assert not np.array_equal(image, batch_at(sources, sampling, 7, 4)[0])
    assert image.shape == (2, 4, 32, 32)
    assert truth.shape == (2, 4, 32, 32, 6)


def test_targets_follow_the_image_through_every_orientation() -> None:
    """Walls are dark: where the target says boundary along y, the image must be dark there or one pixel before."""
    quiet = AugmentConfig(contrast=0, brightness=0, gamma=0, noise=0, blur_share=0, defocus_share=0, missing_share=0)
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 32, 32), augment=quiet)
    sources = [prepare(cells(1), sampling)]
    for step in range(20):
        image, truth = batch_at(sources, sampling, 0, step)
        own = (truth[0, ..., 0] == 0) & (truth[0, ..., 3] > 0) & (truth[0, ..., 1] == 0) & (truth[0, ..., 2] == 0)
        inside = (truth[0, ..., 0] == 1) & (truth[0, ..., 1] == 1) & (truth[0, ..., 2] == 1)
        assert image[0][inside].mean() > 135
        assert image[0][own].mean() < 100


def test_orientations_are_distinct_symmetries() -> None:
    cube = np.arange(27).reshape(3, 3, 3)
    assert len({oriented(cube, code, False).tobytes() for code in range(16)}) == 16
    assert len({oriented(cube, code, True).tobytes() for code in range(48)}) == 48
    assert all(sorted(oriented(cube, code, True).ravel()) == list(range(27)) for code in range(48))


def test_missing_sections_and_no_change() -> None:
    image = np.full((6, 16, 16), 90, np.uint8)
    lost = degrade(image, np.random.default_rng(0), AugmentConfig(missing_share=1.0))
    assert set(np.unique(lost)) <= {0, 128}
    still = AugmentConfig(contrast=0, brightness=0, gamma=0, noise=0, blur_share=0, defocus_share=0, missing_share=0)
    assert np.array_equal(degrade(image, np.random.default_rng(0), still), image)


def test_isotropic_patches_of_any_shape() -> None:
    sampling = SamplingConfig(task="affinity", patch_vx=(8, 16, 32), augment=AugmentConfig(isotropic=True, shift_px=0))
    volume = cells(1, (40, 40, 40))
    sources = [prepare(volume, sampling)]
    assert {batch_at(sources, sampling, 0, step)[0].shape for step in range(30)} == {(1, 8, 16, 32)}


def test_bad_training_input_is_refused(small_config: UNetConfig, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="multiple of"):
        TrainConfig(network=small_config, sampling=SamplingConfig(task="affinity", patch_vx=(4, 30, 32)), steps=1)
    with pytest.raises(ConfigError, match="at least one"):
        train(config(small_config), [], tmp_path)
    with pytest.raises(SourceError, match="smaller than the patch"):
        train(config(small_config), [cells(1, (3, 64, 64))], tmp_path)
    with pytest.raises(SourceError, match="did you mean 'ac3'"):
        load_split("ac33", tmp_path)
    with pytest.raises(SourceError, match="training data not found"):
        load_split("fib25", tmp_path)


def test_detection_scores_of_a_known_ranking() -> None:
    truth = np.array([True, True, False, False])
    perfect = detection_scores(np.array([0.9, 0.8, 0.2, 0.1], np.float32), truth)
    assert perfect["auc"] == perfect["best_f1"] == 1.0
    assert detection_scores(np.array([0.1, 0.2, 0.8, 0.9], np.float32), truth)["auc"] == 0.0


def test_segmentation_from_perfect_affinities() -> None:
    labels = cells(1).labels
    wall = labels == 0
    affinity = np.broadcast_to(np.where(wall, 0.0, 1.0), (3, *labels.shape)).astype(np.float32)
    fragments = watershed_fragments(affinity, (30.0, 8.0, 8.0))
    merged = merged_at(fragments, affinity, (0.5,))[0]
    from skimage.metrics import adapted_rand_error

    assert adapted_rand_error(labels, merged, ignore_labels=[0])[0] < 0.1


def test_a_model_can_start_from_another(small_config: UNetConfig, model_folder: Path, tmp_path: Path) -> None:
    """With a vanishing learning rate the result is the start; another task's last layer starts anew."""
    chosen = config(small_config, steps=1, learning_rate=1e-12, weight_decay=0.0, average=0.0)
    train(chosen, [cells(1)], tmp_path / "same", initial=model_folder)
    assert model_digest(tmp_path / "same") == model_digest(model_folder)
    assert read_card(tmp_path / "same")["initialised_from"] == model_id(model_folder)
    network = small_config.model_copy(update={"channels": ("cleft", "pre")})
    sampling = SamplingConfig(task="affinity", patch_vx=(4, 32, 32), offsets=((1, 0, 0), (0, 1, 0)))
    other = TrainConfig(network=network, sampling=sampling, steps=1, learning_rate=1e-12, weight_decay=0.0, average=0.0)
    train(other, [cells(1)], tmp_path / "other", initial=model_folder)
    before, after = dict(read_weights(model_folder)), dict(read_weights(tmp_path / "other"))
    assert {
        name for name in before if before[name].shape != after[name].shape or (before[name] != after[name]).any()
    } == {name for name in before if "logits" in name}
