"""A connectome as of any git revision, read from DVC's cache without checking anything out.

`dvc.lock` at a commit names the content of every `data/<stage>` and `provenance/<stage>`; DVC's cache holds it. The
tables of a revision are hard-linked, once, into a folder that looks like a project, so whatever reads a project's
tables reads an old one just as well; volumes are linked when asked for, or read unit by unit.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from connectome_db import volumes
from connectome_db.errors import RevisionError, nearest
from connectome_db.geometry import Box
from connectome_db.spec import Array

WORKING_TREE = "working tree"
FOLDERS = ("data", "provenance")


@dataclass(frozen=True)
class Revision:
    """One version of a project's data: a commit, or what lies in the working tree now."""

    project: Path
    """The project's folder."""
    name: str
    """As it was asked for: a branch, tag, commit or `working tree`."""
    commit: str | None
    """Full commit id; None for the working tree."""
    root: Path
    """A folder with `data/<stage>/*.parquet` and `provenance/<stage>/`: the project itself for the working tree."""
    outs: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Per output ("data/segment") the name of its listing in DVC's cache ("<md5>.dir"); of a commit only."""

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Stages that have data here, by name."""
        return tuple(sorted(p.parent.name for p in self.root.glob("data/*/record.json")))

    def record(self, stage: str) -> dict[str, Any]:
        """`record.json` of a stage. Raises RevisionError when the stage has no data here."""
        path = self.root / "data" / stage / "record.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RevisionError(f"stage {stage} has no data at {self.name}{nearest(stage, self.stages)}") from None
        except ValueError as e:
            raise RevisionError(f"{path}: not readable as JSON ({e}); `connectome verify` says what is damaged") from e
        return found

    def files(self, out: str) -> dict[str, Path]:
        """Every file of an output ("data/segment"): its path below that folder -> where its bytes are."""
        if self.commit is None:
            folder = self.project / out
            return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if out not in self.outs:
            raise RevisionError(f"{out} is not in dvc.lock at {self.name}")
        cache = cache_folder(self.project)
        return {entry["relpath"]: cached(cache, entry["md5"]) for entry in _listing(self, cache, out)}

    def volume(self, stage: str, name: str) -> Path:
        """The folder of a whole volume, linked from the cache the first time. For viewers; see `read_unit`."""
        folder = self.root / "data" / stage / name
        if self.commit is not None and not (folder / "info").exists():
            inside = {f: p for f, p in self._files(f"data/{stage}").items() if f.startswith(f"{name}/")}
            if not inside:
                raise RevisionError(f"stage {stage} has no volume {name!r} at {self.name}")
            _link_all(self, {f.removeprefix(f"{name}/"): p for f, p in inside.items()}, folder)
        return folder

    def read_unit(self, stage: str, name: str, core: Box) -> Array:
        """Voxels (z, y, x) of one unit's `core` in a volume. Reads only that unit's chunks."""
        if self.commit is None:
            return volumes.read(self.project / "data" / stage / name, core)
        files = self._files(f"data/{stage}")
        info = files.get(f"{name}/info")
        if info is None:
            raise RevisionError(f"stage {stage} has no volume {name!r} at {self.name}")
        layout = volumes.parse_info(info.read_bytes(), f"{name} of {stage} at {self.name}")
        found = {}
        for local, absolute in volumes.chunk_names(layout, core).items():
            if (path := files.get(f"{name}/{absolute}")) is not None:
                found[local] = _bytes(self, path)
        return volumes.decode(layout, core, found)

    def text(self, path: str) -> str | None:
        """A file that git holds (params.yaml, dvc.lock), as text; None when it is not there."""
        if self.commit is None:
            file = self.project / path
            return file.read_text(encoding="utf-8") if file.is_file() else None
        return _show(self.project, self.commit, path)

    def _files(self, out: str) -> dict[str, Path]:
        if out not in self._listed:
            self._listed[out] = self.files(out)
        return self._listed[out]

    @cached_property
    def _listed(self) -> dict[str, dict[str, Path]]:
        return {}


def open_revision(project: Path, name: str | None = None) -> Revision:
    """The project at `project` as of a git revision, or (None, or "working tree") as it lies there now.

    Raises RevisionError when the revision is unknown, was made before any stage was run, or is not in DVC's cache.
    """
    project = project.resolve()
    if name is None or name == WORKING_TREE:
        return Revision(project, WORKING_TREE, None, project)
    commit = resolve(project, name)
    lock = _show(project, commit, "dvc.lock")
    if lock is None:
        raise RevisionError(f"no dvc.lock at {name} ({commit[:10]}): nothing had been run, or it was not committed")
    outs = lock_outs(lock, f"dvc.lock at {name}")
    chosen = {o: d for o, d in outs.items() if o.split("/")[0] in FOLDERS and d.endswith(".dir")}
    revision = Revision(project, name, commit, linked_folder(project, chosen), chosen)
    if not revision.root.is_dir():
        _make_root(revision)
    return revision


def linked_folder(project: Path, outs: Mapping[str, str]) -> Path:
    """Where the tables of a revision with these outputs are linked. Commits with equal data share it."""
    what = hashlib.sha256(json.dumps(sorted(outs.items())).encode()).hexdigest()[:20]
    return project / ".connectome" / "revisions" / what


def resolve(project: Path, name: str) -> str:
    """Full commit id of a branch, tag or commit. Raises RevisionError naming the nearest branch or tag."""
    if name.startswith("-"):
        raise RevisionError(f"{name!r} is no revision")
    found = _git(project, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is None:
        known = (_git(project, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or "").split()
        raise RevisionError(f"git knows no revision {name!r} in {project}{nearest(name, known)}")
    return found.strip()


def tags_of(project: Path, commit: str) -> tuple[str, ...]:
    """Names of the tags that point at a commit, sorted."""
    return tuple(sorted((_git(project, "tag", "--points-at", commit) or "").splitlines()))


def checked_out(project: Path) -> tuple[str | None, bool]:
    """The commit that is checked out (None outside git), and whether a file that git tracks differs from it."""
    commit = _git(project, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = _git(project, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return (commit.strip() if commit else None), bool(changed)


def lock_outs(lock: str, where: str) -> dict[str, str]:
    """Outputs that a dvc.lock names: path -> digest as DVC writes it ("<md5>" or "<md5>.dir")."""
    document = YAML(typ="safe", pure=True).load(lock) or {}
    try:
        return {
            str(out["path"]): str(out["md5"])
            for stage in (document.get("stages") or {}).values()
            for out in stage.get("outs") or []
            if "md5" in out
        }
    except (AttributeError, TypeError, KeyError) as e:
        raise RevisionError(f"{where}: not a lock file of DVC 3 ({e})") from e


def cache_folder(project: Path) -> Path:
    """Where DVC keeps the project's files: `cache.dir` of its configuration, or `.dvc/cache`."""
    top = next((p / ".dvc" for p in (project, *project.parents) if (p / ".dvc").is_dir()), None)
    if top is None:
        raise RevisionError(f"{project} has no .dvc folder: it is not a DVC project; `connectome init` makes one")
    chosen = top / "cache"
    for file in ("config", "config.local"):
        parser = configparser.ConfigParser()
        parser.read(top / file)
        if parser.has_option("cache", "dir"):
            chosen = (top / parser.get("cache", "dir").strip("\"'")).resolve()
    return chosen / "files" / "md5"


def cached(cache: Path, md5: str) -> Path:
    """Where DVC's cache holds the file of a digest."""
    return cache / md5[:2] / md5[2:]


def _listing(revision: Revision, cache: Path, out: str) -> list[dict[str, str]]:
    path = cached(cache, revision.outs[out])
    try:
        found: list[dict[str, str]] = json.loads(path.read_text())
    except FileNotFoundError:
        raise RevisionError(_gone(revision, out)) from None
    return found


def _gone(revision: Revision, out: str) -> str:
    return (
        f"{out} as of {revision.name} is not in DVC's cache. If there is a remote, `dvc fetch --all-commits` brings "
        f"it; otherwise check out {revision.name} and run `dvc repro`: units that the store has are not computed again"
    )


def _bytes(revision: Revision, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RevisionError(_gone(revision, str(path))) from None


def _make_root(revision: Revision) -> None:
    """Link every file that is not a chunk of a volume: tables, records and arrays, of all stages."""
    tmp = revision.root.parent / f"tmp-{uuid.uuid4().hex}"
    cache = cache_folder(revision.project)
    try:
        for out in sorted(revision.outs):
            folder = tmp / out
            folder.mkdir(parents=True)
            for entry in _listing(revision, cache, out):
                name = entry["relpath"]
                if "/" not in name or name.endswith(".npy"):
                    (folder / name).parent.mkdir(exist_ok=True)
                    _link(revision, cached(cache, entry["md5"]), folder / name, out)
        revision.root.parent.mkdir(parents=True, exist_ok=True)
        try:
            tmp.rename(revision.root)
        except OSError:
            if not revision.root.is_dir():  # else another process made the same folder
                raise
    finally:
        if tmp.exists():
            shutil.rmtree(tmp)


def _link_all(revision: Revision, files: Mapping[str, Path], folder: Path) -> None:
    tmp = folder.parent / f"tmp-{uuid.uuid4().hex}"
    try:
        for below in sorted({str(Path(f).parent) for f in files}):
            (tmp / below).mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            _link(revision, path, tmp / name, str(folder.name))
        tmp.rename(folder)
    finally:
        if tmp.exists():
            shutil.rmtree(tmp)


def _link(revision: Revision, source: Path, target: Path, what: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise RevisionError(_gone(revision, what)) from None
    except OSError:  # a cache on another file system
        shutil.copyfile(source, target)


def _git(project: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _show(project: Path, commit: str, path: str) -> str | None:
    return _git(project, "show", f"{commit}:./{path}")
