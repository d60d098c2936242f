"""Flood-filling networks: layers against plain NumPy, rows that do not see each other, checkpoints read and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from connectome_db import config
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError, StageError
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.networks.ffn import FFNConfig, build_ffn, flops_per_move, load_ffn, read_config, write_ffn
from connectome_db.networks.ffn_checkpoint import find_request, read_request
from connectome_db.networks.registry import model_id, read_card, read_weights
from connectome_db.prepare import identity
from connectome_db.stages.pipeline import STAGES

SMALL = FFNConfig(depth=3, features=4, kernel=(1, 3, 3), fov_vx=(5, 9, 9), deltas_vx=(1, 3, 3))


def plain_logits(config: FFNConfig, weights, image, mask):
    """The published layers, tap by tap, in float64: what shares no line and no library with the network."""
    named = {name.split(":", 1)[1]: value.astype(np.float64) for name, value in weights}

    def conv(x, name):
        kernel, bias = named[f"{name}/kernel"], named[f"{name}/bias"]
        reach = [n // 2 for n in kernel.shape[:3]]
        padded = np.pad(x, [*((r, r) for r in reach), (0, 0)])
        out = np.zeros((*x.shape[:3], kernel.shape[4])) + bias
        for z, y, x_ in np.ndindex(*kernel.shape[:3]):
            part = padded[z : z + x.shape[0], y : y + x.shape[1], x_ : x_ + x.shape[2]]
            out += part @ kernel[z, y, x_]
        return out

    def relu(x):
        return np.maximum(x, 0)

    x = np.stack([(image.astype(np.float64) - config.image_mean) / config.image_std, mask.astype(np.float64)], -1)
    x = conv(relu(conv(x, "conv0_a")), "conv0_b")
    for i in range(1, config.depth):
        x = x + conv(relu(conv(relu(x), f"conv{i}_a")), f"conv{i}_b")
    return mask + conv(relu(x), "conv_lom")[..., 0]


def windows(config: FFNConfig, n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *config.fov_vx), dtype=np.uint8)
    return images, rng.normal(-1, 2, (n, *config.fov_vx)).astype(np.float32)


def save(folder: Path, config: FFNConfig, seed: int = 1) -> Path:
    """An untrained network whose weights, biases too, are far from zero."""
    rng = np.random.default_rng(seed)
    model = build_ffn(config, seed=seed)
    weights = [(w.path, np.asarray(w) + rng.normal(0, 0.1, w.shape).astype(np.float32)) for w in model.weights]
    write_ffn(folder, config, weights, {"task": "flood"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny-ffn", SMALL)


def test_the_layers_are_the_published_ones(folder: Path) -> None:
    images, masks = windows(SMALL, 2)
    found = load_ffn(folder, batch=2).predict(images, masks)
    for k in range(2):
        wanted = plain_logits(SMALL, read_weights(folder), images[k], masks[k])
        assert np.abs(found[k] - wanted).max() < 1e-4
        assert np.abs(wanted - masks[k]).max() > 0.1


def test_a_row_does_not_see_the_others(folder: Path) -> None:
    network = load_ffn(folder, batch=4)
    images, masks = windows(SMALL, 8)
    first = network.predict(images[:4], masks[:4])
    other = network.predict(np.concatenate([images[4:7], images[:1]]), np.concatenate([masks[4:7], masks[:1]]))
    assert other[3].tobytes() == first[0].tobytes()
    assert other[0].tobytes() != first[0].tobytes()


def test_a_network_fills_alike_in_all_batches(folder: Path) -> None:
    """The whole way: untrained answers wander, so that many rules are met."""
    image = np.random.default_rng(2).integers(0, 256, (12, 30, 30), dtype=np.uint8)
    seeds = np.argwhere(np.ones((3, 5, 5), bool)) * (3, 5, 5) + (3, 5, 5)
    options = FloodOptions(min_segment_vx=5, max_moves=15)
    results = []
    for batch in (1, 4):
        results.append(flood(image, load_ffn(folder, batch=batch), seeds, options))
    assert results[0].objects == results[1].objects
    assert (results[0].labels == results[1].labels).all()
    assert sum(o.moves for o in results[0].objects) > 20


def test_precision_is_part_of_the_identity(folder: Path, tmp_path: Path) -> None:
    weights = [(name.split(":", 1)[1], value) for name, value in read_weights(folder)]
    half = SMALL.model_copy(update={"precision": "bfloat16"})
    write_ffn(tmp_path / "tiny-ffn", half, weights, {})
    assert model_id(tmp_path / "tiny-ffn") != model_id(folder)
    images, masks = windows(SMALL, 1)
    exact, rough = (load_ffn(f).predict(images, masks) for f in (folder, tmp_path / "tiny-ffn"))
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.2


def test_initial_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (np.concatenate([np.ravel(w) for w in build_ffn(SMALL, seed=s).weights]) for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_the_cost_of_a_move_is_that_of_the_published_network() -> None:
    assert flops_per_move(FFNConfig()) == pytest.approx(45.8e9, rel=0.005)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fov_vx": (32, 33, 33)}, "fov_vx: wanted odd"),
        ({"deltas_vx": (17, 8, 8)}, "deltas_vx: wanted steps within half"),
        ({"deltas_vx": (0, 0, 0)}, "along at least one axis"),
        ({"kernel": (2, 3, 3)}, "kernel: wanted odd"),
    ],
)
def test_a_bad_architecture_is_refused(change, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FFNConfig(**change)


def test_each_kind_of_network_is_loaded_by_its_own(folder: Path, model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a flood-filling network"):
        load_ffn(model_folder)


def test_a_stage_that_names_a_flood_filling_network_is_told_so_before_it_runs(folder: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    shutil.copytree(folder, tmp_path / "models" / folder.name)
    params = (tmp_path / "params.yaml").read_text()
    assert "phantom-affinity" in params
    (tmp_path / "params.yaml").write_text(params.replace("phantom-affinity", folder.name))
    project = config.load(tmp_path, STAGES)
    with pytest.raises(ConfigError, match=r"segment\.model 'tiny-ffn': wanted .*kind 'unet'.* got kind 'ffn'"):
        identity(project, project.stage("segment"))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = [(w.path, np.full(w.shape, np.nan, np.float32)) for w in build_ffn(SMALL).weights]
    with pytest.raises(ConfigError, match="conv0_a/kernel: wanted finite"):
        write_ffn(tmp_path / "bad", SMALL, weights, {})
    assert not (tmp_path / "bad").exists()


def test_weights_of_another_architecture_are_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "architecture.json").read_text()
    (tmp_path / "architecture.json").write_text(text.replace('"features": 4', '"features": 5'))
    (tmp_path / "weights.npz").write_bytes((folder / "weights.npz").read_bytes())
    with pytest.raises(ConfigError, match="fit the architecture"):
        load_ffn(tmp_path)
    (tmp_path / "architecture.json").write_text(text.replace('"depth": 3', '"depth": 0'))
    with pytest.raises(ConfigError, match="depth"):
        read_config(tmp_path)


def test_windows_of_another_shape_are_refused(folder: Path) -> None:
    images, masks = windows(SMALL, 2)
    with pytest.raises(StageError, match=r"wanted image and mask \(1, 5, 9, 9\)"):
        load_ffn(folder).predict(images, masks)


REQUEST = r"""
image_mean: 120
image_stddev: 30.5
model_checkpoint_path: "somewhere/model.ckpt-7"
model_args: "{\"depth\": 3, \"fov_size\": [9, 9, 5], \"deltas\": [3, 3, 1]}"
inference_options {
  init_activation: 0.95 move_threshold: 0.85 min_boundary_dist { x: 1 y: 2 z: 3} min_segment_size: 70
}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A checkpoint as the published code writes it, with the weights of the small network."""
    import tensorflow as tf

    here = tmp_path_factory.mktemp("checkpoint")
    names, tensors = ["global_step", "filter/fraction"], [np.int32(7), np.zeros(2, np.int64)]
    for name, value in read_weights(folder):
        plain = name.split(":", 1)[1].replace("kernel", "weights").replace("bias", "biases")
        names.append(f"seed_update/{plain}")
        tensors.append(value)
    prefix = here / "model.ckpt-7"
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
    (here / "request.pbtxt").write_text(REQUEST)
    return prefix


def run(*words: object) -> str:
    """What the command prints; a user's error is raised."""
    done = CliRunner().invoke(app, ["models", "import-ffn", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_checkpoint_becomes_a_model(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    said = run(checkpoint, "--name", "mine", "--folder", tmp_path, "--source", "a lab", "--licence", "CC0")
    made = tmp_path / "mine"
    assert model_id(made) in said.replace("\n", "")
    found = read_config(made)
    assert found == SMALL.model_copy(update={"image_mean": 120.0, "image_std": 30.5})
    for (name, value), (wanted_name, wanted) in zip(read_weights(made), read_weights(folder), strict=True):
        assert name == wanted_name
        assert value.dtype == np.float32
        assert (value == wanted).all()
    card = read_card(made)
    assert (card["source"], card["licence"], card["model_id"]) == ("a lab", "CC0", model_id(made))
    assert card["imported_from"]["global_step"] == 7
    assert set(card["imported_from"]["files"]) >= {"model.ckpt-7.index", "request.pbtxt"}
    assert card["options"] == {
        "init_activation": 0.95, "move_threshold": 0.85, "min_segment_vx": 70, "min_boundary_dist_vx": [3, 2, 1],
    }  # fmt: skip
    images, masks = windows(found, 1)
    wanted = plain_logits(found, read_weights(made), images[0], masks[0])
    assert np.abs(load_ffn(made).predict(images, masks)[0] - wanted).max() < 1e-4


@pytest.mark.parametrize("form", ["index", "folder"])
def test_a_checkpoint_is_found_by_its_index_or_folder(checkpoint: Path, tmp_path: Path, form: str) -> None:
    named = {"index": checkpoint.with_name("model.ckpt-7.index"), "folder": checkpoint.parent}[form]
    run(named, "--name", "mine", "--folder", tmp_path)
    assert read_card(tmp_path / "mine")["source"] == "unknown"


def test_options_overrule_the_request(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, "--name", "mine", "--folder", tmp_path, "--fov-vx", "3,7,7", "--image-mean", "99", "--bfloat16")
    found = read_config(tmp_path / "mine")
    assert (found.fov_vx, found.deltas_vx, found.image_mean) == ((3, 7, 7), (1, 3, 3), 99)
    assert found.precision == "bfloat16"


def test_a_model_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, "--name", "mine", "--folder", tmp_path)
    before = model_id(tmp_path / "mine")
    with pytest.raises(ConfigError, match="choose another name"):
        run(checkpoint, "--name", "mine", "--folder", tmp_path, "--image-mean", "1")
    assert model_id(tmp_path / "mine") == before


def copied(checkpoint: Path, to: Path) -> Path:
    for file in checkpoint.parent.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to / checkpoint.name


def test_what_a_checkpoint_does_not_say_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    prefix = copied(checkpoint, tmp_path)
    (tmp_path / "request.pbtxt").unlink()
    with pytest.raises(ConfigError, match=r"fov_vx: .*give --fov-vx"):
        run(prefix, "--name", "mine", "--folder", tmp_path)
    with pytest.raises(ConfigError, match="wanted three whole numbers"):
        run(prefix, "--name", "mine", "--folder", tmp_path, "--fov-vx", "5,9")
    given = ("--fov-vx", "5,9,9", "--deltas-vx", "1,3,3", "--image-mean", "128", "--image-std", "33")
    run(prefix, "--name", "mine", "--folder", tmp_path, *given)
    assert read_config(tmp_path / "mine") == SMALL


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3, 3, 1", "9, 3, 1", "steps within half the window"),
        ('depth\\": 3', 'depth\\": 4', "says depth 4"),
        ("move_threshold: 0.85", "move_threshold: 0.99", "at least move_threshold"),
        ("[9, 9, 5]", "[9, 9, 5", "wanted JSON"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(checkpoint, tmp_path: Path, old: str, new: str, message: str) -> None:
    prefix = copied(checkpoint, tmp_path)
    assert old in REQUEST
    (tmp_path / "request.pbtxt").write_text(REQUEST.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        run(prefix, "--name", "mine", "--folder", tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_checkpoint_that_ends_early_is_refused(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    prefix = copied(checkpoint, tmp_path)
    file = prefix.with_name(prefix.name + suffix)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match="wanted a readable TensorFlow checkpoint"):
        run(prefix, "--name", "mine", "--folder", tmp_path / "models")


def test_what_is_no_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no nothing\.index there"):
        run(tmp_path / "nothing", "--name", "mine")
    with pytest.raises(ConfigError, match=r"one checkpoint .* got none"):
        run(tmp_path, "--name", "mine")
    prefix = copied(checkpoint, tmp_path)
    Path(f"{prefix}.index").write_bytes(b"not a table")
    with pytest.raises(ConfigError, match="wanted a readable TensorFlow checkpoint"):
        run(prefix, "--name", "mine")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    def write(tensors: dict[str, np.ndarray]) -> Path:
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "c"), tensor_names=list(tensors), shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )  # fmt: skip
        return tmp_path / "c"

    with pytest.raises(ConfigError, match=r"wanted variables seed_update/conv0_a/weights .* got dense/kernel"):
        run(write({"dense/kernel": np.zeros(3, np.float32)}), "--name", "mine", "--folder", tmp_path)
    kernel = np.zeros((3, 3, 3, 2, 4), np.float32)
    with pytest.raises(ConfigError, match="wanted pairs of convolutions"):
        run(write({"seed_update/conv0_a/weights": kernel}), "--name", "mine", "--folder", tmp_path)


@pytest.mark.shared
def test_the_published_checkpoint_answers_as_its_layers_do(shared_data: Path, tmp_path: Path) -> None:
    """One real window of FIB-25 with a seed in its middle, then the next with what was said."""
    h5py = pytest.importorskip("h5py")
    run(shared_data / "ffn_fib25_checkpoint", "--name", "fib25", "--folder", tmp_path, "--licence", "Apache-2.0")
    made = tmp_path / "fib25"
    assert read_config(made) == FFNConfig()
    request = find_request(shared_data / "ffn_fib25_checkpoint" / "model.ckpt-27465036")
    assert request is not None
    assert FloodOptions(**read_request(request).options) == FloodOptions()
    with h5py.File(shared_data / "fib25" / "ts2_z000-139.h5") as file:
        image = file["raw"][40:73, 100:133, 60:93]
    mask = np.full((33, 33, 33), np.log(0.05 / 0.95), np.float32)
    mask[16, 16, 16] = np.log(0.95 / 0.05)
    network, weights = load_ffn(made), read_weights(made)
    for _ in range(2):
        found = network.predict(image[None], mask[None])[0]
        assert np.abs(found - plain_logits(FFNConfig(), weights, image, mask)).max() < 1e-4
        mask = found


@pytest.mark.shared
def test_the_published_checkpoint_fills_what_it_filled_when_published(shared_data: Path, tmp_path: Path) -> None:
    """Two objects of FIB-25 from seeds of the published rule, cut off after six moves each; alike in two batches."""
    h5py = pytest.importorskip("h5py")
    run(shared_data / "ffn_fib25_checkpoint", "--name", "fib25", "--folder", tmp_path)
    part = np.s_[30:95, 60:130, 60:130]
    with h5py.File(shared_data / "fib25" / "ts2_z000-139.h5") as file:
        image, published = file["raw"][part], file["ffn_published"][part]
    seeds = boundary_peaks(image)
    wanted = {9: None, 49: None}  # two large published objects here, and the first seed of each that has room around it
    for seed in seeds[((seeds >= 16) & (seeds + 16 < image.shape)).all(axis=1)]:
        number = int(published[tuple(seed)])
        if number in wanted and wanted[number] is None:
            wanted[number] = seed
    chosen = np.array(list(wanted.values()))
    one, two = (flood(image, load_ffn(tmp_path / "fib25", batch=b), chosen, FloodOptions(max_moves=6)) for b in (1, 2))
    assert one.objects == two.objects
    assert (one.labels == two.labels).all()
    assert [o.label for o in one.objects] == [1, 2]
    for label, number in enumerate(wanted, start=1):
        filled = one.labels == label
        assert filled.sum() > 4000
        assert (published[filled] == number).mean() > 0.95
