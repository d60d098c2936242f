"""Lengths of imported skeletons, by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from connectome_db.schema.imported import SKELETON_NODE
from connectome_db.stages.skeletons import lengths

# neuron, node, parent, (z, y, x): a root at 5, two steps of 3 and 4 nm; a second neuron with a parent that is missing
NODES = [
    (7, 5, -1, (0, 0, 0), None), (7, 6, 5, (0, 0, 3), None), (7, 9, 6, (0, 4, 3), None),
    (8, 1, 99, (0, 0, 0), "b"), (8, 2, 1, (2, 0, 0), "b"),
]  # fmt: skip


def table(rows: list[tuple]) -> pa.Table:  # type: ignore[type-arg]
    keys = SKELETON_NODE.arrow().names
    told = [(a, n, p, 0, *place, 1.0, name) for a, n, p, place, name in rows]
    return pa.Table.from_pylist([dict(zip(keys, r, strict=True)) for r in told], schema=SKELETON_NODE.arrow())


def test_cable_is_the_length_of_all_edges() -> None:
    assert lengths(table(NODES)).to_pylist() == [
        {"neuron": 7, "nodes": 3, "cable_nm": pytest.approx(7.0), "name": None},
        {"neuron": 8, "nodes": 2, "cable_nm": pytest.approx(2.0), "name": "b"},
    ]


def test_no_nodes_no_skeletons() -> None:
    assert lengths(table([])).num_rows == 0
