"""All stages of a project in one MPI job: `mpiexec -n 5 python -m tests.pipeline.one_job PROJECT` has four workers.

Each stage's units are shared out as `connectome run --ranks` does, but the ranks stay: starting them anew for every
stage takes longer than a small project. Writes executors.json: what each stage was computed by.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from connectome_db import config, executors, runner
from connectome_db.prepare import Prepared
from connectome_db.stages.pipeline import STAGES
from connectome_db.store import Store
from tests.pipeline.conftest import run_stages


def tell(job: Any, more: bool) -> None:
    """Say to all workers whether there is another stage to share."""
    for worker in range(1, executors.size()):
        job.send(more, worker)


def told(job: Any) -> bool:
    """Wait, asleep: MPI itself would keep a core busy."""
    while not job.iprobe(source=0):
        time.sleep(0.01)
    return bool(job.recv(source=0))


def main(root: Path) -> None:
    from mpi4py import MPI

    job, workers = MPI.COMM_WORLD, executors.size() - 1
    if executors.rank():
        while told(job):
            with executors.engine("mpi", workers):
                pass
        return

    def here(prepared: Prepared, run_id: str, ranks: int, only: Path | None = None) -> None:
        tell(job, True)
        todo = runner.pending(prepared, runner.done_units(prepared, Store(prepared.project.store)))
        runner.compute_units(prepared, todo, run_id=run_id, executor="mpi", workers=workers)

    try:
        with mock.patch.object(runner, "launch_mpi", here):
            outcomes = run_stages(config.load(root, STAGES), ranks=workers)
        tell(job, False)
    except BaseException:
        executors.abort(1)
        raise
    executed = {name: outcome.executor for name, outcome in outcomes.items()}
    (root / "executors.json").write_text(json.dumps(executed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
