"""The store: nothing half-written looks done, damage is found and named, a full disk is told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from connectome_db import config, runner
from connectome_db import store as store_module
from connectome_db.errors import RunError, SourceError, StoreError
from connectome_db.finish import finish, only_damaged
from connectome_db.store import Output, Record, Store, parse_record
from tests.framework.conftest import make_project, run_all, tree
from tests.framework.toy import STAGES


def record(key: str, digest: str, files: tuple[tuple[str, int], ...]) -> Record:
    return Record(key, 5, {"x": Output(digest, 1, digest, files)}, {"run_id": "r"})


def test_a_record_reads_back(tmp_path):
    r = record("k", "d" * 64, (("a", 3),))
    assert parse_record(r.to_json()) == r
    with pytest.raises(StoreError, match="damaged"):
        parse_record('{"key": "k"}')


def test_put_blob_twice_keeps_the_first(tmp_path):
    s = Store(tmp_path)
    files = s.put_blob("d" * 64, {"a": b"xyz", "sub/b": b""})
    inode = (s.blob("d" * 64) / "a").stat().st_ino
    assert s.put_blob("d" * 64, {"a": b"xyz", "sub/b": b""}) == files == (("a", 3), ("sub/b", 0))
    assert (s.blob("d" * 64) / "a").stat().st_ino == inode
    assert not any((tmp_path / "tmp").iterdir())


def test_a_damaged_blob_is_replaced(tmp_path):
    s = Store(tmp_path)
    s.put_blob("d" * 64, {"a": b"xyz"})
    path = s.blob("d" * 64) / "a"
    path.unlink()
    path.write_bytes(b"x")
    assert "has 1 bytes, wanted 3" in s.damage("d" * 64, (("a", 3),))
    s.put_blob("d" * 64, {"a": b"xyz"})
    assert path.read_bytes() == b"xyz"


def test_shards_hold_what_single_files_held(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "GATHER_AT", 3)
    s = Store(tmp_path)
    for k in "abcd":
        s.put_record("st", record(k, "d" * 64, ()))
    s.gather("st")
    assert list((tmp_path / "keys" / "st").iterdir()) == []
    s.put_record("st", record("e", "d" * 64, ()))
    assert sorted(s.lookup("st", list("abcdez"))) == list("abcde")
    s.forget("st", ["b", "e"])
    assert sorted(s.lookup("st", list("abcde"))) == ["a", "c", "d"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    s = Store(tmp_path)

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        s.put_blob("d" * 64, {"a": b"xyz"})
    assert not any((tmp_path / "tmp").iterdir())
    assert not s.blob("d" * 64).exists()


def test_a_full_disk_stops_a_run_and_keeps_what_is_done(project, monkeypatch):
    real, calls = os.fsync, []

    def full_later(fd):
        calls.append(fd)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(store_module.os, "fsync", full_later)
    with pytest.raises(StoreError, match="no space left"):
        runner.run_units(project, "paint")
    monkeypatch.undo()
    _, outcome = runner.run_units(project, "paint")
    assert 0 < outcome.computed < 8


def chunk(project) -> os.PathLike[str]:
    return next(p for p in sorted(project.data("paint").rglob("*-*")) if p.is_file())


def test_a_truncated_chunk_is_found_at_finish_named_and_recomputed(project, capsys):
    run_all(project)
    before = tree(project.root / "data")
    os.truncate(chunk(project), 5)  # data/ and the store share the inode
    only_damaged(project, "paint")
    prepared, outcome = runner.run_units(project, "paint")
    finish(prepared, outcome)
    assert outcome.computed == 1
    assert "has 5 bytes, wanted" in capsys.readouterr().err
    assert tree(project.root / "data") == before


def test_a_flipped_bit_is_found_by_strict(project):
    run_all(project)
    path = chunk(project)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as f:
        f.write(data)
    strict = project.launched(strict=True)
    prepared, outcome = runner.run_units(strict, "paint")
    with pytest.raises(StoreError, match="1 stored units were altered"):
        finish(prepared, outcome)
    prepared, outcome = runner.run_units(strict, "paint")
    assert outcome.computed == 1
    finish(prepared, outcome)


def test_finish_does_not_start_a_stage(project):
    with pytest.raises(RunError, match="8 of 8 units were never computed"):
        only_damaged(project, "paint")


def test_strict_refuses_uncommitted_changes(project):
    (project.root / "params.yaml").write_text((project.root / "params.yaml").read_text() + "# note\n")
    prepared, outcome = runner.run_units(project, "paint")
    with pytest.raises(RunError, match="uncommitted changes"):
        finish(prepared.__class__(**(vars(prepared) | {"project": project.launched(strict=True)})), outcome)


def test_a_changed_tile_after_ingest_is_noticed(project):
    run_all(project)
    import cv2
    import numpy as np

    cv2.imwrite(str(project.root / "raw" / "t0.png"), np.full((32, 32), 101, np.uint8))
    outcomes = run_all(project)
    assert outcomes["paint"].computed == 8  # every toy block reads section 0
    assert outcomes["counts"].computed == 0  # and paints the same


def test_tiles_that_cannot_be_used_stop_ingest_by_name(tmp_path):
    from connectome_db.stages.pipeline import STAGES as PIPELINE

    project = make_project(tmp_path / "p", "dataset: {name: t, voxel_nm: [30, 8, 8]}\n")
    project = config.load(project.root, PIPELINE)
    lines = "path,section,stage_y_px,stage_x_px\nt0.png,0,0,0\ngone.png,0,0,28\n"
    (project.root / "raw" / "manifest.csv").write_text(lines)
    with pytest.raises(SourceError, match=r"section 0, gone.png: missing"):
        runner.run_units(project, "ingest")
    _, outcome = runner.run_units(project.launched(allow_missing=True), "ingest")
    assert outcome.computed == 1


def test_a_killed_rank_ends_the_job_and_running_again_goes_on(tmp_path):
    """One worker is killed in the middle: the job ends with an error, and what was done stays done."""
    project = make_project(tmp_path / "p")
    program = (
        "import sys, pathlib\n"
        "from connectome_db import config, runner\n"
        "from tests.framework.toy import STAGES\n"
        "p = config.load(pathlib.Path(sys.argv[1]), STAGES)\n"
        "try:\n"
        "    runner.run_units(p, 'paint', ranks=2)\n"
        "except Exception as e:\n"
        "    print(type(e).__name__, e); sys.exit(3)\n"
    )
    slow = tmp_path / "slow" / "sitecustomize.py"
    slow.parent.mkdir()
    slow.write_text(
        "import sys\n"
        "if 'connectome_db.ranks' in ' '.join(sys.orig_argv):\n"
        "    import connectome_db.runner as r, time\n"
        "    real = r.store_result\n"
        "    def waits(*a):\n"
        "        time.sleep(1.0); return real(*a)\n"
        "    r.store_result = waits\n"
    )
    env = os.environ | {"PYTHONPATH": f"{slow.parent}{os.pathsep}{Path.cwd()}"}
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(project.root)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    keys = project.store / "keys" / "paint"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and (not keys.is_dir() or not os.listdir(keys)):
        time.sleep(0.05)
    found = subprocess.run(["pgrep", "-f", f"connectome_db.ranks.*{project.root}"], capture_output=True, check=True)
    # the launcher's own command line matches too; the youngest process is a rank
    os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 3
    assert b"RunError the MPI job of stage paint ended" in out
    _, outcome = runner.run_units(config.load(project.root, STAGES), "paint")
    assert 0 < outcome.computed < 8
