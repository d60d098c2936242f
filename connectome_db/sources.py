"""Raw tiles, read-only: every file is hashed and decoded once by `scan`, and checked again whenever it is read.

Raw data is never written, moved or copied. A manifest comes from `manifest.read_manifest`.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import rasters
from connectome_db.errors import SourceError, nearest
from connectome_db.manifest import Entry, Manifest

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (files done, files in all)."""

SCHEMA = pa.schema(
    [
        pa.field("section", pa.int32(), nullable=False),
        pa.field("tile", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("stage_y_px", pa.float64(), nullable=False),
        pa.field("stage_x_px", pa.float64(), nullable=False),
        pa.field("height_px", pa.int32(), nullable=False),
        pa.field("width_px", pa.int32(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""`raw.tiles`: one row per (section, tile). `path` is relative to the manifest; `dtype` of 16-bit tiles names the range
that becomes 0-255 ("uint16[0:4095]"), so that a change of range is a change of the row; `problem` "" is usable."""

PROBLEMS = ("missing", "duplicate", "truncated", "wrong_size", "checksum", "unreadable")

CACHE_FORMAT = "1"
"""Raise it when `_facts` finds something else in the same bytes; older caches are then not used."""

THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class _Stamp:
    """What tells an unchanged file without reading it."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class _Facts:
    """What the bytes of a file say, whatever the manifest declares. `problem` is "", "truncated" or "unreadable"."""

    sha256: str
    height_px: int
    width_px: int
    dtype: str
    constant: bool
    problem: str
    detail: str


_Cache = dict[str, tuple[_Stamp, _Facts]]


def scan(manifest: Manifest, cache_file: Path | None = None, progress: Progress | None = None) -> pa.Table:
    """Read every file of `manifest` once -> a table of `SCHEMA`, one row per (section, tile), in this order.

    Files unchanged since an earlier scan with the same `cache_file` (same path, size, mtime and inode) are not read
    again. A bad tile is a row with a `problem` of `PROBLEMS`, never an exception:

    missing     no such file                      wrong_size  not the declared height and width
    truncated   the file ends before its image    checksum    not the declared sha256
    unreadable  damaged, in colour, 16-bit without a range ...
    duplicate   listed twice, or the bytes of another tile of the section (tiles of one grey value are let pass)
    """
    files = sorted({str(manifest.file_of(e).absolute()) for e in manifest.entries})
    stamps = {path: _stamp(path) for path in files}
    cache = _load_cache(cache_file)
    stale = [p for p in files if (s := stamps[p]) is not None and (p not in cache or cache[p][0] != s)]
    done = len(files) - len(stale)
    if progress is not None:
        progress(done, len(files))
    with ThreadPoolExecutor(THREADS) as pool:
        for path, fresh in zip(stale, pool.map(_read_facts, stale), strict=True):
            cache[path] = fresh
            done += 1
            if progress is not None:
                progress(done, len(files))
    if cache_file is not None and stale:
        _save_cache(cache_file, cache)
    facts = {path: cache[path][1] for path in files if stamps[path] is not None}
    return _table(manifest, facts)


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


def _read_facts(path: str) -> tuple[_Stamp, _Facts]:
    """Read, hash and decode one file. The stamp is taken first: a file changed meanwhile is read again next time."""
    stamp = _stamp(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return _Stamp(-1, -1, -1), _Facts("", 0, 0, "", False, "unreadable", f"cannot be read: {error.strerror}")
    return stamp or _Stamp(-1, -1, -1), _facts(data)


def _facts(data: bytes) -> _Facts:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        pixels = rasters.decode(data)
    except rasters.TruncatedError as error:
        return _Facts(sha256, 0, 0, "", False, "truncated", str(error))
    except rasters.UnreadableError as error:
        return _Facts(sha256, 0, 0, "", False, "unreadable", str(error))
    constant = bool(pixels.min() == pixels.max())
    return _Facts(sha256, pixels.shape[0], pixels.shape[1], str(pixels.dtype), constant, "", "")


# The cache of a scan ------------------------------------------------------------------------------------------------

_CACHE_SCHEMA = pa.schema(
    {
        **{"path": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64(), "inode": pa.uint64()},
        **{"sha256": pa.string(), "height_px": pa.int32(), "width_px": pa.int32(), "dtype": pa.string()},
        **{"constant": pa.bool_(), "problem": pa.string(), "detail": pa.string()},
    },
    metadata={"format": CACHE_FORMAT},
)


def _load_cache(path: Path | None) -> _Cache:
    """Earlier facts by file. No cache, one of another format, or a damaged one means that files are read again."""
    if path is None or not path.exists():
        return {}
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError):
        return {}
    if not table.schema.equals(_CACHE_SCHEMA, check_metadata=True):
        return {}
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return {name: (_Stamp(size, mtime, inode), _Facts(*rest)) for name, size, mtime, inode, *rest in rows}


def _save_cache(path: Path, cache: _Cache) -> None:
    rows = [
        (name, stamp.size, stamp.mtime_ns, stamp.inode, *vars(facts).values())
        for name, (stamp, facts) in sorted(cache.items())
        if stamp.size >= 0
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(_CACHE_SCHEMA)
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, _CACHE_SCHEMA, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pq.write_table(pa.Table.from_arrays(arrays, schema=_CACHE_SCHEMA), temporary)
    temporary.replace(path)


# Facts and declarations -> rows -------------------------------------------------------------------------------------


def _table(manifest: Manifest, facts: Mapping[str, _Facts]) -> pa.Table:
    twice = _duplicates(manifest, facts)
    rows: dict[tuple[int, str], tuple[object, ...]] = {}
    for e in manifest.entries:
        found = facts.get(str(manifest.file_of(e).absolute()))
        problem, detail, dtype = _judge(e, found)
        if problem in {"", "wrong_size", "checksum"} and (e.section, e.tile) in twice:
            problem, detail = "duplicate", twice[e.section, e.tile]
        rows.setdefault(
            (e.section, e.tile),
            (
                *(e.section, e.tile, e.tile, found.sha256 if found else ""),
                *(e.stage_y_px - manifest.origin_px[0], e.stage_x_px - manifest.origin_px[1]),
                *((found.height_px, found.width_px) if found else (0, 0)),
                *(dtype, problem, detail),
            ),
        )
    columns = zip(*(rows[key] for key in sorted(rows)), strict=True)
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _judge(e: Entry, found: _Facts | None) -> tuple[str, str, str]:
    """(problem, detail, dtype) of one entry, duplicates apart."""
    if found is None:
        return "missing", f"no such file ({Path(e.where).name})", ""
    if found.problem:
        return found.problem, found.detail, found.dtype
    dtype = found.dtype
    if dtype == "uint16":
        if e.value_range is None:
            try:
                rasters.to_uint8(np.zeros((1, 1), np.uint16), None)
            except rasters.UnreadableError as error:
                return "unreadable", str(error), dtype
        else:
            dtype = f"uint16[{e.value_range[0]}:{e.value_range[1]}]"
    wanted = (e.height_px or found.height_px, e.width_px or found.width_px)
    if wanted != (found.height_px, found.width_px):
        return (
            "wrong_size",
            f"wanted {wanted[0]} x {wanted[1]} px (height x width), the file has {found.height_px} x {found.width_px}",
            dtype,
        )
    if e.sha256 is not None and e.sha256 != found.sha256:
        return "checksum", f"wanted sha256 {e.sha256}, the file has {found.sha256}", dtype
    return "", "", dtype


def _duplicates(manifest: Manifest, facts: Mapping[str, _Facts]) -> dict[tuple[int, str], str]:
    """Why a (section, tile) is a duplicate: by file (links followed), then by content within a section."""
    by_file: dict[str, list[Entry]] = {}
    by_content: dict[tuple[int, str], list[Entry]] = {}
    for e in manifest.entries:
        path = manifest.file_of(e)
        by_file.setdefault(str(path.resolve()), []).append(e)
        found = facts.get(str(path.absolute()))
        if found is not None and not found.problem and not found.constant:
            by_content.setdefault((e.section, found.sha256), []).append(e)
    out: dict[tuple[int, str], str] = {}
    for how, groups in (("the same file is listed", by_file.values()), ("the same bytes are in", by_content.values())):
        for group in groups:
            if len(group) > 1:
                names = sorted(f"{e.tile} (section {e.section}, {Path(e.where).name})" for e in group)
                for e in group:
                    out.setdefault((e.section, e.tile), f"{how} {len(group)} times: {' and '.join(names)}")
    return out


# Pixels -------------------------------------------------------------------------------------------------------------


class PixelCache:
    """Decoded tiles by content, least recently used dropped first. Thread-safe; at most `limit_bytes` are held."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[tuple[str, str], Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: tuple[str, str]) -> Pixels | None:
        """The pixels of (sha256, dtype), or None."""
        with self._lock:
            pixels = self._held.get(key)
            if pixels is not None:
                self._held.move_to_end(key)
            return pixels

    def put(self, key: tuple[str, str], pixels: Pixels) -> None:
        """Hold `pixels`; an array larger than the whole cache is not held."""
        with self._lock:
            if key in self._held or pixels.nbytes > self.limit_bytes:
                return
            self._held[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self.limit_bytes:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels held now."""
        return self._bytes


CACHE = PixelCache(limit_bytes=512 << 20)
"""Shared by all `Tiles` of a process."""


class Tiles(Mapping[str, Pixels]):
    """Usable tiles by name -> pixels uint8 (y, x), read-only, read when asked for.

    `table` has the columns of `SCHEMA`; `root` is the manifest's folder. The bytes of a file are checked against the
    digest in the table. Raises SourceError when a file is gone or has changed since, KeyError for an unknown name.
    """

    def __init__(self, table: pa.Table, root: Path, cache: PixelCache = CACHE) -> None:
        names = ("tile", "path", "sha256", "dtype", "problem")
        rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
        self._rows = {tile: (path, sha256, dtype) for tile, path, sha256, dtype, problem in rows if not problem}
        self._root = root
        self._cache = cache

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Pixels:
        if name not in self._rows:
            raise KeyError(f"no usable tile {name!r}{nearest(name, self._rows)}")
        path, sha256, dtype = self._rows[name]
        pixels = self._cache.get((sha256, dtype))
        if pixels is None:
            pixels = self._read(self._root / path, sha256, dtype)
            self._cache.put((sha256, dtype), pixels)
        return pixels

    def _read(self, path: Path, sha256: str, dtype: str) -> Pixels:
        advice = "; run `dvc repro` (or `connectome run ingest`) to take the files as they are now"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SourceError(f"raw file cannot be read any more: {path}: {error.strerror}{advice}") from error
        came = hashlib.sha256(data).hexdigest()
        if came != sha256:
            raise SourceError(f"raw file changed after ingest: {path}: wanted sha256 {sha256}, came {came}{advice}")
        native = rasters.decode(data)
        low_high = dtype.removeprefix("uint16[").removesuffix("]").split(":") if dtype.startswith("uint16[") else []
        pixels = rasters.to_uint8(native, (int(low_high[0]), int(low_high[1])) if low_high else None)
        pixels.setflags(write=False)
        return pixels
