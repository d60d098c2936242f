"""Commands that ask: trace, sql, query, tables."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.asof import RevisionOption, RevisionsOption, open_asked, tables_at
from connectome_db.cli.console import ERR, OUT, ProjectOption, root_of, show
from connectome_db.cli.plot import PlotOption, check_plot, plot_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from connectome_db.query.database import Database
    from connectome_db.query.named import NamedQuery
    from connectome_db.query.receipts.receipt import Receipt
    from connectome_db.query.trace import Trace

trace_app = typer.Typer(no_args_is_help=True, help="What made this? Lineage from a result down to raw tiles.")
JsonOption = Annotated[bool, typer.Option("--json", help="JSON; ids as strings.")]
DotOption = Annotated[bool, typer.Option("--dot", help="Graphviz, for `dot -Tsvg`.")]
FormatOption = Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="How to print rows.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Rows to print as a table.")]
ReceiptOption = Annotated[
    Path | None,
    typer.Option("--receipt", metavar="FILE", help="Write a receipt, for `connectome receipt verify`."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over a receipt that is there.")]


@contextmanager
def _tables(root: Path, rev: str | None) -> Iterator[Database]:
    """The tables as of a revision; what another version of the package did not write is an error, not a traceback."""
    from connectome_db.errors import QueryError

    with tables_at(root, rev) as db:
        try:
            yield db
        except KeyError as e:
            if rev is None:
                raise
            raise QueryError(
                f"the tables at {rev} have no {e}: another version of connectome_db made them. "
                "`connectome tables NAME --rev` lists what they have; SQL can read it"
            ) from e


def _print_trace(trace: Trace, as_json: bool, as_dot: bool) -> None:
    from connectome_db.query.trace import to_dot, to_json, to_rich

    if as_json:
        sys.stdout.write(to_json(trace) + "\n")
    elif as_dot:
        sys.stdout.write(to_dot(trace))
    else:
        OUT.print(to_rich(trace))


@trace_app.command("edge")
def trace_edge(
    pre: Annotated[int, typer.Argument(help="Presynaptic neuron.")],
    post: Annotated[int, typer.Argument(help="Postsynaptic neuron.")],
    project: ProjectOption = None,
    rev: RevisionOption = None,
    as_json: JsonOption = False,
    as_dot: DotOption = False,
) -> None:
    """A connection: its synapses, supervoxels, merges, blocks, sections, tiles. `connectome trace edge PRE POST`

    As it was at a tag: `connectome trace edge PRE POST --rev v1`
    """
    from connectome_db.query import lineage

    with _tables(root_of(project), rev) as db:
        _print_trace(lineage.trace_edge(db, pre, post), as_json, as_dot)


@trace_app.command("synapse")
def trace_synapse(
    synapse: Annotated[int, typer.Argument(help="Synapse id.")],
    project: ProjectOption = None,
    rev: RevisionOption = None,
    as_json: JsonOption = False,
    as_dot: DotOption = False,
) -> None:
    """One synapse. `connectome trace synapse ID`"""
    from connectome_db.query import lineage

    with _tables(root_of(project), rev) as db:
        _print_trace(lineage.trace_synapse(db, synapse), as_json, as_dot)


@trace_app.command("object")
def trace_object(
    obj: Annotated[int, typer.Argument(metavar="OBJECT", help="Object (neuron) id.")],
    project: ProjectOption = None,
    rev: RevisionOption = None,
    as_json: JsonOption = False,
    as_dot: DotOption = False,
) -> None:
    """An object: its supervoxels and the merges that made it. `connectome trace object ID`"""
    from connectome_db.query import lineage

    with _tables(root_of(project), rev) as db:
        _print_trace(lineage.trace_object(db, obj), as_json, as_dot)


@trace_app.command("voxel")
def trace_voxel(
    z: Annotated[int, typer.Argument(help="z in voxels (section).")],
    y: Annotated[int, typer.Argument(help="y in voxels.")],
    x: Annotated[int, typer.Argument(help="x in voxels.")],
    project: ProjectOption = None,
    rev: RevisionOption = None,
    as_json: JsonOption = False,
    as_dot: DotOption = False,
) -> None:
    """What lies at a voxel, and what made it. `connectome trace voxel 24 200 180`"""
    from connectome_db.query import lineage
    from connectome_db.revisions import open_revision
    from connectome_db.viewing.place import supervoxel_at

    root = root_of(project)
    supervoxel = supervoxel_at(open_revision(root, rev), (z, y, x))
    with _tables(root, rev) as db:
        _print_trace(lineage.trace_voxel(db, z, y, x, supervoxel=supervoxel), as_json, as_dot)


def print_rows(rows: pa.Table, how: str, limit: int) -> None:
    """Print rows as a table of at most `limit`, or all of them as CSV or JSON with ids as text."""
    if how == "table":
        show(rows, limit=limit)
        OUT.print(f"[dim]{rows.num_rows:,} rows[/]")
    elif how == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.column_names)
        for row in rows.to_pylist():
            writer.writerow(row.values())
    else:
        # ids as text: JSON readers in many languages hold numbers as doubles, which lose digits above 2**53
        wide = {f.name for f in rows.schema if str(f.type) == "uint64"}
        plain = [{k: str(v) if k in wide and v is not None else v for k, v in r.items()} for r in rows.to_pylist()]
        sys.stdout.write(json.dumps(plain, indent=1, default=str) + "\n")


def _keep(receipt: Receipt, path: Path, force: bool) -> None:
    from connectome_db.query.receipts.receipt import write

    write(receipt, path, force=force)
    said = f"[dim]receipt {path}: {receipt.answer.rows:,} rows, {receipt.answer.digest[:12]}[/]"
    ERR.print(said, highlight=False, soft_wrap=True)  # a long path must not break the line
    for name in receipt.volatile_functions:
        ERR.print(f"[yellow]the query uses {name}: its answer may differ each time it is asked[/]", highlight=False)


def sql(
    text: Annotated[str, typer.Argument(help="A SELECT over the tables and functions that `connectome tables` lists.")],
    project: ProjectOption = None,
    rev: RevisionsOption = None,
    how: FormatOption = "table",
    limit: LimitOption = 40,
    receipt: ReceiptOption = None,
    force: ForceOption = False,
    plot: PlotOption = None,
) -> None:
    """SQL (DuckDB) over the connectome, read-only.

    Examples:

        connectome sql "SELECT pre, post, synapses FROM connection ORDER BY synapses DESC LIMIT 5"

        connectome sql "FROM outputs_of(4612249037100285953) ORDER BY synapses DESC"

        connectome sql "SELECT count(*) FROM connection" --rev v1

        connectome sql "SELECT object FROM b.object EXCEPT SELECT object FROM a.object" --rev a=v1 --rev b=v2

        connectome sql "SELECT count(*) FROM synapse" --receipt count.json

        connectome sql "SELECT synapses FROM connection" --plot synapses.png
    """
    from connectome_db.versions.asof import open_tables

    check_plot(plot)
    root = root_of(project)
    if receipt is None:
        with open_tables(open_asked(root, rev)) as db:
            rows = db.sql(text)
        print_rows(rows, how, limit)
        plot_rows(rows, plot, root, rev, " ".join(text.split()))
        return
    from connectome_db.query.receipts.receipt import refuse_existing
    from connectome_db.versions.receipts import ask_sql

    refuse_existing(receipt, force=force)
    rows, made = ask_sql(root, text, open_asked(root, rev))
    print_rows(rows, how, limit)
    _keep(made, receipt, force)
    plot_rows(rows, plot, root, rev, " ".join(text.split()))


def query(
    name: Annotated[str | None, typer.Argument(help="A named query; none lists them.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="name=value …")] = None,
    project: ProjectOption = None,
    rev: RevisionsOption = None,
    how: FormatOption = "table",
    limit: LimitOption = 40,
    explain: Annotated[bool, typer.Option("--describe", help="Say what the query wants and gives.")] = False,
    receipt: ReceiptOption = None,
    force: ForceOption = False,
    plot: PlotOption = None,
) -> None:
    """A named query with typed, documented parameters; your own go into queries/*.sql.

    Examples:

        connectome query strongest_connections limit=5

        connectome query strongest_connections limit=5 --rev v1 --receipt strongest.json

        connectome query degree_distribution --plot degrees.png
    """
    from connectome_db.query import named
    from connectome_db.versions.asof import open_tables

    root = root_of(project)
    if name is None:
        for q in named.list_queries(root).values():
            OUT.print(f"[bold]{q.name:<24}[/] {q.title}", highlight=False)
        return
    if explain:
        _describe(named.find_query(name, root))
        return
    check_plot(plot)
    given = named.parse_arguments(arguments or [])
    asked = " ".join([name, *(arguments or [])])
    if receipt is None:
        with open_tables(open_asked(root, rev)) as db:
            rows = named.run_query(db, name, given, project=root)
        print_rows(rows, how, limit)
        plot_rows(rows, plot, root, rev, asked, name)
        return
    from connectome_db.query.receipts.receipt import refuse_existing
    from connectome_db.versions.receipts import ask_named

    refuse_existing(receipt, force=force)
    rows, made = ask_named(root, name, given, open_asked(root, rev))
    print_rows(rows, how, limit)
    _keep(made, receipt, force)
    plot_rows(rows, plot, root, rev, asked, name)


def _describe(q: NamedQuery) -> None:
    from connectome_db.query.named import usage

    OUT.print(f"{q.name}: {q.title}", highlight=False, markup=False)
    for p in q.parameters:
        OUT.print(f"  {p.name} ({p.type}) {p.doc}", highlight=False, markup=False)
    OUT.print("gives", highlight=False)
    for column, meaning in q.columns.items():
        OUT.print(f"  {column}: {meaning}", highlight=False, markup=False)
    OUT.print(f"example: {usage(q)}", highlight=False, markup=False)


def tables(
    name: Annotated[str | None, typer.Argument(help="A table; none lists them.")] = None,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Tables, their columns, units and meaning. Example: connectome tables synapse"""
    from connectome_db.schema.all import FUNCTIONS

    with tables_at(root_of(project), rev) as db:
        if name:
            show(db.describe(name), limit=100)
        else:
            for table in db.tables.values():
                OUT.print(f"{table.name:<22} {table.doc}", highlight=False, markup=False, soft_wrap=True)
            for function in FUNCTIONS.values():
                OUT.print(f"{function.usage} {function.table.doc}", highlight=False, markup=False, soft_wrap=True)
            for missing, stage in db.missing.items():
                when = "yet" if db.at is None else f"at {db.at}"
                OUT.print(f"[dim]{missing:<22} not there {when}: stage {stage}[/]", highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(trace_app, name="trace")
    app.command()(sql)
    app.command()(query)
    app.command()(tables)
