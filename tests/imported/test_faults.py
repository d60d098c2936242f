"""Rows that cannot be used are named, counted, and (when asked for) set aside; nothing is rounded or dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.errors import SourceError
from connectome_db.lists import names, read, values
from connectome_db.lists.mapping import Given, recognise
from connectome_db.lists.names import Names, digest_id, neuron_ids
from connectome_db.lists.report import Report
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList

BAD_NAMES = {
    "": names.EMPTY, "nan": names.EMPTY, "0": names.ZERO, "-1": names.NEGATIVE, "007": names.ZEROS, "+7": names.SIGN,
    "12345678901234567890123": names.LARGE, str(1 << 63): names.LARGE, "1.5": names.DECIMAL, "1.15e18": names.EXPONENT,
    "720575940600000000.0": names.DECIMAL, "AVAL": names.NAME_AMONG_NUMBERS,
}  # fmt: skip


@pytest.mark.parametrize("text", BAD_NAMES)
def test_a_name_that_cannot_be_an_id_is_named_by_row(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.csv").write_text(f"pre,post\n1,2\n2,{text}\n3,4\n")
    spec = SynapseList(file="e.csv", pre="pre", post="post")
    with pytest.raises(SourceError) as said:
        list(read.batches(spec, tmp_path))
    assert f"column 'post' {BAD_NAMES[text]}; 1 row: row 2: {text!r}" in str(said.value)
    aside = spec.model_copy(update={"set_aside": True})
    ((rows, rejected),) = read.batches(aside, tmp_path)
    assert rows["synapse"].to_pylist() == [1, 3]
    assert rejected.to_pylist() == [{"row": 2, "column": "post", "value": text, "reason": BAD_NAMES[text]}]


def test_whole_numbers_are_exact_whatever_type_holds_them() -> None:
    exact = (1 << 53) + 1
    for kind in (pa.int64(), pa.uint64()):
        found = Names(mixed=False).resolve("n", pa.chunked_array([pa.array([exact, (1 << 63) - 1], kind)]))
        assert found.ids.tolist() == [exact, (1 << 63) - 1]
    assert neuron_ids([str(exact), "12.0"]) == {str(exact): exact, "12.0": 12}
    floats = pa.chunked_array([pa.array([7.0, None, 0.0, -1.0, 2.5, 2.0**53, np.inf])])
    found = Names(mixed=False).resolve("n", floats)
    assert found.ids.tolist() == [7, 0, 0, 0, 0, 0, 0]
    bad = {reason: np.flatnonzero(rows).tolist() for reason, rows in found.faults}
    assert bad == {names.EMPTY: [1], names.ZERO: [2], names.NEGATIVE: [3], names.DECIMAL: [4], names.BEYOND: [5, 6]}
    integers = pa.chunked_array([pa.array([1, None, 0, -5], pa.int64())])
    bad = {reason: np.flatnonzero(rows).tolist() for reason, rows in Names(mixed=False).resolve("n", integers).faults}
    assert bad == {names.EMPTY: [1], names.ZERO: [2], names.NEGATIVE: [3]}


def test_two_neurons_never_share_an_id() -> None:
    with pytest.raises(SourceError, match="would both have the id"):
        neuron_ids(["AVAL", str(digest_id("AVAL"))])


def test_mixed_names_are_taken_when_they_are_meant(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("pre,post\n1,2\n2,AVAL\n3,4\n")
    spec = SynapseList(file="e.csv", pre="pre", post="post", mixed_names=True)
    ((rows, rejected),) = read.batches(spec, tmp_path)
    assert rows["post"].to_pylist() == [2, digest_id("AVAL"), 4]
    assert rejected.num_rows == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [("many", values.NOT_WHOLE), ("", values.NOT_WHOLE), ("2.5", values.NOT_WHOLE), ("0", values.NO_SYNAPSE),
     ("-3", values.NEGATIVE)],
)  # fmt: skip
def test_weights_are_whole_and_positive_in_text_and_in_numbers(tmp_path: Path, value: str, reason: str) -> None:
    (tmp_path / "e.csv").write_text(f"pre,post,n\n1,2,3\n1,2,{value}\n")
    files = ["e.csv"]
    if value not in {"many", ""}:
        pq.write_table(pa.table({"pre": [1, 1], "post": [2, 2], "n": [3.0, float(value)]}), tmp_path / "e.parquet")
        files.append("e.parquet")
    for file in files:
        with pytest.raises(SourceError, match=r"row 2") as said:
            list(read.batches(SynapseList(file=file, pre="pre", post="post", weight="n"), tmp_path))
        assert reason in str(said.value)


def test_all_faults_of_all_blocks_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("pre,post\n1,2\n" + ",3\n" * 25)
    report = Report()
    with pytest.raises(SourceError, match=r"25 of 26 rows cannot be used"):
        list(read.batches(SynapseList(file="e.csv", pre="pre", post="post"), tmp_path, block_rows=4, report=report))
    (fault,) = report.faults.values()
    assert (fault.count, [row for row, _ in fault.first]) == (25, list(range(2, 12)))


@pytest.mark.parametrize(
    ("columns", "reason"), [({"xyz": "p"}, values.NO_PLACE), ({"x": "x", "y": "x", "z": "z"}, values.PART_PLACE)]
)
def test_places_that_are_none(tmp_path: Path, columns: dict[str, str], reason: str) -> None:
    made = {"pre": [1, 2], "post": [2, 1], "p": ["[1,2,3]", "1,2"], "x": [1.0, 2.0], "z": [1.0, None]}
    pq.write_table(pa.table(made), tmp_path / "s.parquet")
    spec = SynapseList.model_validate(
        {"file": "s.parquet", "pre": "pre", "post": "post", "position": columns, "unit": "nm", "set_aside": True}
    )
    ((rows, rejected),) = read.batches(spec, tmp_path)
    assert rows["synapse"].to_pylist() == [1]
    assert [(r["row"], r["reason"]) for r in rejected.to_pylist()] == [(2, reason)]


def test_neurons_of_annotations_are_held_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,type\n1,x\n1.5,y\n")
    spec = AnnotationList(file="a.csv", neuron="id")
    with pytest.raises(SourceError, match=r"row 2: '1.5'"):
        read.annotation_rows([spec], tmp_path)
    aside = spec.model_copy(update={"set_aside": True})
    assert read.annotation_rows([aside], tmp_path)["neuron"].to_pylist() == [1]
    assert read.source_facts(aside, tmp_path)["set_aside_rows"] == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pre,post\n1,2\n1,2,3\n", "line 3 has 3 fields, the header 2"),
        ("pre,pre\n1,2\n", "the column 'pre' is there twice"),
        ("", "is empty; wanted a header"),
        ("pre,x\n1,2\n", "which column is the postsynaptic neuron"),
        ("a,b\n1,2\n", "which column is the presynaptic neuron"),
        ("pre,post\n", "has no row that can be imported"),
    ],
)
def test_damaged_files_are_told_from_each_other(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(SourceError, match=says):
        list(read.batches(recognise(tmp_path / "e.csv", Given()).synapses, tmp_path))


@pytest.mark.parametrize("name", ["e.parquet", "e.arrow", "e.xlsx", "e.json", "e.graphml", "e.npy", "e.docx"])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is no such file")
    with pytest.raises(SourceError, match=name):
        recognise(tmp_path / name, Given())


SWC = "# soma first\n1 1 0 0 0 2 -1\n2 3 10 20 30 1 1\n4 3 5 5 5 1 -1\n"


def test_skeletons_are_read_in_nm(tmp_path: Path) -> None:
    (tmp_path / "720575940600000001.swc").write_text(SWC)
    (tmp_path / "AVAL.swc").write_text("7 2 1 2 3 0.5 -1\n")
    rows = read.skeleton_rows(SkeletonFolder(folder=".", unit="um"), tmp_path).to_pylist()
    assert [(r["neuron"], r["node"], r["parent"]) for r in rows[:3]] == [
        (720575940600000001, 1, -1), (720575940600000001, 2, 1), (720575940600000001, 4, -1),
    ]  # fmt: skip
    assert (rows[1]["z_nm"], rows[1]["y_nm"], rows[1]["x_nm"], rows[0]["radius_nm"]) == (30000, 20000, 10000, 2000)
    assert (rows[3]["name"], rows[3]["neuron"]) == ("AVAL", digest_id("AVAL"))
    voxels = SkeletonFolder(folder=".", unit="vx", voxel_nm=(40, 8, 4))
    assert read.skeleton_rows(voxels, tmp_path).to_pylist()[1]["z_nm"] == 1200
    facts = read.source_facts(voxels, tmp_path)
    assert (facts["files"], facts["licence"], len(facts["sha256"])) == (2, "unknown", 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 1 0 0 0 1 2\n2 1 0 0 0 1 1\n", "make a cycle"),
        ("1 1 0 0 0 1 -1\n2 1 0 0 0 1 9\n", "node 2 has the parent 9"),
        ("1 1 0 0 0 1 -1\n1 1 0 0 0 1 -1\n", "node 1 is there twice"),
        ("1 1 0 0 0 -1\n", "node line 1"),
        ("1 1 nan 0 0 1 -1\n", "x is nan"),
        ("", "has no nodes"),
    ],
)
def test_skeletons_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "5.swc").write_text(text)
    with pytest.raises(SourceError, match=says):
        read.skeleton_rows(SkeletonFolder(folder=".", unit="nm"), tmp_path)
