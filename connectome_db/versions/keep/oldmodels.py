"""Networks as they were at a revision: found where they lie today, or brought back from git or DVC by another name."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML

from connectome_db.config import Project
from connectome_db.errors import ConfigError, RevisionError
from connectome_db.networks import registry
from connectome_db.revisions import Revision, cache_folder, cached, lock_outs

MODELS = "models"
Source = str | Path
"""Where a file's bytes are: the id of a git object, or a file."""


@dataclass(frozen=True)
class OldModel:
    """A network that params.yaml can name: `name`, its ID as units record it, and the files still to be put there."""

    name: str
    id: str
    files: Mapping[str, Source] = field(default_factory=dict, repr=False)


def find(project: Project, revision: Revision, named: str, model_id: str) -> OldModel:
    """The network that was called `named` and had the ID "<name>@<12 hex>" at a revision.

    Raises RevisionError when it is neither here today, nor in git or DVC's cache at the revision.
    """
    wanted = model_id.rpartition("@")[2]
    search = [project.root / MODELS, registry.BUNDLED]
    for folder in _folders(named, search):
        if registry.model_digest(folder).startswith(wanted):
            name = named if _is(named, folder, search) else folder.name
            if _is(name, folder, search):
                return OldModel(name, model_id)
            return OldModel(_new_name(named, wanted), model_id, {p.name: p for p in folder.iterdir() if p.is_file()})
    files = _files(project, revision, named if len(Path(named).parts) > 1 else f"{MODELS}/{named}")
    if registry.ARCHITECTURE not in files or registry.WEIGHTS not in files:
        raise RevisionError(
            f"model {model_id}, which {revision.name} used, is not here today, nor in git or DVC's cache at "
            f"{revision.name}. Put its folder at {MODELS}/{_new_name(named, wanted)} and run this again"
        )
    return OldModel(_new_name(named, wanted), model_id, files)


def write(project: Project, model: OldModel) -> Path:
    """Put the files of a network into `models/<name>`, in one rename. Raises RevisionError when they are another's."""
    final = project.root / MODELS / model.name
    if not model.files:
        return final
    tmp = project.state / "tmp" / f"model-{uuid.uuid4().hex}"
    try:
        for name, source in model.files.items():
            (tmp / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp / name).write_bytes(_bytes(project, source))
        found = registry.model_digest(tmp)
        if not found.startswith(model.id.rpartition("@")[2]):
            raise RevisionError(f"{model.name}: wanted {model.id}, but git and DVC have {found[:12]} under that name")
        final.parent.mkdir(exist_ok=True)
        tmp.rename(final)
    finally:
        if tmp.exists():
            shutil.rmtree(tmp)
    return final


def _new_name(named: str, digest: str) -> str:
    name = PurePosixPath(named).name
    return name if name.endswith(f"-{digest}") else f"{name}-{digest}"


def _is(name: str, folder: Path, search: list[Path]) -> bool:
    try:
        return registry.find_model(name, search) == folder
    except ConfigError:
        return False


def _folders(named: str, search: list[Path]) -> Iterator[Path]:
    """Networks that are here today: first the one of that name, then all others."""
    with suppress(ConfigError):
        yield registry.find_model(named, search)
    for root in search:
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if (folder / registry.ARCHITECTURE).is_file() and (folder / registry.WEIGHTS).is_file():
                yield folder


def _files(project: Project, revision: Revision, folder: str) -> dict[str, Source]:
    """Files of a folder of the project at a revision, from git and from what DVC tracks: name below it -> source."""
    found: dict[str, Source] = {}
    for line in _git(project.root, "ls-tree", "-r", "-z", str(revision.commit), "--", folder).split("\0"):
        kind, _, path = line.partition("\t")
        if path.startswith(f"{folder}/") and kind.split()[1] == "blob":
            found[path.removeprefix(f"{folder}/")] = kind.split()[2]
    cache = cache_folder(project.root)
    for out, md5 in _tracked(project, revision):
        if f"{folder}/".startswith(f"{out}/") or out.startswith(f"{folder}/"):
            for path, digest in _listed(cache, out, md5):
                if path.startswith(f"{folder}/") and (file := cached(cache, digest)).is_file():
                    found[path.removeprefix(f"{folder}/")] = file
    return found


def _tracked(project: Project, revision: Revision) -> Iterator[tuple[str, str]]:
    """What DVC tracks at a revision, outputs of stages and `.dvc` files: path in the project and digest."""
    if lock := revision.text("dvc.lock"):
        yield from lock_outs(lock, f"dvc.lock at {revision.name}").items()
    for path in _git(project.root, "ls-tree", "-r", "-z", "--name-only", str(revision.commit)).split("\0"):
        if path.endswith(".dvc"):
            document = YAML(typ="safe", pure=True).load(revision.text(path) or "") or {}
            for out in document.get("outs") or []:
                if "md5" in out:
                    yield str(PurePosixPath(path).parent / out["path"]), str(out["md5"])


def _listed(cache: Path, out: str, md5: str) -> Iterator[tuple[str, str]]:
    """The files of one output of DVC: path in the project and digest; none when its listing is not in the cache."""
    if not md5.endswith(".dir"):
        yield out, md5
    elif (listing := cached(cache, md5)).is_file():
        for entry in json.loads(listing.read_text()):
            yield f"{out}/{entry['relpath']}", str(entry["md5"])


def _bytes(project: Project, source: Source) -> bytes:
    if isinstance(source, Path):
        return source.read_bytes()
    return subprocess.run(
        ["git", "-C", str(project.root), "cat-file", "blob", source], capture_output=True, check=True
    ).stdout


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(f"`git {arguments[0]}` failed in {root}: {done.stderr.strip()}")
    return done.stdout
