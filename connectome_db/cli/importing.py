"""`connectome import`: a connectome made elsewhere becomes a project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from connectome_db.cli import importshow
from connectome_db.cli.console import OUT

Unit = Literal["nm", "um", "vx"]


def import_(
    file: Annotated[Path, typer.Argument(help="A table, an adjacency matrix, GraphML, or a folder of SWC skeletons.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the project: a new one, or one made by this command.")],
    pre: Annotated[str | None, typer.Option(help="Column of the presynaptic neuron; default: by name.")] = None,
    post: Annotated[str | None, typer.Option(help="Column of the postsynaptic neuron; default: by name.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column of the number of synapses in a row.")] = None,
    synapse: Annotated[str | None, typer.Option(help="Column of the list's own synapse names.")] = None,
    position: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="Columns of the place: x=A,y=B,z=C, or one column of [[x, y, z]], or none."
        ),
    ] = None,
    unit: Annotated[Unit | None, typer.Option(help="Unit of places; voxels (vx) need --voxel-nm.")] = None,
    voxel_nm: Annotated[str | None, typer.Option(help="Voxel size z,y,x in nm, e.g. 40,4,4.")] = None,
    size: Annotated[str | None, typer.Option(help="Column of the size of a synapse.")] = None,
    confidence: Annotated[str | None, typer.Option(help="Column of the confidence in a synapse.")] = None,
    roi: Annotated[str | None, typer.Option(help="Column of the region a synapse is in.")] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only these rows.")] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="Table that says something about neurons; may be given several times.")
    ] = None,
    neuron: Annotated[str | None, typer.Option(help="Column of the neuron in tables of annotations.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Of a table of annotations, take only this column.")] = None,
    skeletons: Annotated[Path | None, typer.Option(help="Folder of skeletons in SWC, one file per neuron.")] = None,
    skeleton_unit: Annotated[Unit | None, typer.Option(help="Unit of the skeletons.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook (.xlsx); default: the first.")] = None,
    columns_are_pre: Annotated[
        bool, typer.Option("--columns-are-pre", help="Of a matrix, columns are presynaptic, not rows.")
    ] = False,
    names: Annotated[Path | None, typer.Option(help="Names of the neurons of an .npy matrix, one a line.")] = None,
    mixed_names: Annotated[
        bool, typer.Option("--mixed-names", help="Neurons have numbers and names in one column.")
    ] = False,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Set rows that cannot be used aside, instead of stopping.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Where the files are from; default: unknown.")] = None,
    licence: Annotated[str | None, typer.Option(help="Their licence; default: unknown.")] = None,
    citation: Annotated[str | None, typer.Option(help="What to cite; default: unknown.")] = None,
    versions_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="One version (commit and tag) per value of this column.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Git tag of the version that is made.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: the folder's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and write nothing.")] = False,
) -> None:
    """Import a list of synapses, or what belongs to one; again into the same folder makes the next version.

    What the file is, and which column says what, is recognised by name and shown before anything is written; options
    say it otherwise. CSV, TSV, Parquet, Feather, Arrow, xlsx, JSON, GraphML, npy and folders of SWC are read.

    Examples:

        connectome import edges.csv larva --annotations neurons.csv

        connectome import synapses.parquet worm --versions-by dataset

        connectome import skeletons/ larva --unit nm
    """
    from connectome_db import importing, newproject
    from connectome_db.lists.mapping import Given, values_of

    if not dry_run:
        newproject.need_tools()
    given = Given(
        pre=pre, post=post, weight=weight, synapse=synapse, size=size, confidence=confidence, roi=roi,
        position=importshow.position(position), unit=unit, voxel_nm=importshow.voxel(voxel_nm) if voxel_nm else None,
        where=importshow.where(where or []), neuron=neuron, columns=tuple(column or ()), sheet=sheet,
        skeleton_unit=skeleton_unit,
        names=names.resolve() if names else None, columns_are_pre=columns_are_pre, mixed_names=mixed_names,
        set_aside=set_aside, source=source, licence=licence, citation=citation,
    )  # fmt: skip
    ask = importshow.on_terminal() and not yes
    values = values_of(file, versions_by, sheet) if versions_by else [None]
    tags: list[str | None] = list(importing.tags_of([v for v in values if v is not None])) if versions_by else [tag]
    for k, (value, label) in enumerate(zip(values, tags, strict=True)):
        rows = {versions_by: value} if versions_by and value is not None else {}
        these = replace(given, where={**given.where, **rows})
        chosen = importing.choose(file, folder, these, annotated_by=annotations or (), skeletons_in=skeletons)
        if k == 0:
            importshow.show(file, chosen)
        if any(m.unit_unsaid for m in chosen.parts):
            given = importshow.settle_unit(given, chosen, ask=ask)
            these = replace(given, where=these.where)
            chosen = importing.choose(file, folder, these, annotated_by=annotations or (), skeletons_in=skeletons)
        if dry_run:
            importshow.show_validated(importing.validate(folder, chosen))
            continue
        if k == 0 and ask:
            importshow.confirm(f"Import this into {folder}?")
        project = importing.take(folder, chosen, name=name or folder.resolve().name)
        what = ", ".join(f"{c}={v}" for c, v in rows.items())
        importing.make_version(folder, f"Import {file.name} {what}".rstrip(), label)
        OUT.print(f"[bold]{project.dataset.name}[/] {label or ''}", highlight=False)
        importshow.show_counts(importing.imported_counts(folder))
    if not dry_run:
        OUT.print(f"Next: [bold]cd {folder}[/], [bold]connectome query[/], [bold]connectome tables[/]")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("import")(import_)
