"""Commands for regions: name a box, and change parameters in it. They edit params.yaml and run nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, open_project

if TYPE_CHECKING:
    from connectome_db.regional.regions import Change

regions_app = typer.Typer(
    no_args_is_help=True, help="Named boxes of params.yaml, and the parameters that hold in them only."
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the region.")]


@regions_app.command("add")
def add(
    name: NameArgument,
    box_nm: Annotated[str | None, typer.Option(help="Box z0,y0,x0,z1,y1,x1 in nm.")] = None,
    box_vx: Annotated[str | None, typer.Option(help="Box z0,y0,x0,z1,y1,x1 in voxels.")] = None,
    from_flag: Annotated[str | None, typer.Option(metavar="ID", help="A box that a quality check flagged.")] = None,
    from_neuroglancer: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="A saved state, a link with #!, or a folder of precomputed annotations."),
    ] = None,
    annotation: Annotated[
        str | None, typer.Option(metavar="ID", help="Which box of the source: its id or description.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="What is the matter there.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Give a region that is there another box.")] = False,
    project: ProjectOption = None,
) -> None:
    """Name a box of the volume in params.yaml. Changes no result until something is overridden in it.

    Examples:

        connectome regions add corner --box-vx 0,0,0,8,64,64 --note "weak osmium"

        connectome regions add fold --from-neuroglancer state.json --annotation 1f3a
    """
    from connectome_db.errors import ConfigError
    from connectome_db.regional import regions

    given = [o for o in (box_nm, box_vx, from_flag, from_neuroglancer) if o is not None]
    if len(given) != 1:
        raise ConfigError("give one of --box-nm, --box-vx, --from-flag and --from-neuroglancer")
    p = open_project(project)
    if box_nm is not None or box_vx is not None:
        spec = regions.parse_box(given[0], "vx" if box_nm is None else "nm")
    elif from_flag is not None:
        spec = regions.read_flag(p, from_flag)
    else:
        spec = regions.read_drawn(p, given[0], annotation)
    if note is not None:
        spec = spec.model_copy(update={"note": note})
    _write(regions.add(p, name, spec, replace=replace))
    OUT.print(f"Next: [bold]connectome regions set {name} STAGE.PARAMETER=VALUE[/]", highlight=False)


@regions_app.command("list")
def list_(project: ProjectOption = None) -> None:
    """All regions: their boxes, what they override, their notes. Example: connectome regions list"""
    from rich.table import Table

    from connectome_db.regional import effect, regions

    p = open_project(project)
    found = regions.regions(p)
    if not found:
        OUT.print("no regions; `connectome regions add` names a box")
        return
    table = Table("region", "box (voxels)", "overrides", "note", header_style="bold")
    for r in found.values():
        table.add_row(r.name, str(r.box), _escape("\n".join(r.settings())), _escape(r.spec.note))
    OUT.print(table)
    _warn(effect.conflicts(p))


@regions_app.command("show")
def show(name: NameArgument, project: ProjectOption = None) -> None:
    """One region: its box in nm and voxels, its overrides, the units they hold for.

    Example: connectome regions show corner
    """
    from connectome_db.regional import effect, regions

    p = open_project(project)
    r = regions.region(p, name)
    size_nm = [n * s for n, s in zip(r.box.shape, p.voxel_nm, strict=True)]
    OUT.print(f"[bold]{name}[/]  {_escape(r.spec.note)}", highlight=False)
    lines = [
        ("voxels", f"{r.box}  ({' x '.join(map(str, r.box.shape))} = {r.box.size_vx:,} voxels)"),
        ("nm", f"{regions.box_text(r.box_nm(p.voxel_nm))}  ({size_nm[0] * size_nm[1] * size_nm[2] / 1e9:,.4g} µm³)"),
    ]
    lines += [("override", f"{s}; {usual} elsewhere") for s, usual in zip(r.settings(), r.elsewhere(p), strict=True)]
    lines += [(stage, f"touches {n} of {of} units") for stage, n, of in effect.units(p, r.box)]
    for what, text in lines:
        OUT.print(f"  {what:<12} {text}", highlight=False, markup=False, soft_wrap=True)
    OUT.print(
        "An override holds for whole units: those whose core touches the box. `connectome plan` says what would run.",
        soft_wrap=True,
    )
    _warn([*effect.check_bounds(p, name, r.box), *effect.conflicts(p, name)])


@regions_app.command("set")
def set_(
    name: NameArgument,
    assignments: Annotated[list[str], typer.Argument(metavar="STAGE.PARAMETER=VALUE ...", help="Values as YAML.")],
    project: ProjectOption = None,
) -> None:
    """Override parameters in a region. Refused, with nothing changed, where the project would not be valid.

    Example: connectome regions set corner segment.seed_window_nm=80 segment.boundary=0.45
    """
    from connectome_db.regional import regions

    _write(regions.set_values(open_project(project), name, assignments))
    OUT.print("Next: `connectome plan` says what would run, `dvc repro` runs it.")


@regions_app.command("unset")
def unset(
    name: NameArgument,
    what: Annotated[list[str], typer.Argument(metavar="STAGE.PARAMETER|STAGE ...", help="Overrides to take back.")],
    project: ProjectOption = None,
) -> None:
    """Take overrides of a region back. Example: connectome regions unset corner segment.seed_window_nm"""
    from connectome_db.regional import regions

    _write(regions.unset(open_project(project), name, what))


@regions_app.command("remove")
def remove(name: NameArgument, project: ProjectOption = None) -> None:
    """Remove a region and all that it overrides. Example: connectome regions remove corner"""
    from connectome_db.regional import regions

    _write(regions.remove(open_project(project), name))


def _write(change: Change) -> None:
    from connectome_db.regional import regions

    regions.apply(change)
    for line in change.done:
        OUT.print(line, highlight=False, markup=False, soft_wrap=True)
    _warn(change.warnings)


def _warn(lines: tuple[str, ...] | list[str]) -> None:
    for line in lines:
        ERR.print(f"[yellow]note:[/] {_escape(line)}", highlight=False, soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(regions_app, name="regions")
