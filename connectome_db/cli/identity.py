"""Commands about ids from version to version: map-ids, history."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, root_of, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from rich.text import Text
    from rich.tree import Tree

    from connectome_db.revisions import Revision
    from connectome_db.versions.identity.life import Life

FromOption = Annotated[
    str | None, typer.Option("--from", metavar="REV", help="The earlier version: tag, branch or commit.")
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="REV", help="The later version; default: the working tree.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="File to write: .csv, .json or .parquet.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Rows to print as a table.")]


def map_ids(
    ids: Annotated[Path, typer.Argument(help="CSV, TSV, one id per line, or Parquet; - reads standard input.")],
    old: Annotated[str, typer.Option("--from", metavar="REV", help="The version that the ids are of.")],
    new: ToOption = None,
    column: Annotated[str | None, typer.Option(help="Column of the ids, by name or number from 1.")] = None,
    kind: Annotated[
        Literal["object", "supervoxel", "synapse"] | None,
        typer.Option(help="What the ids are; default: told from the column's name, or from what most are."),
    ] = None,
    tolerance_nm: Annotated[float, typer.Option(min=0, help="Synapses farther apart are not matched.")] = 150.0,
    out: OutOption = None,
    how: Annotated[
        Literal["table", "csv", "json"] | None,
        typer.Option("--format", help="How to print or write rows; default: by the file's name, else a table."),
    ] = None,
    limit: LimitOption = 40,
    project: ProjectOption = None,
) -> None:
    """What the ids in a list are at another version: one row per row of the list, in its order.

    Example: connectome map-ids --from v1 --to v2 ids.csv --out new_ids.csv
    """
    from connectome_db.progress import bar
    from connectome_db.revisions import open_revision
    from connectome_db.versions.identity.lists import read_ids
    from connectome_db.versions.identity.map_ids import map_ids as resolve
    from connectome_db.versions.identity.rowfiles import read_bytes, text_of, write

    rows = read_ids(sys.stdin.buffer.read() if str(ids) == "-" else read_bytes(ids), str(ids), column)
    root = root_of(project)
    a, b = open_revision(root, old), open_revision(root, new)
    with bar("comparing") as progress:
        found = resolve(a, b, rows, kind, tolerance_nm=tolerance_nm, progress=progress)
    what = f"{len(rows.rows):,} rows read as {found.kind}s of {a.name} ({found.why_kind}), mapped to {b.name}"
    counts = ", ".join(f"{n:,} {status}" for status, n in found.counts.items())
    ERR.print(f"{what}: {counts or 'none'}", highlight=False, markup=False, soft_wrap=True)
    for r in rows.problems[:10]:
        ERR.print(f"  {r.where}: {r.text!r} is not an id: {r.problem}", highlight=False, markup=False, soft_wrap=True)
    if len(rows.problems) > 10:
        ERR.print(f"  … and {len(rows.problems) - 10:,} more; they are in the output, with the reason")
    if out is not None:
        write(found.table, out, None if how in (None, "table") else how)
    elif how in (None, "table"):
        _show_mapped(found.table, limit)
    else:
        sys.stdout.write(text_of(found.table, how))


def history(
    obj: Annotated[str | None, typer.Argument(metavar="[OBJECT]", help="An object; none: all of them.")] = None,
    revs: Annotated[
        str | None, typer.Option(help="Versions, as in v1,v2,v3; default: all tags that have data.")
    ] = None,
    last: Annotated[int | None, typer.Option("-n", min=1, help="The last so many commits that changed data.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="REV", help="Version that has it; default: the first.")
    ] = None,
    old: FromOption = None,
    new: ToOption = None,
    out: OutOption = None,
    how: Annotated[
        Literal["table", "csv", "json"] | None,
        typer.Option("--format", help="How to print or write rows; default: a tree for one object, a table for all."),
    ] = None,
    limit: LimitOption = 40,
    project: ProjectOption = None,
) -> None:
    """The life of an object from version to version, or with --from what became of every object.

    Examples:

        connectome history OBJECT --revs v1,v2,v3

        connectome history --from v1 --to v2 --out history.parquet
    """
    from connectome_db.errors import QueryError
    from connectome_db.revisions import open_revision
    from connectome_db.versions.identity.rowfiles import text_of, write

    root = root_of(project)
    if obj is None:
        if old is None or revs or last or at:
            raise QueryError("history wants an object, or --from (and --to) for all objects of two versions")
        table = _all_objects(open_revision(root, old), open_revision(root, new))
        if out is None and how in (None, "table"):
            _show_changes(table, limit)
            return
    else:
        life = _life(root, obj, revs, last, at, old, new)
        table = life.links
        if out is None and how is None:
            for tree in _trees(life):
                OUT.print(tree, highlight=False)
            return
    if out is not None:
        write(table, out, None if how in (None, "table") else how)
    elif how in (None, "table"):
        show(table, limit=limit)
    else:
        sys.stdout.write(text_of(table, how))


def _show_mapped(table: pa.Table, limit: int) -> None:
    """Rows as a person reads them: what each id becomes, and below it why."""
    from rich.table import Table

    from connectome_db.versions.identity.lifetree import percent

    grid = Table("row", "given", "status", "becomes", header_style="bold")
    for r in table.slice(0, limit).to_pylist():
        lines = [
            " ".join(
                (str(i), "" if f is None else percent(f), "" if i != r["heir"] or len(r["new_ids"]) == 1 else "heir")
            )
            for i, f in zip(r["new_ids"], r["fractions"], strict=True)
        ]
        becomes = _plain("\n".join(line.rstrip() for line in lines))
        if r["note"]:
            becomes.append(("\n" if lines else "") + r["note"], style="dim")
        grid.add_row(str(r["row"]), _plain(r["given"]), r["status"], becomes)
    OUT.print(grid)
    _more(table.num_rows - limit)


def _show_changes(table: pa.Table, limit: int) -> None:
    """The rows of a history that are not `same`."""
    import pyarrow.compute as pc
    from rich.table import Table

    from connectome_db.versions.identity.lifetree import percent

    changes = table.filter(pc.not_equal(table["relation"], "same"))
    grid = Table("object_a", "object_b", "of a", "relation", "heir", header_style="bold")
    for r in changes.slice(0, limit).to_pylist():
        ends = ("" if r[c] is None else str(r[c]) for c in ("object_a", "object_b"))
        role = ("in doubt" if r["ambiguous"] else "heir") if r["heir"] else ""
        grid.add_row(*ends, percent(r["fraction_a"]), r["relation"], role)
    if changes.num_rows:
        OUT.print(grid)
    _more(changes.num_rows - limit)


def _more(n: int) -> None:
    if n > 0:
        OUT.print(f"[dim]… {n:,} more rows; --limit or --out shows them[/]")


def _all_objects(a: Revision, b: Revision) -> pa.Table:
    from connectome_db.progress import bar
    from connectome_db.versions.identity.history import count_relations, object_history
    from connectome_db.versions.identity.overlaps import supervoxel_overlap

    with bar("comparing") as progress:
        table = object_history(a, b, supervoxel_overlap(a, b, progress))
    counts = ", ".join(f"{n:,} {relation}" for relation, n in count_relations(table).items())
    ERR.print(f"objects from {a.name} to {b.name}: {counts or 'none'}", highlight=False, markup=False, soft_wrap=True)
    return table


def _life(
    root: Path, obj: str, revs: str | None, last: int | None, at: str | None, old: str | None, new: str | None
) -> Life:
    from connectome_db.errors import QueryError
    from connectome_db.progress import bar
    from connectome_db.revisions import WORKING_TREE
    from connectome_db.versions.identity import timeline
    from connectome_db.versions.identity.life import life_of
    from connectome_db.versions.identity.lists import parse_id

    number, problem = parse_id(obj.strip())
    if number is None:
        raise QueryError(f"{obj!r} is not an id: {problem}")
    if sum(v is not None for v in (revs, last, old)) > 1:
        raise QueryError("--revs, -n and --from each say which versions to look at: give one of them")
    left_out: Sequence[str] = ()
    if revs is not None:
        revisions = timeline.chosen(root, [r.strip() for r in revs.split(",") if r.strip()])
    elif old is not None:
        revisions = timeline.chosen(root, [old, new or WORKING_TREE])
    else:
        revisions, left_out = timeline.tagged(root) if last is None else timeline.recent(root, last)
    for why in left_out:
        ERR.print(f"left out: {why}", highlight=False, markup=False, soft_wrap=True)
    if not revisions:
        raise QueryError(f"no version of {root} has objects: name some with --revs, or tag a commit")
    with bar("comparing") as progress:
        return life_of(revisions, number, at, progress)


def _trees(life: Life) -> list[Tree]:
    from rich.tree import Tree

    from connectome_db.versions.identity.lifetree import Node, after, before

    def grown(node: Node, tree: Tree) -> Tree:
        for n in node.below:
            grown(n, tree.add(_plain(n.text)))
        return tree

    return [grown(t, Tree(_plain(t.text))) for t in (before(life), after(life)) if t is not None]


def _plain(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("map-ids")(map_ids)
    app.command()(history)
