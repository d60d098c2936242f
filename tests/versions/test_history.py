"""What the versions of the small project are, before anything is asked about them."""

from __future__ import annotations

from pathlib import Path

from connectome_db.geometry import Box
from connectome_db.query.database import open_database
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES

CORNER = Box((0, 0, 0), (8, 64, 64))


def test_each_revision_shows_its_own_data(history: Path) -> None:
    v1, v2, v3, now = (open_revision(history, name) for name in ("v1", "v2", "v3", None))
    assert v1.stages == now.stages
    assert len(v1.stages) == len(STAGES)
    assert [r.record("agglomerate")["params"]["threshold"] for r in (v1, v2, v3, now)] == [0.45, 0.45, 0.6, 0.6]
    count = "SELECT count(*) AS n FROM supervoxel"
    numbers = []
    for revision in (v1, v2, v3, now):
        with open_database(revision.root) as db:
            numbers.append(db.fetch(count)[0]["n"])
    assert numbers[0] != numbers[1]
    assert numbers[1:] == [numbers[1]] * 3


def test_voxels_of_a_unit_come_from_the_revision(history: Path) -> None:
    v1, v2, now = (open_revision(history, name) for name in ("v1", "v2", None))
    old, new = (r.read_unit("segment", "supervoxels", CORNER) for r in (v1, v2))
    assert old.shape == CORNER.shape
    assert (old != new).any()
    assert (new == now.read_unit("segment", "supervoxels", CORNER)).all()
    assert (v1.volume("segment", "supervoxels") / "info").is_file()
