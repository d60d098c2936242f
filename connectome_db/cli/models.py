"""Commands about models: bring in one that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.console import OUT

if TYPE_CHECKING:
    from connectome_db.geometry import Vec3

models_app = typer.Typer(no_args_is_help=True, help="Networks of a project.")


@models_app.callback()
def models() -> None:
    """Networks of a project."""


@models_app.command("import-ffn")
def import_ffn(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="TensorFlow checkpoint: prefix, .index file, or folder with one.")
    ],
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
    folder: Annotated[Path, typer.Option(help="Where models are kept.")] = Path("models"),
    source: Annotated[str, typer.Option(help="Where the weights come from.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Their licence.")] = "unknown",
    fov_vx: Annotated[str | None, typer.Option(help="Window z,y,x in voxels, if no .pbtxt says it.")] = None,
    deltas_vx: Annotated[str | None, typer.Option(help="Steps z,y,x in voxels, if no .pbtxt says them.")] = None,
    image_mean: Annotated[float | None, typer.Option(help="Grey value taken as 0, if no .pbtxt says it.")] = None,
    image_std: Annotated[float | None, typer.Option(help="Grey values taken as 1, if no .pbtxt says it.")] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute in bfloat16: a model of its own.")] = False,
) -> None:
    """Bring in a flood-filling network that was trained with google/ffn: weights, settings, source, licence.

    Example: connectome models import-ffn model.ckpt-27465036 --name fib25 --source google/ffn --licence Apache-2.0
    """
    from connectome_db.networks.ffn_checkpoint import Request
    from connectome_db.networks.ffn_checkpoint import import_ffn as bring_in

    given = Request(
        fov_vx=triple("--fov-vx", fov_vx),
        deltas_vx=triple("--deltas-vx", deltas_vx),
        image_mean=image_mean,
        image_std=image_std,
    )
    precision = "bfloat16" if bfloat16 else "float32"
    made = bring_in(checkpoint, folder / name, given=given, precision=precision, source=source, licence=licence)
    OUT.print(f"[bold]{made}[/]: {folder / name}")


def triple(option: str, text: str | None) -> Vec3 | None:
    """Three whole numbers z,y,x of an option, None if it was not given; others are a ConfigError."""
    from connectome_db.errors import ConfigError

    if text is None:
        return None
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as e:
        raise ConfigError(f"{option} {text!r}: wanted three whole numbers z,y,x, e.g. 33,33,33") from e
    return z, y, x


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(models_app, name="models")
