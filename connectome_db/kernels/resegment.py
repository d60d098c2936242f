"""Two bodies that touch, filled once more from each side, to see whether the network goes over into the other.

    crop around the contact ── seed deep inside a ── fill ──> how much of a, how much of b
                            └─ seed deep inside b ── fill ──> how much of b, how much of a

Agglomeration by resegmentation of Januszewski et al. 2018 (10.1038/s41592-018-0049-4), with the rules of the published
code (resegmentation.py of google/ffn): other bodies are context, neither entered nor taken; the seed is the voxel
deepest inside the body from which a window fits, and another one is tried when the filling does not get back enough of
the body it began in. In the first segmentation the two met as finished objects; here each has the way free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from connectome_db.errors import StageError
from connectome_db.geometry import Vec3
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.spec import NM3, Window

U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Refill:
    """A filling that began in one body of a pair."""

    seed: Vec3 | None
    """(z, y, x) in the crop; None if no window fits around any voxel of the body, and nothing was filled."""
    moves: int
    """Windows, those of earlier tries included."""
    own: float
    """Share of the voxels of the body it began in, within the crop, that it has; 0-1."""
    other: float
    """Share of the voxels of the other body."""


@dataclass(frozen=True)
class Resegmentation:
    """Both fillings of a pair."""

    a: Refill
    b: Refill
    iou: float
    """Voxels that both fillings have over those that any has; 0 without any."""


@dataclass(frozen=True)
class Refilling:
    """How bodies are filled again."""

    network: Window
    options: FloodOptions
    voxel_nm: NM3
    """Size of a voxel (z, y, x): the seed is what is deepest in nm."""
    enough: float = 0.5
    """Share of its own body that a filling must have, or another seed is tried."""
    tries: int = 2
    """Seeds of a body, at least 1."""
    apart_vx: Vec3 = (4, 4, 4)
    """The next seed lies outside of this box (z, y, x) around the earlier ones."""


def resegment(image: U8, free: Mask, a: Mask, b: Mask, how: Refilling) -> Resegmentation:
    """Fill a crop from each of two bodies.

    `image` (uint8, (z, y, x)); `free` (bool, the same shape): where a filling may go, both bodies included; `a`
    and `b`: the two bodies, bool, each with a voxel at least. Arrays of other shapes are a StageError.
    """
    for mask in (free, a, b):
        if mask.shape != image.shape or mask.dtype != np.bool_:
            raise StageError(f"masks: wanted bool{image.shape} like the image, got {mask.dtype}{mask.shape}")
    from_a, in_a = _refill(image, free, a, b, how)
    from_b, in_b = _refill(image, free, b, a, how)
    either = np.count_nonzero(in_a | in_b)
    return Resegmentation(from_a, from_b, float(np.count_nonzero(in_a & in_b) / either) if either else 0.0)


def _refill(image: U8, free: Mask, body: Mask, other: Mask, how: Refilling) -> tuple[Refill, Mask]:
    """The best filling of several seeds, and its voxels."""
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=how.voxel_nm)[1:-1, 1:-1, 1:-1]
    fits = np.zeros(body.shape, np.bool_)
    fits[tuple(slice(n // 2, size - n // 2) for n, size in zip(how.network.fov_vx, body.shape, strict=True))] = True
    depth[~fits] = 0
    best: tuple[Vec3 | None, Mask] = (None, np.zeros(body.shape, np.bool_))
    share, moves = -1.0, 0
    for _ in range(how.tries):
        z, y, x = (int(n) for n in np.unravel_index(int(np.argmax(depth)), depth.shape))
        if depth[z, y, x] == 0:
            break
        run = flood(image, how.network, np.array([[z, y, x]]), how.options, free)
        moves += run.work.moves
        mask = run.labels > 0
        if (found := _share(mask, body)) > share:
            best, share = ((z, y, x), mask), found
        if share >= how.enough:
            break
        depth[tuple(slice(max(n - r, 0), n + r + 1) for n, r in zip((z, y, x), how.apart_vx, strict=True))] = 0
    seed, mask = best
    return Refill(seed, moves, _share(mask, body), _share(mask, other)), mask


def _share(mask: Mask, body: Mask) -> float:
    return float(np.count_nonzero(mask & body) / np.count_nonzero(body))
