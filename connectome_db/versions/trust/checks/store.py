"""The store and DVC's cache beyond what data/ holds now: units of other versions, environments, leftovers, strays."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from connectome_db import ledger
from connectome_db.config import Project
from connectome_db.errors import RevisionError, StageError, StoreError
from connectome_db.geometry import Box
from connectome_db.provenance import table_digest
from connectome_db.revisions import cache_folder
from connectome_db.spec import AnyStage, Volume
from connectome_db.store import Output, Record, Store, parse_record
from connectome_db.unitfiles import ROWS, as_recorded, blob_name, unpack_rows
from connectome_db.versions.trust.checks.provenance import records_of
from connectome_db.versions.trust.checks.records import bad_shards
from connectome_db.versions.trust.findings import Checked, Place, Problem
from connectome_db.versions.trust.trees import Tree, file_md5, open_tree, parse_units, read, relative, title

KNOWN = ("keys", "shards", "blobs", "environments", "ledgers", "tmp")
"""Folders of a store."""


def check_store(
    project: Project, stages: Sequence[AnyStage], outs: Mapping[str, str], told: Collection[str]
) -> Checked:
    """What the store has of these stages beyond the units of data/, and all of DVC's cache.

    Files in `told` were reported before. Units of data/, and blobs that they share with others, are left to the check
    of their stage: what belongs to no unit of data/ may be dropped, and these may not.
    """
    clock, done = time.perf_counter(), Checked("store")
    store = Store(project.store)
    named: set[str] = set()
    environments: set[str] = set()
    for stage in stages:
        place = _Places(project, stage, outs)
        records = records_of(store, stage.name, sorted(place.live)).values()
        live = {o.blob for r in records for o in r.outputs.values()}
        environments |= {str(r.execution.get("environment")) for r in records}
        named |= live
        bad = bad_shards(store, stage.name)
        known = store.entries(stage.name, sorted(_keys(store, stage.name, bad) - place.live), bad)
        check = partial(_check_entry, project, stage, place, live)
        with ThreadPoolExecutor() as pool:
            for problems, blobs, environment in pool.map(check, known):
                done.units += 1
                done.problems += problems
                named |= blobs
                environments |= environment
        if place.guessed:
            done.note(f"{place.guessed} volumes of other versions of {stage.name} were checked by size, not decoded")
    done.problems += _environments(project, store, environments) + _strays(project, store) + _cache(project)
    orphans = [p.name for p in (store.root / "blobs").glob("??/*") if p.name not in named]
    if orphans and len(stages) == len(project.stages):
        done.note(f"{len(orphans)} blobs belong to no record (`connectome gc` removes what no kept version needs)")
    leftovers = list((store.root / "tmp").glob("*"))
    if leftovers:
        done.note(f"{len(leftovers)} leftovers of killed runs in {store.root / 'tmp'} (`connectome gc` removes them)")
    done.problems = [p for p in done.problems if p.path not in told]
    done.decoded = done.units
    done.seconds = round(time.perf_counter() - clock, 3)
    return done


def _keys(store: Store, stage: str, bad: Sequence[Path]) -> set[str]:
    folder = store.root / "keys" / stage
    keys = {n.removesuffix(".json") for n in os.listdir(folder) if n.endswith(".json")} if folder.is_dir() else set()
    for shard in sorted((store.root / "shards" / stage).glob("*.parquet")):
        if shard not in bad:
            keys |= set(pq.read_table(shard, columns=["key"])["key"].to_pylist())
    return keys


class _Places:
    """Keys of the units of data/; core boxes of all units that any ledger names, and the volumes' layout now."""

    def __init__(self, project: Project, stage: AnyStage, outs: Mapping[str, str]) -> None:
        self.guessed = 0
        self.kind = "blocks"
        self._cores: dict[str, Box] = {}
        self._tree: Tree | None = None
        if project.data(stage.name).is_dir():
            self._tree = open_tree(project, stage, outs, hash_tables=False)
        units = self._tree.units if self._tree else None
        self.live = set(units.keys) if units else set()
        for folder in ledger.folders(project.store, stage.name):
            try:
                units = parse_units(read(folder / "units.parquet") or b"")
            except StoreError:
                continue
            self._cores |= {k: units.core(i) for i, k in enumerate(units.keys)}

    def whole(self, store: Store, record: Record, name: str, out: Output) -> bool:
        """Decode a volume's blob where its place is known, which its name confirms; else count it as guessed."""
        core, layout = self._cores.get(record.key), self._tree.layouts.get(name) if self._tree else None
        if core is None or layout is None or blob_name(out.digest, layout, core) != out.blob:
            self.guessed += 1
            return True
        files = {n: read(store.blob(out.blob) / n) or b"" for n, _ in out.files}
        try:
            return as_recorded(files, out.digest, layout, core)
        except StageError:  # the volume had other bounds then
            self.guessed += 1
            return True


def _check_entry(
    project: Project, stage: AnyStage, places: _Places, live: set[str], entry: tuple[str, str, Path]
) -> tuple[list[Problem], set[str], set[str]]:
    """Problems of a record and its blobs, the blobs that it names, and its environment."""
    key, text, path = entry
    where, store = relative(project, path), Store(project.store)
    try:
        record = parse_record(text)
        if record.key != key:
            raise StoreError(f"it says it is of key {record.key}")
    except StoreError as e:
        return (
            [Problem(stage.name, "edited record", where, "spare", "a record of its key", str(e), key=key)],
            set(),
            set(),
        )
    out: list[Problem] = []
    volumes = {o.name for o in stage.outputs if isinstance(o, Volume)}
    for name, o in record.outputs.items():
        if o.blob in live:
            continue
        blob = store.blob(o.blob)
        found = store.damage(o.blob, o.files)
        if not found and name in volumes and not places.whole(store, record, name, o):
            found = "it decodes to another content"
        if not found and name not in volumes:
            try:
                digest = table_digest(unpack_rows(read(blob / ROWS) or b""))
            except StoreError as e:
                digest = str(e)
            found = "" if digest == o.digest == o.blob else f"content {digest}"
        if found:
            row = Problem(
                stage.name, "damaged unit", relative(project, blob), "spare", f"content {o.digest}", found,
                title(places.kind, record.unit), record.unit, name, key,
            )  # fmt: skip
            out.append(row)
    return out, {o.blob for o in record.outputs.values()}, {str(record.execution.get("environment"))}


def _problem(project: Project, what: str, path: Path, place: Place, wanted: str, found: str) -> Problem:
    return Problem("store", what, relative(project, path), place, wanted, found)


def _environments(project: Project, store: Store, named: set[str]) -> list[Problem]:
    """Facts of environments against the digest they are named by; those that records name must be there."""
    folder = store.root / "environments"
    there = {p.stem: p for p in sorted(folder.glob("*.json"))}
    gone = sorted(folder / f"{n}.json" for n in named - there.keys())
    out = [_problem(project, "missing record", p, "environment", "named by unit records", "nothing") for p in gone]
    for path in there.values():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        if digest != path.stem:
            out.append(_problem(project, "edited record", path, "environment", f"sha256 {path.stem}…", f"{digest}…"))
    return out


def _strays(project: Project, store: Store) -> list[Problem]:
    strays = [p for p in sorted(store.root.iterdir()) if p.name not in KNOWN]
    strays += [
        p for p in sorted((store.root / "blobs").glob("*/*")) if len(p.name) != 64 or p.name[:2] != p.parent.name
    ]
    return [_problem(project, "foreign file", p, "foreign", "", "nothing of a store") for p in strays]


def _cache(project: Project) -> list[Problem]:
    """Every object of DVC's cache against the MD5 it is named by."""
    try:
        cache = cache_folder(project.root)
    except RevisionError:
        return []
    out = []
    with ThreadPoolExecutor() as pool:
        for path, found in pool.map(_hashed, _objects(cache)):
            wanted = path.parent.name + path.name.removesuffix(".dir")
            if found != wanted:
                out.append(_problem(project, "damaged copy", path, "cache", f"md5 {wanted}", f"md5 {found}"))
    return out


def _objects(cache: Path) -> Iterator[Path]:
    for folder in sorted(cache.glob("??")):
        yield from sorted(p for p in folder.iterdir() if not p.name.endswith(".unpacked"))


def _hashed(path: Path) -> tuple[Path, str]:
    return path, file_md5(path)
