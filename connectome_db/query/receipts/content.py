"""What the tables of a database hold, as digests: equal digests, equal rows, whatever the file's bytes.

A stage's table is named by the Merkle digest that the stage's record gives to it, after its rows were hashed again and
found to be those of the record. Provenance is named stage by stage. What differs from run to run (who, when, where) is
marked volatile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.companions import file_digest
from connectome_db.errors import QueryError
from connectome_db.provenance import digest, merkle, slice_digests, table_digest
from connectome_db.query.views import outputs_in, read_json
from connectome_db.schema import quality_views
from connectome_db.schema.companions import COMPANIONS
from connectome_db.spec import Adjacency

LEDGERS = {"unit": "units.parquet", "unit_read": "reads.parquet", "part": "parts.parquet"}
"""Views that gather one hashed file of each stage."""

RECORDED = {
    "stage_record": ("format", "units", "code_digest", "model_id", "model_digest", "voxel_nm", "params"),
    "stage_override": ("overrides",),
    "stage_input": ("inputs",),
    "stage_output": ("outputs",),
}
"""Views that come from record.json, and what of it each shows."""

VOLATILE = {
    "run": "run.json",
    "execution": "executions.parquet",
    "executed": "executions.parquet",
    "environment": "environments.json",
}
"""Views that gather one file of provenance/<stage>, which differs from run to run."""

READS = {
    "unit_edge": ("part", "unit", "unit_read"),
    "execution": ("execution", "run"),
    "stage_record": ("run", "stage_record"),
    **quality_views.READS,
}
"""Views that read other views, or more than their own file; all others read what they are called."""

BASE_OF = {
    f"{table}_{c.name}": table for table, found in COMPANIONS.items() for c in found if not isinstance(c, Adjacency)
}
"""Views of the rows of a table in another order -> that table."""

IMPORTED_READS = {"synapse": ("listed_synapse",), "link": ("listed_synapse", "connection")}
"""Views that an imported connectome has in the place of tables."""


@dataclass(frozen=True, order=True)
class Content:
    """What one table holds, or what one stage has put into a gathered view."""

    schema: str
    """`main`, or the name that was given to another revision."""
    table: str
    stage: str
    digest: str
    volatile: bool = False
    """True: it differs from run to run, as times and hosts do."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Which content this is, apart from what it is."""
        return self.schema, self.table, self.stage


def contents(root: Path, schema: str, tables: Iterable[str]) -> list[Content]:
    """The contents of these views of the project at `root`, sorted.

    Names of tables that are not there, and of none of ours, are left out: the query itself says what is missing.
    Raises QueryError when the rows of a table are not those that its stage's record names.
    """
    return sorted(Content(schema, *found) for table in _held_by(root, tables) for found in _of(root, table))


def files(root: Path, tables: Iterable[str]) -> dict[Path, tuple[int, int, int]]:
    """The files that these views read, with what changes when one is replaced: inode, size, time in ns."""
    found = {}
    for table in sorted(_held_by(root, tables)):
        for stage, path in _paths(root, table).items():
            for file in (path, *_companions(root, stage, table)):
                if file.is_file():
                    about = file.stat()
                    found[file] = (about.st_ino, about.st_size, about.st_mtime_ns)
    return found


def _held_by(root: Path, tables: Iterable[str]) -> set[str]:
    """The tables with files of their own that hold what these views show."""
    read = {name for table in tables for name in READS.get(BASE_OF.get(table, table), (BASE_OF.get(table, table),))}
    if "listing" in outputs_in(root):
        read = {name for table in read for name in IMPORTED_READS.get(table, (table,))}
    return read


def _companions(root: Path, stage: str, table: str) -> dict[Path, str]:
    """The files in which `finish` put the rows of a table in other orders -> the digest that the record gives them."""
    folder = root / "data" / stage
    if not COMPANIONS.get(table):
        return {}
    mine = tuple(f"{c.name}/" if isinstance(c, Adjacency) else f"{table}.{c.name}." for c in COMPANIONS[table])
    told: Mapping[str, str] = read_json(folder / "record.json").get("companions") or {}
    return {folder / name: sha for name, sha in told.items() if name.startswith(mine)}


def _paths(root: Path, table: str) -> Mapping[str, Path]:
    """Stage -> the file that holds its share of a view."""
    outputs = outputs_in(root)
    if file := LEDGERS.get(table) or ("record.json" if table in RECORDED else None):
        paths = {stage: root / "data" / stage / file for stage in outputs}
    elif file := VOLATILE.get(table):
        paths = {stage: root / "provenance" / stage / file for stage in outputs}
    else:
        made_by = [stage for stage, made in outputs.items() if table in {t.name for t in made}]
        paths = {stage: root / "data" / stage / f"{table}.parquet" for stage in made_by}
    return {stage: path for stage, path in paths.items() if path.is_file()}


def _of(root: Path, table: str) -> Iterator[tuple[str, str, str, bool]]:
    """(table, stage, digest, volatile) of each stage's share of a view."""
    for stage, path in _paths(root, table).items():
        if table in VOLATILE:
            yield table, stage, hashlib.sha256(path.read_bytes()).hexdigest(), True
        elif table in LEDGERS:
            yield table, stage, table_digest(_parquet(path)), False
        elif table in RECORDED:
            record = read_json(path)
            yield table, stage, digest(table, {name: record.get(name) for name in RECORDED[table]}), False
        else:
            yield table, stage, recorded(root, stage, table), False


def recorded(root: Path, stage: str, table: str) -> str:
    """The Merkle digest that a stage's record gives to a table, checked against the table's rows.

    Raises QueryError when the record, the list of parts and the rows do not agree.
    """
    folder = root / "data" / stage
    record: Mapping[str, Any] = read_json(folder / "record.json")
    parts = _parquet(folder / "parts.parquet")
    mine = parts.filter(pc.equal(parts["output"], table))
    told: str | None = record["outputs"].get(table)
    codes, digests = mine["unit"].to_numpy(), mine["digest"].to_pylist()
    if told is None or merkle(codes, digests) != told:
        raise _altered(folder / "parts.parquet", "record.json beside it", stage)
    path = folder / f"{table}.parquet"
    found, nothing = _by_unit(path, stage)
    wrong = [c for c, d in zip(codes.tolist(), digests, strict=True) if found.pop(c, nothing) != d]
    if wrong or found:
        raise _altered(path, f"parts.parquet beside it (unit {[*wrong, *found][0]})", stage)
    for copy, sha in _companions(root, stage, table).items():
        if not copy.is_file() or file_digest(copy) != sha:
            raise _altered(copy, "record.json", stage)
    return told


def _by_unit(path: Path, stage: str) -> tuple[dict[int, str], str]:
    """Unit -> digest of its rows, and the digest of no rows. Reads one row group at a time."""
    found: dict[int, str] = {}
    with _opened(path) as file:
        rows = file.schema_arrow.empty_table()
        nothing, last = table_digest(rows), -1
        for group in range(file.num_row_groups):
            rows = pa.concat_tables([rows, file.read_row_group(group)])
            unit = rows["unit"].to_numpy().astype(np.int64)  # ids are below 2**63
            if (np.diff(unit, prepend=last) < 0).any():
                raise _altered(path, "its order by unit", stage)
            first = np.flatnonzero(np.append(True, unit[1:] != unit[:-1]))[: len(unit)]
            edges = np.append(first, len(unit)).tolist()
            if len(unit) and group < file.num_row_groups - 1:
                edges = edges[:-1]  # the last unit may go on in the next row group
            done = unit[edges[:-1]].tolist()
            found.update(zip(done, slice_digests(rows, edges), strict=True))
            rows, last = rows.slice(edges[-1]), max([last, *done[-1:]])
    return found, nothing


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as e:
        raise QueryError(f"{path}: cannot be read ({e}); `connectome finish {path.parent.name}` makes it again") from e


def _parquet(path: Path) -> pa.Table:
    with _opened(path) as file:
        return file.read()


def _altered(path: Path, other: str, stage: str) -> QueryError:
    return QueryError(
        f"{path} is not what {other} says: a file was altered, so no receipt can be given for it. "
        f"`connectome finish {stage}` makes it again from the store"
    )
