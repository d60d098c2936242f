"""Where units run: one interface, `concurrent.futures.Executor`, and several well-kept engines behind it.

    serial    in this process: debugging, tests, one core
    mpi       mpi4py.futures under mpiexec or srun: one coordinator and N workers
    dask      dask.distributed's executor, where a site has Dask (extra `dask`)

A job array needs no engine: `--part i/n` takes every n-th unit of the full plan and runs serially.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast

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
