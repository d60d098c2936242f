"""A connectome made elsewhere: read without loss, counted as an independent script counts, versions and lineage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db import config, importing
from connectome_db.errors import SourceError
from connectome_db.finish import finish
from connectome_db.query.database import open_database
from connectome_db.query.lineage import trace_edge
from connectome_db.runner import run_units
from connectome_db.synapselists import SynapseList, guess, neuron_ids, read_list

ROWS = "pre,post,synapses,stage\nAVAL,AVAR,3,a\nAVAR,AVAL,1,a\nAVAL,AVAR,2,b\nAVAL,AVAL,1,b\n"


def _list(folder: Path, text: str = ROWS, name: str = "edges.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def _run(project: config.Project) -> None:
    for stage in project.stages:
        finish(*run_units(project, stage.name))


def _bring(root: Path, file: Path, **where: str) -> config.Project:
    mapped = importing.choose_columns(file, root, pre=None, post=None, weight=None, synapse=None, where=where)
    project = importing.bring(root, mapped.synapses, name="worm")
    _run(project)
    return project


def _read(file: Path) -> pa.Table:
    mapped = importing.choose_columns(file, file.parent, pre=None, post=None, weight=None, synapse=None, where={})
    return read_list(mapped.synapses, file.parent)


def test_counts_are_those_of_the_list_and_nothing_is_invented(tmp_path: Path) -> None:
    project = _bring(tmp_path / "p", _list(tmp_path / "in"))
    ids = neuron_ids(["AVAL", "AVAR"])
    with open_database(project.root) as db:
        edges = {(r["pre"], r["post"]): r["synapses"] for r in db.fetch("SELECT * FROM connection")}
        assert edges == {
            (ids["AVAL"], ids["AVAR"]): 5, (ids["AVAR"], ids["AVAL"]): 1, (ids["AVAL"], ids["AVAL"]): 1,
        }  # fmt: skip
        unsaid = "SELECT count(*) AS n FROM connection WHERE confidence IS NULL AND size_vx IS NULL"
        assert db.fetch(unsaid)[0]["n"] == 3
        names = db.sql("SELECT a.name, b.name, c.synapses FROM connection c JOIN neuron_name a ON a.neuron = c.pre "
                       "JOIN neuron_name b ON b.neuron = c.post ORDER BY c.synapses DESC LIMIT 1")  # fmt: skip
        assert names.to_pylist() == [{"name": "AVAL", "name_1": "AVAR", "synapses": 5}]
        assert db.missing == {}


def test_an_edge_leads_back_to_its_rows_and_the_file(tmp_path: Path) -> None:
    file = _list(tmp_path / "in")
    project = _bring(tmp_path / "p", file)
    ids = neuron_ids(["AVAL", "AVAR"])
    with open_database(project.root) as db:
        trace = trace_edge(db, ids["AVAL"], ids["AVAR"])
    assert [t.facts["row"] for t in trace.find("row")] == [1, 3]
    (source,) = trace.find("file")
    assert len(source.facts["sha256"]) == 64
    assert str(source.facts["before"]).startswith("unknown")
    for unit in trace.find("unit"):
        assert unit.facts["git_commit"]
        assert unit.facts["environment"]


def test_the_next_version_reads_other_rows_and_a_neuron_keeps_its_id(tmp_path: Path) -> None:
    file, root = _list(tmp_path / "in"), tmp_path / "p"
    before = _bring(root, file, stage="a")
    with open_database(before.root) as db:
        old = db.fetch("SELECT pre, post, synapses FROM connection ORDER BY ALL")
    comments = (root / "params.yaml").read_text().count("#")
    after = _bring(root, file, stage="b")
    with open_database(after.root) as db:
        new = db.fetch("SELECT pre, post, synapses FROM connection ORDER BY ALL")
    aval, avar = neuron_ids(["AVAL", "AVAR"]).values()
    assert sorted((r["pre"], r["post"], r["synapses"]) for r in old) == sorted([(aval, avar, 3), (avar, aval, 1)])
    assert sorted((r["pre"], r["post"], r["synapses"]) for r in new) == sorted([(aval, avar, 2), (aval, aval, 1)])
    assert (root / "params.yaml").read_text().count("#") == comments


def test_dvc_is_told_which_rows_are_read(tmp_path: Path) -> None:
    file, root = _list(tmp_path / "in"), tmp_path / "p"
    listings = []
    for stage in "ab":
        mapped = importing.choose_columns(
            file, root, pre=None, post=None, weight=None, synapse=None, where={"stage": stage}
        )
        project = importing.bring(root, mapped.synapses, name="worm")
        importing.dvcfile.write_identity(project)
        listings.append(json.loads((root / "identity" / "listing.json").read_text()))
    assert listings[0] != listings[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pre,post\n1,2\n1.15e18,3\n", "row 2: '1.15e18'"),
        ("pre,post\n1,2\n720575940600000000.0,3\n", "row 2: '720575940600000000.0'"),
        ("pre,post\n1,2\n,3\n", "row 2"),
        ("pre,post,synapses\n1,2,3\n1,2,many\n", "is no whole number of synapses; 1 rows: row 2: 'many'"),
        ("axon_x,post\n1,2\n", "which column is the presynaptic neuron"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = _list(tmp_path / "in", text)
    with pytest.raises(SourceError, match=says):
        _read(file)


def test_numbers_beyond_double_precision_stay_exact_and_impossible_ones_are_refused(tmp_path: Path) -> None:
    exact = (1 << 53) + 1
    assert neuron_ids([str(exact)]) == {str(exact): exact}
    for bad in ("0", "007", str(1 << 63), "12345678901234567890123"):
        with pytest.raises(SourceError, match="wanted a whole number"):
            neuron_ids([bad])
    table = pa.table({"pre": pa.array([exact], pa.uint64()), "post": pa.array([float(exact)], pa.float64())})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="decimal number"):
        read_list(SynapseList(file="t.parquet", pre="pre", post="post"), tmp_path)


def test_columns_are_recognised_by_name() -> None:
    assert guess(["Source", "Target", "Weight", "Type"]) == {"pre": "Source", "post": "Target", "weight": "Weight"}
    assert guess(["pre_pt_root_id", "post_pt_root_id", "id"])["synapse"] == "id"


@pytest.mark.shared
def test_the_worm_counts_as_plain_python_counts(tmp_path: Path, shared_data: Path) -> None:
    file = shared_data / "graph" / "celegans_witvliet_D1-6_synapses.parquet"
    project = _bring(tmp_path / "p", file, dataset="Dataset3")
    rows = [r for r in pq.read_table(file).to_pylist() if r["dataset"] == "Dataset3"]
    truth = Counter((r["pre"], r["post"]) for r in rows)
    with open_database(project.root) as db:
        found = db.fetch("SELECT a.name AS pre, b.name AS post, synapses FROM connection c "
                         "JOIN neuron_name a ON a.neuron = c.pre JOIN neuron_name b ON b.neuron = c.post")  # fmt: skip
    assert {(r["pre"], r["post"]): r["synapses"] for r in found} == truth
