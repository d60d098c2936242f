"""Control of the false discovery rate (Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def benjamini_hochberg(p_values: F64) -> F64:
    """q-values (N,) of p-values (N,): the smallest rate of false discoveries at which each test would be called.

    Holds for independent tests and for tests that depend on each other positively, as metrics of one place do.
    """
    p = np.asarray(p_values, dtype=np.float64)
    n = len(p)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * n / np.arange(1, n + 1)
    out = np.empty(n)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out
