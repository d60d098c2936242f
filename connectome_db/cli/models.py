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


@models_app.command()
def quantize(
    model: Annotated[str, typer.Argument(help="A flood-filling network: name or folder.")],
    name: Annotated[str, typer.Option(help="Name of the model made.", show_default=False)],
    data: Annotated[str, typer.Option(help="phantom, ac3=DIR, fib25=DIR or projects=DIR,DIR,… (with truth).")],
    folder: Annotated[Path, typer.Option(help="Where models are kept.")] = Path("models"),
    windows: Annotated[int, typer.Option(min=1, help="Windows that ranges are taken from, and cost.")] = 64,
) -> None:
    """Make a flood-filling network that computes in 8 bits, about twice as fast on a CPU, and measure what that costs.

    What its convolutions see is measured on the training part of the data, the cost on the held-out part.

    Example: connectome models quantize fib25 --name fib25-int8 --data fib25=/data/fib25
    """
    from rich.progress import Progress

    from connectome_db.cli.console import ERR
    from connectome_db.demo import training_split
    from connectome_db.networks.ffn_quantize import quantize_ffn
    from connectome_db.networks.registry import BUNDLED, find_model, model_id

    source = find_model(model, [folder, BUNDLED])
    split = training_split(data, "affinity")
    with Progress(console=ERR) as bar:
        rows = {what: bar.add_task(what, total=windows) for what in ("ranges", "cost")}
        cost = quantize_ffn(
            source,
            folder / name,
            split.train,
            split.test,
            windows=windows,
            progress=lambda what, done, of: bar.update(rows[what], completed=done, total=of),
        )
    OUT.print(f"[bold]{model_id(folder / name)}[/]: {folder / name}")
    OUT.print(
        f"against {model_id(source)} in float32, {cost.windows} held-out windows: logits off by {cost.mean_off:.3f} on "
        f"average, {cost.largest_off:.2f} at most; {cost.segment_changed:.2%} of voxels cross the segment threshold, "
        f"{cost.move_changed:.2%} the move threshold"
    )


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
