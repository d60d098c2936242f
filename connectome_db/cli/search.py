"""Commands of hyper-parameter searches: new, run, show, keep, and what one trial does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.console import OUT, ProjectOption, root_of, show

if TYPE_CHECKING:
    from connectome_db.search.loop import Trial

search_app = typer.Typer(no_args_is_help=True, help="Search hyper-parameters of `connectome train`.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the search.")]


@search_app.callback()
def search() -> None:
    """Search hyper-parameters of `connectome train`; every trial is a DVC experiment."""


@search_app.command("new")
def new(
    name: NameArgument,
    task: Annotated[str | None, typer.Option(help="What is trained: affinity, cleft or ffn.")] = None,
    data: Annotated[str | None, typer.Option(help="As `connectome train affinity --data`.")] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C; may be repeated.")
    ] = None,
    fixed: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, not varied; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    startup: Annotated[int, typer.Option(min=1, help="Trials with random values before it learns from scores.")] = 10,
    file: Annotated[Path | None, typer.Option(help="YAML file with all this, instead of the options.")] = None,
    project: ProjectOption = None,
) -> None:
    """Make searches/NAME in a project and commit it: what varies in which range, and a DVC stage for a trial.

    Examples:

        connectome search new rates --task affinity --data ac3=DIR --vary learning_rate=1e-4:1e-2:log --set steps=300

        connectome search new rates --file search.yaml
    """
    from connectome_db.errors import ConfigError
    from connectome_db.search import spec
    from connectome_db.search.folder import create
    from connectome_db.search.tasks import absolute

    if file is not None:
        if task or data or vary or fixed:
            raise ConfigError("--file holds all of the search: give it, or --task, --data, --vary and --set")
        chosen = spec.read(file)
    else:
        if not task or not data:
            raise ConfigError("wanted --task and --data, or --file")
        given = {"task": task, "data": data, "seed": seed, "threads": threads, "startup": startup}
        chosen = spec.parse({**given, **spec.options(vary or [], fixed or [])}, "options")
    chosen = chosen.model_copy(update={"data": absolute(chosen.data)})
    made = create(root_of(project), name, chosen)
    OUT.print(f"[bold]{name}[/]: {made.folder}, committed; the score is {made.task.metric}", highlight=False)
    OUT.print(f"Next: [bold]connectome search run {name} --trials 20[/]")


@search_app.command("run")
def run(
    name: NameArgument,
    trials: Annotated[int, typer.Option(min=1, help="How many there shall be in all.")] = 20,
    project: ProjectOption = None,
) -> None:
    """Train and score trials until there are so many. A search that was stopped goes on where it was.

    Example: connectome search run rates --trials 20
    """
    from connectome_db.search.folder import baseline, code_changed, locked, open_search
    from connectome_db.search.loop import Outcome, best, finished
    from connectome_db.search.loop import search as go_on
    from connectome_db.search.spec import Parameters

    found = open_search(root_of(project), name)
    commit = baseline(found)
    if code_changed(found):
        OUT.print("[yellow]the code of training has changed since the search was made[/]: each trial's record says of "
                  "which code it is", highlight=False)  # fmt: skip
    with locked(found) as lock:

        def evaluate(number: int, values: Parameters) -> Outcome:
            from connectome_db.search.experiments import run_experiment

            record = run_experiment(found, number, values, lock)
            return Outcome(
                record["score"], record["model_id"], record["experiment"], record["failed"], record["seconds"]
            )

        if before := len(finished(found.spec, found.storage)):
            OUT.print(f"going on after {before} trials", highlight=False)
        done = go_on(found.spec, found.storage, trials, evaluate, lambda t: _tell(t, found.task.metric))
    top = best(found.task, done)
    if top is None:
        OUT.print("[bold]No trial has a score[/]: `connectome search show` says why.")
        return
    OUT.print(
        f"[bold]best: trial {top.number}, {found.task.metric} {top.score:.4g}[/], {top.model_id}", highlight=False
    )
    OUT.print(f"`dvc exp show --rev {commit[:10]} --only-changed` lists the experiments; "
              f"`connectome search keep {name}` takes its model.", highlight=False)  # fmt: skip


def _tell(trial: Trial, metric: str) -> None:
    values = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in (trial.parameters or {}).items()
    )
    came = (
        f"{metric} {trial.score:.4g}" if trial.score is not None else f"failed: {(trial.failed or '').splitlines()[:1]}"
    )
    again = f" (equals trial {trial.same_as})" if trial.same_as is not None else f", {trial.seconds:.0f} s"
    OUT.print(f"trial {trial.number}: {values} -> {came}{again}", highlight=False)


@search_app.command("show")
def show_search(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the search; none: list them.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw score against parameters: .png, .svg or .html.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trials shown.")] = 200,
    project: ProjectOption = None,
) -> None:
    """The trials of a search: parameters, score, model, experiment; or the searches there are.

    Example: connectome search show rates --plot rates.png
    """
    import pyarrow as pa

    from connectome_db.plots.picture import save
    from connectome_db.search import report
    from connectome_db.search.folder import names, open_search
    from connectome_db.search.loop import finished

    root = root_of(project)
    if name is None:
        found = [open_search(root, n) for n in names(root)]
        columns = {"search": [s.name for s in found], "task": [s.spec.task for s in found]}
        counts = [len(finished(s.spec, s.storage)) for s in found]
        show(pa.table({**columns, "varies": [", ".join(s.spec.vary) for s in found], "trials": counts}))
        return
    one = open_search(root, name)
    trials = finished(one.spec, one.storage)
    if not trials:
        OUT.print(f"No trial of {name} is finished: `connectome search run {name}` makes them.")
        return
    if plot is not None:
        OUT.print(f"wrote {save(report.picture(one, trials), plot)}")
    show(report.table(one, trials), limit=limit)


@search_app.command("keep")
def keep(
    name: NameArgument,
    trial: Annotated[int | None, typer.Option(min=0, help="Which trial; default: the best.")] = None,
    as_name: Annotated[str | None, typer.Option("--as", help="Name of the model; default: the search's.")] = None,
    project: ProjectOption = None,
) -> None:
    """Copy a trial's model, by default the best one's, into models/, with where it is from in its card.

    Example: connectome search keep rates --as mine-affinity
    """
    from connectome_db.errors import ConfigError
    from connectome_db.search.experiments import keep_model
    from connectome_db.search.folder import open_search
    from connectome_db.search.loop import best, finished

    found = open_search(root_of(project), name)
    done = finished(found.spec, found.storage)
    top = best(found.task, done)
    if trial is not None:
        top = next((t for t in done if t.number == trial), None)
    if top is None:
        raise ConfigError(
            f"search {name}: no such trial, or none with a score; `connectome search show {name}` lists them"
        )
    source = top.number if top.same_as is None else top.same_as
    folder = found.project / "models" / (as_name or name)
    made = keep_model(found, source, folder)
    OUT.print(f"[bold]{made}[/] of trial {source}: {folder}", highlight=False)


@search_app.command("trial")
def trial(
    folder: Annotated[Path, typer.Argument(help="Folder with the trial's params.yaml.")] = Path(),
) -> None:
    """Train and score as params.yaml says: what the DVC stage of a trial calls. Example: connectome search trial"""
    from connectome_db.search.experiments import train_trial

    record = train_trial(folder.resolve())
    OUT.print(
        f"{record['metric']} {record['score']}, {record['model_id']}, {record['failed'] or 'ok'}", highlight=False
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(search_app, name="search")
