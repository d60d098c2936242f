"""`connectome`: the commands a person types. They choose and print; everything else is in the modules they call."""

from __future__ import annotations

import os
import sys

import typer

from connectome_db.cli import (
    ask,
    before,
    checks,
    diagnose,
    diff,
    graph,
    identity,
    impact,
    importing,
    keep,
    make,
    models,
    plot,
    project,
    quality,
    receipt,
    regions,
    remedy,
    search,
    settings,
    training,
    trust,
    view,
    work,
)
from connectome_db.cli.console import ERR
from connectome_db.errors import ConnectomeError

app = typer.Typer(
    name="connectome",
    help="A provenance-first connectome database: raw EM tiles to a graph whose every edge names what made it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for module in (
    project,
    importing,
    work,
    before,
    ask,
    checks,
    impact,
    diagnose,
    diff,
    graph,
    identity,
    receipt,
    trust,
    keep,
    make,
    training,
    models,
    search,
    regions,
    remedy,
    view,
    quality,
    plot,
):
    module.register(app)


def run() -> None:
    """Entry point. An error that a user can mend prints its text and exits with 1; no traceback."""
    assert settings.APPLIED
    try:
        app()
    except ConnectomeError as e:
        ERR.print(f"[bold red]error:[/] {_escape(str(e))}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        ERR.print("[yellow]stopped.[/] Units that are done are kept: run the command again to go on.")
        sys.exit(130)
    except BrokenPipeError:  # `connectome … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    run()
