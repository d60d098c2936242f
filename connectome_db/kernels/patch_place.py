"""Where patches of a tile lie in the aligned volume: through the tile's place in its section and the section's mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from connectome_db.kernels.mesh import Lattice, forward_through

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SectionMap:
    """The map of a section from the aligned volume to its plane: `source_px` (size, 2) at the nodes of `grid`."""

    grid: Lattice
    source_px: F64

    def to_aligned(self, plane_px: F64) -> F64:
        """Aligned points (N, 2) of points (N, 2) in the section's plane.

        Steps with the map's mean linear part, from its affine fit. Where tissue is so crumpled that they lead away
        (the map folds), the nearest node is taken instead.
        """
        nodes = self.grid.nodes_px().reshape(-1, 2)
        design = np.concatenate([nodes, np.ones((len(nodes), 1))], axis=1)
        fit = np.linalg.lstsq(design, self.source_px, rcond=None)[0]
        linear = np.linalg.inv(fit[:2].T)
        start = (plane_px - fit[2]) @ linear.T
        found = forward_through(self.grid, self.source_px, linear, plane_px, start)
        nearest = cKDTree(self.source_px).query(plane_px)[1]
        simple = nodes[nearest] + (plane_px - self.source_px[nearest]) @ linear.T
        lost = self._miss(found, plane_px) > self._miss(simple, plane_px) + 0.01
        return np.where(lost[:, None], simple, found)

    def _miss(self, aligned_px: F64, plane_px: F64) -> F64:
        return np.asarray(np.hypot(*(self.grid.sample(self.source_px, aligned_px) - plane_px).T))


def section_map(node_y_px: I64, node_x_px: I64, source_px: F64) -> SectionMap:
    """The map from nodes (N,) in any order and their places (N, 2); they must fill a rectangle of at least 2 x 2."""
    rows, cols = np.unique(node_y_px), np.unique(node_x_px)
    step = int(rows[1] - rows[0])
    grid = Lattice(step, (int(rows[0]) // step, int(cols[0]) // step), (len(rows), len(cols)))
    return SectionMap(grid, source_px[np.lexsort((node_x_px, node_y_px))])


def place_boxes(boxes_px: I64, linear: F64, shift_px: F64, mesh: SectionMap) -> F64:
    """Boxes (N, 4) y0, x0, y1, x1 in the aligned volume, in voxels, of boxes (N, 4) of a tile's pixels (half open).

    `linear` (2, 2) and `shift_px` (2,) take pixel centres of the tile to the section's plane. A box's sides go through
    where the middles of the patch's edges come to lie: in a turned tile, boxes of neighbours still meet.
    """
    y0, x0, y1, x1 = boxes_px.T.astype(np.float64) - 0.5  # edges of pixels, where centres are whole numbers
    y, x = (y0 + y1) / 2, (x0 + x1) / 2
    middles = np.stack([(y0, x), (y1, x), (y, x0), (y, x1)]).transpose(2, 0, 1)
    aligned = mesh.to_aligned(middles.reshape(-1, 2) @ linear.T + shift_px).reshape(-1, 4, 2) + 0.5
    return np.concatenate([aligned.min(axis=1), aligned.max(axis=1)], axis=1)
