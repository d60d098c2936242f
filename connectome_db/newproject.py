"""Make a project: params.yaml, launch.yaml, dvc.yaml, a git and a DVC repository around raw tiles."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from connectome_db import config, dvcfile, paramsfile
from connectome_db.errors import ConfigError, RunError, nearest
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList
from connectome_db.manifest import origin_of, read_manifest
from connectome_db.networks import registry
from connectome_db.networks.ffn import read_config
from connectome_db.spec import NM3, AnyStage
from connectome_db.stages.flood import FloodParams

LAUNCH = """\
# How work is started. Not hashed: nothing here can change a result.
ranks: 0                          # workers; 0 runs in one process
mpiexec: [mpiexec, -n, "{n}"]     # SLURM: [srun, -n, "{n}"]
store: .connectome/store          # the unit store, on the same file system as the project
allow_missing: false              # go on without tiles that cannot be used
strict: false                     # refuse uncommitted changes, and hash every unit again before it is used
"""
MARGIN_PX = 48
"""The tissue starts this far from the origin, so that small shifts of sections reach into no other row of blocks."""
DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = "{links}"
"""
"""DVC's settings of a project, as `dvc config` would write them one process at a time."""
FICLONE = 0x40049409
"""Linux: make a file that shares the blocks of another."""
GITIGNORE = "/.connectome/\n/raw/\n/truth/\n/.venv/\n*.tmp\n"


def run(folder: Path, *command: str) -> None:
    """Run a tool in a folder. Raises RunError with its last words when it fails."""
    quiet = os.environ | {"DVC_NO_ANALYTICS": "1"}  # before a project's settings say so, DVC would report `dvc init`
    done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        raise RunError(f"`{' '.join(command)}` failed in {folder}: {(done.stderr or done.stdout).strip()[-2000:]}")


def model_changes(stages: tuple[AnyStage, ...], family: str, method: str = "affinity") -> dict[str, dict[str, Any]]:
    """Which model each network stage uses, for a family of models ("phantom": phantom-affinity, phantom-cleft).

    `method` is that of `segment`. With "ffn", `segment` works in the blocks of `flood`, whose bodies it takes over; the
    flood-filling network is chosen by `bring_ffn` or `bundled_ffn`.
    """
    known = sorted(p.name for p in registry.BUNDLED.iterdir() if p.is_dir()) if registry.BUNDLED.is_dir() else []
    families = sorted({n.partition("-")[0] for n in known})
    if family not in families:
        raise ConfigError(
            f"model family {family!r}: none of that name comes with the package{nearest(family, families)}"
        )
    changes: dict[str, dict[str, Any]] = {} if method == "affinity" else {"segment": {"method": method}}
    if method == "ffn":
        blocks = FloodParams().model_dump(include={"block_vx", "halo_vx", "apron_vx"})
        changes["segment"] |= blocks
        for name in ("overlap", "score", "resegment"):
            changes[name] = {"block_vx": blocks["block_vx"]}
        changes["overlap"]["depth_vx"] = blocks["apron_vx"]
    for stage in stages:
        if stage.network:
            name = f"{family}-{stage.network}"
            # A family without a network for a task falls back on the default; `connectome init` says which.
            if name in known:
                changes[stage.name] = {"model": name, **changes.get(stage.name, {})}
    return changes


def bundled_ffn(family: str) -> dict[str, dict[str, Any]]:
    """What it changes, by stage, to fill with the flood-filling network of a family that comes with the package.

    It splits much under the published rule that a voxel is not raised again, so that is off. A family without one is a
    ConfigError.
    """
    name = f"{family}-ffn-lite"
    if not (registry.BUNDLED / name).is_dir():
        raise ConfigError(
            "--method ffn: wanted --ffn-model as well, the folder of a flood-filling network; "
            "`connectome models import-ffn` or `connectome train ffn` makes one (one for fib25 comes with the package)"
        )
    return _asking(registry.BUNDLED / name, disco_seed_threshold=-1.0)


def _asking(model: Path, **more: Any) -> dict[str, dict[str, Any]]:
    """Parameters of the stages that ask a flood-filling network: its name, and how far around a contact it can move."""
    radius_vx = tuple(max(extent - 1, 1) for extent in read_config(model).fov_vx)  # half a window, and half of one more
    asked = {"model": model.resolve().name, **more}
    return {"flood": asked, "resegment": {**asked, "radius_vx": radius_vx}}


def bring_ffn(root: Path, model: Path) -> dict[str, dict[str, Any]]:
    """Copy the folder of a flood-filling network into the project-to-be at `root`; returns what that changes, by stage.

    A folder that is no such model, or a project that exists, is a ConfigError, and nothing is written.
    """
    if (root / "params.yaml").exists():
        raise ConfigError(f"{root} is a project already (it has params.yaml); choose another folder")
    changes = _asking(model)
    registry.read_weights(model)
    target = root / "models" / model.resolve().name
    if target.resolve() != model.resolve():
        shutil.copytree(model, target, dirs_exist_ok=True)
    return changes


def create(
    root: Path,
    *,
    name: str,
    manifest: str,
    voxel_nm: NM3,
    stages: tuple[AnyStage, ...],
    changes: Mapping[str, Mapping[str, Any]],
    tile_overlap_px: tuple[int, int] | None = None,
    section: int | None = None,
    value_range: tuple[int, int] | None = None,
) -> config.Project:
    """Write the project's files and make its repositories. Existing params.yaml is an error: nothing is overwritten."""
    if (root / "params.yaml").exists():
        raise ConfigError(f"{root} is a project already (it has params.yaml); choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    found = read_manifest(
        root / manifest,
        pixel_nm=(voxel_nm[1], voxel_nm[2]),
        overlap_px=tile_overlap_px,
        section=section,
        value_range=value_range,
    )
    dataset = config.Dataset(
        name=name,
        voxel_nm=voxel_nm,
        manifest=manifest,
        origin_px=(origin_of(found)[0] - MARGIN_PX, origin_of(found)[1] - MARGIN_PX),
        tile_overlap_px=tile_overlap_px,
        section=section,
        value_range=value_range,
    )
    return _set_up(root, dataset, stages, changes)


def create_imported(
    root: Path,
    *,
    name: str,
    synapses: SynapseList,
    voxel_nm: NM3,
    stages: tuple[AnyStage, ...],
    annotations: tuple[AnnotationList, ...] = (),
    skeletons: SkeletonFolder | None = None,
) -> config.Project:
    """A project around a list of synapses that was made elsewhere. Existing params.yaml is an error."""
    if (root / "params.yaml").exists():
        raise ConfigError(f"{root} is a project already (it has params.yaml); choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    dataset = config.Dataset(
        name=name, voxel_nm=voxel_nm, synapses=synapses, annotations=annotations, skeletons=skeletons
    )
    return _set_up(root, dataset, stages, {})


def _set_up(
    root: Path, dataset: config.Dataset, stages: tuple[AnyStage, ...], changes: Mapping[str, Mapping[str, Any]]
) -> config.Project:
    """Write the files and make the repositories."""
    (root / "params.yaml").write_text(paramsfile.render(dataset, stages, changes))
    (root / "launch.yaml").write_text(LAUNCH)
    (root / ".gitignore").write_text(GITIGNORE)
    (root / "queries").mkdir(exist_ok=True)
    project = config.load(root, stages)
    dvcfile.write(project)
    dvcfile.write_identity(project)
    if not (root / ".git").exists():
        run(root, "git", "init", "-q")
    if not (root / ".dvc").exists():
        dvc(root, "init", "-q")
        (root / ".dvc" / "config").write_text(DVC_CONFIG.format(links=cache_type(root)))
    commit(root, f"Start project {dataset.name}")
    return project


def cache_type(folder: Path) -> str:
    """The kinds of link by which DVC's cache, data/ and the unit store share their bytes, best first.

    DVC takes a file into its cache by the first kind, or else copies it: "reflink,hardlink" on a file system that
    cannot clone would hold everything twice.
    """
    return "reflink,hardlink,copy" if _clones(folder) else "hardlink,reflink,copy"


def _clones(folder: Path) -> bool:
    """Whether the file system can make a file that shares its blocks with another (btrfs, xfs)."""
    with tempfile.TemporaryFile(dir=folder) as a, tempfile.TemporaryFile(dir=folder) as b:
        a.write(b"x")
        a.flush()
        try:
            fcntl.ioctl(b.fileno(), FICLONE, a.fileno())
        except OSError:
            return False
        return True


def commit(root: Path, message: str, *, new_files: bool = True) -> None:
    """Commit everything that is not ignored, or only what git knows already; nothing to commit is fine."""
    run(root, "git", "add", "." if new_files else "-u")
    known = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False).returncode == 0
    who = [] if known else ["-c", "user.name=connectome", "-c", "user.email=connectome@localhost"]
    if subprocess.run(["git", "diff", "--cached", "--quiet"], cwd=root, check=False).returncode:
        run(root, "git", *who, "commit", "-q", "-m", message)


def dvc(root: Path, *arguments: str) -> None:
    """Run DVC of this interpreter in a project, quietly."""
    run(root, sys.executable, "-m", "dvc", *arguments)


def repro(root: Path, *targets: str, to: IO[str] | None = None) -> None:
    """`dvc repro` in a project, showing what it prints (`to` another stream). Raises RunError when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command, env = [sys.executable, "-m", "dvc", "repro", "-q", *targets], os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=root, env=env, check=False, stdout=to)
    if done.returncode:
        raise RunError(f"`dvc repro` failed in {root} with code {done.returncode}; its messages are above")


def as_named(manifest: Path, root: Path) -> str:
    """The manifest's path as params.yaml will name it: relative to the project when inside it, else absolute."""
    absolute = manifest.resolve()
    try:
        return str(absolute.relative_to(root.resolve()))
    except ValueError:
        return str(absolute)


def need_tools() -> None:
    """Raise RunError unless git is there."""
    if shutil.which("git") is None:
        raise RunError("git is not on PATH: it is needed to record revisions; install git")
