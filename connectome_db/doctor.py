"""Is everything here that a run needs? Each check does the thing, rather than asking for a version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connectome_db.errors import ConnectomeError
from connectome_db.store import check_links

MINIMUM_FREE_GB = 5
PACKAGES = (
    "dvc", "sqlalchemy", "duckdb", "pyarrow", "networkx", "keras", "mpi4py", "cloud-volume", "tensorstore", "typer",
    "great-expectations", "scikit-image", "numba", "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One answer: what was checked, whether it works, what was found, and what to do if it does not."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", ok, platform.python_version(), "Python 3.11 or newer is needed")


def _compiled() -> Check:
    """Not an error: everything works, slowly. Images often set the variable, and pip leaves modules as they are."""
    import numpy as np  # noqa: PLC0415 - any package would do

    kept = Path(importlib.util.cache_from_source(np.__file__)).is_file()
    if kept or not sys.dont_write_bytecode:
        return Check("compiled modules", True, "are kept")
    return Check(
        "compiled modules",
        True,
        "PYTHONDONTWRITEBYTECODE forbids to keep them, so every process of every stage and rank starts seconds later: "
        f"unset it, or run once `python -m compileall -q {sys.prefix}`",
    )


def _packages() -> Check:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return Check("packages", not missing, ", ".join(found) if not missing else f"missing: {', '.join(missing)}",
                 "pip install connectome-db")  # fmt: skip


def _run(command: list[str], cwd: Path | None = None) -> tuple[bool, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=os.environ | {"PATH": path}
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as e:
        return False, str(e)
    text = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()
    return done.returncode == 0, text.splitlines()[-1] if text else ""


def _mpi() -> Check:
    program = (
        "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); "
        "c.rank == 0 and print(f'{n} ranks,', MPI.Get_library_version().split(chr(10))[0].replace(chr(9), ' '))"
    )
    ok, text = _run(["mpiexec", "-n", "2", sys.executable, "-c", program])
    return Check("MPI", ok and text.startswith("2 ranks"), text, "pip install mpich, or load your site's MPI and set "
                 "`mpiexec` in launch.yaml")  # fmt: skip


def _tensorflow() -> Check:
    program = (
        "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"
        "from connectome_db.networks.backend import keras_module\n"
        "k = keras_module(); import numpy as np\n"
        "y = k.layers.Conv3D(2, 3, padding='same')(np.ones((1, 4, 8, 8, 1), 'float32'))\n"
        "print('keras', k.__version__, 'on', k.backend.backend(), '- 3-D convolution', tuple(y.shape))"
    )
    ok, text = _run([sys.executable, "-c", program])
    return Check("networks", ok, text, "pip install tensorflow-cpu keras (or set KERAS_BACKEND=jax with jax installed)")


def _dvc() -> Check:
    ok, text = _run([sys.executable, "-m", "dvc", "--version"])
    return Check("DVC", ok, text, "pip install dvc")


def _git() -> Check:
    ok, text = _run(["git", "--version"])
    return Check("git", ok, text, "install git: the revision is one of the six facts that every run records")


def _disk(folder: Path) -> Check:
    free_gb = shutil.disk_usage(folder).free / 1e9
    return Check("disk", free_gb > MINIMUM_FREE_GB, f"{free_gb:.0f} GB free at {folder}", "free some space")


def _links(folder: Path) -> Check:
    try:
        with tempfile.TemporaryDirectory(dir=folder) as tmp:
            check_links(Path(tmp) / "store", Path(tmp) / "data")
    except (ConnectomeError, OSError) as e:
        return Check("hard links", False, str(e), "put the project on a local or parallel file system that has them")
    return Check("hard links", True, "work here")


def _machine() -> Check:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Check(
        "machine", memory_gb > 3, f"{os.cpu_count()} cores, {memory_gb:.0f} GB memory", "at least 4 GB are needed"
    )


def check_all(folder: Path) -> list[Check]:
    """All checks; `folder` is where a project is or would be."""
    checks: list[Callable[[], Check]] = [
        _python, _compiled, _packages, _mpi, _tensorflow, _dvc, _git, _machine,
        lambda: _disk(folder), lambda: _links(folder),
    ]  # fmt: skip
    return [check() for check in checks]
