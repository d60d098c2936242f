"""Regions of a project that has run: the units an override holds for are those that run; views of old revisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tensorstore
from typer.testing import CliRunner

from connectome_db import config, prepare, runner
from connectome_db.cli.main import app
from connectome_db.config import RegionSpec
from connectome_db.finish import finish
from connectome_db.geometry import Box
from connectome_db.regional import effect, regions, yamltext
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.viewing import viewer
from connectome_db.viewing.volumeserver import VolumeServer

CORNER = Box((0, 0, 0), (8, 64, 64))


def test_the_units_shown_are_those_that_an_override_makes_run(own_history: Path) -> None:
    p = config.load(own_history, STAGES)
    before = regions.read_text(p.root)
    box = RegionSpec(box_nm=(0, 0, 450, 240, 512, 1200))  # x 56:150 voxels: three blocks of 64
    regions.apply(regions.add(p, "dark", box))
    p = config.load(own_history, STAGES)
    regions.apply(regions.set_values(p, "dark", ["segment.seed_window_nm=60"]))
    p = config.load(own_history, STAGES)
    touched = {stage: (n, of) for stage, n, of in effect.units(p, regions.region(p, "dark").box)}
    assert touched["segment"] == (3, 32)
    assert touched["overlap"][0] > 0
    assert set(touched) == {"render", "mask", "segment", "overlap", "score", "synapses", "measure_volume"}
    (warning,) = effect.conflicts(p)
    assert "set by corner (80) and by dark (60), which share 1 of 32 units: dark comes later" in warning
    prepared, outcome = runner.run_units(p, "segment")
    assert outcome.computed == 3
    finish(prepared, outcome)
    p = config.load(own_history, STAGES)
    regions.apply(regions.remove(p, "dark"))
    assert regions.read_text(p.root) == before
    assert runner.run_units(config.load(own_history, STAGES), "segment")[1].computed == 0


def test_two_regions_in_one_block_conflict_although_their_boxes_do_not_touch(history: Path) -> None:
    p = config.load(history, STAGES)
    text = regions.read_text(history)
    for name, box in (
        ("beside", (0, 0, 70, 1, 8, 80)),
        ("below", (8, 0, 0, 9, 8, 8)),
        ("apart", (0, 63, 63, 1, 65, 65)),
    ):
        text = yamltext.put(text, ("regions", name), {"box_vx": list(box)}, "params.yaml")
        text = yamltext.put(text, ("overrides", "segment", name, "seed_window_nm"), 50, "params.yaml")
    p = config.load(history, STAGES, text)
    found = effect.conflicts(p)
    # `apart` reaches by a voxel into all four blocks around (64, 64): it meets `corner` in one and `beside` in another.
    assert [f.split(": ")[0].partition("which ")[2] for f in found] == ["share 1 of 32 units"] * 2
    assert [" and by apart (50)" in f for f in found] == [True, True]
    prepared = prepare.prepare(p, p.stage("segment"))
    assert prepared.params(0).model_dump()["seed_window_nm"] == 50


def test_show_says_box_volume_note_overrides_and_units(history: Path) -> None:
    done = CliRunner().invoke(app, ["regions", "show", "corner", "-C", str(history)])
    assert done.exit_code == 0, done.output
    for text in (
        "corner  weak osmium",
        "z 0:8, y 0:64, x 0:64  (8 x 64 x 64 = 32,768 voxels)",
        "z 0:240, y 0:512, x 0:512  (0.06291 µm³)",
        "segment.seed_window_nm = 80; 40.0 elsewhere",
        "segment      touches 1 of 32 units",
        "synapses     touches 1 of 32 units",
    ):
        assert text in done.output, text


def test_a_view_of_an_old_revision_serves_its_voxels_objects_and_regions(history: Path) -> None:
    p = config.load(history, STAGES)
    seen = {}
    for rev in ("v1", "v2", None):
        view = viewer.open_view(p, rev)
        assert set(view.regions) == (set() if rev == "v1" else {"corner"})
        with VolumeServer(view.folders) as server:
            store = {"driver": "http", "base_url": server.url, "path": "/supervoxels/"}
            spec = {"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": 0}
            volume = tensorstore.open(spec, read=True, open=True).result()
            seen[rev] = volume[0:64, 0:64, 0:8, 0].T.read().result()
        truth = open_revision(history, rev).read_unit("segment", "supervoxels", CORNER)
        np.testing.assert_array_equal(seen[rev], truth)
    assert (seen["v1"] != seen["v2"]).any()
    assert (seen["v2"] == seen[None]).all()


def test_objects_are_looked_up_in_the_revision_asked_for(history: Path) -> None:
    p = config.load(history, STAGES)
    members: dict[str, dict[int, list[int]]] = {}
    for rev in ("v1", "v3"):
        table = pq.read_table(open_revision(history, rev).root / "data" / "agglomerate" / "member.parquet")
        members[rev] = {}
        for row in table.to_pylist():
            members[rev].setdefault(row["object"], []).append(row["supervoxel"])
        members[rev] = {o: sorted(found) for o, found in members[rev].items()}
    changed = [o for o in members["v1"].keys() & members["v3"].keys() if members["v1"][o] != members["v3"][o]]
    assert changed
    for rev, of in members.items():
        assert viewer.open_view(p, rev, objects=changed).objects == {o: of[o] for o in changed}
