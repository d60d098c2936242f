"""A connectome made elsewhere: read without loss, counted as an independent script counts, versions and lineage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectome_db import config, importing
from connectome_db.finish import finish
from connectome_db.lists.guess import guess
from connectome_db.lists.names import neuron_ids
from connectome_db.query.database import open_database
from connectome_db.query.lineage import trace_edge
from connectome_db.runner import run_units

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
