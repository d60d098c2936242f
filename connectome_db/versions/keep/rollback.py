"""Give a region back the parameters and networks of an earlier revision, as an edit of params.yaml.

The values that held in the region then, by whatever way (the stage's own, or any override), become overrides of the
region over what is set today; values that are equal need none. The units come from the store when the stages run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db.config import STATE, Override, Project, RegionSpec, load, region_box
from connectome_db.errors import ConfigError, ConnectomeError, RevisionError, nearest
from connectome_db.geometry import Box, box_of
from connectome_db.prepare import find_model, overridden, stage_code
from connectome_db.provenance import FORMAT
from connectome_db.query.compare.changes import StageData, boxes_of, load_ledgers
from connectome_db.regional import regions, yamltext
from connectome_db.regional.effect import check_override, kind_of, plan_of
from connectome_db.revisions import Revision, open_revision
from connectome_db.spec import AnyStage
from connectome_db.versions.keep import oldmodels
from connectome_db.versions.keep.oldmodels import OldModel

UNDO = f"{STATE}/params.before-rollback.yaml"
"""params.yaml as it was before the last rollback, committed or not."""
Values = Mapping[str, Any]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StagePlan:
    """What is restored of one stage in the region.

    `values` held there at the revision; `set` are those that become overrides, `cleared` the overrides that go. `kept`
    says of each parameter that cannot be restored why; `recoded` that today's code is not the revision's.
    """

    stage: str
    values: Values
    set: Values
    cleared: tuple[str, ...]
    kept: Mapping[str, str]
    recoded: bool


@dataclass(frozen=True)
class Rollback:
    """A rollback that is ready to be made: `write` it, then run what changed, then compare (see `rollbackproof`)."""

    project: Project
    revision: Revision
    region: str
    box: Box
    stages: tuple[StagePlan, ...]
    models: tuple[OldModel, ...]
    change: regions.Change

    @property
    def target(self) -> Project:
        """The project as it will be."""
        return load(self.project.root, self.project.stages, self.change.new)


def plan(project: Project, region: str, to: str, stages: Sequence[str] = ()) -> Rollback:
    """Find out what to edit. Changes nothing.

    `stages` empty means all. Raises ConfigError for an unknown region or stage, or parameters that differed within the
    region; RevisionError when the revision, its data or a network of it is not here.
    """
    for name in stages:
        project.stage(name)
    revision = open_revision(project.root, to)
    if revision.commit is None:
        raise RevisionError(f"--to {to}: wanted a branch, tag or commit")
    spec, is_new = _spec(project, revision, region)
    box = region_box(region, spec, project.voxel_nm)
    text = old = regions.read_text(project.root)
    done: list[str] = []
    warnings: list[str] = []
    if is_new:
        given = {k: list(v) for k, v in (("box_vx", spec.box_vx), ("box_nm", spec.box_nm)) if v is not None}
        text = yamltext.put(text, ("regions", region), given | ({"note": spec.note} if spec.note else {}), regions.FILE)
        done.append(f"region {region}: {box} voxels, as at {revision.name}")
    then = load_ledgers(revision.root)
    plans: list[StagePlan] = []
    models: list[OldModel] = []
    for stage in project.stages:
        if stages and stage.name not in stages:
            continue
        if stage.name not in then:
            warnings.append(f"{stage.name} had not been run at {revision.name}: it stays as it is")
            continue
        found = _Stage(project, revision, region, box, stage, then[stage.name])
        if found.once:
            warnings += found.for_all()
            continue
        if (made := found.restored(models)) is not None:
            plans.append(made)
            text, lines = _edit(text, project, region, made, found.rivals)
            done += lines
            warnings += [f"{stage.name}.{p} stays {_now(project, stage, p)}: {why}" for p, why in made.kept.items()]
            if made.recoded:
                warnings.append(
                    f"the code of {stage.name} has changed since {revision.name}: its units are computed again with "
                    "today's code and cannot be equal to those of then"
                )
    change = regions.Change(project.root / regions.FILE, old, text, tuple(done), tuple(dict.fromkeys(warnings)))
    made_all = Rollback(
        project, revision, region, box, tuple(plans), tuple({m.name: m for m in models}.values()), change
    )
    _check(made_all)
    return made_all


def write(rollback: Rollback) -> list[Path]:
    """Put networks back and edit params.yaml, of which UNDO keeps a copy; returns the folders of new networks."""
    made = [oldmodels.write(rollback.project, m) for m in rollback.models if m.files]
    if rollback.change.new != rollback.change.old:
        rollback.project.state.mkdir(exist_ok=True)
        with (rollback.project.root / UNDO).open("w", encoding="utf-8", newline="") as f:
            f.write(rollback.change.old)
        regions.apply(rollback.change)
    return made


def _spec(project: Project, revision: Revision, region: str) -> tuple[RegionSpec, bool]:
    """The region's box at the revision (today's, if it did not exist then), and whether params.yaml must be told."""
    today = regions.regions(project)
    text = revision.text(regions.FILE)
    if text is None:
        raise RevisionError(f"no {regions.FILE} at {revision.name}")
    then = regions.regions_of(text, project.voxel_nm)
    if region not in then and region not in today:
        raise ConfigError(f"no region {region!r} today or at {revision.name}{nearest(region, {*then, *today})}")
    if region not in then:
        return today[region].spec, False
    if region not in today:
        return then[region].spec, True
    note = today[region].spec.note or then[region].spec.note
    return then[region].spec.model_copy(update={"note": note}), then[region].box != today[region].box


def effective(base: Values, overrides: Sequence[tuple[Box, Values]], cores: I64) -> tuple[list[dict[str, Any]], I64]:
    """Distinct parameters of units with cores int64[N, 6], and which each has: int64[N]. Later overrides win."""
    hits = overridden(cores, [box for box, _ in overrides])
    combos, index = np.unique(hits, axis=0, return_inverse=True)
    found: list[dict[str, Any]] = []
    which = np.zeros(len(combos), dtype=np.int64)
    for k, combo in enumerate(combos):
        values = dict(base)
        for (_, mine), hit in zip(overrides, combo, strict=True):
            values |= mine if hit else {}
        if values not in found:
            found.append(values)
        which[k] = found.index(values)
    return found, which[index.reshape(-1)]


def of_project(project: Project, stage: str) -> tuple[dict[str, Any], list[tuple[Box, Values]]]:
    """A stage's own parameters and its overrides, as plain values."""
    return plain(project, stage), [(o.box, o.values) for o in project.overrides.get(stage, ())]


def plain(project: Project, stage: str) -> dict[str, Any]:
    """A stage's own parameters as JSON values."""
    found: dict[str, Any] = json.loads(project.params[stage].model_dump_json())
    return found


def _now(project: Project, stage: AnyStage, parameter: str) -> str:
    return yamltext.inline(plain(project, stage.name).get(parameter))


class _Stage:
    """One stage at the revision and today, as far as the region goes."""

    def __init__(
        self, project: Project, revision: Revision, region: str, box: Box, stage: AnyStage, then: StageData
    ) -> None:
        self.project, self.revision, self.region, self.stage, self.then = project, revision, region, stage, then
        self.once = kind_of(project, stage) == "once"
        plan = None if self.once else plan_of(project, stage)
        cores = boxes_of(then.units, "core_") if plan is None else plan.cores
        self.box = box
        self.cores = cores[overridden(cores, [box])[:, 0]]
        overrides = project.overrides.get(stage.name, ())
        self.own: Values = next((o.values for o in overrides if o.region == region), {})
        self.rivals = [o for o in overrides if o.region != region and overridden(self.cores, [o.box]).any()]

    def for_all(self) -> list[str]:
        """What was different for the whole dataset, and so is no region's business."""
        then, now = dict(self.then.record["params"]), plain(self.project, self.stage.name)
        return [
            f"{self.stage.name}.{p} was {yamltext.inline(then[p])} at {self.revision.name} and is {yamltext.inline(v)} "
            "today: it holds for the whole dataset and stays"
            for p, v in now.items()
            if p in then and then[p] != v
        ]

    def restored(self, models: list[OldModel]) -> StagePlan | None:
        """What the region is to have; networks to bring back are added to `models`. None outside the region."""
        if not len(self.cores):
            return None
        then, now = self._values(), plain(self.project, self.stage.name)
        kept = {p: f"it did not exist at {self.revision.name}" for p in now if p not in then}
        for p in set(self.stage.params.networks) & then.keys():
            then[p] = self._network(str(then[p]), models)
        wanted = {}
        rival = {p for o in self.rivals for p in o.values}
        for p, value in then.items():
            if p not in now:
                continue  # it no longer exists, so the code is another one too
            if value == now[p] and p not in rival:
                continue
            if p not in self.stage.params.networks and value != now[p] and (why := self._refused(p, value)):
                kept[p] = why
                continue
            wanted[p] = value
        record = self.then.record
        recoded = record["code_digest"] != stage_code(self.stage) or record["format"] != FORMAT
        cleared = tuple(p for p in self.own if p not in wanted)
        values = {p: v for p, v in then.items() if p in now and p not in kept}
        return StagePlan(self.stage.name, values, wanted, cleared, kept, recoded)

    def _values(self) -> dict[str, Any]:
        """The parameters that held in the region at the revision. Raises ConfigError when they differed within it."""
        record = self.then.record
        overrides = [(box_of(o["box_vx"]), o["params"]) for o in record["overrides"]]
        found, _ = effective(record["params"], overrides, self.cores)
        if len(found) > 1:
            held = overridden(self.cores, [box for box, _ in overrides]).sum(axis=0)
            some = [o["region"] for o, n in zip(record["overrides"], held, strict=True) if 0 < n < len(self.cores)]
            raise ConfigError(
                f"region {self.region}: at {self.revision.name}, its units of {self.stage.name} had different "
                f"parameters, because {', '.join(some)} held in some of them only. Roll back a smaller region, or name "
                "the other stages with --stage"
            )
        return found[0]

    def _network(self, named: str, models: list[OldModel]) -> str:
        """The name under which today's project finds the network that `named` was then."""
        units = self.then.units
        inside = overridden(boxes_of(units, "core_"), [self.box])[:, 0]
        ids = sorted({str(m) for m, hit in zip(units["model_id"].to_pylist(), inside, strict=True) if hit and m})
        if len(ids) != 1:
            raise ConfigError(
                f"region {self.region}: at {self.revision.name}, its units of {self.stage.name} used {len(ids)} "
                f"networks ({', '.join(ids)}). Roll back a smaller region"
            )
        base = self.project.params[self.stage.name]
        try:
            today = find_model(self.project, self.stage, base)
            if today.id.rpartition("@")[2] == ids[0].rpartition("@")[2]:
                return str(getattr(base, "model", named))  # the same network, whatever it is called now
        except ConnectomeError:
            pass  # today's is not here; the revision's may be
        model = oldmodels.find(self.project, self.revision, named, ids[0])
        models.append(model)
        return model.name

    def _refused(self, parameter: str, value: Any) -> str:
        """Why a parameter cannot have this value in a region only; "" when it can."""
        try:
            check_override(self.project, self.region, self.stage.name, {parameter: value})
        except (ConnectomeError, ValueError) as e:
            return str(e).splitlines()[0].partition(": ")[2] or str(e)
        return ""


def _edit(
    text: str, project: Project, region: str, made: StagePlan, rivals: Sequence[Override]
) -> tuple[str, list[str]]:
    """params.yaml with the region's overrides of one stage as planned, parameter by parameter; and what was done."""
    own = next((o.values for o in project.overrides.get(made.stage, ()) if o.region == region), {})
    order = [o.region for o in project.overrides.get(made.stage, ())]
    path = ("overrides", made.stage, region)
    done = []
    if made.set and own and any(order.index(o.region) > order.index(region) for o in rivals):
        # Later overrides win, so the region's must come last where another one holds for its units.
        text = yamltext.put(yamltext.drop(text, path, regions.FILE), path, {**own}, regions.FILE)
        after = ", ".join(o.region for o in rivals)
        done.append(f"{made.stage}: the override of {region} now comes last, after {after}")
    for p in made.cleared:
        text = yamltext.drop(text, (*path, p), regions.FILE)
        done.append(f"{made.stage}.{p}: override {yamltext.inline(own[p])} removed")
    for p, value in made.set.items():
        if p not in own or own[p] != value:
            text = yamltext.put(text, (*path, p), value, regions.FILE)
            done.append(f"{made.stage}.{p} = {yamltext.inline(value)} in {region}; "
                        f"{yamltext.inline(plain(project, made.stage).get(p))} elsewhere")  # fmt: skip
    return text, done


def _check(rollback: Rollback) -> None:
    """The edit must give the region what it should have, and change nothing outside it and its box of today."""
    now, then = rollback.project, rollback.target
    boxes = [rollback.box, *(r.box for n, r in regions.regions(now).items() if n == rollback.region)]
    for made in rollback.stages:
        plan_now = plan_of(now, now.stage(made.stage))
        if plan_now is None:
            continue
        hits = overridden(plan_now.cores, boxes)
        inside, touched = hits[:, 0], hits.any(axis=1)
        before, b = effective(*of_project(now, made.stage), plan_now.cores)
        after, a = effective(*of_project(then, made.stage), plan_now.cores)
        wrong = [k for k in np.flatnonzero(inside) if any(after[a[k]][p] != v for p, v in made.values.items())]
        moved = [k for k in np.flatnonzero(~touched) if before[b[k]] != after[a[k]]]
        if wrong or moved:
            raise ConfigError(
                f"{regions.FILE}: overrides of {made.stage} cannot be written so that {rollback.region} gets back its "
                f"values and nothing else changes ({len(wrong)} units inside and {len(moved)} outside would be wrong); "
                "nothing was written"
            )
