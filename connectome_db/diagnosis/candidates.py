"""Where to look: boxes that flags, overrides or lost tiles point to, and the ways in which a person may name a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from connectome_db.diagnosis.cells import CORNERS, BoxNm
from connectome_db.diagnosis.compare import share_inside
from connectome_db.diagnosis.facts import overridden
from connectome_db.errors import QueryError, nearest
from connectome_db.schema.quality import LEVELS

_RANK = {"serious": 0, "warning": 1, "info": 2}
WORDS = ("centre", "top-left", "top-right", "bottom-left", "bottom-right")
"""Boxes by name in every volume: the middle half of each side, and the quarters (top is low y, left is low x)."""


@dataclass(frozen=True)
class Candidate:
    """A box to look at, and who points to it."""

    name: str | None
    box_nm: BoxNm
    level: str
    """Layer (L1 to L5) of the flag; "" for an override."""
    says: str
    spread: float = 0.0
    p_found: float | None = None
    """Of a box that was sought where synapses are fewest: the p-value that allows for the search."""


LEAST_SHARE = 0.04
"""Boxes with less of the volume than this cannot explain much of its wiring; the flags tell of them."""


def candidates(root: Path, bounds: BoxNm, most: int = 12) -> list[Candidate]:
    """Boxes worth a diagnosis, those of early layers first; boxes that nearly coincide are one."""
    found = [Candidate(name, box, "", f"parameters differ in region {name!r}") for name, box in overridden(root)]
    flags = [f for f in _flags(root) if float(share_inside(np.asarray([bounds]), f.box_nm)[0]) >= LEAST_SHARE]
    kept: list[Candidate] = []
    for c in [*found, *sorted(flags, key=lambda f: (f.level, -f.spread))]:
        if all(overlap(c.box_nm, other.box_nm) < 0.6 for other in kept if other.level == c.level or c.level > "L3"):
            kept.append(c)
    return kept[:most]


def _flags(root: Path) -> list[Candidate]:
    path = root / "data" / "flag" / "flag.parquet"
    if not path.is_file():
        raise QueryError(f"{root}: no table flag: stage flag has not been run; run `dvc repro flag`")
    out = []
    for row in pq.read_table(path).to_pylist():
        if row["worse"] and _RANK[row["severity"]] <= 1:
            six = [float(row[c]) for c in CORNERS]
            box = (six[0], six[1], six[2], six[3], six[4], six[5])
            out.append(Candidate(None, box, LEVELS[row["layer"]], row["evidence"], abs(float(row["spread"]))))
    return out


def overlap(a: BoxNm, b: BoxNm) -> float:
    """Intersection over union of two boxes."""
    both = float(share_inside(np.asarray([a]), b)[0]) * volume_nm3(a)
    return both / max(volume_nm3(a) + volume_nm3(b) - both, 1e-9)


def volume_nm3(box: BoxNm) -> float:
    """Volume of a box."""
    return float(np.prod([max(0.0, box[k + 3] - box[k]) for k in range(3)]))


def named_box(text: str, bounds: BoxNm, regions: Sequence[tuple[str, BoxNm]]) -> tuple[str, BoxNm]:
    """A box from a region's name, a word (`centre`, `top-left` ...), or six numbers in nm. Raises QueryError."""
    known = dict(regions)
    if text in known:
        return text, known[text]
    if text in WORDS:
        return text, _worded(text, bounds)
    parts = text.strip("[]() ").split(",")
    if len(parts) != 6:
        raise QueryError(
            f"region {text!r}: wanted the name of a region{nearest(text, [*known, *WORDS])}, "
            f"one of {', '.join(WORDS)}, or six numbers z0,y0,x0,z1,y1,x1 in nm"
        )
    try:
        six = [float(v) for v in parts]
    except ValueError as e:
        raise QueryError(f"region {text!r}: wanted six numbers z0,y0,x0,z1,y1,x1 in nm; {e}") from e
    box = (six[0], six[1], six[2], six[3], six[4], six[5])
    if any(box[k] >= box[k + 3] for k in range(3)) or share_inside(np.asarray([bounds]), box)[0] == 0:
        raise QueryError(
            f"region {text!r}: wanted a box (z0,y0,x0,z1,y1,x1) in nm within the volume {[round(v) for v in bounds]}"
        )
    return text, box


def _worded(word: str, bounds: BoxNm) -> BoxNm:
    z0, y0, x0, z1, y1, x1 = bounds
    height, width = y1 - y0, x1 - x0
    if word == "centre":
        return (z0, y0 + height / 4, x0 + width / 4, z1, y1 - height / 4, x1 - width / 4)
    top, left = word.startswith("top"), word.endswith("left")
    ya, yb = (y0, y0 + height / 2) if top else (y0 + height / 2, y1)
    xa, xb = (x0, x0 + width / 2) if left else (x0 + width / 2, x1)
    return (z0, ya, xa, z1, yb, xb)
