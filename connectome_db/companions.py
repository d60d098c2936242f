"""Companions: what `finish` makes from a finished table beside it, and `verify` can make again.

A companion is a pure function of the table's rows, so a damaged one is replaced without computing anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from connectome_db import tables
from connectome_db.errors import StoreError
from connectome_db.spec import Adjacency, Companion, Rows, Sorted, Volume

ARRAYS = tuple(f"{name}.npy" for name in (
    "neuron", "out_start", "out_partner", "out_synapses", "in_start", "in_partner", "in_synapses",
))  # fmt: skip


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file of any size."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def names(output: Rows, companion: Companion) -> tuple[str, ...]:
    """Files of a companion, relative to data/<stage>."""
    if isinstance(companion, Sorted):
        return (f"{output.name}.{companion.name}.parquet",)
    return tuple(f"{companion.name}/{name}" for name in ARRAYS)


def wanted(output: Rows, folder: Path) -> list[Companion]:
    """The companions that a table in `folder` has: one by place only when some row has a place."""
    source = folder / f"{output.name}.parquet"
    return [
        c for c in output.companions
        if isinstance(c, Adjacency) or c.place is None or tables.has_places(source, c.place)
    ]  # fmt: skip


def expected(outputs: Iterable[Rows | Volume], folder: Path) -> list[str]:
    """Files of all companions that the tables in `folder` = data/<stage> have."""
    return [n for o in outputs if isinstance(o, Rows) for c in wanted(o, folder) for n in names(o, c)]


def possible(outputs: Iterable[Rows | Volume]) -> list[str]:
    """Files of all companions that a stage may have, those by place too."""
    return [n for o in outputs if isinstance(o, Rows) for c in o.companions for n in names(o, c)]


def make(outputs: Sequence[Rows | Volume], folder: Path, scratch: Path) -> dict[str, str]:
    """Make every companion of the tables in `folder` = data/<stage>; returns the SHA-256 of each file by name."""
    made: dict[str, str] = {}
    for o in outputs:
        if isinstance(o, Rows):
            for c in wanted(o, folder):
                made |= make_one(o, c, folder, folder, scratch)
    return made


def make_one(output: Rows, companion: Companion, folder: Path, target: Path, scratch: Path) -> dict[str, str]:
    """Make one companion of a table in `folder` below `target`; returns the SHA-256 of each of its files by name."""
    source = folder / f"{output.name}.parquet"
    if isinstance(companion, Adjacency):
        (target / companion.name).mkdir(parents=True)
        for name, array in _adjacency(folder / "neuron.parquet", source).items():
            np.save(target / companion.name / f"{name}.npy", array, allow_pickle=False)
    else:
        path = target / f"{output.name}.{companion.name}.parquet"
        tables.sort_file(output.table, source, path, companion, scratch)
    return {n: file_digest(target / n) for n in names(output, companion)}


def _adjacency(neurons: Path, connections: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of `Adjacency`. Raises StoreError when the two tables do not fit."""
    neuron = np.sort(pq.read_table(neurons, columns=["neuron"])["neuron"].to_numpy())
    file = pq.ParquetFile(connections)
    n = file.metadata.num_rows
    ends = {"pre": np.empty(n, np.int32), "post": np.empty(n, np.int32)}
    synapses = np.empty(n, np.int32)
    at = 0
    for batch in file.iter_batches(columns=["pre", "post", "synapses"]):
        rows = slice(at, at + batch.num_rows)
        at = rows.stop
        for side, index in ends.items():
            ids = batch[side].to_numpy()
            found = np.minimum(np.searchsorted(neuron, ids), max(len(neuron) - 1, 0))
            if not (neuron[found] == ids).all():
                raise StoreError(f"{connections}: names a neuron that {neurons.name} does not have")
            index[rows] = found
        count = batch["synapses"].to_numpy()
        if batch.num_rows and count.max() > np.iinfo(np.int32).max:
            raise StoreError(f"{connections}: a connection has {count.max()} synapses: more than 2**31 - 1")
        synapses[rows] = count
    arrays: dict[str, npt.NDArray[np.generic]] = {"neuron": neuron}
    for way, row, column in (("out", "pre", "post"), ("in", "post", "pre")):
        order = np.lexsort([ends[column], ends[row]])
        arrays[f"{way}_start"] = np.concatenate([[0], np.cumsum(np.bincount(ends[row], minlength=len(neuron)))])
        arrays[f"{way}_partner"], arrays[f"{way}_synapses"] = ends[column][order], synapses[order]
    return {name: np.ascontiguousarray(a) for name, a in arrays.items()}
