"""From a place in the aligned volume back to the raw tiles that show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectome_db.geometry import Box
from connectome_db.query.database import Database
from connectome_db.query.inmemory.images import Imagery, imagery_of
from connectome_db.query.inmemory.ledger import Key, Ledger, ledger_of
from connectome_db.query.trace import Id, Trace

NEAR_PX = 512
"""Alignment residuals within this distance of a place (per axis) are taken as the residual there."""

_PLACES = (
    "WITH place AS (SELECT unnest($k::INTEGER[]) AS k, "
    + ", ".join(f"unnest(${axis}{end}::BIGINT[]) AS {axis}{end}" for end in (0, 1) for axis in "zyx")
    + ") "
)

_BLOCKS = (
    _PLACES
    + """
SELECT p.k, u.unit FROM place p JOIN unit u ON u.stage = 'render'
  AND u.core_z0 < p.z1 AND p.z0 < u.core_z1 AND u.core_y0 < p.y1 AND p.y0 < u.core_y1
  AND u.core_x0 < p.x1 AND p.x0 < u.core_x1
ORDER BY ALL
"""
)

_SOURCES = (
    _PLACES
    + """
SELECT p.k, s.unit AS block, s.section, s.tile, s.pixels, t.sha256, t.mean, t.std, t.saturation, t.sharpness, t.noise,
       t.membrane_contrast, t.unit AS ingest, m.unit AS montage, m.yy, m.yx, m.xy, m.xx, m.ty, m.tx, m.matches,
       m.height_px, m.width_px
FROM place p JOIN image_source s ON s.section >= p.z0 AND s.section < p.z1
  AND s.y0_px < p.y1 AND p.y0 < s.y1_px AND s.x0_px < p.x1 AND p.x0 < s.x1_px
LEFT JOIN tile t USING (section, tile) LEFT JOIN tile_transform m USING (section, tile)
ORDER BY p.k, s.section, s.tile, s.unit
"""
)

_CENTRES = (
    _PLACES
    + """, centre AS (
  SELECT k, unnest(range(z0, z1)) AS section, (y0 + y1 - 1) / 2 AS y, (x0 + x1 - 1) / 2 AS x FROM place
) """
)

_RESIDUALS = (
    _CENTRES
    + f"""
SELECT c.k, c.section, count(*) AS n, median(r) AS median_px, max(r) AS max_px
FROM centre c JOIN (SELECT *, sqrt(residual_y_px ** 2 + residual_x_px ** 2) AS r FROM alignment_residual
                    WHERE weight > 0) a
  ON c.section IN (a.section_a, a.section_b) AND abs(a.y_px - c.y) <= {NEAR_PX} AND abs(a.x_px - c.x) <= {NEAR_PX}
GROUP BY ALL
"""
)

_CORNERS = (
    _CENTRES
    + """, around AS (
  SELECT c.k, c.section, c.y, c.x,
         max(node_y_px) FILTER (node_y_px <= c.y) AS y0, min(node_y_px) FILTER (node_y_px >= c.y) AS y1,
         max(node_x_px) FILTER (node_x_px <= c.x) AS x0, min(node_x_px) FILTER (node_x_px >= c.x) AS x1
  FROM centre c JOIN section_transform n ON n.section = c.section GROUP BY ALL
)
SELECT a.k, a.section, sum(w * n.source_y_px) AS plane_y_px, sum(w * n.source_x_px) AS plane_x_px
FROM (
  SELECT *, CASE WHEN y1 = y0 THEN 0 ELSE (y - y0) / (y1 - y0) END AS fy,
            CASE WHEN x1 = x0 THEN 0 ELSE (x - x0) / (x1 - x0) END AS fx FROM around
) a
CROSS JOIN (VALUES (0, 0), (0, 1), (1, 0), (1, 1)) c(i, j)
JOIN section_transform n ON n.section = a.section
  AND n.node_y_px = CASE i WHEN 0 THEN a.y0 ELSE a.y1 END AND n.node_x_px = CASE j WHEN 0 THEN a.x0 ELSE a.x1 END
CROSS JOIN LATERAL (
  SELECT (CASE i WHEN 0 THEN 1 - a.fy ELSE a.fy END) * (CASE j WHEN 0 THEN 1 - a.fx ELSE a.fx END) AS w
)
GROUP BY ALL HAVING count(*) = 4
"""
)
"""Bilinear between the four mesh nodes around the place, as the renderer does."""


@dataclass
class Images:
    """What is known of the image at each of several places, by the place's number."""

    places: Sequence[Box]
    blocks: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    sources: dict[tuple[int, int], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    residuals: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    planes: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    align: int | None = None
    _done: dict[Any, Trace] = field(default_factory=dict)

    def units(self) -> set[Key]:
        """The units that made the image at these places."""
        found: set[Key] = {("render", u) for units in self.blocks.values() for u in units}
        for rows in self.sources.values():
            found |= {("ingest", r["ingest"]) for r in rows if r["ingest"] is not None}
            found |= {("montage", r["montage"]) for r in rows if r["montage"] is not None}
        return found | ({("align", self.align)} if self.align is not None else set())

    def steps(self, place: int, units: Mapping[Key, Trace]) -> tuple[Trace, ...]:
        """The image blocks at a place, each with the sections and tiles that show it."""
        return tuple(self._block(place, block, units) for block in self.blocks[place] if ("render", block) in units)

    def _block(self, place: int, block: int, units: Mapping[Key, Trace]) -> Trace:
        if (place, block) not in self._done:
            sections = range(self.places[place].lo[0], self.places[place].hi[0])
            found = [self._section(place, block, z, units) for z in sections]
            self._done[place, block] = units["render", block].under(*(s for s in found if s is not None))
        return self._done[place, block]

    def _section(self, place: int, block: int, section: int, units: Mapping[Key, Trace]) -> Trace | None:
        rows = [r for r in self.sources[place, section] if r["block"] == block]
        if not rows:
            return None
        residual = self.residuals.get((place, section), {"n": 0, "median_px": None, "max_px": None})
        plane = self.planes.get((place, section))
        facts = {
            "section": section,
            "alignment_residual_median_px": residual["median_px"],
            "alignment_residual_max_px": residual["max_px"],
            "alignment_matches_near": residual["n"],
            "plane_y_px": plane["plane_y_px"] if plane else None,
            "plane_x_px": plane["plane_x_px"] if plane else None,
        }
        made_by: list[Key] = [("align", self.align)] if self.align is not None else []
        made_by += dict.fromkeys((stage, r[stage]) for stage in ("montage", "ingest") for r in rows)
        steps = [units[k] for k in made_by if k in units]
        return Trace(f"section {section}", "section", facts, (*steps, *(_tile(r, plane) for r in rows)))


def _tile(r: Mapping[str, Any], plane: Mapping[str, Any] | None) -> Trace:
    facts: dict[str, Any] = {
        "path": r["tile"],
        "sha256": r["sha256"],
        "section": r["section"],
        **{n: r[n] for n in ("mean", "std", "saturation", "sharpness", "noise", "membrane_contrast")},
        "montage_matches": r["matches"],
        "pixels_in_block": r["pixels"],
        "ingest_unit": None if r["ingest"] is None else Id(r["ingest"]),
    }
    if plane is not None and r["yy"] is not None:
        dy, dx = plane["plane_y_px"] - r["ty"], plane["plane_x_px"] - r["tx"]
        det = r["yy"] * r["xx"] - r["yx"] * r["xy"]
        if det:
            y, x = (r["xx"] * dy - r["yx"] * dx) / det, (r["yy"] * dx - r["xy"] * dy) / det
            # A place has an extent: a tile may show some of it and not its centre.
            if -0.5 <= y < r["height_px"] - 0.5 and -0.5 <= x < r["width_px"] - 0.5:
                facts |= {"tile_y_px": y, "tile_x_px": x}
    return Trace(f"tile {r['tile']}", "tile", facts)


def images_at(db: Database, places: Sequence[Box]) -> Images:
    """Look up what made the image at each place (boxes in the aligned volume): in memory, or in five queries."""
    ledger, imagery = ledger_of(db), imagery_of(db)
    if ledger is not None and imagery is not None:
        return _in_memory(ledger, imagery, places)
    found = Images(places)
    params: dict[str, Any] = {"k": list(range(len(places)))}
    for i, name in enumerate(("z0", "y0", "x0", "z1", "y1", "x1")):
        params[name] = [p.flat()[i] for p in places]
    for r in db.fetch(_BLOCKS, params):
        found.blocks[r["k"]].append(r["unit"])
    for r in db.fetch(_SOURCES, params):
        found.sources[r["k"], r["section"]].append(r)
    found.residuals = {(r["k"], r["section"]): r for r in db.fetch(_RESIDUALS, params)}
    found.planes = {(r["k"], r["section"]): r for r in db.fetch(_CORNERS, params)}
    align = db.fetch("SELECT min(unit) AS unit FROM unit WHERE stage = 'align'")
    found.align = align[0]["unit"]
    return found


def _in_memory(ledger: Ledger, imagery: Imagery, places: Sequence[Box]) -> Images:
    found = Images(places, align=ledger.first("align"))
    for k, place in enumerate(places):
        found.blocks[k] = ledger.image_blocks(place.flat())
        for r in imagery.sources(place.flat()):
            found.sources[k, r["section"]].append(r)
        y, x = ((place.lo[axis] + place.hi[axis] - 1) / 2 for axis in (1, 2))
        for section in range(place.lo[0], place.hi[0]):
            if residual := imagery.residual(section, y, x, NEAR_PX):
                found.residuals[k, section] = residual
            if plane := imagery.plane(section, y, x):
                found.planes[k, section] = plane
    return found
