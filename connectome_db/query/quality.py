"""The SQL of the views of quality: what was measured, joined by location with synapses and connections when asked.

Boxes are found by a lattice: every metric has cells as large as its largest box, a box is entered in each cell that it
touches (at most two per axis), and a synapse looks in its own. The join is an equality of cells, so its cost grows with
the rows and not with their product.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product
from typing import Any

from connectome_db.query import views
from connectome_db.query.quality_model import TERMS, p_found, p_true
from connectome_db.schema.quality import LEVELS, METRICS
from connectome_db.schema.quality_views import (
    FUNCTIONS,
    LOCAL,
    MEASURED,
    METRIC,
    QUALITY,
    QUALITY_MODEL,
    SHOWN,
)
from connectome_db.spec import Table

HALF = 4.0
"""A metric this many robust spreads worse than the dataset's median halves the quality."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
REFUSED = "quality: "
"""What the messages begin with that SQL raises here."""

Rows = list[dict[str, Any]]


def constant_rows() -> dict[str, Rows]:
    """Rows of the views that come from the package and not from the project."""
    metrics = [
        {"name": m.name, "layer": m.layer, "level": LEVELS[m.layer], "measure": m.measure, "worse": m.worse,
         "doc": m.doc} for m in METRICS.values()
    ]  # fmt: skip
    model = [{"term": term, "value": value, "doc": doc} for term, (value, doc) in TERMS.items()]
    return {METRIC.name: metrics, QUALITY_MODEL.name: model}


def selects(tables: Collection[str], schema: str) -> dict[str, str]:
    """The SELECT behind each view for which the tables are there; the others are empty.

    `schema` is the one that the project's views are in.
    """
    at = f"{views.quote(schema)}."
    have = set(tables)
    made: dict[str, str] = {}
    measured = [t for t in MEASURED if t.name in have]
    if measured:
        made["quality"] = " UNION ALL ".join(_measured(t, at) for t in measured)
    if {"synapse", "stage_record"} <= have:
        if "flag" in have:
            made["synapse_flag"] = _SYNAPSE_FLAG.format(at=at, place=_place(at), inside=_inside("p", "f"))
        made["synapse_quality"] = _synapse_quality(at, measured=bool(measured), flags="flag" in have)
    if {"synapse", "link"} <= have:
        made["connection_quality"] = _CONNECTION_QUALITY.format(at=at)
    elif "connection" in have:
        made["connection_quality"] = _UNMEASURED_CONNECTION.format(at=at)
    return made


def macros(tables: Collection[str], schema: str) -> list[str]:
    """Statements that make the functions `connections` and `weighted_connections` in `schema`."""
    at = f"{views.quote(schema)}."
    have = set(tables)
    body: Mapping[str, str] = {"connections": _CONNECTIONS, "weighted_connections": _WEIGHTED}
    if not {"synapse", "link"} <= have:
        if "connection" not in have:
            return []
        body = {"connections": _LISTED_CONNECTIONS, "weighted_connections": _LISTED_WEIGHTED}
    unmeasured, unflagged = _refused(_why_unmeasured(have)), _refused(_why_unflagged(have))
    condition = _CONDITION.format(
        measured=f"WHEN coalesce(min_quality, 0) > 0 THEN {unmeasured}" if unmeasured else "",
        flags=f"WHEN coalesce(exclude_flagged, false) THEN {unflagged}" if unflagged else "",
    )
    return [
        f"CREATE MACRO {at}{name}({', '.join(f'{p} := {d}' for p, d in FUNCTIONS[name].parameters.items())}) AS TABLE "
        + body[name].format(at=at, condition=condition, known=unmeasured or "true")
        for name in FUNCTIONS
    ]


def _refused(why: str | None) -> str | None:
    return None if why is None else f"error({views.quoted(REFUSED + why)})::BOOLEAN"


def _why_unmeasured(have: set[str]) -> str | None:
    """Why no synapse has a quality; None when some may have."""
    if "listed_synapse" in have or ("connection" in have and "synapse" not in have):
        return ("a connectome that was imported as a list has no images and so no quality: "
                "leave min_quality at 0")  # fmt: skip
    if have & {t.name for t in MEASURED}:
        return None
    return (
        "nothing was measured in this project, so no synapse has a quality: run `dvc repro measure_raw measure_volume` "
        "(dvc.yaml must have these stages), or leave min_quality at 0"
    )


def _why_unflagged(have: set[str]) -> str | None:
    if "flag" in have:
        return None
    return "there is no table `flag` in this project: run `dvc repro flag`, or leave exclude_flagged at false"


def _measured(table: Table, at: str) -> str:
    """A table's rows as rows of `quality`."""
    own = {c.name for c in table.columns}
    special = {"stage": "layer AS stage", "tile": "tile" if "tile" in own else "NULL::VARCHAR AS tile"}
    return f"SELECT {', '.join(special.get(c.name, c.name) for c in QUALITY.columns)} FROM {at}{table.name}"


def _place(at: str) -> str:
    """Synapses with their place in nm."""
    nm = ", ".join(f"(s.{a}_vx + 0.5) * r.voxel_{a}_nm AS {a}_nm" for a in "zyx")
    voxel = f"SELECT voxel_z_nm, voxel_y_nm, voxel_x_nm FROM {at}stage_record WHERE stage = 'synapses'"
    return f"SELECT s.synapse, s.confidence, {nm} FROM {at}synapse s CROSS JOIN ({voxel}) r"


def _inside(point: str, box: str) -> str:
    return " AND ".join(f"{point}.{a}_nm >= {box}.{a}0_nm AND {point}.{a}_nm < {box}.{a}1_nm" for a in "zyx")


def _synapse_quality(at: str, *, measured: bool, flags: bool) -> str:
    ctes = [f"place AS ({_place(at)})"]
    values = ", ".join(f"NULL::DOUBLE AS {n}, NULL::DOUBLE AS {n}_dev" for n in SHOWN)
    deviating = f"deviating AS (SELECT p.*, {values} FROM place p)"
    if measured:
        ctes += _local_ctes(at)
        values = ", ".join(f"l.{n}, {_sign(n)} * (l.{n} - m.{n}) / nullif(m.{n}_spread, 0) AS {n}_dev" for n in SHOWN)
        deviating = (
            f"deviating AS (SELECT p.*, {values} FROM place p LEFT JOIN here l USING (synapse) CROSS JOIN middle m)"
        )
    worst = ", ".join(f"{n}_dev" for n in LOCAL)
    ctes += [deviating, f"judged AS (SELECT *, least({worst}) AS worst_dev FROM deviating)"]
    told = "NULL::VARCHAR AS flags, NULL::BOOLEAN AS flagged"
    join = ""
    if flags:
        told = "coalesce(f.flags, '') AS flags, coalesce(f.flagged, false) AS flagged"
        join = (
            "LEFT JOIN (SELECT synapse, string_agg(flag, ', ' ORDER BY flag) AS flags, bool_or(counts) AS flagged "
            f"FROM {at}synapse_flag GROUP BY synapse) f USING (synapse)"
        )
    which = " ".join(f"WHEN j.{n}_dev THEN '{n}'" for n in LOCAL)
    low = f"least(j.worst_dev, 0) + {HALF}"
    return (
        f"WITH {', '.join(ctes)} SELECT j.synapse, j.z_nm, j.y_nm, j.x_nm, "
        f"(1 + exp(-{HALF})) / (1 + exp(-({low}))) * CASE WHEN j.worst_dev IS NULL THEN NULL ELSE 1 END AS quality, "
        f"CASE j.worst_dev {which} END AS worst_metric, j.worst_dev, {told}, "
        f"{p_true('j.confidence', 'j.worst_dev')} AS p_true, {p_found('j.worst_dev')} AS p_found, "
        + ", ".join(f"j.{n}, j.{n}_dev" for n in SHOWN)
        + f" FROM judged j {join}"
    )


def _sign(metric: str) -> int:
    return -1 if METRICS[metric].worse == "high" else 1


def _local_ctes(at: str) -> list[str]:
    """`here`: each metric where each synapse lies; `middle`: each metric's median and spread over the dataset."""
    wanted = ", ".join(views.quoted(n) for n in SHOWN)
    keys = ", ".join(f"floor({a}0_nm / c.{a}_step)::INTEGER + o.{a} AS k{a}" for a in "zyx")
    touched = " AND ".join(f"(floor({a}0_nm / c.{a}_step) + o.{a}) * c.{a}_step < {a}1_nm" for a in "zyx")
    looked = ", ".join(f"floor(p.{a}_nm / c.{a}_step)::INTEGER AS k{a}" for a in "zyx")
    offsets = ", ".join(str(v) for v in product((0, 1), repeat=3))
    means = ", ".join(
        f"sum(value * weight) FILTER (i = {i}) / sum(weight) FILTER (i = {i}) AS {n}" for i, n in enumerate(SHOWN)
    )
    middles = ", ".join(
        f"max(middle) FILTER (i = {i}) AS {n}, max(spread) FILTER (i = {i}) AS {n}_spread" for i, n in enumerate(SHOWN)
    )
    return [
        f"measured AS (SELECT list_position([{wanted}], metric) - 1 AS i, value, weight, z0_nm, y0_nm, x0_nm, z1_nm, "
        f"y1_nm, x1_nm FROM {at}quality WHERE metric IN ({wanted}) AND weight > 0)",
        "lattice AS MATERIALIZED (SELECT i, median(value) AS middle, "
        f"coalesce(nullif({NORMAL} * mad(value), 0), stddev_pop(value)) AS spread, max(z1_nm - z0_nm) AS z_step, "
        "max(y1_nm - y0_nm) AS y_step, max(x1_nm - x0_nm) AS x_step FROM measured GROUP BY i)",
        f"boxes AS (SELECT m.*, {keys} FROM measured m JOIN lattice c USING (i) "
        f"CROSS JOIN (VALUES {offsets}) o(z, y, x) WHERE {touched})",
        f"points AS (SELECT p.synapse, p.z_nm, p.y_nm, p.x_nm, c.i, {looked} FROM place p CROSS JOIN lattice c)",
        f"here AS (SELECT synapse, {means} FROM (SELECT p.synapse, b.i, b.value, b.weight FROM points p JOIN boxes b "
        f"ON b.i = p.i AND b.kz = p.kz AND b.ky = p.ky AND b.kx = p.kx AND {_inside('p', 'b')}) GROUP BY synapse)",
        f"middle AS (SELECT {middles} FROM lattice)",
    ]


_SYNAPSE_FLAG = """
SELECT p.synapse, f.flag, f.worse AND f.severity IN ('warning', 'serious') AS counts
FROM ({place}) p JOIN {at}flag f ON {inside}
"""

_CONNECTION_QUALITY = """
WITH edge AS (SELECT l.pre, l.post, l.synapse, q.* EXCLUDE (synapse)
              FROM {at}link l JOIN {at}synapse_quality q USING (synapse) WHERE l.counted),
named AS (SELECT pre, post, string_agg(flag, ', ' ORDER BY flag) AS names
          FROM (SELECT DISTINCT l.pre, l.post, f.flag FROM {at}link l JOIN {at}synapse_flag f USING (synapse)
                WHERE l.counted) GROUP BY pre, post)
SELECT e.pre, e.post, count(*) AS synapses, count(e.quality) AS measured, avg(e.quality) AS quality_mean,
       min(e.quality) AS quality_min,
       arg_min(e.worst_metric, (e.quality, e.synapse)) FILTER (e.quality IS NOT NULL) AS worst_metric,
       CASE WHEN count(e.flagged) > 0 THEN count(*) FILTER (e.flagged) END AS synapses_flagged,
       CASE WHEN count(e.flagged) > 0 THEN coalesce(any_value(n.names), '') END AS flags
FROM edge e LEFT JOIN named n ON n.pre = e.pre AND n.post = e.post GROUP BY e.pre, e.post
"""

_UNMEASURED_CONNECTION = """
SELECT pre, post, synapses, 0::BIGINT AS measured, NULL::DOUBLE AS quality_mean, NULL::DOUBLE AS quality_min,
       NULL::VARCHAR AS worst_metric, NULL::BIGINT AS synapses_flagged, NULL::VARCHAR AS flags FROM {at}connection
"""

_RANGE = REFUSED + "min_quality: wanted a number from 0 to 1, got "
_CONDITION = f"""
CASE WHEN min_quality > 1 OR min_quality < 0 THEN error('{_RANGE}' || min_quality)::BOOLEAN
     {{measured}} {{flags}}
     ELSE (coalesce(min_quality, 0) = 0 OR coalesce(q.quality >= min_quality, false))
          AND NOT (coalesce(exclude_flagged, false) AND coalesce(q.flagged, false)) END
"""

_CONNECTIONS = """
WITH judged AS (
  SELECT l.pre, l.post, s.size_vx, s.confidence, q.quality, {condition} AS passes
  FROM {at}link l JOIN {at}synapse s USING (synapse) JOIN {at}synapse_quality q USING (synapse) WHERE l.counted
)
SELECT pre, post, count(*) FILTER (passes) AS synapses, count(*) FILTER (NOT passes) AS left_out,
       (sum(size_vx) FILTER (passes))::BIGINT AS size_vx, avg(confidence) FILTER (passes) AS confidence,
       avg(quality) FILTER (passes) AS quality_mean, min(quality) FILTER (passes) AS quality_min
FROM judged GROUP BY pre, post HAVING count(*) FILTER (passes) >= greatest(coalesce(min_synapses, 1), 1)
"""

_LISTED_CONNECTIONS = """
SELECT pre, post, synapses, 0::BIGINT AS left_out, size_vx, confidence, quality AS quality_mean, quality AS quality_min
FROM (SELECT *, NULL::DOUBLE AS quality, NULL::BOOLEAN AS flagged FROM {at}connection) q
WHERE {condition} AND synapses >= greatest(coalesce(min_synapses, 1), 1)
"""

_WEIGHTED = """
WITH judged AS (
  SELECT l.pre, l.post, q.quality, q.p_true AS p, q.p_found AS r
  FROM {at}link l JOIN {at}synapse_quality q USING (synapse) WHERE l.counted AND {known}
),
summed AS (
  SELECT pre, post, count(*) AS synapses, count(quality) AS measured, sum(p) AS expected, sum(p / r) AS estimate,
         sqrt(sum(p * (2 - r - p) / (r * r))) AS error, avg(quality) AS quality_mean
  FROM judged GROUP BY pre, post
)
SELECT pre, post, synapses, measured, expected, estimate, greatest(estimate - 1.96 * error, 0) AS low,
       estimate + 1.96 * error AS high, quality_mean
FROM summed WHERE synapses >= coalesce(min_synapses, 1)
"""
# Each counted synapse is true with p and then stands for a geometric number of true ones, itself and those missed
# before one is found: X = B G, E[X] = p/r, Var[X] = p (2 - r)/r^2 - (p/r)^2. Without misses it is Poisson-binomial.

_LISTED_WEIGHTED = """
SELECT pre, post, synapses, 0::BIGINT AS measured, 0.0 AS expected, 0.0 AS estimate, 0.0 AS low, 0.0 AS high,
       NULL::DOUBLE AS quality_mean FROM {at}connection WHERE {known} AND synapses >= min_synapses
"""
