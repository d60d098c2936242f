from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

from connectome_db.kernels.watershed import WatershedOptions, in_plane, interior_map, seeds, supervoxels

OPTIONS = WatershedOptions(
    boundary=0.5, seed_depth_nm=10, seed_window_nm=60, smooth_nm=10, max_depth_nm=150, interior=0.5, min_interior_vx=10
)
ANISO = (30.0, 8.0, 8.0)


def affinity_of(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    out = np.zeros((3, *labels.shape), np.uint8)
    for k in range(3):
        a = np.moveaxis(labels, k, 0)
        same = np.zeros(a.shape, np.uint8)
        same[1:] = 255 * ((a[1:] == a[:-1]) & (a[1:] > 0))
        same[:1] = 255 * (a[:1] > 0)
        out[k] = np.moveaxis(same, 0, k)
    return out


def two_bodies() -> NDArray[np.int64]:
    labels = np.zeros((6, 40, 60), np.int64)
    labels[:, 2:38, 2:29] = 1
    labels[:, 2:38, 31:58] = 2
    return labels


def test_in_plane_follows_the_voxel() -> None:
    assert in_plane((30.0, 6.0, 6.0)) == (1, 2)
    assert in_plane((10.0, 10.0, 10.0)) == (0, 1, 2)


def test_interior_map_counts_both_faces_of_each_axis() -> None:
    affinity = np.zeros((3, 1, 1, 3), np.uint8)
    affinity[2, 0, 0] = [255, 255, 0]
    # x faces of the middle voxel: lower 255, upper 0; y faces: 0, 0.
    assert interior_map(affinity, ANISO)[0, 0].tolist() == [0.5, 0.25, 0.0]


def test_supervoxels_never_cross_a_boundary_and_fill_the_tissue() -> None:
    labels = two_bodies()
    found = supervoxels(affinity_of(labels), np.ones(labels.shape, np.bool_), ANISO, OPTIONS)
    assert (found > 0).all()
    for piece in np.unique(found):
        assert len(np.setdiff1d(np.unique(labels[found == piece]), [0])) == 1
    assert set(np.unique(labels[found > 0])) == {0, 1, 2}


def test_every_supervoxel_is_connected_through_faces() -> None:
    rng = np.random.default_rng(3)
    affinity = rng.integers(0, 256, (3, 8, 40, 40)).astype(np.uint8)
    found = supervoxels(affinity, np.ones((8, 40, 40), np.bool_), ANISO, OPTIONS)
    assert len(np.unique(cc3d.connected_components(found, connectivity=6))) == len(np.unique(found))


def test_what_is_no_tissue_stays_background_and_separates() -> None:
    labels = np.ones((4, 30, 30), np.int64)
    tissue = np.ones(labels.shape, np.bool_)
    tissue[:, :, 15] = False
    found = supervoxels(affinity_of(labels), tissue, ANISO, OPTIONS)
    assert ((found == 0) == ~tissue).all()
    assert not set(np.unique(found[:, :, :15])) & set(np.unique(found[:, :, 16:]))


def test_no_tissue_at_all() -> None:
    assert not supervoxels(np.full((3, 2, 8, 8), 255, np.uint8), np.zeros((2, 8, 8), np.bool_), ANISO, OPTIONS).any()


def test_an_interior_too_thin_for_a_seed_is_not_given_to_its_neighbour() -> None:
    labels = two_bodies()
    labels[:, 2:38, 29:32] = 0
    labels[:, 2:38, 30] = 3
    affinity = affinity_of(labels)
    affinity[1, labels == 3] = 255
    affinity[2, labels == 3] = 200
    affinity[2, :, :, 31] = np.where(labels[:, :, 30] == 3, 200, affinity[2, :, :, 31])
    wide = WatershedOptions(**{**OPTIONS.__dict__, "interior": 0.9, "seed_depth_nm": 20.0})
    found = supervoxels(affinity, np.ones(labels.shape, np.bool_), ANISO, wide)
    thin = set(np.unique(found[labels == 3]))
    assert not thin & set(np.unique(found[labels == 1]))
    assert not thin & set(np.unique(found[labels == 2]))


def test_seeds_far_from_the_edge_do_not_depend_on_the_box() -> None:
    rng = np.random.default_rng(5)
    labels = np.kron(rng.integers(0, 5, (12, 10, 10)), np.ones((1, 16, 16), np.int64))
    affinity = affinity_of(labels)
    tissue = np.ones(labels.shape, np.bool_)
    whole = seeds(affinity, tissue, ANISO, OPTIONS) > 0
    part = seeds(affinity[:, :, 16:, 24:], tissue[:, 16:, 24:], ANISO, OPTIONS) > 0
    assert whole[:, 60:, 60:].any()
    assert (whole[:, 60:, 60:] == part[:, 44:, 36:]).all()
