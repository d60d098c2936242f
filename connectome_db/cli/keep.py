"""Commands that keep versions in order: gc, rollback."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from connectome_db.cli.console import OUT, ProjectOption, open_project

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectome_db.versions.keep.gc import Sweep
    from connectome_db.versions.keep.rollback import Rollback
    from connectome_db.versions.keep.rollbackproof import Proof


def gc(
    project: ProjectOption = None,
    force: Annotated[bool, typer.Option(help="Remove it. Without this, only what would go is shown.")] = False,
    all_commits: Annotated[
        bool, typer.Option(help="Keep what any commit refers to, not only branches and tags.")
    ] = False,
    days: Annotated[float, typer.Option(min=0, help="Keep also what was made or committed in the last N days.")] = 0.0,
    only_this_project_uses_the_store: Annotated[
        bool, typer.Option(help="For a store outside the project: nobody else needs what is in it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Remove units that no branch, tag, stash or working tree refers to from the store.

    Examples:

        connectome gc

        connectome gc --days 30 --force
    """
    from connectome_db.versions.keep.gc import collect

    sweep = collect(
        open_project(project),
        force=force,
        all_commits=all_commits,
        days=days,
        only_project=only_this_project_uses_the_store,
    )
    if as_json:
        value = {
            "removed": force,
            "revisions": sweep.revisions,
            "doubts": [vars(d) for d in sweep.doubts],
            "notes": sweep.notes,
            "lines": [vars(line) for line in sweep.lines],
        }
        OUT.print_json(json.dumps(value))
        return
    _show_sweep(sweep, force)


def _show_sweep(sweep: Sweep, force: bool) -> None:
    from connectome_db.versions.keep.gc import size

    table = Table("stage", header_style="bold")
    for title in ("units kept", "gone" if force else "to go", "freed", "only a name"):
        table.add_column(title, justify="right")
    for line in sweep.lines:
        if line.things or line.kept:
            kept = f"{line.kept:,}" if line.kept else ""
            table.add_row(line.name, kept, f"{line.things:,}", size(line.freed_bytes), size(line.named_bytes))
    OUT.print(table)
    OUT.print(f"kept: {_some(sweep.revisions, 8)}", highlight=False, soft_wrap=True)
    for doubt in sweep.doubts:
        what = f"{doubt.ledgers} trees that may be theirs are kept" if doubt.ledgers >= 0 else "every unit is kept"
        OUT.print(
            f"[yellow]{doubt.stage}[/]: not in DVC's cache: {_some(doubt.revisions, 4)}; {what}",
            highlight=False,
            soft_wrap=True,
        )
    for note in sweep.notes:
        OUT.print(f"[yellow]{note}[/]", highlight=False, soft_wrap=True)
    if sweep.empty:
        OUT.print("Nothing to remove.")
    elif force:
        OUT.print(f"Freed {size(sweep.freed_bytes)}. The rest is still held by data/ or by DVC's cache (`dvc gc`).")
    else:
        OUT.print(f"Nothing was removed. `connectome gc --force` frees {size(sweep.freed_bytes)}.", highlight=False)


def _some(names: Sequence[str], n: int) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def rollback(
    region: Annotated[str, typer.Option(help="The region to roll back.", show_default=False)],
    to: Annotated[str, typer.Option(metavar="REV", help="Branch, tag or commit.", show_default=False)],
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated. Default: all.")] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run `dvc repro` and compare, or only edit.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be edited; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    project: ProjectOption = None,
) -> None:
    """Give a region back the parameters and networks of a revision; prove that nothing else changed.

    Examples:

        connectome rollback --region corner --to v1 --dry-run

        connectome rollback --region corner --to v1 --stage segment
    """
    from functools import partial

    from connectome_db.newproject import repro
    from connectome_db.versions.keep import rollback as module
    from connectome_db.versions.keep.rollbackproof import make

    plan = module.plan(open_project(project), region, to, stage or ())
    if not as_json:
        _show_rollback(plan)
    proof = None
    if run and not dry_run:
        proof = make(plan, partial(repro, to=sys.stderr) if as_json else repro)
    elif not dry_run:
        module.write(plan)
    if as_json:
        sys.stdout.write(json.dumps(_rollback_json(plan, proof, dry_run), indent=1) + "\n")
    elif proof is not None:
        _show_proof(plan, proof)
    else:
        OUT.print("Nothing was changed." if dry_run else "Nothing was run: `dvc repro` makes data/ follow.")
    if proof is not None and proof.wrong:
        raise typer.Exit(1)


def _rollback_json(plan: Rollback, proof: Proof | None, dry_run: bool) -> dict[str, object]:
    return {
        "region": plan.region,
        "box_vx": plan.box.flat(),
        "revision": plan.revision.name,
        "commit": plan.revision.commit,
        "written": not dry_run,
        "done": plan.change.done,
        "warnings": plan.change.warnings,
        "models": [m.name for m in plan.models if m.files],
        "stages": [vars(p) for p in plan.stages],
        "proof": None
        if proof is None
        else {"stages": [vars(s) for s in proof.stages], "explained": proof.explained, "wrong": proof.wrong},
    }


def _show_rollback(plan: Rollback) -> None:
    where = f"{plan.box} voxels"
    OUT.print(f"[bold]{plan.region}[/] ({where}) as at {plan.revision.name}:", highlight=False, soft_wrap=True)
    for m in plan.models:
        if m.files:
            OUT.print(f"  models/{m.name}: brought back", highlight=False)
    for line in plan.change.done or ("nothing to edit: its parameters are those of then",):
        OUT.print(f"  {_plain(line)}", highlight=False, soft_wrap=True)
    for line in plan.change.warnings:
        OUT.print(f"  [yellow]{_plain(line)}[/]", highlight=False, soft_wrap=True)


def _show_proof(plan: Rollback, proof: Proof) -> None:
    from connectome_db.versions.keep.rollback import UNDO

    table = Table(header_style="bold")
    table.add_column("stage", no_wrap=True)
    for title in ("units", "inside", f"as {plan.revision.name}", "as before", "seams", "computed"):
        table.add_column(title, justify="right")
    table.add_column("", no_wrap=True)
    for s in proof.stages:
        numbers = (s.units, s.inside, s.as_then, s.as_before, s.seams, s.computed)
        table.add_row(s.stage, *(f"{n:,}" for n in numbers), s.source)
    OUT.print(table)
    for line in proof.explained:
        OUT.print(_plain(line), highlight=False, soft_wrap=True)
    if proof.wrong:
        for line in proof.wrong:
            OUT.print(f"[bold red]wrong:[/] {_plain(line)}", highlight=False, soft_wrap=True)
        return
    OUT.print("[green]Every unit that reads nothing of the region is as before.[/]", highlight=False)
    for m in plan.models:
        if m.files:
            OUT.print(f"models/{m.name} is new: `git add` or `dvc add` it.", highlight=False)
    OUT.print(f"Keep it: git commit -am 'Roll {plan.region} back to {plan.revision.name}'", highlight=False)
    OUT.print(f"Undo it: cp {UNDO} params.yaml && dvc repro", highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(gc)
    app.command()(rollback)
