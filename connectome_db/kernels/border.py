"""Which pixels of a tile are image: cameras and earlier software leave black borders that must never be matched."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

BLACK = 4
"""Grey values up to this count as black: a JPEG does not keep exact zeros."""
_OPEN_PX = 9
_FRINGE_PX = 4


def valid_mask(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """True where a tile (y, x) holds image; False in flat black areas that touch the tile's edge, and next to them.

    A black area counts when a 9 x 9 px square fits in it, so that dark tissue at the edge stays; 4 px around it go too,
    since a compressed image rings there.
    """
    rim = min(int(edge.min()) for edge in (tile[0], tile[-1], tile[:, 0], tile[:, -1]))
    valid = np.ones(tile.shape, dtype=np.bool_)
    if rim > BLACK:
        return valid
    black = (tile <= BLACK).astype(np.uint8)
    padded = cv2.copyMakeBorder(black, _OPEN_PX, _OPEN_PX, _OPEN_PX, _OPEN_PX, cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((_OPEN_PX, _OPEN_PX), np.uint8))
    opened = np.ascontiguousarray(opened[_OPEN_PX:-_OPEN_PX, _OPEN_PX:-_OPEN_PX])
    count, labels = cv2.connectedComponents(opened, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touching = np.zeros(count, dtype=np.bool_)
    touching[edge] = True
    touching[0] = False
    if not touching.any():
        return valid
    size = 2 * _FRINGE_PX + 1
    grown = cv2.dilate(touching[labels].astype(np.uint8), np.ones((size, size), np.uint8))
    return np.asarray(grown == 0, dtype=np.bool_)


def valid_box(valid: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The hull (y0, x0, y1, x1) of the True pixels; empty at 0 when there are none."""
    rows, cols = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
