from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, Other, open_database
from connectome_db.query.named import list_queries, load_query, parse_arguments, run_query, usage
from tests import tiny_project
from tests import tiny_rows as t

OWN = Path(__file__).parents[2]
ALL = list_queries(OWN)


def test_there_are_queries() -> None:
    assert len([q for q in ALL.values() if not q.own]) >= 12
    assert ALL["weakest_connections"].own


@pytest.fixture(scope="module")
def project_with_own(tmp_path_factory: pytest.TempPathFactory) -> Database:
    project = tiny_project.write(tmp_path_factory.mktemp("own"))
    shutil.copytree(OWN / "queries", project / "queries")
    box = {"z1_nm": 80.0, "y1_nm": 960.0} | {f"{a}0_nm": 0.0 for a in "zyx"}
    halves = [box | {"x0_nm": x, "x1_nm": x + 480.0, "value": 0.4 + x / 4800, "tile": str(x)} for x in (0.0, 480.0)]
    rows = [{"unit": t.BLOCK_A, "metric": "raw_sharpness", **half} for half in halves]
    (project / "data" / "measure_raw").mkdir()
    pq.write_table(tiny_project.table_of("quality_raw", rows), project / "data" / "measure_raw" / "quality_raw.parquet")
    return open_database(project, also={"a": Other(project, "v1"), "b": Other(project, "v2")})


@pytest.mark.parametrize("name", [q.name for q in ALL.values() if q.works != "imported"])
def test_example_answers_with_the_documented_columns(project_with_own: Database, name: str) -> None:
    rows = run_query(project_with_own, name, ALL[name].example)
    assert rows.column_names == list(ALL[name].columns)
    assert rows.num_rows > 0 or name in {"common_partners", "feed_forward_loops"}
    assert not any(str(c.type).startswith(("decimal", "halffloat")) for c in rows.schema)
    assert usage(ALL[name]).startswith(f"connectome query {name}")


def test_partners(db: Database) -> None:
    both = run_query(db, "partners", {"neuron": str(t.A1)}).to_pylist()
    assert [(r["direction"], r["partner"], r["synapses"]) for r in both] == [("out", t.A2, 2), ("in", t.A2, 1)]
    assert run_query(db, "partners", {"neuron": t.A1, "direction": "in", "min_synapses": "2"}).num_rows == 0


def test_common_partners(db: Database) -> None:
    rows = run_query(db, "common_partners", {"a": t.A1, "b": t.B2}).to_pylist()
    assert rows == [{"direction": "in", "partner": t.A2, "synapses_a": 1, "synapses_b": 1}]


def test_adjacency_has_zeros(db: Database) -> None:
    rows = run_query(db, "adjacency", {"pre": f"{t.A1},{t.B2}", "post": [t.A2]}).to_pylist()
    assert rows == [{"pre": t.A1, "post": t.A2, "synapses": 2}, {"pre": t.B2, "post": t.A2, "synapses": 0}]


def test_a_box_is_never_taken_for_the_other_unit(db: Database) -> None:
    in_vx = run_query(db, "synapses_in_box", {"box": "0:1,50:70,0:60 vx"})
    assert set(in_vx["synapse"].to_pylist()) == {t.s1, t.s4}
    assert run_query(db, "synapses_in_box", {"box": "0:40,400:560,0:480 nm"}) == in_vx
    assert run_query(db, "synapses_in_box", {"box": "0:1,50:70,0:60 nm"}).num_rows == 0
    for wrong in ("0:1,50:70,0:60", "0:1,50:70 nm", "1:0,50:70,0:60 nm"):
        with pytest.raises(QueryError, match="wanted box"):
            run_query(db, "synapses_in_box", {"box": wrong})


def test_reach(db: Database) -> None:
    assert run_query(db, "reach", {"neuron": t.A1, "steps": 1})["neuron"].to_pylist() == [t.A2]
    two = run_query(db, "reach", {"neuron": t.A1, "steps": 2}).to_pylist()
    assert [(r["neuron"], r["steps"]) for r in two] == [(t.A2, 1), (t.B2, 2)]


def test_others(db: Database) -> None:
    assert run_query(db, "reciprocal_pairs").to_pylist() == [{"a": t.A1, "b": t.A2, "synapses_ab": 2, "synapses_ba": 1}]
    assert run_query(db, "object_merges", {"object": t.A2})["score"].to_pylist() == [0.95, 0.7]
    assert run_query(db, "tile_quality")["least_sharp_tile"].to_pylist()[1] == "s1/t11.png"
    runs = {r["stage"]: r for r in run_query(db, "stage_runs").to_pylist()}
    assert (runs["segment"]["computed"], runs["segment"]["reused"], runs["segment"]["commits"]) == (1, 1, 2)
    (pair,) = run_query(db, "alignment_by_pair").to_pylist()
    assert pair["median_px"] == pytest.approx((0.5 + (1.3**2 + 1.4**2) ** 0.5) / 2)
    tiles = run_query(db, "edge_lineage", {"pre": t.A1, "post": t.A2}).to_pylist()
    assert {(r["synapse"], r["side"], r["tile"]) for r in tiles} >= {(t.s2, "pre", "s0/t01.png")}
    assert all(r["sha256"] == t.sha(r["tile"]) for r in tiles)


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("partner", {}, "unknown query 'partner'; did you mean 'partners'?"),
        ("partners", {"neuron": "1", "min_synapse": "2"}, "no parameter 'min_synapse'; did you mean 'min_synapses'?"),
        ("partners", {}, "needs neuron (uint64)"),
        ("partners", {"neuron": "-1"}, "wanted uint64"),
        ("partners", {"neuron": "1e3"}, "wanted uint64"),
        ("partners", {"neuron": 4.6e18}, "wanted uint64"),
        ("partners", {"neuron": str(2**64)}, "wanted uint64"),
        ("partners", {"neuron": "1", "min_synapses": "x"}, "wanted int (a whole number), got 'x'"),
        ("strongest_connections", {"min_confidence": "high"}, "wanted float"),
        ("degree_distribution", {"whole_only": "maybe"}, "wanted bool"),
        ("adjacency", {"pre": "1,b", "post": "2"}, "wanted list of uint64"),
        ("partners", {"neuron": "1", "direction": "inn"}, "(out, in, both), got 'inn'; did you mean 'in'?"),
        ("synapse_density", {"cell": "wide"}, "parameter cell: wanted float in nm (a number), got 'wide'"),
        ("strongest_connections", {"min_confidence": "nan"}, "wanted float"),
        ("connection_matrix", {}, "works in imported projects alone; this connectome was made from images"),
    ],
)
def test_bad_arguments(db: Database, name: str, args: dict[str, object], says: str) -> None:
    with pytest.raises(QueryError) as e:
        run_query(db, name, args)
    assert says in str(e.value)


def test_values_are_bound_not_pasted(db: Database) -> None:
    assert run_query(db, "edges_of_tile", {"tile": "x' OR '1'='1"}).num_rows == 0


GOOD = "-- title: T\n-- parameters:\n--   n: int = 1 — N.\n-- columns:\n--   n — N.\n-- example: n=2\nSELECT $n AS n\n"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("n: int", "n: integer"), "q.sql:3: parameter n: unknown type 'integer'; did you mean 'int'?"),
        (("n: int = 1 — N.", "n int"), "q.sql:3: wanted `name: type = default — meaning`"),
        (("SELECT $n", "SELECT\n$m + $n"), "q.sql:8: $m is not declared"),
        (("SELECT $n", "SELECT 1"), "parameter n is declared and never used"),
        (("-- columns:\n--   n — N.\n", ""), "the header has no `-- columns:`"),
        (("--   n — N.\n-- ex", "--   n\n-- ex"), "q.sql:5: wanted `column — meaning`"),
        (("SELECT $n AS n", "SELEC $n"), "q.sql:7: SQL does not parse"),
        (("SELECT $n AS n", "SELECT $n AS n\nFROM (SELECT 1\nGROUP BY"), "q.sql:9: SQL does not parse"),
        (("n: int = 1", "n: int = one"), "q.sql:3: the default is wrong: parameter n: wanted int"),
        (("-- example", "-- works: sometimes\n-- example"), "q.sql:6: wanted `works:` with one of all, reconstructed"),
        (("SELECT $n AS n", "SELECT $n AS n; SELECT 1"), "wanted one SQL statement, got 2"),
        (("-- title", "-- name"), "q.sql:1: wanted one of title"),
    ],
)
def test_bad_files_are_pointed_at(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = tmp_path / "q.sql"
    path.write_text(GOOD)
    assert load_query(path, own=True).parameters[0].default == "1"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(QueryError) as e:
        load_query(path, own=True)
    assert says in str(e.value)


def test_a_projects_own_query_wins(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "partners.sql").write_text(GOOD)
    found = list_queries(tmp_path)["partners"]
    assert found.own
    with open_database(tmp_path) as db:
        assert run_query(db, "partners", {"n": "5"}).to_pylist() == [{"n": 5}]


def test_own_queries_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "bad.sql").write_text(GOOD.replace("SELECT $n AS n", "CREATE TABLE x AS SELECT $n AS n"))
    with open_database(tmp_path) as db, pytest.raises(QueryError, match=r"bad\.sql.*CREATE statements are refused"):
        run_query(db, "bad")


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT $n AS n,\n  nope\nFROM connection", "(own.sql:8): unknown column 'nope'"),
        ("SELECT $n AS n\nFROM\n  nope", "(own.sql:9): unknown table 'nope'"),
        (
            "SELECT $n AS n\nFROM connection\nWHERE glob('x') AND\n  current_setting('threads')",
            "(own.sql:10): current_sett",
        ),
        ("SELECT $n AS n\n, 'x'::INT", "(own.sql:8): SQL failed: Conversion Error"),
    ],
)
def test_what_fails_while_it_runs_is_pointed_at(tiny: Path, db: Database, sql: str, says: str) -> None:
    path = tiny / "queries" / "own.sql"
    path.parent.mkdir(exist_ok=True)
    path.write_text(GOOD.replace("SELECT $n AS n", sql))
    with pytest.raises(QueryError) as e:
        run_query(db, "own")
    assert says in str(e.value)
    path.unlink()


def test_a_bad_file_is_in_the_way_of_no_other_and_a_changed_one_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "bad.sql").write_text("SELECT 1")
    (tmp_path / "queries" / "good.sql").write_text(GOOD)
    with open_database(tmp_path) as db:
        assert run_query(db, "good").to_pylist() == [{"n": 1}]
        (tmp_path / "queries" / "good.sql").write_text(GOOD.replace("n: int = 1", "n: int = 12"))
        assert run_query(db, "good").to_pylist() == [{"n": 12}]
        with pytest.raises(QueryError, match=r"bad\.sql:1: the header has no"):
            run_query(db, "bad")


def test_arguments_of_the_command_line() -> None:
    assert parse_arguments(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(QueryError):
            parse_arguments(wrong)
