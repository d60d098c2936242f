"""What a finished project looks like to a person: layers with accuracy, size, one edge's lineage, a few answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from connectome_db.assess import Measure, View
from connectome_db.config import Project
from connectome_db.query import lineage, trace
from connectome_db.query.database import open_database
from connectome_db.query.trace import Trace


def verdict(m: Measure) -> str:
    """The measure against its target, if it has one."""
    if m.ok is None:
        return ""
    target = f"≤ {m.at_most:g}" if m.at_most is not None else f"≥ {m.at_least:g}"
    return f"[green]✓ {target}[/]" if m.ok else f"[red]✗ {target}[/]"


def measures_table(measures: Sequence[Measure]) -> Table:
    """All measures as a table."""
    table = Table("layer", "against the truth", "", "target", header_style="bold")
    last = ""
    for m in measures:
        table.add_row(m.layer if m.layer != last else "", m.what, f"{m.value:.3g} {m.unit}".strip(), verdict(m))
        last = m.layer
    return table


def layers(
    project: Project, measures: Sequence[Measure], seconds: float, out: Console, held_out: tuple[int, int] | None
) -> None:
    """Per layer: units, time, accuracy."""
    table = Table("layer", "units", "computed", "CPU s", "against the truth", "", "target", header_style="bold")
    total = 0
    for stage in project.stages:
        run = json.loads((project.provenance(stage.name) / "run.json").read_text())
        cpu = float(np.sum(pq.read_table(project.provenance(stage.name) / "executions.parquet")["seconds"].to_numpy()))
        total += run["units_total"]
        mine = [m for m in measures if m.layer == stage.name]
        first = [stage.name, str(run["units_total"]), str(run["units_computed"]), f"{cpu:.1f}"]
        for i, m in enumerate(mine or [None]):
            cells = [m.what, f"{m.value:.3g} {m.unit}".strip(), verdict(m)] if m else ["", "", ""]
            table.add_row(*(first if i == 0 else [""] * 4), *cells)
    out.print(table)
    where = f"; scores on sections {held_out[0]}-{held_out[1] - 1}, which no network saw" if held_out else ""
    out.print(f"  {total:,} units in {seconds:.0f} s under dvc repro{where}", highlight=False)


def _count(project: Project, stage: str, table: str) -> int:
    return int(pq.ParquetFile(project.data(stage) / f"{table}.parquet").metadata.num_rows)


def size(project: Project, view: View, out: Console) -> None:
    """How large the connectome is."""
    bounds = view.box
    nm = [n * v / 1000 for n, v in zip(bounds.shape, project.voxel_nm, strict=True)]
    out.print(
        f"  [bold]connectome[/]: {_count(project, 'ingest', 'tile'):,} tiles → "
        f"{view.covered.size / 1e6:.1f} Mvoxel assessed ({nm[0]:.2f} × {nm[1]:.2f} × {nm[2]:.2f} µm) → "
        f"{_count(project, 'segment', 'supervoxel'):,} supervoxels → "
        f"{_count(project, 'agglomerate', 'object'):,} objects → "
        f"{_count(project, 'graph', 'neuron'):,} neurons, {_count(project, 'synapses', 'synapse'):,} synapses, "
        f"{_count(project, 'graph', 'connection'):,} connections",
        highlight=False,
    )


def strongest_edge(project: Project) -> tuple[int, int] | None:
    """(pre, post) of the connection with most synapses; None when there is none."""
    edges = pq.read_table(project.data("graph") / "connection.parquet")
    if edges.num_rows == 0:
        return None
    first = edges.sort_by([("synapses", "descending"), ("pre", "ascending"), ("post", "ascending")]).slice(0, 1)
    return int(first["pre"][0].as_py()), int(first["post"][0].as_py())


def one_edge(project: Project, out: Console) -> None:
    """One connection traced to its raw tiles."""
    edge = strongest_edge(project)
    if edge is None:
        out.print("  no connection was found, so there is none to trace")
        return
    out.print(f"\n[bold]Where does one edge come from?[/]  connectome trace edge {edge[0]} {edge[1]}", highlight=False)
    with open_database(project.root) as db:
        out.print(trace.to_rich(shortened(lineage.trace_edge(db, *edge, limit=1))))
    out.print("  [dim]… shortened; the command above shows all of it, --json and --dot for programs[/]")


def shortened(whole: Trace, keep: int = 1, done: dict[int, Trace] | None = None) -> Trace:
    """A trace with the first `keep` of many like steps (sections, overlaps, image blocks) at each place.

    A step that stands in several places stays one object (`done`, by identity), so that it is printed once.
    """
    done = {} if done is None else done
    if id(whole) in done:
        return done[id(whole)]
    seen: dict[str, int] = {}
    children = []
    for child in whole.children:
        like = child.title.split()[0]
        seen[like] = seen.get(like, 0) + 1
        if seen[like] <= keep or child.kind not in {"section", "overlap", "merge", "unit"}:
            children.append(shortened(child, keep, done))
    done[id(whole)] = replace(whole, children=tuple(children))
    return done[id(whole)]


def questions(project: Project, asked: Sequence[tuple[str, str]], out: Console) -> None:
    """Three answers in SQL."""
    with open_database(project.root) as db:
        for title, text in asked:
            out.print(f"\n[bold]{title}[/]\n[dim]{text}[/]", highlight=False)
            out.print(_small(db.sql(text)))


def _small(rows: pa.Table) -> Table:
    table = Table(*rows.column_names, header_style="bold")
    for row in rows.to_pylist():
        table.add_row(*(str(v) for v in row.values()))
    return table
