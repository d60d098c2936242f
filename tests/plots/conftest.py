"""A tiny imported project with places, types and a skeleton, and the tiny project made from tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.query.database import Database, open_database
from connectome_db.schema.imported import SKELETON_NODE
from tests import tiny_project
from tests.query import tiny_imported

A = tiny_imported.A
NODES = [(A, 1, -1, 0.0, 0.0, 0.0), (A, 2, 1, 0.0, 100.0, 0.0), (A, 3, 2, 40.0, 100.0, 200.0)]
"""neuron, node, parent, z, y, x in nm."""


@pytest.fixture(scope="session")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_imported.write(tmp_path_factory.mktemp("plots") / "tiny")
    (root / "params.yaml").write_text("dataset:\n  name: tiny worm\n")
    names = ("neuron", "node", "parent", "z_nm", "y_nm", "x_nm")
    rows = [{"unit": 0, "kind": 0, "radius_nm": 1.0} | dict(zip(names, r, strict=True)) for r in NODES]
    folder = root / "data" / "skeletons"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SKELETON_NODE.stored()), folder / "skeleton_node.parquet")
    record = (root / "data" / "graph" / "record.json").read_text()
    (folder / "record.json").write_text(record.replace('"graph"', '"skeletons"'))
    return root


@pytest.fixture(scope="session")
def db(listed: Path) -> Iterator[Database]:
    with open_database(listed, timeout_s=60) as opened:
        yield opened


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with open_database(tiny_project.write(tmp_path_factory.mktemp("native")), timeout_s=60) as opened:
        yield opened
