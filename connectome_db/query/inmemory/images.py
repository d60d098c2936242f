"""What made the image at a place, looked up in memory: the same rows as the statements of `query.images` give."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.query.database import Database
from connectome_db.query.inmemory.memo import remembered

F64 = npt.NDArray[np.float64]
Row = dict[str, Any]
_TABLES = ("image_source", "alignment_residual", "section_transform", "tile", "tile_transform")
_SOURCES = """
SELECT s.section, s.tile, s.unit AS block, s.pixels, s.y0_px, s.x0_px, s.y1_px, s.x1_px, t.sha256, t.mean, t.std,
       t.saturation, t.sharpness, t.noise, t.membrane_contrast, t.unit AS ingest, m.unit AS montage, m.yy, m.yx, m.xy,
       m.xx, m.ty, m.tx, m.matches, m.height_px, m.width_px
FROM image_source s LEFT JOIN tile t USING (section, tile) LEFT JOIN tile_transform m USING (section, tile)
ORDER BY s.section, s.tile, s.unit
"""
_RESIDUALS = """
SELECT section, y_px, x_px, r FROM (
  SELECT unnest([section_a, section_b]) AS section, y_px, x_px, sqrt(residual_y_px ** 2 + residual_x_px ** 2) AS r
  FROM alignment_residual WHERE weight > 0
) ORDER BY ALL
"""
_NODES = """
SELECT section, node_y_px, node_x_px, source_y_px, source_x_px FROM section_transform ORDER BY ALL
"""


class _BySection:
    """Rows in the order of their section; the columns named as arrays."""

    def __init__(self, rows: pa.Table, columns: tuple[str, ...]) -> None:
        self.rows = rows.combine_chunks()  # of many pieces, each `take` would go through all
        self._section = rows["section"].to_numpy()
        self._columns = [rows[c].to_numpy() for c in columns]

    def span(self, first: int, end: int) -> tuple[int, int]:
        low, high = np.searchsorted(self._section, [first, end])
        return int(low), int(high)

    def columns(self, span: tuple[int, int]) -> list[F64]:
        return [c[span[0] : span[1]] for c in self._columns]


class Imagery:
    """The tables from `image_source` down to the tiles."""

    def __init__(self, db: Database) -> None:
        self._sources = _BySection(db.rows(_SOURCES), ("y0_px", "x0_px", "y1_px", "x1_px"))
        self._residuals = _BySection(db.rows(_RESIDUALS), ("y_px", "x_px", "r"))
        self._nodes = _BySection(db.rows(_NODES), ("node_y_px", "node_x_px", "source_y_px", "source_x_px"))

    def sources(self, box: tuple[int, ...]) -> list[Row]:
        """What of which tile is seen in a box (z0, y0, x0, z1, y1, x1), by section, tile and block."""
        z0, y0, x0, z1, y1, x1 = box
        span = self._sources.span(z0, z1)
        low_y, low_x, high_y, high_x = self._sources.columns(span)
        hit = (low_y < y1) & (high_y > y0) & (low_x < x1) & (high_x > x0)
        rows: list[Row] = self._sources.rows.take(span[0] + np.flatnonzero(hit)).to_pylist()
        return rows

    def residual(self, section: int, y: float, x: float, near: float) -> Row | None:
        """How far the alignment is off within `near` pixels (per axis) of a place; None without a match there."""
        ys, xs, r = self._residuals.columns(self._residuals.span(section, section + 1))
        r = r[(np.abs(ys - y) <= near) & (np.abs(xs - x) <= near)]
        if not len(r):
            return None
        return {"n": len(r), "median_px": float(np.median(r)), "max_px": float(r.max())}

    def plane(self, section: int, y: float, x: float) -> Row | None:
        """Where a place lies in its section's plane: bilinear between four nodes; None outside the mesh."""
        ys, xs, source_y, source_x = self._nodes.columns(self._nodes.span(section, section + 1))
        ends = []
        for nodes, v in ((ys, y), (xs, x)):
            below, above = nodes[nodes <= v], nodes[nodes >= v]
            if not len(below) or not len(above):
                return None
            ends.append((below.max(), above.min()))
        totals = np.zeros(2)
        for i in (0, 1):
            for j in (0, 1):
                at = np.flatnonzero((ys == ends[0][i]) & (xs == ends[1][j]))
                if len(at) != 1:
                    return None
                weight = _weight(ends[0], y, i) * _weight(ends[1], x, j)
                totals += weight * np.asarray([source_y[at[0]], source_x[at[0]]])
        return {"plane_y_px": float(totals[0]), "plane_x_px": float(totals[1])}


def _weight(ends: tuple[float, float], v: float, end: int) -> float:
    share = (v - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.0
    return share if end else 1.0 - share


def imagery_of(db: Database) -> Imagery | None:
    """The images' tables of a database that holds small tables in memory; None where it does not, or they are large."""
    return remembered(db, _TABLES, Imagery)
