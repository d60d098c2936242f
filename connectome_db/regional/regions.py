"""Named boxes of params.yaml and what they override: edited without touching anything else, and checked before.

Every edit is a function from a project to a `Change`, which holds the new text of params.yaml. The text has been loaded
as a project by then, so what `apply` writes is valid. Nothing here computes or runs anything.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from connectome_db.config import Project, RegionSpec, load, parse_yaml, region_box
from connectome_db.errors import ConfigError, nearest
from connectome_db.geometry import Box
from connectome_db.regional import yamltext
from connectome_db.regional.effect import check_bounds, check_override, conflicts
from connectome_db.regional.neuroglancer import SixNm, choose, read_boxes
from connectome_db.spec import NM3

FILE = "params.yaml"
FLAGS = Path("qa") / "flags.json"
"""Boxes that a check of the data found suspicious: [{"flag", "box_nm", "severity", "evidence"}, ...]."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Region:
    """A region as the file has it; `box` in voxels, `overrides` stage -> parameter -> value."""

    name: str
    spec: RegionSpec
    box: Box
    overrides: Mapping[str, Mapping[str, Any]]

    def box_nm(self, voxel_nm: NM3) -> SixNm:
        """(z0, y0, x0, z1, y1, x1) in nm of the whole voxels that the region covers."""
        z0, y0, x0, z1, y1, x1 = (round(v * s, 6) for v, s in zip(self.box.flat(), voxel_nm * 2, strict=True))
        return z0, y0, x0, z1, y1, x1

    def exact_nm(self, voxel_nm: NM3) -> SixNm:
        """The box in nm as it was given."""
        return self.spec.box_nm or self.box_nm(voxel_nm)

    def settings(self) -> list[str]:
        """Its overrides as `stage.parameter = value`."""
        rows = ((stage, p, v) for stage, values in self.overrides.items() for p, v in values.items())
        return [f"{stage}.{p} = {yamltext.inline(v)}" for stage, p, v in rows]

    def elsewhere(self, project: Project) -> list[str]:
        """The values that its overrides replace, in the order of `settings`."""
        return [shown(getattr(project.params[stage], p)) for stage, values in self.overrides.items() for p in values]


@dataclass(frozen=True)
class Change:
    """An edit of params.yaml: its text before and after, what it does, and what is worth knowing about it."""

    path: Path
    old: str
    new: str
    done: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())


def read_text(root: Path) -> str:
    """params.yaml as it is, line ends included."""
    with (root / FILE).open(encoding="utf-8", newline="") as f:
        return f.read()


def apply(change: Change) -> None:
    """Replace params.yaml by the new text. Raises ConfigError when the file has been changed since it was read."""
    path = change.path.resolve()
    if read_text(path.parent) != change.old:
        raise ConfigError(f"{path}: was changed by someone else meanwhile; nothing was written. Run the command again")
    tmp = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with tmp.open("w", encoding="utf-8", newline="") as f:
            f.write(change.new)
        shutil.copymode(path, tmp)
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def regions_of(text: str, voxel_nm: NM3) -> dict[str, Region]:
    """The regions that a params.yaml names, in its order. Overrides are as written, not checked against stages."""
    document = parse_yaml(text, FILE)
    overrides: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, by_region in (document.get("overrides") or {}).items():
        for region, values in (by_region or {}).items():
            overrides.setdefault(str(region), {})[str(stage)] = values
    found = {}
    for key, values in (document.get("regions") or {}).items():
        try:
            spec = RegionSpec.model_validate(values)
        except ValidationError as e:
            raise ConfigError(f"{FILE}: regions.{key}: {e.errors()[0]['msg']}") from e
        found[str(key)] = Region(str(key), spec, region_box(str(key), spec, voxel_nm), overrides.get(str(key), {}))
    return found


def regions(project: Project) -> dict[str, Region]:
    """The project's regions, in the order of params.yaml."""
    return regions_of(read_text(project.root), project.voxel_nm)


def region(project: Project, name: str) -> Region:
    """A region by name. Raises ConfigError that names the nearest one."""
    known = regions(project)
    if name not in known:
        raise ConfigError(f"no region {name!r}{nearest(name, known)}")
    return known[name]


def box_text(six: Sequence[float]) -> str:
    """Six numbers as `z 0:240, y 0:512, x 0:512`."""
    return ", ".join(f"{axis} {six[k]:.10g}:{six[k + 3]:.10g}" for k, axis in enumerate("zyx"))


def parse_box(text: str, unit: str) -> RegionSpec:
    """A box from "z0,y0,x0,z1,y1,x1"; `unit` is "nm" or "vx". Raises ConfigError unless it is six numbers."""
    wanted = f"--box-{unit} {text!r}: wanted six {'whole ' if unit == 'vx' else ''}numbers z0,y0,x0,z1,y1,x1 in {unit}"
    try:
        six = tuple((int if unit == "vx" else float)(v) for v in text.strip("[]() ").split(","))
    except ValueError as e:
        raise ConfigError(wanted) from e
    return spec_of(six, unit, wanted)


def spec_of(six: Sequence[float], unit: str, where: str, note: str = "") -> RegionSpec:
    """A RegionSpec from (z0, y0, x0, z1, y1, x1). Raises ConfigError, which starts with `where`, if they are no box."""
    if len(six) != 6 or not all(math.isfinite(v) for v in six):
        raise ConfigError(f"{where}; got {len(six)}: {', '.join(map(str, six))}")
    if unit == "vx":
        a0, b0, c0, a1, b1, c1 = (int(v) for v in six)
        return RegionSpec(box_vx=(a0, b0, c0, a1, b1, c1), note=note)
    z0, y0, x0, z1, y1, x1 = (round(float(v), 6) for v in six)
    return RegionSpec(box_nm=(z0, y0, x0, z1, y1, x1), note=note)


def read_flag(project: Project, flag: str) -> RegionSpec:
    """The box of a flag that a quality check raised (qa/flags.json), its evidence as the note."""
    path = project.root / FLAGS
    if not path.is_file():
        raise ConfigError(f"--from-flag {flag}: no flags were raised: there is no {FLAGS} in {project.root}")
    try:
        rows = {str(row["flag"]): row for row in json.loads(path.read_text(encoding="utf-8"))}
        if flag not in rows:
            raise ConfigError(f"{FLAGS}: no flag {flag!r}{nearest(flag, rows)}")
        six, evidence = [float(v) for v in rows[flag]["box_nm"]], str(rows[flag].get("evidence", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ConfigError(
            f"{path}: wanted a list of {{flag, box_nm, severity, evidence}}, cannot read it ({type(e).__name__}: {e})"
        ) from e
    return spec_of(six, "nm", f"{FLAGS}: {flag}: wanted box_nm with six numbers", evidence)


def read_drawn(project: Project, source: str, annotation: str | None = None) -> RegionSpec:
    """A box drawn in Neuroglancer (see `neuroglancer.read_boxes`), its description as the note.

    Edges that are a whole or half number of voxels but for the noise of float32 become that number, or rounding
    outward would add a layer of voxels.
    """
    known = {n: r.exact_nm(project.voxel_nm) for n, r in regions(project).items()}
    box = choose(read_boxes(source), annotation, known)
    six = []
    for nm, step in zip(box.box_nm, project.voxel_nm * 2, strict=True):
        half = round(2 * nm / step) / 2
        noise = 4 * float(np.spacing(np.float32(max(abs(half), 1))))
        six.append(half * step if abs(nm / step - half) <= noise else nm)
    return spec_of(six, "nm", str(box), "" if box.id in known else box.description)


def add(project: Project, name: str, spec: RegionSpec, *, replace: bool = False) -> Change:
    """Name a box. With `replace`, a region of that name gets the new box and keeps its overrides (and its note if none
    is given). Raises ConfigError for a bad name, a name that is taken, an empty box, or one outside the volume."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"region name {name!r}: wanted letters, digits, - and _, starting with a letter or digit")
    known = regions(project)
    if name in known and not replace:
        raise ConfigError(
            f"region {name!r} is there already: {known[name].box} voxels. Take another name, or --replace"
        )
    note = " ".join(spec.note.split()) or (known[name].spec.note if name in known else "")
    box = region_box(name, spec, project.voxel_nm)
    warnings = check_bounds(project, name, box)
    six = spec.box_vx or tuple(int(v) if v == int(v) else v for v in spec.box_nm or ())
    values: dict[str, Any] = {"box_vx" if spec.box_vx else "box_nm": list(six)}
    values |= {"note": note} if note else {}
    old = read_text(project.root)
    new = yamltext.put(old, ("regions", name), values, FILE)
    loaded = load(project.root, project.stages, new)
    done = f"region {name}: {box} voxels ({' x '.join(map(str, box.shape))})"
    return Change(project.root / FILE, old, new, (done,), (*warnings, *conflicts(loaded, name)))


def remove(project: Project, name: str) -> Change:
    """Forget a region and every override that names it; `done` says which went."""
    found = region(project, name)
    old = new = read_text(project.root)
    done = []
    for stage, values in found.overrides.items():
        new = yamltext.drop(new, ("overrides", stage, name), FILE)
        done += [f"override {stage}.{p}: {yamltext.inline(v)} removed" for p, v in values.items()]
    new = yamltext.drop(new, ("regions", name), FILE)
    load(project.root, project.stages, new)
    return Change(project.root / FILE, old, new, (f"region {name} removed", *done))


def set_values(project: Project, name: str, assignments: Sequence[str], *, text: str | None = None) -> Change:
    """Override parameters in a region: each assignment is "stage.parameter=value", the value as YAML.

    `text` is params.yaml with edits that are not written yet; by default it is the file.

    Raises ConfigError for what is no parameter, for a value that the stage refuses, for a stage that runs once for the
    whole dataset, for a parameter that decides how a stage is cut into units, and for a model that cannot be found.
    """
    old = new = read_text(project.root) if text is None else text
    known = regions_of(old, project.voxel_nm)
    if name not in known:
        raise ConfigError(f"no region {name!r}{nearest(name, known)}")
    found = known[name]
    chosen: dict[str, dict[str, Any]] = {}
    for assigned in assignments:
        stage, parameter, value = _assignment(project, assigned)
        chosen.setdefault(stage, {})[parameter] = value
        new = yamltext.put(new, ("overrides", stage, name, parameter), value, FILE)
    loaded = load(project.root, project.stages, new)
    done, warnings = [], []
    for stage, values in chosen.items():
        check_override(loaded, name, stage, {**found.overrides.get(stage, {}), **values})
        base = project.params[stage]
        here = type(base)(**(base.model_dump() | values))
        for parameter, value in values.items():
            _same_type(f"{stage}.{parameter}", value, getattr(here, parameter))
            usual = getattr(base, parameter)
            done.append(f"{stage}.{parameter} = {yamltext.inline(value)} in {name}; {shown(usual)} elsewhere")
            if getattr(here, parameter) == usual:
                warnings.append(f"{stage}.{parameter} is {shown(usual)} for the whole dataset anyway")
    return Change(project.root / FILE, old, new, tuple(done), (*warnings, *conflicts(loaded, name)))


def unset(project: Project, name: str, what: Sequence[str]) -> Change:
    """Take overrides back: each of `what` is "stage.parameter", or "stage" for all of a stage's."""
    found = region(project, name)
    left = {stage: dict(values) for stage, values in found.overrides.items()}
    old = new = read_text(project.root)
    done = []
    for text in what:
        stage, _, parameter = text.partition(".")
        if stage not in left:
            raise ConfigError(f"region {name} overrides nothing of stage {stage!r}{nearest(stage, left)}")
        if parameter and parameter not in left[stage]:
            raise ConfigError(f"region {name} does not override {text!r}{nearest(parameter, left[stage])}")
        gone = {parameter: left[stage].pop(parameter)} if parameter else left.pop(stage)
        path = ("overrides", stage, name, parameter) if parameter else ("overrides", stage, name)
        new = yamltext.drop(new, path, FILE)
        if not left.get(stage, True):
            del left[stage]
        done += [f"override {stage}.{p}: {yamltext.inline(v)} removed from {name}" for p, v in gone.items()]
    load(project.root, project.stages, new)
    return Change(project.root / FILE, old, new, tuple(done))


def _same_type(where: str, given: Any, taken: Any) -> None:
    """Refuse what pydantic would turn into something else without a word: `true` for a number, "80" for 80."""
    for kind in (bool, str):
        if isinstance(given, kind) != isinstance(taken, kind):
            raise ConfigError(f"{where}: wanted a {type(taken).__name__}, got {given!r}")


def shown(value: Any) -> str:
    """A parameter's value as params.yaml would have it."""
    return yamltext.inline(list(value) if isinstance(value, tuple) else value)


def _assignment(project: Project, text: str) -> tuple[str, str, Any]:
    target, equals, value = text.partition("=")
    stage_name, dot, parameter = target.strip().partition(".")
    if not equals or not dot:
        raise ConfigError(f"{text!r}: wanted stage.parameter=value, e.g. segment.seed_window_nm=60")
    stage = project.stage(stage_name)
    known = type(project.params[stage.name]).model_fields
    if parameter not in known:
        raise ConfigError(f"{stage.name}.{parameter}: no such parameter{nearest(parameter, known)}")
    try:
        parsed = parse_yaml(f"value: {value}\n", "value")["value"]
    except (ConfigError, KeyError) as e:
        raise ConfigError(
            f"{text!r}: {value!r} cannot be read as a YAML value; quote text that has : or # in it"
        ) from e
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise ConfigError(f"{text!r}: wanted a finite number")
    return stage.name, parameter, parsed
