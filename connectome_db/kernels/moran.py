"""Moran's I of a map: do neighbouring cells resemble each other? (Moran 1950, Biometrika 37:17.)

The usual permutation test of it (as in esda) takes cells for exchangeable. Cells of tissue are not, because one
neurite runs through several: here I only describes, and the test is that of `surrogates`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]


def neighbours(shape_yx: tuple[int, int], queen: bool = True) -> sparse.csr_array:
    """Weights (N, N) of a (y, x) lattice in C order: 1 for cells that share an edge or, with `queen`, a corner."""
    height, width = shape_yx
    number = np.arange(height * width).reshape(height, width)
    pairs = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1])]
    if queen:
        pairs += [(number[1:, 1:], number[:-1, :-1]), (number[1:, :-1], number[:-1, 1:])]
    a = np.concatenate([p.ravel() for p, _ in pairs])
    b = np.concatenate([q.ravel() for _, q in pairs])
    ones = np.ones(2 * len(a))
    place = (np.concatenate([a, b]), np.concatenate([b, a]))
    return sparse.csr_array(sparse.coo_array((ones, place), shape=(number.size, number.size)))


def moran_i(cells: F64, queen: bool = True) -> float:
    """Moran's I of a map (y, x); cells that are NaN are left out. 0.0 where nothing varies.

    About -1/(N - 1) without spatial order, towards 1 where neighbours are alike.
    """
    good = np.isfinite(cells).ravel()
    if good.sum() < 3:
        return 0.0
    z = np.where(good, np.nan_to_num(cells).ravel() - np.nanmean(cells), 0.0)
    weights = neighbours((cells.shape[0], cells.shape[1]), queen)
    total = float(good.astype(float) @ (weights @ good.astype(float)))
    variance = float(z @ z)
    if variance <= 0 or total <= 0:
        return 0.0
    return float(good.sum() / total * (z @ (weights @ z)) / variance)
