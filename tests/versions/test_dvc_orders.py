"""`dvc gc`, `connectome gc`, `git checkout` + `dvc checkout` in any order: data/ is a revision's, or it is not there.

The tags are given in full, so that what is told apart is not what happens to be at the tip. v2 and v3 differ in the
stages agglomerate and graph only, which keeps `dvc repro` short.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from connectome_db import config, runner
from connectome_db.config import Project
from connectome_db.finish import finish, is_current
from connectome_db.prepare import prepare
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.keep.gc import collect
from tests.framework.conftest import digests, tree

LAST = ("agglomerate", "graph", "measure_graph", "flag")


def load(root: Path) -> Project:
    return config.load(root, STAGES)


def do(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """git or DVC of this interpreter."""
    command = [sys.executable, "-m", *words] if words[0] == "dvc" else list(words)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )


def bytes_at(root: Path, revision: str) -> dict[str, str]:
    """SHA-256 of every file of data/ at a revision, from DVC's cache: before anything is collected."""
    found = open_revision(root, revision)
    outs = [o for o in found.outs if o.startswith("data/")]
    return digests({f"{o.removeprefix('data/')}/{n}": p for o in outs for n, p in found.files(o).items()})


def data(root: Path) -> dict[str, str]:
    return {n: b for n, b in tree(root / "data").items() if n != ".gitignore"}


def dvc_gc(root: Path, _: str) -> None:
    assert do(root, "dvc", "gc", "-w", "-f", "-q").returncode == 0


def our_gc(root: Path, _: str) -> None:
    sweep = collect(load(root), force=True)
    assert all(not len(keys) for keys in sweep.records.values())  # every revision has a tag


def checkout(root: Path, revision: str) -> None:
    assert do(root, "git", "checkout", "-q", "-f", revision).returncode == 0
    do(root, "dvc", "checkout", "-q")  # fails, loudly, where the cache has been collected


ORDERS = {
    "collect, then go": (dvc_gc, our_gc, checkout),
    "go, then collect": (checkout, our_gc, dvc_gc),
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_tag_comes_back_byte_by_byte_and_computes_nothing(own_history: Path, order: str) -> None:
    root = own_history
    shutil.rmtree(root / ".connectome" / "revisions", ignore_errors=True)
    wanted = bytes_at(root, "v2")
    shutil.rmtree(root / ".connectome" / "revisions")
    for step in ORDERS[order]:
        step(root, "v2")
    there = data(root)
    assert there.items() <= wanted.items()  # of another revision, no byte
    done = do(root, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    ran = re.findall(r"(\w+) +\d+ units +(\d+) computed", done.stdout)
    assert ran == ([] if there == wanted else [(s, "0") for s in LAST])
    assert data(root) == wanted
    status = json.loads(do(root, "dvc", "status", "--json").stdout)
    assert status == {"identity": ["always changed"]}
    assert do(root, "git", "status", "--porcelain").stdout.split() in ([], ["M", "dvc.lock"])  # provenance is anew


def test_data_from_dvc_is_right_although_the_store_has_let_its_units_go(own_history: Path) -> None:
    root = own_history
    wanted = bytes_at(root, "v1")
    commit = do(root, "git", "rev-parse", "v1").stdout.strip()
    do(root, "git", "tag", "-d", "v1")
    gone = collect(load(root), force=True).records["segment"]
    assert len(gone) == 1
    checkout(root, commit)
    assert data(root) == wanted
    prepared, outcome = runner.run_units(load(root), "segment")
    assert outcome.computed == 1
    finish(prepared, outcome)
    assert data(root) == wanted


def test_a_checkout_that_was_killed_does_not_count_as_current(own_history: Path) -> None:
    root = own_history
    stage = load(root).stage("segment")
    wanted = tree(root / "data" / "segment")

    def current() -> bool:
        return is_current(prepare(load(root), stage))

    assert current()
    chunk = root / "data" / "segment" / "supervoxels" / "8_8_30" / "0-64_0-64_0-8"
    for file in (chunk, chunk.parents[1] / "info", *(root / "data" / "segment" / f"{n}.parquet"
                 for n in ("supervoxel", "apron", "units", "parts"))):  # fmt: skip
        kept = file.read_bytes()
        file.unlink()
        assert not current(), file.name
        file.write_bytes(kept)
        assert current()
    extra = chunk.with_name("0-64_0-64_8-10x")
    extra.write_bytes(b"left over from another revision")
    assert not current()
    extra.unlink()
    chunk.unlink()
    prepared, outcome = runner.run_units(load(root), "segment")
    assert outcome.computed == 0
    finish(prepared, outcome)
    assert tree(root / "data" / "segment") == wanted


def test_provenance_of_another_tree_does_not_count_as_current(own_history: Path) -> None:
    root = own_history
    assert is_current(prepare(load(root), load(root).stage("segment")))
    shutil.rmtree(root / "provenance" / "segment")
    v1 = open_revision(root, "v1").root / "provenance" / "segment"
    shutil.copytree(v1, root / "provenance" / "segment")  # as `dvc checkout provenance/segment` with v1's dvc.lock does
    assert not is_current(prepare(load(root), load(root).stage("segment")))
