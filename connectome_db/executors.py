"""Where units run: one interface, `concurrent.futures.Executor`, and several well-kept engines behind it.

    serial    in this process: debugging, tests, one core
    mpi       mpi4py.futures under mpiexec or srun: one coordinator and N workers
    dask      dask.distributed's executor, where a site has Dask (extra `dask`)

A job array needs no engine: `--part i/n` takes every n-th unit of the full plan and runs serially.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import RunError

T = TypeVar("T")
EngineName = Literal["serial", "mpi", "dask"]


class SerialExecutor(Executor):
    """Runs each call at submission. An error is kept in its future, as in every other executor."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` now; the future is already done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as e:
            future.set_exception(e)
        return future


def inside_mpi() -> bool:
    """True when this process was started by an MPI launcher with more than one rank."""
    names = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "SLURM_NTASKS")
    launched = any(n in os.environ for n in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"))
    return launched and any(int(os.environ.get(n, "1")) > 1 for n in names)


def mpi_library() -> str | None:
    """The MPI library's version line; None when this process is not under MPI."""
    if not inside_mpi():
        return None
    from mpi4py import MPI  # noqa: PLC0415  importing it starts MPI, which only ranks should do

    return str(MPI.Get_library_version()).strip().split("\n")[0].replace("\t", " ")


def rank() -> int:
    """This process's MPI rank, or 0."""
    if not inside_mpi():
        return 0
    from mpi4py import MPI  # noqa: PLC0415

    return int(MPI.COMM_WORLD.Get_rank())


def size() -> int:
    """Number of MPI ranks, or 1."""
    if not inside_mpi():
        return 1
    from mpi4py import MPI  # noqa: PLC0415

    return int(MPI.COMM_WORLD.Get_size())


def abort(code: int) -> None:
    """End all ranks of this MPI job; a rank that only exits would leave the others waiting."""
    if inside_mpi():
        from mpi4py import MPI  # noqa: PLC0415

        MPI.COMM_WORLD.Abort(code)


def start_ranks(launcher: Sequence[str], words: Sequence[str], hint: str) -> int:
    """Run `launcher… python words…` and return its exit code; RunError with a `hint` if there is no such launcher."""
    # The launcher that comes with the interpreter's mpich wheel lies beside it, and need not be on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run([*launcher, sys.executable, *words], env=os.environ | {"PATH": path}, check=False)
    except FileNotFoundError as e:
        raise RunError(
            f"MPI launcher {launcher[0]!r} not found: install MPI, or {hint} (`connectome doctor` checks it)"
        ) from e
    return done.returncode


def allreduce_mean(arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Means over all ranks of arrays that have the same shapes on each; every rank gets the same bits.

    Each rank adds one part of the numbers, in the order of ranks, and hands out its sums: the traffic of a ring
    (Patarasuk & Yuan 2009), and a result that does not depend on who comes first, so a run repeats.
    """
    from mpi4py import MPI  # noqa: PLC0415

    ranks = MPI.COMM_WORLD.Get_size()
    sizes = [array.size for array in arrays]
    part = -(-sum(sizes) // ranks)
    mine = np.zeros(part * ranks, np.float32)
    mine[: sum(sizes)] = np.concatenate([np.ravel(array) for array in arrays])
    theirs = np.empty_like(mine)
    MPI.COMM_WORLD.Alltoall(mine, theirs)
    total = theirs[:part].copy()
    for other in theirs.reshape(ranks, part)[1:]:
        total += other
    total /= np.float32(ranks)
    MPI.COMM_WORLD.Allgather(total, mine)
    parts = np.split(mine[: sum(sizes)], np.cumsum(sizes)[:-1])
    return [values.reshape(array.shape) for values, array in zip(parts, arrays, strict=True)]


@contextmanager
def engine(name: EngineName, workers: int) -> Iterator[Executor | None]:
    """An executor with `workers` workers. Under MPI, ranks other than the coordinator get None when work is over."""
    if name == "serial":
        yield SerialExecutor()
    elif name == "mpi":
        from mpi4py import MPI  # noqa: PLC0415
        from mpi4py.futures import MPICommExecutor  # noqa: PLC0415

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
            yield cast("Executor | None", pool)
    elif name == "dask":
        try:
            from distributed import Client, LocalCluster  # noqa: PLC0415
        except ImportError as e:
            raise RunError(
                "executor dask: package `distributed` is not installed; `pip install connectome-db[dask]`"
            ) from e
        # Processes, not threads: kernels hold caches and native libraries that are not all thread-safe.
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()
    else:
        raise RunError(f"executor {name!r}: wanted serial, mpi or dask")
