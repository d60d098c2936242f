"""`plan` on the small real project: before edits of parameters, code, models and tiles, and against the runs after."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import codedigest, config, revisions
from connectome_db.cli.main import app
from connectome_db.geometry import Box
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.plan import report
from connectome_db.versions.plan.forecast import forecast
from connectome_db.versions.plan.foresee import PERHAPS, REUSED, STORED, SURE, Foresight, StageAhead, foresee
from tests.edits import append_section, change_tile
from tests.framework.conftest import git, tree
from tests.versioned import edit_params, run_all
from tests.versions.test_plan import check_against_run, states

CORNER = Box((0, 0, 0), (8, 64, 64))
NM = (30, 8, 8)


def look(root: Path, **how: Any) -> Foresight:
    return foresee(config.load(root, STAGES), **how)


def of(seen: Foresight, name: str) -> StageAhead:
    return next(s for s in seen.stages if s.stage == name)


def grid(root: Path) -> list[Box]:
    """The blocks of the volume, from its bounds and the block size, without the planner."""
    bounds = Box((0, 0, 0), tuple(revisions.open_revision(root).record("render")["bounds"][3:]))  # type: ignore[arg-type]
    z, y, x = bounds.hi
    corners = [(a, b, c) for a in range(0, z, 8) for b in range(0, y, 64) for c in range(0, x, 64)]
    return [Box(k, (k[0] + 8, k[1] + 64, k[2] + 64)).clip(bounds) for k in corners]


def stale_cores(stage: StageAhead) -> set[tuple[int, ...]]:
    return {tuple(c) for c in stage.plan.cores[stage.stale].tolist()}


def reseed(document: dict[str, Any]) -> None:
    """A value that was never used, in the region of versions 2 and 3."""
    document["overrides"]["segment"]["corner"]["seed_window_nm"] = 90


def test_an_override_in_a_corner(own_history: Path) -> None:
    edit_params(own_history, reseed)
    seen = look(own_history)
    # Who reads the block: itself; faces it bounds; blocks one voxel above it; blocks within the halo of 300 nm.
    halo = [int(np.ceil(300 / n)) for n in NM]
    expected = {
        "score": {b.flat() for b in grid(own_history) if b.grow((1, 1, 1)).touches(CORNER)},
        "synapses": {b.flat() for b in grid(own_history) if b.grow((halo[0], halo[1], halo[2])).touches(CORNER)},
    }
    assert states(seen)["segment"] == (31, 0, 0, 1)
    assert stale_cores(of(seen, "segment")) == {CORNER.flat()}
    assert states(seen)["overlap"] == (61, 0, 3, 0)
    for name, cores in expected.items():
        assert 1 < len(cores) < 32
        assert of(seen, name).count(PERHAPS) == len(of(seen, name).stale) == len(cores)
        assert stale_cores(of(seen, name)) == cores
    assert report.why(of(seen, "segment"), ()) == ["seed_window_nm 80 → 90 in corner"]
    assert report.why(of(seen, "synapses"), ()) == ["input: segment"]
    assert sum(s.count(SURE) for s in seen.stages) == 1
    outcomes = run_all(config.load(own_history, STAGES))
    check_against_run(seen, outcomes)
    assert outcomes["segment"].computed == 1


@pytest.mark.parametrize("tag", ["v1", "v2"])
def test_an_old_version_is_taken_from_the_store_all_the_way_down(own_history: Path, tag: str) -> None:
    git(own_history, "checkout", tag, "--", "params.yaml")
    seen = look(own_history)
    assert {s.stage for s in seen.stages if len(s.stale)} == set()
    assert of(seen, "agglomerate").count(STORED) == of(seen, "graph").count(STORED) == 1
    assert of(seen, "segment").count(STORED) == (1 if tag == "v1" else 0)
    assert {o.computed for o in run_all(config.load(own_history, STAGES)).values()} == {0}


def test_without_data_all_is_taken_from_the_store(own_history: Path) -> None:
    """Also the parts that `align` files by section, which only its blob can tell."""
    shutil.rmtree(own_history / "data")
    seen = look(own_history)
    assert all(s.count(STORED) == len(s.plan) and not s.guessed for s in seen.stages)
    assert sum(len(s.plan) for s in seen.stages) == 309


def test_one_parameter_of_a_stage_that_runs_once(own_history: Path) -> None:
    edit_params(own_history, lambda d: d["agglomerate"].update(threshold=0.5))
    seen = look(own_history)
    assert {s.stage: report.why(s, ()) for s in seen.stages if len(s.stale)} == {
        "agglomerate": ["threshold 0.6 → 0.5"],
        "graph": ["input: agglomerate"],
        "measure_graph": ["input: agglomerate, graph"],
        "flag": ["input: measure_graph"],
    }
    check_against_run(seen, run_all(config.load(own_history, STAGES)))


def test_another_network_in_a_region(history: Path) -> None:
    document = config.parse_yaml((history / "params.yaml").read_text(), "params.yaml")
    document["overrides"]["segment"]["corner"]["model"] = "ac3-affinity"
    project = config.load(history, STAGES, json.dumps(document))
    segment = of(foresee(project, ["segment"]), "segment")
    assert (segment.count(SURE), segment.count(REUSED)) == (1, 31)
    assert segment.reasons.combinations() == {"model": 1}
    (change,) = segment.reasons.change_counts()
    assert change.region == "corner"
    assert change.old.startswith("phantom-affinity@")
    assert change.new.startswith("ac3-affinity@")


# Code ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(own_history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout of the package that code digests are taken from; the project was run at its commit."""
    root = tmp_path / "checkout"
    source = codedigest.package_root() / "connectome_db"
    shutil.copytree(source, root / "connectome_db", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "as it was")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    for run in own_history.glob("provenance/*/run.json"):
        facts = json.loads(run.read_text())
        facts["code"]["git"] = {"commit": commit.strip(), "dirty": False, "diff_sha256": None}
        run.write_text(json.dumps(facts))
    monkeypatch.setattr(codedigest, "package_root", lambda: root)
    codedigest.closure.cache_clear()
    yield root
    codedigest.closure.cache_clear()


def edit(root: Path, module: str, old: str, new: str) -> None:
    path = root / "connectome_db" / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    codedigest.closure.cache_clear()


def test_a_comment_and_a_docstring_change_nothing(own_history: Path, checkout: Path) -> None:
    edit(checkout, "kernels/contact", "from __future__", "# a remark\nfrom __future__")
    edit(checkout, "stages/segment", '"""Supervoxels, affinities and aprons of one block."""', '"""Other words."""')
    seen = look(own_history)
    assert all(s.count(REUSED) == len(s.plan) for s in seen.stages)


def test_an_edit_of_a_kernel_reaches_the_stages_that_import_it(own_history: Path, checkout: Path) -> None:
    edit(checkout, "kernels/contact", "import numpy as np", "import numpy as np\n\nUNUSED = 3")
    seen = look(own_history)
    assert {s.stage for s in seen.stages if "code" in s.reasons.counts()} == {"score"}
    assert of(seen, "score").reasons.code == ("kernels.contact",)
    assert report.why(of(seen, "score"), ()) == ["code: kernels.contact"]
    run = own_history / "provenance" / "score" / "run.json"
    run.write_text(run.read_text().replace('"dirty": false', '"dirty": true'))
    assert of(look(own_history), "score").reasons.code == ("kernels.contact?",)
    assert states(seen)["score"] == (0, 0, 0, 32)
    after = {"agglomerate", "graph", "measure_volume", "measure_graph", "flag"}
    assert {s.stage for s in seen.stages if s.count(PERHAPS)} == after
    outcomes = run_all(config.load(own_history, STAGES))  # the code that runs is the old one: equal contacts
    check_against_run(seen, outcomes)
    assert (outcomes["score"].computed, outcomes["agglomerate"].computed) == (32, 0)


def test_code_and_input_are_told_apart(own_history: Path, checkout: Path) -> None:
    """The corner's own block, and only it, has a new parameter; all have new code; no input of theirs changed."""
    edit(checkout, "kernels/watershed", "import numpy as np", "import numpy as np\n\nUNUSED = 3")
    edit_params(own_history, reseed)
    segment = of(look(own_history), "segment")
    assert segment.reasons.combinations() == {"code": 31, "parameter+code": 1}
    for run in own_history.glob("provenance/*/run.json"):  # run from an installed package: no commit to compare with
        facts = json.loads(run.read_text())
        facts["code"]["git"] = None
        run.write_text(json.dumps(facts))
    segment = of(look(own_history), "segment")
    assert report.why(segment, ()) == ["seed_window_nm 80 → 90 in corner (1)", "code"]


# Tiles --------------------------------------------------------------------------------------------------------------


def test_a_changed_tile(own_history: Path) -> None:
    change_tile(own_history, 4, 0, (20, 20))
    seen = look(own_history)
    assert seen.sections == (4,)
    assert states(seen)["ingest"] == (9, 0, 0, 1)
    assert report.why(of(seen, "ingest"), seen.sections) == ["input: raw section 4"]
    assert states(seen)["montage"] == (9, 0, 1, 0)
    match = of(seen, "match")
    pairs = {(z, z + dz) for z in range(10) for dz in (1, 2) if z + dz < 10}
    assert len(match.plan) == len(pairs)
    assert len(match.stale) == len([p for p in pairs if 4 in p]) == 4
    assert of(seen, "align").guessed == ""
    assert {s.guessed for s in seen.stages[4:]} == {"align"}


@pytest.mark.slow
def test_a_new_section_and_a_changed_tile_and_then_the_run(own_history: Path) -> None:
    change_tile(own_history, 4, 0, (20, 20))
    append_section(own_history, seed=1)
    seen = look(own_history)
    assert seen.sections == (4, 10)
    assert states(seen)["ingest"] == (9, 0, 0, 2)
    assert of(seen, "ingest").reasons.combinations() == {"new": 1, "input": 1}
    # the new section was never seen: what is made of it is sure, even while what it reads is not there yet
    assert states(seen)["montage"] == (9, 0, 1, 1)
    assert states(seen)["match"] == (13, 0, 4, 2)
    assert of(seen, "align").reasons.combinations() == {"input+extent": 1}
    for stage in seen.stages[4:]:
        assert stage.guessed == "align"
        assert stage.count(SURE) == 0
    text = " ".join(report.hints(seen, forecast(seen)))
    assert "not known before align has run" in text
    check_against_run(seen, run_all(config.load(own_history, STAGES)))
    assert all(s.count(REUSED) == len(s.plan) for s in look(own_history).stages)


def test_before_the_first_run_the_volume_is_estimated_from_the_stage_positions(history: Path, tmp_path: Path) -> None:
    root = tmp_path / "p"
    shutil.copytree(history, root, ignore=shutil.ignore_patterns(".connectome", "data", "provenance"))
    seen = look(root)
    assert {s.stage: s.count(SURE) for s in seen.stages if not s.guessed} == {
        "ingest": 10, "montage": 10, "match": 17, "align": 1,
    }  # fmt: skip
    assert len(of(seen, "render").plan) == len(of(seen, "synapses").plan) == 32
    assert of(seen, "render").count(PERHAPS) == 32
    append_section(root, seed=1)
    assert len(of(look(root), "match").plan) == 19


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_changes_nothing_and_works_from_a_subfolder(
    own_history: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edit_params(own_history, reseed)
    before = tree(own_history)
    monkeypatch.chdir(own_history / "data" / "segment")
    png = tmp_path / "plan.png"
    done = CliRunner().invoke(app, ["plan", "--json", "--roi", "corner", "--list", "2", "--picture", str(png)])
    assert done.exit_code == 0, done.output
    found = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert (found["segment"]["units"], found["segment"]["sure"]) == (1, 1)
    assert found["segment"]["list"][0]["core_vx"] == list(CORNER.flat())
    assert png.stat().st_size > 5000
    after = tree(own_history)
    assert {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)} <= {".connectome/scan.parquet"}
    table = CliRunner().invoke(app, ["plan", "segment", "--roi", "0,0,0,240,512,512", "--roi-unit", "nm"])
    assert "To compute: 1 unit" in table.output
    for wrong, said in (("1,2,3", "wanted six numbers"), ("cornr", "did you mean 'corner'")):
        failed = CliRunner().invoke(app, ["plan", "--roi", wrong])
        assert said in str(failed.exception)


def test_the_times_are_those_of_the_units(history: Path) -> None:
    text = json.loads(CliRunner().invoke(app, ["plan", "-C", str(history), "--json"]).stdout)
    assert text["forecast"]["work_s"] == [0.0, 0.0]
    seconds = pq.read_table(history / "provenance" / "agglomerate" / "executions.parquet")["seconds"].to_pylist()
    document = config.parse_yaml((history / "params.yaml").read_text(), "params.yaml")
    document["agglomerate"]["threshold"] = 0.7
    project = config.load(history, STAGES, json.dumps(document))
    time = forecast(foresee(project, ["agglomerate"])).stages[0]
    assert time.work_s.low == time.work_s.high == pytest.approx(seconds[0])
