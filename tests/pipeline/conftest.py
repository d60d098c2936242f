"""A small phantom project: all stages over 2 x 2 x 2 blocks and more."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connectome_db import config, newproject, runner
from connectome_db.config import Project
from connectome_db.finish import finish
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.simulate import SimulateConfig, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.stages.pipeline import STAGES
from tests.framework.conftest import tree
from tests.network_answers import remembered
from tests.shared_build import made_once

BLOCK_VX = (8, 64, 64)


def small_blocks() -> dict[str, dict[str, object]]:
    """Small blocks wherever a stage has blocks of its own, so that a small volume has many."""
    changes = newproject.model_changes(STAGES, "phantom")
    for stage in STAGES:
        if "block_vx" in stage.params.model_fields:
            changes.setdefault(stage.name, {})["block_vx"] = BLOCK_VX
    return changes


def make_template(root: Path) -> None:
    """The project before anything was run in it."""
    simulate(
        SimulateConfig(
            tissue=TissueConfig(seed=5, shape_vx=(10, 224, 224)),
            acquire=AcquireConfig(overlap=0.3, stage_error_px=2.0, shift_px=5.0, rotation_deg=0.4),
        ),
        root,
    )
    newproject.create(
        root, name="small", manifest="raw/manifest.csv", voxel_nm=(30, 8, 8), stages=STAGES, changes=small_blocks()
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that nothing has been run in."""
    return made_once(tmp_path_factory, "template", make_template)


def copy_of(template: Path, root: Path, *, with_work: bool = False) -> Project:
    """A project of its own. `with_work` takes along store and data, as copies that share no inode."""
    skip = () if with_work else (".connectome", "data", "provenance")
    shutil.copytree(template, root, ignore=shutil.ignore_patterns(*skip))
    return config.load(root, STAGES)


def killed_midway(project: Project, stage: str) -> int:
    """`kill -9` a run of `stage` once two units are done, wherever it is then; returns how many were done."""
    child = subprocess.Popen(
        [sys.executable, "-m", "connectome_db.cli.main", "run", stage, "-C", str(project.root)],
        stdout=subprocess.DEVNULL,
    )
    keys = project.store / "keys" / stage
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not keys.is_dir() or len(os.listdir(keys)) < 2):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return len(os.listdir(keys))


def run_stages(project: Project, **how: object) -> dict[str, runner.Outcome]:
    """Run and finish all stages; outcomes by stage. Networks of this process are not asked twice."""
    outcomes = {}
    with remembered():
        for stage in project.stages:
            prepared, outcomes[stage.name] = runner.run_units(project, stage.name, **how)  # type: ignore[arg-type]
            finish(prepared, outcomes[stage.name])
    return outcomes


def differing(a: Path, b: Path) -> list[str]:
    """Files that are not byte-identical in two trees."""
    x, y = tree(a), tree(b)
    return sorted(n for n in x.keys() | y.keys() if x.get(n) != y.get(n))


def done_once(factory: pytest.TempPathFactory) -> Path:
    """A folder of this worker with the project after all stages, run from scratch, serially."""

    def make(root: Path) -> None:
        run_stages(copy_of(made_once(factory, "template", make_template), root))

    return made_once(factory, "done", make)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The reference: from scratch, serially."""
    return config.load(done_once(tmp_path_factory), STAGES)
