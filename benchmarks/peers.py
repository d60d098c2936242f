"""The same questions to the same connectome: ours against kuzu, igraph, networkx, SQLite and PostgreSQL, in one run.

    python -m benchmarks.peers PROJECT --folder DIR [--backends sql sql-tables index kuzu igraph
                               networkx sqlite postgres] [--arguments 200] [--slow 3] [--json FILE]

PROJECT is an imported connectome with places of synapses, such as the synthetic fly of `synthetic_fly`. Each back end
is loaded and asked in a process of its own; memory is the peak of that process (of PostgreSQL: of the client alone, the
server is not counted). Arguments are drawn once, with a seed, and are the same for all; the first of each question
is asked once unmeasured. Answers are compared: a back end that answers otherwise is named, and the program fails.
PostgreSQL needs Debian's package `postgresql`; kuzu, igraph and psycopg come with `pip install -e .[bench]`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.peer_backends import Backend, Igraph, Kuzu, Networkx, OursIndex, OursSql, OursTables
from benchmarks.peer_sql import Postgres, Sqlite

BACKENDS: dict[str, type[Backend]] = {
    "sql": OursSql, "sql-tables": OursTables, "index": OursIndex, "kuzu": Kuzu, "igraph": Igraph,
    "networkx": Networkx, "sqlite": Sqlite, "postgres": Postgres,
}  # fmt: skip
QUESTIONS = {
    "partners": "one neuron's partners",
    "among": "adjacency of 100 neurons",
    "two_hop": "2 hops, top 10",
    "hops": "shortest path",
    "in_box": "synapses in a box of 10 µm",
    "aggregate": "all connections from the synapses",
}
SIDE_NM = 10_000.0
OURS = {"sql", "sql-tables", "index"}


def draw(project: Path, n: int, slow: int) -> dict[str, list[Any]]:
    """Arguments of every question: neurons that have outputs, chosen at random, seed 0."""
    rng = np.random.default_rng(0)
    table = pq.read_table(project / "data" / "graph" / "neuron.parquet", columns=["neuron", "partners_out"])
    neurons = table["neuron"].to_numpy()[table["partners_out"].to_numpy() > 0]
    places = pq.ParquetFile(project / "data" / "listing" / "listed_synapse.parquet")
    first = places.read_row_group(places.num_row_groups // 2, columns=["z_vx", "y_vx", "x_vx"])
    corner = np.stack([first[c].to_numpy() for c in ("z_vx", "y_vx", "x_vx")], axis=1)
    corner = corner[rng.integers(0, len(corner), n)] - SIDE_NM / 2

    def some(count: int) -> list[int]:
        return [int(v) for v in neurons[rng.integers(0, len(neurons), count)]]

    return {
        "partners": some(n),
        "among": [sorted(set(some(100))) for _ in range(n)],
        "two_hop": some(n),
        "hops": [list(p) for p in zip(some(n), some(n), strict=True)],
        "in_box": [[*map(float, c), *map(float, c + SIDE_NM)] for c in corner],
        "aggregate": [None] * slow,
    }


def ask(backend: Backend, arguments: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    """Seconds and answers of every question that the back end can be asked."""
    found = {}
    for question, values in arguments.items():
        method = getattr(backend, question, None)
        if method is None:
            continue
        method(values[0])
        seconds, answers = [], []
        for value in values:
            start = time.perf_counter()
            answer = method(value)
            seconds.append(time.perf_counter() - start)
            answers.append(list(answer))
        found[question] = {"seconds": seconds, "answers": answers}
    return found


def one(name: str, project: Path, folder: Path, arguments: Path) -> None:
    """Load one back end and ask it; prints what came as JSON."""
    work = folder / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    backend = BACKENDS[name](project, work)
    start = time.perf_counter()
    backend.build()
    built = opened = time.perf_counter() - start
    if backend.stays:
        if name not in OURS:
            backend.close()
        start = time.perf_counter()
        backend.connect()
        opened = time.perf_counter() - start
    questions = ask(backend, json.loads(arguments.read_text()))
    backend.close()
    size = sum(p.stat().st_size for p in work.rglob("*") if p.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({"build_s": built, "open_s": opened, "GiB": peak, "disk_GiB": size / (1 << 30),
                      "questions": questions}))  # fmt: skip


def compare(found: dict[str, Any]) -> list[str]:
    """What differs between the back ends' answers."""
    wrong = []
    for question in QUESTIONS:
        have = {n: r["questions"][question]["answers"] for n, r in found.items() if question in r["questions"]}
        if not have:
            continue
        first = next(iter(have))
        for name, answers in have.items():
            bad = [i for i, (a, b) in enumerate(zip(have[first], answers, strict=True)) if a != b]
            if bad:
                pair = f"{have[first][bad[0]]} against {answers[bad[0]]}"
                wrong.append(f"{question}: {name} differs from {first} in {len(bad)} answers, e.g. {pair}")
    return wrong


def _ms(seconds: list[float]) -> str:
    median, p95 = np.median(seconds) * 1000, np.quantile(seconds, 0.95) * 1000
    return f"{median:.3g} / {p95:.3g}"


def show(found: dict[str, Any]) -> None:
    """The table of milliseconds, and that of ratios to ours."""
    out = Console(width=200)
    table = Table("back end", "load s", "open s", "peak GiB", "disk GiB", *QUESTIONS.values(), title="median / p95, ms")
    for name, r in found.items():
        cells = [_ms(r["questions"][q]["seconds"]) if q in r["questions"] else "-" for q in QUESTIONS]
        numbers = [f"{r[k]:.3g}" for k in ("build_s", "open_s", "GiB", "disk_GiB")]
        table.add_row(BACKENDS[name].name, *numbers, *cells)
    out.print(table)
    for ours in [n for n in found if n in OURS]:
        ratios = Table(
            "back end", *QUESTIONS.values(), title=f"medians / {BACKENDS[ours].name}: above 1, ours is faster"
        )
        for name, r in found.items():
            cells = []
            for q in QUESTIONS:
                if q in r["questions"] and q in found[ours]["questions"]:
                    mine = np.median(found[ours]["questions"][q]["seconds"])
                    cells.append(f"{np.median(r['questions'][q]['seconds']) / mine:.3g}")
                else:
                    cells.append("-")
            ratios.add_row(BACKENDS[name].name, *cells)
        out.print(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--arguments", type=int, default=200)
    parser.add_argument("--slow", type=int, default=3, help="how often all connections are counted")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=BACKENDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    drawn = given.folder / "arguments.json"
    if given.one:
        one(given.one, given.project, given.folder, drawn)
        return 0
    given.folder.mkdir(parents=True, exist_ok=True)
    drawn.write_text(json.dumps(draw(given.project, given.arguments, given.slow)))
    found: dict[str, Any] = {}
    print(f"load average {os.getloadavg()[0]:.1f} at the start")
    for name in given.backends:
        started = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "benchmarks.peers",
            str(given.project),
            "--folder",
            str(given.folder),
            "--one",
            name,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: failed: {done.stderr.strip().splitlines()[-1:]}")
            continue
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    show(found)
    print(f"load average {os.getloadavg()[0]:.1f} at the end")
    if given.json:
        given.json.write_text(json.dumps(found))
    wrong = compare(found)
    print("\n".join(wrong) or f"all answers equal: {sum(len(r['questions']) for r in found.values())} sets of answers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
