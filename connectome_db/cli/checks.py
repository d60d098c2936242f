"""`connectome check`: is the data as its schema says, and as a connectome is expected to be?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.asof import RevisionOption, open_at
from connectome_db.cli.console import ERR, OUT, ProjectOption, open_project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectome_db.config import Project
    from connectome_db.qa.result import Result

_COLOUR = {"error": "red", "warning": "yellow", "info": "cyan"}


def check(
    project: ProjectOption = None,
    rev: RevisionOption = None,
    write: Annotated[bool, typer.Option("--write", help="Write qa/expectations.parquet and qa/docs/.")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="Only judge what was written, as `dvc repro` does.")] = False,
    strict: Annotated[
        Literal["off", "warning", "error"] | None,
        typer.Option(
            "--strict-qa",
            help="Exit with 1 when one of this severity or a graver one is not met. Default: error; with --write off; "
            "with --gate what params.yaml says.",
        ),
    ] = None,
    engine: Annotated[
        Literal["gx", "direct"] | None,
        typer.Option(help="Great Expectations, or the same rules in less time. Default: gx; with --write direct."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list what is met.")] = False,
) -> None:
    """Check every table against its schema, and the data against what `qa:` in params.yaml expects.

    Examples:

        connectome check

        connectome check --rev v1 --all

        connectome check --write --strict-qa error
    """
    from connectome_db.errors import ConfigError

    p = open_project(project)
    if rev is not None and (write or gate):
        raise ConfigError("--rev goes with neither --write nor --gate: results are kept of the working tree only")
    if gate:
        from connectome_db.qa.report import gate as judge

        OUT.print(judge(p.root, strict or p.qa.strict), highlight=False)
        return
    results = _results(p, rev, write, engine)
    _show(results, everything)
    if write:
        OUT.print(f"wrote {p.root / 'qa' / 'expectations.parquet'} and {p.root / 'qa' / 'docs' / 'index.html'}",
                  soft_wrap=True, highlight=False)  # fmt: skip
    from connectome_db.qa.results import unmet

    if unmet(results, strict or ("off" if write else "error")):
        raise typer.Exit(1)


def _results(p: Project, rev: str | None, write: bool, engine: Literal["gx", "direct"] | None) -> list[Result]:
    if write:
        from connectome_db.qa import report

        return report.write(p.root, p.dataset.name, p.qa, engine=engine or "direct")
    from connectome_db.qa.checks import check_project

    return check_project(open_at(p.root, rev).root, p.qa, engine=engine or "gx")


def _show(results: Sequence[Result], everything: bool) -> None:
    """What is not met, the gravest first (and with `everything` what is), and how many there are."""
    from rich.table import Table

    from connectome_db.qa.settings import SEVERITIES

    bad = [r for s in SEVERITIES for r in results if not r.success and r.severity == s]
    listed = [*bad, *(r for r in results if r.success)] if everything else bad
    if listed:
        table = Table(header_style="bold")
        for column in ("", "table", "expected", "not so", "where, and examples"):
            table.add_column(column, overflow="fold")  # an id is shown in full or not at all
        for r in listed:
            table.add_row(*_cells(r))
        OUT.print(table, highlight=False)
    counts = [f"[{_COLOUR[s]}]{n} {s}[/]" for s in SEVERITIES if (n := sum(r.severity == s for r in bad))]
    met = f"{len(results)} expectations over {len({r.table for r in results})} tables, {len(bad)} not met"
    OUT.print(met + (f" ({', '.join(counts)})" if counts else ""), highlight=False)
    if any(r.severity == "error" for r in bad):
        ERR.print("[dim]an error means that results should not be used before it is understood[/]", highlight=False)


def _cells(r: Result) -> tuple[str, ...]:
    from rich.markup import escape

    from connectome_db.qa.pages import box_text

    state = "[green]met[/]" if r.success else f"[{_COLOUR[r.severity]}]{r.severity}[/]"
    share = f"{r.unexpected:,} of {r.rows:,}"
    if r.observed is not None:
        share += f"\nfurthest {r.observed:.4g}"
    where = "\n".join(filter(None, [r.place, box_text(r), f"e.g. {r.example}" if r.example else ""]))
    return state, r.table, escape(r.says), share, escape(where)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(check)
