"""Commands that keep versions in order: gc, rollback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from connectome_db.cli.console import OUT, ProjectOption, open_project

if TYPE_CHECKING:
    from connectome_db.versions.gc import Sweep


def gc(
    project: ProjectOption = None,
    force: Annotated[bool, typer.Option(help="Remove it. Without this, only what would go is shown.")] = False,
    all_commits: Annotated[
        bool, typer.Option(help="Keep what any commit refers to, not only branches and tags.")
    ] = False,
    days: Annotated[float, typer.Option(min=0, help="Keep also what was made or committed in the last N days.")] = 0.0,
    only_this_project_uses_the_store: Annotated[
        bool, typer.Option(help="For a store outside the project: nobody else needs what is in it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Remove units that no branch, tag, stash or working tree refers to from the store.

    Examples:

        connectome gc

        connectome gc --days 30 --force
    """
    from connectome_db.versions.gc import collect

    sweep = collect(
        open_project(project),
        force=force,
        all_commits=all_commits,
        days=days,
        only_project=only_this_project_uses_the_store,
    )
    if as_json:
        value = {
            "removed": force,
            "revisions": sweep.revisions,
            "doubts": [vars(d) for d in sweep.doubts],
            "notes": sweep.notes,
            "lines": [vars(line) for line in sweep.lines],
        }
        OUT.print_json(json.dumps(value))
        return
    _show_sweep(sweep, force)


def _show_sweep(sweep: Sweep, force: bool) -> None:
    from connectome_db.versions.gc import size

    table = Table("stage", header_style="bold")
    for title in ("units kept", "gone" if force else "to go", "freed", "only a name"):
        table.add_column(title, justify="right")
    for line in sweep.lines:
        if line.things or line.kept:
            kept = f"{line.kept:,}" if line.kept else ""
            table.add_row(line.name, kept, f"{line.things:,}", size(line.freed_bytes), size(line.named_bytes))
    OUT.print(table)
    names = ", ".join(sweep.revisions[:8]) + (
        f" and {len(sweep.revisions) - 8} more" if len(sweep.revisions) > 8 else ""
    )
    OUT.print(f"kept: {names}", highlight=False, soft_wrap=True)
    for doubt in sweep.doubts:
        what = f"{doubt.ledgers} trees that may be theirs are kept" if doubt.ledgers >= 0 else "every unit is kept"
        OUT.print(
            f"[yellow]{doubt.stage}[/]: not in DVC's cache: {', '.join(doubt.revisions)}; {what}",
            highlight=False,
            soft_wrap=True,
        )
    for note in sweep.notes:
        OUT.print(f"[yellow]{note}[/]", highlight=False, soft_wrap=True)
    if sweep.empty:
        OUT.print("Nothing to remove.")
    elif force:
        OUT.print(f"Freed {size(sweep.freed_bytes)}. The rest is still held by data/ or by DVC's cache (`dvc gc`).")
    else:
        OUT.print(f"Nothing was removed. `connectome gc --force` frees {size(sweep.freed_bytes)}.", highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(gc)
