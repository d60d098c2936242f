"""Which causes an object has: on a column of supervoxels, where every merge can be followed by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from connectome_db.query.compare.causes import Attribution, attribute
from connectome_db.revisions import Revision
from connectome_db.versions.compare.evidence import find_evidence
from connectome_db.versions.compare.objects import Objects, compare_objects
from connectome_db.versions.identity.history import object_history
from tests.versions.bodies import column, overlap_of

# Supervoxels 1 2 3 hang together by contacts 1 and 2, and 4 5 6 by contacts 4 and 5; 3 and 4 do not touch.
GOOD = {1: 0.9, 2: 0.9, 4: 0.9, 5: 0.9}
THRESHOLD = "agglomerate.threshold"
Told = dict[tuple[int, ...], tuple[set[str], bool]]


def told(
    tmp_path: Path,
    old: dict[int, float],
    new: dict[int, float],
    thresholds: tuple[float, float] = (0.5, 0.5),
    *,
    known_code: bool = True,
    named: dict[int, int] | None = None,
) -> Told:
    """By the objects of each group that differs: its causes, and whether they are certain.

    A contact k that differs lies in block k + 1, which gets a region of its own; so does a supervoxel that is `named`.
    """
    weakened = [*(k + 1 for k in old if old[k] != new[k]), *(named or ())]
    a = column(tmp_path / "a", old, thresholds[0], known_code=known_code)
    b = column(tmp_path / "b", new, thresholds[1], weakened=weakened, known_code=known_code, named=named)
    why = attribute(a.root, b.root)
    found = compared(a, b, why, named).table.to_pylist()
    names = [c.region or f"{c.stage}.{c.name}" for c in why.sets.causes]
    assert set(names) == {f"around {k}" for k in weakened} | ({THRESHOLD} if len(set(thresholds)) > 1 else set())
    assert not any(r["indirect"] for r in found)
    return {
        tuple(sorted({*r["objects_a"], *r["objects_b"]})): ({names[c] for c in r["causes"]}, r["certain"])
        for r in found
    }


def compared(a: Revision, b: Revision, why: Attribution, named: dict[int, int] | None = None) -> Objects:
    overlap = overlap_of(named)
    return compare_objects(a, b, object_history(a, b, overlap), find_evidence(a, b, overlap, why), why)


def test_of_objects_that_merge_one_is_carried_on_and_of_parts_one_carries_on(tmp_path: Path) -> None:
    apart = column(tmp_path / "a", {1: 0.9, 3: 0.9, 4: 0.9, 5: 0.9}, 0.5)  # 1 2 and 3 4 5 6
    whole = column(tmp_path / "b", GOOD | {2: 0.9, 3: 0.9}, 0.5, weakened=[3])
    ids = np.asarray([1, 3], np.uint64)
    merged = compared(apart, whole, attribute(apart.root, whole.root))
    assert merged.carried_on(ids).tolist() == [0, 1]  # the larger part is what the whole was
    split = compared(whole, apart, attribute(whole.root, apart.root))
    assert split.carried_on(ids[:1]).tolist() == [3]


@pytest.mark.parametrize(("before", "after", "kind"), [(0.9, 0.2, "split"), (0.2, 0.9, "merged")])
def test_a_contact_that_differs_is_the_cause_for_the_objects_at_it(
    tmp_path: Path, before: float, after: float, kind: str
) -> None:
    assert told(tmp_path, GOOD | {2: before}, GOOD | {2: after}) == {(1, 3): ({"around 3"}, True)}, kind


def test_a_threshold_is_the_cause_where_evidence_is_the_same(tmp_path: Path) -> None:
    weak = GOOD | {2: 0.55}
    assert told(tmp_path, weak, weak, (0.5, 0.6)) == {(1, 3): ({THRESHOLD}, True)}


def test_evidence_that_differs_without_effect_is_no_cause(tmp_path: Path) -> None:
    old = GOOD | {1: 0.55}
    assert told(tmp_path, old, old | {2: 0.8}, (0.5, 0.6)) == {(1, 2): ({THRESHOLD}, True)}


def test_a_threshold_without_effect_is_no_cause(tmp_path: Path) -> None:
    assert told(tmp_path, GOOD, GOOD | {2: 0.1}, (0.5, 0.6)) == {(1, 3): ({"around 3"}, True)}


def test_each_object_has_its_own_cause(tmp_path: Path) -> None:
    old = GOOD | {5: 0.55}
    assert told(tmp_path, old, old | {2: 0.1}, (0.5, 0.6)) == {
        (1, 3): ({"around 3"}, True),
        (4, 6): ({THRESHOLD}, True),
    }


def test_where_both_were_needed_both_are_the_cause(tmp_path: Path) -> None:
    assert told(tmp_path, GOOD | {2: 0.58}, GOOD | {2: 0.52}, (0.5, 0.55)) == {(1, 3): ({"around 3", THRESHOLD}, True)}


def test_where_either_would_have_done_it_is_not_certain(tmp_path: Path) -> None:
    assert told(tmp_path, GOOD | {2: 0.58}, GOOD | {2: 0.3}, (0.5, 0.7)) == {(1, 3): ({"around 3", THRESHOLD}, False)}


def test_what_cannot_be_tried_is_not_certain(tmp_path: Path) -> None:
    found = told(tmp_path, GOOD, GOOD | {2: 0.1}, (0.5, 0.6), known_code=False)
    assert found == {(1, 3): ({"around 3", THRESHOLD}, False)}


def test_a_new_name_is_not_the_work_of_the_threshold(tmp_path: Path) -> None:
    old = GOOD | {5: 0.55}
    assert told(tmp_path, old, old, (0.5, 0.6), named={1: 101}) == {
        (1, 2): ({"around 1"}, True),  # the object of 1 2 3 was called 1, and is now called 2
        (4, 6): ({THRESHOLD}, True),
    }
