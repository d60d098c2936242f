"""Rolling one region back: its units are those of then, out of the store; all else is as before; and it is proven."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, dvcfile, ids, newproject
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.errors import ConfigError, RevisionError, RunError
from connectome_db.networks import registry
from connectome_db.prepare import prepare
from connectome_db.query.compare.changes import StageData, load_ledgers
from connectome_db.regional import regions
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.keep import oldmodels, rollback, rollbackproof
from tests.framework.conftest import digests, tree
from tests.versioned import commit_version, edit_params, run_all

CORNER_CHUNK = "supervoxels/8_8_30/0-64_0-64_0-8"


def load(root: Path) -> Project:
    return config.load(root, STAGES)


def run_here(root: Path) -> None:
    """What `dvc repro` does, in this process."""
    dvcfile.write_identity(load(root))
    run_all(load(root))


def add_far(document: dict[str, Any]) -> None:
    document["regions"]["far"] = {"box_vx": [0, 128, 128, 8, 192, 192]}
    document["overrides"]["segment"]["far"] = {"seed_window_nm": 60}


@pytest.fixture(scope="module")
def with_far(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The history with v4: a second region, far from the corner, has its own seed window."""
    root = Path(shutil.copytree(history, tmp_path_factory.mktemp("far") / "p", symlinks=True))
    edit_params(root, add_far)
    commit_version(root, "v4")
    return root


@pytest.fixture
def far(with_far: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_far, tmp_path / "p", symlinks=True))


def keys(root: Path, stage: str) -> dict[int, str]:
    t = pq.read_table(root / "data" / stage / "units.parquet")
    return dict(zip(t["unit"].to_pylist(), t["unit_key"].to_pylist(), strict=True))


def overrides(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return {s: {o.region: dict(o.values) for o in items} for s, items in load(root).overrides.items()}


@dataclass(frozen=True)
class Rolled:
    """v4 with its corner rolled back to v1: the plan, what was there before (digests of data/segment), the proof."""

    plan: rollback.Rollback
    earlier: rollbackproof.Before
    params: str
    segment: dict[str, str]
    proof: rollbackproof.Proof


@pytest.fixture(scope="module")
def rolled(with_far: Path, tmp_path_factory: pytest.TempPathFactory) -> Rolled:
    root = Path(shutil.copytree(with_far, tmp_path_factory.mktemp("rolled") / "p", symlinks=True))
    plan = rollback.plan(load(root), "corner", "v1")
    segment = tree(root / "data" / "segment")
    earlier = rollbackproof.before(plan.project, plan.target)
    proof = rollbackproof.make(plan, run_here)
    return Rolled(plan, earlier, plan.change.old, segment, proof)


def test_a_corner_goes_back_and_nothing_else_moves(rolled: Rolled) -> None:
    root, before, proof = rolled.plan.project.root, rolled.segment, rolled.proof
    then = digests(open_revision(root, "v1").files("data/segment"))
    assert proof.wrong == ()
    by_stage = {s.stage: s for s in proof.stages}
    segment = by_stage["segment"]
    assert (segment.inside, segment.as_then, segment.as_before, segment.seams) == (1, 1, 31, 0)
    assert (segment.computed, segment.source) == (0, "run")
    assert by_stage["render"].source == "not run"
    assert all(s.computed <= s.seams for s in proof.stages)
    assert all(s.as_then + s.as_before + s.seams == s.units for s in proof.stages)
    # Byte by byte, with none of the code that was just believed.
    after = tree(root / "data" / "segment")
    chunks = {n for n in after if "/" in n and not n.endswith("info")}
    assert after[CORNER_CHUNK] == then[CORNER_CHUNK] != before[CORNER_CHUNK]
    assert all(after[n] == (then if corner(n) else before)[n] for n in chunks)
    assert set(rolled.params.splitlines()) - set((root / "params.yaml").read_text().splitlines()) == {
        "    corner:",
        "      seed_window_nm: 80",
    }
    assert overrides(root) == {"segment": {"far": {"seed_window_nm": 60}}}


def test_there_and_back_again_computes_nothing(far: Path) -> None:
    before = tree(far / "data" / "segment")
    assert rollbackproof.make(rollback.plan(load(far), "corner", "v1", ["segment"]), run_here).wrong == ()
    back = rollbackproof.make(rollback.plan(load(far), "corner", "v4"), run_here)
    assert back.wrong == ()
    assert sum(s.computed for s in back.stages) == 0
    # The record lists overrides in the order of the file, which is another now.
    assert {n: b for n, b in tree(far / "data" / "segment").items() if before.get(n) != b}.keys() == {"record.json"}


def corner(name: str) -> bool:
    """Does a chunk start at the origin in y and x and z, so that it is of the corner's unit?"""
    return all(part.startswith("0-") for part in name.rpartition("/")[2].split("_"))


def test_what_changed_for_the_whole_dataset_since_makes_seams(far: Path) -> None:
    """Faces are compared with another rule today. Those of the region go back; those of the blocks above read both."""
    edit_params(far, lambda d: d["overlap"].update(min_shared_vx=3))
    run_all(load(far))
    plan = rollback.plan(load(far), "far", "v1")
    assert {p.stage: (dict(p.set), p.cleared) for p in plan.stages if p.set or p.cleared} == {
        "segment": ({}, ("seed_window_nm",)),
        "overlap": ({"min_shared_vx": 2}, ()),
    }
    proof = rollbackproof.make(plan, run_here)
    assert proof.wrong == proof.explained == ()
    by_stage = {s.stage: s for s in proof.stages}
    assert (by_stage["segment"].as_then, by_stage["segment"].seams, by_stage["segment"].computed) == (1, 0, 0)
    faces = by_stage["overlap"]
    assert (faces.inside, faces.as_then, faces.seams, faces.computed) == (2, 2, 3, 3)
    then, now = (keys(r, "overlap") for r in (open_revision(far, "v1").root, far))
    assert sum(now[u] == then[u] for u in now) == 2


@pytest.mark.slow
def test_units_inside_that_read_what_is_not_as_then_are_seams(own_history: Path) -> None:
    root = own_history
    edit_params(root, lambda d: d["segment"].update(seed_window_nm=48.0))
    run_all(load(root))
    then, before = keys(open_revision(root, "v1").root, "segment"), keys(root, "segment")
    plan = rollback.plan(load(root), "corner", "v1")
    assert {p.stage: dict(p.set) for p in plan.stages if p.set} == {"segment": {"seed_window_nm": 40.0}}
    proof = rollbackproof.make(plan, run_here)
    assert proof.wrong == ()
    assert overrides(root) == {"segment": {"corner": {"seed_window_nm": 40.0}}}
    by_stage = {s.stage: s for s in proof.stages}
    assert (by_stage["segment"].as_then, by_stage["segment"].as_before, by_stage["segment"].computed) == (1, 31, 0)
    changed = {u for u, k in keys(root, "segment").items() if k != before[u]}
    assert [keys(root, "segment")[u] for u in changed] == [then[u] for u in changed]
    # Synapses of the corner are looked for over its border, in blocks that are not as they were then.
    assert by_stage["synapses"].seams == by_stage["synapses"].computed > 0
    assert proof.explained == ("synapses: 1 units inside are seams: they read what is not as it was then",)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("0 2 2", "segment: 1 units are not equal to before, though they read nothing new: (z y x) 0 2 2"),
        ("0 0 0", "segment: 1 units are not equal to v1, though they read what was read then: (z y x) 0 0 0"),
    ],
)
def test_the_proof_finds_what_is_not_as_promised(
    rolled: Rolled, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    """A unit far away was redone, or the region's is another than it was then."""
    wanted = int(ids.pack([[int(v) for v in code.split()]])[0])

    def ledgers(root: Path) -> dict[str, StageData]:
        found = load_ledgers(root)
        if root != rolled.plan.project.root:
            return found
        units = found["segment"].units
        at = units["unit"].to_pylist().index(wanted)
        altered = ["0" * 64 if k == at else key for k, key in enumerate(units["unit_key"].to_pylist())]
        units = units.set_column(units.column_names.index("unit_key"), "unit_key", [altered])
        return found | {"segment": replace(found["segment"], units=units)}

    assert rollbackproof.prove(rolled.plan, rolled.earlier).wrong == ()
    monkeypatch.setattr(rollbackproof, "load_ledgers", ledgers)
    assert rollbackproof.prove(rolled.plan, rolled.earlier).wrong == (told,)


def test_data_that_is_not_of_todays_parameters_is_refused(own_history: Path) -> None:
    edit_params(own_history, lambda d: d["agglomerate"].update(threshold=0.7))
    plan = rollback.plan(load(own_history), "corner", "v1")
    with pytest.raises(RunError, match=r"data/agglomerate is not what .* Run `dvc repro` first"):
        rollbackproof.make(plan, run_here)
    assert "seed_window_nm: 80" in (own_history / "params.yaml").read_text()


def test_a_run_that_fails_says_how_to_go_on(own_history: Path) -> None:
    def broken(root: Path) -> None:
        raise RunError("no")

    text = (own_history / "params.yaml").read_text()
    with pytest.raises(RunError, match=f"cp {rollback.UNDO} params.yaml"):
        rollbackproof.make(rollback.plan(load(own_history), "corner", "v1"), broken)
    assert (own_history / "params.yaml").read_text() != text
    assert (own_history / rollback.UNDO).read_text() == text


def test_the_command_ends_with_1_when_something_is_not_as_promised(
    own_history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollbackproof, "make", lambda *_: rollbackproof.Proof((), ("segment: 1 units [0 0 0]",), ()))
    words = ["rollback", "--region", "corner", "--to", "v1", "-C", str(own_history)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "wrong: segment: 1 units [0 0 0]" in done.output
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["proof"]["wrong"] == [
        "segment: 1 units [0 0 0]"
    ]


def test_a_region_that_is_gone_or_moved_comes_back(history: Path, own_history: Path) -> None:
    root, text = own_history, (own_history / "params.yaml").read_text()
    regions.apply(regions.remove(load(root), "corner"))
    plan = rollback.plan(load(root), "corner", "v2")
    rollback.write(plan)
    assert load(root).overrides == load(history).overrides
    assert regions.regions(load(root))["corner"].spec.note == "weak osmium"
    (root / "params.yaml").write_text(text)
    moved = regions.parse_box("0,0,0,8,128,64", "vx")
    regions.apply(regions.add(load(root), "corner", moved, replace=True))
    rollback.write(rollback.plan(load(root), "corner", "v2"))
    assert load(root).overrides == load(history).overrides


def test_where_another_region_holds_too_the_region_comes_last(own_history: Path) -> None:
    root = own_history

    def wide(document: dict[str, Any]) -> None:
        document["regions"]["wide"] = {"box_vx": [0, 0, 0, 8, 128, 128]}
        document["overrides"]["segment"]["wide"] = {"seed_window_nm": 100, "boundary": 0.6}

    edit_params(root, wide)
    plan = rollback.plan(load(root), "corner", "v2")
    target = {o.region: dict(o.values) for o in plan.target.overrides["segment"]}
    assert list(target) == ["wide", "corner"]
    assert target["corner"] == {"seed_window_nm": 80, "boundary": 0.5}
    prepared = prepare(plan.target, load(root).stage("segment"))
    assert keys(root, "segment")[int(prepared.plan.codes[0])] == prepared.keys[0]  # v2's, v3's: the corner
    assert keys(root, "segment")[int(prepared.plan.codes[1])] != prepared.keys[1]  # the rest of `wide`


def edited(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """Make the record of `segment` at any revision another one."""

    def ledgers(root: Path) -> dict[str, StageData]:
        found = load_ledgers(root)
        record = json.loads(json.dumps(found["segment"].record))
        change(record)
        return found | {"segment": replace(found["segment"], record=record)}

    monkeypatch.setattr(rollback, "load_ledgers", ledgers)


def test_parameters_that_differed_within_the_region_are_refused(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(record: dict[str, Any]) -> None:
        record["overrides"].append({"region": "low", "box_vx": [0, 0, 0, 4, 64, 64], "params": {"boundary": 0.4}})

    edited(monkeypatch, half)
    assert rollback.plan(load(history), "corner", "v1").stages  # one unit: `low` holds in all of it
    grown = regions.add(load(history), "corner", regions.parse_box("0,0,0,10,64,64", "vx"), replace=True)
    monkeypatch.setattr(rollback.regions, "read_text", lambda _: grown.new)
    with pytest.raises(ConfigError, match="because low held in some of them only"):
        rollback.plan(load(history), "corner", "v1")


def test_what_cannot_hold_in_a_region_stays_and_is_told(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(record: dict[str, Any]) -> None:
        record["params"] |= {"halo_vx": [4, 16, 16], "boundary": 0.4, "gone": 1}
        record["code_digest"] = "0" * 64

    edited(monkeypatch, other)
    plan = rollback.plan(load(history), "corner", "v1")
    segment = next(p for p in plan.stages if p.stage == "segment")
    assert (dict(segment.set), list(segment.kept), segment.recoded) == ({"boundary": 0.4}, ["halo_vx"], True)
    told = "\n".join(plan.change.warnings)
    assert "segment.halo_vx stays [4, 32, 32]: decides how segment is cut into units" in told
    assert "the code of segment has changed since v1: its units are computed again with today's code" in told
    assert "agglomerate.threshold was 0.45 at v1 and is 0.6 today: it holds for the whole dataset" in told
    assert [p.stage for p in rollback.plan(load(history), "corner", "v1", ["mask"]).stages] == ["mask"]


def test_misspelt_names_are_told(history: Path) -> None:
    project = load(history)
    with pytest.raises(ConfigError, match="no region 'corne' today or at v1; did you mean 'corner'"):
        rollback.plan(project, "corne", "v1")
    with pytest.raises(ConfigError, match="no stage 'segmnt'; did you mean 'segment'"):
        rollback.plan(project, "corner", "v1", ["segmnt"])
    with pytest.raises(RevisionError, match="git knows no revision 'v11'"):
        rollback.plan(project, "corner", "v11")


def test_units_of_a_network_that_was_replaced_come_from_the_store(own_history: Path) -> None:
    """Today `phantom-affinity` is another network (the project has one of that name); the corner gets the old one."""
    root = own_history
    shutil.copytree(registry.BUNDLED / "ac3-affinity", root / "models" / "phantom-affinity")
    project = load(root)
    segment = project.stage("segment")
    prepared = prepare(project, segment)
    now = dict(zip(prepared.plan.codes.tolist(), prepared.keys, strict=True))
    then = keys(open_revision(root, "v1").root, "segment")
    assert not set(now.values()) & set(then.values())
    plan = rollback.plan(project, "corner", "v1")
    digest = registry.model_digest(registry.BUNDLED / "phantom-affinity")[:12]
    name = f"phantom-affinity-{digest}"
    assert {p.stage: dict(p.set) for p in plan.stages if p.set} == {"segment": {"model": name}}
    assert rollback.write(plan) == [root / "models" / name]
    prepared = prepare(load(root), segment)
    after = dict(zip(prepared.plan.codes.tolist(), prepared.keys, strict=True))
    assert {u for u in after if after[u] != now[u]} == {int(prepared.plan.codes[0])}
    assert after[int(prepared.plan.codes[0])] == then[int(prepared.plan.codes[0])]
    assert rollback.plan(load(root), "corner", "v1").change.done == ()  # it is there now


@pytest.mark.parametrize("tracked_by", ["git", "dvc"])
def test_a_network_comes_back_from_git_or_dvc(own_history: Path, tracked_by: str) -> None:
    root = own_history
    mine = root / "models" / "mine"
    shutil.copytree(registry.BUNDLED / "fib25-affinity", mine)
    card = json.loads((mine / "card.json").read_text())
    old, config_ = registry.read_weights(mine), registry.read_architecture(mine)
    changed = [(name.partition(":")[2], value * 2) for name, value in old]
    registry.write_model(mine, config_, changed, card)  # no network that comes with the package
    digest = registry.model_digest(mine)
    if tracked_by == "dvc":
        newproject.dvc(root, "add", "-q", "models/mine")
    newproject.commit(root, "A network of ours")
    newproject.run(root, "git", "tag", "m1")
    shutil.rmtree(mine)
    shutil.copytree(registry.BUNDLED / "fib25-affinity", mine)
    revision, model_id = replace(open_revision(root, "v1"), commit="m1"), f"mine@{digest[:12]}"
    found = oldmodels.find(load(root), revision, "mine", model_id)
    assert found.name == f"mine-{digest[:12]}"
    assert registry.model_digest(oldmodels.write(load(root), found)) == digest
    assert oldmodels.find(load(root), revision, "mine", model_id) == replace(found, files={})
    with pytest.raises(RevisionError, match="mine@000000000000, which v1 used, is not here today, nor in git"):
        oldmodels.find(load(root), open_revision(root, "v1"), "mine", "mine@000000000000")
    with pytest.raises(RevisionError, match="wanted mine@000000000000, but git and DVC have"):
        oldmodels.write(load(root), oldmodels.find(load(root), revision, "mine", "mine@000000000000"))


def connectome(root: Path, *words: str) -> str:
    command = [sys.executable, "-m", "connectome_db.cli.main", *words, "-C", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_with_dvc(own_history: Path) -> None:
    """From v2 to v1, parameters are v1's again: DVC's run cache has it all, and no stage is started."""
    root = own_history
    newproject.run(root, "git", "checkout", "-q", "v2")
    newproject.dvc(root, "checkout", "-q")
    reference = {n: p.read_bytes() for n, p in open_revision(root, "v1").files("data/graph").items()}
    words = ("rollback", "--region", "corner", "--to", "v1")
    assert "segment.seed_window_nm: override 80 removed" in connectome(root, *words, "--dry-run")
    assert "seed_window_nm: 80" in (root / "params.yaml").read_text()
    value = json.loads(connectome(root, *words, "--json"))
    segment = next(s for s in value["proof"]["stages"] if s["stage"] == "segment")
    assert (segment["as_then"], segment["as_before"], segment["seams"], segment["computed"]) == (1, 31, 0, 0)
    assert segment["source"] == "DVC's run cache"
    assert value["proof"]["wrong"] == []
    assert {n: (root / "data" / "graph" / n).read_bytes() for n in reference} == reference
    shown = CliRunner().invoke(app, [*words, "--no-run", "-C", str(root)])
    assert "nothing to edit: its parameters are those of then" in shown.output
