"""How well a flood-filling network segments a box that it did not learn from: what a training is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.kernels.metrics import adapted_rand, overlap, variation_of_information
from connectome_db.networks.architecture import Triple
from connectome_db.networks.datasets import TrainingVolume
from connectome_db.networks.evaluate import connected_pieces
from connectome_db.networks.ffn import FloodNetwork
from connectome_db.networks.ffn_history import Validation


def middle_box(volume: TrainingVolume, extent_vx: Triple) -> TrainingVolume:
    """The middle of a volume, at most `extent_vx` (z, y, x); background of the truth stays background."""
    box = tuple(
        slice((n - min(n, want)) // 2, (n - min(n, want)) // 2 + min(n, want))
        for n, want in zip(volume.image.shape, extent_vx, strict=True)
    )
    return TrainingVolume(
        volume.name,
        np.ascontiguousarray(volume.image[box]),
        np.ascontiguousarray(volume.labels[box]),
        volume.voxel_nm,
        volume.digest,
        valid=None if volume.valid is None else np.ascontiguousarray(volume.valid[box]),
    )


def validation(
    volumes: Sequence[TrainingVolume], extent_vx: Triple, fov_vx: Triple, options: FloodOptions | None = None
) -> Callable[[FloodNetwork], Validation]:
    """Return what floods the middle of each volume with a network and scores it, all volumes counted together.

    `extent_vx`: extent (z, y, x) of each box at most. The truth is taken apart into the connected pieces that the box
    shows, as nothing in it says that two belong together. "covered" counts only voxels of an object that was found,
    "all" takes the others together as one object. A box that is smaller than the window `fov_vx` is a ConfigError.
    """
    chosen = options or FloodOptions()
    boxes = [middle_box(volume, extent_vx) for volume in volumes]
    for box in boxes:
        if any(n < f for n, f in zip(box.image.shape, fov_vx, strict=True)):
            raise ConfigError(
                f"{box.name}: wanted a box to validate on of at least the window {fov_vx} (z, y, x), got "
                f"{box.image.shape}; give a larger box or volume"
            )
    seeds = [boundary_peaks(box.image, box.valid) for box in boxes]
    truth = _as_one([_pieces(box) for box in boxes])
    inside = int(np.count_nonzero(truth))

    def judge(network: FloodNetwork) -> Validation:
        found = [flood(box.image, network, some, chosen, box.valid) for box, some in zip(boxes, seeds, strict=True)]
        seg = _as_one([one.labels for one in found])
        covered, whole = overlap(seg, truth, ignore_seg=0), overlap(seg, truth)
        voi = variation_of_information(covered)
        scores = {
            "adapted_rand_error_covered": adapted_rand(covered).error,
            "adapted_rand_error_all": adapted_rand(whole).error,
            "voi_split_covered": voi.split,
            "voi_merge_covered": voi.merge,
            "coverage": int(covered.voxels.sum()) / inside if inside else float("nan"),
        }
        objects = [one for some in found for one in some.objects]
        return {
            **{name: round(value, 4) for name, value in scores.items()},
            "objects": sum(one.label > 0 for one in objects),
            "moves": sum(one.moves for one in objects),
        }

    return judge


def _pieces(box: TrainingVolume) -> NDArray[np.unsignedinteger]:
    return connected_pieces(box.labels if box.valid is None else np.where(box.valid, box.labels, 0))


def _as_one(labels: Sequence[NDArray[np.unsignedinteger]]) -> NDArray[np.uint64]:
    """The labels of several boxes in a row; an object of one box is none of another. 0 stays 0."""
    rows, last = [], np.uint64(0)
    for some in labels:
        flat = some.ravel().astype(np.uint64)
        rows.append(np.where(flat > 0, flat + last, flat))
        last = max(last, rows[-1].max())
    return np.concatenate(rows)
