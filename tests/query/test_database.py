from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, open_database
from connectome_db.schema.all import OUTPUTS, STAGE_OF, TABLES
from connectome_db.schema.provenance import PROVENANCE
from connectome_db.spec import Rows
from connectome_db.stages.pipeline import STAGES
from tests import tiny_project
from tests import tiny_rows as t
from tests.query import tiny_imported


def test_every_table_is_a_view_with_its_columns(db: Database) -> None:
    for table in (*(TABLES[n] for n, s in STAGE_OF.items() if s in tiny_project.KINDS), *PROVENANCE):
        names = db.sql(f'SELECT * FROM "{table.name}" LIMIT 0').column_names
        assert names == ["unit"] * (table.name in TABLES) + [c.name for c in table.columns]


def test_every_output_of_the_pipeline_is_listed() -> None:
    made = {s.name: tuple(o.table for o in s.outputs if isinstance(o, Rows)) for s in STAGES}
    assert made == dict(OUTPUTS)


def test_ids_are_exact(db: Database) -> None:
    rows = db.sql("SELECT pre, post, synapses FROM connection WHERE pre = $id ORDER BY post", {"id": t.A2})
    assert rows.schema.field("pre").type == pa.uint64()
    assert rows.to_pylist() == [
        {"pre": t.A2, "post": t.A1, "synapses": 1},
        {"pre": t.A2, "post": t.B2, "synapses": 1},
    ]
    assert t.A2 > 2**53  # a float64 would not have held it


def test_tables_held_in_memory_answer_the_same(tiny: Path) -> None:
    ask = "SELECT * FROM connection ORDER BY pre, post"
    with open_database(tiny) as db:
        before = db.sql(ask)
        db.hold("connection", "neuron", "connection")
        assert db.sql(ask) == before
        assert db.sql("SELECT count(*) n FROM duckdb_views() WHERE view_name = 'connection'").to_pylist() == [{"n": 0}]
        with pytest.raises(QueryError, match="did you mean 'neuron'"):
            db.hold("neurone")
        with pytest.raises(QueryError, match="read-only"):
            db.sql("DELETE FROM connection")


def test_an_imported_list_of_an_earlier_version_is_read_as_it_is(tmp_path: Path) -> None:
    root = tiny_imported.write(tmp_path / "p")
    file = root / "data" / "listing" / "listed_synapse.parquet"
    pq.write_table(pq.read_table(file).select(["unit", "synapse", "synapses", "source_id"]), file)
    with open_database(root) as db:
        assert db.sql("SELECT count(*) n FROM connection").to_pylist() == [{"n": 5}]
        assert db.sql("SELECT * FROM listed_synapse LIMIT 0").column_names == [
            "unit",
            "synapse",
            "synapses",
            "source_id",
        ]
        with pytest.raises(QueryError, match="unknown table 'link'"):
            db.sql("FROM link")


def test_provenance_views(db: Database) -> None:
    assert db.sql("SELECT count(*) n FROM unit").to_pylist() == [
        {"n": sum(len(tiny_project.units_of(s)) for s in tiny_project.KINDS)}
    ]
    reused = db.sql("SELECT unit, git_commit, git_dirty, run_id FROM execution WHERE reused").to_pylist()
    assert reused == [{"unit": t.BLOCK_A, "git_commit": "beef" * 10, "git_dirty": True, "run_id": "run-1"}]
    assert db.sql("SELECT region, x0, params FROM stage_override").to_pylist() == [
        {"region": "corner", "x0": 60, "params": '{"threshold": 0.6}'}
    ]
    assert db.voxel_nm == t.VOXEL_NM


def test_unit_edges_are_touching_boxes(db: Database) -> None:
    rows = db.sql(
        "SELECT upstream_stage s, upstream_unit u FROM unit_edge WHERE stage='segment' AND unit=$u ORDER BY ALL",
        {"u": t.BLOCK_A},
    ).to_pylist()
    assert rows == [{"s": s, "u": u} for s in ("mask", "render") for u in (t.BLOCK_A, t.BLOCK_B)]
    face = db.sql("SELECT DISTINCT upstream_unit u FROM unit_edge WHERE stage='mask' AND unit=$u", {"u": t.BLOCK_B})
    assert face.to_pylist() == [{"u": t.BLOCK_B}]  # without a halo, a block reads its own block alone
    once = db.sql(
        "SELECT upstream_unit u, part FROM unit_edge WHERE stage='render' AND unit=$u AND "
        "input='align.section_transform' ORDER BY part",
        {"u": t.BLOCK_A},
    ).to_pylist()
    assert once == [{"u": t.ONCE, "part": u} for u in sorted(t.SECTION_UNIT.values())]


def test_describe_and_comments(db: Database) -> None:
    rows = db.describe("synapse").to_pylist()
    assert rows[0]["column"] == "unit"
    assert {"column": "size_vx", "type": "int64", "unit": "vx", "meaning": "Voxels of the cleft."} in rows
    comment = db.sql("SELECT comment FROM duckdb_columns() WHERE table_name='synapse' AND column_name='size_vx'")
    assert comment.to_pylist() == [{"comment": "Voxels of the cleft. [vx]"}]
    with pytest.raises(QueryError, match="did you mean 'synapse'"):
        db.describe("synapsee")


def test_reading_statements_are_allowed(db: Database) -> None:
    for text in (
        "DESCRIBE synapse",
        "SHOW TABLES",
        "SUMMARIZE connection",
        "EXPLAIN SELECT * FROM synapse",
        "explain analyze select 1",
        "FROM connection",
        "WITH a AS (SELECT 1 n) SELECT n FROM a UNION SELECT 2",
        "/* c */ EXPLAIN -- x\n SELECT 1",
        "SELECT * FROM range(3)",
        "WITH RECURSIVE r AS (SELECT 1 n UNION SELECT n + 1 FROM r WHERE n < 5) SELECT max(n) FROM r",
    ):
        assert db.sql(text).num_rows > 0, text


@pytest.fixture
def files(tiny: Path) -> dict[str, str]:
    outside = tiny.parent / "outside.parquet"
    outside.write_bytes((tiny / "data" / "graph" / "connection.parquet").read_bytes())
    return {"inside": str(tiny / "data" / "graph" / "connection.parquet"), "tiny": str(tiny), "outside": str(outside)}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('{outside}')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM '{tiny}/data/graph/../../../outside.parquet'",
        "SELECT * FROM '{tiny}/data/graph/*.parquet'",
        "SELECT * FROM parquet_metadata('{outside}')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM query('WITH a AS (COPY (SELECT 1) TO ''{inside}'') SELECT 1')",
        "SELECT * FROM query_table('connection')",
        "COPY (SELECT 1) TO '{inside}'",
        "COPY connection TO '{tiny}/out.csv'",
        "WITH a AS (COPY (SELECT 1) TO '{inside}') SELECT 1",
        "WITH a AS (INSERT INTO run SELECT * FROM run RETURNING stage) SELECT * FROM a",
        "WITH a AS (DELETE FROM run RETURNING stage) SELECT * FROM a",
        "WITH a AS (UPDATE run SET stage = 'x' RETURNING stage) SELECT * FROM a",
        "EXPLAIN ANALYZE INSERT INTO run SELECT * FROM run",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{inside}'",
        "EXPLAIN (ANALYZE) DELETE FROM run",
        "ATTACH '{tiny}/a.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 8",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "PRAGMA enable_external_access",
        "CALL pragma_version()",
        "CREATE TABLE a (i INT)",
        "CREATE TEMP TABLE a AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "INSERT INTO run SELECT * FROM run",
        "UPDATE run SET stage = 'x'",
        "DELETE FROM run",
        "DROP VIEW synapse",
        "ALTER TABLE run DROP stage",
        "EXPORT DATABASE '{tiny}/export'",
        "PREPARE p AS SELECT 1",
        "BEGIN TRANSACTION",
        "CHECKPOINT",
        "USE memory",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_everything_else_is_refused(db: Database, files: dict[str, str], text: str) -> None:
    before = Path(files["inside"]).read_bytes()
    runs = db.sql("SELECT count(*) FROM run")
    with pytest.raises(QueryError) as e:
        db.sql(text.format(**files))
    assert "Traceback" not in str(e.value)
    assert Path(files["inside"]).read_bytes() == before
    assert db.sql("SELECT count(*) FROM run") == runs
    assert not list(Path(files["tiny"]).glob("out*"))


def test_the_connection_itself_refuses(db: Database, files: dict[str, str]) -> None:
    """The second and third lock hold without the first: no syntax check here."""
    for text in (
        "SELECT * FROM read_csv('/etc/passwd')",
        f"SELECT * FROM '{files['outside']}'",
        "WITH a AS (DELETE FROM run RETURNING stage) SELECT * FROM a",
        "SELECT * FROM glob('/*')",
        "SET threads = 1",
    ):
        with pytest.raises(QueryError):
            db.fetch(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT * FROM synaps", "unknown table 'synaps'; did you mean 'synapse'?"),
        ("SELECT confidance FROM synapse", "unknown column 'confidance' in synapse; did you mean 'confidence'?"),
        ("SELECT s.poststv FROM synapse s", "unknown column 'poststv' in synapse"),
        ("SELECT synapse.pre_supervoxl FROM synapse", "did you mean 'pre_supervoxel'?"),
        ("SELECT sumx(1)", "sumx does not exist"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM synapse WHERE synapse = $id", "id"),
    ],
)
def test_errors_name_the_nearest(db: Database, text: str, says: str) -> None:
    with pytest.raises(QueryError) as e:
        db.sql(text)
    assert says in str(e.value)


def test_stages_not_run_yet(tmp_path: Path) -> None:
    project = tiny_project.write(tmp_path, ("ingest", "montage"))
    with open_database(project) as db:
        assert db.sql("SELECT count(*) n FROM tile").to_pylist() == [{"n": 8}]
        with pytest.raises(QueryError) as e:
            db.sql("SELECT * FROM synapse")
        assert str(e.value) == (
            "table `synapse` is not there yet: stage synapses has not been run; run `dvc repro synapses`"
        )
        assert db.describe("synapse").num_rows == len(TABLES["synapse"].columns) + 1


def test_an_empty_project(tmp_path: Path) -> None:
    with open_database(tmp_path) as db:
        assert db.sql("SELECT * FROM unit").num_rows == 0
        assert db.sql("SELECT * FROM unit_edge, run, execution").num_rows == 0
        with pytest.raises(QueryError, match="no stage has been run"):
            _ = db.voxel_nm
    with pytest.raises(QueryError, match="no such folder"):
        open_database(tmp_path / "nothing")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    project = tiny_project.write(tmp_path, ("ingest",))
    (project / "data/ingest/record.json").write_text("{")
    with pytest.raises(QueryError, match=r"record\.json"):
        open_database(project)
    (project / "data/ingest/tile.parquet").write_bytes(b"no")
    with pytest.raises(QueryError, match=r"tile\.parquet"):
        open_database(project)


def test_time_limit(db: Database) -> None:
    with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
        db.sql(
            "SELECT count(*) FROM range(10000000000) a, range(1000) b WHERE a.range % 7 = b.range % 3", timeout_s=0.2
        )
    assert json.dumps(db.sql("SELECT 1 AS one").to_pylist()) == '[{"one": 1}]'
