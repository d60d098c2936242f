from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from shutil import which

import pytest
from rich.console import Console

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, open_database
from connectome_db.query.graph.networks import connectome_graph
from connectome_db.query.lineage import trace_edge, trace_object, trace_synapse, trace_voxel
from connectome_db.query.trace import Trace, lineage_rows, to_dot, to_json, to_rich
from connectome_db.query.units import downstream_units, unit_traces, upstream_units
from tests import tiny_project
from tests import tiny_rows as t

SIX_FACTS = ("inputs", "git_commit", "model_id", "params", "environment", "outputs")


def stages(trace: Trace) -> set[str]:
    return {u.facts["stage"] for u in trace.find("unit")}


def test_an_edge_reaches_its_tiles(db: Database) -> None:
    edge = trace_edge(db, t.A1, t.A2)
    assert edge.facts["synapses"] == 2
    assert [s.facts["synapse"] for s in edge.find("synapse")] == [t.s1, t.s2]
    assert stages(edge) == {
        "graph", "synapses", "reconcile", "agglomerate", "overlap", "segment", "render", "align", "montage", "ingest",
    }  # fmt: skip
    first, second = edge.find("synapse")
    # s1 lies at y 60, x 30: two overlapping tiles of each section show it; s2 at y 20, x 90: one
    assert [x.facts["path"] for x in first.find("tile")] == ["s0/t00.png", "s0/t10.png", "s1/t00.png", "s1/t10.png"]
    assert [x.facts["path"] for x in second.find("tile")] == ["s0/t01.png", "s1/t01.png"]
    assert all(x.facts["sha256"] == t.sha(x.facts["path"]) for x in edge.find("tile"))


def test_the_six_facts_are_at_every_step(db: Database) -> None:
    for unit in trace_edge(db, t.A1, t.A2).find("unit"):
        f = unit.facts
        assert all(n in f for n in SIX_FACTS), unit.title
        assert f["inputs"], unit.title
        assert f["outputs"], unit.title
        assert len(f["git_commit"]) == 40
        assert f["environment"] == t.sha("environment")
        assert f["model_id"] == (t.MODEL if f["stage"] == "segment" else None)
        assert f["unit_key"] == t.sha(f"key {f['stage']} {int(f['unit'])}")


def test_reused_units_keep_their_own_commit_and_regions_their_parameters(db: Database) -> None:
    units = unit_traces(db, [("segment", t.BLOCK_A), ("segment", t.BLOCK_B), ("align", t.ONCE)])
    a, b = units["segment", t.BLOCK_A].facts, units["segment", t.BLOCK_B].facts
    assert (a["git_commit"], a["reused"], a["params"]["threshold"]) == ("beef" * 10, True, 0.5)
    assert (b["git_commit"][:6], b["reused"], b["params"]["threshold"]) == ("c0ffee", False, 0.6)
    assert [o["region"] for o in b["overrides"]] == ["corner"]
    assert a["inputs"]["render.image"] == [
        {"unit": u, "digest": t.sha(f"content render.image {u}")} for u in (t.BLOCK_A, t.BLOCK_B)
    ]
    assert a["outputs"]["segment.supervoxels"] == t.sha(f"content segment.supervoxels {t.BLOCK_A}")
    once = units["align", t.ONCE].facts
    assert once["inputs"]["match.section_match"] == t.sha("merkle match.section_match")
    assert once["outputs"]["align.section_transform"] == t.sha("merkle align.section_transform")
    assert unit_traces(db, []) == {}


def test_the_merge_path_is_the_path(db: Database) -> None:
    synapse = trace_synapse(db, t.s2)  # pre b1 (joined to a1 by an overlap), post b3 (into a3, then a2)
    pre, post = synapse.find("joining")
    assert [(o.facts["a"], o.facts["b"], o.facts["score"]) for o in pre.find("overlap")] == [(t.a1, t.b1, 0.98)]
    assert pre.find("merge") == []
    assert [(m.facts["b"], m.facts["a"], m.facts["score"]) for m in post.find("merge")] == [
        (t.b3, t.a3, 0.95),
        (t.a3, t.a2, 0.7),
    ]
    assert post.facts["weakest_on_path"] == 0.7


def test_section_facts(db: Database) -> None:
    voxel = trace_voxel(db, 1, 30, 10)
    (section,) = voxel.find("section")
    # section 1 lies 2 px lower and 1 px further left in its plane (bilinear between mesh nodes)
    assert (section.facts["plane_y_px"], section.facts["plane_x_px"]) == (32.0, 9.0)
    assert section.facts["alignment_matches_near"] == 2
    assert section.facts["alignment_residual_max_px"] == pytest.approx((1.3**2 + 1.4**2) ** 0.5)
    (tile,) = voxel.find("tile")
    assert (tile.facts["tile_y_px"], tile.facts["tile_x_px"]) == (32.0, 9.0)
    assert voxel.facts["candidates"] == [t.a1]
    known = trace_voxel(db, 1, 30, 10, supervoxel=t.a1)
    assert known.find("supervoxel")[0].facts["object"] == t.A1


def test_object(db: Database) -> None:
    body = trace_object(db, t.A2)
    assert {s.facts["supervoxel"] for s in body.find("supervoxel")} == {t.a2, t.a3, t.b3}
    assert [m.facts["score"] for m in body.find("merge")] == [0.7, 0.95]
    assert len(body.find("tile")) == 8
    short = trace_object(db, t.A2, limit=1)
    group = next(g for g in short.find("group") if g.title.startswith("raw tiles"))
    assert group.facts == {"shown": 1, "of": 8}


def test_json_has_ids_as_strings(db: Database) -> None:
    edge = trace_edge(db, t.A1, t.A2)
    told = json.loads(to_json(edge))
    assert told["facts"]["pre"] == str(t.A1)

    def flat(step: dict[str, object]) -> list[dict[str, object]]:
        return [step, *(s for child in step.get("children", []) for s in flat(child))]

    steps = flat(told)
    full = {s["step"]: s for s in steps if "repeated" not in s}
    again = [s for s in steps if "repeated" in s]
    assert again  # align is under every section
    assert all(full[s["step"]]["title"] == s["title"] for s in again)

    def numbers(value: object) -> list[int]:
        if isinstance(value, dict):
            return [n for v in value.values() for n in numbers(v)]
        if isinstance(value, list):
            return [n for v in value for n in numbers(v)]
        return [value] if isinstance(value, int) else []

    assert max(numbers(told)) < 2**32


def test_dot(db: Database, tmp_path: Path) -> None:
    dot = to_dot(trace_edge(db, t.A1, t.A2))
    assert dot.count("tile s0/t00.png") == 1  # a step used twice is one node
    assert dot.startswith("digraph")
    if which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", str(tmp_path / "a.svg")], input=dot, text=True, check=True)


def test_rich(db: Database) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(to_rich(trace_edge(db, t.A1, t.A2)))
    text = out.getvalue()
    assert text.count("merge " + str(t.a3)) == 2  # on the way of s1 and of s2
    assert text.count("key " + t.sha(f"key align {t.ONCE}")[:12]) == 1
    assert "align whole (see above)" in text
    assert "params " + t.sha("params segment")[:10] + " + corner" in text


def test_rows(db: Database) -> None:
    edge = trace_edge(db, t.A1, t.A2)
    rows = lineage_rows(edge)
    assert rows.num_rows == sum(1 for _ in edge.walk())
    by_step = rows.to_pylist()
    assert all(by_step[r["parent"]]["depth"] == r["depth"] - 1 for r in by_step[1:])
    units = [r for r in by_step if r["kind"] == "unit"]
    assert all(r["git_commit"] and r["inputs"] and r["outputs"] and r["environment"] for r in units)


def test_up_and_down(db: Database) -> None:
    up = upstream_units(db, "segment", t.BLOCK_A).to_pylist()
    assert [(r["stage"], r["unit"]) for r in up] == [
        *(("ingest", u) for u in sorted(t.SECTION_UNIT.values())),
        *(("montage", u) for u in sorted(t.SECTION_UNIT.values())),
        ("match", t.PAIR),
        ("align", t.ONCE),
        *(("render", b) for b in (t.BLOCK_A, t.BLOCK_B)),
        *(("mask", b) for b in (t.BLOCK_A, t.BLOCK_B)),
    ]
    down = downstream_units(db, "score", t.BLOCK_B).to_pylist()
    assert [(r["stage"], r["unit"]) for r in down] == [("agglomerate", t.ONCE), ("graph", t.ONCE)]
    everything = downstream_units(db, "ingest", t.SECTION_UNIT[0]).num_rows
    # less itself, and section 1 twice
    assert (
        everything == sum(len(tiny_project.units_of(s)) for s in tiny_project.KINDS) - 3
    )  # itself, and section 1 twice


def test_unknown_ids_name_what_exists(db: Database) -> None:
    with pytest.raises(QueryError, match=f"{t.A2} connects to") as e:
        trace_edge(db, t.A2, t.A2)
    assert str(t.B2) in str(e.value)
    with pytest.raises(QueryError, match="the other way round there is one, of 1 synapses"):
        trace_edge(db, t.B2, t.A2)
    with pytest.raises(QueryError, match=f"no neuron 5; the most connected are {t.A2}"):
        trace_edge(db, t.A1, 5)
    with pytest.raises(QueryError, match=f"no synapse 7; the most confident are {t.s1}"):
        trace_synapse(db, 7)
    with pytest.raises(QueryError, match=f"it belongs to object {t.A2}"):
        trace_object(db, t.a3)
    with pytest.raises(QueryError, match=f"the largest are {t.A2}"):
        trace_object(db, 5)
    with pytest.raises(QueryError, match="z 0:2, y 0:120, x 0:120"):
        trace_voxel(db, 9, 0, 0)
    with pytest.raises(QueryError, match="did you mean 'segment'"):
        upstream_units(db, "segmnt", 1)
    with pytest.raises(QueryError, match="has no unit 1"):
        upstream_units(db, "segment", 1)


def test_before_the_graph_is_made(tmp_path: Path) -> None:
    made = tuple(s for s in tiny_project.KINDS if s not in {"graph", "agglomerate", "reconcile"})
    with open_database(tiny_project.write(tmp_path, made)) as db:
        synapse = trace_synapse(db, t.s1)
        assert len(synapse.find("tile")) == 4
        assert synapse.facts["counted"] is None
        with pytest.raises(QueryError, match="run `dvc repro graph`"):
            trace_edge(db, t.A1, t.A2)


def test_graph(db: Database) -> None:
    graph = connectome_graph(db)
    assert set(graph) == {t.A1, t.A2, t.B2}
    assert graph.edges[t.A1, t.A2]["synapses"] == 2
    assert graph.nodes[t.A2]["partners_out"] == 2
    assert not graph.has_edge(t.A1, t.B2)


def test_the_number_of_queries_does_not_grow(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fetch = Database.fetch

    def counting(self: Database, text: str, params: dict[str, object] | None = None) -> list[dict[str, object]]:
        asked.append(text)
        return fetch(self, text, params)

    monkeypatch.setattr(Database, "fetch", counting)
    trace_edge(db, t.A1, t.A2, limit=2)
    two = len(asked)
    asked.clear()
    trace_edge(db, t.A1, t.A2, limit=1)
    assert len(asked) == two


def test_background_and_unknown_supervoxels(db: Database) -> None:
    assert trace_voxel(db, 0, 0, 0, supervoxel=0).find("tile")
    with pytest.raises(QueryError, match="no supervoxel 5"):
        trace_voxel(db, 0, 0, 0, supervoxel=5)
