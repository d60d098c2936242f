"""Garbage collection of the unit store: what no kept revision refers to goes.

    kept keys -> records that are not among them -> blobs that no kept record names -> environments, ledgers, leftovers

Records go first and blobs after, so a process that is killed in between never leaves a record without its blob: blobs
without a record are taken by the next collection.
"""

from __future__ import annotations

import os
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.config import Project
from connectome_db.errors import ConfigError, RunError
from connectome_db.runner import locked
from connectome_db.store import Store, named_in
from connectome_db.versions.keep.kept import DAY_S, Doubt, find_kept

OTHERS = ("blobs of no record", "environments", "ledgers", "links of old revisions", "leftovers of killed runs")
"""What goes besides the units of a stage."""


@dataclass(frozen=True)
class Line:
    """What goes of one stage, or of one of OTHERS.

    `things` are unit records of a stage, else blobs, files or folders. `freed_bytes` come back; `named_bytes` only lose
    one of their names: data/ or DVC's cache still holds them.
    """

    name: str
    kept: int
    things: int
    freed_bytes: int
    named_bytes: int


@dataclass(frozen=True)
class Sweep:
    """What a collection would remove, or has removed."""

    lines: tuple[Line, ...]
    revisions: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    notes: tuple[str, ...]
    records: Mapping[str, pa.Array] = field(repr=False)
    blobs: tuple[str, ...] = field(repr=False)
    paths: tuple[Path, ...] = field(repr=False)

    @property
    def freed_bytes(self) -> int:
        """Bytes that come back, of all lines."""
        return sum(line.freed_bytes for line in self.lines)

    @property
    def empty(self) -> bool:
        """Nothing goes."""
        return not any(line.things for line in self.lines)


def size(count: int) -> str:
    """Bytes as a person reads them: 1 MB is 10^6."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def collect(
    project: Project, *, force: bool, all_commits: bool = False, days: float = 0.0, only_project: bool = False
) -> Sweep:
    """Find what nothing needs; with `force`, remove it.

    Kept is what HEAD, every branch, tag and remote-tracking branch, the index, stashes and the working tree refer to,
    and what today's parameters want; with `all_commits` every commit that a ref reaches; with `days` also what was made
    or committed in that many days. Raises ConfigError when the store may serve other projects (unless `only_project`),
    RunError when a run is in progress, RevisionError when git cannot be read.
    """
    if days < 0:
        raise ConfigError(f"--days {days:g}: wanted 0 or more")
    _check_own(project, only_project)
    store = Store(project.store)
    with _at_rest(project, store) if force else ExitStack():
        sweep = _plan(project, store, all_commits=all_commits, days=days)
        if force:
            _remove(store, sweep)
    return sweep


def _check_own(project: Project, only_project: bool) -> None:
    """A store outside the project may hold what other projects or clones need, and this project's git cannot know."""
    store = project.store.resolve()
    if not only_project and not store.is_relative_to(project.root.resolve()):
        raise ConfigError(
            f"the store is {store}, outside this project, so other projects or clones may use it, and what they need "
            "is not known here. If none does: --only-this-project-uses-the-store."
        )


@contextmanager
def _at_rest(project: Project, store: Store) -> Iterator[None]:
    """Hold the lock of every stage, so that no run is in progress and none starts."""
    with ExitStack() as stack:
        for stage in sorted({s.name for s in project.stages} | set(store.stages())):
            try:
                stack.enter_context(locked(project, stage))
            except RunError as e:
                raise RunError(f"nothing was removed, because a run is in progress: {e}") from e
        yield


class _Ledger:
    """Adds up bytes by category. A file with several names is freed only when all of them go."""

    def __init__(self) -> None:
        self.freed: dict[int, int] = {}
        self.named: dict[int, int] = {}
        self._shared: tuple[array[int], ...] = tuple(
            array("Q") for _ in range(5)
        )  # device, inode, names, size, category

    def add(self, category: int, files: Iterable[os.stat_result]) -> None:
        """Count files that go."""
        for s in files:
            if s.st_nlink == 1:
                self.freed[category] = self.freed.get(category, 0) + s.st_size
            else:
                for column, v in zip(self._shared, (s.st_dev, s.st_ino, s.st_nlink, s.st_size, category), strict=True):
                    column.append(v)

    def close(self) -> None:
        """Decide about the files with several names: the first name met carries the bytes."""
        device, inode, names, size, category = (np.frombuffer(c, dtype=np.uint64) for c in self._shared)
        if not len(inode):
            return
        both = np.stack([device, inode], axis=1)
        _, first, which, times = np.unique(both, axis=0, return_index=True, return_inverse=True, return_counts=True)
        frees = np.zeros(len(inode), dtype=bool)
        frees[first] = times >= names[first]
        gone = (times >= names[first])[which.reshape(-1)]  # its bytes are counted once, as freed
        for c in np.unique(category).tolist():
            mine = category == c
            self.freed[c] = self.freed.get(c, 0) + int(size[mine & frees].sum())
            self.named[c] = self.named.get(c, 0) + int(size[mine & ~gone].sum())


def _plan(project: Project, store: Store, *, all_commits: bool, days: float) -> Sweep:
    kept = find_kept(project, all_commits=all_commits, days=days)
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds") if days else None
    stages = store.stages()
    counts: list[tuple[int, int]] = []
    records: dict[str, pa.Array] = {}
    used: list[npt.NDArray[np.bytes_]] = []
    unused: list[npt.NDArray[np.bytes_]] = []
    environments: list[npt.NDArray[np.bytes_]] = []
    for stage in stages:
        of = _scan(store, stage, None if stage in kept.whole else kept.keys.get(stage), since)
        counts.append((of.kept, len(of.gone)))
        records[stage] = of.gone
        used.append(of.used)
        unused.append(of.unused)
        environments.append(of.environments)
    sums = _Ledger()
    blobs, orphans = _sweep_blobs(store, _union(used), unused, sums)
    others = {
        "environments": _others(store.root / "environments", {f"{e.decode()}.json" for e in _union(environments)}),
        "ledgers": [p for s in stages for p in _others(store.root / "ledgers" / s, {k.name for k in kept.ledgers})],
        "links of old revisions": _old_links(project, {r.name for r in kept.roots}),
        "leftovers of killed runs": _old(store.root / "tmp") + _old(project.state / "tmp"),
    }
    for k, name in enumerate(OTHERS[1:], len(stages) + 1):
        for path in others[name]:
            sums.add(k, _files(path))
    sums.close()
    totals = [*counts, (0, orphans), *((0, len(others[n])) for n in OTHERS[1:])]
    lines = tuple(
        Line(name, stay, go, sums.freed.get(k, 0), sums.named.get(k, 0))
        for k, (name, (stay, go)) in enumerate(zip([*stages, *OTHERS], totals, strict=True))
    )
    paths = tuple(p for n in OTHERS[1:] for p in others[n])
    return Sweep(lines, kept.revisions, kept.doubts, kept.notes, records, tuple(blobs), paths)


@dataclass(frozen=True)
class _Scan:
    """Records of a stage: how many stay, which keys go, and the blobs and environments that either names."""

    kept: int
    gone: pa.Array
    used: npt.NDArray[np.bytes_]
    unused: npt.NDArray[np.bytes_]
    environments: npt.NDArray[np.bytes_]


def _scan(store: Store, stage: str, keys: pa.Array | None, since: str | None) -> _Scan:
    """Go through a stage's records once. `keys` None keeps all; records made after `since` (ISO 8601) stay too."""
    stay = 0
    gone: list[pa.Array] = []
    used, unused, environments = [], [], []
    for batch in store.batches(stage):
        mask = pc.is_in(batch["key"], value_set=keys) if keys is not None else pa.array([True] * batch.num_rows)
        if since is not None:
            started = pc.extract_regex(batch["record"], pattern=r'"started": "(?P<at>[^"]*)"')
            mask = pc.or_(mask, pc.fill_null(pc.greater_equal(pc.struct_field(started, "at"), since), True))
        here, away = batch.filter(mask), batch.filter(pc.invert(mask))
        stay += here.num_rows
        gone.append(away["key"].combine_chunks())
        used.append(named_in(here["record"], "blob"))
        environments.append(named_in(here["record"], "environment"))
        unused.append(named_in(away["record"], "blob"))
    keys_gone = pc.unique(pa.concat_arrays([pa.array([], type=pa.string()), *gone]))
    return _Scan(stay, keys_gone, _union(used), _union(unused), _union(environments))


def _union(names: Sequence[npt.NDArray[np.bytes_]]) -> npt.NDArray[np.bytes_]:
    return np.unique(np.concatenate([np.zeros(0, dtype="S64"), *names]))


def _sweep_blobs(
    store: Store, used: npt.NDArray[np.bytes_], unused: Sequence[npt.NDArray[np.bytes_]], sums: _Ledger
) -> tuple[list[str], int]:
    """Blobs on disk that no kept record names, with their bytes added up by stage; how many belong to no record."""
    blobs: list[str] = []
    orphans = 0
    for names in store.blob_names():
        if not names:
            continue
        prefix = names[0][:2].encode()
        end = prefix + b"~"  # above every hex digit
        a, b = np.searchsorted(used, [prefix, end])
        needed = {d.decode() for d in used[a:b].tolist()}
        owner: dict[str, int] = {}
        for k, mine in enumerate(unused):
            a, b = np.searchsorted(mine, [prefix, end])
            for d in mine[a:b].tolist():
                owner.setdefault(d.decode(), k)
        for name in names:
            if name not in needed:
                blobs.append(name)
                orphans += name not in owner
                sums.add(owner.get(name, len(unused)), _files(store.blob(name)))
    return blobs, orphans


def _files(path: Path) -> Iterator[os.stat_result]:
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            for name in names:
                yield os.lstat(f"{folder}/{name}")
    else:
        yield path.lstat()


def _others(folder: Path, needed: set[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name not in needed) if folder.is_dir() else []


def _old(folder: Path) -> list[Path]:
    """Entries of a folder that nothing was put into for a day."""
    before = time.time() - DAY_S
    return sorted(p for p in folder.iterdir() if p.lstat().st_mtime < before) if folder.is_dir() else []


def _old_links(project: Project, needed: set[str]) -> list[Path]:
    """Linked tables of revisions that are not kept: they would hold bytes that DVC's cache has let go."""
    folder = project.state / "revisions"
    unfinished = _old(folder)
    return [p for p in _others(folder, needed) if not p.name.startswith("tmp-") or p in unfinished]


def _remove(store: Store, sweep: Sweep) -> None:
    """Records first, blobs after."""
    for stage, keys in sweep.records.items():
        if len(keys):
            store.forget(stage, keys)
    for digest in sweep.blobs:
        store.discard(digest)
    for path in sweep.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
