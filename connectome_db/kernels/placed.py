"""From the columns of the tables `tile_transform` and `illumination` to what `warp` works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db.kernels.warp import PlacedTile

Columns = Mapping[str, Sequence[Any]]


def tiles_of(columns: Columns) -> list[PlacedTile]:
    """The tiles of one section from the columns of its `tile_transform` rows, in the order of their names."""
    order = sorted(range(len(columns["tile"])), key=lambda n: str(columns["tile"][n]))
    return [
        PlacedTile(
            name=str(columns["tile"][n]),
            linear=np.asarray(
                [[columns["yy"][n], columns["yx"][n]], [columns["xy"][n], columns["xx"][n]]], dtype=np.float64
            ),
            shift_px=np.asarray([columns["ty"][n], columns["tx"][n]], dtype=np.float64),
            shape=(int(columns["height_px"][n]), int(columns["width_px"][n])),
            gain=float(columns["gain"][n]),
            offset=float(columns["offset"][n]),
        )
        for n in order
    ]


def light_of(columns: Columns) -> npt.NDArray[np.float64]:
    """The illumination grid (n, m) of one section from the columns of its rows; flat when it has none."""
    if len(columns["gain"]) == 0:
        return np.ones((2, 2))
    y, x = np.asarray(columns["node_y"]), np.asarray(columns["node_x"])
    grid = np.ones((int(y.max()) + 1, int(x.max()) + 1))
    grid[y, x] = columns["gain"]
    return grid
