"""Commands to use before a run: plan."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli import costing
from connectome_db.cli.console import OUT, ProjectOption, open_project
from connectome_db.errors import ConfigError

if TYPE_CHECKING:
    from connectome_db.config import Project
    from connectome_db.geometry import Box


def plan(
    stages: Annotated[list[str] | None, typer.Argument(metavar="[STAGE]...", help="Only these; default: all.")] = None,
    project: ProjectOption = None,
    roi: Annotated[
        str | None, typer.Option(metavar="Z0,Y0,X0,Z1,Y1,X1", help="Only units whose core touches this box, or region.")
    ] = None,
    roi_unit: Annotated[Literal["nm", "vx"], typer.Option(help="Unit of --roi.")] = "vx",
    ranks: Annotated[int | None, typer.Option(min=0, help="Workers to forecast for. Default: launch.yaml.")] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Price per hour of a worker, or with --machine of a device."),
    ] = None,
    n: Annotated[int, typer.Option("--list", metavar="N", min=0, help="List the first N units of each stage.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="PNG to draw: where in the volume.")] = None,
    deep: Annotated[bool, typer.Option(help="Look for the stored files of every unit to reuse.")] = False,
    machine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Instead: what flood-filling --voxels costs on laptop, h100, h200, argonne-a100, or a YAML "
            "file. Repeat to compare.",
        ),
    ] = None,
    voxels: Annotated[
        str | None, typer.Option(metavar="N|Z,Y,X", help="With --machine: voxels of the volume (1e15), or its shape.")
    ] = None,
    subvolume: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="With --machine: voxels of a job. Default: 256,256,256.")
    ] = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="With --machine: voxels that jobs share. Default: 16,32,32.")
    ] = None,
    coarse: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="With --machine: voxels in a voxel of a first, coarse pass.")
    ] = None,
    coarse_filled: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --coarse: share of the volume that the first pass fills."),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="With --machine: devices at work at once.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; ids as strings.")] = False,
) -> None:
    """What a run would compute and why, with a forecast of time and cost. Computes and changes nothing.

    Examples:

        connectome plan

        connectome plan segment synapses --ranks 16 --price 0.04

        connectome plan --roi 0,0,0,8,512,512 --list 5 --picture plan.png

        connectome plan --machine h200 --machine argonne-a100 --voxels 1e15 --devices 1000
    """
    asked = costing.Asked(machine or (), voxels, subvolume, overlap, coarse, coarse_filled, devices)
    others = {
        "stages": stages,
        "--roi": roi,
        "--ranks": ranks is not None,
        "--list": n,
        "--picture": picture,
        "--deep": deep,
    }
    costing.refuse_mixed(asked, others)
    if asked.machines:
        costing.show(asked, project, price, as_json)
        return
    from connectome_db.versions.plan import report
    from connectome_db.versions.plan.forecast import forecast
    from connectome_db.versions.plan.foresee import foresee

    p = open_project(project)
    box = _box(roi, roi_unit, p) if roi else None
    seen = foresee(p, stages or (), deep=deep)
    if box is not None:
        seen = seen.within(box)
    times = forecast(seen, workers=ranks, price_per_hour=price)
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(seen, times, n), indent=1, ensure_ascii=False) + "\n")
    else:
        OUT.print(report.table(seen, times))
        for hint in report.hints(seen, times):
            OUT.print(hint, highlight=False, markup=False, soft_wrap=True)
        if n:
            OUT.print(report.listing(seen, n))
    if picture is not None:
        from connectome_db.versions.plan.picture import draw

        where = draw(seen, picture)
        if not as_json:
            OUT.print(f"wrote {where}", highlight=False)


def _box(text: str, unit: str, project: Project) -> Box:
    """A box in voxels from six numbers, or that of a region by its name."""
    from connectome_db.config import region_box
    from connectome_db.regional import regions

    if "," not in text:
        return regions.region(project, text).box
    wanted = f"--roi {text!r}: wanted six numbers z0,y0,x0,z1,y1,x1 in {unit}, or the name of a region"
    try:
        six = [float(v) for v in text.strip("[]() ").split(",")]
    except ValueError as e:
        raise ConfigError(wanted) from e
    if unit == "vx" and any(v % 1 for v in six):
        raise ConfigError(f"{wanted}; voxels are whole")
    return region_box("--roi", regions.spec_of(six, unit, wanted), project.voxel_nm)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(plan)
