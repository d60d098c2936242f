"""Commands that compute: run, finish, identity, dvcfile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, open_project
from connectome_db.errors import ConfigError

if TYPE_CHECKING:
    from connectome_db.config import Project

StageArgument = Annotated[str, typer.Argument(help="Stage, e.g. segment.", show_default=False)]


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    i, _, n = text.partition("/")
    if not (i.isdigit() and n.isdigit() and int(n) > 0 and int(i) < int(n)):
        raise ConfigError(f"--part {text}: wanted i/n with 0 <= i < n, e.g. 0/4, 1/4, 2/4, 3/4")
    return int(i), int(n)


def run(
    stage: StageArgument,
    project: ProjectOption = None,
    ranks: Annotated[int | None, typer.Option(min=0, help="Workers; 0 runs here. Default: launch.yaml.")] = None,
    part: Annotated[str | None, typer.Option(help="Job array: every n-th unit, i/n from 0/n. Does not finish.")] = None,
    executor: Annotated[
        Literal["serial", "mpi", "dask"] | None, typer.Option(help="Default: mpi for ranks > 0.")
    ] = None,
    allow_missing: Annotated[bool, typer.Option(help="Go on without tiles that cannot be used.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse uncommitted changes; re-hash every unit.")] = False,
    same_environment: Annotated[bool, typer.Option(help="Redo units made in another environment.")] = False,
) -> None:
    """Compute what is not done of a stage, and make data/STAGE.

    Examples:

        connectome run segment

        connectome run segment --ranks 4

        connectome run segment --part 2/8   (then: connectome finish segment)
    """
    from connectome_db import runner
    from connectome_db.finish import finish, is_current
    from connectome_db.progress import bar

    p = open_project(project)
    changes = {"allow_missing": allow_missing, "strict": strict, "same_environment": same_environment}
    p = p.launched(**{k: True for k, v in changes.items() if v})
    share = _part(part)
    p.stage(stage)
    with runner.locked(p, stage, shared=share is not None), bar(stage) as progress:
        prepared, outcome = runner.run_units(p, stage, ranks=ranks, executor=executor, part=share, progress=progress)
        if share is None and not (outcome.computed == 0 and not strict and is_current(prepared)):
            finish(prepared, outcome)
            _record(p, stage)
    what = f"part {part}: " if part else ""
    OUT.print(
        f"[bold]{stage:<11}[/] {what}{outcome.total:>6} units   [green]{outcome.computed:>6} computed[/]   "
        f"{outcome.reused:>6} reused   {outcome.seconds:7.1f} s   {outcome.executor} × {outcome.workers}",
        highlight=False,
        soft_wrap=True,
    )
    if share is not None:
        OUT.print(f"[dim]When all parts are done: connectome finish {stage}[/]")


def finish_(
    stage: StageArgument,
    project: ProjectOption = None,
    strict: Annotated[bool, typer.Option(help="Refuse uncommitted changes; re-hash every unit.")] = False,
) -> None:
    """Assemble data/STAGE from finished units; damaged ones are named and computed again.

    Example: connectome finish segment
    """
    from connectome_db import runner
    from connectome_db.finish import finish, only_damaged

    p = open_project(project)
    if strict:
        p = p.launched(strict=True)
    with runner.locked(p, stage):
        only_damaged(p, stage)
        prepared, outcome = runner.run_units(p, stage)
        finish(prepared, outcome)
        _record(p, stage)
    OUT.print(f"[bold]{stage}[/] finished: {outcome.total} units, {outcome.computed} computed again", highlight=False)


def _record(project: Project, stage: str) -> None:
    from connectome_db.catalog import Catalog, default_url

    with Catalog(project.launch.catalog or default_url(project.root)) as catalog:
        catalog.record_run(project.root, stage)


def identity(project: ProjectOption = None) -> None:
    """Write identity/STAGE.json: code, model, parameters and regions per stage. `dvc repro` calls it.

    Example: connectome identity
    """
    from connectome_db.dvcfile import write_identity

    ERR.print(f"[dim]identity of {write_identity(open_project(project))} stages written[/]")


def dvcfile(
    project: ProjectOption = None, check: Annotated[bool, typer.Option(help="Only check that it is current.")] = False
) -> None:
    """Write dvc.yaml from the pipeline. Example: connectome dvcfile --check"""
    from connectome_db import dvcfile as module

    p = open_project(project)
    if check:
        module.check(p)
        OUT.print("dvc.yaml is current")
    else:
        OUT.print(f"wrote {module.write(p)}")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(run)
    app.command("finish")(finish_)
    app.command()(identity)
    app.command()(dvcfile)
