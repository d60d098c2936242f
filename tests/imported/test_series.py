"""The worm in development: six lists as six versions; what `diff` counts is what SQL and plain Python count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectome_db import importing
from connectome_db.config import Project
from connectome_db.query.database import Other, open_database
from connectome_db.revisions import open_revision
from connectome_db.stages.imported import STAGES
from connectome_db.versions.compare.diff import compare
from tests.versioned import commit_version

SERIES = ("Dataset1", "Dataset4", "Dataset6")


@pytest.fixture(scope="module")
def worm(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, Path]:
    """(project with three stages of development as tags, the file they come from)."""
    root, file = tmp_path_factory.mktemp("worm") / "p", shared_data / "graph/celegans_witvliet_D1-6_synapses.parquet"
    project: Project | None = None
    for name in SERIES:
        mapped = importing.choose_columns(
            file, root, pre=None, post=None, weight=None, synapse=None, where={"dataset": name}
        )
        project = importing.bring(root, mapped.synapses, name="worm")
        commit_version(root, name, STAGES)
    assert project is not None
    return root, file


def _edges(file: Path, name: str) -> Counter[tuple[str, str]]:
    return Counter((r["pre"], r["post"]) for r in pq.read_table(file).to_pylist() if r["dataset"] == name)


@pytest.mark.shared
@pytest.mark.parametrize("ends", [(SERIES[0], SERIES[1]), (SERIES[1], SERIES[2]), (SERIES[2], SERIES[0])])
def test_diff_of_two_stages_counts_what_others_count(worm: tuple[Path, Path], ends: tuple[str, str]) -> None:
    root, file = worm
    old, new = (_edges(file, name) for name in ends)
    truth = {
        "gained": len(new.keys() - old.keys()),
        "lost": len(old.keys() - new.keys()),
        "stronger": sum(new[e] > old[e] for e in old.keys() & new.keys()),
        "weaker": sum(new[e] < old[e] for e in old.keys() & new.keys()),
    }
    a, b = (open_revision(root, name) for name in ends)
    found = Counter(compare(a, b).tables["edge_change"]["kind"].to_pylist())
    assert found == truth
    by_sql = (
        "SELECT count(*) FILTER (x.pre IS NULL) AS gained, count(*) FILTER (y.pre IS NULL) AS lost, "
        "count(*) FILTER (x.synapses < y.synapses) AS stronger, count(*) FILTER (x.synapses > y.synapses) AS weaker "
        "FROM a.connection x FULL JOIN b.connection y ON x.pre = y.pre AND x.post = y.post"
    )
    with open_database(root, also={"a": Other(a.root, a.name), "b": Other(b.root, b.name)}) as db:
        assert db.sql(by_sql).to_pylist() == [truth]


@pytest.mark.shared
def test_each_version_is_still_there(worm: tuple[Path, Path]) -> None:
    root, file = worm
    for name in SERIES:
        with open_database(open_revision(root, name).root) as db:
            (row,) = db.fetch("SELECT count(*) AS n, sum(synapses)::BIGINT AS s FROM connection")
        assert (row["n"], row["s"]) == (len(_edges(file, name)), _edges(file, name).total())
