"""Commands about trust: verify, audit."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from connectome_db.cli.console import OUT, ProjectOption, open_project
from connectome_db.errors import ConfigError

if TYPE_CHECKING:
    from connectome_db.config import Project
    from connectome_db.geometry import Box
    from connectome_db.versions.trust.audit import StageAudit
    from connectome_db.versions.trust.findings import Report
    from connectome_db.versions.trust.repair import Repaired
    from connectome_db.versions.trust.verify import Options

SHOWN = 40
SampleOption = Annotated[str, typer.Option(help="Share of units to look at closely, e.g. 5% or 0.05.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Seed of the sample; default: another one each time.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON; ids as strings.")]


def share(text: str) -> float:
    """ "5%" or "0.05" -> 0.05. Raises ConfigError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as e:
        raise ConfigError(f"--sample {text}: wanted a share such as 5% or 0.05") from e
    if not 0 < value <= 1:
        raise ConfigError(f"--sample {text}: wanted a share above 0 and up to 100%")
    return value


def box_vx(project: Project, text: str | None, unit: str | None) -> Box | None:
    """The box of `--box`, in voxels. Raises ConfigError without `--box-unit`: nm are never silently taken as voxels."""
    from connectome_db.config import RegionSpec, region_box
    from connectome_db.geometry import box_of

    if text is None:
        return None
    if unit is None:
        raise ConfigError("--box: say what its numbers are: --box-unit nm or --box-unit vx")
    try:
        six = tuple(float(v) for v in text.split(","))
        z0, y0, x0, z1, y1, x1 = six
    except ValueError as e:
        raise ConfigError(f"--box {text}: wanted six numbers z0,y0,x0,z1,y1,x1") from e
    if not (z0 < z1 and y0 < y1 and x0 < x1):
        raise ConfigError(f"--box {text}: wanted z0 < z1, y0 < y1, x0 < x1")
    if unit == "nm":
        return region_box("--box", RegionSpec(box_nm=(z0, y0, x0, z1, y1, x1)), project.voxel_nm)
    if any(v != int(v) for v in six):
        raise ConfigError(f"--box {text}: voxels are whole numbers")
    return box_of(int(v) for v in six)


def _seed(seed: int | None) -> int:
    from secrets import randbelow

    return randbelow(10**6) if seed is None else seed


def verify(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages; default: all.", show_default=False)] = None,
    project: ProjectOption = None,
    sample: SampleOption = "100%",
    seed: SeedOption = None,
    box: Annotated[
        str | None, typer.Option(help="Only units in z0,y0,x0,z1,y1,x1 closely.", show_default=False)
    ] = None,
    box_unit: Annotated[
        Literal["nm", "vx"] | None, typer.Option(help="What the numbers of --box are.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option(help="Sizes, links and seals only; decode nothing.")] = False,
    store: Annotated[bool, typer.Option(help="Also units of other versions, and all of DVC's cache.")] = False,
    as_json: JsonOption = False,
    mend: Annotated[bool, typer.Option("--repair", help="Mend what is found, then check again.")] = False,
) -> None:
    """Is what is on disk what the records say? Exit code 1 when it is not.

    Examples:

        connectome verify

        connectome verify segment --sample 5%

        connectome verify --box 0,0,0,8,64,64 --box-unit vx

        connectome verify --repair
    """
    from connectome_db.progress import bar
    from connectome_db.versions.trust import verify as checking
    from connectome_db.versions.trust.repair import repair

    p = open_project(project)
    options = checking.Options(quick, share(sample), _seed(seed), box_vx(p, box, box_unit), store)
    with bar("verify") as progress:
        report = checking.verify(p, stages or (), options, progress)
    after, repaired = report, None
    if mend and not report.ok:
        repaired = repair(p, report)
        with bar("verify") as progress:
            after = checking.verify(p, stages or (), checking.Options(store=store), progress)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(report, repaired, after), indent=1) + "\n")
    else:
        _print_report(report, options)
        if repaired is not None:
            _print_repaired(repaired, after)
    if not after.ok:
        raise typer.Exit(1)


def _as_json(report: Report, repaired: Repaired | None, after: Report) -> dict[str, object]:
    out = report.to_json()
    if repaired is not None:
        out["repaired"] = [vars(m) for m in repaired.mended]
        out["digests"] = [vars(d) for d in repaired.digests]
        out["after"] = after.to_json()
    return out


def _print_report(report: Report, options: Options) -> None:
    table = Table("stage", "units", "decoded", "files", "MB", "s", "problems", header_style="bold")
    for s in report.stages:
        bad = f"[red]{len(s.problems)}[/]" if s.problems else "0"
        table.add_row(s.stage, str(s.units), str(s.decoded), str(s.files), f"{s.bytes_read / 1e6:.1f}",
                      f"{s.seconds:.1f}", bad)  # fmt: skip
    OUT.print(table)
    _print_problems(report)
    for s in report.stages:
        for note in s.notes:
            OUT.print(f"[dim]{s.stage}: {_plain(note)}[/]", highlight=False, soft_wrap=True)
    for note in report.notes:
        OUT.print(f"[dim]{_plain(note)}[/]", highlight=False, soft_wrap=True)
    if options.quick:
        OUT.print("[dim]Quick: nothing was decoded; a flipped bit in a chunk or in the store goes unseen.[/]")
    elif not options.everything:
        some = f"{options.sample:.3g} of them, --seed {options.seed}" if options.sample < 1 else "those in the box"
        OUT.print(f"[dim]Not all units were decoded ({some}); of the others, sizes were compared.[/]", highlight=False)
    if report.ok:
        OUT.print("Everything looked at is what the records say.")


def _print_problems(report: Report) -> None:
    from connectome_db.versions.trust.findings import short

    for p in report.problems[:SHOWN]:
        OUT.print(f"[red]{p.what}[/]  {p.stage}{', ' + p.unit if p.unit else ''}", highlight=False)
        OUT.print(f"  {_plain(p.path)}", highlight=False, soft_wrap=True)
        for label, text in (("wanted", p.wanted), ("found ", p.found), ("mend  ", p.repair)):
            if text:
                OUT.print(f"  [dim]{label}[/] {_plain(short(text))}", highlight=False, soft_wrap=True)
    if len(report.problems) > SHOWN:
        OUT.print(f"… and {len(report.problems) - SHOWN} more; --json lists all", highlight=False)


def _print_repaired(repaired: Repaired, after: Report) -> None:
    from connectome_db.versions.trust.findings import short

    OUT.print("\n[bold]Repair[/]")
    for m in repaired.mended:
        colour = "red" if m.failed else "green"
        OUT.print(f"  [{colour}]{'left' if m.failed else 'done'}[/] {m.stage} {_plain(short(m.what))}: {_plain(m.how)}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    for d in repaired.digests:
        seal = {True: f"as sealed ({d.sealed[:12]})", False: "[red]not as sealed[/]", None: "without a seal"}[
            d.as_sealed
        ]
        lock = {True: f"as in dvc.lock ({d.locked[:12]}.dir)", False: "not as in dvc.lock", None: "not committed"}
        OUT.print(f"  data/{d.stage}: {seal}, {lock[d.as_locked]}", highlight=False, soft_wrap=True)
    left = len(after.problems)
    OUT.print(
        "Checked again: everything is what the records say." if not left else f"Checked again: {left} problems left."
    )
    if left:
        _print_problems(after)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def audit(
    stage: Annotated[list[str] | None, typer.Option(help="Stage; may be repeated. Default: all.")] = None,
    project: ProjectOption = None,
    sample: SampleOption = "1%",
    seed: SeedOption = None,
    ranks: Annotated[
        int | None, typer.Option(min=0, help="MPI workers; default: other than at first.", show_default=False)
    ] = None,
    backend: Annotated[
        Literal["tensorflow", "jax"] | None, typer.Option(help="Library of the networks.", show_default=False)
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Distance that is let pass; 0 wants equal bits.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Compute random units again, elsewhere, and compare. Changes nothing; exit code 1 beyond the tolerance.

    Distances: images, the largest difference of grey values as a share of 255; labels, the adapted Rand error; tables,
    the largest relative difference of a number (infinite when rows, keys or texts differ).

    Examples:

        connectome audit --sample 1%

        connectome audit --stage segment --sample 5% --ranks 2 --tolerance 0.001
    """
    from connectome_db.progress import bar
    from connectome_db.versions.trust.audit import audit as compute

    used = _seed(seed)
    with bar("audit") as progress:
        found = compute(
            open_project(project), stage or (), sample=share(sample), seed=used, ranks=ranks, backend=backend,
            tolerance=tolerance, progress=progress,
        )  # fmt: skip
    if as_json:
        rows = [{**vars(a), "ok": a.ok, "outputs": [_finite(vars(o)) for o in a.outputs]} for a in found]
        sys.stdout.write(json.dumps({"ok": all(a.ok for a in found), "seed": used, "stages": rows}, indent=1) + "\n")
    else:
        _print_audit(found, used)
    if not all(a.ok for a in found):
        raise typer.Exit(1)


def _finite(row: dict[str, object]) -> dict[str, object]:
    """JSON has no infinity."""
    return {k: None if v == float("inf") else v for k, v in row.items()}


def _print_audit(found: list[StageAudit], seed: int) -> None:
    table = Table("stage", "units", "outputs", "bit-equal", "computed by", header_style="bold")
    for a in found:
        equal = sum(o.equal for o in a.outputs)
        shown = f"[red]{equal}[/]" if equal < len(a.outputs) or a.failed else str(equal)
        table.add_row(a.stage, str(a.units), str(len(a.outputs)), shown, a.how or "[red]not compared[/]")
    OUT.print(table)
    for a in found:
        if a.failed:
            OUT.print(f"[red]{a.stage}[/]: {_plain(a.failed)}", highlight=False, soft_wrap=True)
        for o in (o for o in a.outputs if not o.equal):
            colour = "yellow" if o.within else "red"
            verdict = "within the tolerance" if o.within else "beyond the tolerance"
            OUT.print(f"[{colour}]{o.stage} {o.unit}: {o.output}[/] {_plain(o.told)} ({verdict})", highlight=False,
                      soft_wrap=True)  # fmt: skip
    differs = sorted({d for a in found for d in a.differs})
    for text in differs[:20]:
        OUT.print(f"[dim]environment: {_plain(text)}[/]", highlight=False, soft_wrap=True)
    if len(differs) > 20:
        OUT.print(f"[dim]… and {len(differs) - 20} more differences of environments; --json lists all[/]")
    n, equal = (sum(f(a) for a in found) for f in (lambda a: len(a.outputs), lambda a: sum(o.equal for o in a.outputs)))
    OUT.print(f"{equal} of {n} outputs came out bit-equal (--seed {seed}).", highlight=False)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(verify)
    app.command()(audit)
