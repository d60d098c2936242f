"""Mend units in the store: take their files from where they are whole, or compute them again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectome_db import runner, tables, volumes
from connectome_db.errors import ConnectomeError, StoreError
from connectome_db.prepare import Prepared
from connectome_db.provenance import table_digest
from connectome_db.spec import Rows, Volume
from connectome_db.store import Output, Record, Store, parse_record
from connectome_db.unitfiles import ROWS, as_recorded, blob_name, pack_stamped
from connectome_db.versions.trust.checks.bench import Bench, Reader, UnitChecked
from connectome_db.versions.trust.checks.chunks import PLACES, Source
from connectome_db.versions.trust.checks.units import EXECUTION
from connectome_db.versions.trust.rederive import scratch
from connectome_db.versions.trust.trees import Tree, md5, read


@dataclass(frozen=True)
class Mended:
    """One file or unit that was repaired, and how; `failed` says why it could not be."""

    stage: str
    what: str
    how: str
    failed: bool = False


def compute_again(prepared: Prepared, indices: Sequence[int], wanted: Mapping[int, Mapping[str, str]]) -> list[Record]:
    """Compute units in a store of their own and bring what has the wanted content digests into the project's.

    `wanted` has, per unit and output, the digest. Returns the new records; units that came out otherwise have none.
    """
    store, good = Store(prepared.project.store), []
    with scratch(prepared.project) as aside:
        run_id = uuid.uuid4().hex[:16]
        there = Prepared(**{**vars(prepared), "project": aside})
        runner.compute_units(there, indices, run_id=run_id, executor="serial", workers=1)
        other = Store(aside.store)
        made = other.lookup(prepared.stage.name, [prepared.keys[i] for i in indices])
        for i in indices:
            record = made[prepared.keys[i]]
            if any(record.outputs[n].digest != d for n, d in wanted[i].items()):
                continue
            for out in record.outputs.values():
                store.discard(out.blob)
                store.put_blob(out.blob, {n: (other.blob(out.blob) / n).read_bytes() for n, _ in out.files})
            store.put_environment(other.environment(record.execution["environment"]))
            good.append(record)
    return good


class UnitMender:
    """Mends units of one stage. `prepared` is None when the stage cannot be planned again from its record."""

    def __init__(self, bench: Bench, prepared: Prepared | None, why_not: str) -> None:
        self.bench, self.prepared, self.why_not = bench, prepared, why_not
        self.tree: Tree = bench.tree
        self.store = bench.store
        self._again: list[int] = []

    def mend(self, indices: Sequence[int]) -> list[Mended]:
        """Restore the blobs and records of units."""
        out = []
        for i in indices:
            how = self._restore(i)
            if how:
                out.append(Mended(self.tree.name, self.bench.units.title(i), how))
            else:
                self._again.append(i)
        return out + self._compute()

    def _digest(self, i: int, name: str, record: Record | None) -> str | None:
        if name in self.bench.wanted:
            return self.bench.wanted[name][i]
        return record.outputs[name].digest if record and name in record.outputs else None

    def _sound_record(self, i: int) -> Record | None:
        """The unit's record, when its checksum and its execution speak for it."""
        for _, text, _ in self.store.entries(self.tree.name, [self.bench.units.keys[i]]):
            try:
                record = parse_record(text)
            except StoreError:
                return None
            rows = self.bench.executions
            same = rows is None or all(record.execution.get(f) == rows[i][f] for f in EXECUTION)
            later = rows is not None and record.execution.get("run_id") != rows[i]["run_id"]
            return record if same or later else None
        return None

    def _restore(self, i: int) -> str:
        """Blobs from where they are whole, and the record from provenance; "" when something must be computed."""
        record, outputs, sources = self._sound_record(i), {}, []
        for o in self.tree.stage.outputs:
            digest = self._digest(i, o.name, record)
            if digest is None:
                return ""
            found = self._volume(i, o, digest) if isinstance(o, Volume) else self._rows(i, o, digest)
            if found is None:
                return ""
            outputs[o.name], source = found
            if source:
                sources.append(f"{o.name} taken from {source}")
        if record is None or dict(record.outputs) != outputs:
            execution = self._execution(i, record)
            if execution is None:
                return ""
            self._put(i, outputs, execution)
            sources.append("record written anew from its provenance" if record is None else "record brought up to date")
        return "; ".join(sources) or "whole already"

    def _execution(self, i: int, record: Record | None) -> Mapping[str, Any] | None:
        if record is not None:
            return record.execution
        return {f: self.bench.executions[i][f] for f in EXECUTION} if self.bench.executions is not None else None

    def _put(self, i: int, outputs: Mapping[str, Output], execution: Mapping[str, Any]) -> None:
        key = self.bench.units.keys[i]
        self.store.forget(self.tree.name, [key])
        self.store.put_record(self.tree.name, Record(key, int(self.bench.units.codes[i]), outputs, execution))

    def _volume(self, i: int, o: Volume, digest: str) -> tuple[Output, str] | None:
        layout, core = self.tree.layouts[o.name], self.bench.units.core(i)
        blob = blob_name(digest, layout, core)
        folder = self.store.blob(blob)
        there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        if _whole(there, digest, layout, core):
            return Output(digest, -1, blob, _listing(there)), ""
        source = Source(self.bench, i, o.name, Reader(UnitChecked()))
        place = next((p for p in PLACES if source.decoded(blob, p) == digest), None)
        files = source.truth(digest)
        if files is None or place is None:
            return None
        exact = {n: _as_committed(source, blob, n, data) for n, data in files.items()}
        self.store.discard(blob)
        names = {"blob": "its own level 0", "chunk": "data/", "cache": "DVC's cache"}
        return Output(digest, -1, blob, self.store.put_blob(blob, exact)), names[place]

    def _rows(self, i: int, o: Rows, digest: str) -> tuple[Output, str] | None:
        data = read(self.store.blob(digest) / ROWS)
        if data is not None and as_recorded({ROWS: data}, digest, None, self.bench.units.core(i)):
            rows = tables.read_units(self.store.blob(digest) / ROWS, None).num_rows
            return Output(digest, rows, digest, ((ROWS, len(data)),)), ""
        for place, path in self._copies(o):
            try:
                everything = o.part == "section"
                found = tables.read_units(path, None if everything else [int(self.bench.units.codes[i])])
            except StoreError:
                continue
            if table_digest(found) == digest:
                packed = pack_stamped(found)
                self.store.discard(digest)
                return Output(digest, packed.rows, digest, self.store.put_blob(digest, packed.files)), place
        return None

    def _copies(self, o: Rows) -> list[tuple[str, Path]]:
        name = f"{o.name}.parquet"
        cache = self.tree.dvc.path(name) if self.tree.dvc else None
        copies = [("data/", self.tree.folder / name), ("DVC's cache", cache)]
        return [(place, path) for place, path in copies if path is not None and path.is_file()]

    def _compute(self) -> list[Mended]:
        if not self._again:
            return []
        units, name = self.bench.units, self.tree.name
        if self.prepared is None:
            why = f"no whole copy is left, and it cannot be computed again: {self.why_not}"
            return [Mended(name, units.title(i), why, failed=True) for i in self._again]
        wanted = {i: self._wanted(i) for i in self._again}
        try:
            records = {r.key: r for r in compute_again(self.prepared, self._again, wanted)}
        except ConnectomeError as e:
            return [Mended(name, units.title(i), f"computing it again failed: {e}", failed=True) for i in self._again]
        out = []
        for i in self._again:
            record = records.get(units.keys[i])
            if record is None:
                why = "computed again, but it came out otherwise than recorded: `connectome audit` says how far"
                out.append(Mended(name, units.title(i), why, failed=True))
                continue
            execution = self._execution(i, self._sound_record(i))
            self._put(i, record.outputs, execution or record.execution)
            out.append(Mended(name, units.title(i), "computed again, with equal content"))
        return out

    def _wanted(self, i: int) -> dict[str, str]:
        record = self._sound_record(i)
        found = {o.name: self._digest(i, o.name, record) for o in self.tree.stage.outputs}
        return {n: d for n, d in found.items() if d is not None}


def _as_committed(source: Source, blob: str, name: str, truth: bytes) -> bytes:
    """The bytes that DVC recorded for a chunk, where a copy still has them: another encoder may give other bytes."""
    for _, path, listed in source.places(blob, name):
        data = read(path)
        if data is not None and listed and md5(data) == listed and data != truth:
            try:
                a, b = (volumes.decode_chunk(source.layout, source.core, name, d) for d in (data, truth))
            except StoreError:
                continue
            if (a == b).all():
                return data
    return truth


def _listing(files: Mapping[str, bytes]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((n, len(b)) for n, b in files.items()))


def _whole(files: Mapping[str, bytes], digest: str, layout: Any, core: Any) -> bool:
    try:
        return as_recorded(files, digest, layout, core)
    except ConnectomeError:
        return False


def relink(bench: Bench, i: int, output: str, tmp: Path) -> int:
    """Link the chunks of a unit from the store over those of data/ that differ; returns how many."""
    record = bench.store.lookup(bench.tree.name, [bench.units.keys[i]]).get(bench.units.keys[i])
    if record is None:
        return 0
    n, out = 0, record.outputs[output]
    for local, _ in out.files:
        layout, core = bench.tree.layouts[output], bench.units.core(i)
        target = bench.tree.folder / output / volumes.absolute_name(layout, core, local)
        if read(target) != read(bench.store.blob(out.blob) / local):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = tmp / uuid.uuid4().hex
            bench.store.link(out.blob, local, new)
            new.replace(target)
            n += 1
    return n
