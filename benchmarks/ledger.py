"""What asking costs when a project has a million units: a made-up project, and the clock on the questions.

    python -m benchmarks.ledger --folder DIR [--units 1000000] [--only make|open|trace|impact|walk|plan ...] [--records]

The project has every stage, with the keys that `connectome run` would compute: its plans read the parts that lie there.
It has no voxels, its digests are random, and its tables hold a few rows per unit (`ledger_rows`). With `--records` the
store knows every unit, without its files. The folder is made once and found again; remove it to make another.

Every question runs in a process of its own. `s` is the time from opening the project to the answer, without the start
of the interpreter and most imports; `process s` is all of it; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.ledger_rows import BLOCK_VX, GRID, LAP_PX, World, rows
from connectome_db import config, finish, ids, ledger, newproject, prepare, tables
from connectome_db.environment import environment_facts, require_git
from connectome_db.geometry import Vec3
from connectome_db.inputs import Parts, scan_raw
from connectome_db.runner import Outcome
from connectome_db.spec import Rows
from connectome_db.stages.pipeline import STAGES
from connectome_db.store import Record, Store

VOXEL_NM = (30.0, 8.0, 8.0)
RUN_ID = "0123456789abcdef"


# Making it ----------------------------------------------------------------------------------------------------------


def blocks_for(units: int) -> Vec3:
    """The smallest grid, nearly a cube, whose stages have at least `units` units together."""

    def total(z: int, y: int, x: int) -> int:
        faces = (z - 1) * y * x + z * (y - 1) * x + z * y * (x - 1)
        sections = z * BLOCK_VX[0]
        return 5 * z * y * x + faces + 2 * sections + (2 * sections - 3) + 4

    n = 1
    while total(n + 1, n + 1, n + 1) <= units:
        n += 1
    x = n
    while total(n, n, x) < units:
        x += 1
    return n, n, x


def make(folder: Path, units: int, *, records: bool = False) -> config.Project:
    """Make the project at `folder` (which must not exist), with about `units` units. Returns it, loaded."""
    blocks = blocks_for(units)
    _tiles(folder, blocks)
    newproject.create(
        folder,
        name="ledger",
        manifest="raw/manifest.csv",
        voxel_nm=VOXEL_NM,
        stages=STAGES,
        changes=newproject.model_changes(STAGES, "phantom"),
    )
    project = config.load(folder, STAGES)
    world = World(blocks, scan_raw(project))
    rng = np.random.default_rng(0)
    for stage in STAGES:
        _stage(project, stage.name, world, rng, records)
    return project


def _tiles(folder: Path, blocks: Vec3) -> None:
    """GRID x GRID tiles of 8 x 8 pixels per section, each unlike all others, and the list of them."""
    rng = np.random.default_rng(1)
    height, width = (n * s for n, s in zip(blocks[1:], BLOCK_VX[1:], strict=True))
    lines = ["path,section,stage_y_px,stage_x_px"]
    for z in range(blocks[0] * BLOCK_VX[0]):
        section = folder / "raw" / f"s{z:04d}"
        section.mkdir(parents=True)
        for k in range(GRID * GRID):
            _, png = cv2.imencode(".png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
            (section / f"t{k:02d}.png").write_bytes(png.tobytes())
            y, x = k // GRID * height / GRID - LAP_PX, k % GRID * width / GRID - LAP_PX
            lines.append(f"s{z:04d}/t{k:02d}.png,{z},{y},{x}")
    (folder / "raw" / "manifest.csv").write_text("\n".join(lines) + "\n")


def _digests(rng: np.random.Generator, n: int) -> list[str]:
    text = rng.bytes(32 * n).hex()
    return [text[i : i + 64] for i in range(0, 64 * n, 64)]


def _stage(project: config.Project, name: str, world: World, rng: np.random.Generator, records: bool) -> None:
    """One finished stage, written with the functions that `finish` uses."""
    prepared = prepare.prepare(project, project.stage(name))
    n, data, merkles, parts_tables = len(prepared.plan), project.data(name), {}, []
    provenance = project.provenance(name)
    data.mkdir(parents=True)
    provenance.mkdir(parents=True)
    contents: dict[str, list[str]] = {}
    for o in prepared.stage.outputs:
        contents[o.name] = _digests(rng, n)
        parts, counts = Parts(prepared.plan.codes, prepared.plan.cores, tuple(contents[o.name])), [-1] * n
        if isinstance(o, Rows):
            found = rows(world, prepared, o.table)
            pq.write_table(found, data / f"{o.name}.parquet", compression="zstd", row_group_size=tables.ROW_GROUP)
            if o.part == "section":
                parts, counts = finish.section_parts(o, found)
            else:
                counts = _rows_per_unit(found, prepared.plan.codes)
        merkles[o.name] = parts.merkle
        parts_tables.append(finish.parts_table(o.name, parts, counts))
    tables.write_small(finish.units_table(prepared), data / "units.parquet")
    tables.write_small(finish.reads_table(prepared), data / "reads.parquet")
    tables.write_small(pa.concat_tables(parts_tables).combine_chunks(), data / "parts.parquet")
    finish.write_json(data / "record.json", finish.stage_record(prepared, merkles))
    execution = _execution(project)
    store = Store(project.store)
    outcome = Outcome(name, RUN_ID, n, n, 0, 1.0, execution["started"], "serial", 1)
    one = Record("", 0, {}, execution)
    finish._write_provenance(prepared, store, [one] * n, outcome, provenance)
    if records:
        ledger.write(project.store, name, data, provenance, RUN_ID)
        _shard(store, prepared, contents, execution)


def _rows_per_unit(found: pa.Table, codes: npt.NDArray[np.uint64]) -> list[int]:
    unit = found["unit"].to_numpy()
    first, last = (np.searchsorted(unit, codes, side=side) for side in ("left", "right"))
    return list((last - first).tolist())


def _execution(project: config.Project) -> dict[str, Any]:
    git = require_git(project.root)
    return {
        "run_id": RUN_ID,
        "rank": 0,
        "seconds": 1.5,
        "started": datetime(2026, 1, 2, tzinfo=UTC).isoformat(timespec="milliseconds"),
        "host": "nowhere",
        "git_commit": git["commit"],
        "git_dirty": False,
        "git_diff": None,
        "environment": Store(project.store).put_environment(environment_facts()),
    }


def _shard(store: Store, prepared: prepare.Prepared, contents: dict[str, list[str]], execution: dict[str, Any]) -> None:
    """The records of a stage as `Store.gather` leaves them; the blobs that they name do not exist."""
    codes, told = prepared.plan.codes.tolist(), json.dumps(execution, sort_keys=True)
    outputs = [(o.name, contents[o.name], -1 if not isinstance(o, Rows) else 1) for o in prepared.stage.outputs]
    texts = []
    for i, key in enumerate(prepared.keys):
        out = ", ".join(
            f'"{n}": {{"blob": "{d[i]}", "digest": "{d[i]}", "files": [["rows.parquet", 1000]], "rows": {r}}}'
            for n, d, r in outputs
        )
        texts.append(f'{{"execution": {told}, "key": "{key}", "outputs": {{{out}}}, "unit": "{codes[i]}"}}')
    folder = store.root / "shards" / prepared.stage.name
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"key": prepared.keys, "record": texts}), folder / "all.parquet", compression="zstd")


# The questions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One thing to ask: what it is called, how long it may take, and how it is asked in this process."""

    group: str
    title: str
    bar: str
    ask: Callable[[Path], str]
    command: Callable[[Path], list[str]] | None = None
    """The same as a command line, when there is one."""


def _open(folder: Path) -> Any:
    from connectome_db.query.database import open_database

    return open_database(folder)


def _an_edge(folder: Path) -> tuple[int, int]:
    """The connection in the middle of the list."""
    table = pq.read_table(folder / "data" / "graph" / "connection.parquet", columns=["pre", "post"])
    row = table.slice(table.num_rows // 2, 1).to_pylist()[0]
    return int(row["pre"]), int(row["post"])


def _middle(folder: Path) -> tuple[Vec3, int]:
    """The place of a synapse in the middle of the volume, and the supervoxel there."""
    names = ["z_vx", "y_vx", "x_vx", "pre_supervoxel"]
    table = pq.read_table(folder / "data" / "synapses" / "synapse.parquet", columns=names)
    row = table.slice(table.num_rows // 2, 1).to_pylist()[0]
    return (int(row["z_vx"]), int(row["y_vx"]), int(row["x_vx"])), int(row["pre_supervoxel"])


def _a_tile(folder: Path) -> str:
    """The middle tile of a section in the middle."""
    names = pq.read_table(folder / "data" / "ingest" / "tile.parquet", columns=["tile"])["tile"]
    return str(names[len(names) // 2 // GRID**2 * GRID**2 + GRID**2 // 2].as_py())


def ask_open(folder: Path) -> str:
    with _open(folder) as db:
        return f"{len(db.tables)} tables"


def ask_edge(folder: Path) -> str:
    from connectome_db.query.lineage import trace_edge
    from connectome_db.query.trace import to_json

    pre, post = _an_edge(folder)
    with _clock() as spent, _open(folder) as db:
        trace = trace_edge(db, pre, post)
        to_json(trace)
    return f"{len(trace.find('unit'))} units on the way;{spent()}"


def ask_voxel(folder: Path) -> str:
    from connectome_db.query.lineage import trace_voxel
    from connectome_db.query.trace import to_json

    (z, y, x), known = _middle(folder)
    with _clock() as spent, _open(folder) as db:
        trace = trace_voxel(db, z, y, x, supervoxel=known)
        to_json(trace)
    return f"{len(trace.find('unit'))} units on the way;{spent()}"


def ask_walk(way: str, stage: str) -> Callable[[Path], str]:
    def ask(folder: Path) -> str:
        from connectome_db.query import units

        (z, y, x), _ = _middle(folder)
        pos = [v // s for v, s in zip((z, y, x), BLOCK_VX, strict=True)]
        code = int(ids.pack([pos])[0])
        with _clock() as spent, _open(folder) as db:
            found = getattr(units, f"{way}_units")(db, stage, code)
        return f"{found.num_rows:,} units;{spent()}"

    return ask


@contextmanager
def _clock() -> Iterator[Callable[[], str]]:
    """Seconds since it was started, told as the child's own measure; what came before is not counted."""
    start = time.perf_counter()
    ends: list[float] = []
    yield lambda: f"{(ends or [time.perf_counter()])[0] - start}"
    ends.append(time.perf_counter())


QUESTIONS: dict[str, Question] = {
    "open": Question("open", "open the database", "", ask_open),
    "trace-edge": Question(
        "trace", "trace edge", "1 s", ask_edge, lambda f: ["trace", "edge", *map(str, _an_edge(f)), "--json"]
    ),
    "trace-voxel": Question("trace", "trace voxel", "1 s", ask_voxel),
    "up": Question("walk", "upstream units of a synapses block", "", ask_walk("upstream", "synapses")),
    "down": Question("walk", "downstream units of a render block", "", ask_walk("downstream", "render")),
}


def measure(name: str, folder: Path) -> tuple[float, float, int, str]:
    """(seconds, seconds of the process, bytes at its peak, what came) of one question in a process of its own."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ledger", "--folder", str(folder), "--ask", name],
        stdout=subprocess.PIPE,
        text=True,
    )
    said = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{name} ended with code {child.returncode}")
    spent, came = said.strip().splitlines()[-1].split(" ", 1)
    return float(spent), time.perf_counter() - begun, usage.ru_maxrss * 1024, came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the project is, or will be made")
    parser.add_argument("--units", type=int, default=1_000_000)
    groups = ["make", *dict.fromkeys(q.group for q in QUESTIONS.values())]
    parser.add_argument("--only", nargs="*", choices=groups, default=groups)
    parser.add_argument("--records", action="store_true", help="fill the store with the units' records")
    parser.add_argument("--ask", choices=list(QUESTIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        start = time.perf_counter()
        came, _, own = QUESTIONS[options.ask].ask(options.folder).partition(";")
        print(float(own or time.perf_counter() - start), came)
        return
    out = Console()
    if not (options.folder / "params.yaml").exists():
        start = time.perf_counter()
        make(options.folder, options.units, records=options.records)
        out.print(f"made in {time.perf_counter() - start:.0f} s")
    table = Table("", "s", "process s", "peak GiB", "bar", "what came", header_style="bold")
    for name, question in QUESTIONS.items():
        if question.group in options.only:
            spent, process, peak, came = measure(name, options.folder)
            table.add_row(question.title, f"{spent:.2f}", f"{process:.2f}", f"{peak / 2**30:.2f}", question.bar, came)
    out.print(table)
    out.print(f"load average {os.getloadavg()[0]:.1f}; repeat: python -m benchmarks.ledger {' '.join(sys.argv[1:])}")


if __name__ == "__main__":
    main()
