"""From a section's plane to the aligned volume: the inverse of the map that `align` gives at mesh nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.kernels.mesh import Lattice, forward_through

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SectionPlace:
    """One section's backward map: positions (size, 2) in its plane of the nodes of a lattice of the aligned volume."""

    grid: Lattice
    source_px: F64

    def span(self) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1) in the volume that the section is sure to reach over: all cells but the outermost."""
        step, low, shape = self.grid.step_px, self.grid.low, self.grid.shape
        y0, x0 = (step * (low[k] + 1) for k in range(2))
        y1, x1 = (max(step * (low[k] + shape[k] - 2), v) for k, v in enumerate((y0, x0)))
        return y0, x0, y1, x1

    def affine(self) -> tuple[F64, F64]:
        """The nearest affine map from plane to volume: (linear (2, 2), shift (2,)), aligned = linear plane + shift."""
        nodes = self.grid.nodes_px().reshape(-1, 2)
        design = np.concatenate([self.source_px, np.ones((len(nodes), 1))], axis=1)
        fit, *_ = np.linalg.lstsq(design, nodes, rcond=None)
        return np.asarray(fit[:2].T, np.float64), np.asarray(fit[2], np.float64)

    def near(self, plane_px: F64, low: tuple[int, int], high: tuple[int, int]) -> Bool:
        """Which points (n, 2) of the plane may lie in the window from `low` to `high` (y, x) of the volume.

        All that lie there are found, and few others: the hull in the plane of the mesh cells that the window touches,
        and one cell around it for what lies beyond the mesh.
        """
        step = self.grid.step_px
        limit = np.asarray(self.grid.shape) - 1
        first = np.clip(np.floor_divide(low, step) - np.asarray(self.grid.low), 0, limit)
        last = np.clip(-np.floor_divide(-np.asarray(high), step) - np.asarray(self.grid.low), 0, limit)
        nodes = self.source_px.reshape(*self.grid.shape, 2)[first[0] : last[0] + 1, first[1] : last[1] + 1]
        hull = nodes.reshape(-1, 2)
        return np.asarray(((plane_px >= hull.min(axis=0) - step) & (plane_px <= hull.max(axis=0) + step)).all(axis=1))

    def aligned(self, plane_px: F64) -> F64:
        """Where points (n, 2) of the plane lie in the volume (n, 2), px."""
        if len(plane_px) == 0:
            return np.zeros((0, 2))
        linear, shift = self.affine()
        return forward_through(self.grid, self.source_px, linear, plane_px, plane_px @ linear.T + shift)


def places_of(columns: Mapping[str, npt.NDArray[np.generic]]) -> dict[int, SectionPlace]:
    """The map of each section from the columns of `section_transform`, which hold every node of a rectangle."""
    section = columns["section"]
    out: dict[int, SectionPlace] = {}
    for number in np.unique(section).tolist():
        own = section == number
        y, x = (columns[f"node_{axis}_px"][own].astype(np.int64) for axis in "yx")
        rows, cols = np.unique(y), np.unique(x)
        step = int(rows[1] - rows[0])
        grid = Lattice(step, (int(rows[0]) // step, int(cols[0]) // step), (len(rows), len(cols)))
        source = np.stack([columns[f"source_{axis}_px"][own] for axis in "yx"], axis=1).astype(np.float64)
        out[int(number)] = SectionPlace(grid, source[np.lexsort((x, y))])
    return out
