"""What must stay in the store: the units that a branch, a tag or the working tree still refers to.

A revision names its data by `dvc.lock`; the units of each `data/<stage>` are listed in its units.parquet, in DVC's
cache. Where DVC's cache no longer has that file, the store's ledgers know the units of every tree that was ever
finished here: one of them is the missing one, so all that are not known to be another are kept.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import ledger, prepare
from connectome_db.config import Project
from connectome_db.errors import ConnectomeError, RevisionError
from connectome_db.ledger import Ledger
from connectome_db.revisions import FOLDERS, WORKING_TREE, cache_folder, cached, linked_folder, lock_outs
from connectome_db.store import Store

DAY_S = 86400.0
FINGERPRINT = ("units.parquet", "record.json")
"""Files that tell one tree of a stage from another: its units, and the digests of everything it holds."""


@dataclass(frozen=True)
class Doubt:
    """Revisions whose data of a stage is not in DVC's cache, and what is kept because of that."""

    stage: str
    revisions: tuple[str, ...]
    ledgers: int
    """Trees of this store that may be the missing one; -1 when none is known and every unit of the stage is kept."""


@dataclass(frozen=True)
class Kept:
    """What must stay. `keys` per stage; a stage in `whole` keeps everything; `ledgers` are folders."""

    revisions: tuple[str, ...]
    keys: Mapping[str, pa.Array]
    whole: frozenset[str]
    ledgers: frozenset[Path]
    roots: frozenset[Path]
    """Folders of linked tables (`.connectome/revisions/…`) of kept revisions."""
    doubts: tuple[Doubt, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Lock:
    """The data that some revisions name, all alike: per out the digest of its listing."""

    revisions: tuple[str, ...]
    outs: Mapping[str, str]
    root: Path

    @property
    def stages(self) -> dict[str, str]:
        return {o.removeprefix("data/"): d for o, d in self.outs.items() if o.startswith("data/") and o.count("/") == 1}


def find_kept(project: Project, *, all_commits: bool = False, days: float = 0.0) -> Kept:
    """Look at git, DVC's cache, the working tree and the ledgers. Changes nothing.

    Raises RevisionError when git or a dvc.lock cannot be read: what is needed would then be unknown.
    """
    root = project.root.resolve()
    revisions, locks = _locks(root, all_commits=all_commits, days=days)
    store = Store(project.store)
    current, notes = _wanted_now(project)
    keys: dict[str, pa.Array] = {}
    whole: set[str] = set()
    kept_ledgers: set[Path] = set()
    doubts: list[Doubt] = []
    for stage in store.stages():  # of others, there is nothing to keep
        found = _of_stage(root, project.store, stage, locks, days)
        found.keys.append(pa.array(current.get(stage, ()), type=pa.string()))
        keys[stage] = pc.unique(pa.concat_arrays(found.keys))
        kept_ledgers |= {k.folder for k in found.ledgers}
        if found.doubt:
            doubts.append(found.doubt)
            if found.doubt.ledgers < 0:
                whole.add(stage)
    roots = frozenset(k.root for k in locks)
    return Kept(revisions, keys, frozenset(whole), frozenset(kept_ledgers), roots, tuple(doubts), notes)


@dataclass
class _Found:
    keys: list[pa.Array]
    ledgers: list[Ledger]
    doubt: Doubt | None = None


def _of_stage(root: Path, store: Path, stage: str, locks: Sequence[_Lock], days: float) -> _Found:
    """Keys and ledgers of one stage that must stay."""
    ledgers = ledger.all_ledgers(store, stage)
    found = _Found([], [])
    known: set[tuple[str, ...]] = set()  # fingerprints of the trees whose units were read
    here = root / "data" / stage
    trees: list[tuple[list[str], Mapping[str, Path] | None]] = []
    if here.is_dir():
        trees.append(([WORKING_TREE], _if_whole({n: here / n for n in FINGERPRINT})))
    for listing in sorted({k.stages[stage] for k in locks if stage in k.stages}):
        mine = [k for k in locks if k.stages.get(stage) == listing]
        trees.append(([n for k in mine for n in k.revisions], _tree(root, stage, listing, mine)))
    missing: list[str] = []
    for names, files in trees:
        units = _keys(files["units.parquet"]) if files else None
        if files is None or units is None:
            missing += names
        else:
            found.keys.append(units)
            known.add(tuple(_sha256(files[n]) for n in FINGERPRINT))
    recent = time.time() - days * DAY_S if days else float("inf")
    for entry in ledgers:
        other = tuple(entry.files.get(n, "") for n in FINGERPRINT) not in known
        if (missing and (other or not entry.whole)) or max(p.stat().st_mtime for p in entry.folder.iterdir()) >= recent:
            units = _keys(entry.units)
            if units is None:
                raise RevisionError(f"{entry.units}: cannot be read, so what it needs is unknown; remove its folder")
            found.keys.append(units)
            found.ledgers.append(entry)
        elif not other:
            found.ledgers.append(entry)
    if missing:
        doubtful = sum(tuple(k.files.get(n, "") for n in FINGERPRINT) not in known for k in ledgers)
        found.doubt = Doubt(stage, tuple(dict.fromkeys(missing)), doubtful if ledgers else -1)
    return found


def _wanted_now(project: Project) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Keys that `connectome run` would look up for today's parameters; a run that was stopped goes on from them."""
    keys: dict[str, list[str]] = {}
    notes = []
    for stage in project.stages:
        try:
            keys[stage.name] = prepare.prepare(project, stage).keys
        except ConnectomeError as e:
            # A stage whose inputs are not made yet has no units with their final keys either.
            if all(n.partition(".")[0] in keys for n in stage.inputs if "." in n):
                notes.append(
                    f"{stage.name}: which units today's parameters want is not known: {str(e).splitlines()[0]}"
                )
    return keys, tuple(notes)


def _tree(root: Path, stage: str, listing: str, locks: Sequence[_Lock]) -> Mapping[str, Path] | None:
    """The fingerprint files of a tree: from DVC's cache, or from the links of a revision that was opened before."""
    cache = cache_folder(root)
    try:
        entries = {e["relpath"]: str(e["md5"]) for e in json.loads(cached(cache, listing).read_text())}
        files = {n: cached(cache, entries[n]) for n in FINGERPRINT}
        if all(_md5(p) == entries[n] for n, p in files.items()):
            return files
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not in the cache, or damaged there
    linked = [{n: k.root / "data" / stage / n for n in FINGERPRINT} for k in locks]
    return next((f for f in linked if _if_whole(f)), None)


def _if_whole(files: Mapping[str, Path]) -> Mapping[str, Path] | None:
    return files if all(p.is_file() for p in files.values()) else None


def _keys(units: Path) -> pa.Array | None:
    """The unit keys that a units.parquet lists; None when it cannot be read."""
    try:
        return pq.ParquetFile(units).read(["unit_key"])["unit_key"].combine_chunks().cast(pa.string())
    except (pa.ArrowInvalid, OSError, KeyError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _md5(path: Path) -> str:
    with path.open("rb") as f:  # as DVC names its files
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _locks(root: Path, *, all_commits: bool, days: float) -> tuple[tuple[str, ...], list[_Lock]]:
    """Names of all kept revisions, and what their dvc.lock say, each distinct one once."""
    commits = _commits(root, all_commits=all_commits, days=days)
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    asked = [(name, f"{commit}:{prefix}dvc.lock") for commit, names in commits.items() for name in names]
    asked.append(("the index", f":{prefix}dvc.lock"))
    by_blob: dict[str, list[str]] = {}
    for (name, _), found in zip(asked, _batch(root, [what for _, what in asked]), strict=True):
        if found is not None:
            by_blob.setdefault(found, []).append(name)
    texts = [(tuple(names), _git(root, "cat-file", "blob", blob)) for blob, names in by_blob.items()]
    here = root / "dvc.lock"
    if here.is_file():
        texts.append(((WORKING_TREE,), here.read_text(encoding="utf-8")))
    locks = []
    for names, text in texts:
        outs = lock_outs(text, f"dvc.lock of {names[0]}")
        chosen = {o: d for o, d in outs.items() if o.split("/")[0] in FOLDERS and d.endswith(".dir")}
        locks.append(_Lock(names, chosen, linked_folder(root, chosen)))
    return (*(name for names in commits.values() for name in names), WORKING_TREE), locks


def _commits(root: Path, *, all_commits: bool, days: float) -> dict[str, list[str]]:
    """Kept commits: full id -> what they are called. Of refs, HEAD, stashes, worktrees, an unfinished merge."""
    names = ["HEAD", *_git(root, "for-each-ref", "--format=%(refname)").split(), "MERGE_HEAD"]
    trees = _git(root, "worktree", "list", "--porcelain").splitlines()
    names += [line.removeprefix("HEAD ") for line in trees if line.startswith("HEAD ")]
    if "refs/stash" in names:
        stashed = _git(root, "reflog", "show", "--format=%H", "refs/stash").split()
        names += [f"{s}{parent}" for s in stashed for parent in ("", "^2", "^3")]  # what was changed, and the index
    if all_commits:
        names += _git(root, "rev-list", "--all", "HEAD").split()
    elif days:
        names += _git(root, "rev-list", "--all", "HEAD", f"--since={int(time.time() - days * DAY_S)}").split()
    commits: dict[str, list[str]] = {}
    for name, commit in zip(names, _batch(root, [f"{n}^{{commit}}" for n in names]), strict=True):
        if commit is not None and (commit not in commits or not name.startswith(commit)):
            commits.setdefault(commit, []).append(_short(name))
    if not commits:
        raise RevisionError(f"{root} has no commit yet, so nothing says which units are needed")
    return commits


def _short(name: str) -> str:
    for kind in ("refs/heads/", "refs/tags/", "refs/remotes/", "refs/"):
        if name.startswith(kind):
            return name.removeprefix(kind)
    return name[:10] if len(name) >= 40 else name


def _batch(root: Path, objects: Sequence[str]) -> list[str | None]:
    """Full ids of many git objects in one call; None for what does not exist."""
    text = _git(root, "cat-file", "--batch-check", stdin="".join(f"{o}\n" for o in objects))
    return [None if line.endswith((" missing", " ambiguous")) else line.split()[0] for line in text.splitlines()]


def _git(root: Path, *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], input=stdin, capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode:
        raise RevisionError(
            f"`git {' '.join(arguments[:2])}` failed in {root}: {done.stderr.strip()}. Without git, what is needed is "
            "not known: mend the repository first"
        )
    return done.stdout
