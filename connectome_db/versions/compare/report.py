"""A diff as text for people, as JSON, and as Parquet tables."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connectome_db.errors import QueryError
from connectome_db.query.compare.changes import ADDED, CHANGED, RECOMPUTED, REMOVED, SAME
from connectome_db.revisions import Revision
from connectome_db.versions.compare.diff import Diff

ORDER = ("split", "merged", "mixed", "appeared", "vanished", "changed", "renamed",
         "gained", "lost", "repartnered", "recounted", "stronger", "weaker", "moved", "altered")  # fmt: skip
"""Kinds of changes, those that matter most to a reader first."""
TITLES = {
    "object_change": "objects",
    "synapse_change": "synapses",
    "edge_change": "edges",
    "neuron_change": "neurons",
}


def to_json(diff: Diff) -> str:
    """All tables as one JSON document. Ids are strings: many readers of JSON hold numbers as doubles."""
    tables = {name: list(_plain(table)) for name, table in diff.tables.items()}
    head = {side: {"name": r.name, "commit": r.commit} for side, r in (("a", diff.a), ("b", diff.b))}
    return json.dumps({**head, "notes": list(diff.notes), "tables": tables}, indent=1, ensure_ascii=False) + "\n"


def _plain(table: pa.Table) -> Iterator[dict[str, Any]]:
    wide = {f.name for f in table.schema if "uint64" in str(f.type)}
    for row in table.to_pylist():
        yield {k: _text(v) if k in wide else v for k, v in row.items()}


def _text(value: Any) -> Any:
    if value is None:
        return None
    return [str(v) for v in value] if isinstance(value, list) else str(value)


def write_json(diff: Diff, path: Path) -> None:
    """Write `to_json` beside `path`, then put it in its place."""
    _replace(path, to_json(diff).encode())


def write_parquet(diff: Diff, folder: Path) -> list[Path]:
    """Write one `<table>.parquet` per table into `folder`, which is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in diff.tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        written.append(folder / f"{name}.parquet")
        _replace(written[-1], sink.getvalue().to_pybytes())
    return written


def _replace(path: Path, data: bytes) -> None:
    tmp = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        tmp.write_bytes(data)
        tmp.replace(path)
    except OSError as e:
        raise QueryError(f"{path}: cannot be written ({e.strerror}); choose another place") from None


def to_rich(diff: Diff, limit: int) -> RenderableType:
    """A summary, and up to `limit` rows of each table."""
    parts: list[RenderableType] = [Text(f"{_called(diff.a)} → {_called(diff.b)}", style="bold")]
    parts += [Text(note, style="yellow") for note in diff.notes]
    if diff.tables["cause"].num_rows == 0:
        return Group(*parts, Text("no differences"))
    parts.append(_causes(diff))
    if "unit_change" in diff.tables:
        parts.append(_units(diff))
    rows = [diff.tables[name] for name in TITLES if name in diff.tables]
    for name in TITLES:
        if name in diff.tables:
            parts += _rows(diff.tables[name], name, limit)
    if limit and any(False in t["certain"].to_pylist() for t in rows):
        parts.append(Text("\n? each of these causes may have had a part in it; not all need have", style="dim"))
    return Group(*parts)


def _called(revision: Revision) -> str:
    return revision.name if revision.commit is None else f"{revision.name} ({revision.commit[:10]})"


def _grid(title: str, *columns: str) -> Table:
    """A table of `columns`; those that start with # hold numbers, those with ! are not broken into lines."""
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
    for name in columns:
        kept = name.startswith(("#", "!"))
        right = name.startswith("#")
        table.add_column(
            name.lstrip("#!"), justify="right" if right else "left", overflow="fold", no_wrap=name.startswith("!"),
            min_width=len(name) - 1 if kept else None,
        )  # fmt: skip
    return table


def _causes(diff: Diff) -> Table:
    causes = diff.tables["cause"]
    shown = {
        "units_reached": "redone", "units_changed": "changed", "objects": "objects", "synapses": "synapses",
        "edges": "edges", "neurons": "neurons",
    }  # fmt: skip
    counts = {c: name for c, name in shown.items() if c in causes.column_names}
    grid = _grid("\ncauses", "#", "what differs", *(f"#{name}" for name in counts.values()))
    for row in causes.to_pylist():
        grid.add_row(str(row["cause"]), Text(row["text"]), *(f"{row[c]:,}" for c in counts))
    return grid


def _units(diff: Diff) -> Table:
    kinds = {"changed": CHANGED, "same content": RECOMPUTED, "added": ADDED, "removed": REMOVED}
    grid = _grid("\nunits", "stage", "#units", *(f"#{k}" for k in kinds), "causes")
    for stage, at in diff.why.stages.items():
        what = at.change.what
        if (what != SAME).any():
            causes = diff.why.sets.ids(diff.why.sets.union_all(at.total))
            numbers = (f"{n:,}" if (n := int((what == k).sum())) else "" for k in kinds.values())
            grid.add_row(stage, f"{len(what):,}", *numbers, _numbers(causes))
    return grid


def _numbers(causes: Iterable[int]) -> str:
    """Cause numbers as text; a long list is cut."""
    every = list(causes)
    return ", ".join(str(c) for c in every[:8]) + (f", … ({len(every)})" if len(every) > 8 else "")


def _rows(table: pa.Table, name: str, limit: int) -> list[RenderableType]:
    """A line of counts, and the first rows of one table."""
    kinds = table["kind"].to_pylist()
    counted = ", ".join(f"{kinds.count(k):,} {k}" for k in ORDER if k in kinds)
    head = Text.assemble((f"\n{TITLES[name]}  ", "bold"), counted or "no changes")
    if not kinds or limit == 0:
        return [head]
    rank = np.asarray([ORDER.index(k) for k in kinds])
    size = np.zeros(len(kinds), np.int64)
    if name == "object_change":
        size = np.maximum(table["size_a_vx"].to_numpy(), table["size_b_vx"].to_numpy())
    if name == "edge_change":
        size = np.abs(table["synapses_b"].to_numpy() - table["synapses_a"].to_numpy())
    first = table.take(pa.array(np.lexsort((-size, rank))[:limit])).to_pylist()
    describe = {"object_change": _object, "synapse_change": _synapse, "edge_change": _edge, "neuron_change": _neuron}
    grid = _grid("", *HEADS[name], "why")
    for row in first:
        sure = "" if row["certain"] else " (indirect)" if row.get("indirect") else " ?"
        grid.add_row(row["kind"], *describe[name](row), _numbers(row["causes"]) + sure)
    more = table.num_rows - len(first)
    return [head, grid, Text(f"… {more:,} more; --limit shows them", style="dim")] if more else [head, grid]


HEADS = {
    "object_change": ("kind", "!before → after", "#voxels"),
    "synapse_change": ("kind", "!synapse", "!z, y, x (vx)", "#shift (nm)"),
    "edge_change": ("kind", "!pre → post", "!synapses"),
    "neuron_change": ("kind", "!neuron"),
}


def _object(row: dict[str, Any]) -> tuple[str, ...]:
    sides = [str(ids[0]) if len(ids) == 1 else f"{len(ids)} objects" for ids in (row["objects_a"], row["objects_b"])]
    a, b = (side if ids else "none" for side, ids in zip(sides, (row["objects_a"], row["objects_b"]), strict=True))
    same = row["size_a_vx"] == row["size_b_vx"]
    size = f"{row['size_b_vx']:,}" if same else f"{row['size_a_vx']:,} → {row['size_b_vx']:,}"
    return (a if a == b else f"{a} → {b}", size)


def _synapse(row: dict[str, Any]) -> tuple[str, ...]:
    place = ", ".join(f"{row[f'{axis}_vx']:.0f}" for axis in "zyx")
    shift = "" if row["shift_nm"] is None else f"{row['shift_nm']:.0f}"
    return (str(row["synapse_a"] if row["synapse_b"] is None else row["synapse_b"]), place, shift)


def _edge(row: dict[str, Any]) -> tuple[str, ...]:
    ends = [row.get(f"{end}_name") or row[end] or row[f"{end}_a"] for end in ("pre", "post")]
    return (f"{ends[0]} → {ends[1]}", f"{row['synapses_a']:,} → {row['synapses_b']:,}")


def _neuron(row: dict[str, Any]) -> tuple[str, ...]:
    return (row.get("name") or str(row["neuron"]),)
