"""provenance/<stage> against its seal, DVC's cache of both outputs against its own names, and raw tiles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.companions import file_digest
from connectome_db.errors import ConnectomeError, StoreError
from connectome_db.inputs import open_manifest
from connectome_db.store import Record, Store, parse_record
from connectome_db.versions.trust.checks.bench import Rows
from connectome_db.versions.trust.checks.differences import json_differences, table_differences, told
from connectome_db.versions.trust.checks.records import bad_shards, problem
from connectome_db.versions.trust.findings import OTHERWISE, Checked, Problem
from connectome_db.versions.trust.trees import Committed, Tree, committed, listing_path, md5, read, sha256

EXECUTIONS = "executions.parquet"


@dataclass(frozen=True)
class Provenance:
    """provenance/<stage> as it lies there, beside its seal and what DVC has of it."""

    folder: Path
    found: Mapping[str, str]
    seal: Mapping[str, str] | None
    seal_path: Path | None
    dvc: Committed | None

    def vouched(self, name: str) -> bool | None:
        """True when a file is as sealed or as committed, False when as neither, None when nothing is known of it."""
        if name not in self.found:
            return False
        says = []
        if self.seal is not None and name in self.seal:
            says.append(self.found[name] == self.seal[name])
        if self.dvc is not None and name in self.dvc.files:
            says.append(md5((self.folder / name).read_bytes()) == self.dvc.files[name])
        return any(says) if says else None

    def witness(self, name: str) -> bytes | None:
        """The bytes of a file as DVC's cache has them, unless the seal speaks against them."""
        data = self.dvc.good(name) if self.dvc else None
        sealed = self.seal.get(name) if self.seal else None
        return None if data is not None and sealed not in (None, sha256(data)) else data

    @property
    def expected(self) -> list[str]:
        """Files that belong there."""
        if self.seal is not None or self.dvc is not None:
            return sorted(self.seal if self.seal is not None else self.dvc.files if self.dvc else ())
        return ["environments.json", EXECUTIONS, "run.json", *(["diff.patch"] if "diff.patch" in self.found else [])]


def open_provenance(tree: Tree, outs: Mapping[str, str]) -> Provenance:
    """Look at provenance/<stage> and find the run that sealed it."""
    folder = tree.project.provenance(tree.name)
    paths = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    found = {p.name: file_digest(p) for p in paths}
    seal, seal_path = None, None
    for run in tree.ledger.runs if tree.ledger else ():
        try:
            one = tree.ledger.provenance(run) if tree.ledger else None
        except StoreError:
            continue
        if tree.ledger and not tree.ledger.provenance_whole(run):
            continue  # reported where ledgers are checked
        # Runs of one tree may share environments.json; what they did themselves tells them apart.
        fits = any(one.get(n) == found.get(n) for n in ("run.json", EXECUTIONS)) if one else False
        if one and tree.ledger and fits and (seal is None or _agree(one, found) > _agree(seal, found)):
            seal, seal_path = one, tree.ledger.folder / f"provenance-{run}.json"
    dvc = committed(tree.project.root, outs, f"provenance/{tree.name}") if tree.dvc else None
    if dvc is not None and seal is not None:
        kept = {n: sha256(data) for n in ("run.json", EXECUTIONS) if (data := dvc.good(n)) is not None}
        # As committed by another run of the same data: a witness of that run, not of this one.
        dvc = dvc if not kept or _agree(seal, kept) else None
    return Provenance(folder, found, seal, seal_path, dvc)


def _agree(seal: Mapping[str, str], found: Mapping[str, str]) -> int:
    return sum(seal.get(n) == d for n, d in found.items())


def check_provenance(tree: Tree, there: Provenance, done: Checked) -> list[Problem]:
    """Every file of provenance/<stage> against its seal; a seal that DVC and the file contradict is itself at fault."""
    if not there.folder.is_dir():
        return [problem(tree, "missing record", there.folder, "provenance", found="nothing")]
    if there.seal is None:
        witness = "as committed to DVC" if there.dvc else "with the store's records alone"
        done.note(f"no whole seal of provenance/ fits: who and when were compared {witness}")
    out = []
    for name in there.expected:
        path = there.folder / name
        if name not in there.found:
            out.append(problem(tree, "missing record", path, "provenance", found="nothing"))
        elif there.vouched(name) is False:
            wanted, found = _detail(tree, there, name)
            out.append(problem(tree, "edited record", path, "provenance", wanted, found))
    if there.seal is not None and there.seal_path is not None:
        wrong = [n for n, d in there.seal.items() if there.vouched(n) and there.found[n] != d]
        if wrong:
            found = f"other digests of {', '.join(wrong)} than the files have, which are as committed"
            out.append(problem(tree, "edited record", there.seal_path, "ledger", "digests of provenance/", found))
    for path in sorted(p for p in there.folder.rglob("*") if not p.is_dir()):
        if str(path.relative_to(there.folder)) not in there.expected:
            out.append(problem(tree, "foreign file", path, "foreign", found=f"{path.lstat().st_size} bytes"))
    return out


def _detail(tree: Tree, there: Provenance, name: str) -> tuple[str, str]:
    data, right = read(there.folder / name) or b"", there.witness(name)
    digest = (there.seal or {}).get(name)
    plain = (f"sha256 {digest}" if digest else "as committed", f"sha256 {there.found[name]}")
    try:
        if name == EXECUTIONS:
            table = pq.read_table(pa.BufferReader(data))
            wanted, found = told(_other_executions(tree, table, right))
        elif right is not None and name.endswith(".json"):
            wanted, found = told(json_differences(json.loads(right), json.loads(data)))
        else:
            return plain
    except (pa.ArrowException, OSError, ValueError):
        return plain[0], f"{len(data)} bytes that cannot be read"
    return (wanted, found) if wanted or found else plain


def _other_executions(tree: Tree, table: pa.Table, right: bytes | None) -> Iterator[tuple[str, str, str]]:
    if right is not None:
        yield from table_differences(pq.read_table(pa.BufferReader(right)), table)
        return
    store = Store(tree.project.store)
    records = records_of(store, tree.name, table["unit_key"].to_pylist())
    for row in table.to_pylist():
        record = records.get(row["unit_key"])
        for field in row if record else ():
            was = record.execution.get(field, row[field]) if record else None
            if was != row[field]:
                yield f"unit {row['unit']}: {field}", str(was), str(row[field])


def records_of(store: Store, stage: str, keys: Sequence[str]) -> dict[str, Record]:
    """Sound records of those keys, whatever else is damaged."""
    out = {}
    for key, text, _ in store.entries(stage, keys, bad_shards(store, stage)):
        try:
            out[key] = parse_record(text)
        except StoreError:
            continue
    return out


def executions(tree: Tree, there: Provenance, done: Checked) -> Rows | None:
    """Rows of executions.parquet in the order of the units; None when the file is not sound or of other units."""
    data = read(there.folder / EXECUTIONS) if there.vouched(EXECUTIONS) is not False else there.witness(EXECUTIONS)
    units = tree.units
    if data is None or units is None:
        return None
    try:
        table = pq.read_table(pa.BufferReader(data))
        same = np.array_equal(table["unit"].to_numpy(), units.codes) and table["unit_key"].to_pylist() == units.keys
    except (pa.ArrowException, KeyError, OSError):
        return None
    if not same:
        done.problems.append(
            problem(tree, "stale", there.folder / EXECUTIONS, "stale", "the units of data/", "units of another version")
        )
    return Rows(table) if same else None


def check_cache(tree: Tree, outs: Mapping[str, str], there: Provenance) -> list[Problem]:
    """What DVC's cache has of both outputs, chunks excepted: every object must have the MD5 it is named by."""
    out = []
    for name, dvc in ((f"data/{tree.name}", tree.dvc), (f"provenance/{tree.name}", there.dvc)):
        listing = listing_path(tree.project.root, outs, name)
        data = read(listing) if listing else None
        if listing is not None and data is not None and md5(data) != outs[name].removesuffix(".dir"):
            wanted = f"md5 {outs[name].removesuffix('.dir')}"
            out.append(problem(tree, "edited record", listing, "cache", wanted, f"md5 {md5(data)}"))
        small = [n for n in (dvc.files if dvc else ()) if name.startswith("provenance/") or n in tree.expected]
        for file in small:
            path = dvc.path(file) if dvc else None
            data = read(path) if path else None
            if path is None or dvc is None or data is None:
                continue
            if md5(data) != dvc.files[file]:
                row = problem(tree, "damaged copy", path, "cache", f"md5 {dvc.files[file]}", f"md5 {md5(data)}")
                out.append(row)
            elif name.startswith("data/") and tree.ledger and tree.ledger.files.get(file, "") != sha256(data):
                wanted, found = f"sha256 {tree.ledger.files.get(file)}", f"sha256 {sha256(data)} in DVC's cache"
                out.append(problem(tree, OTHERWISE, tree.folder / file, "lock", wanted, found))
    return out


def check_raw(tree: Tree, chosen: set[int] | None) -> list[Problem]:
    """Raw tiles that the table `tile` names, read and hashed again; `chosen`: of these sections only. Never written."""
    path = tree.folder / "tile.parquet"
    if "tile" not in {o.name for o in tree.tables} or tree.vouched("tile.parquet") is False:
        return []
    try:
        table = pq.ParquetFile(path).read(columns=["section", "tile", "sha256"])
        root = open_manifest(tree.project).root
    except (pa.ArrowException, OSError, ConnectomeError):
        return []
    rows = [r for r in table.to_pylist() if chosen is None or r["section"] in chosen]

    def digest(row: Mapping[str, Any]) -> str | None:
        data = read(root / row["tile"])
        return None if data is None else hashlib.sha256(data).hexdigest()

    out = []
    with ThreadPoolExecutor() as pool:
        for row, found in zip(rows, pool.map(digest, rows), strict=True):
            if found != row["sha256"]:
                what = "missing tile" if found is None else "changed tile"
                file = (root / row["tile"]).absolute()
                digests = (f"sha256 {row['sha256']}", f"sha256 {found}" if found else "nothing")
                one = problem(tree, what, file, "raw", *digests)
                out.append(replace(one, unit=f"section {row['section']}"))
    return out
