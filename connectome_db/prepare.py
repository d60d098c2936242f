"""From a project and a stage to units with keys: what every process computes alike before any work is done."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db import plans, volumes
from connectome_db.codedigest import code_digest
from connectome_db.config import Project
from connectome_db.errors import ConfigError, RunError, StageError
from connectome_db.geometry import Box, box_of
from connectome_db.inputs import Inputs, load_inputs
from connectome_db.networks import registry
from connectome_db.provenance import FORMAT, digest, unit_keys
from connectome_db.spec import RAW_INPUTS, AnyStage, Found, Params, Plan, Rows, Volume

KINDS = {"ffn": "ffn"}
"""Task of a stage's network -> the kind that its architecture says; others are "unet"."""
_MEANT = {"ffn": "a flood-filling network", "unet": "a network from image to probabilities"}
_CODE = {"ffn": "networks.ffn", "unet": "networks.inference"}
"""Where the code of a kind starts."""


@dataclass(frozen=True)
class Model:
    """The network that a stage's parameters name, or any region's override."""

    folder: Path
    id: str
    digest: str


@dataclass(frozen=True)
class Prepared:
    """A stage ready to run: its plan, its units' keys and effective parameters, and what went into them.

    `variants` are the distinct effective parameters; `variant` int64[N] says which one each unit has.
    """

    project: Project
    stage: AnyStage
    plan: Plan
    keys: list[str]
    inputs: Inputs
    variants: tuple[Params, ...]
    variant: npt.NDArray[np.int64]
    models: Mapping[str, Model]
    code_digest: str

    @property
    def keys_digest(self) -> str:
        """One digest of all keys: equal in every process that plans the same work."""
        return digest("keys", self.keys)

    def params(self, i: int) -> Params:
        """Effective parameters of unit `i`."""
        return self.variants[int(self.variant[i])]

    def layout(self, volume: Volume) -> volumes.VolumeLayout:
        """How one of the stage's volumes lies on disk."""
        if self.plan.block_vx is None:
            raise StageError(f"stage {self.stage.name}: {volume.name}: a volume needs a plan of blocks")
        return volumes.layout(volume, self.plan.bounds, self.plan.block_vx, self.project.voxel_nm)

    def params_digest(self, i: int) -> str:
        """Digest of the effective parameters of unit `i`."""
        return params_digest(self.params(i))

    def model(self, i: int) -> Model | None:
        """The model of unit `i`."""
        return self.model_of(self.params(i))

    def model_of(self, params: Params) -> Model | None:
        """The model that some effective parameters name."""
        return self.models.get(str(getattr(params, "model", ""))) if self.stage.network else None


def params_digest(params: Params) -> str:
    """Digest of parameter values. How a network is called is left out: keys have the network's own digest."""
    return digest("params", params.model_dump(mode="json", exclude=set(params.networks)))


def code_roots(stage: AnyStage) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Where a stage's code digest starts: modules of the package, and files of a user's own stage."""
    roots = (_CODE[KINDS.get(stage.network, "unet")],) if stage.network is not None else ()
    module = stage.compute.__module__
    if module.startswith("connectome_db."):
        return (module.removeprefix("connectome_db."), *roots), ()
    return roots, (Path(inspect.getfile(stage.compute)),)


def stage_code(stage: AnyStage) -> str:
    """Code digest of a stage: its module's closure, and inference where it uses a network."""
    roots, files = code_roots(stage)
    return code_digest(*roots, files=files)


def find_model(project: Project, stage: AnyStage, params: Params) -> Model:
    """The model that the parameter `model` names: the project's `models/` first, then those of the package."""
    name = getattr(params, "model", None)
    if not name:
        raise ConfigError(f"{stage.name}: needs a network for {stage.network!r}, and its parameter `model` names none")
    folder = registry.find_model(str(name), [project.root / "models", registry.BUNDLED])
    kind, wanted = registry.read_architecture(folder).get("kind", "unet"), KINDS.get(stage.network or "", "unet")
    if kind != wanted:
        raise ConfigError(
            f"{stage.name}.model {name!r}: wanted {_MEANT[wanted]} (kind {wanted!r}), got kind {kind!r}; name another "
            "one, see `connectome models`"
        )
    return Model(folder, registry.model_id(folder), registry.model_digest(folder))


def overridden(cores: npt.NDArray[np.int64], boxes: Sequence[Box]) -> npt.NDArray[np.bool_]:
    """Which units have parameters of which override: bool[N, K] of cores int64[N, 6] that touch each of K boxes."""
    hits = np.zeros((len(cores), len(boxes)), dtype=bool)
    for k, box in enumerate(boxes):
        six = np.asarray(box.flat(), dtype=np.int64)
        hits[:, k] = ((cores[:, :3] < six[3:]) & (six[:3] < cores[:, 3:])).all(axis=1)
    return hits


def _variants(project: Project, stage: AnyStage, plan: Plan) -> tuple[tuple[Params, ...], npt.NDArray[np.int64]]:
    """Distinct effective parameters, and which each unit has. Later overrides win where regions overlap."""
    base = project.params[stage.name]
    overrides = project.overrides.get(stage.name, ())
    if overrides and plan.kind == "once":
        raise ConfigError(
            f"overrides.{stage.name}.{overrides[0].region}: stage {stage.name} runs once for the whole dataset, so a "
            "region cannot change its parameters. Override an earlier stage, or set it for the whole dataset."
        )
    hits = overridden(plan.cores, [o.box for o in overrides])
    combos, index = np.unique(hits, axis=0, return_inverse=True)
    found = []
    for combo in combos:
        values: dict[str, Any] = base.model_dump()
        for o, hit in zip(overrides, combo, strict=True):
            if hit:
                values |= o.values
        found.append(type(base)(**values))
    return tuple(found), np.asarray(index, dtype=np.int64).reshape(-1)


def _check_overrides(project: Project, stage: AnyStage, plan: Plan, found: Found) -> None:
    """Refuse an override of what cuts a stage into units: the plan ignores it, while ids count voxels of blocks."""
    base = project.params[stage.name]
    for o in project.overrides.get(stage.name, ()):
        if not plans.same(plan, stage.plan(found, type(base)(**(base.model_dump() | dict(o.values))))):
            raise ConfigError(
                f"overrides.{stage.name}.{o.region}: {', '.join(o.values)}: decides how {stage.name} is cut into units "
                f"or what they read, so it holds for the whole dataset: set it under `{stage.name}:`"
            )


def _check_plan(stage: AnyStage, plan: Plan) -> None:
    for r in plan.reads:
        if r.input not in stage.inputs:
            raise StageError(f"stage {stage.name}: its plan reads {r.input!r}, which is not in inputs {stage.inputs}")
    unread = set(stage.inputs) - {r.input for r in plan.reads}
    if unread:
        raise StageError(f"stage {stage.name}: its plan does not read {sorted(unread)}; drop them from inputs")
    if any(isinstance(o, Volume) for o in stage.outputs) and plan.kind != "blocks":
        raise StageError(f"stage {stage.name}: a volume output needs a `blocks` plan, got {plan.kind}")
    for o in stage.outputs:
        if isinstance(o, Rows) and o.part == "section" and plan.kind != "once":
            raise StageError(f"stage {stage.name}: output {o.name}: part='section' is for `once` stages only")


@dataclass(frozen=True)
class Outline:
    """A stage's plan and all that decides its units' keys, except what lies in its inputs.

    `variants`, `variant`, `models`: see `Prepared`. `effective` has one digest per variant: its parameters and model.
    """

    project: Project
    stage: AnyStage
    plan: Plan
    variants: tuple[Params, ...]
    variant: npt.NDArray[np.int64]
    models: Mapping[str, Model]
    effective: tuple[str, ...]
    code_digest: str

    def keys(self, upstream: Sequence[tuple[str, list[bytes]]], rows: npt.NDArray[np.int64] | None = None) -> list[str]:
        """Keys of all units, or of those at `rows`; `upstream` has, per read of the plan, the digests of just these."""
        variant = self.variant if rows is None else self.variant[rows]
        return unit_keys(
            self.plan if rows is None else plans.only(self.plan, rows),
            stage=self.stage.name,
            voxel_nm=self.project.voxel_nm,
            code_digest=self.code_digest,
            model_digest=None,
            params_digests=[self.effective[v] for v in variant],
            upstream=upstream,
        )


def effective_digest(params: str, model: str | None) -> str:
    """Digest of a unit's effective parameters: that of their values and that of the model they name.

    The model is part of them as a digest, so an override may name another model.
    """
    return digest("effective", [params, model])


def outline(project: Project, stage: AnyStage, found: Found) -> Outline:
    """Plan a stage on the geometry of its inputs; what they hold is not asked."""
    plan = stage.plan(found, project.params[stage.name])
    if len(plan) == 0:
        raise RunError(f"stage {stage.name}: nothing to do: its plan has no units (inputs: {', '.join(stage.inputs)})")
    _check_plan(stage, plan)
    variants, variant = _variants(project, stage, plan)
    _check_overrides(project, stage, plan, found)
    models: dict[str, Model] = {}
    variant_model: list[Model | None] = [None] * len(variants)
    if stage.network:
        for k, p in enumerate(variants):
            variant_model[k] = models.setdefault(str(getattr(p, "model", "")), find_model(project, stage, p))
        base = find_model(project, stage, project.params[stage.name])
        models.setdefault(str(getattr(project.params[stage.name], "model", "")), base)
    effective = [effective_digest(params_digest(p), m.digest if m else None)
                 for p, m in zip(variants, variant_model, strict=True)]  # fmt: skip
    return Outline(project, stage, plan, variants, variant, models, tuple(effective), stage_code(stage))


def prepare(project: Project, stage: AnyStage) -> Prepared:
    """Look at the inputs, plan, and compute every unit's key. Reads geometry and digests only, no voxels."""
    inputs = load_inputs(project, stage)
    o = outline(project, stage, inputs.found(project))
    keys = o.keys(inputs.upstream(o.plan))
    return Prepared(project, stage, o.plan, keys, inputs, o.variants, o.variant, o.models, o.code_digest)


def identity(project: Project, stage: AnyStage) -> dict[str, Any]:
    """Everything but its input data that decides a stage's result: what `identity/<stage>.json` holds for DVC."""
    base = project.params[stage.name]
    model = find_model(project, stage, base).id if stage.network else None
    overrides = []
    for o in project.overrides.get(stage.name, ()):
        params = type(base)(**(base.model_dump() | dict(o.values)))
        item: dict[str, Any] = {"region": o.region, "box_vx": list(o.box.flat()), "params": dict(o.values)}
        if stage.network and "model" in o.values:
            item["model_id"] = find_model(project, stage, params).id
        overrides.append(item)
    return {
        "stage": stage.name,
        "format": FORMAT,
        "code_digest": stage_code(stage),
        "model_id": model,
        "params": json.loads(base.model_dump_json()),
        "overrides": overrides,
        "voxel_nm": list(project.voxel_nm),
    } | _reading(project, stage)


def _reading(project: Project, stage: AnyStage) -> dict[str, Any]:
    """For stages that read raw data: everything in params.yaml that decides what is read from which file."""
    if not RAW_INPUTS & set(stage.inputs):
        return {}
    return {"reading": json.loads(project.dataset.model_dump_json(exclude={"name", "voxel_nm"}))}


def core(plan: Plan, i: int) -> Box:
    """Core box of unit `i`."""
    return box_of(plan.cores[i])


def name(prepared: Prepared, i: int) -> str:
    """How a unit is called in messages."""
    return f"{prepared.stage.name} {plans.unit(prepared.plan, i)}"
