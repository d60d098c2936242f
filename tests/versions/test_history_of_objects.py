"""What became of supervoxels and objects, against counts over whole volumes and rules written out one by one."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_db.errors import RevisionError
from connectome_db.geometry import Box, Vec3, box_of, hull
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.identity.history import CLOSE, COUNTS_FRACTION, COUNTS_VX, Sizes, object_history, relate
from connectome_db.versions.identity.overlaps import count_overlap, pairs_of, supervoxel_overlap
from tests.versions.labelled import counted, revision_of, rows_of, voxels_of

CORNER = Box((0, 0, 0), (8, 64, 64))


def bounds_of(revision: Revision) -> Box:
    return box_of(revision.record("segment")["bounds"])


def object_voxels(revision: Revision) -> np.ndarray:
    """The volume with objects in place of supervoxels."""
    member = pq.read_table(revision.root / "data" / "agglomerate" / "member.parquet")
    body = dict(zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True)) | {0: 0}
    voxels = voxels_of(revision, bounds_of(revision))
    found, where = np.unique(voxels, return_inverse=True)
    return np.asarray([body[v] for v in found.tolist()], np.uint64)[where].reshape(voxels.shape)


@pytest.mark.parametrize("names", [("v1", "v2"), ("v2", "v1"), ("v2", "v3"), ("v1", None), ("v1", "v1")], ids=str)
def test_overlaps_are_what_counting_the_whole_volumes_gives(history: Path, names: tuple[str, str | None]) -> None:
    a, b = (open_revision(history, n) for n in names)
    whole = counted(*(voxels_of(r, bounds_of(r)) for r in (a, b)))
    assert rows_of(count_overlap(a, b)) == whole


@pytest.mark.parametrize("names", [("v1", "v2"), ("v2", "v3"), ("v3", "v1")], ids=str)
def test_objects_are_related_as_their_voxels_say(history: Path, names: tuple[str, str]) -> None:
    a, b = (open_revision(history, n) for n in names)
    table = object_history(a, b, count_overlap(a, b))
    whole = [r for r in counted(object_voxels(a), object_voxels(b)) if r[0] and r[1]]
    found = table.filter(pa.compute.greater(table["overlap_vx"], 0))
    seen = zip(*(found[c].to_pylist() for c in ("object_a", "object_b", "overlap_vx")), strict=True)
    assert sorted(seen) == whole
    sizes = {i: n for r, side in ((a, "a"), (b, "b")) for i, n in object_sizes(r, side).items()}
    for row in table.to_pylist():
        for side in "ab":
            if row[f"object_{side}"] is not None:
                size = sizes[side, row[f"object_{side}"]]
                assert row[f"size_{side}_vx"] == size
                assert row[f"fraction_{side}"] == row["overlap_vx"] / size


def object_sizes(revision: Revision, side: str) -> dict[tuple[str, int], int]:
    found, size = np.unique(object_voxels(revision), return_counts=True)
    return {(side, i): n for i, n in zip(found.tolist(), size.tolist(), strict=True)}


def test_only_changed_blocks_are_read(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    plain = Revision.read_unit
    monkeypatch.setattr(Revision, "read_unit", lambda *a: (read.append((a[0].name, a[3])), plain(*a))[1])
    count_overlap(open_revision(history, "v1"), open_revision(history, "v2"))
    assert sorted(read) == [("v1", CORNER), ("v2", CORNER)]
    read.clear()
    count_overlap(open_revision(history, "v2"), open_revision(history, "v3"))
    assert read == []


def test_an_object_that_does_not_change_keeps_its_id(history: Path) -> None:
    a, b = open_revision(history, "v1"), open_revision(history, "v2")
    old, new = object_voxels(a), object_voxels(b)
    inside = np.zeros(old.shape, bool)
    inside[CORNER.slices(bounds_of(a).lo)] = True
    away = np.setdiff1d(np.unique(old), np.unique(old[inside]))
    assert len(away) > 10
    for one in away:
        assert ((old == one) == (new == one)).all(), "an object that the corner does not touch has changed"
    table = object_history(a, b, count_overlap(a, b))
    relation = dict(zip(table["object_a"].to_pylist(), table["relation"].to_pylist(), strict=True))
    assert {relation[int(one)] for one in away} == {"same"}
    assert a.record("segment")["outputs"] != b.record("segment")["outputs"]


def test_what_was_counted_is_kept_and_a_damaged_table_is_counted_anew(own_history: Path) -> None:
    shutil.rmtree(own_history / ".connectome" / "overlaps", ignore_errors=True)
    a, b = open_revision(own_history, "v1"), open_revision(own_history, "v2")
    steps: list[tuple[int, int]] = []
    first = supervoxel_overlap(a, b, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 1)]
    assert supervoxel_overlap(a, b, lambda *_: pytest.fail("counted again")).equals(first)
    # v3 differs from v2 in its objects only: the same table serves.
    assert supervoxel_overlap(a, open_revision(own_history, "v3"), lambda *_: pytest.fail("counted again")).equals(
        first
    )
    (kept,) = (own_history / ".connectome" / "overlaps").iterdir()
    # The other way round it is another table.
    assert rows_of(supervoxel_overlap(b, a)) == sorted((y, x, n) for x, y, n in rows_of(first))
    kept.write_bytes(kept.read_bytes()[:100])
    assert supervoxel_overlap(a, b).equals(first)
    assert pq.read_table(kept).equals(first)


def test_objects_of_another_segmentation_are_refused(own_history: Path) -> None:
    """As after `connectome run segment`: its data is new, that of `agglomerate` is not."""
    old, now = open_revision(own_history, "v1"), open_revision(own_history)
    shutil.rmtree(own_history / "data" / "agglomerate")
    shutil.copytree(old.root / "data" / "agglomerate", own_history / "data" / "agglomerate")
    with pytest.raises(RevisionError, match="agglomerate at working tree is for another segmentation"):
        object_history(old, now, count_overlap(old, now))


def test_voxels_of_other_size_are_refused(tmp_path: Path) -> None:
    ones = np.ones((2, 8, 8), np.int64)
    a, b = (revision_of(tmp_path / n, ones, (2, 8, 8)) for n in "ab")
    record = b.root / "data" / "segment" / "record.json"
    record.write_text(record.read_text().replace("30.0", "40.0"))
    with pytest.raises(RevisionError, match=r"voxels of \(30.0, 8.0, 8.0\) nm"):
        supervoxel_overlap(a, b)


extents = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20))
origins = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 12))
blocks = st.tuples(st.sampled_from([2, 3, 4]), st.sampled_from([4, 8, 16]), st.sampled_from([4, 6, 8]))
volume = st.tuples(extents, origins, blocks, st.integers(0, 2**32))


@settings(max_examples=40, deadline=None)
@given(volume, volume, st.booleans())
def test_other_lattices_and_bounds(
    a: tuple[Vec3, Vec3, Vec3, int], b: tuple[Vec3, Vec3, Vec3, int], alike: bool
) -> None:
    """Volumes that grew, moved, or were cut into other blocks. `alike`: mostly the same labels where both are."""
    with TemporaryDirectory() as folder:
        found = []
        for name, (shape, origin, block, seed) in (("a", a), ("b", b)):
            rng = np.random.default_rng(7 if alike else seed)
            everywhere = rng.integers(0, 5, (8, 32, 32))
            high = tuple(o + n for o, n in zip(origin, shape, strict=True))
            labels = everywhere[Box(origin, high).slices()]  # type: ignore[arg-type]
            found.append(revision_of(Path(folder) / name, labels, a[2] if alike else block, origin))
        both = hull(bounds_of(r) for r in found)
        whole = counted(*(voxels_of(r, both) for r in found))
        assert rows_of(supervoxel_overlap(*found)) == whole


def test_a_volume_that_grew_by_a_row_of_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 4, (2, 8, 16))
    labels = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)  # 8, 32, 64
    a = revision_of(tmp_path / "a", labels[:, :, :48], (8, 16, 16))
    b = revision_of(tmp_path / "b", labels, (8, 16, 16))
    overlap = supervoxel_overlap(a, b)
    assert rows_of(overlap) == counted(*(voxels_of(r, bounds_of(b)) for r in (a, b)))
    rows = object_history(a, b, overlap).to_pylist()
    assert {r["relation"] for r in rows} == {"changed"}
    assert all(r["heir"] and r["object_a"] == r["object_b"] and r["fraction_a"] == 1 for r in rows)


def test_equal_blocks_at_other_places_are_not_the_same(tmp_path: Path) -> None:
    """Second blocks of two lattices: same code, shape, ids and content, but not the same voxels."""
    a = revision_of(tmp_path / "a", np.ones((2, 8, 96), np.int64), (2, 8, 64))
    b = revision_of(tmp_path / "b", np.ones((2, 8, 64), np.int64), (2, 8, 32))
    assert rows_of(supervoxel_overlap(a, b)) == counted(*(voxels_of(r, bounds_of(a)) for r in (a, b)))


def test_labels_as_far_apart_as_64_bits_allow() -> None:
    """Such as no one block mints; packing a pair into one number must not wrap around."""
    rng = np.random.default_rng(1)
    far = np.asarray([0, 1, 2, 1 << 63, (1 << 64) - 1], np.uint64)
    a, b = (far[rng.integers(0, 5, (4, 8, 8))] for _ in range(2))
    found = zip(*(v.tolist() for v in pairs_of(a, b)), strict=True)
    assert sorted(found) == [r for r in counted(a, b) if r[0] and r[1]]


# Labels 1..n and 1..m; how many voxels each pair shares; voxels of each label that lie in background.
few = st.sampled_from([0, 0, 0, 1, 3, 49, 50, 99, 100, 101, 400, 500, 10_000, 12_000])


@st.composite
def labelings(draw: st.DrawFn) -> tuple[dict[tuple[int, int], int], dict[int, int], dict[int, int]]:
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    shared = {(i, j): draw(few) for i in range(1, n + 1) for j in range(1, m + 1)}
    size_a = {i: sum(shared[i, j] for j in range(1, m + 1)) + draw(few) for i in range(1, n + 1)}
    size_b = {j: sum(shared[i, j] for i in range(1, n + 1)) + draw(few) for j in range(1, m + 1)}
    pairs = {p: v for p, v in shared.items() if v}
    return pairs, {i: v for i, v in size_a.items() if v}, {j: v for j, v in size_b.items() if v}


def by_the_rules(
    pairs: dict[tuple[int, int], int], size_a: dict[int, int], size_b: dict[int, int]
) -> dict[int, tuple[str, int | None, bool]]:
    """Relation, heir and ambiguity of each label of a, read off the definitions with loops."""

    def strong(i: int, j: int) -> bool:
        v = pairs.get((i, j), 0)
        return v >= COUNTS_VX and v >= COUNTS_FRACTION * min(size_a[i], size_b[j])

    out: dict[int, tuple[str, int | None, bool]] = {}
    main = {
        j: min((-v, i) for (i, k), v in pairs.items() if k == j)[1] for j in size_b if any(k == j for _, k in pairs)
    }
    for i, size in size_a.items():
        mine = {j: v for (k, j), v in pairs.items() if k == i}
        own = {j: v for j, v in mine.items() if strong(i, j)}
        if not own:
            half = sorted(j for j, v in mine.items() if 2 * v >= size)
            own = {j: mine[j] for j in half[:1]}
        joined = any(strong(k, j) for j in own for k in size_a if k != i)
        relation = {(0, 0): "changed", (0, 1): "merged", (1, 0): "split", (1, 1): "mixed"}[len(own) > 1, joined]
        equal = [j for j, v in mine.items() if v == size == size_b[j]]
        if equal:
            relation = "same" if equal == [i] else "renamed"
        elif not own:
            relation = "vanished"
        heir, ambiguous = None, False
        if own:
            close = [j for j, v in own.items() if v >= CLOSE * max(own.values())]
            heir = min(close, key=lambda j: (main[j] != i, -own[j], j))
            others = max([v for (k, j), v in pairs.items() if j == heir and k != i], default=0)
            ambiguous = len(close) > 1 or others >= own[heir]
        out[i] = relation, heir, ambiguous
    return out


@settings(max_examples=300, deadline=None)
@given(labelings())
def test_relations_follow_the_rules(
    labeling: tuple[dict[tuple[int, int], int], dict[int, int], dict[int, int]],
) -> None:
    pairs, size_a, size_b = labeling
    a, b = (Sizes(np.asarray(sorted(s), np.uint64), np.asarray([s[k] for k in sorted(s)])) for s in (size_a, size_b))
    x, y = (np.asarray([p[k] for p in pairs], np.uint64) for k in (0, 1))
    table = relate(a, b, x, y, np.asarray(list(pairs.values()), np.int64))
    wanted = by_the_rules(pairs, size_a, size_b)
    rows = table.to_pylist()
    fractions: dict[tuple[str, int], float] = defaultdict(float)
    heirs: dict[int, list[int]] = defaultdict(list)
    said: dict[int, set[tuple[str, bool]]] = defaultdict(set)
    for r in rows:
        for side in "ab":
            if r[f"object_{side}"] is not None:
                fractions[side, r[f"object_{side}"]] += r[f"fraction_{side}"]
        if r["object_a"] is not None:
            said[r["object_a"]].add((r["relation"], r["ambiguous"]))
        if r["heir"]:
            heirs[r["object_a"]].append(r["object_b"])
    assert all(f <= 1 + 1e-9 for f in fractions.values())
    assert set(said) == set(size_a)
    assert {r["object_b"] for r in rows} - {None} == set(size_b)
    for i, (relation, heir, ambiguous) in wanted.items():
        assert said[i] == {(relation, ambiguous)}
        assert heirs[i] == ([] if heir is None else [heir])
    # No two objects have the same heir, unless one of the two says that this is in doubt.
    sure = [heirs[i][0] for i, (_, heir, ambiguous) in wanted.items() if heir is not None and not ambiguous]
    assert len(sure) == len(set(sure))
    keys = [
        (r["object_a"] is None, r["object_a"] or 0, -r["overlap_vx"], r["object_b"] is None, r["object_b"] or 0)
        for r in rows
    ]
    assert keys == sorted(keys)


def test_dust_splits_nothing_and_goes_somewhere() -> None:
    """A giant sheds 90 voxels and takes up 60: it is changed; the dust it took up merged; nothing vanished."""
    a = Sizes(np.asarray([1, 2], np.uint64), np.asarray([100_090, 60]))
    b = Sizes(np.asarray([1, 3], np.uint64), np.asarray([100_060, 90]))
    x, y = np.asarray([1, 1, 2], np.uint64), np.asarray([1, 3, 1], np.uint64)
    rows = relate(a, b, x, y, np.asarray([100_000, 90, 60])).to_pylist()
    assert [(r["object_a"], r["object_b"], r["relation"], r["heir"], r["ambiguous"], r["counts"]) for r in rows] == [
        (1, 1, "changed", True, False, True),
        (1, 3, "changed", False, False, True),
        (2, 1, "merged", True, True, True),
    ]
