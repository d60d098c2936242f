"""How `connectome import` shows what a file is and what came of it, and what it asks on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from connectome_db.cli.console import OUT
from connectome_db.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from connectome_db.importing import Import, Validated
    from connectome_db.lists.mapping import Given, Mapped
    from connectome_db.lists.report import Report

SAMPLES = 3
SHOWN = 30
"""Columns of a table of annotations that are shown."""
UNITS = ("nm", "um", "vx")


def voxel(text: str) -> tuple[float, float, float]:
    """--voxel-nm as (z, y, x). Raises ConfigError."""
    try:
        z, y, x = (float(v) for v in text.replace("x", ",").split(","))
    except ValueError as e:
        raise ConfigError(f"--voxel-nm {text!r}: wanted three numbers z,y,x in nm, e.g. 40,4,4") from e
    return z, y, x


def where(texts: list[str]) -> dict[str, str]:
    """--where as column -> value. Raises ConfigError."""
    found = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--where {text!r}: wanted COLUMN=VALUE, e.g. dataset=Dataset1")
        found[column] = value
    return found


def position(text: str | None) -> dict[str, str] | None:
    """--position as axis -> column: `none`, one column of [x, y, z], or x=A,y=B,z=C. Raises ConfigError."""
    if text is None:
        return None
    if text == "none":
        return {}
    if "=" not in text:
        return {"xyz": text}
    found = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if set(found) != {"x", "y", "z"} or not all(found.values()):
        raise ConfigError(
            f"--position {text!r}: wanted x=COLUMN,y=COLUMN,z=COLUMN, or one column of [x, y, z], or none"
        )
    return found


def settle_unit(given: Given, chosen: Import, *, ask: bool) -> Given:
    """What is given, with the units of places that nobody said: asked on a terminal, else an error."""
    for mapped in chosen.parts:
        if not mapped.unit_unsaid:
            continue
        of_skeletons = mapped.kind == "skeletons"
        columns = ", ".join(c for what, c, _ in mapped.roles if what.startswith("place"))
        if not ask:
            raise SourceError(
                f"{mapped.what}: in which unit are the places ({columns})? The file does not say it. "
                f"Give --{'skeleton-' if of_skeletons else ''}unit nm, um or vx (voxels, with --voxel-nm z,y,x)"
                f"{'' if of_skeletons else ', or leave places out by --position none'}"
            )
        unit = typer.prompt(f"{mapped.what}: in which unit are the places ({columns})? nm, um or vx (voxels)")
        if unit not in UNITS:
            raise ConfigError(f"unit {unit!r}: wanted nm, um or vx")
        given = replace(given, skeleton_unit=unit) if of_skeletons else replace(given, unit=unit)
        if unit == "vx" and given.voxel_nm is None:
            given = replace(given, voxel_nm=voxel(typer.prompt("Voxel size z,y,x in nm, e.g. 40,4,4")))
    return given


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show(file: Path, chosen: Import) -> None:
    """What each file is, and its columns with their first values."""
    for mapped in chosen.parts:
        called = Path(getattr(mapped.spec, "file", getattr(mapped.spec, "folder", file))).name
        OUT.print(f"[bold]{escape(called)}[/]  {escape(mapped.what)}", highlight=False)
        samples = min(SAMPLES, mapped.head.num_rows) if mapped.head is not None else 0
        table = Table(header_style="bold")
        for head in ("meaning", "column", "known", *(f"row {k + 1}" for k in range(samples))):
            table.add_column(head, overflow="fold")
        for meaning, column, how in mapped.roles[:SHOWN]:
            table.add_row(*(escape(t) for t in (meaning, column, how, *_samples(mapped, column, samples))))
        OUT.print(table)
        if len(mapped.roles) > SHOWN:
            OUT.print(f"… and {len(mapped.roles) - SHOWN} more columns")
        if mapped.unused:
            OUT.print(f"Not imported: {escape(', '.join(mapped.unused))}", highlight=False)
        for warning in mapped.warnings:
            OUT.print(f"[yellow]note:[/] {escape(warning)}", highlight=False)


def _samples(mapped: Mapped, columns: str, rows: int) -> list[str]:
    """First values of a column, or of several that are named as `x, y, z`."""
    if mapped.head is None:
        return []
    head = mapped.head
    names = [columns] if columns in head.column_names else [c for c in columns.split(", ") if c in head.column_names]
    found = [[head[n][k].as_py() for n in names] for k in range(rows)]
    return [", ".join("" if v is None else str(v) for v in row)[:40] for row in found]


def confirm(question: str) -> None:
    """Ask; no ends the command."""
    if not typer.confirm(question, default=True):
        raise typer.Exit(1)


def show_report(what: str, report: Report) -> None:
    """What reading a file found."""
    parts = [f"{report.rows:,} rows"]
    parts += [f"{report.left_out:,} left out by --where"] if report.left_out else []
    parts += [f"{report.rejected:,} set aside"] if report.rejected else []
    OUT.print(f"{escape(what)}: {', '.join(parts)}, {report.kept:,} imported", highlight=False)
    for line in report.lines():
        OUT.print(f"  [yellow]set aside:[/] {escape(line)}", highlight=False)
    for note, count in report.notes.items():
        OUT.print(f"  note: {escape(note)} ({count:,} rows)", highlight=False)


def show_validated(found: Validated) -> None:
    """What --dry-run found."""
    for what, report in found.lists.items():
        show_report(what, report)
    show_counts(found.counts)


def show_counts(counts: Mapping[str, int]) -> None:
    """Numbers by what they count, on a line."""
    OUT.print(", ".join(f"{n:,} {what}" for what, n in counts.items()), highlight=False)
