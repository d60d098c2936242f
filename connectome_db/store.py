"""The unit store: an action cache (keys) in front of a content store (blobs), shared by all branches.

    keys/<stage>/<key>.json       what a unit's key gave: per output a content digest and the sizes of its files
    shards/<stage>/<n>.parquet    the same, gathered when a stage finishes
    blobs/<aa>/<digest>/…         the files of one output of one unit, read-only, named by what they decode to
    environments/<digest>.json    what an execution ran in

A blob is written to a temporary folder, fsynced, made read-only and renamed into place; a key is written last. So a
killed process leaves nothing that looks done. Nothing is ever written in place: data/ and DVC's cache share these
inodes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import DiskFullError, StoreError


@dataclass(frozen=True)
class Output:
    """One output of one unit: content digest, number of rows (-1 for a volume), its blob and (file name, bytes)."""

    digest: str
    rows: int
    blob: str
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Record:
    """What a key gave, and who made it (the original execution)."""

    key: str
    unit: int
    outputs: Mapping[str, Output]
    execution: Mapping[str, Any]

    def to_json(self) -> str:
        """As stored: with a checksum of the rest, so that an edit is noticed."""
        outputs = {
            n: {"digest": o.digest, "rows": o.rows, "blob": o.blob, "files": o.files} for n, o in self.outputs.items()
        }
        value = {"key": self.key, "unit": str(self.unit), "outputs": outputs, "execution": self.execution}
        return json.dumps(value | {"check": checksum(value)}, sort_keys=True)


def checksum(record: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a record's JSON value without its `check`."""
    rest = {k: v for k, v in record.items() if k != "check"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def parse_record(text: str, *, altered: bool = False) -> Record:
    """The inverse of `Record.to_json`. Raises StoreError for a damaged record, or an altered one unless allowed.

    Records of earlier versions have no checksum and are taken as they are.
    """
    try:
        v = json.loads(text)
        if not altered and "check" in v and v["check"] != checksum(v):
            raise StoreError("a unit record in the store was altered: its checksum does not fit")
        outputs = {
            n: Output(o["digest"], int(o["rows"]), o["blob"], tuple((str(f), int(s)) for f, s in o["files"]))
            for n, o in v["outputs"].items()
        }
        return Record(v["key"], int(v["unit"]), outputs, v["execution"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise StoreError(f"a unit record in the store is damaged ({e})") from e


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    """A full disk becomes an error that says so; what was finished stays finished."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space left on the disk of {root}. Units finished so far are kept: free space "
                "(`connectome status` shows what is still to do), then run again."
            ) from e
        raise


class Store:
    """Keys to blobs below one folder. Safe for any number of writers on one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"

    def _make(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def blob(self, digest: str) -> Path:
        """Folder of a blob's files."""
        return self.root / "blobs" / digest[:2] / digest

    def put_blob(self, digest: str, files: Mapping[str, bytes]) -> tuple[tuple[str, int], ...]:
        """Store the files of one output under its content digest; returns their names and sizes, by name.

        An existing blob is kept when its files have the right sizes, and replaced otherwise.
        """
        listing = tuple(sorted((name, len(data)) for name, data in files.items()))
        final = self.blob(digest)
        if final.exists() and not self.damage(digest, listing):
            return listing
        with _disk(self.root):
            self._make("tmp")
            tmp = self._tmp / f"{digest[:16]}-{uuid.uuid4().hex}"
            try:
                tmp.mkdir()
                for name, data in files.items():
                    path = tmp / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    path.chmod(0o444)
                # All are written before the first is flushed, so that one flush can carry many.
                for name in files:
                    _fsync(tmp / name)
                for folder in {(tmp / name).parent for name in files} | {tmp}:
                    _fsync(folder)
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists():  # damaged: moved aside first, because a folder cannot be renamed over a full one
                    old = self._tmp / f"old-{uuid.uuid4().hex}"
                    final.rename(old)
                    shutil.rmtree(old)
                try:
                    tmp.rename(final)
                except OSError as e:
                    if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    # Another writer has just stored equal content: keep its copy.
                _fsync(final.parent)
            finally:
                if tmp.exists():
                    shutil.rmtree(tmp)
        return listing

    def put_record(self, stage: str, record: Record) -> None:
        """Declare a key done. Written last, atomically."""
        self._write_file(self._make("keys", stage) / f"{record.key}.json", record.to_json().encode())

    def _write_file(self, path: Path, data: bytes) -> None:
        with _disk(self.root):
            self._make("tmp")
            tmp = self._tmp / f"file-{uuid.uuid4().hex}"
            try:
                with tmp.open("wb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                tmp.replace(path)
            finally:
                tmp.unlink(missing_ok=True)

    def put_environment(self, facts: Mapping[str, Any]) -> str:
        """Keep the facts of an execution environment; returns their digest."""
        text = json.dumps(facts, sort_keys=True, indent=1).encode()
        digest = hashlib.sha256(text).hexdigest()[:16]
        path = self._make("environments") / f"{digest}.json"
        if not path.exists():
            self._write_file(path, text)
        return digest

    def environment(self, digest: str) -> Mapping[str, Any]:
        """Facts of one environment."""
        path = self.root / "environments" / f"{digest}.json"
        if not path.exists():
            raise StoreError(f"environment {digest} is not in the store ({path})")
        facts: Mapping[str, Any] = json.loads(path.read_text())
        return facts

    def lookup(self, stage: str, keys: Sequence[str]) -> dict[str, Record]:
        """Records of those `keys` that are done, from single files and shards."""
        found: dict[str, Record] = {}
        for key, text, _ in self.entries(stage, keys):
            try:
                record = parse_record(text)
            except StoreError:
                continue  # damaged or altered: not done here, so it is made or found again
            if record.key == key:
                found[key] = record
        return found

    def entries(self, stage: str, keys: Sequence[str], skip: Collection[Path] = ()) -> Iterator[tuple[str, str, Path]]:
        """What lies under those `keys`, whole or not: key, text, and the file that holds it; shards in `skip` are not
        read. Raises StoreError naming a shard that cannot be read.
        """
        left = set(keys)
        folder = self.root / "keys" / stage
        for name in os.listdir(folder) if folder.is_dir() else ():
            key = name.removesuffix(".json")
            if key in left:
                try:
                    text = (folder / name).read_text(errors="replace")
                except FileNotFoundError:
                    continue  # just gathered: it is in a shard now
                left.remove(key)
                yield key, text, folder / name
        for shard in sorted((self.root / "shards" / stage).glob("*.parquet")):
            if left and shard not in skip:
                try:
                    table = pq.read_table(shard, filters=pc.field("key").isin(pa.array(sorted(left), pa.string())))
                except (pa.ArrowException, OSError) as e:
                    raise StoreError(
                        f"{shard}: the unit records in it cannot be read ({e}); `connectome verify --repair`"
                    ) from e
                for key, text in zip(table["key"].to_pylist(), table["record"].to_pylist(), strict=True):
                    left.discard(key)
                    yield key, text, shard

    def forget(self, stage: str, keys: Sequence[str] | pa.Array) -> None:
        """Drop keys: their blobs turned out damaged, or nothing needs them. Call with the stage locked."""
        gone = pa.array(keys, type=pa.string())
        for key in gone.to_pylist():
            (self.root / "keys" / stage / f"{key}.json").unlink(missing_ok=True)
        for shard in sorted((self.root / "shards" / stage).glob("*.parquet")):
            here = pq.read_table(shard, columns=["key"])["key"]
            if pc.any(pc.is_in(here, value_set=gone)).as_py():
                kept = (t.filter(pc.invert(pc.is_in(t["key"], value_set=gone))) for t in _read(shard))
                self._write_shard(stage, kept)
                shard.unlink()
        for kind in ("keys", "shards"):  # on disk before anyone removes their blobs
            if (folder := self.root / kind / stage).is_dir():
                _fsync(folder)

    def gather(self, stage: str) -> None:
        """Move single key files of a stage into one shard, when there are many. Call with the stage locked."""
        folder = self.root / "keys" / stage
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if len(files) < GATHER_AT:
            return
        records = [f.read_text() for f in files]
        self._write_shard(stage, [pa.table({"key": [f.stem for f in files], "record": records})])
        for f in files:
            f.unlink()

    def _write_shard(self, stage: str, batches: Iterable[pa.Table]) -> None:
        """Write records as a new shard; of no records, none is written."""
        with _disk(self.root):
            self._make("tmp")
            tmp = self._tmp / f"file-{uuid.uuid4().hex}"
            schema = pa.schema({"key": pa.string(), "record": pa.string()})
            try:
                with pq.ParquetWriter(tmp, schema, compression="zstd") as writer:
                    rows = 0
                    for batch in batches:
                        rows += batch.num_rows
                        writer.write_table(batch)
                if rows:
                    _fsync(tmp)
                    tmp.replace(self._make("shards", stage) / f"{uuid.uuid4().hex}.parquet")
            finally:
                tmp.unlink(missing_ok=True)

    def stages(self) -> list[str]:
        """Stages that have records or ledgers."""
        return sorted({p.name for kind in ("keys", "shards", "ledgers") for p in (self.root / kind).glob("*/")})

    def batches(self, stage: str) -> Iterator[pa.Table]:
        """Every record of a stage, BATCH at a time: columns `key` and `record` (as stored). Linear, unsorted."""
        folder = self.root / "keys" / stage
        names = sorted(n for n in os.listdir(folder) if n.endswith(".json")) if folder.is_dir() else []
        for k in range(0, len(names), BATCH):
            texts: dict[str, str] = {}
            for name in names[k : k + BATCH]:
                with suppress(FileNotFoundError):  # just gathered: it is in a shard now
                    texts[name.removesuffix(".json")] = (folder / name).read_text(errors="replace")
            columns = {"key": list(texts), "record": list(texts.values())}
            yield pa.table({n: pa.array(values, pa.string()) for n, values in columns.items()})
        for shard in sorted((self.root / "shards" / stage).glob("*.parquet")):
            yield from _read(shard)

    def blob_names(self) -> Iterator[list[str]]:
        """Names of all blobs, one list per folder of blobs/, sorted. Other files there are not ours and left out."""
        for folder in sorted((self.root / "blobs").glob("??")):
            yield sorted(n for n in os.listdir(folder) if _BLOB_NAME.fullmatch(n))

    def damage(self, digest: str, files: Sequence[tuple[str, int]]) -> str:
        """ "" when every file of a blob is there with its size, else what is wrong with which file."""
        folder = self.blob(digest)
        for name, size in files:
            try:
                got = os.stat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                return f"{folder}/{name} is missing"
            if got != size:
                return f"{folder}/{name} has {got} bytes, wanted {size}"
        return "" if files or folder.is_dir() else f"{folder} is missing"

    def discard(self, digest: str) -> None:
        """Remove a blob that is not what its name says."""
        folder = self.blob(digest)
        if folder.is_dir():
            self._make("tmp")
            old = self._tmp / f"old-{uuid.uuid4().hex}"
            folder.rename(old)
            shutil.rmtree(old)

    def link(self, digest: str, name: str, target: Path) -> None:
        """Hard-link one file of a blob to `target` (a new name)."""
        os.link(f"{self.blob(digest)}/{name}", target)


GATHER_AT = 256
"""Below this many single key files, a shard is not worth its file."""
BATCH = 1 << 16
"""Records that are looked at together."""
_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


def _read(shard: Path) -> Iterator[pa.Table]:
    try:
        for batch in pq.ParquetFile(shard).iter_batches(BATCH, columns=["key", "record"]):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as e:
        raise StoreError(
            f"{shard}: the records in it cannot be read ({e}). Remove the file: units whose only record was there are "
            "computed again."
        ) from e


def named_in(records: pa.ChunkedArray, field: str) -> npt.NDArray[np.bytes_]:
    """The values of "blob" or "environment" in records as stored, each once, ascending.

    Finds them without parsing a million JSON texts; a text in which nothing is found is parsed, so that another way of
    writing JSON cannot make a blob look unused. A damaged record names nothing: it does not count as done either.
    """
    pattern = re.compile(rb'"%s": "([0-9a-f]+)"' % field.encode())
    found: list[bytes] = []
    for text in records.to_pylist():
        values = pattern.findall(text.encode())
        if not values:
            with suppress(StoreError):
                record = parse_record(text)
                values = [o.blob.encode() for o in record.outputs.values()]
                if field != "blob":
                    values = [str(record.execution.get(field, "")).encode()]
        found += values
    return np.unique(np.asarray(found, dtype="S64"))


def check_links(store: Path, *others: Path) -> None:
    """Trial hard links from the store to each folder. Raises StoreError when they are on different file systems."""
    store.mkdir(parents=True, exist_ok=True)
    probe = store / f"probe-{uuid.uuid4().hex}"
    probe.write_bytes(b"")
    try:
        for other in others:
            other.mkdir(parents=True, exist_ok=True)
            target = other / probe.name
            try:
                target.hardlink_to(probe)
            except OSError as e:
                raise StoreError(
                    f"cannot hard-link from the store {store} to {other} ({e.strerror}): both must be on one file "
                    "system that allows hard links. Set `store` in launch.yaml, or move the project."
                ) from e
            target.unlink()
    finally:
        probe.unlink()
