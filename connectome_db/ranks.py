"""What every rank of an MPI job runs: `python -m connectome_db.ranks TASK`, started by the runner.

TASK is JSON: the project's folder, the module that holds its STAGES, the launch settings, the stage and the run id.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # ranks are the parallelism; set before NumPy loads


def main(task: str) -> int:
    """Compute what is to do of a stage as one rank. The coordinator shows progress; returns the exit code."""
    from connectome_db import config, executors, prepare, runner  # noqa: PLC0415  after the thread settings above
    from connectome_db.errors import ConnectomeError, RunError  # noqa: PLC0415
    from connectome_db.progress import bar  # noqa: PLC0415
    from connectome_db.store import Store  # noqa: PLC0415

    what = json.loads(task)
    stages = importlib.import_module(what["stages"]).STAGES
    project = config.load(Path(what["project"]), stages).launched(**what["launch"])
    stage, run_id = what["stage"], what["run_id"]
    workers = executors.size() - 1
    try:
        if executors.rank():
            with executors.engine("mpi", workers):
                return 0
        prepared = prepare.prepare(project, project.stage(stage))
        if prepared.keys_digest != what["keys"]:
            raise RunError(f"stage {stage}: its code, parameters or inputs changed while it was starting: run it again")
        store = Store(project.store)
        done = runner.done_units(prepared, store, same_environment=project.launch.same_environment)
        todo = json.loads(Path(what["only"]).read_text()) if what.get("only") else runner.pending(prepared, done)
        with bar(stage) as progress:
            runner.compute_units(prepared, todo, run_id=run_id, executor="mpi", workers=workers, progress=progress)
    except ConnectomeError as e:
        sys.stderr.write(f"error: {e}\n")
        if executors.rank() == 0:
            executors.abort(1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
