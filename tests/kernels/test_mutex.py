from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
import pytest

from connectome_db.errors import ConfigError
from connectome_db.kernels.affinity import affinity_targets, offsets_of
from connectome_db.kernels.mutex import MutexOptions, held_together, mutex_watershed

NEAR = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
FAR = (*NEAR, (2, 0, 0), (0, 2, 0), (0, 0, 3))
PLAIN = MutexOptions(repulsion=1.0, attraction=0.0, min_size_vx=1)


def options(**changed: Any) -> MutexOptions:
    return MutexOptions(**{**PLAIN.__dict__, **changed})


def by_hand(affinity: np.ndarray, offsets: tuple[Any, ...], tissue: np.ndarray, chosen: MutexOptions) -> np.ndarray:
    """Algorithm 1 of the paper with sets of voxels: sort all edges, join or exclude one after the other."""
    edges = []
    for channel, offset in enumerate(offsets):
        for voxel in np.ndindex(tissue.shape):
            other = tuple(int(v - o) for v, o in zip(voxel, offset, strict=True))
            if min(other) < 0 or not tissue[voxel] or not tissue[other]:
                continue
            value = int(affinity[(channel, *voxel)])
            if channel < 3:
                if value / 255 < chosen.attraction:
                    continue
                strength = value
            else:
                strength = min(255, int(np.floor(chosen.repulsion * (255 - value) + 0.5)))
            edges.append((-strength, channel, voxel, other))
    cluster = {voxel: {voxel} for voxel in np.ndindex(tissue.shape) if tissue[voxel]}
    apart: list[tuple[Any, Any]] = []
    for _, channel, voxel, other in sorted(edges):
        one, two = cluster[voxel], cluster[other]
        if one is two or any((a in one and b in two) or (a in two and b in one) for a, b in apart):
            continue
        if channel >= 3:
            apart.append((voxel, other))
            continue
        one |= two
        for member in two:
            cluster[member] = one
    out = np.zeros(tissue.shape, np.int32)
    number: dict[int, int] = {}
    for voxel, members in cluster.items():
        out[voxel] = number.setdefault(id(members), len(number) + 1)
    return out


@pytest.mark.parametrize("levels", [256, 4], ids=["few ties", "many ties"])
@pytest.mark.parametrize("changed", [{}, {"repulsion": 1.6, "attraction": 0.4}])
def test_small_graphs_agree_with_the_paper(levels: int, changed: dict[str, float]) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        affinity = (rng.integers(0, levels, (len(FAR), 3, 6, 7)) * (255 // (levels - 1))).astype(np.uint8)
        tissue = rng.random((3, 6, 7)) > 0.1
        found = mutex_watershed(affinity, FAR, tissue, options(**changed))
        assert np.array_equal(found, by_hand(affinity, FAR, tissue, options(**changed)))
        assert found.max() > 3


def cells(shape: tuple[int, int, int] = (4, 40, 44)) -> np.ndarray:
    z, y, x = np.indices(shape)
    return ((y + z) // 11) * 10 + x // 11 + 1


def test_many_clusters_are_told_apart_and_are_connected() -> None:
    """Larger than the first table of pairs, so that it is built anew."""
    rng = np.random.default_rng(2)
    affinity = rng.integers(0, 256, (len(FAR), 6, 60, 60)).astype(np.uint8)
    tissue = np.ones(affinity.shape[1:], np.bool_)
    found = mutex_watershed(affinity, FAR, tissue, PLAIN)
    assert found.min() == 1
    assert found.max() > 700
    assert cc3d.connected_components(found, connectivity=6).max() == found.max()
    first = np.unique(found, return_index=True)[1]
    assert (np.diff(first) > 0).all()
    small = mutex_watershed(affinity, FAR, tissue, options(min_size_vx=25))
    assert np.bincount(small.ravel())[1:].min() >= 25
    assert cc3d.connected_components(small, connectivity=6).max() == small.max() < found.max()


def test_true_affinities_give_the_true_objects() -> None:
    labels = cells()
    target, _ = affinity_targets(labels, FAR)
    found = mutex_watershed(target.astype(np.uint8) * 255, FAR, np.ones(labels.shape, np.bool_), PLAIN)
    pairs = np.unique(np.stack([labels.ravel(), found.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(labels)) == found.max()


def test_a_gap_in_a_boundary_does_not_join_what_long_range_edges_keep_apart() -> None:
    labels = cells()
    target, _ = affinity_targets(labels, FAR)
    affinity = np.where(target, 240, 10).astype(np.uint8)
    affinity[2, :, 5, 11] = 240  # a hole between two cells
    tissue = np.ones(labels.shape, np.bool_)
    held = mutex_watershed(affinity, FAR, tissue, PLAIN)
    assert held[0, 5, 10] != held[0, 5, 11]
    leaking = mutex_watershed(affinity, FAR, tissue, options(repulsion=0.0, attraction=0.5))
    assert leaking[0, 5, 10] == leaking[0, 5, 11]


def test_no_tissue_and_pieces_that_are_too_small() -> None:
    affinity = np.full((len(FAR), 2, 5, 5), 255, np.uint8)
    nothing = np.zeros((2, 5, 5), np.bool_)
    assert not mutex_watershed(affinity, FAR, nothing, PLAIN).any()
    assert not mutex_watershed(affinity, FAR, ~nothing, options(min_size_vx=51)).any()


def test_bad_offsets_are_refused() -> None:
    affinity, tissue = np.zeros((4, 2, 3, 3), np.uint8), np.ones((2, 3, 3), np.bool_)
    with pytest.raises(ConfigError, match="at least one longer step"):
        mutex_watershed(affinity[:3], NEAR, tissue, PLAIN)
    with pytest.raises(ConfigError, match="neighbours on z, y, x"):
        mutex_watershed(affinity, (*NEAR[1:], NEAR[0], (0, 0, 2)), tissue, PLAIN)
    with pytest.raises(ConfigError, match="wanted the shape"):
        mutex_watershed(affinity, FAR, tissue, PLAIN)


def test_channels_name_their_offsets() -> None:
    channels = ("aff_z1", "lsd_size", "aff_y9", "aff_x0", "cleft")
    assert offsets_of(channels) == {"aff_z1": (1, 0, 0), "aff_y9": (0, 9, 0)}


def test_a_body_holds_together_as_much_as_is_said() -> None:
    rng = np.random.default_rng(3)
    affinity = rng.integers(0, 256, (len(FAR), 5, 6, 7), dtype=np.uint8)
    before = affinity.copy()
    bodies = rng.integers(0, 3, (5, 6, 7)).astype(np.uint64) << np.uint64(40)
    found = held_together(affinity, FAR, bodies, 0.9)
    assert (affinity == before).all()
    raised = 0
    for channel, offset in enumerate(FAR):
        for voxel in np.ndindex(bodies.shape):
            other = tuple(v - o for v, o in zip(voxel, offset, strict=True))
            same = min(other) >= 0 and bodies[voxel] == bodies[other] != 0
            wanted = max(before[(channel, *voxel)], 230) if same else before[(channel, *voxel)]
            raised += wanted != before[(channel, *voxel)]
            assert found[(channel, *voxel)] == wanted
    assert raised > 50
