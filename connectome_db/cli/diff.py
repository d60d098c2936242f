"""The command diff."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, root_of


def diff(
    a: Annotated[str, typer.Argument(help="The earlier version: a tag, branch or commit.", show_default=False)],
    b: Annotated[str | None, typer.Argument(help="The later one; without it, the data as it lies here now.")] = None,
    project: ProjectOption = None,
    only: Annotated[
        Literal["units", "objects", "synapses", "edges"] | None, typer.Option(help="Just this table.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows to print of each table; 0 prints counts alone.")] = 10,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write all rows as JSON; - is the terminal. Ids are strings.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write one Parquet table of each kind into this folder.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write a picture (PNG) of where the changes are.")] = None,
) -> None:
    """What differs between two versions: units, objects, synapses, connections, and what made each differ.

    Nothing is checked out. A cause is a parameter (of everything or of a region), a model, code, or a raw tile.

    Examples:

        connectome diff v1 v2

        connectome diff v1 --only edges --json -

        connectome diff v1 v2 --parquet changes --picture changes.png
    """
    from connectome_db.revisions import open_revision
    from connectome_db.versions.compare import report
    from connectome_db.versions.compare.diff import compare

    root = root_of(project)
    found = compare(open_revision(root, a), open_revision(root, b), only=only)
    if as_json == Path("-"):
        sys.stdout.write(report.to_json(found))
    else:
        OUT.print(report.to_rich(found, limit), soft_wrap=not OUT.is_terminal)
    if as_json is not None and as_json != Path("-"):
        report.write_json(found, as_json)
        ERR.print(f"[dim]{as_json}[/]", highlight=False)
    if parquet is not None:
        written = report.write_parquet(found, parquet)
        ERR.print(f"[dim]{parquet}: {', '.join(p.name for p in written)}[/]", highlight=False)
    if picture is not None:
        from connectome_db.versions.compare.picture import draw

        ERR.print(f"[dim]{draw(found, picture)}[/]", highlight=False)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(diff)
