"""Receipts on the tiny project: normal form, what tables hold, digests of answers, the file, and the verdict."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_db.errors import QueryError
from connectome_db.provenance import merkle, slice_digests, table_digest
from connectome_db.query import views
from connectome_db.query.database import Database, open_database
from connectome_db.query.receipts import receipt, verdict
from connectome_db.query.receipts.answers import answer_digests
from connectome_db.query.receipts.content import READS, contents
from connectome_db.query.receipts.normal import normal_form
from connectome_db.query.receipts.receipt import Question, Receipt, RevisionFacts
from connectome_db.schema.all import OUTPUTS
from tests import tiny_project
from tests import tiny_rows as t


def seal(project: Path) -> Path:
    """Give the tiny project's parts and records the digests of its rows, as `finish` would."""
    for stage, tables in OUTPUTS.items():
        folder = project / "data" / stage
        if not folder.is_dir():
            continue
        parts = pq.read_table(folder / "parts.parquet").to_pylist()
        record = json.loads((folder / "record.json").read_text())
        for table in tables:
            rows = pq.read_table(folder / f"{table.name}.parquet")
            mine = [p for p in parts if p["output"] == table.name]
            for p in mine:
                p["digest"] = table_digest(
                    rows.filter(pa.compute.equal(rows["unit"], pa.scalar(p["unit"], pa.uint64())))
                )
            codes = np.array([p["unit"] for p in mine], dtype=np.uint64)
            record["outputs"][table.name] = merkle(codes, [p["digest"] for p in mine])
        schema = pq.read_schema(folder / "parts.parquet")
        pq.write_table(pa.Table.from_pylist(parts, schema=schema), folder / "parts.parquet")
        (folder / "record.json").write_text(json.dumps(record))
    return project


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seal(tiny_project.write(tmp_path_factory.mktemp("sealed")))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return seal(tiny_project.write(tmp_path / "own"))


def made(project: Path, sql: str, **values: Any) -> Receipt:
    with open_database(project, threads=1) as db:
        answer = receipt.ask(db, Question(sql, values))
    return receipt.make(answer, "tiny", {"main": RevisionFacts(asked="working tree", commit=None)})


def replace_rows(project: Path, stage: str, table: str, rows: pa.Table) -> None:
    path = project / "data" / stage / f"{table}.parquet"
    pq.write_table(rows, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


# --- normal form


def test_white_space_comments_and_case_of_keywords_do_not_matter() -> None:
    a = normal_form("SELECT pre, count(*) AS n FROM connection WHERE pre = $id GROUP BY pre ORDER BY pre")
    b = normal_form(
        "select pre,   COUNT( * ) as n -- partners\n from connection\n/* one */ where pre=$id group by pre order by pre"
    )
    assert a.tree == b.tree
    assert a.ordered
    for other in (
        "SELECT pre FROM connection",
        "SELECT pre, count(*) AS m FROM connection WHERE pre = $id GROUP BY pre ORDER BY pre",
        "SELECT pre, count(*) AS n FROM connection WHERE pre = $other GROUP BY pre ORDER BY pre",
    ):
        assert normal_form(other).tree != a.tree
    assert normal_form("SELECT 'A' x").tree != normal_form("SELECT 'a' x").tree


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM synapse s JOIN old.link USING (synapse)", {("main", "synapse"), ("old", "link")}),
        ("WITH link AS (SELECT * FROM link) SELECT * FROM link", {("main", "link")}),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, tile", {("main", "tile")}),
        ("SELECT (SELECT max(z_vx) FROM Synapse) FROM memory.main.neuron", {("main", "synapse"), ("main", "neuron")}),
        ("WITH RECURSIVE r AS (SELECT 1 n UNION SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r", set()),
        ("SELECT * FROM neuron WHERE EXISTS (WITH neuron AS (SELECT 1) FROM neuron)", {("main", "neuron")}),
        ("SELECT * FROM a UNION ALL SELECT * FROM old.b", {("main", "a"), ("old", "b")}),
    ],
)
def test_the_tables_a_query_reads(sql: str, tables: set[tuple[str, str]]) -> None:
    assert set(normal_form(sql).tables) == tables


@pytest.mark.parametrize(
    ("sql", "volatile"),
    [
        ("SELECT RANDOM()", {"random"}),
        ("SELECT now(), current_timestamp, today()", {"now", "current_timestamp", "today"}),
        ("SELECT uuid() FROM (SELECT gen_random_uuid())", {"uuid", "gen_random_uuid"}),
        ("SELECT * FROM synapse USING SAMPLE 2 ROWS", {"sample without REPEATABLE (seed)"}),
        ("SELECT * FROM synapse TABLESAMPLE reservoir(2 ROWS) REPEATABLE (7)", set()),
        ("SELECT sum(size_vx), any_value(pre_supervoxel), sqrt(2) FROM synapse", set()),
    ],
)
def test_functions_that_answer_otherwise_each_time(sql: str, volatile: set[str]) -> None:
    assert set(normal_form(sql).volatile) == volatile


@pytest.mark.parametrize(
    "sql", ["DESCRIBE synapse", "EXPLAIN SELECT 1", "SELECT 1; SELECT 2", "SHOW TABLES", "SELEC 1"]
)
def test_what_holds_no_data_gets_no_receipt(sql: str) -> None:
    with pytest.raises(QueryError):
        normal_form(sql)


# --- digests of answers

_ROW = st.tuples(
    st.integers(0, 3).map(lambda k: (1 << 60) + k), st.sampled_from([0.0, -0.0, 1.5, float("nan"), None]),
    st.sampled_from(["", "a", "b", None]),
)  # fmt: skip


def table_of(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = (pa.uint64(), pa.float64(), pa.string())
    return pa.table({n: pa.array([r[i] for r in rows], k) for i, (n, k) in enumerate(zip("abc", kinds, strict=True))})


@settings(max_examples=60, deadline=None)
@given(st.lists(_ROW, max_size=6), st.lists(_ROW, max_size=6), st.randoms(use_true_random=False))
def test_one_digest_knows_the_order_and_the_other_does_not(a: Any, b: Any, chance: Any) -> None:
    def plain(rows: list[Any]) -> list[str]:
        return [repr(tuple(0.0 if v == 0 else v for v in r)) for r in rows]

    shuffled = chance.sample(a, len(a))
    assert answer_digests(table_of(a))[1] == answer_digests(table_of(shuffled))[1]
    of_a, of_b = answer_digests(table_of(a)), answer_digests(table_of(b))
    assert (of_a[0] == of_b[0]) == (plain(a) == plain(b))
    assert (of_a[1] == of_b[1]) == (Counter(plain(a)) == Counter(plain(b)))


@settings(max_examples=60, deadline=None)
@given(st.lists(_ROW, max_size=8), st.lists(st.integers(0, 8), max_size=5), st.booleans())
def test_digests_of_slices_are_those_of_the_rows_alone(rows: Any, cuts: list[int], flag: bool) -> None:
    whole = table_of(rows).append_column("d", pa.array([flag if i % 2 else None for i in range(len(rows))], pa.bool_()))
    whole = whole.append_column("e", pa.array(["é" * i for i in range(len(rows))], pa.string()))
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    assert slice_digests(whole, edges) == [table_digest(whole.slice(a, b - a)) for a, b in pairwise(edges)]


def test_every_digit_of_an_id_and_every_type_counts() -> None:
    big = (1 << 53) + 1
    assert float(big) == float(1 << 53)  # a float could not tell these two apart

    def digests(value: Any, kind: pa.DataType, name: str = "x") -> str:
        return answer_digests(pa.table([pa.array([value], kind)], names=[name]))[0]

    assert digests(big, pa.uint64()) != digests(1 << 53, pa.uint64())
    assert digests([big], pa.list_(pa.uint64())) != digests([1 << 53], pa.list_(pa.uint64()))
    assert digests({"a": big}, pa.struct([("a", pa.uint64())])) != digests({"a": 1}, pa.struct([("a", pa.uint64())]))
    assert digests(1, pa.uint64()) != digests(1, pa.int64())
    assert digests(1, pa.uint64()) != digests(1, pa.uint64(), "y")
    assert digests(b"\x01", pa.binary()) != digests(b"\x02", pa.binary())
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert answer_digests(twice) != answer_digests(twice.select([1, 0]))


# --- what tables hold


def test_a_table_is_named_by_its_record_and_a_view_by_what_it_reads(sealed: Path) -> None:
    (found,) = contents(sealed, "main", ["connection"])
    record = json.loads((sealed / "data/graph/record.json").read_text())
    assert (found.stage, found.digest, found.volatile) == ("graph", record["outputs"]["connection"], False)
    edge = {(c.table, c.stage) for c in contents(sealed, "main", ["unit_edge"])}
    assert edge == {(table, stage) for table in ("unit", "unit_read", "part") for stage in tiny_project.KINDS}
    by_table = {c.table: c.volatile for c in contents(sealed, "main", ["execution", "stage_output", "stage_record"])}
    assert by_table == {"execution": True, "run": True, "stage_output": False, "stage_record": False}


@pytest.mark.parametrize(("view", "sql"), [("unit_edge", views.UNIT_EDGE), ("execution", views.EXECUTION)])
def test_what_a_view_reads_is_what_its_sql_says(view: str, sql: str) -> None:
    named = {table for _, table in normal_form(sql).tables}
    same_file = {"executed": "execution"}
    assert set(READS[view]) == {same_file.get(table, table) for table in named}


def test_an_altered_table_gets_no_receipt(own: Path) -> None:
    path = own / "data/graph/connection.parquet"
    rows = pq.read_table(path)
    more = pa.compute.add(rows["synapses"], 1)
    replace_rows(own, "graph", "connection", rows.set_column(rows.column_names.index("synapses"), "synapses", more))
    with pytest.raises(
        QueryError, match=r"connection\.parquet is not what parts\.parquet beside it \(unit \d+\).*finish graph"
    ):
        made(own, "SELECT * FROM connection")
    assert made(own, "SELECT * FROM neuron").answer.rows == 3
    twice = pq.read_table(own / "data/ingest/tile.parquet")
    replace_rows(own, "ingest", "tile", pa.concat_tables([twice.slice(0, 1), twice.slice(4), twice.slice(0, 4)]))
    with pytest.raises(QueryError, match="is not what"):
        made(own, "SELECT * FROM tile")
    replace_rows(own, "graph", "connection", rows.slice(0, 0))
    with pytest.raises(QueryError, match="is not what"):
        made(own, "SELECT * FROM connection")
    replace_rows(own, "graph", "connection", rows)
    assert made(own, "SELECT * FROM connection").answer.rows == 3
    record = own / "data/graph/record.json"
    record.write_text(record.read_text().replace(json.loads(record.read_text())["outputs"]["connection"], "0" * 64))
    with pytest.raises(QueryError, match=r"parts\.parquet is not what record\.json"):
        made(own, "SELECT * FROM connection")


def test_rows_in_another_order_are_vouched_for_by_their_table(own: Path) -> None:
    for sql in ("SELECT * FROM connection_by_post", "SELECT * FROM outputs_of(1)"):
        assert [(c.table, c.stage) for c in made(own, sql).tables] == [("connection", "graph")]
    copy, record = own / "data/graph/connection.by_post.parquet", own / "data/graph/record.json"
    shutil.copyfile(own / "data/graph/connection.parquet", copy)
    facts = json.loads(record.read_text())
    record.write_text(json.dumps({**facts, "companions": {copy.name: _sha256(copy)}}))
    assert made(own, "SELECT * FROM connection_by_post").answer.rows == 3
    rows = pq.read_table(copy)
    pq.write_table(rows.slice(1), copy.with_suffix(".new"))
    copy.with_suffix(".new").replace(copy)
    with pytest.raises(QueryError, match=r"connection\.by_post\.parquet is not what record\.json says.*finish graph"):
        made(own, "SELECT * FROM connection_by_post")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("rows_per_group", [1, 2, 3, 100])
def test_row_groups_do_not_matter(own: Path, rows_per_group: int) -> None:
    truth = contents(own, "main", ["tile", "section_transform", "apron"])
    for stage, table in (("ingest", "tile"), ("align", "section_transform"), ("segment", "apron")):
        path = own / "data" / stage / f"{table}.parquet"
        pq.write_table(pq.read_table(path), path.with_suffix(".new"), row_group_size=rows_per_group)
        path.with_suffix(".new").replace(path)
    assert contents(own, "main", ["tile", "section_transform", "apron"]) == truth


def test_a_table_that_is_replaced_meanwhile_gets_no_receipt(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pq.read_table(own / "data/graph/neuron.parquet")
    plain = Database.sql

    def while_running(db: Database, *args: Any, **more: Any) -> pa.Table:
        found = plain(db, *args, **more)
        replace_rows(own, "graph", "neuron", rows)
        return found

    monkeypatch.setattr(Database, "sql", while_running)
    with pytest.raises(QueryError, match="made anew while the query ran"):
        made(own, "SELECT * FROM neuron")
    assert made(own, "SELECT * FROM synapse").answer.rows == 4


def test_a_view_made_by_duckdb_itself_is_named_and_vouched_for_by_nobody(sealed: Path) -> None:
    (found,) = made(sealed, "SELECT count(*) n FROM information_schema.columns").tables
    assert (found.of, found.table, found.digest, found.volatile) == ("information_schema", "columns", "", True)


# --- the receipt itself


def test_a_receipt_can_be_written_and_read(sealed: Path, tmp_path: Path) -> None:
    made_here = made(sealed, "SELECT pre, post FROM connection WHERE pre = $id ORDER BY ALL", id=t.A2)
    path = tmp_path / "new" / "r.json"
    receipt.write(made_here, path)
    assert receipt.read(path) == (made_here, True)
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]
    told = json.loads(path.read_text())
    assert told["query"]["values"] == {"id": {"int": str(t.A2)}}
    assert t.A2 > 1 << 53
    assert receipt.asked_again(made_here.query).values == {"id": t.A2}
    assert told["answer"]["columns"] == [["pre", "uint64"], ["post", "uint64"]]
    assert (told["answer"]["rows"], told["voxel_nm"]) == (2, list(t.VOXEL_NM))
    assert str(sealed) not in path.read_text()
    with pytest.raises(QueryError, match=r"is there already.*--force"):
        receipt.write(made_here, path)
    receipt.write(made_here, path, force=True)


def test_values_come_back_as_they_were() -> None:
    values = {"a": (1 << 64) - 1, "b": True, "c": 0.1, "d": "x", "e": [1 << 63, 5], "f": float("inf"), "g": -3}
    asked = receipt.AskedQuery(
        name=None, arguments={}, file=None, file_sha256=None, sql="SELECT 1", normalised="SELECT 1", digest="",
        values={k: receipt._packed(v) for k, v in values.items()},
    )  # fmt: skip
    again = receipt.AskedQuery.model_validate_json(asked.model_dump_json())
    back = receipt.asked_again(again).values
    assert back == values
    assert [type(v) for v in back.values()] == [type(v) for v in values.values()]


def test_an_edited_receipt_is_noticed(sealed: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    receipt.write(made(sealed, "SELECT count(*) n FROM synapse"), path)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told))  # written anew without indents: nothing in it differs
    assert receipt.read(path)[1]
    told["answer"]["rows"] = 2
    path.write_text(json.dumps(told))
    assert not receipt.read(path)[1]
    told["answer"]["rows"] = "many"
    path.write_text(json.dumps(told))
    with pytest.raises(QueryError, match=r"answer\.rows.*edited or damaged"):
        receipt.read(path)
    for text, says in (("{}", "is no receipt"), ("[1", "cannot be read"), ('{"receipt": 2}', "format 2")):
        path.write_text(text)
        with pytest.raises(QueryError, match=says):
            receipt.read(path)


# --- the verdict


def test_the_same_again(sealed: Path) -> None:
    a = made(sealed, "SELECT pre, sum(confidence) s FROM connection GROUP BY pre ORDER BY pre")
    b = made(sealed, "select pre, SUM(confidence) AS s from connection group by pre order by pre -- again")
    assert verdict.compare(a, b).result == "same"
    assert a.query.digest == b.query.digest


def test_another_order_of_the_same_rows_is_said(sealed: Path) -> None:
    then = made(sealed, "SELECT synapse FROM synapse ORDER BY synapse")
    now = made(sealed, "SELECT synapse FROM synapse ORDER BY synapse DESC")
    found = verdict.compare(then, now)
    assert found.result == "other order"
    assert "the same 4 rows came in another order" in found.reasons[0]


def test_what_changed_is_named_with_its_stage(sealed: Path, own: Path) -> None:
    sql = "SELECT n.neuron, c.post FROM neuron n JOIN connection c ON c.pre = n.neuron ORDER BY ALL"
    then = made(sealed, sql)
    rows = pq.read_table(own / "data/graph/connection.parquet")
    replace_rows(own, "graph", "connection", rows.slice(1))
    record = own / "data/graph/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"params": {"threshold": 0.7}}))
    seal(own)
    found = verdict.compare(then, made(own, sql))
    assert found.result == "different"
    assert found.reasons[0] == "rows 3 -> 2"
    assert found.reasons[1].startswith("table connection (stage graph) has changed: ")
    assert found.reasons[2:] == ("stage graph was made with other parameters",)


def test_an_answer_that_differs_though_the_tables_do_not(sealed: Path) -> None:
    then = made(sealed, "SELECT random() r FROM synapse")
    assert then.volatile_functions == ("random",)
    found = verdict.compare(then, made(sealed, "SELECT random() r FROM synapse"))
    assert (found.result, found.reasons) == (
        "different",
        ("the query uses random, which may answer otherwise each time",),
    )
    plain = made(sealed, "SELECT synapse FROM synapse")
    odd = plain.model_copy(update={"answer": then.answer})
    assert "columns r double -> synapse uint64" in verdict.compare(odd, plain).reasons[0]
    older = odd.model_copy(update={"versions": odd.versions.model_copy(update={"duckdb": "0.1"})})
    assert any(r.startswith("DuckDB 0.1 -> ") for r in verdict.compare(older, plain).reasons)
