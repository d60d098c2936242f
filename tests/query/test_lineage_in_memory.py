"""From the second question on, lineage is looked up in memory: what comes is what the tables on disk say."""

from __future__ import annotations

import gc
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, open_database
from connectome_db.query.inmemory.images import Imagery, imagery_of
from connectome_db.query.inmemory.ledger import Boxes, Ledger, ledger_of
from connectome_db.query.lineage import trace_edge, trace_synapse
from connectome_db.query.trace import Trace, to_json


def facts(trace: Trace) -> object:
    """The whole tree in the order it is shown, floats to nine digits: sums in another order end in other bits."""
    return json.loads(to_json(trace), parse_float=lambda s: round(float(s), 9), object_pairs_hook=list)


@pytest.fixture
def memory(tiny: Path) -> Database:
    with open_database(tiny) as db:
        db.in_memory()
        yield db.in_memory()


def test_every_edge_and_synapse_has_the_same_lineage(tiny: Path, db: Database) -> None:
    edges = db.fetch("SELECT pre, post FROM connection")
    synapses = db.fetch("SELECT synapse FROM synapse")
    assert len(edges) > 1
    with open_database(tiny) as asked_often:
        trace_edge(asked_often, **edges[0])
        for e in edges:
            with open_database(tiny) as asked_once:
                assert facts(trace_edge(asked_often, **e)) == facts(trace_edge(asked_once, **e))
        assert ledger_of(asked_often.in_memory()) is not None
        for s in synapses:
            with open_database(tiny) as asked_once:
                assert facts(trace_synapse(asked_often, **s)) == facts(trace_synapse(asked_once, **s))


def test_a_database_on_disk_has_none_of_it_and_a_large_one_neither(tiny: Path, db: Database) -> None:
    assert (ledger_of(db), imagery_of(db)) == (None, None)
    with open_database(tiny, in_memory_rows=3) as small:
        assert (ledger_of(small), imagery_of(small)) == (None, None)
    with open_database(tiny, in_memory_rows=10_000) as large:
        assert isinstance(ledger_of(large), Ledger)
        assert isinstance(imagery_of(large), Imagery)
        assert ledger_of(large) is ledger_of(large)


def test_boxes_that_share_a_voxel(memory: Database) -> None:
    """Against the join that the view `unit_edge` is."""
    ledger = ledger_of(memory)
    assert ledger is not None
    reads = memory.fetch("SELECT * FROM unit_read")
    for r in reads:
        touched = memory.fetch(
            "SELECT DISTINCT part, digest FROM unit_edge WHERE stage = $stage AND unit = $unit AND input = $input "
            "ORDER BY ALL",
            {n: r[n] for n in ("stage", "unit", "input")},
        )
        box = [r[n] for n in ("z0", "y0", "x0", "z1", "y1", "x1")]
        mine = {p for x in reads if all(x[n] == r[n] for n in ("stage", "unit", "input")) for p in ledger.parts(
            x["input"], [x[n] for n in ("z0", "y0", "x0", "z1", "y1", "x1")])}  # fmt: skip
        assert sorted(mine) == [(t["part"], t["digest"]) for t in touched], (r["stage"], r["unit"], box)
    assert ledger.parts("nobody.made", [0, 0, 0, 9, 9, 9]) == []
    assert ledger.parts("render.image", [0, 0, 0, 0, 9, 9]) == []


@pytest.mark.parametrize("was", [True, False])
def test_the_search_for_garbage_goes_on_as_before(db: Database, was: bool) -> None:
    (gc.enable if was else gc.disable)()
    try:
        with pytest.raises(QueryError):
            trace_edge(db, 1, 2)
        assert gc.isenabled() is was
    finally:
        gc.enable()


corners = st.tuples(*[st.integers(-6, 6)] * 3, *[st.integers(1, 9)] * 3).map(
    lambda b: [*b[:3], *(low + size for low, size in zip(b[:3], b[3:], strict=True))]
)


@given(boxes=st.lists(corners, min_size=1, max_size=12), asked=corners)
def test_boxes_of_any_depth_are_found(boxes: list[list[int]], asked: list[int]) -> None:
    wanted = [i for i, b in enumerate(boxes) if all(b[k] < asked[k + 3] and asked[k] < b[k + 3] for k in range(3))]
    assert sorted(Boxes(np.asarray(boxes, dtype=np.int64)).touching(asked).tolist()) == wanted


@pytest.mark.parametrize("near", [1.0, 15.0, 40.0, 512.0])
@pytest.mark.parametrize("section", [0, 1, 7])
def test_residuals_near_a_place_and_no_others(memory: Database, section: int, near: float) -> None:
    imagery = imagery_of(memory)
    assert imagery is not None
    rows = memory.fetch("SELECT * FROM alignment_residual WHERE weight > 0")
    places = [(r["y_px"] + dy, r["x_px"] + dx) for r in rows for dy, dx in ((0, 0), (14, 0), (0, 14), (-30, 0))]
    for y, x in places:
        wanted = [
            math.hypot(r["residual_y_px"], r["residual_x_px"]) for r in rows
            if section in (r["section_a"], r["section_b"]) and abs(r["y_px"] - y) <= near and abs(r["x_px"] - x) <= near
        ]  # fmt: skip
        found = imagery.residual(section, y, x, near)
        assert (found is None) == (not wanted)
        if found:
            assert (found["n"], found["max_px"]) == (len(wanted), pytest.approx(max(wanted)))
            assert found["median_px"] == pytest.approx(float(np.median(wanted)))
