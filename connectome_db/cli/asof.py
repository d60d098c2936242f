"""The option `--rev`: a project as of a git revision, and saying which one was read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.console import ERR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectome_db.query.database import Database
    from connectome_db.revisions import Revision

RevisionOption = Annotated[
    str | None,
    typer.Option("--rev", metavar="REV", help="As of a git revision: branch, tag or commit. Nothing is checked out."),
]
RevisionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rev",
        metavar="REV",
        help="As of a git revision; name=REV shows its tables as name.table, beside the others. May be repeated.",
    ),
]


def open_at(root: Path, rev: str | None) -> Revision:
    """The project at `root` as of a revision (None: the working tree); says on stderr which was read."""
    from connectome_db.revisions import open_revision

    revision = open_revision(root, rev)
    say({"main": revision})
    return revision


def open_asked(root: Path, asked: Sequence[str] | None) -> dict[str, Revision]:
    """The revisions of `--rev`, by schema; says on stderr which they are."""
    from connectome_db.versions import asof

    revisions = asof.open_revisions(root, asof.parse(asked or []))
    say(revisions)
    return revisions


def tables_at(root: Path, rev: str | None) -> Database:
    """The tables of the project at `root` as of a revision."""
    from connectome_db.versions import asof

    return asof.open_tables({"main": open_at(root, rev)})


def say(revisions: dict[str, Revision]) -> None:
    """Print on stderr which revisions are read; nothing for the working tree alone."""
    from connectome_db.versions.asof import told

    if len(revisions) == 1 and revisions["main"].commit is None:
        return
    for name, revision in revisions.items():
        what = "as of" if name == "main" else f"{name} is"
        ERR.print(f"[dim]{what} {told(revision)}[/]", highlight=False, soft_wrap=True)
