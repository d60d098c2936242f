"""Commands that make things: simulate, train, demo, assess, picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from connectome_db.cli.asof import RevisionOption, open_at
from connectome_db.cli.console import OUT, ProjectOption, open_project, root_of


def simulate(
    folder: Annotated[Path, typer.Argument(help="Folder to make: raw/ (tiles, manifest) and truth/.")],
    seed: Annotated[int, typer.Option(help="Another seed is another tissue.")] = 7,
    shape_vx: Annotated[str, typer.Option(help="Tissue size z,y,x in voxels.")] = "48,480,480",
    artefact: Annotated[
        list[str] | None,
        typer.Option(help="staining, missing_tile, fold, drift, defocus or blank; may be repeated."),
    ] = None,
) -> None:
    """Grow synthetic tissue and image it as raw tiles, with truth for every layer.

    Example: connectome simulate phantom --seed 3 --artefact staining
    """
    from connectome_db.demo import simulate_phantom

    found = simulate_phantom(folder, seed, shape_vx, tuple(artefact or ()))
    OUT.print(found, highlight=False)


def train(
    task: Annotated[Literal["affinity", "cleft"], typer.Argument(help="What the network predicts.")],
    data: Annotated[str, typer.Option(help="phantom, ac3=DIR, fib25=DIR or projects=DIR,DIR,… (with truth).")],
    out: Annotated[Path, typer.Option(help="Model folder to make, e.g. models/mine-affinity.")],
    steps: Annotated[int, typer.Option(min=1)] = 1500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint, if there is one.")] = True,
    initial: Annotated[Path | None, typer.Option(help="A model folder to start from (fine-tuning).")] = None,
    lsd: Annotated[
        bool, typer.Option("--lsd", help="affinity: learn local shape descriptors as well; affinities get better.")
    ] = False,
    width: Annotated[
        int, typer.Option(min=1, max=8, help="Features of every level times this; cost per voxel times its square.")
    ] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Patches a step.")] = 1,
    helpers: Annotated[int, typer.Option(min=1, help="Threads that make the next batches.")] = 1,
) -> None:
    """Train a 3-D U-Net; writes weights, a model card with scores on held-out data, and a loss curve.

    Examples:

        connectome train affinity --data phantom --out models/mine-affinity --steps 1500

        connectome train affinity --lsd --data fib25=/data/fib25 --out models/fly-lsd
    """
    from connectome_db.demo import training_split
    from connectome_db.networks.command import train_and_score
    from connectome_db.networks.registry import model_id

    split = training_split(data, task)
    card = train_and_score(
        split,
        out,
        task=task,
        steps=steps,
        seed=seed,
        threads=threads,
        resume=resume,
        initial=initial,
        lsd=lsd,
        width=width,
        batch=batch,
        helpers=helpers,
    )
    OUT.print(f"[bold]{model_id(out)}[/]: {out}")
    OUT.print_json(data=card.get("scores_on_held_out_data", []))


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder of the demo project; made anew.")] = Path("demo"),
    data: Annotated[Path | None, typer.Option(help="AC3 folder: real EM instead of a phantom.")] = None,
    ranks: Annotated[int, typer.Option(min=0, help="MPI workers; 0 runs serially.")] = 0,
    small: Annotated[bool, typer.Option(help="A smaller volume, for tests.")] = False,
) -> None:
    """Raw tiles to a queryable connectome, end to end, and what came of it.

    Examples:

        connectome demo

        connectome demo ac3-demo --data path/to/ac3
    """
    from connectome_db.demo import run_demo

    run_demo(folder, data=data, ranks=ranks, small=small, out=OUT)


def assess(
    project: ProjectOption = None,
    sections: Annotated[str | None, typer.Option(help="first:last+1, e.g. 28:40 for held-out sections.")] = None,
    listed_only: Annotated[bool, typer.Option(help="The truth does not list every synapse: recall only.")] = False,
) -> None:
    """Compare a project with the truth beside its tiles, layer by layer. Example: connectome assess --sections 28:40"""
    from connectome_db.assess import assess as measure
    from connectome_db.errors import ConfigError
    from connectome_db.summary import measures_table

    span = None
    if sections:
        first, _, last = sections.partition(":")
        if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
            raise ConfigError(f"--sections {sections}: wanted first:last+1, e.g. 28:40")
        span = (int(first), int(last))
    measures, _ = measure(open_project(project), span, exhaustive=not listed_only)
    OUT.print(measures_table(measures))


def picture(
    out: Annotated[Path, typer.Argument(help="PNG to write.")] = Path("connectome.png"),
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Draw image, objects and synapses of a project, now or as of a git revision.

    Examples:

        connectome picture overview.png

        connectome picture before.png --rev v1
    """
    from connectome_db.versions.asof import dataset_name
    from connectome_db.viewing.picture import draw

    revision = open_at(root_of(project), rev)
    title = dataset_name(revision) + (f", as of {revision.name}" if revision.commit else "")
    OUT.print(f"wrote {draw(revision, out, title)}")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (simulate, demo, assess, picture):  # train: cli.training
        app.command()(command)
