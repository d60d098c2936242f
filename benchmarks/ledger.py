"""What asking costs when a project has a million units: a made-up project, and the clock on the questions.

    python -m benchmarks.ledger --folder DIR [--units 1000000] [--only make|open|trace|walk|impact|plan ...]
                                [--empty-store]

The project (`ledger_project`) is made once and found again; remove the folder to make another. Every question runs in a
process of its own. `s` is the time from opening the project to the answer, without the start of the interpreter and its
imports, `CPU s` the same on all cores; `process s` is all of it; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from benchmarks.ledger_project import make
from benchmarks.ledger_rows import BLOCK_VX, GRID, I64, supervoxel
from connectome_db import config, ids
from connectome_db.geometry import Vec3
from connectome_db.query import impact, units
from connectome_db.query.database import Database, open_database
from connectome_db.query.lineage import trace_edge, trace_object, trace_voxel
from connectome_db.query.named import run_query
from connectome_db.query.trace import to_json
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.plan.foresee import STATES, foresee


@dataclass(frozen=True)
class Question:
    """One thing to ask: the group it is in, what it is called, how long it may take, and how it is asked."""

    group: str
    title: str
    bar: str
    ask: Callable[[Path], str]
    """Gives what came; then, after ";", its own seconds: what had to be found out before does not count."""


def _size(folder: Path) -> Vec3:
    """Blocks (z, y, x) of the project."""
    pos, _ = ids.unpack(
        pq.read_table(folder / "data" / "render" / "units.parquet", columns=["unit"])["unit"].to_numpy()
    )
    z, y, x = (int(v) + 1 for v in pos.max(axis=0))
    return z, y, x


def _middle(folder: Path) -> tuple[I64, int]:
    """The block in the middle: its position and code."""
    pos = np.asarray(_size(folder)) // 2
    return pos, int(ids.pack([pos])[0])


def ask_open(folder: Path) -> str:
    with _clock() as spent, open_database(folder) as db:
        tables = len(db.tables)
    return f"{tables} tables;{spent()}"


def ask_edge(folder: Path) -> str:
    pos, _ = _middle(folder)
    path = folder / "data" / "graph" / "connection.parquet"
    pre = int(supervoxel((pos * [1, 1, 0])[None], 1)[0])
    post = int(pq.read_table(path, filters=[("pre", "=", pre)])["post"][0].as_py())
    with _clock() as spent, open_database(folder) as db:
        trace = trace_edge(db, pre, post)
        to_json(trace)
    return f"{len(trace.find('synapse'))} synapses, {len(trace.find('unit'))} units;{spent()}"


def ask_voxel(folder: Path) -> str:
    pos, _ = _middle(folder)
    z, y, x = (int(v) for v in pos * BLOCK_VX + 5)
    known = int(supervoxel(pos[None], 1)[0])
    with _clock() as spent, open_database(folder) as db:
        trace = trace_voxel(db, z, y, x, supervoxel=known)
        to_json(trace)
    return f"{len(trace.find('unit'))} units;{spent()}"


def ask_object(folder: Path) -> str:
    pos, _ = _middle(folder)
    name = int(supervoxel((pos * [1, 1, 0])[None], 1)[0])
    with _clock() as spent, open_database(folder) as db:
        trace = trace_object(db, name)
    return f"{trace.facts['supervoxels']} supervoxels;{spent()}"


def ask_walk(way: str, stage: str) -> Callable[[Path], str]:
    def ask(folder: Path) -> str:
        _, code = _middle(folder)
        with _clock() as spent, open_database(folder) as db:
            found = getattr(units, f"{way}_units")(db, stage, code)
        return f"{found.num_rows:,} units;{spent()}"

    return ask


def ask_impact(how: Callable[[Database, Path], impact.Impact]) -> Callable[[Path], str]:
    def ask(folder: Path) -> str:
        with _clock() as spent, open_database(folder) as db:
            found = {r["what"]: r for r in impact.counts(db, how(db, folder)).to_pylist()}
        units, edges = found["units"], found["edges"]
        told = f"{units['direct']:,} / {units['possible']:,} units, {edges['direct']:,} / {edges['possible']:,} edges"
        return f"{told};{spent()}"

    return ask


def _tile(db: Database, folder: Path) -> impact.Impact:
    return impact.of_tile(db, f"s{_size(folder)[0] // 2 * BLOCK_VX[0]:04d}/t{GRID**2 // 2:02d}.png")


def ask_sql(folder: Path) -> str:
    _, code = _middle(folder)
    with _clock() as spent, open_database(folder) as db:
        found = run_query(db, "impact_of_unit", {"stage": "render", "unit": code})
    return f"{found.num_rows:,} units;{spent()}"


def ask_plan(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], str]:
    def ask(folder: Path) -> str:
        yaml, text = YAML(typ="safe"), io.StringIO()
        document = yaml.load((folder / "params.yaml").read_text())
        edit(document)
        yaml.dump(document, text)
        project = config.load(folder, STAGES, text.getvalue())
        with _clock() as spent:
            seen = foresee(project)
        told = [f"{n:,} {name}" for k, name in enumerate(STATES) if (n := sum(s.count(k) for s in seen.stages))]
        return f"{', '.join(told)};{spent()}"

    return ask


def _override(document: dict[str, Any]) -> None:
    """A region of 4 x 4 x 4 blocks in which `segment` has another parameter."""
    document["regions"] = {"corner": {"box_vx": [0, 0, 0, *(4 * n for n in BLOCK_VX)]}}
    document["overrides"] = {"segment": {"corner": {"seed_window_nm": 80}}}


def _everywhere(document: dict[str, Any]) -> None:
    """Another parameter of `mask` in the whole dataset."""
    document["mask"]["resin_grey"] = 150


@contextmanager
def _clock() -> Iterator[Callable[[], str]]:
    """Wall and CPU seconds of the block, told as the question's own: what came before is not counted."""
    start = time.perf_counter(), time.process_time()
    ends: list[tuple[float, float]] = []
    yield lambda: f"{ends[0][0] - start[0]} {ends[0][1] - start[1]}"
    ends.append((time.perf_counter(), time.process_time()))


QUESTIONS: dict[str, Question] = {
    "open": Question("open", "open the database", "", ask_open),
    "trace-edge": Question("trace", "trace edge", "1 s", ask_edge),
    "trace-voxel": Question("trace", "trace voxel", "1 s", ask_voxel),
    "trace-object": Question("trace", "trace object", "", ask_object),
    "up": Question("walk", "upstream units of a synapses block", "", ask_walk("upstream", "synapses")),
    "down": Question("walk", "downstream units of a render block", "", ask_walk("downstream", "render")),
    "impact-tile": Question("impact", "impact of a tile", "5 s", ask_impact(_tile)),
    "impact-model": Question(
        "impact", "impact of the affinity model", "", ask_impact(lambda db, _: impact.of_model(db, "phantom-affinity"))
    ),
    "impact-sql": Question("impact", "query impact_of_unit, a render block", "", ask_sql),
    "plan": Question("plan", "plan, nothing changed", "60 s, 4 GiB", ask_plan(lambda _: None)),
    "plan-region": Question("plan", "plan, segment changed in a region", "60 s, 4 GiB", ask_plan(_override)),
    "plan-all": Question("plan", "plan, mask changed everywhere", "60 s, 4 GiB", ask_plan(_everywhere)),
}


@dataclass(frozen=True)
class Measured:
    """What a question cost in a process of its own: seconds, CPU seconds, those of the whole process, peak bytes."""

    seconds: float
    cpu: float
    process: float
    peak: int
    came: str


def measure(name: str, folder: Path) -> Measured:
    """Ask one question in a process of its own."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.ledger", "--folder", str(folder), "--ask", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    process = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{name} ended with code {done.returncode}")
    seconds, cpu, peak, came = done.stdout.strip().splitlines()[-1].split(" ", 3)
    return Measured(float(seconds), float(cpu), process, int(peak), came)


def answer(name: str, folder: Path) -> str:
    """Ask in this process; the line that `measure` reads."""
    came, _, own = QUESTIONS[name].ask(folder).partition(";")
    return f"{own} {_peak()} {came}"


def _peak() -> int:
    """Peak bytes of this process. Not getrusage where it can be helped: that counts the parent before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the project is, or will be made")
    parser.add_argument("--units", type=int, default=1_000_000)
    groups = ["make", *dict.fromkeys(q.group for q in QUESTIONS.values())]
    parser.add_argument("--only", nargs="*", choices=groups, default=groups)
    parser.add_argument("--empty-store", action="store_true", help="make it without the records of its units")
    parser.add_argument("--ask", choices=list(QUESTIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(answer(options.ask, options.folder))
        return
    out = Console(width=130)
    if not (options.folder / "params.yaml").exists():
        start = time.perf_counter()
        make(options.folder, options.units, records=not options.empty_store)
        out.print(f"made in {time.perf_counter() - start:.0f} s")
    table = Table("", "bar", "s", "CPU s", "process s", "peak GiB", "what came", header_style="bold")
    for name, question in QUESTIONS.items():
        if question.group in options.only:
            m = measure(name, options.folder)
            spent = [f"{v:.2f}" for v in (m.seconds, m.cpu, m.process, m.peak / 2**30)]
            table.add_row(question.title, question.bar, *spent, m.came)
    out.print(table)
    out.print(f"load average {os.getloadavg()[0]:.1f}; repeat: python -m benchmarks.ledger {' '.join(sys.argv[1:])}")


if __name__ == "__main__":
    main()
