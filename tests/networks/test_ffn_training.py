"""Training a flood-filling network: moves against plain NumPy, resumed = unbroken, two ranks = one, what it learns."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from connectome_db import executors
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError, RunError
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.networks.datasets import Split
from connectome_db.networks.ffn import FFNConfig, build_ffn, load_ffn, read_config, write_ffn
from connectome_db.networks.ffn_command import default_ffn_training, train_and_validate
from connectome_db.networks.ffn_sampling import OBJECT, UNKNOWN, FFNSamplingConfig, Pool, shifts_of
from connectome_db.networks.ffn_steps import window_of
from connectome_db.networks.ffn_training import FFNTrainConfig, Ranks, train_ffn
from connectome_db.networks.ffn_validation import middle_box, validation
from connectome_db.networks.registry import model_digest, model_id, read_card, read_weights
from tests.networks.ffn_volumes import NETWORK, STILL, training, tubes

ROOT = Path(__file__).parents[2]
STANDING = {"learning_rate": 1e-12, "weight_decay": 0.0, "average": 0.0}
"""Weights stay what they are."""
LARGE = (16, 90, 90)
DUST = FloodOptions(min_segment_vx=100)


def losses(config: FFNTrainConfig, out: Path, volumes=None, **more) -> list[float]:
    found: list[float] = []
    train_ffn(config, volumes or [tubes(1)], out, lambda _, loss: found.append(loss), **more)
    return found


def model(folder: Path, config: FFNConfig = NETWORK, seed: int = 1) -> Path:
    """An untrained network that often says yes, so that windows move."""
    weights = [(w.path, np.asarray(w, np.float32)) for w in build_ffn(config, seed=seed).weights]
    weights[-1] = (weights[-1][0], np.full(1, 4, np.float32))
    write_ffn(folder, config, weights, {"task": "flood"})
    return folder


def weights_of(folder: Path) -> np.ndarray:
    return np.concatenate([value.ravel() for _, value in read_weights(folder)])


def plain_losses(config: FFNTrainConfig, folder: Path, teacher: Path | None = None) -> tuple[list[float], int]:
    """The loss of each step by slices of arrays, one row after the other; and the most moves of one example."""
    network, guide = load_ffn(folder), None if teacher is None else load_ffn(teacher)
    window = window_of(network.config, guide and guide.config)
    pool = Pool([tubes(1)], config.sampling, window, network.deltas_vx)
    middle, shifts = np.array(window) // 2, shifts_of(network.deltas_vx)
    share = config.teacher_share if guide else 0.0

    def logit(p: float) -> float:
        return float(np.log(p / (1 - p)))

    def at(shift, fov):
        return tuple(slice(m + s - f // 2, m + s + f // 2 + 1) for m, s, f in zip(middle, shift, fov, strict=True))

    total, most = np.zeros(config.steps), 0
    for row in range(config.batch):
        number, left = 0, []
        for step in range(config.steps):
            if step % config.refresh_every == 0:
                number, left = 0, []
            if not left:
                example = pool.example(config.seed, step // config.refresh_every, row, number)
                number, moves = number + 1, 0
                canvas = np.full(window, logit(0.05), np.float32)
                canvas[tuple(middle)] = logit(0.95)
                turns = list(np.argsort(example.order))
                left = turns[:1]
            chosen = left[0]
            turns.remove(chosen)
            box = at(shifts[chosen], network.fov_vx)
            said = network.predict(example.image[box][None], canvas[box][None])[0].astype(np.float64)
            truth = example.truth[box]
            wanted, weight = np.where(truth == OBJECT, 0.95, 0.05), (truth != UNKNOWN).astype(float)
            if guide:
                wide = at(shifts[chosen], guide.fov_vx)
                answer = guide.predict(example.image[wide][None], canvas[wide][None])[0].astype(np.float64)
                cut = tuple(
                    slice((a - b) // 2, (a + b) // 2) for a, b in zip(guide.fov_vx, network.fov_vx, strict=True)
                )
                taught = 1 / (1 + np.exp(-answer[cut]))
                wanted = np.where(weight > 0, (1 - share) * wanted + share * taught, taught)
                weight = np.where(weight > 0, 1.0, share)
            cost = -(wanted * -np.logaddexp(0, -said) + (1 - wanted) * -np.logaddexp(0, said))
            total[step] += (weight * cost).mean() / config.batch
            canvas[box] = said
            left = [t for t in turns if canvas[tuple(middle + shifts[t])] >= logit(0.9)]
            moves += 1
            most = max(most, moves)
            if moves == config.looks:
                left = []
    return total.tolist(), most


@pytest.mark.parametrize(("taught", "looks"), [(False, 0), (True, 0), (False, 4)])
def test_windows_move_and_are_scored_as_by_plain_slices(tmp_path: Path, taught: bool, looks: int) -> None:
    """Many moves or few, rows that end at different steps, voxels that do not count, a teacher that sees more."""
    folder = model(tmp_path / "m")
    wide = NETWORK.model_copy(update={"fov_vx": (5, 17, 15), "features": 3})
    teacher = model(tmp_path / "teacher", wide, seed=7) if taught else None
    sampling = FFNSamplingConfig(min_object_vx=100, augment=STILL)
    more = {"sampling": sampling, "looks": looks, **STANDING}
    config = training(steps=40, refresh_every=25, teacher_share=0.3, batch=3, **more)
    found = losses(config, tmp_path / "out", initial=folder, teacher=teacher)
    wanted, most = plain_losses(config, folder, teacher)
    assert most == looks if looks else most > 5
    assert found == pytest.approx(wanted, rel=1e-4)
    assert np.abs(weights_of(tmp_path / "out") - weights_of(folder)).max() < 1e-6


class StopHereError(Exception):
    pass


def test_a_resumed_training_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    config = training(validate_every=4, steps=14)
    judge = validation([tubes(2)], (8, 30, 30), NETWORK.fov_vx)
    unbroken, resumed = tmp_path / "a" / "m", tmp_path / "b" / "m"
    train_ffn(config, [tubes(1)], unbroken, validate=judge)

    def stop(done: int, loss: float) -> None:
        if done == 13:  # the checkpoint is of step 10; validations of steps 4, 8 and 12 are written
            raise StopHereError

    with pytest.raises(StopHereError):
        train_ffn(config, [tubes(1)], resumed, stop, validate=judge)
    assert not (resumed / "weights.npz").exists()
    for other, volumes in ((config.model_copy(update={"learning_rate": 0.1}), [tubes(1)]), (config, [tubes(5)])):
        with pytest.raises(ConfigError, match="other parameters or data"):
            train_ffn(other, volumes, resumed)
    seen: list[int] = []
    train_ffn(config, [tubes(1)], resumed, lambda done, _: seen.append(done), validate=judge)
    assert seen == [11, 12, 13, 14]
    assert model_digest(resumed) == model_digest(unbroken)
    for name in ("loss.csv", "validation.csv", "card.json"):
        assert (resumed / name).read_text() == (unbroken / name).read_text()
    rows = (resumed / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "4", "8", "12", "14"]
    assert (resumed / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list(resumed.glob("checkpoint*"))


@pytest.mark.slow
def test_two_ranks_are_one_rank_with_the_double_batch(tmp_path: Path) -> None:
    """And two runs on two ranks are equal to the bit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name, launcher in (("one", []), ("two", ["mpiexec", "-n", "2"]), ("again", ["mpiexec", "-n", "2"])):
        words = [sys.executable, "-m", "tests.networks.ffn_volumes", str(tmp_path / name / "m")]
        done = subprocess.run([*launcher, *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two, again = (tmp_path / name / "m" for name in ("one", "two", "again"))
    first, second = (np.loadtxt(folder / "loss.csv", delimiter=",", skiprows=1) for folder in (one, two))
    assert np.abs(first - second).max() < 1e-5
    start = weights_of(model(tmp_path / "start", seed=4))
    assert np.abs(weights_of(one) - start).max() > 1e-2
    assert np.abs(weights_of(one) - weights_of(two)).max() < 1e-6
    assert model_digest(two) == model_digest(again)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (extra `jax`)")
def test_backends_agree(tmp_path: Path) -> None:
    found = {}
    for backend in ("tensorflow", "jax"):
        program = (
            "import sys; from pathlib import Path; from tests.networks.ffn_volumes import *\n"
            "from connectome_db.networks.ffn_training import train_ffn\n"
            "a, b = map(Path, sys.argv[1:])\n"
            "train_ffn(training(steps=20), [tubes(1)], a, initial=b)"
        )
        words = [sys.executable, "-c", program, str(tmp_path / backend), str(tmp_path / "start")]
        if not found:
            model(tmp_path / "start")
        environment = {**os.environ, "KERAS_BACKEND": backend}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[backend] = np.loadtxt(tmp_path / backend / "loss.csv", delimiter=",", skiprows=1)[:, 1]
    assert np.abs(found["jax"] - found["tensorflow"]).max() < 1e-3


def test_training_learns_to_segment(tmp_path: Path) -> None:
    """Tubes with dark walls: after some hundred steps most are found, and few are joined to another."""
    sampling = FFNSamplingConfig(min_object_vx=100, augment=STILL)
    config = training(steps=250, batch=8, learning_rate=5e-3, average=0.9, refresh_every=50, sampling=sampling)
    found = losses(config, tmp_path / "m", validate=validation([tubes(2, LARGE)], LARGE, NETWORK.fov_vx, DUST))
    assert np.mean(found[-20:]) < 0.6 * np.mean(found[:20])
    scores = read_card(tmp_path / "m")["scores_on_held_out_data"][0]
    assert scores["step"] == 250
    assert scores["coverage"] > 0.3
    assert scores["adapted_rand_error_covered"] < 0.25


def test_training_in_bfloat16_and_other_optimisers(tmp_path: Path) -> None:
    """The model is of the precision that was asked for, whatever it was trained in."""
    for optimizer in ("sgd", "adam"):
        train_ffn(training(steps=2, optimizer=optimizer, precision="bfloat16"), [tubes(1)], tmp_path / optimizer)
    assert model_digest(tmp_path / "sgd") != model_digest(tmp_path / "adam")
    assert read_config(tmp_path / "sgd") == NETWORK


def test_scores_are_those_of_the_truth_in_connected_pieces(tmp_path: Path) -> None:
    """A network that fills what it is given exactly: colours, as the truth has them."""
    volume = tubes(3)
    box = middle_box(volume, (8, 30, 200))
    assert box.image.shape == (8, 30, 56)
    assert np.array_equal(box.labels, volume.labels[1:9, 13:43])

    class Exact:
        model_id, fov_vx, deltas_vx, batch = "exact", (3, 9, 9), (1, 4, 4), 1

        def predict(self, images, masks):
            assert images.shape == masks.shape
            parts, _ = ndimage.label(images[0] > 110)
            out = np.where((parts > 0) & (parts == parts[tuple(n // 2 for n in self.fov_vx)]), 4.0, -4.0)
            return out[None].astype(np.float32)

    volume = tubes(3, LARGE)
    same = replace(volume, labels=np.where(volume.labels > 0, np.uint32(1), volume.labels))
    one = validation([volume], LARGE, (3, 9, 9), DUST)(Exact())
    assert one["voi_merge_covered"] == 0
    assert one["adapted_rand_error_covered"] < 0.03  # a tube along the border of the volume can be filled in two parts
    assert 0.5 < one["coverage"] < 1
    assert 0 < one["adapted_rand_error_all"] < 1
    assert one["moves"] > one["objects"] > 10
    # Tubes of one name that do not touch are objects of their own; so are those of another volume.
    two = validation([volume, same], LARGE, (3, 9, 9), DUST)(Exact())
    assert two["voi_merge_covered"] == 0
    assert two["adapted_rand_error_covered"] < 0.03
    assert (two["objects"], two["moves"]) == (2 * one["objects"], 2 * one["moves"])
    half = np.zeros(volume.image.shape, bool)
    half[:, :45] = True
    part = validation([replace(volume, valid=half)], LARGE, (3, 9, 9), DUST)(Exact())
    assert part["voi_merge_covered"] == 0
    assert part["objects"] < one["objects"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"fov_vx": (32, 33, 33)}}, "fov_vx: wanted odd extents"),
        ({"network": {"deltas_vx": (20, 8, 8)}}, "deltas_vx: wanted steps within half"),
        ({"learning_rate": 0.0}, "learning_rate: Input should be greater than 0"),
        ({"warmup_steps": 10, "steps": 10}, "warmup_steps: wanted fewer than the 10 steps"),
        ({"teacher_share": 1.5}, "teacher_share"),
    ],
)
def test_bad_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        default_ffn_training((10.0, 10.0, 10.0), **({"steps": 10} | change))


def test_defaults_follow_the_voxels_and_the_model_to_start_from(tmp_path: Path) -> None:
    assert default_ffn_training((10.0, 10.0, 10.0), steps=1).network == FFNConfig()
    flat = default_ffn_training((30.0, 6.0, 6.0), steps=1)
    assert (flat.network.fov_vx, flat.network.deltas_vx) == ((9, 33, 33), (2, 8, 8))
    assert not flat.sampling.augment.isotropic
    changed = default_ffn_training((10.0, 10.0, 10.0), model(tmp_path / "m"), {"deltas_vx": (1, 2, 2)}, steps=1)
    assert changed.network == NETWORK.model_copy(update={"deltas_vx": (1, 2, 2)})


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one training volume"):
        train_ffn(training(), [], tmp_path / "m")
    with pytest.raises(ConfigError, match="a multiple of the 3 ranks, got 4"):
        train_ffn(training(), [tubes(1)], tmp_path / "m", ranks=Ranks(0, 3, list))
    narrow = model(tmp_path / "narrow", NETWORK.model_copy(update={"fov_vx": (3, 11, 13)}))
    with pytest.raises(ConfigError, match=r"a teacher whose window is at least \(3, 13, 13\)"):
        train_ffn(training(), [tubes(1)], tmp_path / "m", teacher=narrow)
    with pytest.raises(ConfigError, match=r"tubes 1: wanted a box to validate on of at least the window \(3, 13, 13\)"):
        validation([tubes(1)], (2, 40, 40), NETWORK.fov_vx)
    spoilt = model(tmp_path / "spoilt")
    with np.load(spoilt / "weights.npz") as stored:
        arrays = {name: stored[name] * 1e20 for name in stored.files}
    np.savez(spoilt / "weights.npz", **arrays)
    with pytest.raises(ConfigError, match=r"step 0: the loss is (nan|inf); lower learning_rate"):
        train_ffn(training(), [tubes(1)], tmp_path / "m", initial=spoilt)


@pytest.fixture(scope="module")
def fib25(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tubes in the place of the real sample."""
    folder = tmp_path_factory.mktemp("fib25")
    volume = tubes(1, (140, 40, 40))
    with h5py.File(folder / "ts2_z000-139.h5", "w") as file:
        file["raw"], file["gt"] = volume.image, volume.labels
    return folder


SMALL = ("--depth", "1", "--features", "2", "--fov-vx", "3,9,9", "--deltas-vx", "1,2,2", "--batch", "2")


def run(*words: object) -> str:
    """What the command prints; a user's error is raised."""
    done = CliRunner().invoke(app, ["train", "ffn", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_trains_and_scores(fib25: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    said = run("--data", f"fib25={fib25}", "--out", out, "--steps", 3, *SMALL, "--validate-vx", "8,30,30",
               "--tensorboard")  # fmt: skip
    assert model_id(out) in said.replace("\n", "")
    card = read_card(out)
    assert json.loads((out / "card.json").read_text(), parse_constant=pytest.fail) == card
    assert card["validated_on"]["middle_box_vx"] == [8, 30, 30]
    assert card["training_data"][0]["name"] == "fib25 z 0-99"
    assert card["scores_on_held_out_data"][0]["step"] == 3
    assert load_ffn(out).fov_vx == (3, 9, 9)
    assert list((out / "tensorboard").glob("events*"))


def test_ranks_are_started_with_the_same_words(fib25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["--data", f"fib25={fib25}", "--out", str(tmp_path / "mine"), "--steps", "2", *SMALL, "--ranks", "2",
             "--no-resume", "--bfloat16", "--learning-rate", "0.01", "--validate-vx", "none"]  # fmt: skip
    started: list[list[str]] = []
    code = 0

    def start(launcher: list[str], words: list[str], hint: str) -> int:
        assert "your site's launcher" in hint
        started.append([*launcher, *words])
        return code

    monkeypatch.setattr(executors, "start_ranks", start)
    run(*asked)
    (words,) = started
    assert words[:7] == ["mpiexec", "-n", "2", "-m", "connectome_db.cli.main", "train", "ffn"]
    assert sorted(words[7:]) == sorted(asked)
    code = 7
    with pytest.raises(RunError, match="2 ranks ended with code 7"):
        run(*asked)


def test_ranks_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="'no-such-launcher' not found: install MPI, or do this"):
        executors.start_ranks(["no-such-launcher", "-n", "2"], ["-c", "pass"], "do this")
    assert shutil.which("no-such-launcher") is None


def test_the_command_refuses_bad_words(fib25: Path, tmp_path: Path) -> None:
    usual = ("--data", f"fib25={fib25}", "--out", tmp_path / "m", "--steps", 2, *SMALL)
    with pytest.raises(ConfigError, match="--validate-vx '4,5': wanted three whole numbers"):
        run(*usual, "--validate-vx", "4,5")
    with pytest.raises(ConfigError, match="wanted a JSON file of a model"):
        run(*usual, "--initial", tmp_path / "nothing")
    assert not (tmp_path / "m").exists()


def test_scores_of_a_split_are_of_its_test_part(tmp_path: Path) -> None:
    config = training(steps=1)
    card = train_and_validate(
        config, Split((tubes(1),), (tubes(2),), "made here"), tmp_path / "m", validate_vx=None, show_progress=False
    )
    assert card["scores_on_held_out_data"] == []
    assert card["validated_on"] is None
    assert card["source"] == "made here"
