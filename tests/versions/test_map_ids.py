"""Lists of ids from one version to another: nothing rounded, nothing dropped, nothing passed off as something else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db.cli.main import app
from connectome_db.errors import ConnectomeError
from connectome_db.geometry import Box, box_of
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.identity.facts import Known, place_of, rounded_from
from connectome_db.versions.identity.lists import IdList, read_ids
from connectome_db.versions.identity.map_ids import STATUSES, MappedIds, map_ids
from connectome_db.versions.identity.synapse_match import match_synapses
from tests.versions.labelled import revision_of, voxels_of


def listed(revision: Revision, table: str, stage: str) -> list[int]:
    return sorted(pq.read_table(revision.root / "data" / stage / f"{table}.parquet")[table].to_pylist())


def mapped(a: Revision, b: Revision, given: list[str], **how: object) -> MappedIds:
    text = "\n".join(given) + "\n"
    return map_ids(a, b, read_ids(text.encode(), "ids.txt"), **how)  # type: ignore[arg-type]


def test_objects_between_versions_against_their_voxels(history: Path) -> None:
    """v2 -> v3: one object is split. What each id becomes is counted over the whole volumes."""
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    objects = listed(a, "object", "agglomerate")
    given = [str(v) for v in reversed(objects)]
    table = mapped(a, b, [*given, given[0]]).table
    assert table["given"].to_pylist() == [*given, given[0]]
    old, new = (in_objects(r) for r in (a, b))
    seen = set()
    for r in table.to_pylist():
        found, voxels = np.unique(new[old == r["id"]], return_counts=True)
        parts = {int(i): n / voxels.sum() for i, n in zip(found, voxels, strict=True) if i}
        seen.add(r["status"])
        if r["status"] == "same":
            assert parts == {r["id"]: 1.0}
            assert (new == r["id"]).sum() == voxels.sum()
        else:
            assert r["status"] == "split"
            assert dict(zip(r["new_ids"], r["fractions"], strict=True)) == parts
            assert r["heir"] == max(parts, key=lambda i: parts[i])
        assert r["heir_fraction"] == parts[r["heir"]]
    assert seen == {"same", "split"}


def in_objects(revision: Revision) -> np.ndarray:
    voxels = voxels_of(revision, box_of(revision.record("segment")["bounds"]))
    member = pq.read_table(revision.root / "data" / "agglomerate" / "member.parquet")
    body = dict(zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True)) | {0: 0}
    found, where = np.unique(voxels, return_inverse=True)
    return np.asarray([body[i] for i in found.tolist()], np.uint64)[where].reshape(voxels.shape)


def test_supervoxels_inside_and_outside_the_corner(history: Path) -> None:
    a, b = open_revision(history, "v1"), open_revision(history, "v2")
    found = map_ids(a, b, read_ids("\n".join(map(str, listed(a, "supervoxel", "segment"))).encode(), "ids"))
    assert found.kind == "supervoxel"
    corner = set(np.unique(a.read_unit("segment", "supervoxels", Box((0, 0, 0), (8, 64, 64)))).tolist())
    rows = found.table.to_pylist()
    assert {r["status"] for r in rows if r["id"] not in corner} == {"same"}
    assert {r["status"] for r in rows if r["id"] in corner} > {"same"}
    changed = next(r for r in rows if r["status"] != "same")
    assert "of object" in changed["note"]


def test_neurons_are_told_from_other_objects(history: Path) -> None:
    a = open_revision(history, "v1")
    neurons = set(listed(a, "neuron", "graph"))
    objects = listed(a, "object", "agglomerate")
    rows = mapped(a, open_revision(history, "v2"), [str(i) for i in objects]).table.to_pylist()
    assert {r["what"] for r in rows} == {"neuron", "object"}
    assert all((r["what"] == "neuron") == (r["id"] in neurons) for r in rows)


def test_what_is_not_found_is_told_with_the_nearest_facts(history: Path) -> None:
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    objects, synapses = listed(a, "object", "agglomerate"), listed(a, "synapse", "synapses")
    body = Known(a).object_of(np.asarray(listed(a, "supervoxel", "segment"), np.uint64))
    part, whole = next((s, o) for s, o in body.items() if s != o)
    new = next(i for i in listed(b, "object", "agglomerate") if i not in objects)
    rounded = int(float(objects[3]))
    assert rounded not in body
    given = [*map(str, objects), str(part), str(synapses[0]), str(new), str(rounded), "5"]
    rows = mapped(a, b, given).table.to_pylist()[len(objects) :]
    assert {r["status"] for r in rows} == {"not found"}
    assert {r["heir"] for r in rows} == {None}
    notes = [r["note"] for r in rows]
    assert [r["what"] for r in rows] == ["supervoxel", "synapse", "supervoxel", None, None]
    assert f"is a supervoxel at v2, belongs to object {whole}" in notes[0]
    assert "is a synapse at v2" in notes[1]
    assert "is an object at v3" in notes[2]
    assert "looks rounded" in notes[3]
    assert str(objects[3]) in notes[3] or "any of" in notes[3]
    assert "nothing is known of it" in notes[4]


def test_the_number_of_an_unknown_id_tells_its_place(history: Path) -> None:
    """An id of some other version names a voxel; what lies there now is the best lead."""
    a, b = open_revision(history, "v2"), open_revision(history, "v3")
    known = listed(a, "supervoxel", "segment")
    voxels = voxels_of(a, box_of(a.record("segment")["bounds"]))
    for one in known[::40]:
        z, y, x = place_of(a, "segment", one) or (-1, -1, -1)
        assert voxels[z, y, x] == one
        other = one + 1  # the next voxel along x, in the same block
        if other in known or (x + 1) % 64 == 0:
            continue
        (row,) = mapped(a, b, [str(other)], kind="object").table.to_pylist()
        there = in_objects(a)[z, y, x + 1]
        assert (
            f"names voxel z {z}, y {y}, x {x + 1}, where v2 has {f'object {there}' if there else 'background'}"
            in row["note"]
        )


def test_rounding_by_floats_and_by_spreadsheets_is_seen_through() -> None:
    known = np.asarray([4612249174556020396, 4612249174556990001, 4612249999999999999], np.uint64)
    assert rounded_from(int(float(4612249174556020396)), known) == [4612249174556020396]
    assert rounded_from(4612249174556020000, known) == [4612249174556020396]
    assert rounded_from(4612249170000000000, known) == [4612249174556020396, 4612249174556990001]
    assert rounded_from(4612249174556020397, known) == []
    assert rounded_from(17, np.asarray([17, 18], np.uint64)) == []


def test_a_column_name_or_the_option_says_what_the_ids_are(history: Path) -> None:
    a, b = open_revision(history, "v1"), open_revision(history, "v2")
    objects = [str(i) for i in listed(a, "object", "agglomerate")]
    synapses = [str(i) for i in listed(a, "synapse", "synapses")]

    def kind(header: str, values: list[str], asked: str | None = None) -> str:
        text = "\n".join([header, *values]).encode()
        return map_ids(a, b, read_ids(text, "ids"), asked).kind  # type: ignore[arg-type]

    assert kind("root_id", objects) == "object"
    assert kind("root_id", synapses) == "synapse"
    assert kind("supervoxel_id", objects) == "supervoxel"
    assert kind("pre", objects[:3], "supervoxel") == "supervoxel"


def objects_revision(folder: Path, objects: list[tuple[int, int]]) -> Revision:
    """One section; object after object, (label, voxels) each, in rows of 100 voxels."""
    labels = np.repeat([k for k, _ in objects], [n for _, n in objects]).reshape(1, -1, 100)
    return revision_of(folder, labels, (1, 64, 104))


def test_statuses_by_hand(tmp_path: Path) -> None:
    """One object stays, two merge, one splits in halves, one vanishes, one sheds a little dust."""
    old = objects_revision(tmp_path / "a", [(1, 200), (2, 600), (3, 200), (4, 800), (5, 400), (6, 300), (0, 200)])
    new = objects_revision(
        tmp_path / "b", [(1, 200), (2, 800), (3, 400), (4, 400), (0, 400), (5, 250), (6, 50), (0, 200)]
    )
    names = dict(zip(range(1, 7), listed(old, "object", "agglomerate"), strict=True))
    later = dict(zip(range(1, 7), listed(new, "object", "agglomerate"), strict=True))
    rows = mapped(old, new, [str(i) for i in names.values()], kind="object").table.to_pylist()
    assert [(r["status"], r["relation"], r["heir"]) for r in rows] == [
        ("same", "same", later[1]),
        ("merged", "merged", later[2]),
        ("ambiguous", "merged", later[2]),
        ("ambiguous", "split", later[3]),
        ("vanished", "vanished", None),
        ("changed", "changed", later[5]),
    ]
    assert (rows[5]["new_ids"], rows[5]["fractions"]) == ([later[5]], [250 / 300])
    assert rows[2]["note"].startswith(f"75 % of its heir was object {names[2]}")
    assert rows[3]["note"] == "another part is nearly as large as its heir"
    assert rows[3]["fractions"] == [0.5, 0.5]


# Synapses.


def synapses_revision(folder: Path, rows: list[tuple[int, float, float, float, int]]) -> Revision:
    revision = revision_of(folder, np.ones((1, 8, 8), np.int64), (1, 8, 8))
    (folder / "data" / "synapses").mkdir()
    columns = ("synapse", "z_vx", "y_vx", "x_vx", "size_vx")
    types = (pa.uint64(), pa.float64(), pa.float64(), pa.float64(), pa.int64())
    table = {c: pa.array([r[k] for r in rows], t) for k, (c, t) in enumerate(zip(columns, types, strict=True))}
    pq.write_table(pa.table(table), folder / "data" / "synapses" / "synapse.parquet")
    (folder / "data" / "synapses" / "record.json").write_text('{"voxel_nm": [30, 8, 8], "block_vx": [1, 8, 8]}')
    return revision


def test_synapses_are_matched_by_id_and_by_place(tmp_path: Path) -> None:
    a = synapses_revision(
        tmp_path / "a",
        [(10, 1, 100, 100, 50), (11, 1, 200, 200, 50), (12, 1, 300, 300, 50), (13, 5, 0, 0, 9), (14, 9, 0, 0, 9),
         (15, 9, 2, 0, 9), (16, 20, 0, 0, 9)],
    )  # fmt: skip
    b = synapses_revision(
        tmp_path / "b",
        [(10, 1, 100, 100, 50), (21, 1, 200, 200, 50), (22, 2, 301, 300, 51), (13, 5, 0, 900, 9), (24, 9, 1, 0, 9),
         (25, 20, 5, 0, 9), (26, 20, 0, 5.5, 9)],
    )  # fmt: skip
    rows = {r["synapse_a"]: r for r in match_synapses(a, b).to_pylist()}
    said = {i: (r["synapse_b"], r["relation"], r["ambiguous"]) for i, r in rows.items()}
    assert said == {
        10: (10, "same", False),
        11: (21, "renamed", False),
        12: (22, "changed", False),
        13: (None, "vanished", False),  # the id is there, but 7.2 µm away
        14: (24, "changed", True),  # two claim the one between them
        15: (None, "vanished", False),
        16: (25, "changed", True),  # two lie nearly as near
    }
    assert rows[12]["distance_nm"] == pytest.approx((30**2 + 8**2) ** 0.5)
    table = mapped(a, b, ["12", "13"], kind="synapse", tolerance_nm=31).table.to_pylist()
    assert [(r["what"], r["status"]) for r in table] == [("synapse", "vanished"), ("synapse", "vanished")]


def test_synapses_of_the_history(history: Path) -> None:
    a, b = open_revision(history, "v1"), open_revision(history, "v2")
    found = mapped(a, b, [str(i) for i in listed(a, "synapse", "synapses")])
    assert found.kind == "synapse"
    assert {r["what"] for r in found.table.to_pylist()} == {"synapse"}
    assert sum(found.counts.values()) == found.table.num_rows
    assert set(found.counts) <= set(STATUSES)


# The command.


def invoke(*words: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_the_command_keeps_every_row_in_its_order(history: Path, tmp_path: Path) -> None:
    a = open_revision(history, "v2")
    objects = listed(a, "object", "agglomerate")
    given = [str(objects[2]), "", "4.61E+18", str(objects[0]), str(objects[2])]
    file = tmp_path / "ids.csv"
    file.write_text("n,object\n" + "".join(f"{i},{g}\n" for i, g in enumerate(given)))
    common = ["map-ids", "--from", "v2", "--to", "v3", str(file), "-C", str(history)]
    out, err = invoke(*common, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [r["given"] for r in rows] == given
    assert [r["line"] for r in rows] == ["2", "3", "4", "5", "6"]
    assert [r["status"] for r in rows][1:3] == ["not an id"] * 2
    assert "row 2 (line 3): '' is not an id: blank" in err
    assert "row 3 (line 4): '4.61E+18' is not an id" in err
    out, _ = invoke(*common, "--format", "json")
    found = json.loads(out)
    assert [r["id"] for r in found] == [str(objects[2]), None, None, str(objects[0]), str(objects[2])]
    assert found[0]["new_ids"] == rows[0]["new_ids"].split(";")
    for name in ("new.csv", "new.json", "new.parquet"):
        invoke(*common, "--out", str(tmp_path / name))
    assert list(csv.DictReader((tmp_path / "new.csv").open())) == rows
    assert json.loads((tmp_path / "new.json").read_text()) == found
    table = pq.read_table(tmp_path / "new.parquet")
    assert table.schema.field("heir").type == pa.uint64()
    assert table["given"].to_pylist() == given
    out, _ = invoke(*common)
    assert str(objects[2]) in out


def test_the_command_says_what_is_wrong(history: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("5\n")
    for words, message in (
        (["--from", "v1", str(tmp_path / "none.csv")], "none.csv: cannot be read"),
        (["--from", "v9", str(tmp_path / "ids")], "git knows no revision 'v9'"),
    ):
        with pytest.raises(ConnectomeError, match=message):
            invoke("map-ids", *words, "-C", str(history))


def test_an_empty_list_gives_no_rows(history: Path) -> None:
    a, b = open_revision(history, "v1"), open_revision(history, "v2")
    assert map_ids(a, b, IdList((), "object")).table.num_rows == 0


def test_a_connectome_without_voxels_is_mapped_by_name(tmp_path: Path) -> None:
    """As `connectome import` makes it: neurons are known by their ids alone, and the answer says so."""
    revisions = []
    for name, neurons in (("a", [1, 2]), ("b", [2, 9])):
        folder = tmp_path / name / "data" / "graph"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"neuron": pa.array(neurons, pa.uint64())}), folder / "neuron.parquet")
        (folder / "record.json").write_text("{}")
        revisions.append(Revision(tmp_path / name, name, None, tmp_path / name))
    rows = mapped(*revisions, ["1", "2", "9"]).table.to_pylist()
    assert [(r["status"], r["heir"]) for r in rows] == [("vanished", None), ("same", 2), ("not found", None)]
    assert all("by its id alone" in r["note"] for r in rows[:2])
    assert "at b" in rows[2]["note"]
