"""Edits that a lab makes to a project: a parameter, a region, a model, a tile, a section, a line of code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from connectome_db.networks import registry
from tests.versioned import edit_params

Box6 = tuple[int, int, int, int, int, int]


def set_parameter(root: Path, stage: str, name: str, value: Any) -> None:
    """A parameter for the whole dataset."""
    edit_params(root, lambda d: d[stage].update({name: value}))


def set_in_region(root: Path, region: str, box_vx: Box6, stage: str, name: str, value: Any) -> None:
    """A parameter that holds in a region; the region is made, or moved to `box_vx`."""

    def change(d: dict[str, Any]) -> None:
        d["regions"][region] = {"box_vx": list(box_vx)}
        d["overrides"].setdefault(stage, {}).setdefault(region, {})[name] = value

    edit_params(root, change)


def add_model(root: Path, like: str, name: str, scale: float) -> None:
    """`models/<name>`: the bundled model `like` with its last weights multiplied by `scale`, as if trained further."""
    target = root / "models" / name
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(registry.BUNDLED / like, target)
    with np.load(registry.BUNDLED / like / registry.WEIGHTS) as held:
        arrays = {n: held[n] for n in held.files}
    last = sorted(arrays)[-1]
    arrays[last] = (arrays[last].astype(np.float64) * scale + 0.05 * (scale - 1)).astype(arrays[last].dtype)
    (target / registry.WEIGHTS).unlink()
    np.savez(target / registry.WEIGHTS, **arrays)


def change_tile(root: Path, section: int, index: int, corner_px: tuple[int, int], size_px: int = 12) -> str:
    """Turn a patch of one raw tile into its negative; returns the tile's name."""
    tiles = sorted((root / "raw").glob(f"s{section:04d}*.png"))
    tile = tiles[index % len(tiles)]
    image = cv2.imread(str(tile), cv2.IMREAD_GRAYSCALE)
    y, x = (c % (n - size_px) for c, n in zip(corner_px, image.shape, strict=True))
    image[y : y + size_px, x : x + size_px] = 255 - image[y : y + size_px, x : x + size_px]
    _write(tile, image)
    _forget_checksums(root)
    return tile.name


def append_section(root: Path, seed: int) -> int:
    """A new section after the last: the last one again, with other noise; returns its number."""
    manifest = root / "raw" / "manifest.csv"
    _forget_checksums(root)
    lines = manifest.read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    last = max(int(r["section"]) for r in rows)
    rng = np.random.default_rng(seed)
    for r in [r for r in rows if int(r["section"]) == last]:
        image = cv2.imread(str(root / "raw" / r["path"]), cv2.IMREAD_GRAYSCALE).astype(np.float64)
        noisy = np.clip(image + rng.normal(0, 4, image.shape), 1, 255).astype(np.uint8)
        name = r["path"].replace(f"s{last:04d}", f"s{last + 1:04d}")
        _write(root / "raw" / name, noisy)
        lines.append(",".join((r | {"path": name, "section": str(last + 1)})[n] for n in names))
    _replace(manifest, "\n".join(lines) + "\n")
    return last + 1


def _forget_checksums(root: Path) -> None:
    """Drop the declared digests of the manifest, which an edited tile no longer has."""
    manifest = root / "raw" / "manifest.csv"
    rows = [line.split(",") for line in manifest.read_text().splitlines()]
    if rows[0][-1] == "sha256":
        _replace(manifest, "".join(",".join(r[:-1]) + "\n" for r in rows))


def _write(path: Path, image: np.ndarray) -> None:
    new = path.with_name(f"new-{path.name}")
    cv2.imwrite(str(new), image)
    new.replace(path)


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"new-{path.name}")
    new.write_text(text)
    new.replace(path)


def package_with(folder: Path, module: str, old: str, new: str) -> Path:
    """A copy of the package in which one text of one module was edited; returns what goes on PYTHONPATH."""
    here = Path(registry.__file__).resolve().parents[1]
    shutil.copytree(here, folder / here.name)  # with what is compiled: it is dated by its source
    path = (folder / here.name).joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text()
    assert text.count(old) == 1, f"{module} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))
    return folder


_RUN = """
import json, sys
from pathlib import Path
from connectome_db.cli import settings
import connectome_db
from connectome_db import config, runner
from connectome_db.finish import finish, is_current
from connectome_db.stages.pipeline import STAGES
assert str(Path(connectome_db.errors.__file__)).startswith(sys.argv[2]), connectome_db.errors.__file__
sys.path.append(sys.argv[3])
from tests.network_answers import remembered
project, computed = config.load(Path(sys.argv[1]), STAGES), {}
with remembered():
    for stage in STAGES:
        prepared, outcome = runner.run_units(project, stage.name)
        if not (outcome.computed == 0 and is_current(prepared)):
            finish(prepared, outcome)
        computed[stage.name] = outcome.computed
print(json.dumps(computed))
"""


def run_with(package: Path, root: Path) -> dict[str, int]:
    """Run all stages of a project with another copy of the package; units computed by stage."""
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(root), str(package), str(tests)],
        env=os.environ | {"PYTHONPATH": str(package)}, cwd=package, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts
