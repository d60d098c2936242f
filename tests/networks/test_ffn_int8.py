"""Flood-filling networks in 8 bits: the sums against plain NumPy, equal in all batches, made and refused by command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from connectome_db.cli.main import app
from connectome_db.errors import ConfigError
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.networks import ffn_int8
from connectome_db.networks.datasets import TrainingVolume
from connectome_db.networks.ffn import FFNConfig, build_ffn, load_ffn, read_config, write_ffn
from connectome_db.networks.ffn_command import default_ffn_training
from connectome_db.networks.ffn_quantize import quantize_ffn
from connectome_db.networks.registry import model_id, read_card, read_weights
from tests.networks.ffn_volumes import tubes

pytest.importorskip("openvino", reason="networks in 8 bits need the extra int8")

SMALL = FFNConfig(depth=3, features=4, kernel=(1, 3, 3), fov_vx=(5, 9, 9), deltas_vx=(1, 3, 3))


def save(folder: Path, config: FFNConfig, weights: dict[str, np.ndarray] | None = None) -> Path:
    if weights is None:
        rng = np.random.default_rng(1)
        model = build_ffn(config.model_copy(update={"precision": "float32", "int8_ranges": ()}))
        weights = {w.path: np.asarray(w) + rng.normal(0, 0.1, w.shape).astype(np.float32) for w in model.weights}
    write_ffn(folder, config, list(weights.items()), {"task": "flood"})
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "small", SMALL)


@pytest.fixture(scope="module")
def quantized(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "small-int8"
    quantize_ffn(original, folder, [tubes(1), tubes(2)], [tubes(3)], windows=12)
    return folder


def plain_int8(config: FFNConfig, weights: dict[str, np.ndarray], image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The layers tap by tap, with whole numbers where the network has them; shares no line with it."""
    ranges = iter(config.int8_ranges)

    def conv(x: np.ndarray, name: str, whole: bool) -> np.ndarray:
        kernel, bias = weights[f"{name}/kernel"].astype(np.float64), weights[f"{name}/bias"].astype(np.float64)
        scale = 1.0
        if whole:
            step = np.float64(next(ranges)) / 255
            x = np.rint(np.clip(x, 0, step * 255) / step)
            per_channel = np.abs(kernel).max(axis=(0, 1, 2, 3)) / 127
            kernel = np.rint(kernel / per_channel)
            assert x.max() <= 255
            assert np.abs(kernel).max() == 127
            scale = step * per_channel
        reach = [n // 2 for n in kernel.shape[:3]]
        padded = np.pad(x, [*((r, r) for r in reach), (0, 0)])
        out = np.zeros((*x.shape[:3], kernel.shape[4]))
        for z, y, x_ in np.ndindex(*kernel.shape[:3]):
            out += padded[z : z + x.shape[0], y : y + x.shape[1], x_ : x_ + x.shape[2]] @ kernel[z, y, x_]
        return out * scale + bias

    seen = np.stack([(image - config.image_mean) / config.image_std, mask], -1)
    x = conv(np.maximum(conv(seen, "conv0_a", False), 0), "conv0_b", True)
    for i in range(1, config.depth):
        h = conv(np.maximum(x, 0), f"conv{i}_a", True)
        x = x + conv(np.maximum(h, 0), f"conv{i}_b", True)
    return mask + conv(np.maximum(x, 0), "conv_lom", False)[..., 0]


def windows(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *SMALL.fov_vx), dtype=np.uint8)
    return images, rng.normal(-1, 2, (n, *SMALL.fov_vx)).astype(np.float32)


def test_the_answer_is_that_of_whole_numbers(quantized: Path, original: Path) -> None:
    images, masks = windows(4)
    config = read_config(quantized)
    weights = {name.split(":", 1)[1]: value for name, value in read_weights(quantized)}
    found = load_ffn(quantized, batch=4).predict(images, masks)
    exact = load_ffn(original, batch=4).predict(images, masks)
    assert found.dtype == np.float32
    for k in range(4):
        wanted = plain_int8(config, weights, images[k].astype(np.float64), masks[k].astype(np.float64))
        off = np.abs(found[k] - wanted)
        # A value half-way between two levels may go either way: few do, and each moves its surroundings by a level.
        assert np.quantile(off, 0.9) < 1e-3
        assert off.mean() < 0.1 * np.abs(exact[k] - wanted).mean()


def test_rows_are_the_same_for_every_batch_and_threads_and_fill_alike(
    quantized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = windows(8)
    all_at_once = load_ffn(quantized, batch=8).predict(images, masks)
    for batch in (1, 2, 4):
        network = load_ffn(quantized, batch=batch)
        parts = [network.predict(images[i : i + batch], masks[i : i + batch]) for i in range(0, 8, batch)]
        assert np.concatenate(parts).tobytes() == all_at_once.tobytes()
    for threads in (1, 3):
        monkeypatch.setattr(ffn_int8, "PREDICTION_THREADS", threads)
        assert load_ffn(quantized, batch=8).predict(images, masks).tobytes() == all_at_once.tobytes()
    image = np.random.default_rng(2).integers(0, 256, (12, 30, 30), dtype=np.uint8)
    seeds = np.argwhere(np.ones((3, 5, 5), bool)) * (3, 5, 5) + (3, 5, 5)
    options = FloodOptions(min_segment_vx=5, max_moves=15)
    one, four = (flood(image, load_ffn(quantized, batch=b), seeds, options) for b in (1, 4))
    assert one.objects == four.objects
    assert (one.labels == four.labels).all()
    assert sum(o.moves for o in one.objects) > 20


def test_it_is_a_model_of_its_own_and_says_where_it_comes_from(quantized: Path, original: Path) -> None:
    card, config = read_card(quantized), read_config(quantized)
    assert model_id(quantized).split("@")[1] != model_id(original).split("@")[1]
    assert card["model_id"] == model_id(quantized)
    assert card["quantized_from"] == model_id(original)
    assert [v["name"] for v in card["ranges_from"]] == ["tubes 1", "tubes 2"]
    assert [v["name"] for v in card["cost_on"]] == ["tubes 3"]
    assert 0 < card["cost"]["windows"] <= card["windows"] == 12
    assert 0 < card["cost"]["mean_off"] <= card["cost"]["largest_off"]
    assert len(config.int8_ranges) == 5
    assert config.model_copy(update={"precision": "float32", "int8_ranges": ()}) == SMALL


def test_made_twice_it_is_the_same(quantized: Path, original: Path, tmp_path: Path) -> None:
    quantize_ffn(original, tmp_path / quantized.name, [tubes(1), tubes(2)], [tubes(3)], windows=12)
    assert model_id(tmp_path / quantized.name) == model_id(quantized)


def test_older_models_keep_their_identity(original: Path) -> None:
    """An architecture in more than 8 bits does not mention ranges."""
    assert "int8_ranges" not in json.loads((original / "architecture.json").read_text())["config"]
    assert len(json.loads((original / "architecture.json").read_text())["config"]) == len(FFNConfig.model_fields) - 1


@pytest.mark.parametrize(
    "change",
    [{"precision": "int8"}, {"int8_ranges": (1.0,) * 5}, {"precision": "int8", "int8_ranges": (1.0,) * 4}],
)
def test_precision_and_ranges_belong_together(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="int8_ranges: wanted"):
        FFNConfig(**{**SMALL.model_dump(), **change})


def test_what_cannot_be_quantized_is_refused(quantized: Path, original: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got one in int8; name the original"):
        quantize_ffn(quantized, tmp_path / "twice", [tubes(1)], [tubes(2)])
    with pytest.raises(ConfigError, match="choose another name"):
        quantize_ffn(original, quantized, [tubes(1)], [tubes(2)])
    flat = tubes(1, (2, 56, 56))
    with pytest.raises(ConfigError, match=r"tubes 1: wanted an image of more than half the window \(5, 9, 9\)"):
        quantize_ffn(original, tmp_path / "flat", [flat], [tubes(2)])
    nothing = TrainingVolume(
        "empty", np.zeros((10, 20, 20), np.uint8), np.zeros((10, 20, 20), np.uint32), (1, 1, 1), ""
    )
    dark = TrainingVolume(**{**vars(nothing), "valid": np.zeros((10, 20, 20), np.bool_)})
    with pytest.raises(ConfigError, match="empty: no seed was found"):
        quantize_ffn(original, tmp_path / "empty", [dark], [tubes(2)])
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_weights_is_refused(original: Path, tmp_path: Path) -> None:
    zero = {name.split(":", 1)[1]: np.zeros_like(value) for name, value in read_weights(original)}
    save(tmp_path / "zero", SMALL, zero)
    with pytest.raises(ConfigError, match="nothing but zeros"):
        quantize_ffn(tmp_path / "zero", tmp_path / "out", [tubes(1)], [tubes(2)], windows=3)


def test_it_does_not_learn_or_teach(quantized: Path) -> None:
    with pytest.raises(ConfigError, match="int8"):
        build_ffn(read_config(quantized))
    with pytest.raises(ConfigError, match="name the one it was made from"):
        default_ffn_training((30.0, 10.0, 10.0), quantized, {}, steps=2)


def test_without_openvino_it_is_told_what_to_install(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'pip install "connectome-db\[int8\]"'):
        load_ffn(quantized)


def test_the_command(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from connectome_db import demo
    from connectome_db.networks.datasets import Split

    monkeypatch.setattr(demo, "training_split", lambda *_: Split((tubes(1),), (tubes(2),), "tubes"))
    words = ["models", "quantize", str(original), "--name", "made", "--folder", str(tmp_path), "--windows", "5",
             "--data", "phantom"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert model_id(tmp_path / "made") in said
    assert "5 held-out windows: logits off by" in said
    assert "cross the segment threshold" in said
