"""What of the image can be segmented: tissue, and short gaps where sections or tiles are missing.

Mask classes are those of `mask`: 0 tissue, 1 outside, 2 resin, 3 fold, 4 crack, 5 blank, 6 low signal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MISSING = (1, 5)
"""Outside and blank: nothing was imaged here, whatever the tissue was."""
EMPTY = (2, 4)
"""Resin and crack: there is nothing. Folds and low signal are segmented as well as can be."""


def tissue_of(mask: U8) -> Mask:
    """Mask classes (z, y, x) -> where tissue was imaged."""
    return ~np.isin(mask, MISSING + EMPTY)


def bridge(image: U8, mask: U8, sections: int) -> tuple[U8, Mask]:
    """Image and mask classes (z, y, x) -> the image with short gaps filled, and what is tissue then.

    A voxel that was not imaged takes the grey value of the nearest tissue above or below it (the lower one of two as
    near) where at most `sections` sections are missing between the two. A lost section would else cut every neurite.
    """
    tissue = tissue_of(mask)
    missing = np.isin(mask, MISSING)
    if sections == 0 or not missing.any():
        return image, tissue
    depth = len(image)
    z = np.arange(depth)[:, None, None]
    below = np.maximum.accumulate(np.where(missing, -1, z), axis=0)
    above = np.minimum.accumulate(np.where(missing, depth, z)[::-1], axis=0)[::-1]
    ends = (below >= 0) & (above < depth) & (above - below - 1 <= sections)
    low, high = np.maximum(below, 0), np.minimum(above, depth - 1)
    held = np.take_along_axis(tissue, low, 0) & np.take_along_axis(tissue, high, 0)
    filled = missing & ends & held
    nearest = np.where(z - low <= high - z, low, high)
    out = np.where(filled, np.take_along_axis(image, nearest, 0), image)
    return out, tissue | filled
