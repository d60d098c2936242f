"""The whole pipeline, over every stage: however it is run, `data/` is the same, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ruamel.yaml import YAML

from connectome_db import config, executors, newproject, runner
from connectome_db.errors import ConfigError
from connectome_db.finish import finish
from connectome_db.stages.pipeline import STAGES
from tests import edits
from tests.network_answers import remembered
from tests.pipeline.conftest import copy_of, differing, killed_midway, run_stages


def change(project: config.Project, edit) -> config.Project:
    path = project.root / "params.yaml"
    yaml = YAML()
    document = yaml.load(path.read_text())
    edit(document)
    with path.open("w") as f:
        yaml.dump(document, f)
    return config.load(project.root, STAGES)


def test_the_reference_has_everything(done):
    import pyarrow.parquet as pq

    for stage in STAGES:
        assert (done.data(stage.name) / "record.json").exists()
    assert pq.read_table(done.data("segment") / "supervoxel.parquet").num_rows > 50
    assert len(pq.read_table(done.data("segment") / "units.parquet")) >= 8


def test_two_ranks(done, template, tmp_path):
    """As users run it: ranks start anew for every stage."""
    project = copy_of(template, tmp_path / "p")
    run_stages(project, ranks=2)
    assert differing(project.root / "data", done.root / "data") == []


def test_four_ranks(done, template, tmp_path):
    """Four workers in one job over all stages."""
    project = copy_of(template, tmp_path / "p")
    code = executors.start_ranks(["mpiexec", "-n", "5"], ["-m", "tests.pipeline.one_job", str(project.root)], "")
    assert code == 0
    executed = json.loads((project.root / "executors.json").read_text())
    assert {name for name, executor in executed.items() if executor == "mpi"} >= {"match", "segment", "synapses"}
    assert set(executed) == {stage.name for stage in STAGES}
    assert differing(project.root / "data", done.root / "data") == []


def test_dask(done, template, tmp_path):
    """Two workers of Dask."""
    project = copy_of(template, tmp_path / "p")
    run_stages(project, ranks=2, executor="dask")
    assert differing(project.root / "data", done.root / "data") == []


def test_parts_out_of_order(done, template, tmp_path):
    project = copy_of(template, tmp_path / "p")
    with remembered():
        for stage in STAGES:
            for part in ((2, 3), (0, 3), (1, 3)):
                prepared, outcome = runner.run_units(project, stage.name, part=part)
            finish(prepared, outcome)
    assert differing(project.root / "data", done.root / "data") == []


def test_killed_and_resumed(done, template, tmp_path):
    """`kill -9` in the middle of `segment`, wherever it is; then run again."""
    project = copy_of(template, tmp_path / "p")
    for name in ("ingest", "montage", "match", "align", "render", "mask"):
        finish(*runner.run_units(project, name))
    done_units = killed_midway(project, "segment")
    total = len(runner.prepare.prepare(project, project.stage("segment")).plan)
    assert 0 < done_units < total
    outcomes = run_stages(project)
    assert outcomes["segment"].computed == total - done_units
    assert differing(project.root / "data", done.root / "data") == []


EDITS = {
    "a region's segmentation": lambda d: (
        d["regions"].update({"corner": {"box_vx": [0, 0, 0, 4, 40, 40]}}),
        d["overrides"].update({"segment": {"corner": {"seed_window_nm": 60.0}}}),
    ),
    "a montage parameter": lambda d: d["montage"].update({"shape_prior": 3.0}),
    "the merge threshold": lambda d: d["agglomerate"].update({"threshold": 0.6}),
    "a synapse parameter in a region": lambda d: (
        d["regions"].update({"half": {"box_nm": [0, 0, 0, 120, 5000, 600]}}),
        d["overrides"].update({"synapses": {"half": {"high": 0.85}}}),
    ),
}


def test_edits_one_after_another_redo_what_they_touch(done, tmp_path):
    """Random order, each on top of the last. That the result is that from scratch is tested in test_incremental."""
    project = copy_of(done.root, tmp_path / "p", with_work=True)
    order = np.random.default_rng(int(os.environ.get("EDIT_SEED", "1"))).permutation(sorted(EDITS))
    computed = {}
    for name in order:
        project = change(project, EDITS[str(name)])
        computed[str(name)] = {s: o.computed for s, o in run_stages(project).items()}
    # it was incremental: no stage above the edit did anything, and a region touched some blocks, not all
    total = {s.name: len(runner.prepare.prepare(done, s).plan) for s in STAGES}
    region = computed["a region's segmentation"]
    assert all(region[s] == 0 for s in ("ingest", "montage", "match", "align", "render", "mask"))
    assert 0 < region["segment"] < total["segment"]
    merge = computed["the merge threshold"]
    # `graph` runs again only if some supervoxel changed its object; `measure_graph` reads the border cases too
    assert merge["agglomerate"] == 1
    assert {s for s, n in merge.items() if n} <= {"agglomerate", "graph", "measure_graph", "flag"}
    back = change(project, lambda d: d["agglomerate"].update({"threshold": 0.61}))
    run_stages(back)
    again = change(project, lambda d: d["agglomerate"].update({"threshold": 0.6}))
    assert sum(o.computed for o in run_stages(again).values()) == 0


def test_a_changed_tile_wakes_only_what_can_see_it(done, tmp_path):
    """One raw tile's bytes change; sections and pairs without it are reused."""
    project = copy_of(done.root, tmp_path / "p", with_work=True)
    edits.change_tile(project.root, 9, 0, (10, 10), 10)
    outcomes = run_stages(project)
    assert outcomes["ingest"].computed == 1
    assert outcomes["montage"].computed == 1
    assert outcomes["match"].computed == 2  # (7, 9) and (8, 9)


def test_dvc_repro_runs_and_then_has_nothing_to_do(template, tmp_path):
    """The pipeline as users start it, with the connectome command of this interpreter."""
    from connectome_db.newproject import repro

    project = copy_of(template, tmp_path / "p")
    repro(project.root, "render")
    before = (project.root / "dvc.lock").read_bytes()
    repro(project.root, "render")
    assert (project.root / "dvc.lock").read_bytes() == before
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "render"], cwd=project.root, capture_output=True, text=True, check=True
    )
    assert "data/render" not in done.stdout
    newproject.run(project.root, "git", "add", ".")


def test_a_region_cannot_change_how_a_stage_is_cut_into_units(done, tmp_path):
    """Written into params.yaml by hand; the command refuses it too."""
    project = copy_of(done.root, tmp_path / "p", with_work=True)
    cut = change(project, EDITS["a region's segmentation"])
    cut = change(cut, lambda d: d["overrides"]["segment"]["corner"].update({"block_vx": [8, 32, 32]}))
    with pytest.raises(ConfigError, match=r"overrides\.segment\.corner: .*block_vx: decides how segment is cut"):
        runner.run_units(cut, "segment")
