"""SQL and parameters that mean harm, or are broken: refused in one clear line, with nothing outside the views seen."""

from __future__ import annotations

import contextlib
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from connectome_db.errors import QueryError
from connectome_db.query import guard, limits
from connectome_db.query.database import Database, open_database
from connectome_db.query.named import list_queries, run_query
from tests import tiny_project
from tests.query.malice import ALLOWED, BOMBS, BROKEN, INJECTIONS, LOOKERS, READERS, WRITERS

MARK = "the-secret-1815"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A project with secrets beside it and within it, in every format that DuckDB reads."""
    base = tmp_path_factory.mktemp("safety")
    project = tiny_project.write(base / "project")
    for folder in (base, project):
        (folder / "secret.csv").write_text(f"a,b\n1,{MARK}\n")
        (folder / "secret.json").write_text(f'[{{"a": "{MARK}"}}]')
        (folder / "secret.txt").write_text(MARK)
        with duckdb.connect(str(folder / "secret.duckdb")) as con:
            con.execute(f"CREATE TABLE t AS SELECT '{MARK}' AS a")
            con.execute(f"COPY t TO '{folder / 'secret.parquet'}'")
    patch = pytest.MonkeyPatch()
    patch.setenv("CONNECTOME_SECRET", MARK)
    yield {"out": str(base), "in": str(project), "own": str(project / "data" / "graph" / "connection.parquet")}
    patch.undo()


@pytest.fixture(scope="module")
def db(places: dict[str, str]) -> Iterator[Database]:
    with open_database(Path(places["in"]), timeout_s=30) as opened:
        yield opened


@pytest.mark.parametrize("where", ["out", "in"])
@pytest.mark.parametrize("text", READERS)
def test_no_file_is_read(db: Database, places: dict[str, str], text: str, where: str) -> None:
    refused(db, text.format(f=f"{places[where]}/secret"))


@pytest.mark.parametrize("text", [*WRITERS, *LOOKERS, *BOMBS])
def test_what_is_more_than_reading_views_is_refused(db: Database, places: dict[str, str], text: str) -> None:
    before = sorted(Path(places["out"]).rglob("*"))
    message = refused(db, text.format(**places))
    assert any(word in message for word in ("refused", "wanted", "not parse", "unknown", "files cannot", "too much"))
    assert sorted(Path(places["out"]).rglob("*")) == before


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_broken_sql_is_told_in_a_line(db: Database, text: str) -> None:
    refused(db, text)


def test_the_projects_own_files_are_read_through_views_alone(db: Database, places: dict[str, str]) -> None:
    for name in ("FROM '{own}'", "FROM read_parquet('{own}')", "FROM parquet_metadata('{own}')"):
        refused(db, name.format(**places))


def refused(db: Database, text: str) -> str:
    """The message with which `text` is refused: short, of one line (two more may point), and without the secret."""
    with pytest.raises(QueryError) as e:
        db.sql(text)
    message = str(e.value)
    assert MARK not in message
    assert "Traceback" not in message
    first, *rest = message.split("\n")
    assert 10 < len(first) < 700
    assert not rest or (rest[0].startswith("LINE ") and set(rest[-1].strip()) == {"^"}), message
    return message


@pytest.mark.parametrize("text", ALLOWED)
def test_honest_sql_is_not_in_the_way(db: Database, text: str) -> None:
    assert db.sql(text).num_columns


def test_no_function_of_duckdb_is_allowed_unseen() -> None:
    """Functions that read, run text or wait are refused by name: the new ones of a new DuckDB must be looked at."""
    with duckdb.connect() as con:
        names = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro')"
        ).fetchall()
    telling = re.compile(r"read|file|env|sett|getvar|sql|query|exec|sleep|_log$|write|load|copy|seq|val$")
    harmless = {
        "current_query", "current_query_id", "has_sequence_privilege", "json_copy_strftime_if_date",
        "json_copy_strftime_if_timestamp", "json_deserialize_sql", "json_serialize_sql", "normalized_interval",
        "parse_filename", "pg_conf_load_time",
    }  # fmt: skip
    seen = {n for (n,) in names if telling.search(n) and not n.startswith("__internal")}
    assert seen - harmless <= guard._REFUSED.keys()


def test_a_verdict_is_kept_by_the_text(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "SELECT 41 AS n"
    db.sql(text)
    monkeypatch.setattr(guard, "_check", lambda *_: pytest.fail("looked at twice"))
    assert db.sql(text)["n"].to_pylist() == [41]
    with pytest.raises(BaseException, match="looked at twice"):
        db.sql("SELECT 42 AS n")


@pytest.mark.parametrize(
    "text",
    [
        "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s",
        "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n FROM s, range(3)) SELECT count(*) FROM s",
        "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * 3 = b.range",
        "SELECT max(range) FROM range(1000000000000)",
        "SELECT string_agg(range::VARCHAR) FROM range(1000000000000)",
    ],
)
def test_what_never_ends_is_stopped(db: Database, text: str) -> None:
    with pytest.raises(QueryError, match=r"longer than 0\.1 s"):
        db.sql(text, timeout_s=0.1)
    assert db.sql("SELECT 1 AS n").num_rows == 1


def test_memory_and_disk_are_bounded(places: dict[str, str]) -> None:
    with (
        open_database(Path(places["in"]), memory_limit="20MB", temp_limit="1MB", timeout_s=60) as small,
        pytest.raises(QueryError, match="more memory than it may take"),
    ):
        small.sql("FROM range(2000000) ORDER BY hash(range)")


def test_an_answer_that_is_too_large_is_not_collected(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.read, "__kwdefaults__", {"most": 1 << 20})
    tracemalloc.start()
    with pytest.raises(QueryError, match=r"larger than 0\.000977 GiB.*LIMIT"):
        db.sql("SELECT * FROM range(1000000000000)")
    assert tracemalloc.get_traced_memory()[1] < 1 << 28
    tracemalloc.stop()


def test_growth_of_the_process_stops_a_query(db: Database) -> None:
    with (
        pytest.raises(duckdb.InterruptException),
        db._con.cursor() as con,
        limits.watched(con, 30, growth=1) as watch,
    ):
        con.execute("SELECT list(range) FROM range(1000000000000)").fetchall()
    assert watch.stopped == "memory"


@pytest.mark.parametrize("value", INJECTIONS, ids=range(len(INJECTIONS)))
def test_parameters_are_values_whatever_they_hold(db: Database, value: str) -> None:
    runs = db.sql("SELECT count(*) FROM run")
    for name, args in (
        ("edges_of_tile", {"tile": value}), ("partners", {"neuron": value}),
        ("partners", {"neuron": 1, "direction": value}),
        ("adjacency", {"pre": value, "post": value}), ("strongest_connections", {"limit": value}),
        ("strongest_connections", {"min_confidence": value}), ("synapses_in_box", {"box": value}), (value, {}),
        ("partners", {value: 1}),
    ):  # fmt: skip
        with contextlib.suppress(QueryError):
            assert run_query(db, name, args).num_rows <= 20
    assert db.sql("SELECT count(*) FROM run") == runs


def test_statements_torn_and_stitched_never_escape(db: Database, places: dict[str, str]) -> None:
    """Pieces of good and bad statements in any order: rows without the secret, or a QueryError; nothing else."""
    rng = random.Random(5)
    all_texts = [*READERS, *WRITERS, *LOOKERS, *ALLOWED, *(q.sql for q in list_queries().values())]
    pieces = [t.replace("{f}", f"{places['out']}/secret").split() for t in all_texts]
    outcomes = {True: 0, False: 0}
    for _ in range(500):
        a, b = rng.choice(pieces), rng.choice(pieces)
        mixed = a[: rng.randint(0, len(a))] + b[rng.randint(0, len(b)) :]
        if rng.random() < 0.3:
            torn = ["(", ")", "'", ";", "--", "/*", '"', "FROM", "$a", "\\"]
            mixed.insert(rng.randint(0, len(mixed)), rng.choice(torn))
        try:
            rows = db.sql(" ".join(mixed), timeout_s=1)
        except QueryError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        assert MARK not in str(rows.to_pydict())
    assert min(outcomes.values()) > 3
    assert not list(Path(places["out"]).glob("new*"))
