"""What every stage owes, on real units of a finished project. A new stage gets these without writing a line."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from connectome_db import prepare, runner, tables
from connectome_db.inputs import BlockReader
from connectome_db.networks.inference import load_network
from connectome_db.provenance import array_digest, table_digest
from connectome_db.spec import Volume
from connectome_db.stages.pipeline import STAGES


def digests(stage, block, result):
    """Content digest per output, as the runner takes them."""
    runner.check_result(block, stage.outputs, result)
    found = {}
    for o in stage.outputs:
        value = result[o.name]
        found[o.name] = array_digest(value) if isinstance(o, Volume) else table_digest(tables.conform(o.table, value))
    return found


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_same_block_twice_same_digest_and_inputs_untouched(done, stage):
    prepared = prepare.prepare(done, stage)
    model = prepared.model(0)
    network = load_network(model.folder) if model else None
    for i in sorted({0, len(prepared.plan) // 2}):
        first = BlockReader(done, stage, prepared.plan, prepared.inputs, network).block(i, prepared.params(i))
        before = {n: array_digest(a) for n, a in first.arrays.items()}
        before |= {n: table_digest(t) for n, t in first.tables.items()}
        one = digests(stage, first, stage.compute(first))
        assert {n: array_digest(a) for n, a in first.arrays.items()} | {
            n: table_digest(t) for n, t in first.tables.items()
        } == before
        second = BlockReader(done, stage, prepared.plan, prepared.inputs, network).block(i, prepared.params(i))
        assert digests(stage, second, stage.compute(second)) == one


@pytest.mark.parametrize("method", ["affinity", "mutex"])
def test_every_method_of_segment_same_block_twice_same_digest(done, method):
    stage = next(s for s in STAGES if s.name == "segment")
    prepared = prepare.prepare(done, stage)
    network = load_network(prepared.model(0).folder)
    params = prepared.params(0).model_copy(update={"method": method})
    found = []
    for _ in range(2):
        block = BlockReader(done, stage, prepared.plan, prepared.inputs, network).block(0, params)
        before = {n: array_digest(a) for n, a in block.arrays.items()}
        result = stage.compute(block)
        found.append(digests(stage, block, result))
        assert {n: array_digest(a) for n, a in block.arrays.items()} == before
    assert found[0] == found[1]
    assert set(result["supervoxel"]["origin"].to_pylist()) == {method}


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_what_a_unit_makes_is_what_is_stored(done, stage):
    """The parts ledger holds the digest of the unit's own rows and voxels."""
    import pyarrow.parquet as pq

    parts = pq.read_table(done.data(stage.name) / "parts.parquet")
    prepared = prepare.prepare(done, stage)
    assert set(parts["output"].to_pylist()) <= {o.name for o in stage.outputs}
    for o in stage.outputs:
        mine = parts.filter(pa.compute.equal(parts["output"], o.name))
        if getattr(o, "part", "unit") == "unit":
            assert mine["unit"].to_pylist() == prepared.plan.codes.tolist()
        if isinstance(o, Volume):
            continue
        table = pq.read_table(done.data(stage.name) / f"{o.name}.parquet")
        assert table.column_names[0] == "unit"
        assert int(np.sum(mine["rows"].to_numpy())) == table.num_rows
        unit = table["unit"].to_numpy()
        assert (np.diff(unit.astype(np.int64)) >= 0).all()
        for code, digest in zip(mine["unit"].to_pylist()[:5], mine["digest"].to_pylist()[:5], strict=True):
            assert table_digest(table.filter(pa.array(unit == code)).combine_chunks()) == digest


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_a_stage_can_be_sent_to_a_worker(stage):
    assert pickle.loads(pickle.dumps(stage)).name == stage.name


def test_the_tables_meet_their_schema(done):
    """Great Expectations over every table: keys, ranges, foreign keys."""
    from connectome_db.qa.checks import check_tables

    results = check_tables(done.root)
    assert len(results) > 100
    assert [r for r in results if not r.success] == []


def test_every_edge_can_be_traced_to_tiles(done):
    """Every row leads back to raw tiles, with the six facts on the way."""
    from connectome_db.query import lineage
    from connectome_db.query.database import open_database

    with open_database(done.root) as db:
        edges = db.sql("SELECT pre, post FROM connection ORDER BY pre, post").to_pylist()
        synapses = db.sql("SELECT synapse FROM synapse").to_pylist()
        known = {r["sha256"] for r in db.sql("SELECT sha256 FROM tile").to_pylist()}
        for e in edges[:5]:
            trace = lineage.trace_edge(db, e["pre"], e["post"])
            tiles = trace.find("tile")
            assert tiles
            assert {t.facts["sha256"] for t in tiles} <= known
            with open_database(done.root) as once:  # on disk; `db` looks it up in memory from the second question on
                told = [[(d, t.title, t.kind, sorted(t.facts)) for d, t in x.walk()] for x in (
                    trace, lineage.trace_edge(once, e["pre"], e["post"]))]  # fmt: skip
            assert told[0] == told[1]
        for s in synapses[:5]:
            assert lineage.trace_synapse(db, s["synapse"]).find("tile")
    assert edges or synapses
