"""Commands that train networks: `connectome train affinity`, `cleft` and `ffn`."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from connectome_db.cli import make
from connectome_db.cli.console import OUT
from connectome_db.cli.models import triple

if TYPE_CHECKING:
    from connectome_db.networks.ffn_training import Ranks

train_app = typer.Typer(no_args_is_help=True, help="Train a network on volumes with truth.")


@train_app.callback()
def train() -> None:
    """Train a network on volumes with truth."""


def ffn(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="phantom, ac3=DIR, fib25=DIR or projects=DIR,DIR,… (with truth).")],
    out: Annotated[Path, typer.Option(help="Model folder to make, e.g. models/mine-ffn.")],
    steps: Annotated[int, typer.Option(min=1, help="Each looks through one window in every row of the batch.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Rows: windows of a step, over all ranks.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Highest rate, for the whole batch.")] = 1e-3,
    warmup_steps: Annotated[int | None, typer.Option(min=0, help="Until it is reached; 5% if not said.")] = None,
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], typer.Option(help="How weights follow gradients.")] = "adamw",
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another training.")] = 0,
    initial: Annotated[Path | None, typer.Option(help="A model folder to start from (fine-tuning).")] = None,
    teacher: Annotated[Path | None, typer.Option(help="A model folder to imitate (distillation).")] = None,
    teacher_share: Annotated[float, typer.Option(help="Its share of the target; the rest is the truth.")] = 0.5,
    depth: Annotated[int | None, typer.Option(min=1, help="Pairs of convolutions.")] = None,
    features: Annotated[int | None, typer.Option(min=1, help="Channels of a convolution.")] = None,
    fov_vx: Annotated[str | None, typer.Option(help="Window z,y,x in voxels.")] = None,
    deltas_vx: Annotated[str | None, typer.Option(help="Steps z,y,x in voxels.")] = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="The model made computes in bfloat16.")] = False,
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Arithmetic of training.")] = "float32",
    validate_vx: Annotated[str, typer.Option(help="Box z,y,x in voxels to fill and score, or none.")] = "40,160,160",
    validate_every: Annotated[int, typer.Option(min=0, help="Steps between scores; 0: only at the end.")] = 0,
    refresh_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 2,
    makers: Annotated[int, typer.Option(min=0, help="Processes that make examples; 0: a thread.")] = 0,
    ranks: Annotated[int, typer.Option(min=1, help="MPI ranks that share the batch.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Keep logs for TensorBoard.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint, if there is one.")] = True,
) -> None:
    """Train a flood-filling network; writes weights, a model card, losses, and scores of filling a held-out box.

    Examples:

        connectome train ffn --data fib25=/data/fib25 --out models/mine-ffn --steps 20000 --batch 16

        connectome train ffn --data fib25=/data/fib25 --initial models/fib25 --out models/tuned --learning-rate 1e-4

        connectome train ffn --data fib25=/data/fib25 --teacher models/fib25 --depth 6 --features 16 --out models/lite
    """
    from connectome_db import executors
    from connectome_db.demo import training_split
    from connectome_db.errors import ConnectomeError, RunError
    from connectome_db.networks.ffn_command import default_ffn_training, train_and_validate
    from connectome_db.networks.registry import model_id

    if ranks > 1 and not executors.inside_mpi():
        words = ["-m", "connectome_db.cli.main", "train", "ffn", *_words(context)]
        hint = "start `connectome train ffn …` with your site's launcher, e.g. `srun -n 4`"
        code = executors.start_ranks(["mpiexec", "-n", str(ranks)], words, hint)
        if code:
            raise RunError(f"the MPI job of {ranks} ranks ended with code {code}; its messages are above")
        return
    split = training_split(data, "affinity")
    given = {
        "depth": depth,
        "features": features,
        "fov_vx": triple("--fov-vx", fov_vx),
        "deltas_vx": triple("--deltas-vx", deltas_vx),
        "precision": "bfloat16" if bfloat16 else None,
    }
    config = default_ffn_training(
        split.train[0].voxel_nm,
        initial,
        {name: value for name, value in given.items() if value is not None},
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        optimizer=optimizer,
        seed=seed,
        teacher_share=teacher_share,
        precision=precision,
        validate_every=validate_every,
        refresh_every=refresh_every,
    )
    mine = _ranks()
    try:
        card = train_and_validate(
            config,
            split,
            out,
            validate_vx=None if validate_vx == "none" else triple("--validate-vx", validate_vx),
            threads=threads,
            makers=makers,
            resume=resume,
            initial=initial,
            teacher=teacher,
            ranks=mine,
            tensorboard=tensorboard,
        )
    except Exception as problem:
        if mine.size > 1:  # the other ranks wait for this one
            known = isinstance(problem, ConnectomeError)
            typer.echo(f"error: {problem}" if known else traceback.format_exc(), err=True)
            executors.abort(1)
        raise
    if mine.rank == 0:
        OUT.print(f"[bold]{model_id(out)}[/]: {out}")
        OUT.print_json(data=card["scores_on_held_out_data"])


def _ranks() -> Ranks:
    from connectome_db import executors
    from connectome_db.networks.ffn_training import Ranks

    size = executors.size()
    return Ranks(executors.rank(), size, executors.allreduce_mean if size > 1 else None)


def _words(context: typer.Context) -> list[str]:
    """The options of a call as words, those left at their defaults not."""
    words: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if value is None or value == option.default:
            continue
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [option.opts[0], str(value)]
    return words


def _unet(task: str) -> Callable[..., None]:
    """`make.train` for one task: a command of its own with the same options."""
    whole = inspect.signature(make.train, eval_str=True)

    @functools.wraps(make.train)
    def run(**options: Any) -> None:
        make.train(task, **options)  # type: ignore[arg-type]  # one of its tasks

    if task != "affinity":  # whose examples it has
        summary = inspect.cleandoc(make.train.__doc__ or "").split("\n\n")[0]
        run.__doc__ = f"{summary}\n\nExample: connectome train {task} --data phantom --out models/mine-{task}"
    options = [option for option in whole.parameters.values() if option.name != "task"]
    run.__signature__ = whole.replace(parameters=options)  # type: ignore[attr-defined]  # what typer reads
    return run


for _task in ("affinity", "cleft"):
    train_app.command(_task)(_unet(_task))
train_app.command()(ffn)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(train_app, name="train")
