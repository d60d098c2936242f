"""Raw data compared between two versions: which tiles of which sections were replaced, added, removed or moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from connectome_db.plans import FAR
from connectome_db.query.compare.causesets import Cause, CauseSets, shown
from connectome_db.query.compare.changes import I64, StageData
from connectome_db.spec import RAW

PLACE = ("stage_y_px", "stage_x_px", "height_px", "width_px")
Tiles = dict[tuple[int, str], dict[str, object]]


Differing = tuple[I64, I64]
"""Parts that differ: boxes int64[k, 6], and the set of causes of each, int64[k]."""


def raw_changes(name: str, root_a: Path, root_b: Path, a: StageData, b: StageData, sets: CauseSets) -> Differing:
    """What differs in the raw input `name` ("raw.tiles") of a stage that both versions have.

    Tiles are compared section by section, as units read them. Other inputs are one part, and so are tiles of which
    only the listing differs.
    """
    old, new = a.record["inputs"].get(name, ""), b.record["inputs"].get(name, "")
    if old == new:
        return np.zeros((0, 6), np.int64), np.zeros(0, np.int64)
    if name == RAW:
        by_section: dict[int, list[Cause]] = {}
        for cause in _tile_causes(_tiles(root_a), _tiles(root_b)):
            by_section.setdefault(cause.section or 0, []).append(cause)
        if by_section:
            boxes = [[z, -FAR, -FAR, z + 1, FAR, FAR] for z in by_section]
            found = [sets.of(causes) for causes in by_section.values()]
            return np.asarray(boxes, np.int64), np.asarray(found, np.int64)
    whole = sets.of([source_cause(a, b) or Cause("source", "", name, old=old[:12], new=new[:12])])
    return np.asarray([[-FAR, -FAR, -FAR, FAR, FAR, FAR]], np.int64), np.asarray([whole], np.int64)


def source_cause(a: StageData, b: StageData) -> Cause | None:
    """The cause for a record whose `source` (what an imported stage was read from) differs; None when it does not."""
    old, new = a.record.get("source"), b.record.get("source")
    if old == new or not isinstance(new, Mapping):
        return None
    x, y = (s if isinstance(s, Mapping) else {} for s in (old, new))
    name = Path(str(y.get("file") or a.stage)).name
    differing = [k for k in sorted(x.keys() | y.keys()) if x.get(k) != y.get(k)]
    said = [
        ", ".join(f"{k} {str(side[k])[:12] if k == 'sha256' else shown(side[k])}" for k in differing if k in side)
        for side in (x, y)
    ]
    return Cause("source", "", name, old=said[0], new=said[1])


def _tiles(root: Path) -> Tiles:
    """By (section, tile), what a unit that reads the tile sees of it; `problem` is "" for usable tiles."""
    found: Tiles = {}
    for table, columns in (("tile", ("sha256", "dtype", *PLACE)), ("tile_issue", ("problem", "detail"))):
        path = root / "data" / "ingest" / f"{table}.parquet"
        if path.is_file():
            for row in pq.read_table(path, columns=["section", "tile", *columns]).to_pylist():
                key = (row.pop("section"), row.pop("tile"))
                found[key] = {**found.get(key, {}), **row}
    return found


def _tile_causes(old: Tiles, new: Tiles) -> Iterator[Cause]:
    """Sections that came or went are one cause each; other tiles one each."""
    sections_old, sections_new = {z for z, _ in old}, {z for z, _ in new}
    for z in sorted(sections_old ^ sections_new):
        tiles = sum(1 for key in (*old, *new) if key[0] == z)
        came = z in sections_new
        yield Cause("tile", "", section=z, note=f"section {'added' if came else 'removed'}, {tiles} tiles")
    for z, tile in sorted(old.keys() | new.keys()):
        if z in sections_old and z in sections_new and old.get((z, tile)) != new.get((z, tile)):
            yield _tile_cause(z, tile, old.get((z, tile)), new.get((z, tile)))


def _tile_cause(z: int, tile: str, x: dict[str, object] | None, y: dict[str, object] | None) -> Cause:
    if x is None or y is None:
        return Cause("tile", "", tile, section=z, note="added" if x is None else "removed")
    if x.get("problem") != y.get("problem"):
        return Cause(
            "tile", "", tile, section=z, old=str(x.get("problem", "usable")), new=str(y.get("problem", "usable"))
        )
    if x.get("sha256") != y.get("sha256"):
        old, new = (f"sha256 {str(v.get('sha256', ''))[:12]}" for v in (x, y))
        return Cause("tile", "", tile, section=z, old=old, new=new, note="replaced")
    places = [[v.get(c) for c in PLACE] for v in (x, y)]
    if places[0] != places[1]:
        old, new = (f"y {p[0]:g}, x {p[1]:g}" for p in places)
        return Cause("tile", "", tile, section=z, old=old, new=new, note="placed otherwise")
    return Cause("tile", "", tile, section=z, note="read otherwise")
