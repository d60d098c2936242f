"""Changes planted in a copy of the small project: all in one version, and in others all but one.

R  one region has another parameter of `segment`       G  the threshold of `agglomerate`
M  half of the volume gets a retrained cleft network   T  one tile is replaced, in a corner of it
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from connectome_db.networks import registry
from tests.versioned import commit_version, edit_params

PLANTS = "RMGT"
SHAFT = (0, 64, 64, 8, 128, 128)
HALF = (0, 0, 128, 10, 256, 256)
TILE = "s0009_r0_c0.png"
SECTION = 9


def plant(root: Path) -> None:
    """Make the version `planted` of the project at `root`, which stays checked out."""
    retrain(root / "models" / "retrained-cleft")
    replace_tile(root / "raw")
    edit_params(root, lambda document: change(document, ""))
    commit_version(root, "planted")


def leave_out(root: Path) -> None:
    """Make the versions `without-R` ... `without-T` of a project at `v3`."""
    retrain(root / "models" / "retrained-cleft")
    params, raw = root / "params.yaml", root / "raw"
    kept = {p: p.read_bytes() for p in (params, raw / TILE, raw / "manifest.csv")}
    for left_out in PLANTS:
        for path, data in kept.items():
            _replace(path, data)
        if left_out != "T":
            replace_tile(raw)
        edit_params(root, lambda document, left_out=left_out: change(document, left_out))
        commit_version(root, f"without-{left_out}")


def change(document: dict[str, Any], left_out: str) -> None:
    """The plants of params.yaml."""
    regions, overrides = document["regions"], document["overrides"]
    if left_out != "R":
        regions["shaft"] = {"box_vx": list(SHAFT)}
        overrides["segment"]["shaft"] = {"seed_window_nm": 400}
    if left_out != "M":
        regions["half"] = {"box_vx": list(HALF)}
        overrides["synapses"] = {"half": {"model": "retrained-cleft"}}
    if left_out != "G":
        document["agglomerate"]["threshold"] = 0.75


def retrain(folder: Path) -> None:
    """A copy of phantom-cleft with other weights, as training on a little more data might give."""
    source, rng = registry.BUNDLED / "phantom-cleft", np.random.default_rng(1)
    weights = [
        (name.split(":", 1)[1], (w.astype(np.float32) * (1 + 0.15 * rng.standard_normal(w.shape))).astype(np.float16))
        for name, w in registry.read_weights(source)
    ]
    registry.write_model(folder, registry.read_architecture(source), weights, registry.read_card(source))


def replace_tile(raw: Path) -> None:
    """Darken a small square of one tile, and say its new digest in the manifest."""
    path, manifest = raw / TILE, raw / "manifest.csv"
    old = path.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(old, np.uint8), cv2.IMREAD_GRAYSCALE)
    pixels[30:42, 30:42] = 60
    new = cv2.imencode(".png", pixels)[1].tobytes()
    digests = [hashlib.sha256(data).hexdigest() for data in (old, new)]
    text = manifest.read_text()
    assert digests[0] in text
    _replace(path, new)
    _replace(manifest, text.replace(*digests).encode())


def _replace(path: Path, data: bytes) -> None:
    tmp = path.with_name(f"{path.name}.tmp")
    tmp.write_bytes(data)
    tmp.replace(path)


def copy_of(history: Path, root: Path) -> Path:
    """A project of its own, to plant changes in."""
    return Path(shutil.copytree(history, root, symlinks=True))
