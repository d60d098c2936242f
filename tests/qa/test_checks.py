from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.errors import QueryError
from connectome_db.qa.checks import check_tables
from connectome_db.qa.rules import rules_of
from connectome_db.schema.all import STAGE_OF, TABLES
from tests import tiny_project
from tests import tiny_rows as t


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.write(tmp_path_factory.mktemp("good"))


def test_every_table_has_rules() -> None:
    for table in TABLES.values():
        kinds = {r.kind for r in rules_of(table)}
        assert {"unique", "not_null"} <= kinds, table.name
        assert ("foreign" in kinds) == bool(table.foreign)


def test_a_sound_project_passes(good: Path) -> None:
    results = check_tables(good)
    assert {r.table for r in results} == {name for name, stage in STAGE_OF.items() if stage in tiny_project.KINDS}
    assert [r for r in results if not r.success] == []
    checked = {(r.table, r.says) for r in results}
    assert ("synapse", "confidence: 0 to 1") in checked
    assert ("connection", "pre: found in neuron.neuron") in checked
    assert ("supervoxel", "supervoxel: no two rows alike") in checked


def change(project: Path, table: str, row: int, column: str, value: Any) -> None:
    path = project / "data" / STAGE_OF[table] / f"{table}.parquet"
    rows = pq.read_table(path)
    values = rows[column].to_pylist()
    values[row] = value
    at = rows.column_names.index(column)
    field = rows.schema.field(column).with_nullable(True)
    pq.write_table(rows.set_column(at, field, pa.array(values, field.type)), path)


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "says", "example"),
    [
        ("synapse", 0, "confidence", 1.5, "confidence: 0 to 1", "1.5"),
        ("synapse", 0, "confidence", float("nan"), "confidence: always a value", "nan"),
        ("supervoxel", 1, "supervoxel", t.a1, "supervoxel: no two rows alike", str(t.a1)),
        ("connection", 0, "post", 2**62 + 3, "post: found in neuron.neuron", str(2**62 + 3)),
        ("link", 0, "synapse", t.s4, "unit, synapse: no two rows alike", str(t.s4)),
        ("object", 0, "z1_vx", 0, "z0_vx below z1_vx", "0"),
        ("object", 1, "object", 1, "rows ascend by unit, object", "1)"),
        ("synapse", 0, "synapse", 0, "synapse: 1 or more", "0"),
        ("section_match", 0, "section_b", 0, "section_a below section_b", "(0, 0)"),
        ("pair_affine", 0, "method", "luck", "method: one of features, correlation, identity", "luck"),
        ("tile", 0, "sha256", None, "sha256: always a value", ""),
        ("tile_match", 0, "tile_b", "s0/nowhere.png", "tile_b: found in tile.tile", "s0/nowhere.png"),
        ("merge", 0, "area_nm2", -1.0, "area_nm2: 0 or more", "-1"),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, table: str, row: int, column: str, value: object, says: str, example: str
) -> None:
    project = tiny_project.write(tmp_path)
    change(project, table, row, column, value)
    failed = {r.says: r for r in check_tables(project, tables=[table]) if not r.success}
    assert says in failed
    assert failed[says].unexpected >= 1
    assert example in failed[says].example


def test_columns_that_are_gone_of_another_type_or_new(tmp_path: Path) -> None:
    project = tiny_project.write(tmp_path, ("graph", "synapses"))
    path = project / "data/graph/connection.parquet"
    rows = pq.read_table(path).drop_columns(["confidence"])
    at = rows.column_names.index("synapses")
    rows = rows.set_column(at, "synapses", rows["synapses"].cast(pa.int32()))
    pq.write_table(rows.append_column("extra", pa.nulls(rows.num_rows)), path)
    results = check_tables(project, tables=["connection"])
    (wrong,) = [r for r in results if not r.success]
    assert wrong.name == "same"
    assert "confidence" in wrong.example
    assert "synapses int32 instead of synapses int64" in wrong.example
    assert "extra" in wrong.example
    assert not {"synapses", "confidence"} & {r.columns for r in results}  # nothing else can be said of them


def test_empty_tables_and_missing_targets(tmp_path: Path) -> None:
    project = tiny_project.write(tmp_path, ("synapses",))  # `supervoxel` is not there to be looked up
    path = project / "data/synapses/synapse.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    results = check_tables(project)
    assert all(r.success and r.rows == 0 for r in results if r.name != "same")
    assert not any("found in" in r.says for r in results)


def test_the_worst_place_is_named(tmp_path: Path) -> None:
    project = tiny_project.write(tmp_path)
    change(project, "synapse", 2, "confidence", 1.5)  # of block B: x from 60 to 120 px of 8 nm
    (wrong,) = [r for r in check_tables(project, tables=["synapse"]) if not r.success]
    assert (wrong.unit, wrong.unexpected, wrong.unexpected_share) == (t.BLOCK_B, 1, 0.25)
    assert (wrong.x0_nm, wrong.x1_nm) == (480.0, 960.0)


def test_wrong_names(good: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="did you mean 'synapse'"):
        check_tables(good, tables=["synapsee"])
    with pytest.raises(QueryError, match="no tables to check"):
        check_tables(tmp_path)
    with pytest.raises(QueryError, match="run `dvc repro graph`"):
        check_tables(tmp_path, tables=["link"])


def test_no_network_and_no_early_import(good: Path) -> None:
    program = (
        "import socket, sys\nfrom pathlib import Path\n"
        "def refuse(*a, **k): raise SystemExit('a network call')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from connectome_db.qa.checks import check_tables\n"
        "assert 'great_expectations' not in sys.modules\n"
        "check_tables(Path(sys.argv[1]))\n"
        "assert 'great_expectations' not in sys.modules\n"
        "print(all(r.success for r in check_tables(Path(sys.argv[1]), tables=['synapse'], engine='gx')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(good)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr
