"""The life of one object through many versions, and which versions those are."""

from __future__ import annotations

import csv
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db.cli.main import app
from connectome_db.errors import QueryError, RevisionError
from connectome_db.geometry import box_of
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.identity import timeline
from connectome_db.versions.identity.history import count_relations, object_history
from connectome_db.versions.identity.life import life_of
from connectome_db.versions.identity.lifetree import after, before, percent
from connectome_db.versions.identity.overlaps import count_overlap
from tests.versions.labelled import revision_of, voxels_of


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


def invoke(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def split_object(history: Path) -> tuple[int, list[int]]:
    """The object that v3 splits, and what it splits into."""
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    rows = object_history(a, b, count_overlap(a, b)).to_pylist()
    one = next(r["object_a"] for r in rows if r["relation"] == "split")
    return one, [r["object_b"] for r in rows if r["object_a"] == one]


def strips(folder: Path, name: str, labels: list[int]) -> Revision:
    """A section of objects side by side, 100 voxels for each entry."""
    array = np.repeat(labels, 100).reshape(1, len(labels), 100)
    return replace(revision_of(folder / name, array, (1, 64, 104)), name=name)


def objects(revision: Revision) -> dict[int, int]:
    """Label of `strips` -> object; labels ascend from the top."""
    voxels = voxels_of(revision, box_of(revision.record("segment")["bounds"]))[0, :, 0]
    member = pq.read_table(revision.root / "data" / "agglomerate" / "member.parquet")
    body = dict(zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True))
    return {row: body.get(v, 0) for row, v in enumerate(voxels.tolist())}


def test_a_split_and_where_its_parts_come_from(history: Path) -> None:
    one, parts = split_object(history)
    revisions = timeline.chosen(history, ["v1", "v2", "v3"])
    life = life_of(revisions, one)
    tree = after(life)
    assert tree is not None
    assert before(life) is None
    lines = tree.lines()
    assert lines[0].startswith(f"object {one} at v1, ")
    assert lines[1] == f"    v2: {one}  100 %  same"
    assert lines[2].startswith(f"        v3: {parts[0]}  ")
    assert lines[2].endswith("  split, heir")
    assert lines[3].startswith(f"        v3: {parts[1]}  ")
    assert sum(life.shares[2].values()) == pytest.approx(1)
    young = next(p for p in parts if p != one)
    born = life_of(revisions, young)
    assert (born.at, after(born)) == (2, None)
    made = before(born)
    assert made is not None
    assert made.lines()[1:] == [f"    v2: {one}  100 %  split", f"        v1: {one}  100 %  same"]


def test_shares_are_parts_of_the_object_itself(tmp_path: Path) -> None:
    """A small object is taken up by a giant, which falls apart: of its parts only one has to do with the object."""
    v1 = strips(tmp_path, "v1", [1, 2, 2, 2, 2, 2, 2])
    v2 = strips(tmp_path, "v2", [1, 1, 1, 1, 1, 1, 1])
    v3 = strips(tmp_path, "v3", [1, 1, 2, 2, 3, 3, 4])
    small = objects(v1)[0]
    life = life_of([v1, v2, v3], small)
    assert life.shares == ({small: 1.0}, {objects(v2)[0]: 1.0}, {objects(v3)[0]: 1.0})
    (first, second) = life.links.to_pylist()
    assert (first["relation"], first["fraction_b"], first["share"]) == ("merged", 1 / 7, 1.0)
    assert (second["relation"], second["fraction_a"], second["share"]) == ("split", 2 / 7, 1.0)
    giant = life_of([v1, v2, v3], objects(v2)[0], at="v2")
    assert giant.shares[2] == {objects(v3)[k]: n / 7 for k, n in ((0, 2), (2, 2), (4, 2), (6, 1))}


def test_parts_that_meet_again_and_objects_that_come_back(tmp_path: Path) -> None:
    v1 = strips(tmp_path, "v1", [1, 1, 1, 0])
    v2 = strips(tmp_path, "v2", [1, 1, 2, 0])
    v3 = strips(tmp_path, "v3", [1, 1, 1, 0])
    v4 = strips(tmp_path, "v4", [0, 0, 0, 1])
    v5 = strips(tmp_path, "v5", [1, 1, 1, 0])
    one = objects(v1)[0]
    life = life_of([v1, v2, v3, v4, v5], one)
    tree = after(life)
    assert tree is not None
    assert life.shares[3] == {}
    part = objects(v2)[2]
    assert tree.lines() == [
        f"object {one} at v1, 300 voxels",
        f"    v2: {one}  67 %  split, heir",
        f"        v3: {one}  100 %  merged, heir",
        "            v4: gone",
        f"    v2: {part}  33 %  split",
        f"        v3: {one}, see {one}",
        f"    v5: {one}  100 %  without a link",
    ]
    ends = [(r["object_a"], r["object_b"], r["relation"]) for r in life.links.to_pylist() if not r["counts"]]
    assert ends == [(one, None, "vanished"), (None, one, "none")]


def test_long_runs_of_the_same_take_one_line(tmp_path: Path) -> None:
    revisions = [strips(tmp_path, f"v{k}", [1, 1, 2] if k < 5 else [1, 3, 2]) for k in range(7)]
    one = objects(revisions[0])[0]
    tree = after(life_of(revisions, one))
    assert tree is not None
    part = objects(revisions[5])[1]
    assert tree.lines()[1:] == [
        f"    v1 … v4: {one}  100 %  same",
        f"        v5: {one}  50 %  split, heir (in doubt)",
        f"            v6: {one}  50 %  same",
        f"        v5: {part}  50 %  split",
        f"            v6: {part}  50 %  same",
    ]
    back = before(life_of(revisions, part))
    assert back is not None
    assert back.lines()[1:] == [f"    v4: {one}  100 %  split", f"        v3 … v0: {one}  100 %  same"]


def test_an_object_that_is_in_none_of_them(history: Path) -> None:
    revisions = timeline.chosen(history, ["v1", "v2"])
    one, parts = split_object(history)
    young = next(p for p in parts if p != one)
    with pytest.raises(
        QueryError, match=rf"no object {young} at v1, v2: is a supervoxel at v2, belongs to object {one}"
    ):
        life_of(revisions, young)
    with pytest.raises(QueryError, match=r"'v3' is not among the revisions.*Known: v1, v2"):
        life_of(revisions, one, at="v3")


def test_counts_by_relation(history: Path) -> None:
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    table = object_history(a, b, count_overlap(a, b))
    rows = table.to_pylist()
    wanted = {r: len({v["object_a"] for v in rows if v["relation"] == r}) for r in ("same", "split")}
    assert count_relations(table) == wanted
    assert count_relations(table.slice(0, 0)) == {}


def test_percent_rounds_nothing_to_all_or_nothing() -> None:
    assert [percent(v) for v in (0.0, 0.004, 0.5, 0.994, 0.9999, 1.0)] == [
        "0 %", "below 1 %", "50 %", "99 %", "over 99 %", "100 %",
    ]  # fmt: skip


def test_versions_are_the_tags_with_data_oldest_first(own_history: Path) -> None:
    assert [r.name for r in timeline.tagged(own_history)[0]] == ["v1", "v2", "v3"]
    git(own_history, "tag", "a-later-name", "v1")  # of several tags of a commit, the first by name
    git(own_history, "tag", "-a", "-m", "with a message", "empty", "v1~1")
    found, left_out = timeline.tagged(own_history)
    assert [r.name for r in found] == ["a-later-name", "v2", "v3"]
    assert len(left_out) == 1
    assert left_out[0].startswith("empty: no dvc.lock at empty")
    assert [r.name for r in timeline.recent(own_history, 2)[0]] == ["v2", "v3"]
    with pytest.raises(RevisionError, match="git knows no revision 'v9'"):
        timeline.chosen(own_history, ["v1", "v9"])


def test_the_working_tree_is_a_version_when_it_differs(own_history: Path) -> None:
    old = open_revision(own_history, "v2").root / "data" / "agglomerate"
    now = own_history / "data" / "agglomerate"
    for name in ("record.json", "object.parquet", "member.parquet"):
        (now / "new").write_bytes((old / name).read_bytes())
        (now / "new").replace(now / name)
    assert [r.name for r in timeline.tagged(own_history)[0]] == ["v1", "v2", "v3", "working tree"]
    one, _ = split_object(own_history)
    lines = after(life_of(timeline.tagged(own_history)[0], one)).lines()  # type: ignore[union-attr]
    assert lines[-1].endswith(f"{one}, see {one}")


def test_the_command(history: Path, tmp_path: Path) -> None:
    one, parts = split_object(history)
    out = invoke("history", str(one), "-C", str(history))
    assert f"object {one} at v1" in out
    assert f"v3: {parts[1]}" in out
    out = invoke("history", str(one), "--from", "v2", "--to", "v3", "--format", "csv", "-C", str(history))
    assert [r["object_b"] for r in csv.DictReader(io.StringIO(out))] == [str(p) for p in parts]
    out = invoke("history", "--from", "v2", "--to", "v3", "-C", str(history))
    assert all(str(p) in out for p in parts)
    file = tmp_path / "history.parquet"
    invoke("history", "--from", "v2", "--to", "v3", "--out", str(file), "-C", str(history))
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    assert pq.read_table(file).equals(object_history(a, b, count_overlap(a, b)))
    for words, message in (
        ([], "wants an object, or --from"),
        (["4.6E18"], "'4.6E18' is not an id: not a whole number"),
        ([str(one), "--revs", "v1", "-n", "2"], "give one of them"),
    ):
        with pytest.raises(QueryError, match=message):
            invoke("history", *words, "-C", str(history))
