"""The command remedy."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, open_project
from connectome_db.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectome_db.config import Project
    from connectome_db.diagnosis.remedies.remedy import Remedy, Wish


def remedy(
    diagnosis: Annotated[
        Path | None, typer.Argument(help="The JSON of `connectome diagnose --json`.", show_default=False)
    ] = None,
    proposal: Annotated[str, typer.Option(help="Which proposal of the diagnosis.")] = "reprocess",
    region: Annotated[
        str | None, typer.Option(help="A region of params.yaml, without a diagnosis; or the name to give it.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.PARAMETER=VALUE", help="A value for the region.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="STAGE=NAME", help="A network for the region.")] = None,
    n: Annotated[
        int | None, typer.Option("--try", metavar="N", min=1, max=16, help="Try N doses, up to twice the proposed one.")
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="STAGE.PARAMETER=VALUE,VALUE", help="Try these; all combinations.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The deficit to follow. Default: the diagnosis's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; change nothing.")] = False,
    truth: Annotated[bool, typer.Option("--truth", help="Compare with the truth of a phantom, too.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Although the diagnosis found no artefact.")] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Where the report goes. Default: remedy.json in the project.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Commit the last remedy.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last remedy back.")] = False,
    project: ProjectOption = None,
) -> None:
    """Apply a proposal of a diagnosis: reprocess one region, and compare before and after.

    What was there before must be committed. Nothing outside the region and what reads from it changes; that is proven.

    Examples:

        connectome remedy diagnosis.json --dry-run

        connectome remedy diagnosis.json --try 4

        connectome remedy --region corner --sweep synapses.high=0.7,0.8 --set segment.boundary=0.45

        connectome remedy --undo
    """
    p = open_project(project)
    if keep or undo:
        if keep and undo:
            raise ConfigError("--keep and --undo: wanted one of them")
        _end(p, keep)
        return
    wish = _wish(p, diagnosis, proposal, region, metric, anyway)
    tries = _tries(p, wish, set_ or (), model or (), n, sweep or ())
    _show_plan(tries)
    if dry_run:
        OUT.print("Nothing was changed.")
        return
    from connectome_db.diagnosis.remedies import report
    from connectome_db.diagnosis.remedies.runs import make
    from connectome_db.newproject import repro

    made = make(tries, partial(repro, to=sys.stderr), truth=truth)
    OUT.print(report.to_rich(tries[0], made), soft_wrap=not OUT.is_terminal)
    path = as_json or p.root / "remedy.json"
    report.write_json(tries[0], made, path)
    ERR.print(f"[dim]{path}[/]", highlight=False)
    if made.kept is not None:
        OUT.print("Keep it: connectome remedy --keep. Take it back: connectome remedy --undo", highlight=False)
    if made.outside.wrong:
        raise typer.Exit(1)


def _wish(
    project: Project, diagnosis: Path | None, proposal: str, region: str | None, metric: str | None, anyway: bool
) -> Wish:
    from connectome_db.diagnosis.remedies import remedy as module

    if diagnosis is None:
        if region is None:
            raise ConfigError(
                "wanted a diagnosis (connectome diagnose --json diagnosis.json), or --region NAME with --set or --sweep"
            )
        return module.wish_for(project, region, metric)
    wish = module.wish_of(project, module.read_diagnosis(diagnosis), proposal, region, metric)
    if wish.verdict not in (None, "artefact") and not anyway:
        raise ConfigError(
            f"{diagnosis}: its verdict is {wish.verdict!r}. Other parameters there would fit the data to a wish; "
            "if you know better than the diagnosis, --anyway"
        )
    return wish


def _tries(
    project: Project, wish: Wish, sets: Sequence[str], models: Sequence[str], n: int | None, sweeps: Sequence[str]
) -> list[Remedy]:
    from connectome_db.diagnosis.remedies import remedy as module

    if n is not None and sweeps:
        raise ConfigError("--try and --sweep: wanted one of them")
    values: dict[str, Any] = {**wish.values, **module.assigned(project, sets, models)}
    if sweeps:
        return [module.plan(project, wish, v) for v in module.sweep(project, sweeps, values)]
    if n is None:
        return [module.plan(project, wish, values)]
    found, refused = [], ""
    for dose in module.doses(project, values, n):
        try:
            found.append(module.plan(project, wish, dose))
        except ConfigError as e:
            refused = str(e)
            ERR.print(f"[yellow]left out:[/] {_plain(refused)}", highlight=False, soft_wrap=True)
    if not found:
        raise ConfigError(f"--try {n}: no dose can be used: {refused}")
    return found


def _show_plan(tries: Sequence[Remedy]) -> None:
    from connectome_db.versions.plan import report
    from connectome_db.versions.plan.forecast import forecast
    from connectome_db.versions.plan.foresee import foresee

    first = tries[0]
    for line in first.change.done:
        OUT.print(f"  {_plain(line)}", highlight=False, soft_wrap=True)
    for line in first.change.warnings:
        OUT.print(f"  [yellow]{_plain(line)}[/]", highlight=False, soft_wrap=True)
    if len(tries) > 1:
        from connectome_db.diagnosis.remedies.report import values_text

        OUT.print(f"The first of {len(tries)} tries; then", highlight=False)
        for t in tries[1:]:
            OUT.print(f"  {_plain(values_text(t.values))}", highlight=False, soft_wrap=True)
    seen = foresee(first.target)
    times = forecast(seen)
    OUT.print(report.table(seen, times))


def _end(project: Project, keep: bool) -> None:
    from connectome_db.diagnosis.remedies import runs

    if keep:
        OUT.print(f"Committed: {_plain(runs.keep(project))}", highlight=False, soft_wrap=True)
        return
    done = runs.undo(project)
    computed = sum(c.computed for c in done.costs)
    OUT.print(f"params.yaml is as before; {computed:,} units computed, {done.units:,} in all.", highlight=False)
    if done.differing:
        OUT.print(f"[bold red]{done.differing:,} units are not as at {done.commit[:10]}.[/]", highlight=False)
        OUT.print("`connectome diff HEAD --only units` says which, and why.", highlight=False)
        raise typer.Exit(1)
    OUT.print(f"[green]Every unit is as at {done.commit[:10]}.[/]", highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(remedy)
