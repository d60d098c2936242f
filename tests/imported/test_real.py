"""Published connectomes, each by one obvious command: counts are those of a few lines of pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from connectome_db import importing
from connectome_db.errors import SourceError
from connectome_db.finish import finish
from connectome_db.lists import read
from connectome_db.lists.mapping import Given
from connectome_db.query.database import open_database
from connectome_db.query.lineage import trace_edge
from connectome_db.runner import run_units

pytestmark = pytest.mark.shared


@dataclass(frozen=True)
class Published:
    """A file, what has to be said of it, and which of its columns pandas counts."""

    file: str
    pre: str
    post: str
    said: Mapping[str, Any] = field(default_factory=dict)
    weight: str | None = None


FILES = {
    "larva": Published("larva_winding_edges.parquet", "pre", "post", {}, "weight"),
    "worm": Published("celegans_witvliet_D1-6_synapses.parquet", "pre", "post", {"where": {"dataset": "Dataset5"}}),
    "cook": Published(
        "celegans_cook2019_herm_edgelist.csv", "Source", "Target", {"where": {"Type": "chemical"}}, "Weight"
    ),
    "kasthuri": Published(
        "kasthuri_synapses_dev.parquet", "axon_no", "dendrite_no",
        {"position": {"x": "col", "y": "row", "z": "section"}, "unit": "vx", "voxel_nm": (30.0, 6.0, 6.0)},
    ),
    "microns": Published("microns_minnie_synapse_sample.parquet", "pre_pt_root_id", "post_pt_root_id", {"unit": "um"}),
    "cerebellum": Published("cerebellum_grc_pc_synapses.parquet", "pre", "post"),
}  # fmt: skip


def _pandas(path: Path, p: Published) -> pd.DataFrame:
    """pre, post (as text) and synapses, counted by pandas."""
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    for column, value in p.said.get("where", {}).items():
        frame = frame[frame[column] == value]
    frame = pd.DataFrame({
        "pre": frame[p.pre].astype(str).str.strip(), "post": frame[p.post].astype(str).str.strip(),
        "synapses": frame[p.weight] if p.weight else 1,
    })  # fmt: skip
    return frame.groupby(["pre", "post"], as_index=False)["synapses"].sum()


@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_of_pandas(shared_data: Path, tmp_path: Path, name: str) -> None:
    p = FILES[name]
    path = shared_data / "graph" / p.file
    chosen = importing.choose(path, tmp_path, Given(**p.said))
    assert chosen.synapses
    blocks = [rows for rows, _ in read.batches(chosen.synapses.synapses, tmp_path)]
    frames = [
        pd.DataFrame({
            side: [n or str(i) for n, i in zip(b[f"{side}_name"].to_pylist(), b[side].to_pylist(), strict=True)]
            for side in ("pre", "post")
        } | {"synapses": b["synapses"].to_pylist()})
        for b in blocks
    ]  # fmt: skip
    found = pd.concat(frames).groupby(["pre", "post"], as_index=False)["synapses"].sum()
    pd.testing.assert_frame_equal(found, _pandas(path, p), check_dtype=False)


def test_places_of_microns_are_micrometres(shared_data: Path, tmp_path: Path) -> None:
    """In nm they are whole multiples of the voxels of its images, 4 x 4 x 40 nm: so `um` is what the sample is in."""
    path = shared_data / "graph" / FILES["microns"].file
    with pytest.raises(SourceError, match="the unit of the places is not said"):
        list(read.batches(importing.choose(path, tmp_path, Given()).synapses.synapses, tmp_path))  # type: ignore[union-attr]
    spec = importing.choose(path, tmp_path, Given(unit="um")).synapses
    assert spec
    ((rows, _),) = read.batches(spec.synapses, tmp_path)
    for axis, nm in {"z": 40, "y": 4, "x": 4}.items():
        voxels = rows[f"{axis}_vx"].to_numpy() / nm
        assert np.abs(voxels - np.round(voxels)).max() < 1e-6


def test_the_larva_with_its_neurons(shared_data: Path, tmp_path: Path) -> None:
    graph = shared_data / "graph"
    given = Given(licence="MIT", citation="Winding et al. 2023")
    beside = [graph / "larva_winding_nodes.parquet"]
    root = tmp_path / "larva"
    chosen = importing.choose(graph / "larva_winding_edges.parquet", root, given, annotated_by=beside)
    # 37 of the 3,591 neurons that the table of neurons has are in no connection of this list.
    assert importing.validate(root, chosen).counts == {
        "neurons with connections": 3554, "connections": 119010, "synapses": 376091, "annotated neurons": 3591,
        "annotated neurons without connections": 37, "neurons with connections and no annotation": 0,
    }  # fmt: skip
    project = importing.take(root, chosen, name="larva")
    for stage in project.stages:
        finish(*run_units(project, stage.name))
    nodes, edges = pd.read_parquet(beside[0]), pd.read_parquet(graph / "larva_winding_edges.parquet")
    with open_database(root) as db:
        (row,) = db.fetch("SELECT count(*) AS n, sum(synapses)::BIGINT AS s FROM connection")
        assert (row["n"], row["s"]) == (len(edges), edges["weight"].sum())
        assert db.fetch("SELECT count(*) AS n FROM neuron")[0]["n"] == len(nodes)
        sides = db.fetch("SELECT value, count(*) AS n FROM annotation WHERE kind = 'hemisphere' GROUP BY value")
        assert {r["value"]: r["n"] for r in sides} == nodes["hemisphere"].value_counts().to_dict()
        first = edges.iloc[0]
        trace = trace_edge(db, int(first["pre"]), int(first["post"]))
    (file,) = trace.find("file")
    assert (file.facts["licence"], file.facts["citation"], file.facts["source"]) == (
        "MIT", "Winding et al. 2023", "unknown",
    )  # fmt: skip
    assert [int(t.facts["row"]) for t in trace.find("row")] == [1]
