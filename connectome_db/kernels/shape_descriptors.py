"""Labels -> local shape descriptors: what the object of a voxel looks like within a Gaussian window around it.

Sheridan et al. 2022 (10.1038/s41592-022-01711-z): as an auxiliary task they make a network look at the shape of a whole
neurite, and its affinities get better. Ten numbers per voxel, each brought into [0, 1]:

    lsd_mean_z, _y, _x         where the object's centre of mass in the window lies from the voxel; 0.5 = here,
                               0 and 1 = one sigma down or up
    lsd_cov_zz, _yy, _xx       variance of the object's voxels in the window, in units of sigma squared
    lsd_cov_zy, _zx, _yx       correlation of two coordinates; 0.5 = none
    lsd_size                   share of the window's weight that lies in the object

The window is a Gaussian in nm, cut off at three sigma, so that voxels of any shape are treated alike. What lies outside
the array counts as another object. Label 0 has no shape: all of its descriptors are 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from connectome_db.errors import ConfigError

NM3 = tuple[float, float, float]
Step = tuple[int, int, int]
DESCRIPTORS = (
    *(f"lsd_mean_{axis}" for axis in "zyx"),
    *(f"lsd_cov_{pair}" for pair in ("zz", "yy", "xx", "zy", "zx", "yx")),
    "lsd_size",
)
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The axes (z, y, x = 0, 1, 2) of the channels 3 to 8."""
CUT_SIGMA = 3.0


def grid_step(voxel_nm: NM3, sigma_nm: float) -> Step:
    """The coarsest grid (z, y, x) in voxels on which the window is still smooth: a quarter of sigma, at least 1."""
    z, y, x = (max(1, int(sigma_nm / 4 / length)) for length in voxel_nm)
    return z, y, x


def shape_descriptors(
    labels: NDArray[np.integer], voxel_nm: NM3, sigma_nm: float, step_vx: Step = (1, 1, 1)
) -> NDArray[np.float32]:
    """Labels (z, y, x) -> descriptors float32 (10, z, y, x) in [0, 1], in the order of DESCRIPTORS.

    `sigma_nm` is the standard deviation of the window. `step_vx`: moments are taken on a grid that is coarser by these
    factors and interpolated between its points; up to `grid_step` this changes most values
    by less than 0.02.
    """
    out = np.zeros((len(DESCRIPTORS), *labels.shape), np.float32)
    for index, values in _by_label(labels, voxel_nm, sigma_nm, step_vx):
        out.reshape(len(out), -1)[:, index] = values
    return out


def stored_descriptors(
    labels: NDArray[np.integer], voxel_nm: NM3, sigma_nm: float, step_vx: Step = (1, 1, 1)
) -> NDArray[np.uint8]:
    """As `shape_descriptors`, as uint8 with 255 for 1: a quarter of the memory for whole training volumes."""
    out = np.zeros((len(DESCRIPTORS), *labels.shape), np.uint8)
    for index, values in _by_label(labels, voxel_nm, sigma_nm, step_vx):
        out.reshape(len(out), -1)[:, index] = np.rint(values * 255).astype(np.uint8)
    return out


def _by_label(
    labels: NDArray[np.integer], voxel_nm: NM3, sigma_nm: float, step_vx: Step
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Per label: the flat indices of its n voxels, and their descriptors (10, n)."""
    if labels.ndim != 3:
        raise ConfigError(f"labels: wanted a (z, y, x) array, got the shape {labels.shape}")
    if not sigma_nm > 0 or min(voxel_nm) <= 0 or min(step_vx) < 1:
        raise ConfigError(
            f"wanted lengths above 0 nm and steps of at least 1 voxel, got sigma_nm {sigma_nm}, voxel_nm {voxel_nm}, "
            f"step_vx {step_vx}"
        )
    names, dense = np.unique(labels, return_inverse=True)
    number = dense.reshape(labels.shape).astype(np.int32) + 1
    for i, box in enumerate(ndimage.find_objects(number)):
        if names[i] == 0:
            continue
        mask = number[box] == i + 1
        at = np.nonzero(mask)
        here = tuple(a + s.start for a, s in zip(at, box, strict=True))
        yield np.ravel_multi_index(here, labels.shape).astype(np.int64), _moments(mask, at, voxel_nm, sigma_nm, step_vx)


def _moments(
    mask: NDArray[np.bool_], at: tuple[NDArray[np.int64], ...], voxel_nm: NM3, sigma_nm: float, step_vx: Step
) -> NDArray[np.float64]:
    """Descriptors (10, n) of the voxels `at` of one object; `mask` is its bounding box. Lengths are in sigma."""
    share = _pooled(mask, step_vx)
    length = [v / sigma_nm for v in voxel_nm]
    # Coordinates of the grid's points and of the voxels, from the middle of the box: large numbers would cancel badly.
    place = [
        ((np.arange(n) - 0.5) * d - m / 2) * u
        for n, d, m, u in zip(share.shape, step_vx, mask.shape, length, strict=True)
    ]
    own = np.stack([(a + 0.5 - m / 2) * u for a, m, u in zip(at, mask.shape, length, strict=True)])
    width = [1 / (d * u) for d, u in zip(step_vx, length, strict=True)]
    grid = [p.reshape([-1 if k == axis else 1 for k in range(3)]) for axis, p in enumerate(place)]
    where = _between(at, step_vx)

    def smooth(field: NDArray[np.float64]) -> NDArray[np.float64]:
        wide = ndimage.gaussian_filter(field, width, mode="constant", truncate=CUT_SIGMA)
        return sum((wide[corner] * weight for corner, weight in where), np.zeros(len(at[0])))

    mass = smooth(share)
    mean = np.stack([smooth(share * grid[k]) for k in range(3)]) / mass
    spread = np.stack([smooth(share * grid[a] * grid[b]) / mass - mean[a] * mean[b] for a, b in PAIRS])
    variance = np.maximum(spread[:3], 1e-3)
    for k, (a, b) in enumerate(PAIRS[3:], 3):
        spread[k] = 0.5 + 0.5 * spread[k] / np.sqrt(variance[a] * variance[b])
    out: NDArray[np.float64] = np.clip(np.concatenate([0.5 + 0.5 * (mean - own), spread, mass[None]]), 0, 1)
    return out


def _pooled(mask: NDArray[np.bool_], step_vx: Step) -> NDArray[np.float64]:
    """Share of the object in each cell of the grid, with an empty cell on every side."""
    cells = [-(-n // d) for n, d in zip(mask.shape, step_vx, strict=True)]
    full = np.pad(mask, [(0, c * d - n) for c, d, n in zip(cells, step_vx, mask.shape, strict=True)])
    z, y, x = step_vx
    share = full.reshape(cells[0], z, cells[1], y, cells[2], x).mean(axis=(1, 3, 5), dtype=np.float64)
    return np.pad(share, 1)


def _between(
    at: tuple[NDArray[np.int64], ...], step_vx: Step
) -> list[tuple[tuple[NDArray[np.int64], ...], NDArray[np.float64]]]:
    """Points of the padded grid around each voxel, with their weights: linear interpolation; step 1 has one point."""
    found: list[tuple[tuple[NDArray[np.int64], ...], NDArray[np.float64]]] = [((), np.ones(len(at[0])))]
    for a, d in zip(at, step_vx, strict=True):
        if d == 1:
            found = [((*corner, a + 1), weight) for corner, weight in found]
            continue
        place = (a + 0.5) / d + 0.5
        low = np.floor(place).astype(np.int64)
        part = place - low
        found = [
            ((*corner, low + up), weight * (part if up else 1 - part)) for corner, weight in found for up in (0, 1)
        ]
    return found
