"""Functions of SQL over the adjacency: the answers of the table, with the arrays and without them."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from connectome_db.companions import ARRAYS, make_one
from connectome_db.errors import QueryError
from connectome_db.query.database import Database, Other, open_database
from connectome_db.query.receipts.normal import normal_form
from connectome_db.schema.companions import CONNECTION
from connectome_db.schema.graph_functions import GRAPH_FUNCTIONS
from connectome_db.schema.imported import IMPORTED_CONNECTION
from connectome_db.spec import Adjacency, Rows
from tests.query import tiny_imported

NODES = [2**63 + 2 * k + 1 for k in range(20)]
"""Ids that fit neither a signed integer nor a float64."""
NOBODY = NODES[3] + 1
Edges = dict[tuple[int, int], int]


def edges(seed: int) -> Edges:
    rng = random.Random(seed)
    return {pair: rng.randint(1, 9) for pair in rng.sample(list(itertools.permutations(NODES, 2)), 90)}


EDGES, EARLIER = edges(1), edges(2)


def write(folder: Path, found: Edges) -> Path:
    return tiny_imported.write(folder, [{"pre": a, "post": b, "synapses": n} for (a, b), n in found.items()], {})


def add_arrays(project: Path) -> Path:
    """Make the adjacency of a project, as `finish` does; returns its folder."""
    graph = project / "data" / "graph"
    (companion,) = (c for c in CONNECTION if isinstance(c, Adjacency))
    make_one(Rows(IMPORTED_CONNECTION, companions=CONNECTION), companion, graph, graph, graph)
    return graph / "adjacency"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("mapped"), EDGES)
    add_arrays(root)
    return root


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("earlier"), EARLIER)
    add_arrays(root)
    return root


@pytest.fixture(scope="module", params=["arrays", "table"])
def db(
    request: pytest.FixtureRequest, mapped: Path, earlier: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A project and an earlier revision beside it: with the arrays, or older than they are."""
    roots = [mapped, earlier]
    if request.param == "table":
        base = tmp_path_factory.mktemp("table")
        roots = [shutil.copytree(r, base / r.name, ignore=shutil.ignore_patterns("adjacency")) for r in roots]
    with open_database(roots[0], also={"old": Other(roots[1], "v1")}, timeout_s=60) as opened:
        yield opened


def rows(db: Database, text: str, **params: object) -> list[tuple[object, ...]]:
    return [tuple(r.values()) for r in db.sql(text, params).to_pylist()]


@pytest.mark.parametrize(("schema", "found"), [("", EDGES), ("main.", EDGES), ("old.", EARLIER)])
def test_partners_are_those_of_the_table(db: Database, schema: str, found: Edges) -> None:
    for n in [*NODES, NOBODY, 0, 2**64 - 1, 2**64, -1, None]:
        out = sorted((b, s) for (a, b), s in found.items() if a == n)
        into = sorted((a, s) for (a, b), s in found.items() if b == n)
        assert rows(db, f"FROM {schema}outputs_of($n) ORDER BY partner", n=n) == out
        assert rows(db, f"FROM {schema}inputs_of($n) ORDER BY partner", n=n) == into
        ((a, b),) = rows(db, f"SELECT {schema}out_partners($n), {schema}in_partners($n)", n=n)
        assert [[tuple(p.values()) for p in side] for side in (a, b)] == [out, into]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("schema", "found"), [("", EDGES), ("old.", EARLIER)])
def test_lists_give_the_connections_of_the_table(db: Database, schema: str, found: Edges) -> None:
    rng = random.Random(5)
    for size in (0, 1, 4, len(NODES)):
        a, b = rng.sample(NODES, size), rng.sample(NODES, max(size - 2, 1))
        given = {"a": [*a, *a, NOBODY, None, -1, 2**64], "b": b}
        for call, condition in {
            "connections_from($a)": lambda e, a=a: e[0] in a,
            "connections_to($a)": lambda e, a=a: e[1] in a,
            "connections_among($a)": lambda e, a=a: e[0] in a and e[1] in a,
            "connections_between($a, $b)": lambda e, a=a, b=b: e[0] in a and e[1] in b,
            "connections_between($b, $a)": lambda e, a=a, b=b: e[0] in b and e[1] in a,
        }.items():
            truth = sorted((*e, n) for e, n in found.items() if condition(e))
            used = {k: v for k, v in given.items() if f"${k}" in call}
            assert rows(db, f"FROM {schema}{call} ORDER BY pre, post", **used) == truth, call
    for empty in ("[]", "NULL", "NULL::UBIGINT[]"):
        assert rows(db, f"FROM {schema}connections_from({empty})") == []
        assert rows(db, f"FROM {schema}connections_between({empty}, [{NODES[0]}])") == []


def test_neurons_may_be_columns_and_queries(db: Database) -> None:
    """A column that has the name of one in a function's own tables is still the caller's."""
    truth = sorted((a, b, c) for a, b in EDGES for b2, c in EDGES if b == b2)
    for call in ("outputs_of(post)", "outputs_of(connection.post)", "outputs_of(post::VARCHAR)"):
        assert rows(db, f"SELECT pre, post, partner FROM connection, {call} ORDER BY ALL") == truth
    two = sorted((m, c) for a, m in EDGES for m2, c in EDGES if a == NODES[0] and m == m2)
    sql = "SELECT a.partner, b.partner FROM outputs_of($n) a, outputs_of(a.partner) b ORDER BY ALL"
    assert rows(db, sql, n=NODES[0]) == two
    degree = "SELECT neuron, len(out_partners(neuron)), len(in_partners(neuron)) FROM neuron ORDER BY neuron"
    assert rows(db, degree) == rows(db, "SELECT neuron, partners_out, partners_in FROM neuron ORDER BY neuron")
    assert rows(db, "FROM connections_from((SELECT list(neuron) FROM neuron)) ORDER BY ALL") == sorted(
        (*e, n) for e, n in EDGES.items()
    )
    last = [(b,) for a, b in sorted(EDGES) if a == max(NODES)]
    assert rows(db, "SELECT partner FROM outputs_of((SELECT max(neuron) FROM neuron)) ORDER BY partner") == last


@pytest.mark.parametrize("name", GRAPH_FUNCTIONS)
def test_columns_are_as_described(db: Database, name: str) -> None:
    function = GRAPH_FUNCTIONS[name]
    for schema in ("", "old."):
        call = f"{schema}{name}({', '.join(['NULL'] * len(function.parameters))})"
        found = db.sql(f"SELECT unnest({call}, recursive := true)" if function.value else f"FROM {call}").schema
        told = db.describe(name)
        assert found.names == told["column"].to_pylist()
        assert [str(t) for t in found.types] == told["type"].to_pylist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM outputs_of(1.5)", r"wanted a neuron as a whole number, got DECIMAL.*lost digits"),
        ("FROM inputs_of(1e18)", "whole number, got DOUBLE"),
        ("FROM connections_from([1.0::FLOAT])", "whole number, got FLOAT"),
        ("SELECT out_partners(1.5)", "whole number"),
        ("FROM outputs_of('A1')", "Could not convert string 'A1'"),
        ("FROM outputs_of()", r"wanted outputs_of\(neuron\)$"),
        ("FROM outputs_of(nuron => 1)", r"wanted outputs_of\(neuron\)$"),
        ("FROM connections_between([1])", r"wanted connections_between\(sources, targets\)$"),
        ("FROM new.outputs_of(1)", "unknown schema 'new'.*Known: old"),
        ("FROM out_partners(1)", r"gives a value; write it in SELECT, or unnest\(out_partners\(...\)\)"),
        ("FROM connections_from(1)", "can only be applied to lists"),
    ],
)
def test_what_is_wrong_in_a_call_is_said(db: Database, text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        db.sql(text)


def test_without_connections_the_stage_is_named(mapped: Path, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", EDGES)
    shutil.rmtree(bare / "data" / "graph")
    with open_database(bare) as db, pytest.raises(QueryError, match="`connection` is not there yet: stage graph"):
        db.sql("FROM outputs_of(1)")
    with open_database(mapped, also={"old": Other(bare, "v1")}) as db:
        for text in ("FROM old.outputs_of(1)", "SELECT old.in_partners(1)", "FROM old.connections_among([1])"):
            with pytest.raises(QueryError, match="`connection` is not there at v1"):
                db.sql(text)
        assert db.sql("FROM outputs_of(1)").num_rows == 0


def copied(mapped: Path, tmp_path: Path) -> tuple[Path, Path]:
    root = shutil.copytree(mapped, tmp_path / "copy")
    return root, root / "data" / "graph" / "adjacency"


def test_answers_come_from_the_arrays_and_opening_does_not_read_them(mapped: Path, tmp_path: Path) -> None:
    root, arrays = copied(mapped, tmp_path)
    with open_database(root) as db:
        for way in ("out", "in"):
            np.save(arrays / f"{way}_synapses.npy", np.full(len(EDGES), 77, np.int32))
        n = next(iter(EDGES))[0]
        assert {s for _, s in rows(db, "FROM outputs_of($n)", n=n)} == {77}
        assert {s for *_, s in rows(db, "FROM connections_to($n)", n=NODES)} == {77}


def _shorter(name: str) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:-1])


def _set(name: str, value: int, at: slice = slice(None)) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        array = np.load(folder / f"{name}.npy")
        array[at] = value
        np.save(folder / f"{name}.npy", array)

    return damage


def _of_another_graph(folder: Path) -> None:
    other = write(folder / "other", dict(list(EDGES.items())[:-5]))
    for file in add_arrays(other).iterdir():
        shutil.copy(file, folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "out_start.npy").unlink(), "cannot be read.*out_start.npy"),
        (lambda folder: (folder / "out_start.npy").write_bytes(b"torn"), "cannot be read"),
        (_shorter("in_partner"), "its arrays do not fit together"),
        (_of_another_graph, r"wanted 20 neurons and 90 connections as in the tables beside it, got 20 and 85"),
        (_set("out_start", 2**60, slice(1, -1)), "out_start.npy is damaged"),
        (_set("out_start", -5, slice(1, -1)), "out_start.npy is damaged"),
        (_set("out_partner", 20), "out_partner.npy is damaged"),
        (_set("out_partner", -1), "out_partner.npy is damaged"),
    ],
    ids=["missing", "torn", "short", "another", "far", "negative", "partner", "negative-partner"],
)
def test_damaged_arrays_are_told(mapped: Path, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    root, arrays = copied(mapped, tmp_path)
    damage(arrays)
    with open_database(root) as db:
        assert db.sql("SELECT count(*) n FROM connection").to_pylist() == [{"n": len(EDGES)}]
        for text in (f"FROM connections_from({NODES})", f"SELECT len(out_partners({NODES[4]}))"):
            with pytest.raises(QueryError, match=f"{message}.*connectome finish graph") as e:
                db.sql(text)
            assert str(e.value).startswith(str(arrays))
            assert "Python" not in str(e.value)


def test_no_arrays_are_none_of_these_files(mapped: Path) -> None:
    assert {p.name for p in (mapped / "data" / "graph" / "adjacency").iterdir()} == set(ARRAYS)


def test_limits_hold_for_functions_too(mapped: Path) -> None:
    with open_database(mapped) as db:
        for text in (
            f"SELECT sum(len(out_partners({NODES[0]} + range % 9))) FROM range(1000000000000)",
            "WITH RECURSIVE s AS (SELECT neuron FROM neuron UNION ALL SELECT partner FROM s, outputs_of(neuron)) "
            "SELECT count(*) FROM s",
        ):
            with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
                db.sql(text, timeout_s=0.2)
        assert db.sql("SELECT count(*) n FROM connections_among($n)", {"n": NODES}).to_pylist() == [{"n": len(EDGES)}]


def test_threads_ask_at_once(mapped: Path) -> None:
    def ask(n: int) -> list[tuple[object, ...]]:
        return rows(db, "FROM outputs_of($n) ORDER BY partner", n=n)

    with open_database(mapped) as db, ThreadPoolExecutor(4) as pool:
        for n, found in zip(NODES * 5, pool.map(ask, NODES * 5), strict=True):
            assert found == sorted((b, s) for (a, b), s in EDGES.items() if a == n)


def test_tables_in_memory_have_the_same_functions(mapped: Path) -> None:
    with open_database(mapped, in_memory_rows=1000) as db:
        assert rows(db, "FROM connections_from($n) ORDER BY ALL", n=NODES) == sorted((*e, n) for e, n in EDGES.items())


def test_receipts_name_what_a_function_reads() -> None:
    found = normal_form("SELECT len(old.out_partners(n.neuron)) FROM neuron n, OUTPUTS_OF(n.neuron)")
    assert found.tables == (("main", "connection"), ("main", "neuron"), ("old", "connection"))
    assert found.volatile == ()


@pytest.mark.parametrize("end", ["db.close()", "pass", "db.sql('FROM outputs_of(1.5)')"])
def test_nothing_is_left_at_the_end_of_the_process(mapped: Path, end: str) -> None:
    """A function that held its connection would be a cycle that nothing breaks; DuckDB tells of it at the end."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom connectome_db.query.database import open_database\n"
        "db = open_database(Path(sys.argv[1]))\n"
        f"print(db.sql('SELECT count(*) AS n FROM connections_among($n)', {{'n': {NODES}}}).to_pylist())\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", script, mapped], capture_output=True, text=True, check=False)
    assert done.stdout == f"[{{'n': {len(EDGES)}}}]\n"
    assert "leaked" not in done.stderr
    assert done.returncode == ("outputs_of" in end)


def test_a_misspelt_function_is_told_with_the_right_one(tiny: Path) -> None:
    with open_database(tiny) as db, pytest.raises(QueryError, match=r"output_of\(.*Did you mean outputs_of\("):
        db.sql("SELECT * FROM output_of(1)")
