"""Commands about receipts: verify, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.asof import RevisionsOption
from connectome_db.cli.console import OUT, ProjectOption, root_of

if TYPE_CHECKING:
    from connectome_db.query.receipts.receipt import Receipt, RevisionFacts

receipt_app = typer.Typer(no_args_is_help=True, help="Is an answer still the same? Receipts of queries.")
FileArgument = Annotated[Path, typer.Argument(help="A receipt, as `connectome sql --receipt` writes it.")]


def _line(text: str) -> None:
    OUT.print(text, highlight=False, markup=False, soft_wrap=True)


@receipt_app.command("verify")
def verify(
    file: FileArgument,
    project: ProjectOption = None,
    rev: RevisionsOption = None,
    any_order: Annotated[bool, typer.Option("--any-order", help="Rows in another order are the same.")] = False,
) -> None:
    """Ask again what a receipt asked: `same` (exit code 0), or `different` (1) and why.

    Examples:

        connectome receipt verify strongest.json

        connectome receipt verify strongest.json --rev v2
    """
    from connectome_db.errors import QueryError
    from connectome_db.query.receipts.receipt import read
    from connectome_db.versions import asof, receipts

    then, untouched = read(file)
    if not untouched:
        raise QueryError(f"{file}: the receipt was edited: it is not what its `check` says, so it proves nothing")
    asked = asof.parse(rev or [])
    found = receipts.verify(root_of(project), then, asked)
    same = found.result == "same" or (any_order and found.result == "other order")
    where = ", ".join(r if n == "main" else f"{n}={r}" for n, r in asked.items()) or "working tree"
    _line(f"{'same' if same else 'different'}: {where} against the receipt of {then.created}")
    for reason in found.reasons:
        _line(f"  {reason}")
    for note in found.notes:
        _line(f"  {note}")
    if not same:
        raise typer.Exit(1)


@receipt_app.command("show")
def show(file: FileArgument) -> None:
    """Say what a receipt holds, and whether it was edited. Example: connectome receipt show strongest.json"""
    from connectome_db.query.receipts.receipt import read

    found, untouched = read(file)
    for name, text in _told(found):
        _line(f"{name:<12}{text}")
    if not untouched:
        OUT.print("[red]the receipt was edited: it is not what its `check` says[/]")
        raise typer.Exit(1)


def _told(r: Receipt) -> list[tuple[str, str]]:
    head = f"query {r.query.name} {' '.join(f'{k}={v}' for k, v in r.query.arguments.items())}" if r.query.name else ""
    lines = [("asked", head or r.query.normalised), ("of", f"{r.dataset}, {r.created}")]
    if head:
        lines.append(("sql", r.query.normalised))
    lines += [("revision" if name == "main" else name, _revision(f)) for name, f in r.revisions.items()]
    for t in r.tables:
        where = t.table if t.of == "main" else f"{t.of}.{t.table}"
        volatile = ", differs from run to run" if t.volatile else ""
        lines.append(("table", f"{where}, stage {t.stage or 'none'}: {t.digest[:16] or 'not known'}{volatile}"))
    lines.append(("answer", f"{r.answer.rows:,} rows ({', '.join(name for name, _ in r.answer.columns)})"))
    lines.append(("digest", r.answer.digest))
    lines.append(("any order", r.answer.digest_any_order))
    lines += [("warning", f"{name} may answer otherwise each time") for name in r.volatile_functions]
    code = f" ({r.versions.commit[:10]})" if r.versions.commit else ""
    return [*lines, ("made by", f"connectome_db {r.versions.connectome_db}{code}, DuckDB {r.versions.duckdb}")]


def _revision(f: RevisionFacts) -> str:
    tags = f" (tag {', '.join(f.tags)})" if f.tags else ""
    held = {True: "", False: "; the data were in no commit", None: "; not known whether a commit holds the data"}
    changes = "; with uncommitted changes" if f.dirty else ""
    return f"{f.asked}: commit {(f.commit or 'none')[:10]}{tags}{changes}{held[f.in_commit]}"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(receipt_app, name="receipt")
