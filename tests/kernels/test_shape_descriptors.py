from __future__ import annotations

import numpy as np
import pytest

from connectome_db.errors import ConfigError
from connectome_db.kernels.shape_descriptors import (
    CUT_SIGMA,
    DESCRIPTORS,
    PAIRS,
    grid_step,
    shape_descriptors,
    stored_descriptors,
)

FLAT = (30.0, 10.0, 10.0)


def blobs(shape: tuple[int, int, int] = (10, 32, 34), seed: int = 0) -> np.ndarray:
    """Voronoi cells with a boundary label in places, and one object in two pieces."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (9, 3)) * shape
    place = np.stack(np.indices(shape), -1)
    far = np.linalg.norm((place[..., None, :] - seeds) * [3, 1, 1], axis=-1)
    near = np.sort(far, -1)
    labels = far.argmin(-1) + 5
    labels[near[..., 1] - near[..., 0] < 1] = 0
    labels[:, :3, :3] = labels[shape[0] // 2, -9, -9]
    return labels.astype(np.uint32)


def by_hand(labels: np.ndarray, voxel_nm: tuple[float, ...], sigma_nm: float, at: tuple[int, ...]) -> np.ndarray:
    """One voxel's descriptors from sums over all voxels of the window, as the paper states them."""
    window = np.ones(labels.shape)
    offset = []
    for axis, (n, nm) in enumerate(zip(labels.shape, voxel_nm, strict=True)):
        sigma = sigma_nm / nm
        reach = np.arange(-int(CUT_SIGMA * sigma + 0.5), int(CUT_SIGMA * sigma + 0.5) + 1)
        bell = dict(zip(reach.tolist(), np.exp(-0.5 * (reach / sigma) ** 2), strict=True))
        total = sum(bell.values())
        line = np.array([bell.get(i - at[axis], 0.0) / total for i in range(n)])
        shape = [-1 if k == axis else 1 for k in range(3)]
        window = window * line.reshape(shape)
        offset.append(np.broadcast_to(((np.arange(n) - at[axis]) * nm / sigma_nm).reshape(shape), labels.shape))
    weight = window * (labels == labels[at])
    mass = weight.sum()
    mean = [float((weight * o).sum() / mass) for o in offset]
    second = np.array([[(weight * a * b).sum() / mass for a in offset] for b in offset]) - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(second), 1e-3))
    correlation = second / np.outer(deviation, deviation)
    out = [0.5 + 0.5 * m for m in mean] + [second[k, k] for k in range(3)]
    out += [0.5 + 0.5 * correlation[a, b] for a, b in PAIRS[3:]]
    return np.clip([*out, mass], 0, 1)


@pytest.mark.parametrize(("voxel_nm", "sigma_nm"), [(FLAT, 60.0), ((8.0, 8.0, 8.0), 30.0)])
def test_descriptors_are_the_moments_of_the_object_in_the_window(
    voxel_nm: tuple[float, float, float], sigma_nm: float
) -> None:
    labels = blobs()
    found = shape_descriptors(labels, voxel_nm, sigma_nm)
    rng = np.random.default_rng(1)
    inside = np.argwhere(labels != 0)
    for at in [(0, 0, 0), (9, 31, 33), *map(tuple, inside[rng.integers(len(inside), size=30)].tolist())]:
        if labels[at]:
            assert np.abs(found[(slice(None), *at)] - by_hand(labels, voxel_nm, sigma_nm, at)).max() < 1e-5
    assert found.shape == (len(DESCRIPTORS), *labels.shape) == (10, *labels.shape)
    assert 0 <= found.min() < found.max() <= 1
    assert (found[:, labels == 0] == 0).all()
    assert found[-1][labels != 0].min() > 0


def test_a_coarse_grid_is_close_to_the_full_one() -> None:
    labels = np.kron(blobs((8, 16, 17)), np.ones((1, 3, 3), np.uint32))
    step = grid_step(FLAT, 80.0)
    assert step == (1, 2, 2)
    exact, coarse = (shape_descriptors(labels, FLAT, 80.0, s) for s in ((1, 1, 1), step))
    off = np.abs(exact - coarse)
    assert off.mean() < 0.005
    assert np.quantile(off, 0.99) < 0.03


def test_odd_extents_and_objects_thinner_than_the_grid_have_descriptors() -> None:
    labels = np.zeros((5, 13, 11), np.int64)
    labels[2, 5, :] = 7
    labels[4, 12, 10] = 2
    found = shape_descriptors(labels, FLAT, 80.0, (2, 4, 4))
    assert np.isfinite(found).all()
    assert (found[-1] > 0).sum() == 12
    assert abs(found[2, 2, 5, 5] - 0.5) < 0.02


def test_descriptors_say_the_same_of_one_shape_in_other_voxels() -> None:
    labels = np.zeros((12, 24, 24), np.uint8)
    labels[3:9, 4:16, 6:20] = 1
    fine = shape_descriptors(np.repeat(labels, 3, axis=0), (10.0, 10.0, 10.0), 50.0)[:, 1::3]
    assert np.abs(shape_descriptors(labels, FLAT, 50.0) - fine).max() < 0.06


def test_stored_descriptors_are_rounded() -> None:
    labels = blobs()
    assert np.array_equal(stored_descriptors(labels, FLAT, 60.0), np.rint(shape_descriptors(labels, FLAT, 60.0) * 255))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wanted a \(z, y, x\) array"):
        shape_descriptors(np.ones((3, 3), np.uint8), FLAT, 60.0)
    with pytest.raises(ConfigError, match="sigma_nm 0"):
        shape_descriptors(np.ones((3, 3, 3), np.uint8), FLAT, 0.0)
