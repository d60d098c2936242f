"""What the framework itself costs, beside DVC and Snakemake doing the same trivial work in the same run.

    python benchmarks/framework.py [--units 1000] [--planned 100000] [--dvc-stages 40] [--snakemake-jobs 100]

Ours: 1,000 units of a stage whose compute returns one row, cold (every unit written, flushed and linked into data/),
then again with nothing to do; the no-op of `connectome run` as a process, on `ingest` over as many sections; plan and
keys of 100,000 blocks that each read their 26 neighbours and themselves.

DVC runs one stage per unit, Snakemake one job per unit; the work of each is `cp`. Both are given fewer units than ours,
because DVC's time per stage grows with their number. Seconds per unit are told for what was run and for nothing else.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from toystage import STAGES

from connectome_db import config, newproject, plans, prepare, runner
from connectome_db.finish import finish, is_current
from connectome_db.geometry import Box
from connectome_db.provenance import unit_keys, upstream_digests
from connectome_db.stages.pipeline import STAGES as PIPELINE

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
ENV = os.environ | {"PYTHONPATH": str(HERE), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
BLOCK = (16, 128, 128)


class Spent(NamedTuple):
    """Wall seconds, and CPU seconds of this process and the processes it waited for."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Row:
    """One line of the table. `units` were really run."""

    what: str
    units: int
    spent: Spent
    at_most_s: float | None = None
    note: str = ""


def _cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(r.ru_utime + r.ru_stime for r in both)


def timed(action: Callable[[], object]) -> Spent:
    """What one call costs."""
    cpu, clock = _cpu_s(), time.perf_counter()
    action()
    return Spent(time.perf_counter() - clock, _cpu_s() - cpu)


def shell(folder: Path, *command: str) -> None:
    """Run a tool quietly; stop the benchmark when it fails."""
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def commit(folder: Path) -> None:
    """A git repository with one commit: a revision is one of the facts that a run records."""
    shell(folder, "git", "init", "-q")
    shell(folder, "git", "add", ".")
    shell(folder, "git", "-c", "user.name=bench", "-c", "user.email=b@example.org", "commit", "-qm", "Start")


def tiles(folder: Path, sections: int) -> None:
    """One small tile per section, and their manifest."""
    (folder / "raw").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["path,section,stage_y_px,stage_x_px"]
    for z in range(sections):
        cv2.imwrite(str(folder / "raw" / f"t{z:04d}.png"), rng.integers(0, 256, (64, 64), dtype=np.uint8))
        lines.append(f"t{z:04d}.png,{z},0,0")
    (folder / "raw" / "manifest.csv").write_text("\n".join(lines) + "\n")


def toy_project(folder: Path, units: int) -> config.Project:
    """A project of the trivial stage with `units` units."""
    tiles(folder, 1)
    (folder / "params.yaml").write_text(
        f"dataset: {{name: bench, voxel_nm: [30, 8, 8]}}\ntrivial: {{lattice: [1, {units // 10}, 10]}}\n"
    )
    (folder / ".gitignore").write_text("/.connectome/\n/data/\n/provenance/\n")
    commit(folder)
    return config.load(folder, STAGES)


def run_stage(project: config.Project, **how: object) -> None:
    """What `connectome run trivial` does."""
    with runner.locked(project, "trivial"):
        prepared, outcome = runner.run_units(project, "trivial", **how)  # type: ignore[arg-type]  # options by name
        if not (outcome.computed == 0 and is_current(prepared)):
            finish(prepared, outcome)


def ours(folder: Path, units: int) -> Iterator[Row]:
    """Cold runs, serially and on two MPI workers, and the run that finds nothing to do."""
    serial = toy_project(folder / "serial", units)
    yield Row("ours, cold, serial", units, timed(lambda: run_stage(serial)), 10.0)
    yield Row("ours, nothing to do, in process", units, timed(lambda: run_stage(serial)), 0.5)
    mpi = toy_project(folder / "mpi", units)
    cold = timed(lambda: run_stage(mpi, ranks=2, executor="mpi"))
    yield Row("ours, cold, 2 MPI workers", units, cold, 10.0, "with the start of 3 Python processes")
    same = [(p / "data" / "trivial" / "trivial.parquet").read_bytes() for p in (serial.root, mpi.root)]
    if same[0] != same[1]:
        sys.exit("serial and MPI runs gave different bytes")


def disk(folder: Path, times: int) -> Row:
    """What the disk alone takes: as many flushes of a small file as the store makes for one unit with one table.

    They are three for a blob (its file, its folder, the folder above) and one for the record.
    """
    path = folder / "probe"

    def action() -> None:
        with path.open("wb") as f:
            for i in range(4 * times):
                f.write(b"%d" % i)
                f.flush()
                os.fsync(f.fileno())

    return Row("the disk alone: 4 flushes per unit", times, timed(action), None, "of one file, one after the other")


def ingest_process(folder: Path, sections: int) -> Iterator[Row]:
    """`connectome run ingest` as a person starts it: a process, its imports, and nothing to do."""
    tiles(folder, sections)
    newproject.create(
        folder, name="bench", manifest="raw/manifest.csv", voxel_nm=(30.0, 8.0, 8.0), stages=PIPELINE, changes={}
    )
    command = (sys.executable, "-m", "connectome_db.cli.main", "run", "ingest")
    cold = timed(lambda: shell(folder, *command))
    yield Row("`connectome run ingest`, cold", sections, cold, None, "process; decodes and measures a tile a unit")
    again = [timed(lambda: shell(folder, *command)) for _ in range(3)]
    yield Row("`connectome run ingest`, nothing to do", sections, min(again), 0.5, "process, best of 3")
    start = [timed(lambda: shell(folder, sys.executable, "-m", "connectome_db.cli.main", "--help")) for _ in range(3)]
    yield Row("`connectome --help`", 0, min(start), None, "process, best of 3: what starting costs")
    project = config.load(folder, PIPELINE)

    def nothing() -> None:
        prepared, _ = runner.run_units(project, "ingest")
        if not is_current(prepared):
            sys.exit("ingest: the second run should have found nothing to do")

    nothing()  # what a long-lived process has read once: environment, code digests
    yield Row("ingest, nothing to do, in process", sections, timed(nothing), 0.5)


def planning(wanted: int) -> Row:
    """Plan and keys of blocks that read themselves and their neighbours, 27 parts each inside the volume."""
    side = round(wanted ** (1 / 3))
    shape = (side, side, -(-wanted // side**2))
    bounds = Box((0, 0, 0), (shape[0] * BLOCK[0], shape[1] * BLOCK[1], shape[2] * BLOCK[2]))
    upstream = plans.grid(bounds, BLOCK)
    contents = np.random.default_rng(0).integers(0, 256, (len(upstream), 32), dtype=np.uint8)
    code = prepare.stage_code(STAGES[0])
    sizes: list[int] = []

    def action() -> None:
        plan = plans.grid(bounds, BLOCK)
        plan = plans.reading(plan, ("up.stream", plans.halo(plan.cores, (1, 1, 1), bounds)))
        boxes = plan.reads[0].boxes
        read = upstream_digests(boxes, len(plan), upstream.codes, upstream.cores, contents)
        keys = unit_keys(
            plan,
            stage="bench",
            voxel_nm=(30.0, 8.0, 8.0),
            code_digest=code,
            model_digest=None,
            params_digests=["0" * 64] * len(plan),
            upstream=[("up.stream", read)],
        )
        sizes.append(len(set(keys)))

    spent = timed(action)
    if sizes != [len(upstream)]:
        sys.exit(f"keys are not distinct: {sizes} of {len(upstream)}")
    return Row("ours, plan and keys, 27 parts read by each", len(upstream), spent, 5.0)


def dvc(folder: Path, stages: int) -> Iterator[Row]:
    """One DVC stage per unit."""
    folder.mkdir()
    (folder / "in.txt").write_text("1\n")
    lines = ["stages:"]
    for i in range(stages):
        lines += [f"  s{i}:", f"    cmd: cp in.txt out{i}.txt", "    deps: [in.txt]", f"    outs: [out{i}.txt]"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    shell(folder, "git", "init", "-q")
    for words in (("init", "-q"), ("config", "core.analytics", "false"), ("config", "core.check_update", "false")):
        shell(folder, sys.executable, "-m", "dvc", *words)
    commit(folder)
    note = "`cp` instead of a row; grows with the number of stages"
    cold = timed(lambda: shell(folder, sys.executable, "-m", "dvc", "repro", "-q"))
    yield Row("DVC, one stage per unit, cold", stages, cold, None, note)
    again = timed(lambda: shell(folder, sys.executable, "-m", "dvc", "repro", "-q"))
    yield Row("DVC, one stage per unit, nothing to do", stages, again)


def snakemake(folder: Path, jobs: int) -> Iterator[Row]:
    """One Snakemake job per unit."""
    folder.mkdir()
    (folder / "in.txt").write_text("1\n")
    (folder / "Snakefile").write_text(
        f'rule all:\n    input: [f"out{{i}}.txt" for i in range({jobs})]\n'
        'rule one:\n    input: "in.txt"\n    output: "out{i}.txt"\n    shell: "cp {input} {output}"\n'
    )
    command = (shutil.which("snakemake") or "snakemake", "--cores", "2", "--quiet", "all")
    cold = timed(lambda: shell(folder, *command))
    yield Row("Snakemake, one job per unit, 2 cores, cold", jobs, cold, None, "`cp` instead of a row")
    yield Row("Snakemake, nothing to do", jobs, timed(lambda: shell(folder, *command)))


def show(console: Console, rows: list[Row]) -> bool:
    """Print all rows; True when every target is met."""
    table = Table(title=f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}", header_style="bold")
    for heading in ("", "units", "s", "CPU s", "ms per unit", "target s", ""):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    met = True
    for r in rows:
        wall_s, cpu_s = r.spent
        each = f"{1000 * wall_s / r.units:.2f}" if r.units else ""
        verdict = ""
        if r.at_most_s is not None:
            good = wall_s <= r.at_most_s
            met &= good
            verdict = f"[green]≤ {r.at_most_s:g}[/]" if good else f"[red]> {r.at_most_s:g}[/]"
        table.add_row(r.what, f"{r.units:,}", f"{wall_s:.2f}", f"{cpu_s:.2f}", each, verdict, f"[dim]{r.note}[/]")
    console.print(table)
    return met


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """A temporary folder, removed afterwards (the store's files are read-only, their folders are not)."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1000, help="units of our stage (a multiple of 10)")
    parser.add_argument("--planned", type=int, default=100_000, help="units to plan")
    parser.add_argument("--dvc-stages", type=int, default=40, help="0 leaves DVC out")
    parser.add_argument("--snakemake-jobs", type=int, default=100, help="0 leaves Snakemake out")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder when not given")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(HERE)  # MPI ranks import the toy stage by name
    console = Console(width=130)
    rows: list[Row] = []
    with workplace(options.folder) as work:
        rows += ours(work, options.units)
        rows.append(disk(work, options.units))
        rows += ingest_process(work / "ingest", options.units)
        rows.append(planning(options.planned))
        if options.dvc_stages:
            rows += dvc(work / "dvc", options.dvc_stages)
        if options.snakemake_jobs and shutil.which("snakemake"):
            rows += snakemake(work / "snakemake", options.snakemake_jobs)
    met = show(console, rows)
    if options.snakemake_jobs and not shutil.which("snakemake"):
        console.print("Snakemake: not installed: pip install snakemake")
    console.print(f"repeat: python {' '.join(sys.argv)}", highlight=False)
    if not met:
        console.print("[red]Some targets are not met.[/]")


if __name__ == "__main__":
    main()
