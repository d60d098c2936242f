"""Boxes, ids, plans and the touching join, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_db import ids, plans, provenance
from connectome_db.errors import StageError
from connectome_db.geometry import Box, box_of, hull
from connectome_db.spec import Extent

position = st.tuples(*[st.integers(-4096, 4095)] * 3)
corner = st.tuples(*[st.integers(-30, 30)] * 3)
extent = st.tuples(*[st.integers(0, 9)] * 3)
box = st.builds(lambda lo, n: Box(lo, tuple(a + b for a, b in zip(lo, n, strict=True))), corner, extent)


@given(position, st.integers(0, 2))
def test_codes_hold_positions(p, axis):
    code = ids.pack([p], axis)
    pos, ax = ids.unpack(code)
    assert tuple(pos[0]) == p
    assert ax[0] == axis


@given(position, st.integers(1, 2**24 - 1))
def test_ids_name_their_block_and_stay_below_2_63(p, local):
    code = int(ids.pack([p])[0])
    minted = int(ids.mint(code, [local])[0])
    assert 0 < minted < 2**63
    assert int(ids.unit_of([minted])[0]) == code


@given(position, st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=20))
def test_names_by_voxels_are_unique_and_independent_of_the_others(p, places):
    code, block = int(ids.pack([p])[0]), (4, 4, 5)
    voxels = np.asarray(places, dtype=np.int64).reshape(-1, 3) + np.multiply(p, block)
    names = ids.mint_at(code, voxels, block).tolist()
    assert len(set(names)) == len(names)
    assert all(int(ids.unit_of(n)[()]) == code for n in names)
    distinct = sorted(set(places))
    for k, place in enumerate(distinct):  # alone, or among others at other voxels: the same name
        alone = ids.mint_at(code, [np.add(place, np.multiply(p, block))], block)[0]
        among = ids.mint_at(code, np.asarray(distinct) + np.multiply(p, block), block)[k]
        assert alone == among


def test_what_does_not_fit_is_refused():
    with pytest.raises(StageError, match="outside its block"):
        ids.mint_at(int(ids.pack([(0, 0, 0)])[0]), [(0, 0, 5)], (4, 4, 5))
    with pytest.raises(StageError, match="fewer than 2\\*\\*24 voxels"):
        ids.mint_at(int(ids.pack([(0, 0, 0)])[0]), [(0, 0, 0)], (256, 256, 256))
    with pytest.raises(StageError, match="does not fit"):
        ids.pack([(0, 4096, 0)])
    with pytest.raises(StageError, match="at most 2\\*\\*24"):
        ids.mint(0, [1 << 24])


@given(st.lists(box, min_size=1, max_size=30), st.lists(box, min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_touching_is_what_boxes_say(reads, parts):
    indptr, index = provenance.touching(
        np.asarray([b.flat() for b in reads], np.int64), np.asarray([b.flat() for b in parts], np.int64)
    )
    for i, r in enumerate(reads):
        wanted = [j for j, p in enumerate(parts) if not p.empty and not r.empty and r.touches(p)]
        assert index[indptr[i] : indptr[i + 1]].tolist() == wanted


@given(box, st.tuples(*[st.integers(1, 7)] * 3))
@settings(max_examples=60, deadline=None)
def test_a_grid_covers_its_bounds_once(bounds, block):
    if bounds.empty:
        return
    plan = plans.grid(bounds, block)
    cores = [box_of(c) for c in plan.cores]
    assert sum(c.size_vx for c in cores) == bounds.size_vx
    assert hull(cores) == bounds
    assert all(not a.touches(b) for k, a in enumerate(cores) for b in cores[k + 1 :])
    assert (np.diff(plan.codes.astype(np.int64)) > 0).all()


def test_a_grid_that_grows_keeps_its_codes_and_cores():
    old = plans.grid(Box((0, 0, 0), (8, 32, 32)), (4, 16, 16))
    new = plans.grid(Box((0, 0, 0), (8, 48, 32)), (4, 16, 16))
    where = {int(c): tuple(b) for c, b in zip(new.codes, new.cores, strict=True)}
    assert all(where[int(c)] == tuple(b) for c, b in zip(old.codes, old.cores, strict=True))
    assert len(new) == len(old) + 4


def test_faces_of_a_2_2_2_grid():
    plan = plans.faces(Box((0, 0, 0), (8, 32, 32)), (4, 16, 16), (1, 2, 2))
    assert len(plan) == 12
    unit = plans.unit(plan, 0)
    assert unit.kind == "faces"
    slab = unit.core.shape
    assert slab[unit.axis] == (1, 2, 2)[unit.axis]


def test_pairs_take_the_sections_that_exist():
    z = np.asarray([3, 4, 7, 8])
    boxes = np.stack([z, z * 0, z * 0, z + 1, z * 0 + 9, z * 0 + 9], axis=1).astype(np.int64)
    plan = plans.pairs(Extent(ids.pack([(int(v), 0, 0) for v in z]), boxes), 2)
    found = sorted((plans.unit(plan, i).position[0], plans.unit(plan, i).position[1]) for i in range(len(plan)))
    assert found == [(3, 1), (7, 1)]


def test_table_digests_see_values_and_nothing_else():
    import pyarrow as pa

    a = pa.table({"x": pa.chunked_array([[1.0, 0.0], [3.0]]), "s": ["a", None, "bc"]})
    b = pa.table({"x": pa.chunked_array([[1.0], [-0.0, 3.0]]), "s": ["a", None, "bc"]})
    assert provenance.table_digest(a) == provenance.table_digest(b)
    for other in (
        pa.table({"x": [1.0, 0.0, 3.0], "s": ["a", "", "bc"]}),
        pa.table({"x": [1.0, 0.0, 3.0], "s": ["ab", None, "c"]}),
        pa.table({"x": [1.0, 0.0, 3.5], "s": ["a", None, "bc"]}),
        pa.table({"x": pa.array([1, 0, 3], pa.int64()), "s": ["a", None, "bc"]}),
    ):
        assert provenance.table_digest(other) != provenance.table_digest(a)
