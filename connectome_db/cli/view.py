"""The command that shows a project in Neuroglancer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from connectome_db.cli.console import ERR, ProjectOption, open_project


def view(
    rev: Annotated[str | None, typer.Option(help="A branch, tag or commit; default: the working tree.")] = None,
    objects: Annotated[list[int] | None, typer.Option("--object", help="An object to select; may be repeated.")] = None,
    synapse: Annotated[int | None, typer.Option(help="A synapse to look at, with its two objects.")] = None,
    region: Annotated[str | None, typer.Option(help="A region to look at.")] = None,
    at: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="A voxel to look at.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: a free one.")] = 0,
    state: Annotated[Path | None, typer.Option(help="Write Neuroglancer's state (JSON) to this file.")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the volumes, or only print.")] = True,
    project: ProjectOption = None,
) -> None:
    """Serve image and supervoxels on this machine, and print a link that shows them in Neuroglancer.

    Draw a box in the layer `regions` (control-click twice) and save the state; `connectome regions add NAME
    --from-neuroglancer FILE` makes it a region.

    Examples:

        connectome view --region corner

        connectome view --rev v1 --at 4,96,128 --state state.json --no-serve
    """
    from connectome_db.viewing import viewer
    from connectome_db.viewing.volumeserver import HOST, VolumeServer

    p = open_project(project)
    shown = viewer.open_view(p, rev, objects=objects or (), synapse=synapse, region=region, at=_voxel(at))
    for note in shown.notes:
        ERR.print(f"[yellow]note:[/] {note}", highlight=False)
    server = VolumeServer(shown.folders, port) if serve else None
    base = server.url if server else f"http://{HOST}:{port or viewer.PORT}"
    content = json.dumps(shown.state(base), indent=1) + "\n"
    if state is not None:
        tmp = state.with_name(f".{state.name}.new")
        tmp.write_text(content, encoding="utf-8")
        tmp.replace(state)
    sys.stdout.write(shown.link(base, served=serve) + "\n")
    sys.stdout.flush()
    if server is None:
        if not port:
            ERR.print(
                f"[dim]The link expects the volumes on port {viewer.PORT}: `connectome view --port {viewer.PORT}`[/]"
            )
        return
    server.state = content.encode()
    ERR.print(f"[dim]serving {', '.join(shown.folders)} at {base}; Ctrl-C stops[/]", highlight=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        ERR.print("stopped serving")
    finally:
        server.close()


def _voxel(text: str | None) -> tuple[int, int, int] | None:
    from connectome_db.errors import ConfigError

    if text is None:
        return None
    try:
        z, y, x = (int(v) for v in text.split(","))
    except ValueError as e:
        raise ConfigError(f"--at {text!r}: wanted a voxel z,y,x, e.g. 4,96,128") from e
    return z, y, x


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(view)
