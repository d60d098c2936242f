"""What `verify` says of projects that nothing is wrong with, and of what is no damage. Planted damage: test_repair."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, ledger, runner, tables
from connectome_db import store as store_module
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.errors import ConfigError
from connectome_db.finish import finish
from connectome_db.geometry import Box
from connectome_db.stages.pipeline import STAGES
from connectome_db.store import Store, checksum
from connectome_db.versions.trust.findings import Problem, swapped
from connectome_db.versions.trust.repair import repair
from connectome_db.versions.trust.trees import locked_outs, open_tree
from connectome_db.versions.trust.verify import Options, choose_units, verify
from tests.framework.conftest import make_project, run_all, tree
from tests.framework.toy import STAGES as TOY
from tests.versioned import edit_params
from tests.versions import damage


def notes(project: Project, *stages: str, options: Options | None = None) -> list[str]:
    """Remarks of a check that finds nothing wrong."""
    report = verify(project, stages, options)
    assert report.problems == []
    return [n for s in report.stages for n in s.notes]


def test_nothing_is_wrong_with_a_good_project(history: Path) -> None:
    project = config.load(history, STAGES)
    before = {k: tree(history / k) for k in ("data", "provenance", ".connectome/store", ".dvc/cache")}
    report = verify(project, (), Options(store=True))
    assert report.problems == []
    assert [n for s in report.stages for n in s.notes] == []
    assert {s.stage for s in report.stages} == {*(s.name for s in STAGES), "store"}
    for s in report.stages[:-1]:
        units = pq.read_table(project.data(s.stage) / "units.parquet").num_rows
        assert s.units == s.decoded == units
    keys = sum(len(list((history / ".connectome/store/keys" / s.name).iterdir())) for s in STAGES)
    assert sum(s.units for s in report.stages) == keys  # units of v1 and v2 too
    assert {k: tree(history / k) for k in before} == before


def test_an_older_version_that_is_checked_out_is_right_too(own_history: Path) -> None:
    for command in (["git", "checkout", "-q", "v1"], [sys.executable, "-m", "dvc", "checkout", "-q"]):
        subprocess.run(command, cwd=own_history, check=True, capture_output=True)
    project = config.load(own_history, STAGES)
    assert notes(project, "segment", "agglomerate", "graph") == []
    damage.edited_record_json(own_history)
    assert [p.wanted for p in verify(project, ["agglomerate"]).problems] == ["params.threshold = 0.45"]


def test_edited_parameters_and_what_is_not_committed_are_no_damage(own_history: Path) -> None:
    edit_params(own_history, lambda d: d["agglomerate"].update(threshold=0.5))
    project = config.load(own_history, STAGES)
    assert notes(project, "agglomerate") == []  # data/ is still what v3 was
    finish(*runner.run_units(project, "agglomerate"))
    assert "dvc.lock names other records" in notes(project, "agglomerate")[0]
    assert [(p.what, p.place) for p in verify(project, ["graph"]).problems] == [("stale", "stale")]
    done = repair(project, verify(project, ["graph"]))
    assert done.mended == ()  # what is stale is run, not repaired
    damage.bit_in_store(own_history)
    assert [p.what for p in verify(project, ["segment"]).problems] == ["damaged chunk"]


def test_what_was_committed_while_it_was_damaged_is_told_until_it_is_committed_again(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    chunk = damage.bit_in_data(own_history)
    table = damage.value_in_table(own_history)
    (own_history / "data/mask/odd.txt").write_text("odd")
    dvc = [sys.executable, "-m", "dvc", "commit", "-f", "-q"]
    subprocess.run(dvc, cwd=own_history, check=True, capture_output=True)
    lock = {("committed otherwise", path) for _, path in chunk | table} | {("committed otherwise", "data/mask")}
    report = verify(project, ["segment", "score", "mask"])
    there = {(p.what, p.path) for p in report.problems}
    assert there == chunk | table | lock | {("foreign file", "data/mask/odd.txt")}
    repair(project, report)
    left = verify(project, ["segment", "score", "mask"])
    assert {(p.what, p.path) for p in left.problems} == lock
    subprocess.run(dvc, cwd=own_history, check=True, capture_output=True)
    assert verify(project, ["segment", "score", "mask"], Options(store=True)).ok


def test_raw_tiles_are_told_and_left_alone(own_history: Path) -> None:
    tile = sorted((own_history / "raw").rglob("*.png"))[3]
    damage.flip(tile)
    there = tile.read_bytes()
    project = config.load(own_history, STAGES)
    report = verify(project, ["ingest", "render"])
    recorded = pq.read_table(project.data("ingest") / "tile.parquet").to_pylist()
    row = next(r for r in recorded if str(tile).endswith(r["tile"]))
    assert [(p.what, p.path, p.unit) for p in report.problems] == [
        ("changed tile", str(tile.relative_to(own_history)), f"section {row['section']}")
    ]
    assert row["sha256"] in report.problems[0].wanted
    repair(project, report)
    assert tile.read_bytes() == there
    assert not verify(project, ["ingest"]).ok


def test_data_without_its_store_is_checked_alone(own_history: Path) -> None:
    """As after `dvc pull` in a fresh clone."""
    shutil.rmtree(own_history / ".connectome")
    project = config.load(own_history, STAGES)
    told = notes(project, "render", "segment")
    assert any("none of its units is in this store" in n for n in told)
    rows = damage.bit_in_pyramid_of_data(own_history)
    assert {(p.what, p.path) for p in verify(project, ["render"]).problems} == rows


def test_records_without_a_checksum_are_taken_and_told(own_history: Path) -> None:
    for path in (own_history / ".connectome/store/keys/reconcile").iterdir():
        value = json.loads(path.read_text())
        assert value.pop("check") == checksum(value)
        path.write_text(json.dumps(value, sort_keys=True))
    assert "without checksums" in notes(config.load(own_history, STAGES), "reconcile")[0]


def test_a_unit_computed_again_by_another_run_is_told(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    path, _ = damage.record(own_history, "score", 3)
    path.unlink()
    runner.run_units(project, "score")
    assert any("computed again after this data was made" in n for n in notes(project, "score"))


def test_a_damaged_shard_is_one_row_and_is_written_anew(own_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GATHER_AT", 3)
    project = config.load(own_history, STAGES)
    Store(project.store).gather("overlap")
    assert notes(project, "overlap") == []
    (shard,) = (project.store / "shards" / "overlap").iterdir()
    damage.overwrite(shard, shard.read_bytes()[:-30])
    report = verify(project, ["overlap"])
    assert [(p.what, p.path) for p in report.problems] == [("damaged records", *damage.shown(own_history, shard))]
    assert [m for m in repair(project, report).mended if m.failed] == []
    assert notes(project, "overlap") == []


def test_what_lies_beyond_data(own_history: Path) -> None:
    """A unit of version 1 that data/ does not hold, an environment, a stray file, and an object of DVC's cache."""
    project = config.load(own_history, STAGES)
    now = {k for s in STAGES for k in damage.keys(own_history, s.name)}
    old = [p for p in sorted((project.store / "keys" / "segment").iterdir()) if p.stem not in now]
    blob = json.loads(old[0].read_text())["outputs"]["supervoxels"]["blob"]
    chunk = next(p for p in Store(project.store).blob(blob).rglob("*") if p.is_file())
    damage.flip(chunk)
    environment = next((project.store / "environments").iterdir())
    facts = environment.read_bytes()
    environment.unlink()
    missing = verify(project, ["segment"], Options(store=True))
    assert [(p.what, p.path) for p in missing.problems if p.place == "environment"] == [
        ("missing record", *damage.shown(own_history, environment))
    ]
    environment.write_bytes(facts)
    damage.edit_json(environment, lambda v: v.update(os="other"))
    stray = project.store / "stray.txt"
    stray.write_text("?")
    lock = subprocess.run(["git", "show", "v1:dvc.lock"], cwd=own_history, capture_output=True, text=True, check=True)
    md5 = next(w for w in lock.stdout.split() if w.endswith(".dir") and w not in (own_history / "dvc.lock").read_text())
    listing = own_history / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    damage.flip(listing)
    assert notes(project, "segment") == []
    report = verify(project, ["segment"], Options(store=True))
    assert {(p.place, p.path) for p in report.problems} == {
        ("spare", *damage.shown(own_history, Store(project.store).blob(blob))),
        ("environment", *damage.shown(own_history, environment)),
        ("foreign", *damage.shown(own_history, stray)),
        ("cache", *damage.shown(own_history, listing)),
    }
    failed = [m.what for m in repair(project, report).mended if m.failed]
    assert failed == damage.shown(own_history, listing)  # no other copy of it exists
    left = verify(project, ["segment"], Options(store=True))
    assert [p.path for p in left.problems] == failed


def test_a_blob_that_a_unit_of_data_shares_is_never_dropped(own_history: Path) -> None:
    """Units with equal content share a blob; seen by sample only, it may be another version's as well."""
    project = config.load(own_history, STAGES)
    now = damage.keys(own_history, "segment")
    old = [p for p in sorted((project.store / "keys" / "segment").iterdir()) if p.stem not in now]
    gone = json.loads(old[0].read_text())["outputs"]
    outputs = [damage.record(own_history, "segment", i)[1]["outputs"] for i in range(len(now))]
    shared = [(n, o[n]["blob"]) for o in outputs for n in gone if gone[n]["blob"] == o[n]["blob"]]
    assert shared
    path = next(p for p in Store(project.store).blob(shared[0][1]).rglob("*") if p.is_file())
    damage.overwrite(path, b"x")
    whole = tree(own_history / "data")
    everything = Options(store=True)
    report = verify(project, ["segment"], everything)
    assert {p.path for p in report.problems} == {*damage.shown(own_history, path)}
    repair(project, report)
    assert verify(project, ["segment"], everything).problems == []
    assert tree(own_history / "data") == whole


def test_seals_of_other_versions(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    folder = next(
        f for f in ledger.folders(project.store, "agglomerate") if f.name != ledger.name_of(project.data("agglomerate"))
    )
    units, run = folder / "units.parquet", next(folder.glob("provenance-*.json"))
    there = units.read_bytes()
    damage.edit_table(units, "unit_key", 0, "a" * 64)
    damage.edit_json(run, lambda v: v.update({"run.json": "b" * 64}))
    report = verify(project, ["agglomerate"])
    assert {p.path for p in report.problems} == {*damage.shown(own_history, units, run)}
    repair(project, report)
    assert verify(project, ["agglomerate"]).problems == []
    assert units.read_bytes() == there  # which DVC's cache had
    damage.edit_json(folder / "seal.json", lambda v: v.update({"record.json": "c" * 64}))
    done = repair(project, verify(project, ["agglomerate"]))
    assert [m.failed for m in done.mended] == [True]
    assert "check that out" in done.mended[0].how


def test_quick_sees_sizes_and_seals_and_says_that_it_sees_no_more(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    rows = damage.edited_run(own_history) | damage.no_chunk(own_history) | damage.cut_part(own_history)
    rows |= damage.value_in_sections(own_history)
    damage.bit_in_store(own_history)
    report = verify(project, (), Options(quick=True))
    assert {p.path.removesuffix("/rows.parquet") for p in report.problems} == {
        path.removesuffix("/rows.parquet") for _, path in rows
    }
    assert sum(s.decoded for s in report.stages) == 0


def test_a_sample_is_reproducible_and_at_least_one(history: Path) -> None:
    project = config.load(history, STAGES)
    tree = open_tree(project, project.stage("segment"), locked_outs(history))
    units = tree.units
    assert units is not None
    chosen = [choose_units(units, Options(sample=s, seed=k)) for s, k in ((0.25, 1), (0.25, 1), (0.25, 2), (1e-9, 1))]
    assert [c.sum() for c in chosen] == [8, 8, 8, 1]
    assert (chosen[0] == chosen[1]).all()
    assert (chosen[0] != chosen[2]).any()
    # every unit is in some sample: nothing is left out for good
    assert np.any([choose_units(units, Options(sample=0.25, seed=k)) for k in range(40)], axis=0).all()
    corner = choose_units(units, Options(box=Box((0, 0, 0), (8, 64, 65))))
    assert [units.title(i) for i in np.flatnonzero(corner)] == ["block 0/0/0", "block 0/0/1"]
    with pytest.raises(ConfigError, match="share above 0"):
        verify(project, (), Options(sample=0))


def test_only_what_was_chosen_is_decoded(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    damage.bit_in_store(own_history)  # of block 0/1/1
    here, there = Box((0, 64, 64), (8, 128, 128)), Box((0, 0, 0), (8, 64, 64))
    assert not verify(project, ["segment"], Options(box=here)).ok
    assert verify(project, ["segment"], Options(box=there)).ok


def test_a_table_of_many_row_groups_is_read_where_its_units_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP", 3)
    project = config.load(make_project(tmp_path / "p").root, TOY)
    run_all(project)
    path = project.data("counts") / "count.parquet"
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 2
    units = pq.read_table(project.data("counts") / "units.parquet")["unit"].to_pylist()
    wrong = file.read_row_group(1)["unit"][0].as_py()
    table = pq.read_table(path)
    row = table["unit"].to_pylist().index(wrong)
    voxels = table["voxels"].to_pylist()
    voxels[row] += 1
    at = table.column_names.index("voxels")
    changed = table.set_column(at, table.schema.field("voxels"), pa.array(voxels, pa.int64()))
    for group in (3, 5, 100):  # also where groups end within units
        path.unlink()
        pq.write_table(changed, path, row_group_size=group)
        found = []
        for seed in range(12):
            options = Options(sample=0.25, seed=seed)
            tree = open_tree(project, project.stage("counts"), {})
            assert tree.units is not None
            chosen = bool(choose_units(tree.units, options)[units.index(wrong)])
            report = verify(project, ["counts"], options)
            assert [p.code for p in report.problems if p.what == "damaged rows"] == [wrong] * chosen
            found.append(chosen)
        assert any(found)
        assert not all(found)


def test_toy_stages_outside_dvc(tmp_path: Path) -> None:
    made = make_project(tmp_path / "p")
    project = config.load(made.root, TOY)
    run_all(project)
    assert notes(project) == []
    path = project.data("paint") / "labels" / "info"
    damage.edit_json(path, lambda v: v.update(data_type="uint8"))
    report = verify(project)
    assert [(p.what, p.path) for p in report.problems] == [("edited record", "data/paint/labels/info")]
    repair(project, report)
    assert notes(project) == []


def test_all_rows_of_a_table_by_sections_are_missed(own_history: Path) -> None:
    project = config.load(own_history, STAGES)
    path = project.data("align") / "section_transform.parquet"
    empty = pq.read_table(path).slice(0, 0)
    path.unlink()
    pq.write_table(empty, path)
    assert {(p.what, p.unit) for p in verify(project, ["align"]).problems} == {
        ("missing rows", f"section {z}") for z in range(10)
    }


def test_swapped_takes_two() -> None:
    a, b = ("1" * 64, "2" * 64)
    one = Problem("s", "damaged chunk", "x", "chunk", digests=(a, b))
    other = Problem("s", "damaged chunk", "y", "chunk", digests=(b, a))
    elsewhere = Problem("s", "damaged chunk", "z", "blob", digests=(b, a))
    assert [p.what for p in swapped([one, other])] == ["swapped files"] * 2
    assert [p.what for p in swapped([one, elsewhere])] == ["damaged chunk"] * 2


def test_the_command(own_history: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["verify", "-C", str(own_history), *words])
        return done.exit_code, done.output

    code, told = run("reconcile", "score", "--sample", "5%", "--seed", "3")
    assert code == 0
    assert "--seed 3" in told
    assert run("score", "--box", "0,0,0,8,64,64", "--box-unit", "vx")[0] == 0
    damage.cut_table(own_history)
    code, told = run("score", "--json")
    found = json.loads(told)
    assert code == 1
    assert (found["ok"], [p["what"] for p in found["problems"]]) == (False, ["truncated table"])
    code, told = run("score", "--repair")
    assert code == 0
    assert "Checked again: everything is what the records say." in told
    assert "as in dvc.lock" in told
    for wrong in (["--sample", "0"], ["--box", "0,0,0,8,64,64"], ["--box", "1,2", "--box-unit", "vx"], ["scroe"]):
        done = CliRunner().invoke(app, ["verify", "-C", str(own_history), *wrong])
        assert isinstance(done.exception, ConfigError)
