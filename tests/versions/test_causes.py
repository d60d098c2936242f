"""Why units differ: on ledgers made by hand, where every cause can be seen, and on the small project by another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from connectome_db import ids
from connectome_db.query.compare.causes import Attribution, attribute, cause_table, unit_changes
from connectome_db.query.compare.causesets import NOTHING, Cause, CauseSets
from connectome_db.revisions import open_revision
from tests.versions.ledgers import code, walk, write

CORNER = {"region": "corner", "box_vx": [0, 0, 0, 2, 8, 8], "params": {"sigma": 3.0}}


def told(found: Attribution) -> dict[str, set[str]]:
    """Causes in words by "stage:unit"; units that are the same are left out."""
    words = [c.text for c in found.sets.causes]
    rows = unit_changes(found).to_pylist()
    return {f"{r['stage']}:{ids.position_of(r['unit'])[0]}": {words[c] for c in r["causes"]} for r in rows}


def versions(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> Attribution:
    return attribute(write(tmp_path / "a", **old), write(tmp_path / "b", **new))


def test_equal_versions_have_no_causes(tmp_path: Path) -> None:
    found = versions(tmp_path, {}, {})
    assert told(found) == {}
    assert found.sets.causes == []


def test_a_replaced_tile_is_the_cause_of_all_that_saw_it_and_of_nothing_else(tmp_path: Path) -> None:
    found = versions(tmp_path, {}, {"anew": "ingest:3 blur:1 count:0", "tiles": {"3/a": "other pixels"}})
    (cause,) = {c for causes in told(found).values() for c in causes}
    assert cause == "section 3, tile 3/a: sha256 pixels 3a → sha256 other pixels (replaced)"
    assert told(found).keys() == {"ingest:3", "blur:1", "count:0"}


def test_a_unit_made_anew_with_equal_content_passes_nothing_on(tmp_path: Path) -> None:
    # count is made anew for a reason of its own, and must not blame the tile
    found = versions(
        tmp_path,
        {},
        {"anew": "ingest:3 blur:1~ count:0", "tiles": {"3/a": "x"}, "records": {"count": {"code_digest": "d" * 64}}},
    )
    assert told(found)["count:0"] == {"code of count: cccccccccccc → dddddddddddd"}
    assert [r["what"] for r in unit_changes(found).to_pylist()] == ["changed", "recomputed, same content", "changed"]


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        ({"3/c": "new"}, "section 3, tile 3/c (added)"),
        ({"3/b": None}, "section 3, tile 3/b (removed)"),
    ],
)
def test_tiles_that_come_and_go(tmp_path: Path, tiles: dict[str, str | None], says: str) -> None:
    found = versions(tmp_path, {}, {"anew": "ingest:3 blur:1 count:0", "tiles": tiles})
    assert told(found) == {unit: {says} for unit in ("ingest:3", "blur:1", "count:0")}


def test_a_new_section_is_one_cause_and_reaches_the_block_that_grew(tmp_path: Path) -> None:
    found = versions(tmp_path, {"sections": 3}, {"sections": 4, "anew": "blur:1 count:0"})
    says = {"section 3 (section added, 2 tiles)"}
    assert told(found) == {"ingest:3": says, "blur:1": says, "count:0": says}
    assert unit_changes(found).to_pylist()[0]["what"] == "added"
    back = attribute(tmp_path / "b", tmp_path / "a")
    assert told(back)["ingest:3"] == {"section 3 (section removed, 2 tiles)"}


def test_a_parameter_of_a_region_is_the_cause_only_there(tmp_path: Path) -> None:
    found = versions(tmp_path, {}, {"anew": "blur:0 count:0", "records": {"blur": {"overrides": [CORNER]}}})
    says = {"region corner: blur.sigma: 2.0 → 3.0 (added)"}
    assert told(found) == {"blur:0": says, "count:0": says}
    assert cause_table(found).to_pylist()[0]["boxes_vx"] == [[0, 0, 0, 2, 8, 8]]
    assert cause_table(found).to_pylist()[0]["units_own"] == 1
    back = attribute(tmp_path / "b", tmp_path / "a")
    assert told(back)["blur:0"] == {"region corner: blur.sigma: 3.0 → 2.0 (removed)"}


@pytest.mark.parametrize(
    ("change", "units", "says"),
    [
        ({"params": {"sigma": 4.0}}, "blur:0", "region corner: blur.sigma: 3.0 → 4.0"),
        ({"box_vx": [2, 0, 0, 4, 8, 8]}, "blur:0 blur:1", "region corner: blur.sigma (region moved, 3.0 inside)"),
        ({"region": "edge"}, None, None),
    ],
)
def test_a_region_that_changes(tmp_path: Path, change: dict[str, Any], units: str | None, says: str | None) -> None:
    old, new = ({"records": {"blur": {"overrides": [o]}}} for o in (CORNER, CORNER | change))
    found = versions(tmp_path, old, new | {"anew": units or ""})
    assert told(found) == {unit: {says} for unit in (units or "").split()}


def test_where_regions_overlap_the_later_one_is_the_cause(tmp_path: Path) -> None:
    edge = {"region": "edge", "box_vx": [0, 0, 0, 4, 8, 8], "params": {"sigma": 5.0}}
    old, new = {"records": {"blur": {"overrides": [CORNER]}}}, {"records": {"blur": {"overrides": [CORNER, edge]}}}
    found = versions(tmp_path, old, new | {"anew": "blur:0 blur:1"})
    assert told(found) == {
        "blur:0": {"region edge: blur.sigma: 3.0 → 5.0 (added)"},
        "blur:1": {"region edge: blur.sigma: 2.0 → 5.0 (added)"},
    }
    swapped = write(tmp_path / "c", "blur:1", records={"blur": {"overrides": [edge, CORNER]}})
    assert told(attribute(tmp_path / "b", swapped)) == {
        "blur:0": {"region corner: blur.sigma: 5.0 → 3.0 (order of overrides)"}
    }


def test_a_parameter_that_the_region_sets_is_not_the_cause_inside_it(tmp_path: Path) -> None:
    records = {"overrides": [CORNER]}
    found = versions(
        tmp_path,
        {"records": {"blur": records}},
        {"anew": "blur:1 count:0", "records": {"blur": records | {"params": {"sigma": 9.0}}}},
    )
    assert told(found) == {"blur:1": {"blur.sigma: 2.0 → 9.0"}, "count:0": {"blur.sigma: 2.0 → 9.0"}}


def test_models_by_region_and_a_name_that_means_the_same_weights(tmp_path: Path) -> None:
    mine = {"region": "corner", "box_vx": [0, 0, 0, 2, 8, 8], "params": {"model": "mine"}}
    params = {"sigma": 2.0, "model": "old"}
    old = {"models": {0: "old@111", 1: "old@111"}, "records": {"blur": {"params": params}}}
    new = {"models": {0: "mine@222", 1: "copy@111"}, "records": {"blur": {"params": params, "overrides": [mine]}}}
    found = versions(tmp_path, old, new | {"anew": "blur:0"})
    assert told(found) == {"blur:0": {"region corner: model of blur: old@111 → mine@222 (added)"}}
    again = {"models": {0: "old@333", 1: "old@333"}, "records": {"blur": {"params": params}}}
    found = attribute(tmp_path / "a", write(tmp_path / "c", "blur:0 blur:1", **again))
    assert told(found) == {unit: {"model of blur: old@111 → old@333"} for unit in ("blur:0", "blur:1")}


def test_what_holds_for_a_whole_stage(tmp_path: Path) -> None:
    # the code brought the parameter `new`, which is no cause of its own
    other = {"format": 2, "voxel_nm": [40.0, 8.0, 8.0], "code_digest": "d" * 64, "params": {"sigma": 2.0, "new": 1}}
    found = versions(tmp_path, {}, {"anew": "blur:0~ blur:1~", "records": {"blur": other}})
    says = {
        "format of keys: 1 → 2",
        "voxel size: [30.0, 8.0, 8.0] → [40.0, 8.0, 8.0] (z, y, x in nm)",
        "code of blur: cccccccccccc → dddddddddddd",
    }
    assert told(found) == {"blur:0": says, "blur:1": says}


def test_other_content_under_the_same_key_is_said_and_passed_on(tmp_path: Path) -> None:
    found = versions(tmp_path, {}, {"anew": "blur:1! count:0"})
    says = {"blur gave other content under the same key"}
    assert told(found) == {"blur:1": says, "count:0": says}


def test_what_nothing_explains_is_not_explained(tmp_path: Path) -> None:
    found = versions(tmp_path, {}, {"anew": "blur:1"})
    assert told(found) == {"blur:1": {"blur: nothing recorded explains it"}}


def test_a_stage_that_only_one_version_has(tmp_path: Path) -> None:
    found = versions(tmp_path, {"stages": ("ingest", "blur")}, {})
    assert told(found) == {"count:0": {"stage count (not run in A)"}}


def test_an_imported_list_is_the_cause_by_name_and_digest(tmp_path: Path) -> None:
    old, new = ({"source": {"file": "lists/edges.csv", "sha256": s * 64}} for s in "12")
    records = [{"ingest": {"inputs": {"raw.synapses": s}} | f} for s, f in (("1", old), ("2", new))]
    found = versions(
        tmp_path, {"records": records[0]}, {"records": records[1], "anew": "ingest:0 ingest:1 ingest:2 ingest:3"}
    )
    says = {"source edges.csv: sha256 111111111111 → sha256 222222222222"}
    assert told(found) == {f"ingest:{z}": says for z in range(4)}


def test_a_thousand_causes_stay_apart(tmp_path: Path) -> None:
    sets = CauseSets()
    alone = np.asarray([sets.of([Cause("tile", "", str(k))]) for k in range(1000)])
    rows = np.arange(1000) // 10
    tens = sets.gather(rows, alone, 101)
    assert [sets.ids(k) for k in tens[:100].tolist()] == [tuple(range(10 * k, 10 * k + 10)) for k in range(100)]
    assert tens[100] == NOTHING
    assert sets.ids(sets.union_all(tens)) == tuple(range(1000))
    again = sets.gather(np.tile(rows, 2), np.tile(alone, 2), 101)
    assert (again == tens).all()
    assert sets.lists(tens[:2]).to_pylist() == [list(range(10)), list(range(10, 20))]


# The small project, by a plain walk ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [("v1", "v2"), ("v2", "v3"), ("v1", "v3"), ("v3", "v1")])
def test_the_small_project_by_a_plain_walk(history: Path, old: str, new: str) -> None:
    a, b = (open_revision(history, name) for name in (old, new))
    inside = [
        u["unit"]
        for u in pq.read_table(a.root / "data" / "segment" / "units.parquet").to_pylist()
        if u["core_z0"] < 8 and u["core_y0"] < 64 and u["core_x0"] < 64
    ]
    assert len(inside) == 1
    own: dict[tuple[str, int], set[str]] = {}
    if "v1" in (old, new):
        own["segment", inside[0]] = {"corner"}
    if "v3" in (old, new):
        own["agglomerate", code(0)] = {"threshold"}
    truth = walk(a.root, b.root, own)
    found = attribute(a.root, b.root)
    short = [c.region or c.name for c in found.sets.causes]
    assert set(short) == set().union(*own.values())
    rows = unit_changes(found).to_pylist()
    assert {(r["stage"], r["unit"]): {short[c] for c in r["causes"]} for r in rows} == truth
    assert len(truth) > 1
