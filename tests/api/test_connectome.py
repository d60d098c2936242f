"""The Python API: what people ask in a notebook, exact ids, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import connectome_db
from connectome_db.api.connectome import Connectome
from connectome_db.api.frames import frame, shown
from connectome_db.errors import ConnectomeError, QueryError
from connectome_db.lists.names import neuron_ids
from connectome_db.query.graph.nulls import Nulls
from connectome_db.query.graph.wiring import read_places
from tests.tiny_rows import A1, A2, B2, s1

N = neuron_ids(["A1", "A2", "B1", "B2", "C"])


def _edges(rows: pd.DataFrame) -> set[tuple[int, int, int]]:
    return {(r.pre, r.post, r.synapses) for r in rows.itertuples()}


def test_the_package_loads_nothing_until_it_is_asked() -> None:
    code = "import sys, connectome_db; print([m for m in ('numpy', 'pandas', 'duckdb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="it has `open`"):
        connectome_db.opne  # noqa: B018


def test_a_project_says_what_it_is(toy: Connectome, native: Connectome) -> None:
    assert repr(toy) == "Connectome('toy', working tree: 5 neurons, 9 connections, 27 synapses)"
    assert "made from raw tiles" in native._repr_html_()
    assert "listed_synapse" in toy.tables()["table"].tolist()
    assert toy.describe("connection")["unit"].tolist().count("vx") == 1


def test_connections_by_name_id_annotation_and_table(toy: Connectome) -> None:
    strong = {(N["A1"], N["B1"], 6), (N["A2"], N["B1"], 3), (N["A2"], N["B2"], 5)}
    for pre in ({"type": "PN"}, ["A1", "A2"], np.array([N["A1"], N["A2"]], np.uint64), toy.neurons(type="PN"),
                pa.array([N["A1"], N["A2"]], pa.uint64()), [str(N["A1"]), "A2"], {"neuron": ["A1", "A2"]}):  # fmt: skip
        assert _edges(toy.connections(pre, min_count=3)) == strong
    assert _edges(toy.connections(post="B1", min_count=4)) == {(N["A1"], N["B1"], 6)}
    assert _edges(toy.connections({"type": "PN"}, {"type": "KC*", "side": "left"}, roi="FB")) == {
        (N["A1"], N["B1"], 2), (N["A2"], N["B2"], 5),
    }  # fmt: skip
    named = toy.connections("A1", "B1", show=("name", "type"))
    assert named[["pre_name", "post_name", "pre_type", "post_type"]].iloc[0].tolist() == ["A1", "B1", "PN", "KC-ab"]
    assert toy.connections("A1", "C").empty


def test_neurons_come_with_names_and_annotations(toy: Connectome) -> None:
    rows = toy.neurons(side="left")
    assert set(rows["name"]) == {"A1", "B1", "B2"}
    assert rows.set_index("name").loc["B1", ["type", "synapses_in", "partners_in"]].tolist() == ["KC-ab", 9, 2]
    assert toy.neurons(type="KC*", name="B2")["neuron"].tolist() == [N["B2"]]
    assert len(toy.neurons()) == 5
    assert toy.neurons()["type"].isna().sum() == 1


def test_synapses_in_a_box_are_those_of_the_list(toy: Connectome) -> None:
    rows = toy.synapses(box_nm=((0, 0, 0), (20, 51, 11)))
    assert sorted(zip(rows["z_nm"], rows["y_nm"], rows["x_nm"], strict=True)) == [(10, 10, 10), (10, 50, 10)]
    assert toy.synapses("A1", "B1")["synapses"].tolist() == [4, 2]
    assert toy.synapses(post="C", limit=2)["synapse"].tolist() == [6, 7]


def test_synapses_of_a_native_project_have_places_in_nm(native: Connectome) -> None:
    rows = native.synapses(A1, A2)
    place = native.sql("SELECT z_vx FROM synapse WHERE synapse = $s", s=int(rows["synapse"][0]))["z_vx"][0]
    assert rows["z_nm"][0] == (place + 0.5) * 40
    assert s1 in rows["synapse"].tolist()
    low = tuple(rows[f"{a}_nm"][0] for a in "zyx")
    inside = native.synapses(box_nm=(low, tuple(v + 1e-6 for v in low)))
    assert rows["synapse"][0] in inside["synapse"].tolist()
    assert _edges(native.connections(A1)) == {(A1, A2, 2)}


def test_partners_and_adjacency_come_from_the_index(toy: Connectome) -> None:
    rows = toy.partners("B1")
    assert list(zip(rows["direction"], rows["partner_name"], rows["synapses"], strict=True)) == [
        ("in", "A1", 6), ("in", "A2", 3), ("out", "C", 2), ("out", "B2", 1),
    ]  # fmt: skip
    shared = toy.common_partners(["A1", "A2"])
    assert [tuple(r) for r in shared.itertuples(index=False)] == [(N["B1"], 9, 3), (N["B2"], 6, 1)]
    matrix = toy.adjacency(["A1", "A2"], {"type": "KC*"}, min_count=3)
    assert matrix.loc[N["A1"]].to_dict() == {N["B1"]: 6, N["B2"]: 0}
    assert matrix.index.dtype == np.uint64


def _paths(rows: pd.DataFrame) -> list[list[int]]:
    return [g["neuron"].tolist() for _, g in rows.groupby("path")]


def test_paths_are_all_shortest_all_bounded_or_the_best(toy: Connectome) -> None:
    shortest = toy.paths("A1", "C")
    assert sorted(_paths(shortest)) == sorted([[N["A1"], N["B1"], N["C"]], [N["A1"], N["B2"], N["C"]]])
    assert shortest.groupby("path")["synapses"].apply(lambda s: sorted(s.dropna())).tolist() != []
    bounded = _paths(toy.paths("A1", "C", max_steps=3))
    assert [N["A1"], N["B1"], N["B2"], N["C"]] in bounded
    assert len(bounded) == 3
    assert _paths(toy.paths("A1", "C", weight="synapses")) == [[N["A1"], N["B1"], N["C"]]]
    assert toy.paths("B1", "A2").empty
    assert _paths(toy.paths("A1", "C", min_count=3)) == []
    assert len(_paths(toy.paths("A1", "C", limit=1))) == 1
    with pytest.raises(QueryError, match="wanted one neuron"):
        toy.paths(["A1", "A2"], "C")


def test_graphs_of_all_kinds_agree(toy: Connectome) -> None:
    graph = toy.graph()
    matrix, ids = toy.csr()
    at = {n: k for k, n in enumerate(ids.tolist())}
    assert {(a, b, d["synapses"]) for a, b, d in graph.edges(data=True)} == _edges(toy.connections())
    assert all(matrix[at[a], at[b]] == d["synapses"] for a, b, d in graph.edges(data=True))
    assert graph.nodes[N["B1"]]["type"] == "KC-ab"
    assert all("unit" in d for *_, d in graph.edges(data=True))
    other = toy.igraph()
    assert {
        (int(other.vs[e.source]["neuron"]), int(other.vs[e.target]["neuron"]), e["synapses"]) for e in other.es
    } == (_edges(toy.connections()))


def test_places_are_means_of_synapses_in_nm(toy: Connectome) -> None:
    wiring = toy.wiring()
    places = read_places(toy.database, wiring)
    at = wiring.neurons.tolist().index(N["A2"])
    assert places[at].tolist() == [20, 35, 10]
    assert len(list(Nulls(2, "spatial", 0, places).graphs(wiring.simple()))) == 2


def test_lineage_prints_and_gives_its_steps(toy: Connectome, native: Connectome) -> None:
    trace = toy.trace("A1", "B1")
    assert {s.facts["row"] for s in trace.find("row")} == {1, 2}
    assert "s.csv" in repr(trace)
    assert str(N["A1"]) in trace.json()
    assert native.trace(A2, B2).find("tile")
    assert native.trace_synapse(s1).find("unit")


def test_sql_and_named_queries_bind_values(toy: Connectome) -> None:
    assert toy.sql("SELECT count(*) AS n FROM connection WHERE synapses >= $k", k=5)["n"].tolist() == [3]
    rows = toy.query("partners", neuron=N["B1"], direction="in")
    assert rows["partner"].tolist() == [N["A1"], N["A2"]]
    assert "partners" in toy.queries()["query"].tolist()
    with pytest.raises(QueryError, match="COPY"):
        toy.sql("COPY connection TO 'x.csv'")


def test_a_receipt_is_kept_and_holds_what_was_bound(toy: Connectome, tmp_path: Path) -> None:
    found = toy.receipt("SELECT pre FROM connection WHERE synapses >= $k", tmp_path / "r.json", k=5)
    assert len(found.rows) == 3
    assert found.receipt.answer.rows == 3
    assert "k" in (tmp_path / "r.json").read_text()
    with pytest.raises(ConnectomeError, match=r"r\.json"):
        toy.receipt("SELECT 1 AS one", tmp_path / "r.json")


def test_ids_are_exact_also_in_columns_with_gaps() -> None:
    big = 2**63 + 1
    rows = pa.table({"a": pa.array([big, None], pa.uint64()), "b": pa.array([2**53 + 1, 2], pa.int64()),
                     "c": pa.array([True, None])})  # fmt: skip
    found = frame(rows)
    assert (found["a"][0], found["b"][0]) == (big, 2**53 + 1)
    assert found["a"].isna().tolist() == [False, True]
    assert str(found["c"].dtype) == "boolean"
    total = pa.table({"n": pa.array([12], pa.decimal128(38, 0))})
    assert shown(total)["n"].dtype == np.int64


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda db: db.connections("A3"), "no neuron is called 'A3'; did you mean 'A1'|did you mean 'A2'"),
        (lambda db: db.connections(5), "no neuron 5; the nearest of 5 ids"),
        (lambda db: db.connections(1.5), "Decimal numbers|wanted an id"),
        (lambda db: db.connections([1.5]), "Decimal numbers lose the last digits"),
        (lambda db: db.connections([-1]), "is no id"),
        (lambda db: db.connections(int(float(N["A1"]))), "went through a float and was rounded"),
        (lambda db: db.connections("PN"), "it is an annotation: give {'type': 'PN'}"),
        (lambda db: db.neurons(tpye="PN"), "no annotation of kind 'tpye'; did you mean 'type'"),
        (lambda db: db.neurons(type="PM"), "no neuron has type 'PM'"),
        (lambda db: db.connections(roi="EC"), "no region 'EC'; did you mean 'EB'"),
        (lambda db: db.connections(min_quality=0.5), "has no images"),
        (lambda db: db.connections(show="nmae"), "no annotation of kind 'nmae'"),
        (lambda db: db.connections(as_="pandsa"), "did you mean 'pandas'"),
        (lambda db: db.synapses(box_nm=(1, 2, 3)), "wanted \\(\\(z0, y0, x0\\)"),
        (lambda db: db.partners("A1", "forward"), "wanted 'out', 'in' or 'both'"),
        (lambda db: db.paths("A1", "C", weight="step"), "wanted one of steps, synapses, share"),
        (lambda db: db.describe("conection"), "did you mean 'connection'"),
        (lambda db: db.sql("SELECT prE2 FROM connection"), "unknown column"),
        (lambda db: db.query("partner", neuron=1), "did you mean 'partners'"),
        (lambda db: db.view("A1"), "has no volumes"),
        (lambda db: db.diff("v0"), "knows no revision 'v0'"),
        (lambda db: connectome_db.open(db.project / "no"), "no such folder"),
        (lambda db: connectome_db.open(db.project, rev="v0"), "knows no revision 'v0'"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(toy: Connectome, ask, says: str) -> None:
    with pytest.raises(ConnectomeError, match=says):
        ask(toy)


def test_a_lineage_is_plain_text_in_a_notebook_too(toy: Connectome) -> None:
    shown = toy.trace("A1", "B1")
    assert "\x1b" not in repr(shown)
    assert shown._repr_html_().startswith("<pre>edge")
