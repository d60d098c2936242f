"""How far two results of one unit are apart: images, labels and rows, each by its own measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.kernels.metrics import adapted_rand, overlap, variation_of_information
from connectome_db.spec import Array, Rows, Volume


@dataclass(frozen=True)
class Distance:
    """A distance from 0 (nothing that counts differs) upwards, and what it is made of, in words.

    Images: the largest difference of grey values, as a share of 255. Labels: the adapted Rand error between both. Rows:
    the largest relative difference of a number; infinite when rows, keys or texts differ.
    """

    value: float
    told: str


def between(output: Volume | Rows, old: Array | pa.Table, new: Array | pa.Table) -> Distance:
    """The distance between two results of one unit."""
    if isinstance(output, Rows):
        return _rows(output, old, new)
    if old.shape != new.shape:
        return Distance(float("inf"), f"shape {new.shape} in place of {old.shape}")
    return _image(old, new) if output.kind == "image" else _labels(old, new)


def _image(old: Array, new: Array) -> Distance:
    difference = np.abs(old.astype(np.int64) - new.astype(np.int64))
    most, mean = int(difference.max(initial=0)), float(difference.mean()) if difference.size else 0.0
    n = int(np.count_nonzero(difference))
    return Distance(most / 255, f"{n} of {difference.size} voxels differ, by at most {most} and {mean:.3g} on average")


def _labels(old: Array, new: Array) -> Distance:
    n = int(np.count_nonzero(old != new))
    shared = overlap(new, old, ignore_truth=None)
    error, vi = adapted_rand(shared).error, variation_of_information(shared)
    told = f"adapted Rand error {error:.3g}, VI split {vi.split:.3g} merge {vi.merge:.3g} bits"
    return Distance(float(error), f"{n} of {old.size} voxels have another label; {told}")


def _rows(output: Rows, old: pa.Table, new: pa.Table) -> Distance:
    if old.num_rows != new.num_rows:
        return Distance(float("inf"), f"{new.num_rows} rows in place of {old.num_rows}")
    apart = {name: _column(old[name], new[name]) for name in old.column_names}
    keys = [k for k in output.table.key if apart[k] > 0]
    if keys:
        return Distance(float("inf"), f"{old.num_rows} rows, with other values in the key {', '.join(keys)}")
    worst = sorted((n for n in apart if apart[n] > 0), key=lambda n: -apart[n])
    told = ", ".join(f"{n} by {apart[n]:.3g}" if np.isfinite(apart[n]) else n for n in worst[:4])
    return Distance(max(apart.values(), default=0.0), f"{old.num_rows} rows; relative differences: {told or 'none'}")


def _column(old: pa.ChunkedArray, new: pa.ChunkedArray) -> float:
    """Largest relative difference of two columns; infinite for texts, flags, ids and nulls that are not equal."""
    a, b = old.combine_chunks(), new.combine_chunks()
    if a.equals(b):
        return 0.0
    if not pa.types.is_floating(a.type) and not pa.types.is_signed_integer(a.type):
        return float("inf")
    if not pc.all(pc.equal(pc.is_null(a), pc.is_null(b))).as_py():
        return float("inf")
    x, y = (np.asarray(pc.fill_null(c, 0).to_numpy(zero_copy_only=False), dtype=np.float64) for c in (a, b))
    return _relative(x, y)


def _relative(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if (np.isnan(x) != np.isnan(y)).any():
        return float("inf")
    size = np.maximum(np.abs(x), np.abs(y))
    return float((np.abs(x - y)[~same] / size[~same]).max(initial=0.0))
