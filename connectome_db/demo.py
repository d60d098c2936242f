"""`connectome demo`: raw tiles to a queryable connectome in one command, and an honest account of what came of it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from connectome_db import assess, config, newproject, summary
from connectome_db.errors import ConfigError, nearest
from connectome_db.networks.datasets import Split, load_split
from connectome_db.networks.sampling import Task
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.simulate import CropConfig, SimulateConfig, reacquire, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.phantom.training import phantom_split
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.trainingdata import project_split
from connectome_db.viewing import picture

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


MATCHABLE_PX = 40
"""Overlap of tiles that montage can rely on; small phantoms get a larger share of their small tiles."""


def acquisition(shape_vx: tuple[int, int, int], names: tuple[str, ...] = ()) -> AcquireConfig:
    """How a phantom of this shape is imaged, with artefacts by name in its middle section, at default strengths."""
    middle = shape_vx[0] // 2
    known: dict[str, dict[str, Any]] = {
        "staining": {"artefacts": {"staining": {}}},
        "missing_tile": {"artefacts": {"missing_tiles": [{"section": middle, "row": 0, "col": 1}]}},
        "fold": {"artefacts": {"fold": {"section": middle}}},
        "defocus": {"artefacts": {"defocused_section": middle}},
        "blank": {"artefacts": {"blank_section": middle}},
        "drift": {"drift_px_per_section": (0.4, -0.3)},
    }
    tile_px = max(1, (min(shape_vx[1:]) - 60) // 2)
    settings: dict[str, Any] = {"overlap": min(0.45, max(0.13, MATCHABLE_PX / tile_px)), "artefacts": {}}
    for name in names:
        if name not in known:
            raise ConfigError(f"artefact {name!r}: no such artefact{nearest(name, known)}")
        settings["artefacts"] |= known[name].get("artefacts", {})
        settings |= {k: v for k, v in known[name].items() if k != "artefacts"}
    return AcquireConfig.model_validate(settings)


def simulate_phantom(folder: Path, seed: int, shape_vx: str, names: tuple[str, ...]) -> str:
    """Grow and image a phantom; says what is in it."""
    shape = _shape(shape_vx)
    try:
        settings = SimulateConfig(tissue=TissueConfig(seed=seed, shape_vx=shape), acquire=acquisition(shape, names))
    except ValidationError as e:
        raise ConfigError(f"phantom: {e.errors()[0]['msg']} (shape {shape_vx}, seed {seed})") from e
    tissue = simulate(settings, folder)
    return (
        f"{folder}: tissue of {shape_vx} voxels at {tissue.config.voxel_nm} nm (z, y, x), "
        f"{tissue.synapses.num_rows} synapses; tiles in raw/, truth in truth/"
    )


def training_split(data: str, task: Task) -> Split:
    """Training data by name: "phantom", "ac3=FOLDER", "fib25=FOLDER", or "projects=FOLDER,FOLDER,…" with truth."""
    name, _, folder = data.partition("=")
    if name == "projects" and folder:
        return project_split([_project(Path(f)) for f in folder.split(",")])
    if name == "phantom" and not folder:
        return phantom_split()
    if not folder:
        raise ConfigError(
            f"--data {data!r}: wanted phantom, ac3=FOLDER, fib25=FOLDER or projects=FOLDER,FOLDER (task {task})"
        )
    return load_split(name, Path(folder))


def _project(folder: Path) -> config.Project:
    root = config.find_root(folder.resolve())
    return config.load(root, config.stages_of(root))


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
        simulate(SimulateConfig(tissue=tissue, acquire=acquisition(shape)), folder)
        z, y, x = tissue.voxel_nm
        return "phantom", (float(z), float(y), float(x)), "phantom"
    crop = CropConfig(z=(24, 40), y=(0, 512), x=(0, 512)) if small else CropConfig()
    reacquire(data / "ac3_z000-039.h5", folder, crop, synapses_csv=data / "synapses_z000-039.csv")
    z, y, x = crop.voxel_nm
    return "ac3", (float(z), float(y), float(x)), "ac3"


def _for_ac3(family: str) -> dict[str, dict[str, Any]]:
    """AC3's models and settings.

    The merge threshold was chosen on the training sections 0-27. The cleft threshold was chosen with the listed
    synapses of sections 28-39 in view, and the slant on the whole stack, so scores that depend on them flatter.
    """
    changes = newproject.model_changes(STAGES, family)
    changes.setdefault("synapses", {})["low"] = 0.7
    changes.setdefault("align", {})["slant_px"] = 0.5
    changes.setdefault("agglomerate", {})["threshold"] = 0.75
    return changes


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
        changes=newproject.model_changes(STAGES, family) if data is None else _for_ac3(family),
    )
    if ranks:
        path = folder / "launch.yaml"
        path.write_text(path.read_text().replace("ranks: 0 ", f"ranks: {ranks} "))
        newproject.commit(folder, f"Use {ranks} ranks")
    out.print(f"  {project.root}: params.yaml, dvc.yaml, git and DVC repositories", highlight=False)
    out.rule("[bold]3  dvc repro", align="left")
    clock = time.perf_counter()
    newproject.repro(folder)
    seconds = time.perf_counter() - clock
    newproject.commit(folder, "First connectome")
    out.rule("[bold]4  what came of it", align="left")
    held_out = (28, 40) if data is not None and not small else None
    measures, view = assess.assess(project, held_out, exhaustive=data is None)
    summary.layers(project, measures, seconds, out, held_out)
    summary.size(project, view, out)
    summary.one_edge(project, out)
    summary.questions(project, QUESTIONS, out)
    drawn = picture.draw(
        open_revision(folder), folder / "pictures" / "overview.png", f"{name}: image, objects, synapses"
    )
    (folder / "measures.json").write_text(json.dumps([vars(m) for m in measures], indent=1, ensure_ascii=False) + "\n")
    out.rule("[bold]5  your turn", align="left")
    out.print(
        f"  picture   {drawn}\n  go there  cd {folder}\n"
        "  then      connectome status · connectome query · connectome tables · connectome trace edge PRE POST\n"
        f"  whole demo: {time.perf_counter() - begin:.0f} s",
        highlight=False,
    )
    return project
