"""`connectome demo`: raw tiles to a queryable connectome in one command, and an honest account of what came of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from connectome_db import assess, config, newproject, picture, summary
from connectome_db.errors import ConfigError, RunError, nearest
from connectome_db.networks.datasets import Split, load_split
from connectome_db.networks.sampling import Task
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.artefacts import Artefacts
from connectome_db.phantom.simulate import CropConfig, SimulateConfig, reacquire, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.phantom.training import phantom_split
from connectome_db.stages.pipeline import STAGES

SMALL_VX = (20, 320, 320)
MARK = ".connectome-demo"
"""A folder with this file was made by the demo, so the demo may replace it."""
QUESTIONS = (
    (
        "Which connections are strongest?",
        "SELECT pre, post, synapses, round(confidence, 2) AS confidence, round(weakest_merge, 2) AS weakest_merge\n"
        "FROM connection ORDER BY synapses DESC, confidence DESC, pre, post LIMIT 5",
    ),
    (
        "Which sections were hardest to align?",
        "SELECT section_a, section_b, count(*) AS points,\n"
        "       round(median(sqrt(residual_y_px**2 + residual_x_px**2)), 2) AS median_residual_px\n"
        "FROM alignment_residual WHERE weight > 0 GROUP BY ALL ORDER BY median_residual_px DESC LIMIT 5",
    ),
    (
        "What made each layer?",
        "SELECT stage, units, coalesce(model_id, '') AS model, left(code_digest, 10) AS code,\n"
        "       left(git_commit, 10) AS revision FROM stage_record ORDER BY stage",
    ),
)


def _shape(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(v) for v in text.split(","))
    except ValueError as e:
        raise ConfigError(f"--shape-vx {text!r}: wanted three whole numbers z,y,x, e.g. 48,480,480") from e
    return z, y, x


def artefacts(names: tuple[str, ...]) -> Artefacts:
    """Artefacts by name, with their default places and strengths."""
    known = Artefacts.model_fields
    chosen: dict[str, Any] = {}
    for name in names:
        if name not in known:
            raise ConfigError(f"artefact {name!r}: no such artefact{nearest(name, known)}")
        chosen[name] = {}
    return Artefacts.model_validate(chosen)


def simulate_phantom(folder: Path, seed: int, shape_vx: str, names: tuple[str, ...]) -> str:
    """Grow and image a phantom; says what is in it."""
    settings = SimulateConfig(
        tissue=TissueConfig(seed=seed, shape_vx=_shape(shape_vx)), acquire=AcquireConfig(artefacts=artefacts(names))
    )
    tissue = simulate(settings, folder)
    return (
        f"{folder}: tissue of {shape_vx} voxels at {tissue.config.voxel_nm} nm (z, y, x), "
        f"{tissue.synapses.num_rows} synapses; tiles in raw/, truth in truth/"
    )


def training_split(data: str, task: Task) -> Split:
    """Training data by name: "phantom", or "ac3=FOLDER", "fib25=FOLDER"."""
    name, _, folder = data.partition("=")
    if name == "phantom" and not folder:
        return phantom_split()
    if not folder:
        raise ConfigError(f"--data {data!r}: wanted phantom, ac3=FOLDER or fib25=FOLDER (task {task})")
    return load_split(name, Path(folder))


def _prepare_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise ConfigError(f"{folder} is not empty and was not made by the demo; choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("made by `connectome demo`, which may replace it\n")


def _acquire(folder: Path, data: Path | None, small: bool) -> tuple[str, tuple[float, float, float], str]:
    """Make raw/ and truth/; returns (name, voxel_nm, family of models)."""
    if data is None:
        shape = SMALL_VX if small else TissueConfig().shape_vx
        tissue = TissueConfig(shape_vx=shape)
        simulate(SimulateConfig(tissue=tissue), folder)
        z, y, x = tissue.voxel_nm
        return "phantom", (float(z), float(y), float(x)), "phantom"
    crop = CropConfig(z=(24, 40), y=(0, 512), x=(0, 512)) if small else CropConfig()
    reacquire(data / "ac3_z000-039.h5", folder, crop, synapses_csv=data / "synapses_z000-039.csv")
    z, y, x = crop.voxel_nm
    return "ac3", (float(z), float(y), float(x)), "ac3"


def repro(root: Path, *targets: str) -> None:
    """`dvc repro` in a project, showing what it prints. Raises RunError when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q", *targets], cwd=root, env=os.environ | {"PATH": path}, check=False
    )
    if done.returncode:
        raise RunError(f"`dvc repro` failed in {root} with code {done.returncode}; its messages are above")


def run_demo(folder: Path, *, data: Path | None, ranks: int, small: bool, out: Console) -> config.Project:
    """Make a project from a phantom (or AC3), run every stage under DVC, and print what came of it."""
    newproject.need_tools()
    if data is not None and not (data / "ac3_z000-039.h5").exists():
        raise ConfigError(f"--data {data}: wanted a folder with ac3_z000-039.h5 and synapses_z000-039.csv")
    begin = time.perf_counter()
    _prepare_folder(folder)
    out.rule("[bold]1  raw tiles", align="left")
    name, voxel_nm, family = _acquire(folder, data, small)
    out.print(f"  {name}: imaged as overlapping tiles with stage error, vignetting, shifts, rotation, warp "
              f"({time.perf_counter() - begin:.0f} s)", highlight=False)  # fmt: skip
    out.rule("[bold]2  project", align="left")
    project = newproject.create(
        folder,
        name=name,
        manifest="raw/manifest.csv",
        voxel_nm=voxel_nm,
        stages=STAGES,
        changes=newproject.model_changes(STAGES, family),
    )
    if ranks:
        path = folder / "launch.yaml"
        path.write_text(path.read_text().replace("ranks: 0 ", f"ranks: {ranks} "))
        newproject.commit(folder, f"Use {ranks} ranks")
    out.print(f"  {project.root}: params.yaml, dvc.yaml, git and DVC repositories", highlight=False)
    out.rule("[bold]3  dvc repro", align="left")
    clock = time.perf_counter()
    repro(folder)
    seconds = time.perf_counter() - clock
    newproject.commit(folder, "First connectome")
    out.rule("[bold]4  what came of it", align="left")
    held_out = (28, 40) if data is not None and not small else None
    measures, view = assess.assess(project, held_out, exhaustive=data is None)
    summary.layers(project, measures, seconds, out, held_out)
    summary.size(project, view, out)
    summary.one_edge(project, out)
    summary.questions(project, QUESTIONS, out)
    drawn = picture.draw(project, folder / "pictures" / "overview.png", f"{name}: image, objects, synapses")
    (folder / "measures.json").write_text(json.dumps([vars(m) for m in measures], indent=1, ensure_ascii=False) + "\n")
    out.rule("[bold]5  your turn", align="left")
    out.print(
        f"  picture   {drawn}\n  go there  cd {folder}\n"
        "  then      connectome status · connectome query · connectome tables · connectome trace edge PRE POST\n"
        f"  whole demo: {time.perf_counter() - begin:.0f} s",
        highlight=False,
    )
    return project
