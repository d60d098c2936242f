"""Planted damage: `verify` names exactly that place, and `repair` brings every byte of data/ and provenance/ back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from connectome_db import config
from connectome_db.config import Project
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.trust.repair import repair
from connectome_db.versions.trust.verify import Options, verify
from tests.framework.conftest import make_project, run_all
from tests.pipeline.conftest import tree
from tests.versions import damage, wide
from tests.versions.plants import PLANTS, Plant

Trees = dict[str, dict[str, str]]


def trees(root: Path) -> Trees:
    return {k: tree(root / k) for k in ("data", "provenance")}


class Patient:
    """One copy of the project that is damaged and repaired again and again; a new one when a repair failed."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template, self.folder, self.n = template, folder, 0
        self.whole = trees(template)
        self.root = self._copy()

    def _copy(self) -> Path:
        self.n += 1
        return Path(shutil.copytree(self.template, self.folder / str(self.n), symlinks=True))

    def project(self) -> Project:
        if trees(self.root) != self.whole:
            self.root = self._copy()
        return config.load(self.root, STAGES)


@pytest.fixture(scope="module")
def patient(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    return Patient(history, tmp_path_factory.mktemp("patient"))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.name)
def test_damage_is_named_and_mended(patient: Patient, plant: Plant) -> None:
    project = patient.project()
    wanted = plant.plant(project.root)
    report = verify(project, plant.stages)
    assert sorted((p.what, p.path) for p in report.problems) == sorted(wanted)
    assert all(p.repair for p in report.problems)
    done = repair(project, report)
    assert [m for m in done.mended if m.failed] == []
    assert all(d.as_sealed and d.as_locked for d in done.digests)
    assert verify(project, plant.stages).problems == []
    assert trees(project.root) == patient.whole


def test_afterwards_all_is_well_and_dvc_agrees(patient: Patient) -> None:
    """Whatever was done to the copy before: the whole project, the store beyond data/, and DVC's cache."""
    project = patient.project()
    assert verify(project, (), Options(store=True)).problems == []
    assert dvc_status(project.root) == ["identity:", "always changed"]
    kept = list((project.state / "foreign").rglob("notes.txt"))
    assert [p.read_text() for p in kept] in ([], ["mine"])  # [] where the copy is a new one


def dvc_status(root: Path) -> list[str]:
    told = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    return [line.strip() for line in told.splitlines() if line.strip()]


def test_a_checkout_cannot_bring_damage_in_the_cache_back(patient: Patient) -> None:
    project = patient.project()
    damage.bit_everywhere(project.root)
    repair(project, verify(project, ["segment"]))
    shutil.rmtree(project.data("segment"))
    subprocess.run(
        [sys.executable, "-m", "dvc", "checkout", "-q", "segment"], cwd=project.root, check=True, capture_output=True
    )
    assert trees(project.root)["data"] == patient.whole["data"]


def test_a_lost_stage_is_assembled_from_the_store(patient: Patient) -> None:
    project = patient.project()
    shutil.rmtree(project.data("reconcile"))
    report = verify(project, ["reconcile"])
    assert [(p.what, p.path) for p in report.problems] == [("missing stage", "data/reconcile")]
    repair(project, report)
    assert trees(project.root)["data"] == patient.whole["data"]


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    """Not under DVC; store and data/ share their inodes, and a unit has two chunks."""
    made = make_project(tmp_path / "p", "dataset: {name: toy, voxel_nm: [30, 8, 8]}\n")
    project = config.load(made.root, wide.STAGES)
    run_all(project)
    return project


@pytest.mark.parametrize("where", ["data", "store"])
def test_chunks_swapped_within_a_unit(toy: Project, where: str) -> None:
    whole = trees(toy.root)
    folders = {"data": toy.data("wide") / "noise", "store": damage.blob(toy.root, "wide", 0, "noise")}
    a, b = damage.chunks(folders[where], "8_8_30")[:2]
    damage.swap(a, b)
    report = verify(toy)
    assert {(p.what, p.path) for p in report.problems} == {("swapped files", p) for p in damage.shown(toy.root, a, b)}
    assert len({p.unit for p in report.problems}) == 1
    repair(toy, report)
    assert trees(toy.root) == whole
    assert verify(toy).ok


def test_without_any_whole_copy_the_unit_is_computed_again(toy: Project) -> None:
    """In place, on the inode of store and data/, without DVC: no file can be named, but the unit is."""
    whole = trees(toy.root)
    damage.flip(damage.chunks(toy.data("wide") / "noise", "8_8_30")[3])
    report = verify(toy)
    assert [(p.what, p.unit, p.found) for p in report.problems] == [
        ("damaged chunk", "block 0/0/1", "one of 2 chunks of level 0")
    ]
    done = repair(toy, report)
    assert "computed again, with equal content" in [m.how for m in done.mended]
    assert trees(toy.root) == whole
    assert verify(toy).ok


def test_what_comes_out_otherwise_is_not_taken(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p", "dataset: {name: toy, voxel_nm: [30, 8, 8]}\n")
    project = config.load(made.root, wide.DRIFTING)
    run_all(project)
    path = damage.chunks(project.data("drifting") / "noise", "8_8_30")[0]
    damage.flip(path)
    there = path.read_bytes()
    done = repair(project, verify(project))
    assert [m.failed for m in done.mended] == [True]
    assert "came out otherwise than recorded" in done.mended[0].how
    assert path.read_bytes() == there
    assert not verify(project).ok


def test_facts_of_a_run_that_nobody_kept_are_replaced_and_told(toy: Project) -> None:
    path = toy.provenance("wide") / "run.json"
    damage.edit_json(path, lambda v: v.update(user="someone"))
    data = tree(toy.root / "data")
    report = verify(toy)
    assert [(p.what, p.path) for p in report.problems] == [("edited record", "provenance/wide/run.json")]
    done = repair(toy, report)
    assert "this run is recorded in its place" in done.mended[0].how
    assert verify(toy).ok
    assert tree(toy.root / "data") == data
