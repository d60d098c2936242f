"""Where commands print, and how tables look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from connectome_db.config import Project

OUT = Console()
ERR = Console(stderr=True)

ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", "-C", help="The project's folder; default: the one you are in.", show_default=False),
]


def open_project(folder: Path | None) -> Project:
    """The project at `folder`, or the one the working directory is in."""
    from connectome_db.config import find_root, load, stages_of

    root = find_root((folder or Path()).resolve())
    return load(root, stages_of(root))


def root_of(folder: Path | None) -> Path:
    """The project's folder, without loading it."""
    from connectome_db.config import find_root

    return find_root((folder or Path()).resolve())


def show(rows: pa.Table, title: str = "", limit: int = 40) -> None:
    """Print an Arrow table; ids in full, floats to 4 digits."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for field in rows.schema:
        right = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if right else "left", overflow="fold")
    for row in rows.slice(0, limit).to_pylist():
        table.add_row(*(_text(v) for v in row.values()))
    OUT.print(table)
    if rows.num_rows > limit:
        OUT.print(f"[dim]… {rows.num_rows - limit:,} more rows; --limit or --format csv shows them[/]")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.6g}"
    return str(value).replace("[", "\\[")
