"""The SQL behind `connections` and `synapses`: conditions become bound values, never text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.query.database import Database

U64 = np.typing.NDArray[np.uint64]
Box = Sequence[Any]


def connections(
    db: Database, pre: U64 | None, post: U64 | None, *, min_count: int, min_quality: float | None,
    exclude_flagged: bool, roi: str | None,
) -> pa.Table:  # fmt: skip
    """Connections that meet all conditions, strongest first."""
    values: dict[str, Any] = {"n": min_count}
    if roi is not None:
        if min_quality is not None or exclude_flagged:
            raise QueryError("roi and quality cannot be asked for together: lists that name regions have no quality")
        source, values["roi"] = _IN_ROI, _known_roi(db, roi)
    elif min_quality is not None or exclude_flagged:
        source = "(FROM connections(min_quality => $quality, exclude_flagged => $flagged))"
        values |= {"quality": float(min_quality or 0), "flagged": exclude_flagged}
    else:
        by_post = pre is None and post is not None and db.has("connection_by_post")
        source = "(SELECT * EXCLUDE (unit) FROM " + ("connection_by_post)" if by_post else "connection)")
    where, beside = _ends(pre, post, values)
    rows = db.rows(
        f"SELECT * FROM {source} c WHERE c.synapses >= $n{where} ORDER BY c.synapses DESC, c.pre, c.post",
        values, beside=beside,
    )  # fmt: skip
    return without_unknown(db, rows)


FEW = 200
"""Ids up to which each is a bound value of its own: the row groups that hold none of them are then never read."""


def _ends(pre: U64 | None, post: U64 | None, values: dict[str, Any]) -> tuple[str, dict[str, pa.Table]]:
    """Conditions on both ends, and tables of ids to stand beside; few ids become `values`."""
    where, beside = "", {}
    for side, ids in (("pre", pre), ("post", post)):
        if ids is None:
            continue
        if 0 < len(ids) <= FEW:
            bound = {f"{side}{k}": n for k, n in enumerate(ids.tolist())}
            values |= bound
            where += f" AND c.{side} IN ({', '.join(f'${name}::UBIGINT' for name in bound)})"
        else:
            where += f" AND c.{side} IN (SELECT id FROM asked_{side})"
            beside[f"asked_{side}"] = pa.table({"id": pa.array(ids, pa.uint64())})
    return where, beside


def without_unknown(db: Database, rows: pa.Table) -> pa.Table:
    """Without the columns that an imported connectome cannot know: those that say nothing in any row."""
    if not db.has("listed_synapse"):
        return rows
    return rows.select([n for n in rows.column_names if rows.num_rows == 0 or rows[n].null_count < rows.num_rows])


_IN_ROI = """
(SELECT pre, post, sum(synapses)::BIGINT AS synapses FROM listed_synapse WHERE roi = $roi GROUP BY pre, post)
"""


def _known_roi(db: Database, roi: str) -> str:
    regions = [r["roi"] for r in db.fetch("SELECT DISTINCT roi FROM listed_synapse WHERE roi IS NOT NULL")] if (
        db.has("listed_synapse")
    ) else []  # fmt: skip
    if not regions:
        raise QueryError(f"roi={roi!r}: no list of this project names regions")
    if roi not in regions:
        raise QueryError(f"no region {roi!r}{nearest(roi, regions)}")
    return roi


_NATIVE = """
SELECT c.synapse, c.pre, c.post, (s.z_vx + 0.5) * r.voxel_z_nm AS z_nm, (s.y_vx + 0.5) * r.voxel_y_nm AS y_nm,
       (s.x_vx + 0.5) * r.voxel_x_nm AS x_nm, s.size_vx, s.confidence, q.quality, s.unit
FROM {link} c JOIN synapse s USING (synapse) {quality} synapse_quality q USING (synapse)
CROSS JOIN (SELECT voxel_z_nm, voxel_y_nm, voxel_x_nm FROM stage_record WHERE stage = 'graph') r
WHERE c.counted{where}{inside} ORDER BY c.synapse
"""
_LISTED = """
SELECT c.synapse, c.pre, c.post, c.synapses, c.z_vx * r.voxel_z_nm AS z_nm, c.y_vx * r.voxel_y_nm AS y_nm,
       c.x_vx * r.voxel_x_nm AS x_nm, c.size, c.confidence, c.roi, c.source_id, c.unit
FROM {link} c CROSS JOIN (SELECT voxel_z_nm, voxel_y_nm, voxel_x_nm FROM stage_record WHERE stage = 'listing') r
WHERE true{where}{inside} ORDER BY c.synapse
"""


def synapses(
    db: Database, pre: U64 | None, post: U64 | None, box_nm: Box | None, *, min_quality: float | None,
    min_confidence: float | None, limit: int | None,
) -> pa.Table:  # fmt: skip
    """Synapses (of a list: its rows) that meet all conditions, by id, with their places in nm."""
    listed = db.has("listed_synapse")
    values: dict[str, Any] = {}
    where, beside = _ends(pre, post, values)
    inside = ""
    point = "c" if listed else "s"
    if box_nm is not None:
        shift = 0.0 if listed else 0.5
        for axis, size, (low, high) in zip("zyx", db.voxel_nm, _box(box_nm), strict=True):
            inside += f" AND {point}.{axis}_vx >= ${axis}0 AND {point}.{axis}_vx < ${axis}1"
            values |= {f"{axis}0": low / size - shift, f"{axis}1": high / size - shift}
    if min_confidence is not None:
        inside += f" AND {point}.confidence >= $confidence"
        values["confidence"] = float(min_confidence)
    if min_quality is not None:
        if listed:
            raise QueryError("min_quality: a connectome that was imported as a list has no images, so no quality")
        inside += " AND q.quality >= $quality"
        values["quality"] = float(min_quality)
    template = (_LISTED if listed else _NATIVE) + ("" if limit is None else " LIMIT $most")
    if limit is not None:
        values["most"] = limit
    link = _copy(db, "listed_synapse" if listed else "link", pre, post, box_nm)
    text = template.format(link=link, where=where, inside=inside, quality="LEFT JOIN")
    return without_unknown(db, db.rows(text, values, beside=beside))


def _copy(db: Database, table: str, pre: U64 | None, post: U64 | None, box_nm: Box | None) -> str:
    """The copy of a table that is sorted by what is asked for; the table itself where there is none."""
    by = "by_pre" if pre is not None else "by_post" if post is not None else "by_place" if box_nm is not None else ""
    return f"{table}_{by}" if by and db.has(f"{table}_{by}") else table


def _box(box_nm: Box) -> list[tuple[float, float]]:
    """((z0, y0, x0), (z1, y1, x1)) or six numbers -> (low, high) per axis. Raises QueryError."""
    six = [float(v) for part in box_nm for v in (part if hasattr(part, "__iter__") else [part])]
    if len(six) != 6 or any(low >= high for low, high in zip(six[:3], six[3:], strict=True)):
        raise QueryError(f"box_nm {box_nm!r}: wanted ((z0, y0, x0), (z1, y1, x1)) in nm, each end above its start")
    return list(zip(six[:3], six[3:], strict=True))
