"""Projects that take long to make are made once for all workers of a test run; each worker works on its own copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of this worker with what `make(folder)` puts there; only the first worker that asks calls it.

    The copy keeps times, symbolic links and which files share an inode, so a project in it is as it was made.
    """
    own = factory.mktemp(name) / "p"
    base = factory.getbasetemp()
    everyone = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, lock = everyone / f"made-{name}", everyone / f"made-{name}.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)  # of a worker that failed
            made.mkdir()
            make(made / "p")
            (made / "done").touch()
    subprocess.run(["cp", "-a", str(made / "p"), str(own)], check=True)
    return own
