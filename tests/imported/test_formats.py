"""Every format gives the same connectome; columns are recognised, shown, and never guessed where that could mislead."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.errors import SourceError
from connectome_db.lists import read
from connectome_db.lists.mapping import Given, recognise
from connectome_db.lists.names import digest_id
from connectome_db.lists.report import Report
from connectome_db.lists.specs import AnnotationList, SynapseList
from tests.imported.files import EDGES, FORMATS


def rows_of(spec: SynapseList, root: Path, **options: int) -> list[dict[str, object]]:
    return [row for rows, _ in read.batches(spec, root, **options) for row in rows.to_pylist()]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_connectome(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    FORMATS[name](file)
    given = Given(sheet="edges" if name.endswith("xlsx") else None)
    if name.endswith(".npy"):
        given = Given(names=file.with_suffix(".names"))
    found = recognise(file, given)
    rows = rows_of(found.synapses, tmp_path, block_rows=2)
    assert {(r["pre_name"], r["post_name"]): r["synapses"] for r in rows} == EDGES
    assert all(r["pre"] == digest_id(str(r["pre_name"])) for r in rows)
    assert [r["synapse"] for r in rows] == sorted({r["synapse"] for r in rows})


def test_a_matrix_is_turned_round_when_its_columns_are_presynaptic(tmp_path: Path) -> None:
    FORMATS["matrix.csv"](tmp_path / "m.csv")
    found = recognise(tmp_path / "m.csv", Given(columns_are_pre=True))
    rows = rows_of(found.synapses, tmp_path)
    assert {(r["post_name"], r["pre_name"]): r["synapses"] for r in rows} == EDGES


def test_attributes_of_nodes_are_annotations(tmp_path: Path) -> None:
    FORMATS["edges.graphml"](tmp_path / "g.graphml")
    found = read.annotation_rows([AnnotationList(file="g.graphml", neuron="id")], tmp_path).to_pylist()
    # AVAR has no type, so all that is said of it is its name.
    assert {(r["name"], r["kind"], r["value"]) for r in found} == {
        ("AVAL", "type", "command"), ("AVAR", "id", "AVAR"), ("RIML", "type", "inter"),
    }  # fmt: skip


def test_neuprint_neurons_are_annotations_although_they_have_columns_pre_and_post(tmp_path: Path) -> None:
    info = json.dumps({"EB": {"pre": 3, "post": 2}, "PB": {"post": 4}})
    quoted = '"' + info.replace('"', '""') + '"'
    (tmp_path / "n.csv").write_text(f"bodyId,instance,type,pre,post,roiInfo\n5813105172,EPG_1,EPG,3,6,{quoted}\n")
    found = recognise(tmp_path / "n.csv", Given())
    assert isinstance(found.spec, AnnotationList)
    rows = read.annotation_rows([found.spec], tmp_path).to_pylist()
    assert {r["neuron"] for r in rows} == {5813105172}
    assert {r["value"] for r in rows if r["kind"] == "roi"} == {"EB", "PB"}
    assert {r["value"] for r in rows if r["kind"] == "type"} == {"EPG"}


def test_what_two_tables_say_alike_is_kept_once(tmp_path: Path) -> None:
    for name, text in {"a.csv": "id,type,side\n1,x,L\n2,,nan\n1,x,L\n", "b.csv": "id,type\n1,x\n1,y\n"}.items():
        (tmp_path / name).write_text(text)
    specs = [AnnotationList(file=n, neuron="id") for n in ("a.csv", "b.csv")]
    found = [tuple(r.values())[:4] for r in read.annotation_rows(specs, tmp_path).to_pylist()]
    assert found == [
        (1, "side", "L", "a.csv"), (1, "type", "x", "a.csv"), (1, "type", "y", "b.csv"), (2, "id", "2", "a.csv"),
    ]  # fmt: skip


PLACES = {
    "list": pa.table({"pre_pt_root_id": [1, 2], "post_pt_root_id": [2, 1], "ctr_pt_position": [[4, 5, 6], None]}),
    "text": pa.table({"pre_pt_root_id": [1, 2], "post_pt_root_id": [2, 1], "ctr_pt_position": ["[4, 5.0 6]", ""]}),
    "split": pa.table(
        {"pre_pt_root_id": [1, 2], "post_pt_root_id": [2, 1], **{f"ctr_pt_position_{a}": [v, None] for a, v in
         {"x": 4.0, "y": 5.0, "z": 6.0}.items()}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", PLACES)
@pytest.mark.parametrize(("unit", "factor"), [("nm", 1), ("um", 1000), ("vx", 1)])
def test_places_in_every_form_and_unit(tmp_path: Path, form: str, unit: str, factor: int) -> None:
    pq.write_table(PLACES[form], tmp_path / "s.parquet")
    unsaid = recognise(tmp_path / "s.parquet", Given())
    assert unsaid.unit_unsaid
    with pytest.raises(SourceError, match="the unit of the places is not said"):
        list(read.batches(unsaid.synapses, tmp_path))
    found = recognise(tmp_path / "s.parquet", Given(unit=unit))  # type: ignore[arg-type]
    a, b = rows_of(found.synapses, tmp_path)
    assert [a[f"{axis}_vx"] for axis in "xyz"] == [4 * factor, 5 * factor, 6 * factor]
    assert [b[f"{axis}_vx"] for axis in "xyz"] == [None] * 3


def test_a_unit_in_the_name_of_a_column_is_believed_and_not_overruled(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("pre,post,x_nm,y_nm,z_nm\n1,2,3,4,5\n")
    assert recognise(tmp_path / "s.csv", Given()).synapses.unit == "nm"
    with pytest.raises(SourceError, match="--unit vx, but the columns are called x_nm"):
        recognise(tmp_path / "s.csv", Given(unit="vx"))


def test_kinds_and_series_that_would_be_summed_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("pre,post,Type,dataset\nA,B,chemical,D1\nA,B,electrical,D2\n")
    kinds, series = recognise(tmp_path / "s.csv", Given()).warnings
    assert "--where Type=chemical" in kinds
    assert "--versions-by dataset" in series
    assert recognise(tmp_path / "s.csv", Given(where={"Type": "chemical", "dataset": "D1"})).warnings == ()


def test_numbers_in_a_workbook_are_refused_where_they_lost_digits(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["pre", "post"], [9007199254740991, 3], [720575940600000001, 3], ["720575940600000001", 3]):
        book.active.append(row)
    book.save(tmp_path / "s.xlsx")
    report = Report()
    with pytest.raises(SourceError, match="row 2: '7"):
        list(read.batches(SynapseList(file="s.xlsx", pre="pre", post="post"), tmp_path, report=report))
    assert [f.first[0][0] for f in report.faults.values()] == [2]


def test_weights_are_added_up_over_regions(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("bodyId_pre,bodyId_post,roi,weight\n1,2,EB,3\n1,2,PB,4\n")
    found = recognise(tmp_path / "c.csv", Given())
    assert "neuPrint" in found.what
    total: Counter[tuple[object, object]] = Counter()
    for r in rows_of(found.synapses, tmp_path):
        total[r["pre"], r["post"]] += r["synapses"]  # type: ignore[assignment]
    assert total == {(1, 2): 7}
