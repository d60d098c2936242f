"""Serial, MPI, Dask, parts, killed and resumed: one data tree, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectome_db import config, runner
from connectome_db.errors import ConfigError, RunError, StageError
from connectome_db.finish import finish
from tests.framework.conftest import PARAMS, make_project, run_all, tree
from tests.framework.toy import STAGES


def reload(project: config.Project) -> config.Project:
    return config.load(project.root, STAGES)


def test_a_finished_stage_records_all_six_facts(project):
    run_all(project)
    record = json.loads((project.data("counts") / "record.json").read_text())
    run = json.loads((project.provenance("counts") / "run.json").read_text())
    assert len(record["inputs"]["paint.labels"]) == 64
    assert len(run["git"]["commit"]) == 40
    assert "model_id" in record
    assert record["params"] == {"halo_vx": [1, 4, 4], "floor": 0}
    assert run["packages"]["numpy"]
    assert len(record["outputs"]["count"]) == 64
    executions = pq.read_table(project.provenance("counts") / "executions.parquet")
    assert executions.num_rows == record["units"] == 8
    assert not any(executions["reused"].to_pylist())


def test_running_again_computes_nothing(project):
    run_all(project)
    before = tree(project.root / "data")
    again = run_all(project)
    assert [o.computed for o in again.values()] == [0, 0, 0]
    assert tree(project.root / "data") == before


@pytest.mark.parametrize(
    "how",
    [{"ranks": 2, "executor": "mpi"}, {"ranks": 4, "executor": "mpi"}, {"ranks": 2, "executor": "dask"}],
    ids=["mpi-2", "mpi-4", "dask-2"],
)
def test_every_executor_gives_the_same_bytes(project, tmp_path, how):
    if how["executor"] == "dask":
        pytest.importorskip("distributed")
    run_all(project)
    other = make_project(tmp_path / "other")
    outcomes = run_all(other, **how)
    assert outcomes["paint"].computed == 8
    assert tree(other.root / "data") == tree(project.root / "data")


def test_parts_out_of_order_give_the_same_bytes(project, tmp_path):
    run_all(project)
    other = make_project(tmp_path / "other")
    for stage in other.stages:
        for part in ((2, 3), (0, 3)):
            runner.run_units(other, stage.name, part=part)
        if stage.name != "summing":
            prepared, outcome = runner.run_units(other, stage.name, part=(0, 3))
            with pytest.raises(RunError, match=r"not complete: \d+ of 8 units"):
                finish(prepared, outcome)
        runner.run_units(other, stage.name, part=(1, 3))
        finish(*runner.run_units(other, stage.name))
    assert tree(other.root / "data") == tree(project.root / "data")


def test_killed_half_way_and_resumed(project, tmp_path):
    run_all(project)
    other = make_project(tmp_path / "other")
    program = (
        "import sys, pathlib\n"
        "from connectome_db import config, runner\n"
        "from tests.framework.toy import STAGES\n"
        "import tests.framework.toy as toy\n"
        "import time\n"
        "real = runner.store_result\n"
        "def slow(*a):\n"
        "    time.sleep(0.25); return real(*a)\n"
        "runner.store_result = slow\n"
        "p = config.load(pathlib.Path(sys.argv[1]), STAGES)\n"
        "runner.run_units(p, 'paint', executor='serial')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(other.root)])
    keys = other.store / "keys" / "paint"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not keys.is_dir() or len(os.listdir(keys)) < 3):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = len(os.listdir(keys))
    assert 3 <= done < 8
    outcomes = run_all(other)
    assert outcomes["paint"].computed == 8 - done
    assert tree(other.root / "data") == tree(project.root / "data")


def test_there_and_back_computes_nothing_the_second_time(project):
    run_all(project)
    before = tree(project.root / "data")
    path = project.root / "params.yaml"
    path.write_text(PARAMS.replace("counts: {}", "counts: {floor: 300}"))
    changed = run_all(reload(project))
    assert (changed["paint"].computed, changed["counts"].computed) == (0, 8)
    path.write_text(PARAMS)
    back = run_all(reload(project))
    assert [o.computed for o in back.values()] == [0, 0, 0]
    assert tree(project.root / "data") == before


def test_a_region_recomputes_what_it_touches_and_what_reads_that(project):
    run_all(project)
    path = project.root / "params.yaml"
    path.write_text(
        PARAMS + "regions: {corner: {box_vx: [0, 0, 0, 2, 10, 10]}}\noverrides: {paint: {corner: {base: 5}}}\n"
    )
    outcomes = run_all(reload(project))
    assert outcomes["paint"].computed == 1
    assert outcomes["counts"].computed == 8  # the toy volume is 2 x 2 x 2 blocks: all are neighbours
    record = json.loads((project.data("paint") / "record.json").read_text())
    assert record["overrides"] == [{"region": "corner", "box_vx": [0, 0, 0, 2, 10, 10], "params": {"base": 5}}]


def test_equal_content_wakes_nobody(project):
    """`paint` is redone with other parameters that give the same voxels: `counts` is reused."""
    run_all(project)
    (project.root / "params.yaml").write_text(PARAMS.replace("paint: {}", "paint: {broken: harmless}"))
    outcomes = run_all(reload(project))
    assert (outcomes["paint"].computed, outcomes["counts"].computed, outcomes["summing"].computed) == (8, 0, 0)


def test_a_grown_volume_keeps_old_units_and_repeats_no_id(project):
    (project.root / "params.yaml").write_text(PARAMS.replace("counts: {}", "counts: {halo_vx: [0, 0, 0]}"))
    run_all(reload(project))
    old = pq.read_table(project.data("counts") / "count.parquet").to_pylist()
    (project.root / "params.yaml").write_text(
        "dataset: {name: toy, voxel_nm: [30, 8, 8]}\npaint: {size_vx: [8, 48, 32]}\ncounts: {halo_vx: [0, 0, 0]}\n"
    )
    grown = run_all(reload(project))
    # the size is a parameter of this toy, so `paint` is redone: with equal content, so what reads it is not
    assert grown["counts"].computed == 4
    rows = pq.read_table(project.data("counts") / "count.parquet").to_pylist()
    assert all(r in rows for r in old)
    assert len({r["label"] for r in rows}) == len(rows)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("forget", r"compute forgot \['labels'\]"),
        ("dtype", r"labels: wanted uint64\(4, 16, 16\), compute gave int64"),
        ("raise", r"ZeroDivisionError: planted\n  in paint block 0/0/0"),
    ],
)
def test_a_broken_stage_is_refused_with_its_unit(project, broken, message):
    (project.root / "params.yaml").write_text(PARAMS.replace("paint: {}", f"paint: {{broken: {broken}}}"))
    with pytest.raises(RunError, match=message):
        run_all(reload(project))
    assert not project.data("paint").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PARAMS.replace("counts: {}", "counts: {flor: 3}"), r"counts\.flor: no such parameter; did you mean 'floor'"),
        (PARAMS.replace("counts:", "cuonts:"), r"cuonts: no such section; did you mean 'counts'"),
        (PARAMS + "overrides: {paint: {nowhere: {base: 2}}}\n", r"nowhere: no such region"),
        (PARAMS + "regions: {r: {box_nm: [0, 0, 0, 0, 1, 1]}}\n", r"the box is empty"),
        (PARAMS + "regions: {r: {note: hm}}\n", r"exactly one of box_nm and box_vx"),
        ("dataset: {name: toy\n", r"params.yaml, line 2: not valid YAML"),
    ],
)
def test_a_wrong_params_file_says_what_is_wrong(project, text, message):
    (project.root / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        reload(project)


def test_an_override_of_a_once_stage_is_refused(project):
    run_all(project)
    (project.root / "params.yaml").write_text(
        PARAMS + "regions: {r: {box_vx: [0, 0, 0, 2, 2, 2]}}\noverrides: {summing: {r: {}}}\n"
    )
    with pytest.raises(ConfigError, match="summing runs once for the whole dataset"):
        run_all(reload(project))


def test_two_runs_at_once_are_refused_and_parts_share(project):
    refused = pytest.raises(RunError, match="being run already")
    with runner.locked(project, "paint"), refused, runner.locked(project, "paint"):
        pass
    with runner.locked(project, "paint", shared=True), runner.locked(project, "paint", shared=True):
        pass


def test_a_stage_whose_input_is_not_there_says_what_to_run(project):
    with pytest.raises(RunError, match="dvc repro paint"):
        runner.run_units(project, "counts")


def test_no_git_commit_no_run(tmp_path: Path):
    project = make_project(tmp_path / "p")
    subprocess.run(["rm", "-rf", str(project.root / ".git")], check=True)
    with pytest.raises(RunError, match="git revision is one of the facts"):
        runner.run_units(project, "paint")


def test_one_unit_failing_keeps_the_others(project, monkeypatch):
    real = runner.store_result

    def one_fails(store, prepared, block, result):
        if block.unit.position == (1, 1, 1):
            raise StageError("planted")
        return real(store, prepared, block, result)

    monkeypatch.setattr(runner, "store_result", one_fails)
    with pytest.raises(RunError, match=r"1 of 8 units failed"):
        runner.run_units(project, "paint")
    monkeypatch.setattr(runner, "store_result", real)
    _, outcome = runner.run_units(project, "paint")
    assert outcome.computed == 1
