"""Receipts of an imported connectome name the list behind what is asked, whatever view shows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectome_db.config import Project
from connectome_db.errors import QueryError
from connectome_db.query.database import open_database
from connectome_db.query.receipts import receipt
from connectome_db.query.receipts.receipt import Question
from tests.framework.conftest import run_all
from tests.imported.test_companions import make
from tests.versions.damage import flip


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make(tmp_path_factory.mktemp("listed") / "p")
    run_all(project)
    return project


def read(root: Path, sql: str) -> set[str]:
    with open_database(root, threads=1) as db:
        return {c.table for c in receipt.ask(db, Question(sql, {})).tables}


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT count(*) FROM synapse", {"listed_synapse"}),
        ("SELECT count(*) FROM link", {"listed_synapse", "connection"}),
        ("SELECT count(*) FROM link_by_pre", {"listed_synapse", "connection"}),
        ("SELECT count(*) FROM listed_synapse_by_place", {"listed_synapse"}),
        ("SELECT count(*) FROM connection_by_post", {"connection"}),
        ("SELECT * FROM outputs_of(720575940600000009)", {"connection"}),
    ],
)
def test_the_list_is_named(listed: Project, sql: str, tables: set[str]) -> None:
    assert read(listed.root, sql) == tables


@pytest.mark.parametrize(
    ("file", "sql"),
    [
        ("listing/listed_synapse.by_place.parquet", "SELECT count(*) FROM listed_synapse_by_place"),
        ("graph/adjacency/out_synapses.npy", "SELECT * FROM outputs_of(720575940600000009)"),
    ],
)
def test_a_damaged_copy_gets_no_receipt(listed: Project, tmp_path: Path, file: str, sql: str) -> None:
    root = Path(shutil.copytree(listed.root, tmp_path / "p", symlinks=True))
    flip(root / "data" / file)
    with pytest.raises(QueryError, match=r"is not what record\.json says.*connectome finish"):
        read(root, sql)
