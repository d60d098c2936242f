"""Garbage collection of the store: what a branch, a tag or the working tree needs stays, and the rest really goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, runner, store
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError, RevisionError, RunError
from connectome_db.newproject import cache_type
from connectome_db.revisions import cache_folder, cached, open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.store import Store, parse_record
from connectome_db.versions.keep.gc import Sweep, collect
from tests.versioned import edit_params, run_all

Keys = dict[str, set[str]]


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout


def keys_of(root: Path, revision: str | None = None) -> Keys:
    """Unit keys of a revision, from its tables."""
    found = open_revision(root, revision)
    tables = {s: found.root / "data" / s / "units.parquet" for s in found.stages}
    return {s: set(pq.read_table(p)["unit_key"].to_pylist()) for s, p in tables.items()}


def stored(root: Path) -> tuple[Keys, set[str], set[str]]:
    """What lies in a store: keys per stage, blobs that its records name, blobs on disk. Parses every record."""
    s = Store(root / ".connectome" / "store")
    keys: Keys = {}
    named: set[str] = set()
    for stage in s.stages():
        for batch in s.batches(stage):
            for text in batch["record"].to_pylist():
                record = parse_record(text)
                keys.setdefault(stage, set()).add(record.key)
                named |= {o.blob for o in record.outputs.values()}
                assert [s.damage(o.blob, o.files) for o in record.outputs.values() if s.damage(o.blob, o.files)] == []
    return keys, named, {p.name for p in (s.root / "blobs").glob("*/*")}


def union(*many: Keys) -> Keys:
    return {s: set().union(*(m.get(s, set()) for m in many)) for s in {s for m in many for s in m}}


def gone(sweep: Sweep) -> Keys:
    return {s: set(keys.to_pylist()) for s, keys in sweep.records.items() if len(keys)}


def load(root: Path) -> config.Project:
    return config.load(root, STAGES)


def forget_v1(root: Path) -> str:
    """Leave v1 to nobody but its descendants; returns its commit."""
    commit = git(root, "rev-parse", "v1").strip()
    git(root, "tag", "-d", "v1")
    return commit


def test_everything_that_tags_refer_to_stays(history: Path) -> None:
    sweep = collect(load(history), force=False)
    assert sweep.empty
    assert sweep.doubts == sweep.notes == ()
    assert {"v1", "v2", "v3", "HEAD", "working tree"} <= set(sweep.revisions)
    needed = union(*(keys_of(history, r) for r in ("v1", "v2", "v3")))
    assert {line.name: line.kept for line in sweep.lines if line.kept} == {s: len(k) for s, k in needed.items()}


def test_units_of_a_version_without_a_name_go_and_nothing_else(own_history: Path) -> None:
    root = own_history
    v1, rest = keys_of(root, "v1"), union(keys_of(root, "v2"), keys_of(root, "v3"))
    only_v1 = {s: keys - rest[s] for s, keys in v1.items() if keys - rest[s]}
    assert "segment" in only_v1  # else this tests nothing
    before = stored(root)
    forget_v1(root)
    assert collect(load(root), force=False, all_commits=True).empty
    assert gone(collect(load(root), force=False, days=1)) == {}
    dry = collect(load(root), force=False)
    assert gone(dry) == only_v1
    assert stored(root) == before
    done = collect(load(root), force=True)
    assert done.freed_bytes == dry.freed_bytes > 0
    keys, named, on_disk = stored(root)
    assert keys == rest
    assert on_disk == named
    assert named == before[1] - set(done.blobs)
    assert not list((root / ".connectome" / "revisions").glob(open_name(root, "HEAD~2")))
    assert collect(load(root), force=False).empty


def open_name(root: Path, revision: str) -> str:
    """Folder of a revision's links, as it would be made (and it is not kept)."""
    made = open_revision(root, revision).root
    name = made.name
    shutil.rmtree(made)
    return name


@pytest.mark.parametrize("holder", ["branch", "tag", "remote", "stash", "index", "lock file"])
def test_every_kind_of_reference_holds_its_units(own_history: Path, holder: str) -> None:
    root = own_history
    lock = git(root, "show", "v1:dvc.lock")
    commit = forget_v1(root)
    assert not collect(load(root), force=False).empty
    if holder in ("branch", "tag"):
        git(root, holder, "old", commit)
    elif holder == "remote":
        git(root, "update-ref", "refs/remotes/origin/old", commit)
    else:
        now = (root / "dvc.lock").read_text()
        (root / "dvc.lock").write_text(lock)
        if holder == "stash":
            git(root, "stash")
        elif holder == "index":
            git(root, "add", "dvc.lock")
            (root / "dvc.lock").write_text(now)
    assert gone(collect(load(root), force=True)) == {}


def test_what_lies_in_data_and_what_a_stopped_run_made_stay(own_history: Path) -> None:
    root = own_history

    def flatter(document: dict) -> None:  # type: ignore[type-arg]
        document["mask"]["flat_structure"] = 2.6

    edit_params(root, flatter)
    runner.run_units(load(root), "mask", part=(0, 4))  # 8 of 32 units, then stopped
    assert gone(collect(load(root), force=True)) == {}
    run_all(load(root))  # in data/, and in no dvc.lock
    assert gone(collect(load(root), force=True)) == {}
    git(root, "checkout", "-q", "--", "params.yaml")
    sweep = collect(load(root), force=False)
    assert gone(sweep) == {}
    shutil.rmtree(root / "data" / "mask")
    assert gone(collect(load(root), force=True, days=1)) == {}  # made today
    line = next(k for k in collect(load(root), force=True).lines if k.name == "mask")
    assert (line.kept, line.things) == (32, 32)
    assert collect(load(root), force=False).empty


def test_without_dvcs_cache_the_ledgers_say_what_is_needed(own_history: Path) -> None:
    root = own_history
    everything = stored(root)[0]
    shutil.rmtree(root / ".connectome" / "revisions", ignore_errors=True)
    listing = open_revision(root, "v1").outs["data/segment"]
    shutil.rmtree(root / ".connectome" / "revisions")
    cached(cache_folder(root), listing).unlink()
    sweep = collect(load(root), force=True)
    assert [(d.stage, d.revisions, d.ledgers) for d in sweep.doubts] == [("segment", ("v1",), 1)]
    assert stored(root)[0] == everything
    # No ledger (a store from before there were any): nothing tells which units it was.
    shutil.rmtree(root / ".connectome" / "store" / "ledgers" / "segment")
    sweep = collect(load(root), force=True)
    assert [(d.stage, d.ledgers) for d in sweep.doubts] == [("segment", -1)]
    assert stored(root)[0] == everything


def test_a_damaged_listing_in_the_cache_is_not_believed(own_history: Path) -> None:
    root = own_history
    shutil.rmtree(root / ".connectome" / "revisions", ignore_errors=True)
    files = open_revision(root, "v1").files("data/segment")
    shutil.rmtree(root / ".connectome" / "revisions")
    other = open_revision(root, "v2").files("data/segment")["units.parquet"].read_bytes()
    files["units.parquet"].unlink()
    files["units.parquet"].write_bytes(other)
    sweep = collect(load(root), force=False)
    assert [d.stage for d in sweep.doubts] == ["segment"]
    assert gone(sweep) == {}


def test_killed_in_the_middle_no_record_is_without_its_blob(own_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = own_history
    forget_v1(root)
    wanted = collect(load(root), force=False)
    real, calls = Store.discard, []

    def killed(self: Store, digest: str) -> None:
        calls.append(digest)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, digest)

    monkeypatch.setattr(Store, "discard", killed)
    with pytest.raises(KeyboardInterrupt):
        collect(load(root), force=True)
    monkeypatch.undo()
    _, named, on_disk = stored(root)  # checks every record's blobs
    assert len(on_disk - named) == len(wanted.blobs) - 2
    again = collect(load(root), force=True)
    assert gone(again) == {}
    assert next(k.things for k in again.lines if k.name == "blobs of no record") == len(wanted.blobs) - 2
    _, named, on_disk = stored(root)
    assert named == on_disk


def test_records_in_shards_go_too(own_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = own_history
    monkeypatch.setattr(store, "GATHER_AT", 1)
    monkeypatch.setattr(store, "BATCH", 7)  # several batches in a shard
    for stage in STAGES:
        Store(load(root).store).gather(stage.name)
    assert not list((root / ".connectome" / "store" / "keys").glob("*/*.json"))
    rest = union(keys_of(root, "v2"), keys_of(root, "v3"))
    forget_v1(root)
    collect(load(root), force=True)
    keys, named, on_disk = stored(root)
    assert keys == rest
    assert named == on_disk


def test_bytes_that_another_name_still_holds_are_told_apart(own_history: Path) -> None:
    root = own_history
    forget_v1(root)
    alone = collect(load(root), force=False)
    blobs = [sorted(p for p in Store(load(root).store).blob(b).rglob("*") if p.is_file()) for b in alone.blobs]
    first = next(p for files in blobs for p in files if p.name != "rows.parquet")  # a chunk, so of segment
    second = next(p for files in blobs for p in files if p.name == "rows.parquet")
    os.link(first, root / "elsewhere")
    os.link(second, root / ".connectome" / "tmp" / "leftover")  # two names, and both go
    os.utime(root / ".connectome" / "tmp" / "leftover", (0, 0))
    linked = collect(load(root), force=False)
    size = {k.name: k.named_bytes for k in linked.lines if k.named_bytes}
    assert size == {"segment": first.stat().st_size}
    assert linked.freed_bytes == alone.freed_bytes - first.stat().st_size
    (root / "elsewhere").unlink()
    collect(load(root), force=True)
    assert not (root / ".connectome" / "tmp" / "leftover").exists()


def test_it_waits_for_nobody_and_says_who_runs(own_history: Path) -> None:
    project = load(own_history)
    forget_v1(own_history)
    before = stored(own_history)
    with runner.locked(project, "mask"), pytest.raises(RunError, match="nothing was removed, because a run is in prog"):
        collect(project, force=True)
    assert stored(own_history) == before
    with runner.locked(project, "mask", shared=True), pytest.raises(RunError, match="stage mask is being run"):
        collect(project, force=True)


def test_a_store_that_others_may_use_is_left_alone(own_history: Path, tmp_path: Path) -> None:
    shutil.move(own_history / ".connectome" / "store", tmp_path / "common")
    (own_history / ".connectome" / "store").symlink_to(tmp_path / "common")
    with pytest.raises(ConfigError, match="outside this project"):
        collect(load(own_history), force=True)
    assert collect(load(own_history), force=True, only_project=True).empty


def test_without_git_nothing_is_judged(own_history: Path) -> None:
    shutil.rmtree(own_history / ".git")
    with pytest.raises(RevisionError, match="what is needed is not known"):
        collect(load(own_history), force=False)


def test_store_data_and_dvcs_cache_hold_their_bytes_once(history: Path) -> None:
    if cache_type(history).startswith("reflink"):
        pytest.skip("clones have one name each")
    chunks = [p for p in (history / "data" / "segment").rglob("*-*") if p.is_file()]
    # the store, data/ and the cache; equal chunks of two units, and views of old revisions, add more
    assert min(p.stat().st_nlink for p in chunks) >= 3


def test_the_command(own_history: Path) -> None:
    forget_v1(own_history)
    done = CliRunner().invoke(app, ["gc", "-C", str(own_history), "--json"])
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    segment = next(k for k in value["lines"] if k["name"] == "segment")
    assert (value["removed"], segment["kept"], segment["things"]) == (False, 32, 1)
    shown = CliRunner().invoke(app, ["gc", "-C", str(own_history), "--force"]).stdout
    assert "segment" in shown
    assert "Freed" in shown
    assert "Nothing to remove." in CliRunner().invoke(app, ["gc", "-C", str(own_history)]).stdout
