"""The SQL of the views of quality: what was measured, joined by location with synapses and connections when asked.

Place is told by cells: a lattice from the origin with the steps of the largest cell that `measure_volume` measured. A
metric's value in a cell is the mean over the boxes that touch it, by weight and by the share of the box that is in it.
A synapse looks up its own cell: an equality, so the cost grows with the rows and not with their product.

The deviation is the cell's value less the median over all cells, in robust spreads, negative where it costs quality.
The spread is that of a normal distribution whose better half lies as near to the median: what went wrong in some part
of a volume is in the worse half, and must not hide itself by widening what passes for normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    have = _judged(tables)
    made: dict[str, str] = {}
    measured = [t for t in MEASURED if t.name in have]
    if measured:
        made["quality"] = " UNION ALL ".join(_measured(t, at) for t in measured)
    if {"synapse", "stage_record"} <= have:
        if "flag" in have:
            made["synapse_flag"] = _SYNAPSE_FLAG.format(at=at, place=_place(at), inside=_inside("p", "f"))
        made["synapse_quality"] = at_places(_place(at), at, measured=bool(measured), flags="flag" in have)
    if {"synapse", "link"} <= have:
        made["connection_quality"] = _CONNECTION_QUALITY.format(at=at)
    elif "connection" in have:
        made["connection_quality"] = _UNMEASURED_CONNECTION.format(at=at)
    return made


def _judged(tables: Collection[str]) -> set[str]:
    """The tables that quality is joined to: the views `synapse` and `link` of an imported list have no images."""
    return set(tables) - ({"synapse", "link"} if "listed_synapse" in tables else set())


def macros(tables: Collection[str], schema: str) -> list[str]:
    """Statements that make the functions `connections` and `weighted_connections` in `schema`."""
    at = f"{views.quote(schema)}."
    have = _judged(tables)
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


_LISTED = "a connectome that was imported as a list has no images, so there is no quality to ask for"


def _why_unmeasured(have: set[str]) -> str | None:
    """Why no synapse has a quality; None when some may have."""
    if have & {t.name for t in MEASURED}:
        return None
    if "synapse" not in have:
        return _LISTED
    return (
        "nothing was measured in this project, so no synapse has a quality: run `dvc repro measure_raw measure_volume`"
    )


def _why_unflagged(have: set[str]) -> str | None:
    if "flag" in have:
        return None
    return _LISTED if "synapse" not in have else "there is no table `flag` in this project: run `dvc repro flag`"


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


def at_places(place: str, at: str = "", *, measured: bool = True, flags: bool = False) -> str:
    """The SELECT of `synapse_quality` for the rows of `place`: synapse, confidence, z_nm, y_nm, x_nm.

    `at` stands before the names of views. Without `measured` and `flags` what they would say is null.
    """
    ctes = [f"place AS ({place})"]
    values = ", ".join(f"NULL::DOUBLE AS {n}, NULL::DOUBLE AS {n}_dev" for n in SHOWN)
    deviating = f"deviating AS (SELECT p.*, {values} FROM place p)"
    if measured:
        ctes += _cells(at)
        values = ", ".join(f"c.{n}, ({_of(n, f'c.{n}')} - m.{n}) / m.{n}_spread AS {n}_dev" for n in SHOWN)
        here = " AND ".join(f"c.k{a} = floor(p.{a}_nm / s.{a}_step)::INTEGER" for a in "zyx")
        deviating = (
            f"deviating AS (SELECT p.*, {values} FROM place p CROSS JOIN step s CROSS JOIN middle m "
            f"LEFT JOIN cell c ON {here})"
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


def _of(metric: str, value: str) -> str:
    """SQL of a value so that more is better; of what is 0 at its best, the square root, which has no long tail."""
    return f"-sqrt({value})" if METRICS[metric].worse == "high" else value


def _cells(at: str) -> list[str]:
    """WITH clauses: `cell` has each metric's mean per cell, `middle` its median and spread over the cells."""
    wanted = ", ".join(views.quoted(n) for n in SHOWN)
    better = " ".join(f"WHEN {i} THEN {_of(n, 'value')}" for i, n in enumerate(SHOWN, 1))
    box = ", ".join(f"{a}{end}_nm" for end in (0, 1) for a in "zyx")
    steps = ", ".join(
        f"coalesce(max({a}1_nm - {a}0_nm) FILTER (cell), max({a}1_nm - {a}0_nm)) AS {a}_step" for a in "zyx"
    )

    def along(a: str) -> str:
        return f"unnest(range(floor({a}0_nm / {a}_step)::INTEGER, ceil({a}1_nm / {a}_step)::INTEGER))::INTEGER AS k{a}"

    share = " * ".join(
        f"(least({a}1_nm, (k{a} + 1) * {a}_step) - greatest({a}0_nm, k{a} * {a}_step)) / ({a}1_nm - {a}0_nm)"
        for a in "zyx"
    )
    means = ", ".join(f"max(value) FILTER (i = {i}) AS {n}" for i, n in enumerate(SHOWN, 1))
    middles = ", ".join(
        f"max(middle) FILTER (i = {i}) AS {n}, max(spread) FILTER (i = {i}) AS {n}_spread"
        for i, n in enumerate(SHOWN, 1)
    )
    solid = " AND ".join(f"{a}1_nm > {a}0_nm" for a in "zyx")
    return [
        f"measured AS (SELECT list_position([{wanted}], metric) AS i, value, weight, tile IS NULL AS cell, {box} "
        f"FROM {at}quality WHERE metric IN ({wanted}) AND weight > 0 AND {solid})",
        f"step AS MATERIALIZED (SELECT {steps} FROM measured)",
        f"along_z AS (SELECT m.*, s.*, {along('z')} FROM measured m CROSS JOIN step s)",
        f"along_y AS (SELECT *, {along('y')} FROM along_z)",
        f"along_x AS (SELECT *, {along('x')} FROM along_y)",
        f"shared AS (SELECT i, kz, ky, kx, value, weight * {share} AS share FROM along_x)",
        "mean AS MATERIALIZED (SELECT i, kz, ky, kx, sum(value * share) / sum(share) AS value FROM shared "
        "WHERE share > 0 GROUP BY i, kz, ky, kx)",
        f"cell AS (SELECT kz, ky, kx, {means} FROM mean GROUP BY kz, ky, kx)",
        f"oriented AS (SELECT i, CASE i {better} END AS value FROM mean)",
        "halved AS (SELECT i, median(value) AS middle, stddev_pop(value) AS sd FROM oriented GROUP BY i)",
        f"scale AS (SELECT i, any_value(middle) AS middle, nullif(coalesce({NORMAL} * median(value - middle) "
        "FILTER (value > middle), any_value(sd)), 0) AS spread FROM oriented JOIN halved USING (i) GROUP BY i)",
        f"middle AS (SELECT {middles} FROM scale)",
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
