"""Run a stage: find what is done, compute the rest anywhere, then finish.

    prepare (every process alike) -> lookup in the store -> units to do -> executor -> finish

Running again continues from the units that are done. Nothing depends on worker count or order.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db import executors, prepare
from connectome_db.config import Project
from connectome_db.environment import environment_facts, host_facts, require_git
from connectome_db.errors import ConnectomeError, DiskFullError, RunError, SourceError, StageError
from connectome_db.inputs import BlockReader
from connectome_db.networks.ffn import FloodNetwork
from connectome_db.networks.loading import load_model
from connectome_db.networks.together import Together
from connectome_db.prepare import Prepared
from connectome_db.spec import RAW, Block, Network, Result, Rows, Volume, Window
from connectome_db.store import Output, Record, Store, check_links
from connectome_db.unitfiles import pack_array, pack_rows

Progress = Callable[[int, int], None]
"""Called with (units done, units to do)."""
Clock = Callable[[], float]
"""Seconds since some time."""
ROUNDS = 4
"""A worker that has several units under way is sent this many times as many: at the end of them some rows are idle."""


@dataclass(frozen=True)
class Task:
    """What a worker needs to know to compute units of one run."""

    project: Project
    stage: str
    run_id: str
    git: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    stage: str
    run_id: str
    total: int
    computed: int
    reused: int
    seconds: float
    started: str
    executor: str
    workers: int


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def locked(project: Project, stage: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a stage's lock; parts of a job array share it. Raises RunError when another run holds it."""
    folder = project.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}.lock"
    with path.open("a+") as f:
        try:
            fcntl.flock(f, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as e:
            f.seek(0)
            raise RunError(
                f"stage {stage} is being run already ({f.read().strip() or 'holder unknown'}). "
                "Wait for it, or stop it; to share the work, start parts with --part i/n."
            ) from e
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
        f.flush()
        yield


def check_result(block: Block[Any], outputs: Sequence[Volume | Rows], result: Result) -> None:
    """Raise StageError unless `result` holds exactly the declared outputs, each of the declared type and shape."""
    wanted, got = {o.name for o in outputs}, set(result)
    if wanted != got:
        parts = [f"forgot {sorted(wanted - got)}"] * bool(wanted - got)
        parts += [f"returned undeclared {sorted(got - wanted)}"] * bool(got - wanted)
        raise StageError(f"compute {' and '.join(parts)}; declared outputs are {sorted(wanted)}")
    for o in outputs:
        value = result[o.name]
        if isinstance(o, Volume):
            if not isinstance(value, np.ndarray) or value.dtype != o.dtype or value.shape != block.unit.core.shape:
                came = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
                raise StageError(f"{o.name}: wanted {o.dtype}{block.unit.core.shape}, compute gave {came}")
        elif not isinstance(value, pa.Table):
            raise StageError(f"{o.name}: wanted a pyarrow Table, compute gave {type(value).__name__}")


def store_result(store: Store, prepared: Prepared, block: Block[Any], result: Result) -> dict[str, Output]:
    """Put every output of a unit into the store."""
    check_result(block, prepared.stage.outputs, result)
    out = {}
    for o in prepared.stage.outputs:
        value = result[o.name]
        if isinstance(o, Volume):
            packed = pack_array(prepared.layout(o), block.unit.core, value)
        else:
            packed = pack_rows(o, value, block.unit.code)
        out[o.name] = Output(packed.digest, packed.rows, packed.blob, store.put_blob(packed.blob, packed.files))
    return out


class Worker:
    """Computes units of one run; keeps inputs, caches and networks between them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.prepared = prepare.prepare(task.project, task.project.stage(task.stage))
        self.store = Store(task.project.store)
        self.environment = self.store.put_environment(environment_facts())
        self.host = host_facts()["host"]
        self._readers: dict[str, BlockReader] = {}
        self._shared: dict[str, Together] = {}

    def _model(self, i: int) -> str:
        model = self.prepared.model(i)
        return model.id if model else ""

    def _reader(self, i: int) -> BlockReader:
        p, model, name = self.prepared, self.prepared.model(i), self._model(i)
        if name not in self._readers:
            launch = p.project.launch
            network: Network | Window | None = None
            if model:
                network = loaded = load_model(model.folder, flood_batch=launch.flood_batch)
                if launch.units_at_once > 1 and isinstance(loaded, FloodNetwork):
                    self._shared[name] = Together(loaded, launch.units_at_once)
                    network = self._shared[name].window
            self._readers[name] = BlockReader(p.project, p.stage, p.plan, p.inputs, network)
        return self._readers[name]

    def compute_all(self, indices: Sequence[int]) -> list[tuple[int, Exception | None]]:
        """Compute units, together where they share a network's batch; returns what went wrong with each.

        A full disk is raised at once.
        """
        found: list[tuple[int, Exception | None]] = []
        for name, group in itertools.groupby(indices, self._model):
            mine = list(group)
            if self.task.project.launch.units_at_once > 1:
                self._reader(mine[0])
            if shared := self._shared.get(name):
                tries = [partial(self._attempt, i, shared.seconds) for i in mine]
                found += [(mine[k], error) for k, error in shared.run(tries)]
            else:
                found += [(i, self._attempt(i, time.perf_counter)) for i in mine]
        return found

    def _attempt(self, i: int, clock: Clock) -> Exception | None:
        try:
            self.compute(i, clock)
        except DiskFullError:
            raise
        except Exception as e:
            return e
        return None

    def compute(self, i: int, clock: Clock = time.perf_counter) -> None:
        """Read, compute and store the `i`-th unit. Any failure names the unit."""
        p = self.prepared
        started, start = now(), clock()
        try:
            block = self._reader(i).block(i, p.params(i))
            outputs = store_result(self.store, p, block, p.stage.compute(block))
        except ConnectomeError as e:
            raise type(e)(f"{e}\n  in {prepare.name(p, i)}, core {prepare.core(p.plan, i)}") from e
        except Exception as e:
            log = _log_failure(p.project, p.stage.name, int(p.plan.codes[i]), traceback.format_exc())
            raise StageError(
                f"{type(e).__name__}: {e}\n  in {prepare.name(p, i)}, core {prepare.core(p.plan, i)}; details: {log}"
            ) from e
        execution = {
            "run_id": self.task.run_id,
            "rank": executors.rank(),
            "seconds": round(clock() - start, 6),
            "started": started,
            "host": self.host,
            "git_commit": self.task.git["commit"],
            "git_dirty": self.task.git["dirty"],
            "git_diff": self.task.git["diff_sha256"],
            "environment": self.environment,
        }
        self.store.put_record(p.stage.name, Record(p.keys[i], int(p.plan.codes[i]), outputs, execution))


def _log_failure(project: Project, stage: str, code: int, text: str) -> Path:
    folder = project.state / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}-{code}.txt"
    path.write_text(text)
    return path


_WORKERS: dict[str, Worker] = {}


def work(task: Task, indices: Sequence[int]) -> list[tuple[int, Exception | None]]:
    """Compute some units in whatever process this is. Returns what went wrong with each."""
    if task.run_id not in _WORKERS:
        _WORKERS.clear()
        _WORKERS[task.run_id] = Worker(task)
    return _WORKERS[task.run_id].compute_all(indices)


def _raise_failures(failures: Sequence[BaseException], total: int) -> None:
    if not failures:
        return
    texts = sorted(str(f) for f in failures)
    more = f"\n... and {len(texts) - 5} more" if len(texts) > 5 else ""
    raise RunError(
        f"{len(texts)} of {total} units failed; the others are kept. Mend the cause and run again.\n"
        + "\n".join(texts[:5])
        + more
    )


def _collect(pool: Executor, task: Task, indices: Sequence[int], progress: Progress | None) -> None:
    """Do all units; a full disk stops at once, other failures are gathered and reported together."""
    failures: list[BaseException] = []
    waiting: dict[Future[list[tuple[int, Exception | None]]], int] = {}
    done = 0

    def settle(future: Future[list[tuple[int, Exception | None]]], units: int) -> None:
        nonlocal done
        done += units
        error = future.exception()
        if isinstance(error, DiskFullError):
            for f in waiting:
                f.cancel()
            raise error
        failures.extend([error] if error is not None else [e for _, e in future.result() if e is not None])
        if progress:
            progress(done, len(indices))

    at_once = task.project.launch.units_at_once if task.project.stage(task.stage).network == "ffn" else 1
    size = at_once if at_once == 1 else ROUNDS * at_once
    for group in (indices[k : k + size] for k in range(0, len(indices), size)):
        future = pool.submit(work, task, group)
        if future.done():
            settle(future, len(group))
        else:
            waiting[future] = len(group)
    for future in as_completed(tuple(waiting)):
        settle(future, waiting[future])
    _raise_failures(failures, len(indices))


def done_units(prepared: Prepared, store: Store, *, same_environment: bool = False) -> dict[str, Record]:
    """Records of the units that are done and whole; a damaged one is named on stderr, forgotten and so redone."""
    found = store.lookup(prepared.stage.name, prepared.keys)
    bad = {}
    for key, record in found.items():
        for output in record.outputs.values():
            if problem := store.damage(output.blob, output.files):
                bad[key] = problem
    if bad:
        for problem in list(bad.values())[:5]:
            warn(f"damaged unit of {prepared.stage.name} in the store: {problem}; it is computed again")
        store.forget(prepared.stage.name, list(bad))
    here = store.put_environment(environment_facts()) if same_environment else None
    return {k: r for k, r in found.items() if k not in bad and (here is None or r.execution["environment"] == here)}


def warn(text: str) -> None:
    """A line for the person who runs this; results do not depend on it."""
    sys.stderr.write(f"warning: {text}\n")


def check_tiles(prepared: Prepared, *, allow_missing: bool) -> None:
    """Refuse to start `ingest` on unusable tiles, by name, unless told to go on without them."""
    raw = prepared.inputs.raw
    if raw is None or prepared.stage.inputs != (RAW,):
        return
    bad = raw.filter(pc.not_equal(raw["problem"], "")).to_pylist()
    if not bad:
        return
    listing = "\n".join(f"  section {r['section']}, {r['tile']}: {r['problem']}: {r['detail']}" for r in bad[:20])
    more = f"\n  ... and {len(bad) - 20} more" if len(bad) > 20 else ""
    text = f"{len(bad)} of {raw.num_rows} tiles cannot be used:\n{listing}{more}"
    if not (allow_missing or getattr(prepared.project.params[prepared.stage.name], "allow_missing", False)):
        raise SourceError(
            f"{text}\nMend or replace them, or go on without them: `connectome run ingest --allow-missing`, or "
            "`allow_missing: true` in launch.yaml for `dvc repro`."
        )
    warn(text)


def compute_units(
    prepared: Prepared, indices: Sequence[int], *, run_id: str, executor: executors.EngineName, workers: int,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Compute the given units of a stage on an executor; every rank of an MPI job calls this alike."""
    project = prepared.project
    git = {k: v for k, v in require_git(project.root).items() if k != "diff"}
    task = Task(project, prepared.stage.name, run_id, git)
    with executors.engine(executor, workers) as pool:
        if pool is None:
            return
        _collect(pool, task, indices, progress)


def launch_mpi(prepared: Prepared, run_id: str, ranks: int, only: Path | None = None) -> None:
    """Start `ranks` workers and a coordinator with the launcher of launch.yaml, and wait for them.

    They do what is not done; with `only`, a JSON file of indices of units, just those. They read the project from disk.
    """
    project, stage = prepared.project, prepared.stage.name
    launcher = [part.format(n=ranks + 1) for part in project.launch.mpiexec]
    task = {
        "project": str(project.root),
        "stages": project.stages_module,
        "launch": project.launch.model_dump(mode="json"),
        "stage": stage,
        "run_id": run_id,
        "keys": prepared.keys_digest,
        "only": str(only) if only else None,
    }
    inner = ["-m", "connectome_db.ranks", json.dumps(task)]
    code = executors.start_ranks(launcher, inner, "set `mpiexec` in launch.yaml")
    if code:
        raise RunError(
            f"the MPI job of stage {stage} ended with code {code} (its messages are above). Units finished "
            "before that are kept: running again continues from them."
        )


def pending(prepared: Prepared, done: Mapping[str, Record], part: tuple[int, int] | None = None) -> list[int]:
    """Units still to do. A part takes every n-th unit of the *full* plan first and skips done ones second."""
    share = range(len(prepared.plan)) if part is None else range(part[0], len(prepared.plan), part[1])
    return [i for i in share if prepared.keys[i] not in done]


def run_units(
    project: Project, stage_name: str, *, ranks: int | None = None, executor: executors.EngineName | None = None,
    part: tuple[int, int] | None = None, progress: Progress | None = None,
) -> tuple[Prepared, Outcome]:  # fmt: skip
    """Compute what is not done of a stage (or of part i of n, i from 0). Call with the stage locked."""
    started, clock = now(), time.perf_counter()
    require_git(project.root)
    check_links(project.store, project.root / "data")
    prepared = prepare.prepare(project, project.stage(stage_name))
    check_tiles(prepared, allow_missing=project.launch.allow_missing)
    store = Store(project.store)
    workers = project.launch.ranks if ranks is None else ranks
    name = executor or project.launch.executor or ("mpi" if workers else "serial")
    done = done_units(prepared, store, same_environment=project.launch.same_environment)
    todo = pending(prepared, done, part)
    workers = min(workers, len(todo))  # a worker without a unit would only load the libraries
    run_id = uuid.uuid4().hex[:16]
    if name == "mpi" and (part is not None or len(todo) == 1 or not workers):
        name = "serial"  # nothing to share: starting ranks would cost more than the work
    if todo and name == "mpi":
        launch_mpi(prepared, run_id, workers)
    elif todo:
        compute_units(
            prepared,
            todo,
            run_id=run_id,
            executor=name,
            workers=workers,
            progress=progress,
        )
    outcome = Outcome(
        stage=stage_name, run_id=run_id, total=len(prepared.plan), computed=len(todo),
        reused=len(prepared.plan) - len(todo), seconds=time.perf_counter() - clock, started=started,
        executor=name if todo else "none", workers=max(1, workers),
    )  # fmt: skip
    return prepared, outcome
