"""From a proposal of a diagnosis to an edit of params.yaml: the region, and the parameters that hold in it alone.

Nothing here runs or writes anything; `remedy_run` does. Only stages of blocks and faces can have other parameters in a
region: those that run once (`reconcile`, `agglomerate`, `graph`) have one set for the whole dataset.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectome_db.config import Project, RegionSpec, load, parse_yaml, region_box
from connectome_db.diagnosis.cells import KNOWN, BoxNm
from connectome_db.diagnosis.remedies.region_metrics import DEFAULT
from connectome_db.errors import ConfigError, nearest
from connectome_db.geometry import Box
from connectome_db.regional import regions, yamltext
from connectome_db.spec import AnyStage

FORMAT = 1
MOST_TRIES = 32
Values = Mapping[str, Any]
"""Parameter ("segment.boundary") -> value."""


@dataclass(frozen=True)
class Wish:
    """What is to be remedied: a region, the metric and the reference it is judged by, and the parameters proposed.

    `reference_nm` None is all the rest. `new` says that params.yaml does not have the region yet.
    """

    region: str
    spec: RegionSpec
    new: bool
    metric: str
    reference: str
    reference_nm: BoxNm | None
    values: Values
    verdict: str | None
    title: str


@dataclass(frozen=True)
class Remedy:
    """A remedy that is ready to be made: the edit of params.yaml, which holds `values` in the region."""

    project: Project
    wish: Wish
    box: Box
    values: Values
    change: regions.Change

    @property
    def box_nm(self) -> BoxNm:
        """The whole voxels of the region, in nm."""
        return box_nm(self.box, self.project)

    @property
    def target(self) -> Project:
        """The project as it will be."""
        return load(self.project.root, self.project.stages, self.change.new)


def box_nm(box: Box, project: Project) -> BoxNm:
    """A box of voxels (z, y, x) in nm."""
    z0, y0, x0, z1, y1, x1 = (float(v * s) for v, s in zip(box.flat(), project.voxel_nm * 2, strict=True))
    return z0, y0, x0, z1, y1, x1


def read_diagnosis(path: Path) -> dict[str, Any]:
    """The JSON of `connectome diagnose --json`. Raises ConfigError when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `connectome diagnose --json {path}` writes one") from None
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: wanted the JSON of `connectome diagnose --json`, cannot read it: {e}") from None
    if not isinstance(found, dict) or not isinstance(found.get("proposals"), list):
        raise ConfigError(f"{path}: wanted a diagnosis with `proposals`, got something else; make it again with "
                          "`connectome diagnose --json`")  # fmt: skip
    if found.get("format") != FORMAT:
        raise ConfigError(
            f"{path}: wanted a diagnosis of format {FORMAT}, got {found.get('format')!r}; make it again with "
            "`connectome diagnose --json`"
        )
    return found


def wish_of(
    project: Project, diagnosis: Mapping[str, Any], proposal: str, region: str | None = None, metric: str | None = None
) -> Wish:
    """What a proposal of a diagnosis asks for. `region` is another name for its box.

    Raises ConfigError for an unknown proposal, for one that changes no parameter of a region, and when params.yaml has
    another region of that name.
    """
    known = {str(p.get("id")): p for p in diagnosis["proposals"] if isinstance(p, dict)}
    if proposal not in known:
        raise ConfigError(f"the diagnosis has no proposal {proposal!r}{nearest(proposal, known)}")
    chosen = known[proposal]
    try:
        where = chosen.get("region") or diagnosis["region"]
        spec = regions.spec_of([float(v) for v in where["box_nm"]], "nm", f"proposal {proposal}: wanted a box_nm")
        values = {f"{o['stage']}.{p}": v for o in chosen.get("overrides") or () for p, v in o["params"].items()}
        reference = diagnosis["reference"]
        there = _six(reference["box_nm"]) if reference.get("box_nm") else None
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ConfigError(
            f"proposal {proposal}: wanted region, reference and overrides as `connectome diagnose --json` writes them; "
            f"{type(e).__name__}: {e}"
        ) from None
    name = region or where.get("name") or "suspect"
    new = _must_add(project, name, spec)
    asked = metric or diagnosis.get("metric") or DEFAULT
    title = str(chosen.get("title") or proposal)
    return Wish(name, spec, new, _known_metric(asked), str(reference.get("name") or "rest"), there, values,
                diagnosis.get("verdict"), title)  # fmt: skip


def wish_for(project: Project, region: str, metric: str | None = None) -> Wish:
    """A region of params.yaml without a diagnosis, against all the rest. Raises ConfigError when it is unknown."""
    spec = regions.region(project, region).spec
    return Wish(region, spec, False, _known_metric(metric or DEFAULT), "rest", None, {}, None, "")


def _six(values: Sequence[Any]) -> BoxNm:
    z0, y0, x0, z1, y1, x1 = (float(v) for v in values)
    return z0, y0, x0, z1, y1, x1


def _known_metric(name: str) -> str:
    if name not in KNOWN:
        raise ConfigError(f"unknown metric {name!r}{nearest(name, KNOWN)}")
    return name


def _must_add(project: Project, name: str, spec: RegionSpec) -> bool:
    known = regions.regions(project)
    if name not in known:
        return True
    wanted = region_box(name, spec, project.voxel_nm)
    if known[name].box != wanted:
        raise ConfigError(
            f"region {name!r} is in params.yaml with another box, {known[name].box} voxels; the proposal is about "
            f"{wanted}. Give its region another name with --region"
        )
    return False


def assigned(project: Project, texts: Sequence[str], models: Sequence[str] = ()) -> dict[str, Any]:
    """Values from `stage.parameter=value` and models from `stage=name`. Raises ConfigError for what is neither."""
    found = {}
    for text in texts:
        target, equals, value = text.partition("=")
        if not equals or "." not in target:
            raise ConfigError(f"--set {text!r}: wanted stage.parameter=value, e.g. segment.boundary=0.45")
        found[target.strip()] = _yaml(value, f"--set {text!r}")
    for text in models:
        stage, equals, name = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--model {text!r}: wanted stage=name, e.g. segment=mine-affinity")
        if project.stage(stage.strip()).network is None:
            uses = [s.name for s in project.stages if s.network]
            raise ConfigError(f"--model {text!r}: stage {stage.strip()} uses no network; {' and '.join(uses)} do")
        found[f"{stage.strip()}.model"] = name.strip()
    return found


def _yaml(text: str, where: str) -> Any:
    try:
        return parse_yaml(f"value: {text}\n", "value")["value"]
    except (ConfigError, KeyError):
        raise ConfigError(f"{where}: {text!r} cannot be read as a YAML value") from None


def plan(project: Project, wish: Wish, values: Values) -> Remedy:
    """The edit that gives the region these values. A value that the rest has anyway takes the region's override back.

    Raises ConfigError for what `regions.add` and `regions.set_values` refuse, and when nothing would change.
    """
    if not values:
        raise ConfigError(
            f"{wish.title or wish.region}: no parameter to change. Run its commands as they are, or give values with "
            "--set stage.parameter=value, --model stage=name or --sweep stage.parameter=value,value"
        )
    path, old = project.root / regions.FILE, regions.read_text(project.root)
    text, done, warnings = old, [], []
    if wish.new:
        added = regions.add(project, wish.region, wish.spec)
        text, done, warnings = added.new, list(added.done), list(added.warnings)
    own = regions.regions_of(text, project.voxel_nm)[wish.region].overrides
    back = [target for target, v in values.items() if _usual(project, target, v, own)]
    for target in back:
        stage, _, parameter = target.partition(".")
        text = yamltext.drop(text, ("overrides", stage, wish.region, parameter), regions.FILE)
        done.append(f"{target}: the override of {wish.region} is taken back; {yamltext.inline(values[target])} again")
    texts = [f"{target}={yamltext.inline(v)}" for target, v in values.items() if target not in back]
    if texts:
        made = regions.set_values(project, wish.region, texts, text=text)
        text, done, warnings = made.new, [*done, *made.done], [*warnings, *made.warnings]
    change = regions.Change(path, old, text, tuple(done), tuple(dict.fromkeys(warnings)))
    remedy = Remedy(project, wish, region_box(wish.region, wish.spec, project.voxel_nm), dict(values), change)
    if remedy.target.overrides == project.overrides:
        raise ConfigError(f"region {wish.region}: {', '.join(texts or back)} is what params.yaml says already")
    return remedy


def _usual(project: Project, target: str, value: Any, own: Mapping[str, Values]) -> bool:
    """Whether the region overrides the parameter, and the value is the one of the whole dataset."""
    stage, _, parameter = target.partition(".")
    if parameter not in own.get(stage, {}):
        return False
    usual = getattr(project.params[project.stage(stage).name], parameter)
    return bool((list(usual) if isinstance(usual, tuple) else usual) == value)


def sweep(project: Project, texts: Sequence[str], fixed: Values) -> list[dict[str, Any]]:
    """All combinations of `stage.parameter=value,value,...`, each with the `fixed` values. At most MOST_TRIES."""
    axes = []
    for text in texts:
        target, equals, some = text.partition("=")
        stage, dot, parameter = target.strip().partition(".")
        if not equals or not dot or not some.strip():
            raise ConfigError(f"--sweep {text!r}: wanted stage.parameter=value,value, e.g. segment.boundary=0.4,0.45")
        known = type(project.params[project.stage(stage).name]).model_fields
        if parameter not in known:
            raise ConfigError(f"--sweep {text!r}: no parameter {stage}.{parameter}{nearest(parameter, known)}")
        each = _yaml(f"[{some}]", f"--sweep {text!r}")
        axes.append([(target.strip(), v) for v in each])
    made = [{**fixed, **dict(combination)} for combination in itertools.product(*axes)]
    if len(made) > MOST_TRIES:
        raise ConfigError(f"--sweep: {len(made)} combinations; wanted at most {MOST_TRIES}, each of which is a run")
    return made


def doses(project: Project, values: Values, n: int) -> list[dict[str, Any]]:
    """`n` tries that go the proposed way by less and by more: from 2/n of the proposed change up to twice it.

    Only numbers have a dose. Raises ConfigError when there is none among the values.
    """
    base = {target: _now(project, target) for target in values}
    graded = [t for t, v in values.items() if _number(v) and _number(base[t]) and v != base[t]]
    if not graded:
        raise ConfigError(f"--try {n}: none of {', '.join(values) or 'no values'} is a number that differs from the "
                          "rest; name the values to try with --sweep")  # fmt: skip
    made = []
    for share in (2 * np.arange(1, n + 1) / n).tolist():
        dose = dict(values)
        for t in graded:
            value = base[t] + (values[t] - base[t]) * share
            dose[t] = round(value) if isinstance(base[t], int) else round(float(value), 6)
        if dose not in made:
            made.append(dose)
    return made


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _now(project: Project, target: str) -> Any:
    name, _, parameter = target.partition(".")
    stage: AnyStage = project.stage(name)
    known = type(project.params[stage.name]).model_fields
    if parameter not in known:
        raise ConfigError(f"{target}: no such parameter{nearest(parameter, known)}")
    return getattr(project.params[stage.name], parameter)
