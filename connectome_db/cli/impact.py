"""The command that asks what depends on something: `connectome impact`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.ask import FormatOption, print_rows
from connectome_db.cli.asof import RevisionOption, open_at
from connectome_db.cli.console import OUT, ProjectOption, open_project, root_of, show

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from connectome_db.geometry import Box
    from connectome_db.query.database import Database
    from connectome_db.query.impact import Impact
    from connectome_db.revisions import Revision

USAGE = {
    "tile": "NAME",
    "section": "N",
    "block": "STAGE Z Y X",
    "region": "NAME",
    "model": "NAME",
    "param": "STAGE.NAME",
    "code": "MODULE",
    "stage": "NAME",
}
"""What is asked about -> the words after it."""


def impact(
    kind: Annotated[
        Literal["tile", "section", "block", "region", "model", "param", "code", "stage"],
        typer.Argument(help="What is asked about."),
    ],
    words: Annotated[
        list[str], typer.Argument(help="Which one: a name; STAGE Z Y X of a block; STAGE.NAME of a param.")
    ],
    project: ProjectOption = None,
    rev: RevisionOption = None,
    region: Annotated[
        str | None, typer.Option(help="With param: only units that an override in this region of params.yaml changes.")
    ] = None,
    what: Annotated[
        Literal["objects", "synapses", "edges", "units", "supervoxels"] | None,
        typer.Option("--list", help="List what depends on it, instead of counting."),
    ] = None,
    possible: Annotated[bool, typer.Option("--possible", help="List also what only a global solve connects.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows of a list to print as a table.")] = 40,
    how: FormatOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """What depends on this? Units, supervoxels, objects, synapses and edges that a change would reach.

    *direct* is reached through pixels and local evidence, *possible* also through the solves of the whole dataset
    (align, reconcile, agglomerate, graph).

    Examples:

        connectome impact tile s0005/t01.png

        connectome impact tile s0005/t01.png --list edges --format csv

        connectome impact section 5

        connectome impact block segment 0 1 1 --list objects

        connectome impact region corner

        connectome impact model phantom-affinity --json

        connectome impact param segment.boundary --region corner

        connectome impact code kernels.watershed

        connectome impact stage mask
    """
    from connectome_db.query.impact import counts, listing
    from connectome_db.versions.asof import open_tables

    if as_json:
        how = "json"
    _check(kind, words, region)
    revision = open_at(root_of(project), rev)
    with open_tables({"main": revision}) as db:
        found = _ask(db, revision, project, kind, words, region)
        if what is not None:
            print_rows(listing(db, found, what, possible=possible), how, limit)
        elif how == "json":
            told = {"asked": found.asked, "solves": found.solves, "possible_as_a_whole": found.after}
            told |= {"counts": counts(db, found).to_pylist()}
            sys.stdout.write(json.dumps(told, indent=1) + "\n")
        elif how == "csv":
            print_rows(counts(db, found), how, limit)
        else:
            _explain(found, counts(db, found))


def _check(kind: str, words: list[str], region: str | None) -> None:
    from connectome_db.errors import QueryError

    wanted = USAGE[kind].split()
    numbers = words[-3:] if kind == "block" else words if kind == "section" else []
    if len(words) != len(wanted) or not all(w.removeprefix("-").isdecimal() for w in numbers):
        came = " ".join(words)
        raise QueryError(f"wanted `connectome impact {kind} {USAGE[kind]}`, got `connectome impact {kind} {came}`")
    if region is not None and kind != "param":
        raise QueryError(f"--region goes with `impact param`; for {kind}, leave it out")


def _ask(
    db: Database, revision: Revision, project: Path | None, kind: str, words: list[str], region: str | None
) -> Impact:
    from connectome_db.query import impact as asked
    from connectome_db.versions import impact_of

    def box(name: str) -> Box:
        return impact_of.region_box(db, revision, name)

    ways: dict[str, Callable[[str], Impact]] = {
        "tile": lambda name: asked.of_tile(db, name),
        "section": lambda number: asked.of_section(db, int(number)),
        "block": lambda stage: asked.of_block(db, stage, (int(words[1]), int(words[2]), int(words[3]))),
        "region": lambda name: asked.of_box(db, f"region {name}", box(name)),
        "model": lambda name: asked.of_model(db, name),
        "param": lambda name: asked.of_parameter(db, name, (region, box(region)) if region else None),
        "code": lambda module: impact_of.of_code(db, open_project(project).stages, module),
        "stage": lambda name: asked.of_stages(db, [name], f"stage {name}"),
    }
    return ways[kind](words[0])


def _explain(found: Impact, rows: pa.Table) -> None:
    """Counts, and what the two numbers mean."""
    show(rows, title=f"depends on {found.asked}", limit=rows.num_rows)
    OUT.print("[dim]direct: reached through pixels and local evidence[/]", highlight=False)
    if found.solves:
        through = f"{', '.join(found.solves)}: what a solve gives may change anything after it"
    else:
        through = "none is reached"
    OUT.print(
        f"[dim]possible: also through solves of the whole dataset ({through})[/]", highlight=False, soft_wrap=True
    )


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(impact)
