"""Commands about a project: init, status, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from connectome_db.cli.console import OUT, ProjectOption, open_project
from connectome_db.errors import ConfigError, ConnectomeError


def _voxel(text: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(v) for v in text.replace("x", ",").split(","))
    except ValueError as e:
        raise ConfigError(f"--voxel-nm {text!r}: wanted three numbers z,y,x in nm, e.g. 30,4,4") from e
    return z, y, x


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")],
    voxel_nm: Annotated[str, typer.Option(help="Voxel size z,y,x in nm, e.g. 30,4,4.", show_default=False)],
    manifest: Annotated[
        Path | None,
        typer.Option(help="List of tiles (CSV, JSON, layout text) or a folder of images. [default: raw/manifest.csv]"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: the folder's.")] = None,
    models: Annotated[str, typer.Option(help="Family of networks: phantom, ac3 (30x6x6 nm), fib25 (10 nm).")] = "ac3",
    method: Annotated[
        Literal["affinity", "mutex", "ffn"], typer.Option(help="How segment works; ffn adds the stage flood.")
    ] = "affinity",
    ffn_model: Annotated[
        Path | None, typer.Option(help="With --method ffn: folder of the network, copied into models/; fib25 has one.")
    ] = None,
    tile_overlap_px: Annotated[
        tuple[int, int] | None, typer.Option(metavar="Y X", help="Overlap, for folders without positions.")
    ] = None,
    section: Annotated[int | None, typer.Option(help="Section number, where the file names do not say it.")] = None,
) -> None:
    """Make a project around your own tiles. Tiles are read where they are, never copied or changed.

    Examples:

        connectome init mybrain --manifest /scans/run7/tiles.csv --voxel-nm 40,4,4

        connectome init here --manifest montage/vem_165 --voxel-nm 30,8,8 --tile-overlap-px 180 180
    """
    from connectome_db import newproject
    from connectome_db.stages import flooded, pipeline

    stages = flooded.STAGES if method == "ffn" else pipeline.STAGES
    newproject.need_tools()
    changes = newproject.model_changes(stages, models, method)
    if method != "ffn" and ffn_model is not None:
        raise ConfigError(f"--ffn-model {ffn_model}: is for --method ffn alone")
    if method == "ffn":
        brought = newproject.bundled_ffn(models) if ffn_model is None else newproject.bring_ffn(folder, ffn_model)
        for stage, own in brought.items():
            changes[stage] = {**changes.get(stage, {}), **own}
    listed = newproject.as_named(manifest, folder) if manifest else "raw/manifest.csv"
    p = newproject.create(
        folder,
        name=name or folder.resolve().name,
        manifest=listed,
        voxel_nm=_voxel(voxel_nm),
        stages=stages,
        changes=changes,
        tile_overlap_px=tile_overlap_px,
        section=section,
    )
    OUT.print(f"[bold]{p.dataset.name}[/] is a project now: {p.root}")
    OUT.print(
        f"  tiles      {listed}, origin (y, x) = {p.dataset.origin_px} px, voxel {p.voxel_nm} nm", highlight=False
    )
    used = ", ".join(f"{s.name}: {getattr(p.params[s.name], 'model', '')}" for s in stages if s.network)
    OUT.print(f"  models     {used}", highlight=False)
    OUT.print("  parameters params.yaml (every one with its meaning); how to start ranks: launch.yaml")
    OUT.print(f"Next: [bold]cd {folder} && dvc repro[/], then [bold]connectome status[/]")


def status(project: ProjectOption = None) -> None:
    """Say per stage what is done and what would run. Computes nothing. Example: connectome status"""
    from connectome_db import prepare, runner
    from connectome_db.finish import is_current
    from connectome_db.store import Store

    p = open_project(project)
    store = Store(p.store)
    table = Table("stage", "units", "done", "to do", "data/", header_style="bold")
    stale: set[str] = set()
    for stage in p.stages:
        upstream = {n.partition(".")[0] for n in stage.inputs} & stale
        if upstream:
            table.add_row(stage.name, "?", "?", "?", f"waits for {', '.join(sorted(upstream))}")
            stale.add(stage.name)
            continue
        try:
            prepared = prepare.prepare(p, stage)
        except ConnectomeError as e:
            table.add_row(stage.name, "?", "?", "?", str(e).splitlines()[0])
            stale.add(stage.name)
            continue
        done = len(runner.done_units(prepared, store))
        current = is_current(prepared)
        if not current:
            stale.add(stage.name)
        todo = len(prepared.keys) - done
        table.add_row(stage.name, str(len(prepared.keys)), str(done), str(todo), "current" if current else "to be made")
    OUT.print(table)
    OUT.print("Everything is current." if not stale else "`dvc repro` makes what is missing.")


def doctor(project: ProjectOption = None) -> None:
    """Check the installation: Python, packages, MPI, TensorFlow, DVC, git, disk. Example: connectome doctor"""
    from connectome_db import doctor as module

    table = Table("check", "", "found", header_style="bold")
    results = module.check_all((project or Path()).resolve())
    for r in results:
        table.add_row(
            r.what, "[green]ok[/]" if r.ok else "[red]FAILS[/]", r.found if r.ok else f"{r.found}\n{r.remedy}"
        )
    OUT.print(table)
    if not all(r.ok for r in results):
        raise typer.Exit(1)


def runs(
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    rebuild: Annotated[bool, typer.Option(help="Make the catalog anew from the records on disk first.")] = False,
) -> None:
    """The catalog of runs: who ran which stage, when, where, at which revision. Example: connectome runs --limit 5"""
    from connectome_db.catalog import Catalog, default_url

    p = open_project(project)
    table = Table("stage", "started", "compute s", "computed", "reused", "by", "git", header_style="bold")
    with Catalog(p.launch.catalog or default_url(p.root)) as catalog:
        if rebuild:
            OUT.print(f"{catalog.rebuild(p.root)} stages entered from their records")
        for r in catalog.runs(limit, project=p.root):
            dirty = " (dirty)" if r.git_dirty else ""
            cells = (r.stage, r.started, r.compute_s, r.units_computed, r.units_reused, f"{r.user}@{r.host}")
            table.add_row(*("" if c is None else str(c) for c in cells), f"{(r.git_commit or '')[:10]}{dirty}")
    OUT.print(table)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(status)
    app.command()(runs)
    app.command()(doctor)
