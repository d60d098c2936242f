"""Dask reads the same files and gives the same edges and degrees as DuckDB, with ids that no float64 holds."""

from __future__ import annotations

import random
from pathlib import Path

import dask
import pytest

from benchmarks.distributed import DEGREES_SQL, EDGES_SQL, LINKS_SQL, degrees, edges, same
from connectome_db.query.database import open_database
from tests import tiny_project
from tests.query import tiny_imported


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    rng = random.Random(1)
    ids = [2**63 + k for k in range(40)]
    rows = [{"pre": rng.choice(ids), "post": rng.choice(ids[:30]), "synapses": rng.randint(1, 3)} for _ in range(900)]
    listed = tiny_imported.write(tmp_path_factory.mktemp("listed"), rows, {})
    return [(listed, EDGES_SQL), (tiny_project.write(tmp_path_factory.mktemp("tiny")), LINKS_SQL)]


def test_edges_and_degrees_are_those_of_duckdb(projects: list[tuple[Path, str]]) -> None:
    for project, sql in projects:
        with dask.config.set(scheduler="synchronous"), open_database(project) as db:
            ours, theirs = db.sql(sql).to_pandas(), edges(project, partitions=2)
            assert len(theirs) > 2
            assert str(theirs["pre"].dtype) == "uint64"
            assert same(ours, theirs)
            assert not same(ours.assign(pre=ours["pre"] + 1), theirs)
            if project == projects[0][0]:
                assert same(db.sql(DEGREES_SQL).to_pandas(), degrees(project))
