"""The note for a methods section states what was measured, and as plainly what was not; the trend over versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.diagnosis.pages import flag_list, measured, trend
from connectome_db.diagnosis.pages.html_tags import Markup
from connectome_db.diagnosis.pages.release_note import release_note
from connectome_db.diagnosis.pages.shares import Shares, shares
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.identity import timeline
from tests.diagnosis import quality_project
from tests.diagnosis.html_facts import Facts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return quality_project.write(tmp_path).root


def _note(root: Path, counted: Shares | None = None) -> str:
    quality = measured.read(open_revision(root))
    return release_note("corner | co", quality, counted or shares(quality))


def test_it_states_numbers_of_the_tables(root: Path):
    note = _note(root)
    rows = pq.read_table(root / "data/measure_volume/quality_volume.parquet").to_pandas()
    values = rows[rows.metric == "image_contrast"]["value"]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    assert f"| L2 | image contrast | {middle:.4g} grey | {low:.4g} to {high:.4g} | 256 |" in note
    assert "0.48 × 2.048 × 2.048 µm" in note
    assert "2 regions of lower or deviating quality were found" in note
    assert "raw membrane contrast (L1) −40 %" in note
    assert "25 % of the measured volume" in note
    assert "in: aligned volume, segmentation, objects and synapses." in note
    assert "a-model@12" in note
    assert "corner \\| co" in note


def test_shares_are_told(root: Path):
    note = _note(root, Shares(0.25, 0.125, 1200, 0.2, 900))
    assert "25 % of the measured volume, 12 % of 1,200 synapses and 20 % of 900 connections" in note


def test_synapses_and_connections_are_counted_by_place(root: Path):
    voxels = np.asarray([[3, 200, 200], [3, 10, 200], [3, 127, 128], [3, 128, 128]], float)
    folder = root / "data" / "synapses"
    folder.mkdir()
    columns = {f"{a}_vx": voxels[:, k] for k, a in enumerate("zyx")}
    pq.write_table(pa.table({"synapse": pa.array([1, 2, 3, 2**63 + 1], pa.uint64()), **columns}),
                   folder / "synapse.parquet")  # fmt: skip
    (folder / "record.json").write_text(json.dumps({"stage": "synapses", "units": 1, "outputs": {}}))
    graph = root / "data" / "graph"
    graph.mkdir()
    link = {
        "synapse": pa.array([1, 2, 3, 2**63 + 1], pa.uint64()), "pre": pa.array([7, 7, 8, 9], pa.uint64()),
        "post": pa.array([8, 8, 7, 7], pa.uint64()), "counted": [True, True, True, False],
    }  # fmt: skip
    pq.write_table(pa.table(link), graph / "link.parquet")
    (graph / "record.json").write_text(json.dumps({"stage": "graph", "units": 1, "outputs": {}}))
    found = shares(measured.read(open_revision(root)))
    assert found == Shares(0.25, 0.5, 4, 0.5, 2)


def test_without_a_search_it_makes_no_statement(tmp_path: Path):
    note = _note(quality_project.write(tmp_path, flagged=False).root)
    assert "this note makes no statement about them" in note
    assert "No region was found" not in note


def test_without_flags_it_does_not_claim_perfection(root: Path):
    quality = replace(measured.read(open_revision(root)), flags=())
    note = release_note("p", quality, shares(quality))
    assert "No region was found" in note
    assert "differences too small for this test cannot be excluded" in note


def test_without_measures_nothing_is_said(tmp_path: Path):
    (tmp_path / "data").mkdir()
    note = _note(tmp_path)
    assert "was not measured" in note
    assert "Median" not in note


def test_checks_of_tables_are_shown_failures_first(root: Path):
    said = flag_list.expectations_section(measured.read(open_revision(root)))
    assert "No results are on record" in said
    (root / "qa").mkdir()
    base = {"table": "synapse", "expectation": "x", "severity": "warning", "reason": "r", "success": True,
            "unexpected": 0, "example": ""}  # fmt: skip
    bad = base | {"severity": "error", "success": False, "unexpected": 3, "example": "<b>"}
    pq.write_table(pa.Table.from_pylist([base, bad]), root / "qa" / "expectations.parquet")
    facts = Facts(flag_list.expectations_section(measured.read(open_revision(root))))
    assert "1 of 2 checks hold" in facts.text
    assert "<b>" in facts.text
    assert len(facts.all("tr")) == 2


def test_versions_with_equal_measures_are_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    roots = [quality_project.write(tmp_path / str(k)).root for k in range(3)]
    for name in ("measure_volume", "flag"):  # the first two are alike, the third has no search
        record = roots[2] / "data" / name / "record.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"outputs": {"t": "other"}}))
    (roots[2] / "data/flag/record.json").unlink()
    found = [Revision(roots[2], f"v{k}", "c" * 40, r) for k, r in enumerate(roots[:2])]
    monkeypatch.setattr(timeline, "recent", lambda *_: (found, []))
    seen, note = trend.versions(roots[2])
    assert [v.names for v in seen] == [("v0", "v1"), ("working tree",)]
    assert note == ""
    assert seen[0].flags is not None
    assert seen[0].flags["L1"] == {"serious": 1}
    assert seen[1].flags is None
    text = trend.trend_section(roots[2], measured.read(open_revision(roots[2])))
    assert isinstance(text, Markup)
    assert "v0, v1" in text
    assert "not searched" in text


def test_outside_git_there_is_no_trend_and_no_failure(root: Path):
    said = Facts(trend.trend_section(root, measured.read(open_revision(root)))).text
    assert "a trend needs two" in said
