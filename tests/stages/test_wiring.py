"""synapses -> graph over several blocks, against what was painted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.schema.segmentation import MEMBER, OBJECT
from connectome_db.spec import Extent
from connectome_db.stages import graph as graph_stage
from connectome_db.stages import synapses as synapses_stage
from tests.stages.memory import Memory
from tests.stages.truth_network import TruthCleft

NM = (30.0, 8.0, 8.0)
SHAPE = (24, 96, 160)
AT = ((4, 20, 30), (6, 60, 64), (18, 48, 66), (12, 80, 130))
"""Centres (z, y, x) of the painted synapses; the second and third lie on a block face at x = 64."""


def painted() -> tuple[np.ndarray, np.ndarray]:
    """Image for `TruthCleft` and supervoxels: bodies are layers of 16 rows, cut every 40 columns."""
    y, x = np.indices(SHAPE)[1:]
    labels = (1 + (y // 16) * 10 + x // 40).astype(np.uint64)
    image = np.zeros(SHAPE, np.uint8)
    for cz, cy, cx in AT:
        face = cy // 16 * 16  # the border between two bodies
        z, x = slice(cz - 2, cz + 3), slice(cx - 8, cx + 9)
        image[z, face - 6 : face - 1, x] = 50
        image[z, face - 1 : face + 1, x] = 100
        image[z, face + 1 : face + 6, x] = 150
    return image, labels


def run(block_vx: tuple[int, int, int] = (12, 48, 64), **changed: float) -> Memory:
    image, labels = painted()
    volumes = {
        "render.image": image,
        "segment.supervoxels": labels,
        "mask.mask": np.zeros(SHAPE, np.uint8),
    }
    memory = Memory(NM, volumes, Box((0, 0, 0), SHAPE))
    params = synapses_stage.SynapsesParams(
        block_vx=block_vx, halo_nm=150, **{"low": 0.4, "high": 0.7, "min_volume_nm3": 1e5, **changed}
    )
    memory.run(synapses_stage.STAGE, params, TruthCleft())
    return memory


def test_each_synapse_is_found_once_with_its_sides() -> None:
    memory = run()
    assert memory.units["synapses"] == 2 * 2 * 3
    rows = memory.tables["synapses.synapse"].sort_by([("z_vx", "ascending"), ("x_vx", "ascending")]).to_pylist()
    _, labels = painted()
    assert len(rows) == len(AT)
    for row, (cz, cy, cx) in zip(rows, sorted(AT), strict=True):
        face = cy // 16 * 16
        assert (row["z_vx"], row["y_vx"], row["x_vx"]) == pytest.approx((cz, face - 0.5, cx))
        assert row["size_vx"] == 5 * 2 * 17
        assert row["confidence"] == pytest.approx(0.9, abs=0.005)
        assert row["polarity"] == pytest.approx(1.0)
        for side, layer in (("pre", face // 16 - 1), ("post", face // 16)):
            where = tuple(int(row[f"{side}_{axis}_vx"]) for axis in "zyx")
            assert labels[where] == row[f"{side}_supervoxel"]
            assert (row[f"{side}_supervoxel"] - 1) // 10 == layer


def test_the_grid_does_not_change_what_is_found() -> None:
    drop = ["unit", "synapse"]
    order = [("z_vx", "ascending"), ("x_vx", "ascending")]
    small, large = (run(b).tables["synapses.synapse"].drop_columns(drop).sort_by(order) for b in ((8, 32, 40), SHAPE))
    assert small.equals(large)


def test_specks_and_weak_clefts_are_dropped() -> None:
    assert len(run(min_volume_nm3=1e6).tables["synapses.synapse"]) == 0
    assert len(run(high=0.95).tables["synapses.synapse"]) == 0


def bound(memory: Memory, groups: dict[int, int], **changed: float) -> Memory:
    """`graph` after an agglomeration that maps supervoxels to objects by `groups`, others to themselves."""
    atoms = np.unique(memory.volumes["segment.supervoxels"])
    target = np.asarray([groups.get(int(a), int(a)) for a in atoms], np.uint64)
    member = pa.table({"supervoxel": atoms, "fragment": atoms, "object": target}, schema=MEMBER.arrow())
    names, count = np.unique(target, return_counts=True)
    columns = {c.name: np.zeros(len(names)) for c in OBJECT.columns}
    columns |= {"object": names, "supervoxels": count, "volume_nm3": names * 1e6, "weakest_merge": 1 / names}
    schema = OBJECT.arrow()
    objects = pa.table([pa.array(columns[f.name]).cast(f.type) for f in schema], schema=schema)
    unit = pa.field("unit", pa.uint64(), nullable=False)
    for name, table in (("member", member), ("object", objects)):
        memory.tables[f"agglomerate.{name}"] = table.add_column(0, unit, pa.array(np.zeros(len(table), np.uint64)))
        memory.extents[f"agglomerate.{name}"] = Extent(np.zeros(1, np.uint64), np.asarray([[0, 0, 0, *SHAPE]]))
    memory.run(graph_stage.STAGE, graph_stage.GraphParams(min_volume_nm3=6e7, **changed))
    return memory


def bodies() -> dict[int, int]:
    """Every layer of 16 rows is one body, named 1, 11, 21 ..."""
    return {1 + 10 * layer + k: 1 + 10 * layer for layer in range(6) for k in range(4)}


def test_synapses_become_connections() -> None:
    memory = bound(run(), bodies())
    edges = memory.tables["graph.connection"].to_pylist()
    assert [(e["pre"], e["post"], e["synapses"]) for e in edges] == [(1, 11, 1), (21, 31, 2), (41, 51, 1)]
    assert [e["size_vx"] for e in edges] == [170, 340, 170]
    assert edges[1]["weakest_merge"] == pytest.approx(1 / 31)
    neurons = {n["neuron"]: n for n in memory.tables["graph.neuron"].to_pylist()}
    assert (neurons[21]["synapses_out"], neurons[21]["partners_out"], neurons[21]["synapses_in"]) == (2, 1, 0)
    assert (neurons[31]["synapses_in"], neurons[31]["partners_in"]) == (2, 1)
    assert set(memory.tables["graph.link"]["reason"].to_pylist()) == {"counted"}


def test_large_objects_are_neurons_without_synapses() -> None:
    groups = {**bodies(), 52: 52}
    assert 52 not in bound(run(), groups).tables["graph.neuron"]["neuron"].to_pylist()
    groups = {**bodies(), 51: 61, 52: 61, 53: 61, 54: 61}
    assert 61 in bound(run(), groups).tables["graph.neuron"]["neuron"].to_pylist()


def test_autapses_and_duplicates_are_named_and_not_counted() -> None:
    merged = {a: 1 if o == 11 else o for a, o in bodies().items()}
    memory = bound(run(), merged, duplicate_nm=500.0)
    links = memory.tables["graph.link"].to_pylist()
    assert sorted(link["reason"] for link in links) == ["autapse", "counted", "counted", "duplicate"]
    kept = {link["synapse"] for link in links if link["counted"]}
    assert all(link["duplicate_of"] in kept for link in links if link["reason"] == "duplicate")
    assert all(link["duplicate_of"] is None for link in links if link["reason"] != "duplicate")
    assert len(memory.tables["graph.connection"]) == 2
    neurons = set(memory.tables["graph.neuron"]["neuron"].to_pylist())
    assert {link["pre"] for link in links} | {link["post"] for link in links} <= neurons


def test_weak_synapses_are_listed_and_not_counted() -> None:
    memory = bound(run(), bodies(), min_confidence=0.95)
    assert set(memory.tables["graph.link"]["reason"].to_pylist()) == {"low confidence"}
    assert len(memory.tables["graph.connection"]) == 0


def test_a_volume_without_synapses() -> None:
    memory = bound(run(high=0.95), bodies())
    assert len(memory.tables["graph.link"]) == len(memory.tables["graph.connection"]) == 0


def test_a_synapse_on_an_unknown_supervoxel_is_an_error() -> None:
    memory = run()
    memory.volumes["segment.supervoxels"] = np.ones(SHAPE, np.uint64)
    with pytest.raises(StageError, match="no object has"):
        bound(memory, {})


def test_a_model_for_another_task_is_refused() -> None:
    with pytest.raises(StageError, match="'cleft'"):
        synapses_stage.evidence(
            TruthCleft(channels=("aff_z1",)), np.zeros((2, 8, 8), np.uint8), Box((0, 0, 0), (2, 8, 8))
        )
