"""A stage planned anew from what its record says, and units of it computed again somewhere else.

Keys are a function of code, parameters, model, voxel size and input digests. So a record that was edited, and even
sealed again, gives other keys than those its units have.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from connectome_db.config import Override, Project
from connectome_db.errors import ConnectomeError, StoreError
from connectome_db.finish import stage_record
from connectome_db.geometry import box_of
from connectome_db.inputs import Inputs, load_inputs
from connectome_db.prepare import Model, Outline, Prepared, effective_digest, outline, params_digest, stage_code
from connectome_db.provenance import FORMAT
from connectome_db.spec import AnyStage


@dataclass(frozen=True)
class Derived:
    """A stage planned from its record. `keys_fit`: the units' keys follow from it.

    `prepared` has the keys of the record's code and model where these fit, or else today's. `reason` says why nothing
    could be derived; `prepared` is None then.
    """

    prepared: Prepared | None
    keys_fit: bool
    reason: str = ""


def recorded_project(project: Project, stage: AnyStage, record: Mapping[str, Any]) -> Project:
    """The project with the parameters that a stage was run with. Raises StoreError when they are no longer valid."""
    try:
        params = stage.params(**record["params"])
        overrides = tuple(Override(o["region"], box_of(o["box_vx"]), o["params"]) for o in record["overrides"])
        z, y, x = (float(v) for v in record["voxel_nm"])
    except (KeyError, TypeError, ValueError, ValidationError) as e:
        raise StoreError(f"its recorded parameters are not those of today's code: {e}") from e
    return replace(
        project,
        params={**project.params, stage.name: params},
        overrides={**project.overrides, stage.name: overrides},
        dataset=project.dataset.model_copy(update={"voxel_nm": (z, y, x)}),
    )


def derive(project: Project, stage: AnyStage, record: Mapping[str, Any], keys: list[str]) -> Derived:
    """Plan a stage from its record, its inputs being what lies in data/ now, and look whether its keys follow."""
    if record.get("format") != FORMAT:
        return Derived(None, False, f"its keys have format {record.get('format')}, and today's code has {FORMAT}")
    try:
        then = recorded_project(project, stage, record)
        inputs = load_inputs(then, stage)
        made = outline(then, stage, inputs.found(then))
    except ConnectomeError as e:
        return Derived(None, False, str(e).splitlines()[0])
    upstream = inputs.upstream(made.plan)
    tried = [_with(made, record, code=code, model=model) for code in (True, False) for model in (True, False)]
    for one in tried:
        if (found := one.keys(upstream)) == keys:
            return Derived(_prepared(one, inputs, found), keys_fit=True)
    one = tried[-1]
    return Derived(_prepared(one, inputs, one.keys(upstream)), keys_fit=False)


def _prepared(o: Outline, inputs: Inputs, keys: list[str]) -> Prepared:
    return Prepared(o.project, o.stage, o.plan, keys, inputs, o.variants, o.variant, o.models, o.code_digest)


def _with(o: Outline, record: Mapping[str, Any], *, code: bool, model: bool) -> Outline:
    """The outline with the recorded code digest and model, or with today's."""
    if code:
        o = replace(o, code_digest=str(record.get("code_digest")))
    name = str(getattr(o.project.params[o.stage.name], "model", ""))
    if model and name in o.models and record.get("model_digest"):
        known = Model(o.models[name].folder, str(record.get("model_id")), str(record["model_digest"]))
        models = {**o.models, name: known}
        used = [models[str(getattr(p, "model", ""))] for p in o.variants]
        effective = tuple(effective_digest(params_digest(p), m.digest) for p, m in zip(o.variants, used, strict=True))
        o = replace(o, models=models, effective=effective)
    return o


def same_code(prepared: Prepared) -> bool:
    """True when today's code is that of the plan's keys, so that computing a unit again means anything."""
    return stage_code(prepared.stage) == prepared.code_digest


def record_of(prepared: Prepared, record: Mapping[str, Any]) -> dict[str, Any]:
    """What record.json should say, as JSON reads it back; digests of what was made are those that `record` says."""
    made = stage_record(prepared, record.get("outputs") or {}, record.get("companions"))
    value: dict[str, Any] = json.loads(json.dumps(made))
    return value


@contextmanager
def scratch(project: Project) -> Iterator[Project]:
    """The project with a store of its own, empty and removed afterwards: what is computed there changes nothing."""
    folder = project.state / "tmp" / f"scratch-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield project.launched(store=str(folder.resolve()))
    finally:
        shutil.rmtree(folder)
