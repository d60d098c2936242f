"""The SQL behind the views: science tables as they lie in `data/`, and provenance gathered over all stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from connectome_db.errors import QueryError
from connectome_db.schema.all import outputs_of
from connectome_db.schema.imported import IMPORTED_SYNAPSE
from connectome_db.spec import Column, Table

Json = Mapping[str, Any]


def quoted(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def union(table: Table, files: Mapping[str, Path], columns: Mapping[str, str] | None = None) -> str | None:
    """SELECT of `table`'s columns over one Parquet file per stage, with the stage in front; None without files."""
    special = columns or {}
    names = [c.name for c in table.columns if c.name != "stage"]
    selects = []
    for stage, path in files.items():
        fields = ", ".join(
            f"{special[n].format(stage=quoted(stage))} AS {quote(n)}" if n in special else quote(n) for n in names
        )
        selects.append(f"SELECT {quoted(stage)} AS stage, {fields} FROM read_parquet({quoted(str(path))})")
    return " UNION ALL ".join(selects) if selects else None


_TYPES = {
    "uint64": "UBIGINT",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "float32": "FLOAT",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
}


def create(table: Table) -> str:
    """CREATE TABLE with a table's columns and types."""
    columns = ", ".join(f"{quote(c.name)} {_TYPES[c.dtype]}" for c in table.columns)
    return f"CREATE TABLE {quote(table.name)} ({columns})"


def comments(table: Table, columns: Iterable[Column], what: str) -> str:
    """Statements that tell DuckDB the meaning of a table (`what` is TABLE or VIEW) and of each column."""
    name = quote(table.name)
    told = [f"COMMENT ON {what} {name} IS {quoted(table.doc)}"]
    for c in columns:
        meaning = f"{c.doc} [{c.unit}]" if c.unit else c.doc
        told.append(f"COMMENT ON COLUMN {name}.{quote(c.name)} IS {quoted(meaning)}")
    return "; ".join(told)


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


OUTPUT_NAME = "CASE WHEN contains(output, '.') THEN output ELSE {stage} || '.' || output END"
"""Parts name their output within the stage; the view gives it the name by which readers ask for it."""

UNIT_EDGE = """
SELECT r.stage, r.unit, r.input, p.stage AS upstream_stage, p.maker AS upstream_unit, p.unit AS part, p.digest
FROM unit_read r
JOIN (
  SELECT *, unit AS maker FROM part WHERE stage NOT IN (SELECT stage FROM unit WHERE kind = 'once')
  UNION ALL
  SELECT part.*, s.unit FROM part JOIN (SELECT stage, unit FROM unit WHERE kind = 'once') s USING (stage)
) p ON p.output = r.input
  AND p.z0 < r.z1 AND r.z0 < p.z1 AND p.y0 < r.y1 AND r.y0 < p.y1 AND p.x0 < r.x1 AND r.x0 < p.x1
  AND r.z0 < r.z1 AND r.y0 < r.y1 AND r.x0 < r.x1
"""
"""An empty read box touches nothing; the sections of a `once` stage's output were all made by its one unit.

That is said of the parts before they are joined, so that a condition on `upstream_unit` is met by few of them.
"""

EXECUTION = """
SELECT e.*, r."user" FROM executed e LEFT JOIN run r ON r.stage = e.stage AND r.run_id = e.run_id
"""


def imported_views(min_synapses: int) -> dict[str, str]:
    """SELECTs of `synapse` and `link` over `listed_synapse`, for an imported connectome; what is unknown is NULL.

    With `min_synapses` above 1, rows of pairs that have no connection are not counted.
    """
    told = {"synapse": "synapse", "z_vx": "z_vx", "y_vx": "y_vx", "x_vx": "x_vx", "confidence": "confidence"}
    synapse = ", ".join(
        f"{told[c.name]} AS {quote(c.name)}" if c.name in told else f"NULL::{_TYPES[c.dtype]} AS {quote(c.name)}"
        for c in IMPORTED_SYNAPSE.columns
    )
    found = {"synapse": f"SELECT unit, {synapse} FROM listed_synapse"}
    if min_synapses <= 1:
        counted, reason, source = "true", "'counted'", "listed_synapse s"
    else:
        counted, reason = "c.pre IS NOT NULL", "CASE WHEN c.pre IS NULL THEN 'too few synapses' ELSE 'counted' END"
        source = "listed_synapse s LEFT JOIN connection c ON c.pre = s.pre AND c.post = s.post"
    link = f"s.unit, s.synapse, s.pre, s.post, {counted} AS counted, {reason} AS reason"
    return found | {"link": f"SELECT {link}, NULL::UBIGINT AS duplicate_of FROM {source}"}


def read_json(path: Path) -> Any:
    """A JSON file; QueryError when it is not one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as e:
        raise QueryError(f"{path}: not readable as JSON ({e}); run `connectome finish {path.parent.name}` again") from e


def outputs_in(root: Path) -> Mapping[str, tuple[Table, ...]]:
    """Tables by stage, of the pipeline that the project at `root` was made with."""
    return outputs_of({path.name for path in (root / "data").glob("*")})


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_AXES = ("z0", "y0", "x0", "z1", "y1", "x1")


def flat_box(value: Any, where: str) -> tuple[int, ...]:
    """Six integers (z0, y0, x0, z1, y1, x1) from a record: flat, or as [[lo], [hi]]."""
    six = [v for part in value for v in part] if value and isinstance(value[0], list) else list(value)
    if len(six) != len(_AXES):
        raise QueryError(f"{where}: wanted a box of six integers, got {value!r}")
    return tuple(int(v) for v in six)


def _record(stage: str, r: Json, kind: str | None, run: Json) -> dict[str, Any]:
    z, y, x = r["voxel_nm"]
    named = {n: r.get(n) for n in ("format", "units", "code_digest", "model_id", "model_digest")}
    size = {"voxel_z_nm": float(z), "voxel_y_nm": float(y), "voxel_x_nm": float(x)}
    return {
        "stage": stage,
        "kind": kind,
        **named,
        **size,
        "params": _dump(r["params"]),
        "git_commit": (run.get("git") or {}).get("commit"),
    }


def _override(stage: str, i: int, o: Json) -> dict[str, Any]:
    box = flat_box(o["box_vx"], f"data/{stage}/record.json, override of {o['region']!r}")
    return {"stage": stage, "place": i, "region": o["region"], **dict(zip(_AXES, box, strict=True)),
            "params": _dump(o["params"])}  # fmt: skip


def _run(stage: str, r: Json) -> dict[str, Any]:
    git: Json = r.get("git") or {}
    plain = ("run_id", "started", "ended", "user", "host", "python", "executor", "workers", "units_total")
    return {
        "stage": stage,
        **{n: r.get(n) for n in plain},
        "units_computed": r.get("units_computed", r.get("computed")),
        "units_reused": r.get("units_reused", r.get("reused")),
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        "git_diff_sha256": git.get("diff_sha256"),
        "git_branch": git.get("branch"),
        "facts": _dump(r),
    }


def _full(stage: str, output: str) -> str:
    return output if "." in output else f"{stage}.{output}"


def facts(project: Path, kinds: Callable[[str], str | None]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the views that come from JSON records. `kinds` gives the kind of a stage's units."""
    stages = outputs_in(project)
    records = {s: read_json(p) for s in stages if (p := project / "data" / s / "record.json").is_file()}
    runs = {s: read_json(p) for s in stages if (p := project / "provenance" / s / "run.json").is_file()}
    places = {s: read_json(p) for s in stages if (p := project / "provenance" / s / "environments.json").is_file()}
    return {
        "stage_record": [_record(s, r, kinds(s), runs.get(s, {})) for s, r in records.items()],
        "stage_override": [
            _override(s, i, o) for s, r in records.items() for i, o in enumerate(r.get("overrides") or [])
        ],
        "stage_input": [
            {"stage": s, "input": n, "digest": d} for s, r in records.items() for n, d in r["inputs"].items()
        ],
        "stage_output": [
            {"stage": s, "output": _full(s, n), "digest": d}
            for s, r in records.items()
            for n, d in r["outputs"].items()
        ],
        "run": [_run(s, r) for s, r in runs.items()],
        "environment": [
            {"stage": s, "environment": d, "facts": _dump(f)} for s, e in places.items() for d, f in e.items()
        ],
    }
