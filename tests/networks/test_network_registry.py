import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from connectome_db.errors import ConfigError
from connectome_db.networks.registry import (
    BUNDLED,
    find_model,
    model_digest,
    model_id,
    read_card,
    read_weights,
    write_model,
)


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / model_folder.name))


def test_a_changed_weight_changes_the_digest(model_folder: Path, copy: Path) -> None:
    weights = [(name.split(":", 1)[1], value.copy()) for name, value in read_weights(copy)]
    config = json.loads((copy / "architecture.json").read_text())["config"]
    write_model(copy, config, weights, {})
    assert model_digest(copy) == model_digest(model_folder)
    weights[3][1].flat[0] += np.float16(0.01)
    write_model(copy, config, weights, {})
    assert model_digest(copy) != model_digest(model_folder)


def test_card_and_file_bytes_do_not_count(model_folder: Path, copy: Path) -> None:
    (copy / "card.json").write_text('{"scores": 1}')
    architecture = json.loads((copy / "architecture.json").read_text())
    (copy / "architecture.json").write_text(json.dumps(dict(reversed(architecture.items()))))
    with np.load(copy / "weights.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez_compressed(copy / "weights.npz", allow_pickle=False, **arrays)
    assert model_digest(copy) == model_digest(model_folder)


def test_a_changed_architecture_changes_the_digest(model_folder: Path, copy: Path) -> None:
    text = (copy / "architecture.json").read_text()
    (copy / "architecture.json").write_text(text.replace('"image_std": 32.0', '"image_std": 33.0'))
    assert model_digest(copy) != model_digest(model_folder)


def test_the_identity_needs_no_keras(model_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from connectome_db.networks.registry import model_id;"
        "print(model_id(Path(sys.argv[1])));"
        "assert not {'keras', 'tensorflow', 'jax', 'matplotlib', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model_folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == model_id(model_folder)
    assert model_id(model_folder).startswith("small@")


def test_finding_models(model_folder: Path, tmp_path: Path) -> None:
    assert find_model("small", [tmp_path, model_folder.parent]) == model_folder
    assert find_model(str(model_folder), []) == model_folder
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        find_model("smal", [model_folder.parent])


@pytest.mark.parametrize("damage", [b"", b"not a zip file"])
def test_damaged_weights_are_named(copy: Path, damage: bytes) -> None:
    (copy / "weights.npz").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"weights\.npz"):
        model_digest(copy)


def test_truncated_weights_are_named(copy: Path) -> None:
    whole = (copy / "weights.npz").read_bytes()
    (copy / "weights.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"weights\.npz"):
        model_digest(copy)


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.json"):
        model_digest(tmp_path)


def test_diverged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finite"):
        write_model(tmp_path, {}, [("a", np.array([1e9], np.float32))], {})


BUNDLED_MODELS = sorted(path.parent.name for path in BUNDLED.glob("*/architecture.json"))


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_models_are_small_and_have_a_complete_card(name: str) -> None:
    folder = find_model(name)
    card = read_card(folder)
    assert (folder / "weights.npz").stat().st_size <= 5_000_000
    assert card["model_id"] == model_id(folder)
    assert {"task", "voxel_nm", "training_data", "steps", "seed", "training", "code", "source"} <= set(card)
    assert ("channels" in card) == (card["task"] != "flood")
    assert all(len(data["sha256"]) == 64 for data in card["training_data"])
    tested = {data["sha256"] for data in card["scores_on_held_out_data"]}
    assert tested
    assert tested.isdisjoint(data["sha256"] for data in card["training_data"])
    assert (folder / card["loss_history"]).is_file()
