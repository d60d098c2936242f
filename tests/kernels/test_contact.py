from __future__ import annotations

import numpy as np

from connectome_db.kernels.contact import contacts

NM = (30.0, 8.0, 4.0)


def naive(labels: np.ndarray, affinity: np.ndarray, inner: tuple[int, int, int]) -> dict[tuple[int, int], list]:
    found: dict[tuple[int, int], list] = {}
    for z, y, x in np.ndindex(*labels.shape):
        if (z, y, x) < inner and any(p < q for p, q in zip((z, y, x), inner, strict=True)):
            continue
        if any(p < q for p, q in zip((z, y, x), inner, strict=True)):
            continue
        for axis in range(3):
            other = [z, y, x]
            other[axis] -= 1
            if other[axis] < 0:
                continue
            u, v = int(labels[z, y, x]), int(labels[tuple(other)])
            if u and v and u != v:
                centre = np.asarray([z, y, x], float)
                centre[axis] -= 0.5
                area = np.prod(NM) / NM[axis]
                found.setdefault((min(u, v), max(u, v)), []).append((area, affinity[axis, z, y, x] / 255, centre))
    return found


def test_agrees_with_counting_one_by_one() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.integers(0, 5, (5, 6, 7)).astype(np.uint64) << np.uint64(40)) * (rng.random((5, 6, 7)) < 0.8)
    affinity = rng.integers(0, 256, (3, 5, 6, 7)).astype(np.uint8)
    for inner in ((0, 0, 0), (1, 1, 1), (1, 0, 1)):
        want = naive(labels, affinity, inner)
        got = contacts(labels.astype(np.uint64), affinity, inner, NM)
        assert list(zip(got.a.tolist(), got.b.tolist(), strict=True)) == sorted(want)
        for i, pair in enumerate(sorted(want)):
            area, value, centre = (np.asarray(c) for c in zip(*want[pair], strict=True))
            assert got.faces[i] == len(area)
            np.testing.assert_allclose(got.area_nm2[i], area.sum())
            np.testing.assert_allclose(got.affinity[i], (area * value).sum() / area.sum())
            np.testing.assert_allclose(got.centre_vx[i], centre.mean(axis=0))
            ranked = np.sort(value)
            assert got.affinity_low[i] == ranked[(len(area) - 1) // 4]
            assert got.affinity_high[i] == ranked[3 * (len(area) - 1) // 4]


def test_blocks_count_every_face_once() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (4, 8, 8)).astype(np.uint64)
    affinity = rng.integers(0, 256, (3, 4, 8, 8)).astype(np.uint8)
    whole = contacts(labels, affinity, (0, 0, 0), NM)
    total: dict[tuple[int, int], int] = {}
    for z, y, x in np.ndindex(2, 2, 2):
        lo = (2 * z, 4 * y, 4 * x)
        inner = tuple(min(1, c) for c in lo)
        cut = tuple(slice(c - i, c + n) for c, i, n in zip(lo, inner, (2, 4, 4), strict=True))
        part = contacts(labels[cut], affinity[(slice(None), *cut)], inner, NM)
        for a, b, faces in zip(part.a.tolist(), part.b.tolist(), part.faces.tolist(), strict=True):
            total[a, b] = total.get((a, b), 0) + faces
    assert total == dict(zip(zip(whole.a.tolist(), whole.b.tolist(), strict=True), whole.faces.tolist(), strict=True))


def test_one_label_has_no_contact() -> None:
    assert len(contacts(np.ones((2, 3, 3), np.uint64), np.zeros((3, 2, 3, 3), np.uint8), (0, 0, 0), NM).a) == 0
