"""Who, where, with what: the facts of an execution that are recorded but never hashed into a key."""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from connectome_db.errors import RunError

SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "COBALT_JOBID")
NOT_SOURCE = (":!dvc.lock", ":!identity", ":!data", ":!provenance", ":!qa")
"""Paths that a run itself changes: they do not make a project's source dirty."""


def _run(*command: str, cwd: Path | None = None) -> str | None:
    """Standard output of a command, or None when it is absent or fails."""
    if shutil.which(command[0]) is None:
        return None
    # Reading must not write: `git status` would else refresh .git/index, and hold its lock while somebody commits.
    env = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, errors="replace", env=env)
    return done.stdout if done.returncode == 0 else None


def git_facts(folder: Path) -> dict[str, Any] | None:
    """Commit, branch, dirty flag and the digest and text of the uncommitted diff; None outside a git checkout."""
    commit = _run("git", "rev-parse", "HEAD", cwd=folder)
    if commit is None:
        return None
    branch = _run("git", "rev-parse", "--abbrev-ref", "HEAD", cwd=folder) or ""
    status = _run("git", "status", "--porcelain", "--", ".", *NOT_SOURCE, cwd=folder) or ""
    diff = (_run("git", "diff", "HEAD", "--", ".", *NOT_SOURCE, cwd=folder) or "") if status else ""
    return {
        "commit": commit.strip(),
        "branch": branch.strip(),
        "dirty": bool(status),
        "diff_sha256": hashlib.sha256((status + diff).encode()).hexdigest() if status else None,
        "diff": status + diff,
    }


def require_git(project: Path) -> dict[str, Any]:
    """`git_facts` of a project. Raises RunError when there is no commit to record: it is one of the six facts."""
    facts = git_facts(project)
    if facts is None:
        raise RunError(
            f"{project} has no git commit, and the git revision is one of the facts every run records. "
            "Run `git init && git add . && git commit -m 'Start'` there first."
        )
    return facts


@lru_cache(maxsize=1)
def code_facts() -> dict[str, Any]:
    """The version of this package and, when it runs from a checkout, that checkout's git facts."""
    facts = git_facts(Path(__file__).resolve().parent)
    try:
        version = importlib.metadata.version("connectome-db")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    kept = {k: facts[k] for k in ("commit", "dirty", "diff_sha256")} if facts else None
    return {"version": version, "git": kept}


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform module knows less, but something
    return platform.processor() or platform.machine()


def _container() -> str | None:
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "CONTAINER_IMAGE"):
        if os.environ.get(name):
            return os.environ[name]
    return "docker" if Path("/.dockerenv").exists() else None


@lru_cache(maxsize=1)
def packages() -> Mapping[str, str]:
    """Name and version of every installed distribution."""
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)
def environment_facts() -> dict[str, Any]:
    """What could make the same code give other bits: interpreter, packages, processor, GPUs, container."""
    gpus = _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "os": platform.platform(),
        "cpu": _cpu(),
        "gpus": gpus.strip().splitlines() if gpus else [],
        "container": _container(),
        "packages": dict(packages()),
    }


def host_facts() -> dict[str, Any]:
    """Who runs this and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = str(os.getuid())
    jobs = {name: os.environ[name] for name in SCHEDULER_VARIABLES if name in os.environ}
    return {"user": user, "host": socket.gethostname(), "cores": os.cpu_count(), "scheduler": jobs or None}
