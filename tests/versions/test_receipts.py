"""Receipts on a project with history: the same, different and why, and what the answer is at the receipt's revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from connectome_db import config, newproject, runner
from connectome_db.cli.main import app
from connectome_db.errors import QueryError, RevisionError
from connectome_db.finish import finish
from connectome_db.query.receipts.receipt import Receipt, read
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions import asof, receipts
from tests.versioned import edit_params
from tests.versions.conftest import merge_less

OBJECTS = "SELECT object, size_vx FROM object ORDER BY object"
STILL = "the answer is still the same"


def made(project: Path, sql: str, *asked: str) -> Receipt:
    return receipts.ask_sql(project, sql, asof.open_revisions(project, asof.parse(asked)))[1]


def raise_threshold(project: Path) -> None:
    edit_params(project, lambda document: document["agglomerate"].update(threshold=0.9))
    finish(*runner.run_units(config.load(project, STAGES), "agglomerate"))


def test_what_a_receipt_says_of_its_revision(history: Path) -> None:
    old = made(history, OBJECTS, "v2")
    record = open_revision(history, "v2").record("agglomerate")
    (table,) = old.tables
    assert (table.of, table.table, table.stage) == ("main", "object", "agglomerate")
    assert table.digest == record["outputs"]["object"]
    main = old.revisions["main"]
    assert (main.asked, main.tags, main.in_commit, main.dirty) == ("v2", ("v2",), True, False)
    assert (old.dataset, old.voxel_nm) == ("small", (30.0, 8.0, 8.0))
    assert (
        old.answer.rows
        == pq.read_metadata(open_revision(history, "v2").root / "data/agglomerate/object.parquet").num_rows
    )
    now = made(history, OBJECTS)
    assert (now.revisions["main"].tags, now.revisions["main"].in_commit) == (("v3",), True)
    assert list(now.stages["main"])[-1] == "agglomerate"  # what comes after it has no part in the answer


def test_the_same_and_different_and_why(history: Path) -> None:
    old = made(history, OBJECTS, "v2")
    same = receipts.verify(history, old, {"main": "v2"})
    assert (same.result, same.reasons, same.notes) == ("same", (), ())
    found = receipts.verify(history, old)
    assert found.result == "different"
    tables = [r for r in found.reasons if r.startswith("table")]
    assert len(tables) == 1
    assert tables[0].startswith("table object (stage agglomerate) has changed: ")
    assert "stage agglomerate was made with other parameters" in found.reasons
    assert any(STILL in note and "tag v2" in note for note in found.notes)


def test_only_what_was_read_is_named(history: Path) -> None:
    old = made(history, "SELECT supervoxel, size_vx FROM supervoxel ORDER BY ALL", "v1")
    found = receipts.verify(history, old)
    assert found.result == "different"
    assert [r.split(" has changed")[0] for r in found.reasons[:2]] == [
        found.reasons[0],
        "table supervoxel (stage segment)",
    ]
    assert "stage segment was made with other overrides or regions" in found.reasons
    assert not any("agglomerate" in r for r in found.reasons)  # v3's change came after the segmentation
    tiles = made(history, "SELECT count(*) AS n FROM tile", "v1")
    assert receipts.verify(history, tiles).notes == ()


def test_an_answer_may_be_the_same_although_tables_changed(history: Path) -> None:
    found = receipts.verify(history, made(history, "SELECT sum(size_vx) AS s FROM object", "v2"))
    assert found.result == "same"
    assert [n.split(" has changed")[0] for n in found.notes] == ["although table object (stage agglomerate)"]


def test_two_revisions_in_one_receipt(history: Path) -> None:
    sql = "SELECT object FROM b.object EXCEPT SELECT object FROM a.object ORDER BY ALL"
    both = made(history, sql, "a=v2", "b=v3")
    assert {t.of for t in both.tables} == {"a", "b"}
    assert receipts.verify(history, both).result == "same"
    found = receipts.verify(history, both, {"b": "v2"})
    assert found.result == "different"
    assert any(r.startswith("table b.object (stage agglomerate)") for r in found.reasons)
    assert any(STILL in n for n in found.notes)
    with pytest.raises(QueryError, match=r"no revision called 'c'.*Known: a, b, main"):
        receipts.verify(history, both, {"c": "v1"})
    with pytest.raises(RevisionError, match="git knows no revision 'v9'"):
        receipts.verify(history, both, {"a": "v9"})


def test_data_that_no_commit_holds(own_history: Path) -> None:
    raise_threshold(own_history)
    loose = made(own_history, OBJECTS)
    assert (loose.revisions["main"].in_commit, loose.revisions["main"].dirty) == (False, True)
    assert made(own_history, "SELECT count(*) AS n FROM supervoxel").revisions["main"].in_commit is True
    assert receipts.verify(own_history, loose).result == "same"
    edit_params(own_history, merge_less)
    finish(*runner.run_units(config.load(own_history, STAGES), "agglomerate"))
    found = receipts.verify(own_history, loose)
    assert found.result == "different"
    assert any("no commit held" in n for n in found.notes)


def test_a_revision_that_git_or_dvc_no_longer_has(own_history: Path) -> None:
    old = made(own_history, OBJECTS, "v2")
    for folder in (".dvc/cache", ".connectome/revisions"):
        shutil.rmtree(own_history / folder)
    found = receipts.verify(own_history, old)
    assert found.result == "different"
    assert any("cannot be read" in n and "not in DVC's cache" in n for n in found.notes)


def test_an_altered_table_is_a_reason(own_history: Path) -> None:
    then = made(own_history, OBJECTS)
    path = own_history / "data/agglomerate/object.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.slice(1), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    found = receipts.verify(own_history, then)
    assert found.result == "different"
    assert "object.parquet is not what parts.parquet beside it" in found.reasons[0]
    assert any(STILL in n for n in found.notes)


def test_a_missing_table_is_a_reason(own_history: Path) -> None:
    then = made(own_history, "SELECT count(*) AS n FROM synapse")
    yaml = YAML()
    path = own_history / "dvc.lock"
    lock = yaml.load(path.read_text())
    del lock["stages"]["synapses"]
    with path.with_suffix(".new").open("w") as f:
        yaml.dump(lock, f)
    path.with_suffix(".new").replace(path)
    newproject.run(own_history, "git", "commit", "-q", "-a", "-m", "Without synapses")
    found = receipts.verify(own_history, then, {"main": "HEAD"})
    assert found.result == "different"
    assert "table `synapse` is not there at HEAD: stage synapses has no data" in found.reasons[0]
    assert any(STILL in n and "tag v3" in n for n in found.notes)


QUERY = """-- title: Large objects
-- parameters:
--   least: int = 10 — Voxels.
-- columns:
--   object — Object.
-- example: least=20
SELECT object FROM object WHERE size_vx >= $least ORDER BY object
"""


def own_query(project: Path, text: str | None) -> None:
    path = project / "queries" / "large.sql"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")


def test_a_named_query_that_changes(own_history: Path) -> None:
    own_query(own_history, QUERY)
    now = asof.open_revisions(own_history, {})
    rows, then = receipts.ask_named(own_history, "large", {"least": "500"}, now)
    assert (then.query.file, then.query.values) == ("queries/large.sql", {"least": {"int": "500"}})
    assert then.answer.rows == rows.num_rows > 1
    assert receipts.verify(own_history, then).notes == ()
    own_query(own_history, QUERY.replace("SELECT object FROM", "select object  -- large ones\nfrom"))
    found = receipts.verify(own_history, then)
    assert (found.result, found.notes) == (
        "same", ("the query large (queries/large.sql) has changed: comments and white space alone",)
    )  # fmt: skip
    own_query(own_history, QUERY.replace(">=", "<"))
    found = receipts.verify(own_history, then)
    assert found.result == "different"
    assert found.reasons[0] == "the query large (queries/large.sql) has changed: it asks something else now"
    assert "with the receipt's own SQL the answer is still the same" in found.notes
    own_query(own_history, QUERY.replace("least", "size"))
    found = receipts.verify(own_history, then)
    assert found.result == "same"  # its own text was run
    assert "has no parameter 'least'" in found.notes[0]
    own_query(own_history, None)
    found = receipts.verify(own_history, then)
    assert (found.result, found.notes[0]) == (
        "same", "the query large is gone (queries/large.sql); the receipt's own SQL was run"
    )  # fmt: skip


def cli(*words: str, project: Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*words, "-C", str(project)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_commands(history: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    ask = ["sql", OBJECTS, "--rev", "v2", "--receipt", str(file), "--format", "csv"]
    code, out, err = cli(*ask, project=history)
    assert code == 0
    then, untouched = read(file)
    assert untouched
    assert len(out.splitlines()) == then.answer.rows + 1
    assert "as of v2: commit" in err
    assert f"{then.answer.rows} rows" in err
    with pytest.raises(QueryError, match="is there already"):
        cli(*ask, project=history)
    assert cli(*ask, "--force", project=history)[0] == 0
    assert cli("receipt", "verify", str(file), "--rev", "v2", project=history)[:2][0] == 0
    code, out, _ = cli("receipt", "verify", str(file), project=history)
    assert (code, out.splitlines()[0].split(":")[0]) == (1, "different")
    assert "table object (stage agglomerate)" in out
    assert STILL in out
    shown = CliRunner().invoke(app, ["receipt", "show", str(file)])
    assert shown.exit_code == 0
    for text in ("object, stage agglomerate", then.answer.digest, "tag v2", "DuckDB"):
        assert text in shown.stdout
    told = json.loads(file.read_text())
    told["answer"]["rows"] += 1
    file.write_text(json.dumps(told))
    with pytest.raises(QueryError, match="the receipt was edited"):
        cli("receipt", "verify", str(file), project=history)
    shown = CliRunner().invoke(app, ["receipt", "show", str(file)])
    assert (shown.exit_code, "the receipt was edited" in shown.stdout) == (1, True)


def test_a_query_that_may_answer_otherwise_is_warned_of(history: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    code, _, err = cli("sql", "SELECT random() AS r", "--receipt", str(file), project=history)
    assert (code, "the query uses random" in err) == (0, True)
    code, out, _ = cli("receipt", "verify", str(file), project=history)
    assert (code, "random, which may answer otherwise each time" in out) == (1, True)
    assert "at the receipt's revision" not in out  # the tables are the same: nothing can be learnt there


def test_ids_and_named_queries_by_command(history: Path, tmp_path: Path) -> None:
    with asof.open_tables(asof.open_revisions(history, {})) as db:
        (row,) = db.fetch("SELECT pre FROM connection ORDER BY pre LIMIT 1")
    neuron = row["pre"]
    assert neuron > 1 << 53
    file = tmp_path / "r.json"
    words = ["query", "partners", f"neuron={neuron}", "--receipt", str(file), "--format", "json"]
    code, out, _ = cli(*words, project=history)
    assert code == 0
    then, _ = read(file)
    assert then.query.values["neuron"] == {"int": str(neuron)}
    assert then.query.arguments == {"neuron": str(neuron)}
    assert then.answer.rows == len(json.loads(out))
    assert cli("receipt", "verify", str(file), project=history)[0] == 0
