"""Models on disk and their identity. Light on purpose: a run that has nothing to compute calls this, and no Keras.

<name>/architecture.json    {"format": 1, "config": {...}}: what `networks.architecture.UNetConfig` reads
       weights.npz          arrays "000:stem/kernel", ... in the order of the model's weights; no pickles
       card.json            the model card: where the weights come from and how good they are; not part of the identity
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError, nearest

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.npz"
CARD = "card.json"
FORMAT = 1
BUNDLED = Path(__file__).parent / "weights"
"""Models that come with the package."""


def find_model(name: str, search_paths: Sequence[Path] = (BUNDLED,)) -> Path:
    """Return the folder of model `name`: the first of `search_paths` that has it, or `name` itself if it is a folder.

    An unknown name is a ConfigError that names the nearest model and lists all.
    """
    as_path = Path(name)
    if len(as_path.parts) > 1 and (as_path / ARCHITECTURE).is_file():
        return as_path
    known: set[str] = set()
    for root in search_paths:
        if (root / name / ARCHITECTURE).is_file():
            return root / name
        if root.is_dir():
            known.update(entry.name for entry in root.iterdir() if (entry / ARCHITECTURE).is_file())
    where = ", ".join(str(root) for root in search_paths)
    raise ConfigError(f"model {name!r}: not found in {where}{nearest(name, known)}")


def model_digest(folder: Path) -> str:
    """Return the sha256 (hex) of architecture and weight values; files' bytes and the model card do not count."""
    architecture = read_architecture(folder)
    pre_image = hashlib.sha256(b"connectome_db model 1\n")
    pre_image.update(json.dumps(architecture, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for name, array in read_weights(folder):
        head = json.dumps([name, array.dtype.str, list(array.shape)], separators=(",", ":"))
        pre_image.update(head.encode() + b"\n")
        pre_image.update(array.tobytes())
    return pre_image.hexdigest()


def model_id(folder: Path) -> str:
    """Return "name@sha256[:12]", the name that provenance records carry."""
    return f"{folder.resolve().name}@{model_digest(folder)[:12]}"


def read_architecture(folder: Path) -> dict[str, Any]:
    """Return the architecture's configuration as plain JSON values."""
    content = _read_json(folder / ARCHITECTURE)
    if content.get("format") != FORMAT or not isinstance(content.get("config"), dict):
        raise ConfigError(
            f"{folder / ARCHITECTURE}: wanted format {FORMAT} with a config, got format {content.get('format')!r}; "
            "the model was written by another version"
        )
    config: dict[str, Any] = content["config"]
    return config


def read_weights(folder: Path) -> list[tuple[str, NDArray[np.floating[Any]]]]:
    """Return (name, little-endian float16 or float32 array) in the model's order."""
    path = folder / WEIGHTS
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [(name, np.ascontiguousarray(stored[name])) for name in sorted(stored.files)]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as problem:
        raise ConfigError(
            f"{path}: wanted an .npz file of weights, got {problem}; restore or train it again"
        ) from problem
    for name, array in arrays:
        if array.dtype not in (np.float16, np.float32):
            raise ConfigError(f"{path}: {name}: wanted float16 or float32, got {array.dtype}")
    return [(name, array.astype(array.dtype.newbyteorder("<"), copy=False)) for name, array in arrays]


def read_card(folder: Path) -> dict[str, Any]:
    """Return the model card."""
    return _read_json(folder / CARD)


def write_model(
    folder: Path, config: dict[str, Any], weights: Sequence[tuple[str, NDArray[np.floating[Any]]]], card: dict[str, Any]
) -> None:
    """Write a model folder. Weights are stored as float16, half the size; score the model after this rounding."""
    folder.mkdir(parents=True, exist_ok=True)
    largest = float(np.finfo(np.float16).max)
    for name, value in weights:
        if not (np.abs(value) <= largest).all():
            raise ConfigError(f"{folder}: weight {name}: wanted finite values up to {largest}; training diverged")
    numbered = {f"{i:03d}:{name}": value.astype("<f2") for i, (name, value) in enumerate(weights)}
    write_json(folder / ARCHITECTURE, {"format": FORMAT, "config": config})
    np.savez(folder / WEIGHTS, allow_pickle=False, **numbered)
    write_json(folder / CARD, card)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as readable JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{path}: wanted a JSON file of a model, got: {problem}") from problem
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: wanted a JSON object, got {type(content).__name__}")
    return content
