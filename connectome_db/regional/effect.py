"""What a box in the volume does: the units that it touches, and whether an override in it can do what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db import ids, plans, volumes
from connectome_db.config import Override, Project
from connectome_db.errors import ConfigError, ConnectomeError, RunError
from connectome_db.geometry import Box
from connectome_db.inputs import load_inputs
from connectome_db.prepare import find_model
from connectome_db.regional.yamltext import inline
from connectome_db.spec import NM3, AnyStage, Extent, Found, Params, Plan


def volume_bounds(project: Project) -> Box | None:
    """The voxels of the aligned image; None where `render` has not been run."""
    folder = project.data("render") / "image"
    return volumes.open_info(folder).bounds if (folder / "info").is_file() else None


def check_bounds(project: Project, name: str, box: Box) -> tuple[str, ...]:
    """Warnings about a box that reaches out of the volume. Raises ConfigError when all of it lies outside.

    Says nothing before `render` has been run.
    """
    bounds = volume_bounds(project)
    if bounds is None or bounds.contains(box):
        return ()
    nm = [round(v * s, 3) for v, s in zip(bounds.flat(), project.voxel_nm * 2, strict=True)]
    there = f"{bounds} voxels, which is {nm[:3]} to {nm[3:]} nm (z, y, x)"
    if not bounds.touches(box):
        raise ConfigError(
            f"regions.{name}: the box {box} (voxels) lies outside the volume, {there}. Boxes are (z, y, x): are axes "
            "swapped, or nm taken as voxels?"
        )
    return (f"the box {box} reaches out of the volume ({there}); the part outside has no effect",)


def check_override(project: Project, name: str, stage_name: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigError when a stage cannot use `values` in a region: see `regions.set_values`."""
    stage = project.stage(stage_name)
    base = project.params[stage_name]
    plan = probe(stage, base, base, project.voxel_nm)
    if plan.kind == "once":
        raise ConfigError(
            f"overrides.{stage_name}.{name}: stage {stage_name} runs once for the whole dataset, so a region cannot "
            "change its parameters. Override an earlier stage, or set it for the whole dataset."
        )
    for parameter, value in values.items():
        one = type(base)(**(base.model_dump() | {parameter: value}))
        if not plans.same(plan, probe(stage, one, base, project.voxel_nm)):
            raise ConfigError(
                f"overrides.{stage_name}.{name}.{parameter}: decides how {stage_name} is cut into units or what they "
                f"read, so it holds for the whole dataset: set it under `{stage_name}:`"
            )
    if stage.network:
        find_model(project, stage, type(base)(**(base.model_dump() | dict(values))))


def probe(stage: AnyStage, params: Params, base: Params, voxel_nm: NM3) -> Plan:
    """The plan of a stage over a small made-up volume of three blocks of `base` along each axis."""
    z, y, x = (3 * n for n in getattr(base, "block_vx", (2, 64, 64)))
    codes = ids.pack([(k, 0, 0) for k in range(z)])
    boxes = np.asarray([[k, 0, 0, k + 1, y, x] for k in range(z)], dtype=np.int64)
    return stage.plan(Found(voxel_nm, {n: Extent(codes, boxes) for n in stage.inputs}), params)


def kind_of(project: Project, stage: AnyStage) -> str:
    """What the stage's units are, known before anything was run: "blocks", "sections", "once", ..."""
    base = project.params[stage.name]
    return probe(stage, base, base, project.voxel_nm).kind


def plan_of(project: Project, stage: AnyStage) -> Plan | None:
    """The stage's plan; None where its inputs are not there yet, so that its units are not known."""
    try:
        return stage.plan(load_inputs(project, stage).found(project), project.params[stage.name])
    except RunError:
        return None


def touched(plan: Plan, box: Box) -> npt.NDArray[np.bool_]:
    """bool[N]: the units whose core shares a voxel with `box`, which are those that an override there holds for."""
    six = np.asarray(box.flat(), dtype=np.int64)
    inside = (plan.cores[:, :3] < six[3:]) & (six[:3] < plan.cores[:, 3:])
    return np.asarray(inside.all(axis=1), dtype=np.bool_)


def units(project: Project, box: Box) -> list[tuple[str, int, int]]:
    """Per stage of blocks or faces whose inputs are there: (stage, units that `box` touches, units of the stage)."""
    found = []
    for stage in project.stages:
        plan = plan_of(project, stage) if kind_of(project, stage) in {"blocks", "faces"} else None
        if plan is not None:
            found.append((stage.name, int(touched(plan, box).sum()), len(plan)))
    return found


def conflicts(project: Project, name: str | None = None) -> list[str]:
    """Sentences on parameters that two regions set for the same units; with `name`, those that it takes part in."""
    found = []
    for stage_name, overrides in project.overrides.items():
        pairs = [
            (early, late, both)
            for j, late in enumerate(overrides)
            for early in overrides[:j]
            if name in {None, early.region, late.region} and (both := sorted(set(early.values) & set(late.values)))
        ]
        plan = _plan_if_known(project, stage_name) if pairs else None
        for early, late, both in pairs:
            if where := _shared(plan, early, late):
                found += [
                    f"{stage_name}.{p} is set by {early.region} ({inline(early.values[p])}) and by {late.region} "
                    f"({inline(late.values[p])}), which share {where}: {late.region} comes later in the file and wins"
                    for p in both
                ]
    return found


def _plan_if_known(project: Project, stage_name: str) -> Plan | None:
    try:
        return plan_of(project, project.stage(stage_name))
    except ConnectomeError:  # `connectome status` says what is wrong there
        return None


def _shared(plan: Plan | None, a: Override, b: Override) -> str:
    """What two overrides both hold for: whole units where the plan is known, else voxels; "" for nothing."""
    if plan is not None:
        n = int((touched(plan, a.box) & touched(plan, b.box)).sum())
        return f"{n} of {len(plan)} units" if n else ""
    common = a.box.clip(b.box)
    return "" if common.empty else f"the voxels {common}"
