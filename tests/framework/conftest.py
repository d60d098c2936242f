"""A small project for the framework: two toy stages and one tile."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from connectome_db import config, runner
from connectome_db.config import Project
from connectome_db.finish import finish
from tests.framework.toy import STAGES

PARAMS = """\
dataset: {name: toy, voxel_nm: [30, 8, 8]}
paint: {}
counts: {}
"""


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def make_project(root: Path, params: str = PARAMS) -> Project:
    (root / "raw").mkdir(parents=True)
    cv2.imwrite(str(root / "raw" / "t0.png"), np.full((32, 32), 100, np.uint8))
    (root / "raw" / "manifest.csv").write_text("path,section,stage_y_px,stage_x_px\nt0.png,0,0,0\n")
    (root / "params.yaml").write_text(params)
    (root / ".gitignore").write_text("/.connectome/\n/data/\n/provenance/\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "start")
    return config.load(root, STAGES)


def run_all(project: Project, **how: object) -> dict[str, runner.Outcome]:
    """Run and finish every stage."""
    outcomes = {}
    for stage in project.stages:
        prepared, outcome = runner.run_units(project, stage.name, **how)  # type: ignore[arg-type]
        finish(prepared, outcome)
        outcomes[stage.name] = outcome
    return outcomes


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder: relative name -> SHA-256. Two that differ are told in a line, not in megabytes."""
    return digests({str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()})


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each of some files, by name."""
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "p")
