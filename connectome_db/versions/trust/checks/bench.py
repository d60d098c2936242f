"""What checking a unit needs and gives; shared by the checks of tables and of chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectome_db.environment import packages
from connectome_db.errors import StoreError
from connectome_db.store import Output, Store
from connectome_db.versions.trust.findings import Place, Problem
from connectome_db.versions.trust.trees import Tree, Units, read

ENCODER = "compressed_segmentation"
Difference = tuple[str, str, str]
"""A field of a store record, what it should be, and what it is."""
Entry = tuple[str, Path]
"""The text of a store record, and the file that holds it."""


class Values:
    """A column of texts that is not copied into a Python list: a stage may have a million units."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column.combine_chunks()

    def __getitem__(self, i: int) -> str:
        return str(self._column[i].as_py())


class Rows:
    """Rows of a table, each made when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: table[name].combine_chunks() for name in table.column_names}

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: column[i].as_py() for name, column in self._columns.items()}


@dataclass(frozen=True)
class Bench:
    """What is needed to check any unit of a stage.

    `wanted` has per output the content digests of all units in order, or nothing when no sound copy of them is left;
    `in_data` has per table those of the rows that data/ holds ("" where they were not read); `executions` has the rows
    of executions.parquet in order, or nothing when that is not sound.
    """

    tree: Tree
    units: Units
    store: Store
    wanted: Mapping[str, Values | list[str]]
    in_data: Mapping[str, list[str]]
    executions: Rows | None

    @property
    def folder(self) -> Path:
        """`data/<stage>`."""
        return self.tree.folder

    def same_encoder(self, environment: str) -> bool:
        """False when a unit was made with another version of the library that encodes labels."""
        try:
            then = self.store.environment(environment)["packages"].get(ENCODER)
        except (StoreError, KeyError, AttributeError, ValueError):
            return True
        return bool(then == packages().get(ENCODER))

    def problem(
        self, i: int, what: str, path: Path, place: Place, *, wanted: str = "", found: str = "", output: str = "",
        digests: tuple[str, str] | None = None,
    ) -> Problem:  # fmt: skip
        """A problem of the `i`-th unit."""
        return Problem(
            self.tree.name, what, self.tree.relative(path), place, wanted=wanted, found=found, output=output,
            unit=self.units.title(i), code=int(self.units.codes[i]), digests=digests,
        )  # fmt: skip


@dataclass
class UnitChecked:
    """What came of one unit: problems, the files that belong into each volume, and how much was read.

    `parts_wrong`: outputs whose digest in parts.parquet is contradicted by record and blob alike, and theirs.
    `altered`: the record's checksum does not fit. `unchecked`: it has none. `remade`: it tells of a later execution
    than provenance/. `reencoded`: chunks hold the right voxels, encoded by another version of a library.
    """

    problems: list[Problem] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    parts_wrong: dict[str, str] = field(default_factory=dict)
    remade: bool = False
    unchecked: bool = False
    altered: bool = False
    reencoded: bool = False
    made_in: str = ""
    bytes_read: int = 0
    count: int = 0


class Reader:
    """Reads each file once, whatever it is called: hard links share their bytes."""

    def __init__(self, done: UnitChecked) -> None:
        self._held: dict[tuple[int, int], bytes] = {}
        self._done = done

    def __call__(self, path: Path) -> bytes | None:
        """The bytes of a file; None when there is none."""
        try:
            s = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._done.count += 1
        key = (s.st_dev, s.st_ino)
        if key not in self._held:
            data = read(path)
            if data is None:
                return None
            self._held[key] = data
            self._done.bytes_read += len(data)
        return self._held[key]


def choose(
    bench: Bench, i: int, name: str, known: Output | None, done: UnitChecked,
    decoded: Callable[[str], str | None], in_data: Callable[[], str | None],
) -> tuple[str | None, list[Difference]]:  # fmt: skip
    """The digest that the unit's output has, and the record's difference from it.

    parts.parquet says it and the store's record; where they disagree, what data/ and the store's blob hold decides.
    `decoded` gives what the blob of a digest decodes to, `in_data` what data/ has.
    """
    wanted = bench.wanted[name][i] if name in bench.wanted else None
    if known is None or wanted is None or known.digest == wanted:
        return wanted or (known.digest if known else None), []
    there = in_data()
    genuine = decoded(known.digest) == known.digest and not (done.altered or bench.tree.vouched("parts.parquet"))
    if there == known.digest or (there != wanted and genuine):
        done.parts_wrong[name] = known.digest
        return known.digest, []
    again = " (the unit was made again, with another result)" if done.remade else ""
    return wanted, [(f"outputs.{name}.digest", wanted, known.digest + again)]


def sizes(bench: Bench, i: int, name: str, known: Output, done: UnitChecked) -> list[Problem]:
    """Without reading: is every file of a blob there with its size?"""
    done.count += len(known.files)
    found = bench.store.damage(known.blob, known.files)
    if not found:
        return []
    what = "missing file" if found.endswith("missing") else "damaged file"
    return [bench.problem(i, what, bench.store.blob(known.blob), "blob", found=found, output=name)]


def extra_files(bench: Bench, i: int, folder: Path, names: Sequence[str]) -> list[Problem]:
    """Files in a unit's blob that are none of its own."""
    known = set(names)
    files = [p for p in sorted(folder.rglob("*")) if not p.is_dir() and str(p.relative_to(folder)) not in known]
    return [bench.problem(i, "foreign file", p, "foreign", found=f"{p.lstat().st_size} bytes") for p in files]
