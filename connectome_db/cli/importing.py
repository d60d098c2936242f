"""`connectome import`: a list of synapses made elsewhere becomes a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connectome_db.cli.console import OUT
from connectome_db.errors import ConfigError


def _where(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--where {text!r}: wanted COLUMN=VALUE, e.g. dataset=Dataset1")
        found[column] = value
    return found


def import_(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet or Feather: one row per synapse or connection.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the project: a new one, or one made by this command.")],
    pre: Annotated[str | None, typer.Option(help="Column of the presynaptic neuron; default: by name.")] = None,
    post: Annotated[str | None, typer.Option(help="Column of the postsynaptic neuron; default: by name.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column of the number of synapses in a row.")] = None,
    synapse: Annotated[str | None, typer.Option(help="Column of the list's own synapse names.")] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only these rows.")] = None,
    versions_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="One version (commit and tag) per value of this column.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Git tag of the version that is made.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: the folder's.")] = None,
) -> None:
    """Import a list of synapses made elsewhere; again into the same folder makes the next version.

    Examples:

        connectome import edges.csv larva --pre pre_id --post post_id --weight synapses

        connectome import synapses.parquet worm --versions-by dataset
    """
    from connectome_db import importing, newproject

    newproject.need_tools()
    chosen = _where(where or [])
    values = importing.values_of(file, versions_by) if versions_by else [None]
    tags: list[str | None] = list(importing.tags_of([v for v in values if v is not None])) if versions_by else [tag]
    for value, label in zip(values, tags, strict=True):
        rows = chosen | ({versions_by: value} if versions_by and value is not None else {})
        mapped = importing.choose_columns(file, folder, pre=pre, post=post, weight=weight, synapse=synapse, where=rows)
        project = importing.bring(folder, mapped.synapses, name=name or folder.resolve().name)
        s = mapped.synapses
        OUT.print(
            f"[bold]{project.dataset.name}[/] {label or ''}  pre = {s.pre}, post = {s.post}, "
            f"weight = {s.weight or '1 a row'}, synapse = {s.synapse or 'row number'}",
            highlight=False,
        )  # fmt: skip
        what = ", ".join(f"{c}={v}" for c, v in rows.items())
        importing.make_version(folder, f"Import {file.name} {what}".rstrip(), label)
    OUT.print(f"Next: [bold]cd {folder}[/], [bold]connectome query[/], [bold]connectome tables[/]")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("import")(import_)
