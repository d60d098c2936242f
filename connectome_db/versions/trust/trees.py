"""A finished stage as it lies on disk, beside the two witnesses of it: the seal in the store and DVC's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids, ledger
from connectome_db.companions import file_digest, possible
from connectome_db.config import Project
from connectome_db.errors import RevisionError, StageError, StoreError
from connectome_db.geometry import Box, box_of
from connectome_db.ledger import Ledger
from connectome_db.revisions import cache_folder, cached, lock_outs
from connectome_db.spec import AnyStage, Kind, Rows, Unit, Volume
from connectome_db.volumes import VolumeLayout
from connectome_db.volumes import layout as lay_out

RECORDS = ("record.json", "units.parquet", "reads.parquet", "parts.parquet")
BOX = ("z0", "y0", "x0", "z1", "y1", "x1")


def read(path: Path) -> bytes | None:
    """The bytes of a file; None when there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def relative(project: Project, path: Path) -> str:
    """A path below the project as reports show it; another one in full."""
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path)


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    """Hex MD5, by which DVC names files."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def file_md5(path: Path) -> str:
    """Hex MD5 of a file of any size."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True)
class Committed:
    """What DVC's cache holds of one output that dvc.lock names: file -> MD5."""

    cache: Path
    listing: Path
    files: Mapping[str, str]

    def path(self, name: str) -> Path | None:
        """Where the cache holds a file of the output."""
        return cached(self.cache, self.files[name]) if name in self.files else None

    def good(self, name: str) -> bytes | None:
        """Its bytes, when they still have the MD5 they are named by."""
        path = self.path(name)
        data = read(path) if path else None
        return data if data is not None and md5(data) == self.files[name] else None


def locked_outs(project: Path) -> Mapping[str, str]:
    """Outputs that the dvc.lock in the working tree names; none without one."""
    lock = read(project / "dvc.lock")
    try:
        return lock_outs(lock.decode(), "dvc.lock") if lock else {}
    except (RevisionError, UnicodeDecodeError):
        return {}


def listing_path(project: Path, outs: Mapping[str, str], out: str) -> Path | None:
    """Where DVC's cache holds the list of files of an output; None when it is not committed."""
    if not outs.get(out, "").endswith(".dir"):
        return None
    try:
        return cached(cache_folder(project), outs[out])
    except RevisionError:
        return None


def committed(project: Path, outs: Mapping[str, str], out: str) -> Committed | None:
    """An output as dvc.lock names it; None when it is not committed or its listing is not whole."""
    path = listing_path(project, outs, out)
    data = read(path) if path else None
    if path is None or data is None or md5(data) != outs[out].removesuffix(".dir"):
        return None
    return Committed(cache_folder(project), path, {e["relpath"]: e["md5"] for e in json.loads(data)})


@dataclass(frozen=True)
class Units:
    """units.parquet as arrays, ascending by code."""

    kind: Kind
    codes: npt.NDArray[np.uint64]
    cores: npt.NDArray[np.int64]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def core(self, i: int) -> Box:
        """Core box of a unit."""
        return box_of(self.cores[i])

    def title(self, i: int) -> str:
        """How a unit is called."""
        return title(self.kind, int(self.codes[i]))


def title(kind: str, code: int) -> str:
    """How a unit of a kind is called."""
    pos, axis = ids.unpack(np.uint64(code))
    z, y, x = (int(v) for v in pos[0])
    known: Kind = kind if kind in ("sections", "pairs", "faces", "once") else "blocks"  # type: ignore[assignment]
    return str(Unit(known, code, (z, y, x), int(axis[0]), Box((0, 0, 0), (0, 0, 0)), ()))


def parse_units(data: bytes) -> Units:
    """Read units.parquet. Raises StoreError when it is not one."""
    try:
        table = pq.read_table(pa.BufferReader(data))
        cores = np.stack([table[f"core_{c}"].to_numpy() for c in BOX], axis=1).astype(np.int64)
        kind = table["kind"][0].as_py()
        return Units(kind, table["unit"].to_numpy().astype(np.uint64), cores, table["unit_key"].to_pylist())
    except (pa.ArrowException, KeyError, IndexError, ValueError, OSError) as e:
        raise StoreError(f"units.parquet cannot be read: {e}") from e


@dataclass(frozen=True)
class Tree:
    """`data/<stage>` with what vouches for it.

    `found` has the SHA-256 of every file that is not a chunk (tables only where they were hashed). `ledger` is the seal
    that fits it best; `dvc` is what dvc.lock names, when that is this tree and not another version of it.
    """

    project: Project
    stage: AnyStage
    found: Mapping[str, str]
    ledger: Ledger | None
    dvc: Committed | None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def folder(self) -> Path:
        """`data/<stage>`."""
        return self.project.data(self.name)

    @property
    def tables(self) -> list[Rows]:
        """Table outputs."""
        return [o for o in self.stage.outputs if isinstance(o, Rows)]

    @property
    def volumes(self) -> list[Volume]:
        """Volume outputs."""
        return [o for o in self.stage.outputs if isinstance(o, Volume)]

    @property
    def expected(self) -> list[str]:
        """Files that belong there and are no chunks."""
        tables = (f"{o.name}.parquet" for o in self.tables)
        return [*RECORDS, *tables, *(f"{o.name}/info" for o in self.volumes), *self.companions]

    @cached_property
    def companions(self) -> Mapping[str, str]:
        """Files of companions that belong there -> their SHA-256 as recorded ("" where no record says it)."""
        if self.record is not None:
            return {str(n): str(d) for n, d in (self.record.get("companions") or {}).items()}
        sealed = self.ledger.files if self.ledger is not None else {}
        return {n: sealed.get(n, "") for n in possible(self.stage.outputs) if n in sealed or (self.folder / n).exists()}

    def relative(self, path: Path) -> str:
        """A path as reports show it."""
        return relative(self.project, path)

    def vouched(self, name: str) -> bool | None:
        """True when a file is as it was sealed (or, without a seal, committed), False when not, None when unknown."""
        if name not in self.found:
            return False if not (self.folder / name).exists() else None
        if self.ledger is not None and name in self.ledger.files:
            return self.found[name] == self.ledger.files[name]
        if self.dvc is not None and name in self.dvc.files:
            return file_md5(self.folder / name) == self.dvc.files[name]
        return None

    def good(self, name: str) -> bytes | None:
        """A small file's bytes as they should be: from data/ when nothing speaks against it, else from a witness."""
        if self.vouched(name) is not False:
            return read(self.folder / name)
        return self.witness(name)

    def witness(self, name: str) -> bytes | None:
        """The bytes of a small file as the ledger or DVC's cache has them; None when neither can say."""
        if self.ledger is not None and name == "units.parquet" and self.ledger.whole:
            return read(self.ledger.units)
        data = self.dvc.good(name) if self.dvc else None
        if data is not None and self.ledger is not None and sha256(data) != self.ledger.files.get(name):
            return None
        return data

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """record.json as it should be; None when no whole copy is left."""
        data = self.good("record.json")
        try:
            found = json.loads(data) if data else None
        except ValueError:
            return None
        sound = isinstance(found, dict) and all(isinstance(found.get(k), dict) for k in ("inputs", "outputs"))
        return found if sound else None

    @cached_property
    def units(self) -> Units | None:
        """units.parquet as it should be; None when no whole copy is left."""
        data = self.good("units.parquet")
        try:
            return parse_units(data) if data else None
        except StoreError:
            return None

    @cached_property
    def parts(self) -> pa.Table | None:
        """parts.parquet as it should be; None when no whole copy is left."""
        data = self.good("parts.parquet")
        try:
            return pq.read_table(pa.BufferReader(data)) if data else None
        except (pa.ArrowException, OSError):
            return None

    @cached_property
    def layouts(self) -> Mapping[str, VolumeLayout]:
        """How each volume lies on disk, from record.json."""
        r = self.record
        if r is None or not self.volumes:
            return {}
        try:
            (z, y, x), (a, b, c) = r["block_vx"], r["voxel_nm"]
            return {o.name: lay_out(o, box_of(r["bounds"]), (z, y, x), (a, b, c)) for o in self.volumes}
        except (KeyError, TypeError, ValueError, StageError):
            return {}

    def chunk_files(self) -> Iterator[str]:
        """Every file below the folders of data/<stage>, `info` of a volume excepted."""
        infos = {f"{o.name}/info" for o in self.volumes} | set(self.companions)
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if "/" in name and name not in infos and not path.is_dir():
                yield name


def open_tree(project: Project, stage: AnyStage, outs: Mapping[str, str], *, hash_tables: bool = True) -> Tree:
    """Look at data/<stage> and find the seal and the committed version that it is one of."""
    folder = project.data(stage.name)
    tables = {f"{o.name}.parquet" for o in stage.outputs if isinstance(o, Rows)} | set(possible(stage.outputs))
    names = {str(p.relative_to(folder)): p for p in ledger.small_paths(folder)}
    found = {n: file_digest(p) for n, p in names.items() if hash_tables or n not in tables}
    notes: list[str] = []
    run = _run_id(project.provenance(stage.name))
    fitting = [x for x in sound_ledgers(project.store, stage.name) if _is_seal_of(x, found, run)]
    best = max(fitting, key=lambda x: (sum(found.get(n) == d for n, d in x.files.items()), run in x.runs), default=None)
    if best is None:
        notes.append("no whole seal in the store fits it: it was finished elsewhere, or before there were seals")
    tree = Tree(project, stage, found, best, None, notes)
    dvc = committed(project.root, outs, f"data/{stage.name}")
    if dvc is not None and _is_of(dvc, tree):
        tree = replace(tree, dvc=dvc)
    elif dvc is not None:
        notes.append("dvc.lock names other records than it has (another version, or not committed): DVC is no witness")
    elif f"data/{stage.name}" in outs:
        notes.append("DVC's cache has no list of its files (that is whole): DVC is no witness")
    return tree


def sound_ledgers(store: Path, stage: str) -> list[Ledger]:
    """Ledgers of a stage whose seals were not altered."""
    found = []
    for folder in ledger.folders(store, stage):
        try:
            found.append(ledger.read_ledger(folder))
        except StoreError:
            continue  # reported where ledgers are checked
    return [x for x in found if x.sealed]


def _is_seal_of(one: Ledger, found: Mapping[str, str], run: str) -> bool:
    """True when most of what tells versions apart is as sealed; damage to one file does not make it another tree."""
    same = [n for n in ("record.json", "units.parquet", "parts.parquet") if found.get(n) == one.files.get(n)]
    return len(same) >= 2 or (bool(same) and run in one.runs)


def _run_id(provenance: Path) -> str:
    try:
        return str(json.loads((provenance / "run.json").read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_of(dvc: Committed, tree: Tree) -> bool:
    """True when what is committed is this tree: by the seal where there is one, else by most of its records."""
    if tree.ledger is not None:
        sealed = [(tree.ledger.files.get(n), data) for n in RECORDS if (data := dvc.good(n)) is not None]
        same = [wanted == sha256(data) for wanted, data in sealed]
        return bool(same) and all(same)
    here = [n for n in RECORDS if (data := read(tree.folder / n)) is not None and md5(data) == dvc.files.get(n)]
    return len(here) >= len(RECORDS) / 2
