"""A project on disk: params.yaml (hashed), launch.yaml (not hashed), and where its folders are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from connectome_db.errors import ConfigError, nearest
from connectome_db.geometry import Box, box_of
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList
from connectome_db.qa.settings import QaParams
from connectome_db.spec import NM3, AnyStage, Params

STATE = ".connectome"
"""Folder of a project's local state: store, locks, caches, catalog. Not in git."""


class Dataset(BaseModel):
    """What the tiles are and where they are listed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name of the dataset, in file names and reports."""
    voxel_nm: tuple[float, float, float]
    """Voxel size (z, y, x) in nm: section thickness, pixel height, pixel width."""
    manifest: str = "raw/manifest.csv"
    """The list of tiles, relative to the project (CSV, JSON, a layout text file, or a directory of images)."""
    origin_px: tuple[int, int] = (0, 0)
    """Stage position (y, x) in pixels that is the origin of every frame. Fixed when the project is made."""
    tile_overlap_px: tuple[int, int] | None = None
    """Overlap (y, x) of neighbouring tiles, for directories of images without positions."""
    section: int | None = None
    """Section number, for directories of images that do not say it."""
    value_range: tuple[int, int] | None = None
    """Grey values of 16-bit tiles that become 0 and 255."""
    synapses: SynapseList | None = None
    """For a connectome made elsewhere: the list of synapses it is imported from, instead of tiles."""
    annotations: tuple[AnnotationList, ...] = ()
    """For the same: tables that say something about its neurons."""
    skeletons: SkeletonFolder | None = None
    """For the same: a folder of skeletons."""


class RegionSpec(BaseModel):
    """A named box. Exactly one of the two boxes is given: (z0, y0, x0, z1, y1, x1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    box_nm: tuple[float, float, float, float, float, float] | None = None
    box_vx: tuple[int, int, int, int, int, int] | None = None
    note: str = ""


class Launch(BaseModel):
    """How ranks are started. Not hashed: it cannot change a result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ranks: int = Field(default=0, ge=0)
    """Workers; 0 runs in this process."""
    flood_batch: int = Field(default=1, ge=1)
    """Windows that a flood-filling network is asked at once: 1 is best on CPUs."""
    units_at_once: int = Field(default=1, ge=1)
    """Units of `flood` and `resegment` that one worker has under way, so that their windows share a batch: about twice
    flood_batch for a GPU, 1 for CPUs."""
    executor: Literal["serial", "mpi", "dask"] | None = None
    """None: serial for 0 ranks, else mpi."""
    mpiexec: tuple[str, ...] = ("mpiexec", "-n", "{n}")
    """Command before `python`; {n} becomes ranks + 1 (the coordinator). `srun -n {n}` on SLURM."""
    store: str = f"{STATE}/store"
    """The unit store; on the same file system as the project."""
    catalog: str | None = None
    """SQLAlchemy URL of the catalog of runs; None: SQLite in the project."""
    allow_missing: bool = False
    """Go on although some tiles of the manifest cannot be used."""
    strict: bool = False
    """Refuse a dirty git tree, and re-hash every unit that is linked into data/."""
    same_environment: bool = False
    """Recompute units that were made in another environment."""


@dataclass(frozen=True)
class Override:
    """Parameters of one stage that a region changes; `box` in voxels, `values` as in params.yaml."""

    region: str
    box: Box
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """A loaded project."""

    root: Path
    dataset: Dataset
    params: Mapping[str, Params]
    overrides: Mapping[str, tuple[Override, ...]]
    launch: Launch
    stages: tuple[AnyStage, ...]
    qa: QaParams = field(default_factory=QaParams)
    """What is expected of the data; in no unit's key."""

    @property
    def stages_module(self) -> str:
        """The module whose `STAGES` these are: the package's pipeline, or a user's own."""
        if any(s.name == "listing" for s in self.stages):
            return "connectome_db.stages.imported"
        if any(s.name == "flood" for s in self.stages):
            return "connectome_db.stages.flooded"
        own = {m for s in self.stages if not (m := s.compute.__module__).startswith("connectome_db.")}
        return sorted(own)[0] if own else "connectome_db.stages.pipeline"

    def launched(self, **changes: Any) -> Project:
        """The same project with other launch settings."""
        return replace(self, launch=_parse(Launch, self.launch.model_dump() | changes, "launch"))

    def stage(self, name: str) -> AnyStage:
        """A stage by name. Raises ConfigError that names the nearest one."""
        for s in self.stages:
            if s.name == name:
                return s
        raise ConfigError(f"no stage {name!r}{nearest(name, [s.name for s in self.stages])}")

    @property
    def store(self) -> Path:
        """Folder of the unit store."""
        return self.root / self.launch.store

    @property
    def state(self) -> Path:
        """Folder of local state."""
        return self.root / STATE

    @property
    def manifest(self) -> Path:
        """The list of tiles."""
        return self.root / self.dataset.manifest

    def data(self, stage: str) -> Path:
        """Output folder of a stage."""
        return self.root / "data" / stage

    def provenance(self, stage: str) -> Path:
        """Provenance folder of a stage."""
        return self.root / "provenance" / stage

    @property
    def source(self) -> str:
        """What the pipeline starts from, as params.yaml names it: the manifest of tiles, or an imported list."""
        return self.dataset.synapses.file if self.dataset.synapses else self.dataset.manifest

    @property
    def voxel_nm(self) -> NM3:
        """Voxel size (z, y, x) in nm."""
        return self.dataset.voxel_nm


def find_root(start: Path) -> Path:
    """The project that `start` is in. Raises ConfigError when there is none."""
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise ConfigError(
        f"no params.yaml in {start} or above it, so this is no connectome project. "
        "Go to one, give --project, or make one with `connectome init`."
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as plain dicts. Raises ConfigError with the line of a syntax error."""
    return parse_yaml(path.read_text(), path.name)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """YAML text as plain dicts. Raises ConfigError that names the file `name` and the line of a syntax error."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {getattr(e, 'problem', e)}") from e
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: wanted `name: value` lines, got a {type(value).__name__}")
    return value


def is_imported(root: Path) -> bool:
    """True for a project whose connectome was made elsewhere (`dataset.synapses` in params.yaml)."""
    dataset = read_yaml(root / "params.yaml").get("dataset")
    return isinstance(dataset, dict) and dataset.get("synapses") is not None


def stages_of(root: Path) -> tuple[AnyStage, ...]:
    """The pipeline of a project, as its params.yaml says: `flood:` adds a flood-filling network."""
    # Imported here: this module is read by commands that never need a stage.
    if is_imported(root):
        from connectome_db.stages.imported import STAGES  # noqa: PLC0415
    elif "flood" in read_yaml(root / "params.yaml"):
        from connectome_db.stages.flooded import STAGES  # noqa: PLC0415
    else:
        from connectome_db.stages.pipeline import STAGES  # noqa: PLC0415
    return STAGES


def _parse(model: type[Any], values: object, where: str) -> Any:
    if not isinstance(values, dict | type(None)):
        raise ConfigError(f"{where}: wanted `name: value` lines, got {values!r}")
    try:
        return model(**(values or {}))
    except ValidationError as e:
        lines = []
        for problem in e.errors():
            at = ".".join(str(v) for v in problem["loc"])
            if problem["type"] == "extra_forbidden":
                lines.append(f"{where}.{at}: no such parameter{nearest(at, model.model_fields)}")
            elif problem["type"] == "missing":
                lines.append(f"{where}.{at}: is missing and has no default")
            else:
                lines.append(f"{where}.{at}: {problem['msg']}, got {problem['input']!r}")
        raise ConfigError("\n".join(lines)) from e


def region_box(name: str, spec: RegionSpec, voxel_nm: NM3) -> Box:
    """A region's box in voxels; nm are rounded outward to whole voxels."""
    if (spec.box_nm is None) == (spec.box_vx is None):
        raise ConfigError(f"regions.{name}: give exactly one of box_nm and box_vx (z0, y0, x0, z1, y1, x1)")
    if spec.box_vx is not None:
        box = box_of(spec.box_vx)
    else:
        nm = spec.box_nm or (0.0,) * 6
        lo = [math.floor(v / s + 1e-9) for v, s in zip(nm[:3], voxel_nm, strict=True)]
        hi = [math.ceil(v / s - 1e-9) for v, s in zip(nm[3:], voxel_nm, strict=True)]
        box = box_of([*lo, *hi])
    if box.empty:
        raise ConfigError(f"regions.{name}: the box is empty ({box}); wanted z0 < z1, y0 < y1, x0 < x1")
    return box


def _overrides(
    raw: object, regions: Mapping[str, Box], stages: Mapping[str, AnyStage], params: Mapping[str, Params]
) -> dict[str, tuple[Override, ...]]:
    if not isinstance(raw, dict | type(None)):
        raise ConfigError("overrides: wanted `stage: {region: {parameter: value}}`")
    found: dict[str, list[Override]] = {}
    for stage, by_region in (raw or {}).items():
        if stage not in stages:
            raise ConfigError(f"overrides.{stage}: no such stage{nearest(str(stage), stages)}")
        for region, values in (by_region or {}).items():
            if region not in regions:
                raise ConfigError(f"overrides.{stage}.{region}: no such region{nearest(str(region), regions)}")
            where = f"overrides.{stage}.{region}"
            if not isinstance(values, dict):
                raise ConfigError(f"{where}: wanted `parameter: value` lines, got {values!r}")
            _parse(type(params[stage]), params[stage].model_dump() | values, where)
            found.setdefault(stage, []).append(Override(str(region), regions[region], dict(values)))
    return {stage: tuple(items) for stage, items in found.items()}


def load(root: Path, stages: tuple[AnyStage, ...], params_text: str | None = None) -> Project:
    """Read a project's params.yaml and launch.yaml. Every unknown name is an error that names the nearest valid one.

    `params_text` stands in for what params.yaml holds now: to ask whether an edit would be valid before it is made.
    """
    by_name = {s.name: s for s in stages}
    values = read_yaml(root / "params.yaml") if params_text is None else parse_yaml(params_text, "params.yaml")
    known = {"dataset", "qa", "regions", "overrides", *by_name}
    for key in values:
        if key not in known:
            raise ConfigError(f"params.yaml: {key}: no such section{nearest(str(key), known)}")
    if "dataset" not in values:
        raise ConfigError("params.yaml: dataset: is missing (name and voxel_nm are needed)")
    dataset = _parse(Dataset, values["dataset"], "params.yaml: dataset")
    if min(dataset.voxel_nm) <= 0:
        raise ConfigError(f"params.yaml: dataset.voxel_nm: wanted three positive sizes in nm, got {dataset.voxel_nm}")
    params = {name: _parse(s.params, values.get(name), f"params.yaml: {name}") for name, s in by_name.items()}
    raw_regions = values.get("regions") or {}
    if not isinstance(raw_regions, dict):
        raise ConfigError("params.yaml: regions: wanted `name: {box_nm: [...]}`")
    regions = {
        str(n): region_box(str(n), _parse(RegionSpec, v, f"params.yaml: regions.{n}"), dataset.voxel_nm)
        for n, v in raw_regions.items()
    }
    launch_file = root / "launch.yaml"
    launch = _parse(Launch, read_yaml(launch_file) if launch_file.exists() else {}, "launch.yaml")
    overrides = _overrides(values.get("overrides"), regions, by_name, params)
    qa = _parse(QaParams, values.get("qa"), "params.yaml: qa")
    return Project(root, dataset, params, overrides, launch, stages, qa)
