"""Units computed again elsewhere: what comes out equal, what does not and how far, and that nothing changes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from skimage.metrics import adapted_rand_error, variation_of_information
from typer.testing import CliRunner

from connectome_db import config
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.errors import ConfigError
from connectome_db.spec import Column, Rows, Table, Volume
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.trust.audit import StageAudit, audit, environment_differences
from connectome_db.versions.trust.howfar import between
from tests.framework.conftest import make_project, run_all, tree
from tests.framework.toy import STAGES as TOY
from tests.versions import damage, wide

IMAGE = Volume(name="i", dtype="uint8", kind="image", doc="")
LABELS = Volume(name="l", dtype="uint64", kind="segmentation", doc="")
ROWS = Rows(
    Table(
        name="t",
        doc="",
        key=("k",),
        columns=(
            Column(name="k", dtype="int64", doc=""),
            Column(name="v", dtype="float64", doc="", nullable=True),
            Column(name="s", dtype="string", doc=""),
        ),
    )
)


def everything(project: Project) -> dict[str, str]:
    """All files, locks and caches of reading excepted."""
    skip = (".connectome/locks/", ".connectome/scan.parquet", ".connectome/tmp/")
    return {n: b for n, b in tree(project.root).items() if not n.startswith(skip)}


def test_real_stages_come_out_equal_and_nothing_changes(history: Path) -> None:
    project = config.load(history, STAGES)
    before = everything(project)
    found = audit(project, ["montage", "align", "render", "score", "graph"], sample=0.05, seed=4, ranks=0)
    assert [(a.stage, a.units) for a in found] == [
        ("montage", 1), ("align", 1), ("render", 2), ("score", 2), ("graph", 1)
    ]  # fmt: skip
    assert all(o.equal for a in found for o in a.outputs)
    assert [len(a.outputs) for a in found] == [3, 3, 6, 2, 3]
    assert all(a.ok and a.differs == () for a in found)
    assert everything(project) == before
    assert list((project.state / "tmp").iterdir()) == []


def test_the_sample_is_the_seeds(history: Path) -> None:
    project = config.load(history, STAGES)
    chosen = [{o.unit for o in audit(project, ["overlap"], sample=0.03, seed=s, ranks=0)[0].outputs} for s in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_with_other_ranks_than_the_first_time(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    project = config.load(made.root, TOY)
    run_all(project)
    (paint,) = audit(project, ["paint"], sample=0.5)
    assert paint.how == "2 MPI ranks (first: serial × 1)"
    assert (paint.units, [o.equal for o in paint.outputs]) == (4, [True] * 4)


@pytest.fixture
def drifting(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "p", "dataset: {name: toy, voxel_nm: [30, 8, 8]}\n")
    project = config.load(made.root, wide.DRIFTING)
    run_all(project)
    return project


def test_a_hidden_counter_is_caught_and_measured(drifting: Project) -> None:
    before = everything(drifting)
    (found,) = audit(drifting, sample=1.0, ranks=0)
    assert not found.ok
    assert {(o.output, o.equal) for o in found.outputs} == {("noise", False), ("brightness", False)}
    noise = next(o for o in found.outputs if o.output == "noise")
    assert "1 of 262144 voxels differ" in noise.told
    assert 0 < noise.distance <= 40 / 255
    rows = next(o for o in found.outputs if o.output == "brightness")
    assert "total by" in rows.told
    assert everything(drifting) == before


def test_a_declared_tolerance_lets_pass_what_is_nearer(drifting: Project) -> None:
    (found,) = audit(drifting, sample=1.0, ranks=0, tolerance=0.2)
    assert found.ok
    assert not any(o.equal for o in found.outputs)
    assert not audit(drifting, sample=1.0, ranks=0, tolerance=1e-9)[0].ok


def test_what_cannot_be_compared_is_no_success(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    damage.resealed_record_json(own_history)
    (agglomerate,) = audit(project, ["agglomerate"], ranks=0)
    assert not agglomerate.ok
    assert "another result would prove nothing" in agglomerate.failed
    shutil.rmtree(project.data("graph"))
    (graph,) = audit(project, ["graph"])
    assert (graph.ok, graph.failed) == (False, "it has no data: `dvc repro` makes it")


def test_the_counter_is_caught_in_a_process_of_its_own(drifting: Project) -> None:
    """Where it starts again from nothing, as it did the first time."""
    program = (
        "import sys, pathlib\n"
        "from connectome_db import config\n"
        "from connectome_db.versions.trust.audit import audit\n"
        "from tests.versions.wide import DRIFTING\n"
        "(a,) = audit(config.load(pathlib.Path(sys.argv[1]), DRIFTING), sample=1.0, ranks=0)\n"
        "sys.exit(7 if a.outputs and not a.ok else 0)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(drifting.root)], cwd=root, check=False)
    assert done.returncode == 7


def test_the_command(drifting: Project, history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(root: Path, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", "-C", str(root), *words])
        return done.exit_code, done.output

    code, told = run(history, "--stage", "reconcile", "--stage", "graph", "--seed", "1", "--ranks", "0")
    assert code == 0
    assert "4 of 4 outputs came out bit-equal (--seed 1)" in told
    monkeypatch.setattr("connectome_db.cli.trust.open_project", lambda _: drifting)
    code, told = run(drifting.root, "--sample", "100%", "--ranks", "0")
    assert code == 1
    assert "beyond the tolerance" in told
    code, told = run(drifting.root, "--sample", "100%", "--ranks", "0", "--tolerance", "0.2", "--json")
    assert code == 0
    (stage,) = json.loads(told)["stages"]
    assert [o["within"] for o in stage["outputs"]] == [True] * 4


def test_another_backend_must_be_chosen_before_one_is_loaded(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", object())
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ConfigError, match="another one is loaded"):
        audit(config.load(history, STAGES), ["graph"], backend="jax")


def test_environments_are_compared_by_what_differs() -> None:
    then = {"python": "3.11", "cpu": "A", "packages": {"numpy": "2.3", "gone": "1", "same": "1"}}
    now = {"python": "3.11", "cpu": "B", "packages": {"numpy": "2.4", "new": "1", "same": "1"}}
    assert environment_differences(then, now) == [
        "cpu B, then A", "gone gone, then 1", "new 1, then not there", "numpy 2.4, then 2.3"
    ]  # fmt: skip
    assert environment_differences(now, now) == []


def test_distance_of_images() -> None:
    old = np.full((2, 4, 4), 100, np.uint8)
    new = old.copy()
    new[0, 0, :2] = (90, 151)
    found = between(IMAGE, old, new)
    assert found.value == pytest.approx(51 / 255)
    assert found.told == "2 of 32 voxels differ, by at most 51 and 1.91 on average"
    assert math.isinf(between(IMAGE, old, old[:1]).value)


def test_distance_of_labels_is_scikit_images() -> None:
    rng = np.random.default_rng(3)
    old = rng.integers(1, 9, (4, 16, 16)).astype(np.uint64)
    new = old.copy()
    new[:2, :8] = rng.integers(1, 9, (2, 8, 16))
    found = between(LABELS, old, new)
    assert found.value == pytest.approx(adapted_rand_error(old, new, ignore_labels=())[0])
    split, merge = variation_of_information(old, new)
    assert f"VI split {split:.3g} merge {merge:.3g}" in found.told
    renamed = between(LABELS, old, old + np.uint64(100))  # the same objects by other names
    assert (renamed.value, "1024 of 1024 voxels" in renamed.told) == (0.0, True)


def test_distance_of_rows() -> None:
    def rows(k: list[int], v: list[float | None], s: list[str]) -> pa.Table:
        return pa.table({"unit": pa.array([1] * len(k), pa.uint64()), "k": k, "v": pa.array(v, pa.float64()), "s": s})

    old = rows([1, 2, 3], [1.0, -2.0, None], ["a", "b", "c"])
    assert between(ROWS, old, old).value == 0
    near = between(ROWS, old, rows([1, 2, 3], [1.0, -2.1, None], ["a", "b", "c"]))
    assert near.value == pytest.approx(0.1 / 2.1)
    assert "v by 0.0476" in near.told
    for other in (
        rows([1, 2], [1.0, -2.0], ["a", "b"]),
        rows([1, 2, 4], [1.0, -2.0, None], ["a", "b", "c"]),
        rows([1, 2, 3], [1.0, None, None], ["a", "b", "c"]),
        rows([1, 2, 3], [1.0, math.nan, None], ["a", "b", "c"]),
        rows([1, 2, 3], [1.0, -2.0, None], ["a", "b", "x"]),
    ):
        assert math.isinf(between(ROWS, old, other).value)


def test_a_stage_without_outputs_beyond_tolerance_is_ok() -> None:
    assert StageAudit("s", 1, (), "here").ok
    assert not StageAudit("s", 0, (), "", failed="why").ok
