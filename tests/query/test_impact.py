"""What is counted as reached, on a project small enough to count by hand. Walks are compared in tests/versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.query import impact
from connectome_db.query.database import Database, open_database
from connectome_db.query.impact import Impact
from tests import tiny_project
from tests import tiny_rows as t


def reached(**units: int) -> Impact:
    return Impact("something", {stage: np.asarray([code], np.uint64) for stage, code in units.items()}, (), ())


def listed(db: Database, found: Impact, what: str, *columns: str, possible: bool = False) -> set[object]:
    rows = impact.listing(db, found, what, possible=possible).to_pylist()
    return {tuple(r[c] for c in columns) if len(columns) > 1 else r[columns[0]] for r in rows}


def test_through_supervoxels(db: Database) -> None:
    found = reached(segment=t.BLOCK_B)
    assert listed(db, found, "supervoxels", "supervoxel") == {t.b1, t.b2, t.b3}
    assert listed(db, found, "objects", "object") == {t.A1, t.A2, t.B2}
    assert listed(db, found, "synapses", "synapse") == {t.s2, t.s3}
    assert listed(db, found, "edges", "pre", "post") == {(t.A1, t.A2), (t.A2, t.B2)}
    assert listed(db, reached(segment=t.BLOCK_A), "objects", "object") == {t.A1, t.A2}


def test_through_synapses_alone(db: Database) -> None:
    found = reached(synapses=t.BLOCK_A)
    assert listed(db, found, "supervoxels", "supervoxel") == set()
    assert listed(db, found, "synapses", "synapse") == {t.s1, t.s4}
    assert listed(db, found, "edges", "pre", "post") == {(t.A1, t.A2), (t.A2, t.A1)}


def test_what_a_solve_made(db: Database) -> None:
    assert listed(db, reached(agglomerate=t.ONCE), "objects", "object") == {t.A1, t.A2, t.B2}
    assert listed(db, reached(agglomerate=t.ONCE), "edges", "pre", "post") == set()
    assert len(listed(db, reached(graph=t.ONCE), "edges", "pre", "post")) == 3
    found = Impact("something", reached(synapses=t.BLOCK_A).direct, ("agglomerate", "graph"), ("agglomerate", "graph"))
    assert listed(db, found, "objects", "object") == set()
    assert listed(db, found, "objects", "object", possible=True) == {t.A1, t.A2, t.B2}
    assert listed(db, found, "edges", "pre", "post", "direct", possible=True) == {
        (t.A1, t.A2, True), (t.A2, t.A1, True), (t.A2, t.B2, False),
    }  # fmt: skip
    assert listed(db, found, "supervoxels", "supervoxel", possible=True) == set()
    told = {r["what"]: (r["direct"], r["possible"], r["all"]) for r in impact.counts(db, found).to_pylist()}
    assert told["objects"] == (0, 3, 3)
    assert told["edges"] == (2, 3, 3)
    assert told["units"] == (1, 3, sum(len(tiny_project.units_of(s)) for s in tiny_project.KINDS))


def test_synapses_that_do_not_count_make_no_edge(tmp_path: Path) -> None:
    path = tiny_project.write(tmp_path) / "data" / "graph" / "link.parquet"
    link = pq.read_table(path)
    counted = pa.array([s != t.s2 for s in link["synapse"].to_pylist()])
    path.unlink()
    pq.write_table(link.set_column(link.column_names.index("counted"), link.schema.field("counted"), counted), path)
    with open_database(tmp_path) as db:
        assert listed(db, reached(segment=t.BLOCK_B), "synapses", "synapse") == {t.s2, t.s3}
        assert listed(db, reached(segment=t.BLOCK_B), "edges", "pre", "post") == {(t.A2, t.B2)}


@pytest.mark.parametrize("tile", ["s0/t00.png", "s1/t11.png"])
def test_only_blocks_that_show_a_tile_are_direct(db: Database, tile: str) -> None:
    shown = {r["unit"] for r in db.fetch("SELECT unit FROM image_source WHERE tile = $t", {"t": tile})}
    found = impact.of_tile(db, tile)
    assert set(found.direct["render"].tolist()) == shown
    section = t.SECTION_UNIT[int(tile[1])]
    assert [found.direct[s].tolist() for s in ("ingest", "montage", "match")] == [[section], [section], [t.PAIR]]
    assert not {"align", "reconcile", "agglomerate", "graph"} & found.direct.keys()
