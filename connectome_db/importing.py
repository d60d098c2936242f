"""Bring a connectome that was made elsewhere into a project, as one version or as a series of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import config, dvcfile, newproject, paramsfile
from connectome_db.errors import ConfigError, SourceError
from connectome_db.lists import annotated, read
from connectome_db.lists.files import suffix_of
from connectome_db.lists.mapping import Given, Mapped, annotation_table, recognise, skeleton_folder
from connectome_db.lists.report import Report
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList
from connectome_db.regional import yamltext
from connectome_db.spec import NM3
from connectome_db.stages.imported import STAGES

UNKNOWN_NM: NM3 = (1.0, 1.0, 1.0)
"""Lists in nm, and lists without places, have no voxels; a project still needs a size for them."""


@dataclass(frozen=True)
class Import:
    """What one command imports: a list, tables of annotations, skeletons; each may be missing."""

    synapses: Mapped | None = None
    annotations: tuple[Mapped, ...] = ()
    skeletons: Mapped | None = None
    voxel_nm: NM3 = UNKNOWN_NM

    @property
    def parts(self) -> tuple[Mapped, ...]:
        """All of it."""
        return tuple(m for m in (self.synapses, *self.annotations, self.skeletons) if m is not None)


def choose(
    path: Path, root: Path, given: Given, *, annotated_by: Sequence[Path] = (), skeletons_in: Path | None = None
) -> Import:
    """What `path` and the files beside it are, and what their columns mean. Raises SourceError, ConfigError."""
    main = recognise(path, given, named=newproject.as_named(path, root))
    beside = Given(
        source=given.source, licence=given.licence, citation=given.citation, set_aside=given.set_aside,
        neuron=given.neuron, mixed_names=given.mixed_names, skeleton_unit=given.skeleton_unit,
        unit=None if main.kind == "synapses" else given.unit, voxel_nm=given.voxel_nm,
    )  # fmt: skip
    tables = [annotation_table(p, beside, newproject.as_named(p, root)) for p in annotated_by]
    if suffix_of(path) == ".graphml" and main.kind == "synapses":
        nodes = annotation_table(path, replace(beside, neuron=None), newproject.as_named(path, root))
        if len(nodes.columns) > 1:
            tables.insert(0, nodes)
    folder = skeleton_folder(skeletons_in, beside, newproject.as_named(skeletons_in, root)) if skeletons_in else None
    if main.kind == "annotations":
        return Import(None, (main, *tables), folder)
    if main.kind == "skeletons":
        return Import(None, tuple(tables), main)
    return Import(main, tuple(tables), folder, _voxel(path, main, given, folder))


def _voxel(path: Path, main: Mapped, given: Given, folder: Mapped | None) -> NM3:
    """The voxel size that places of a list are in. Raises SourceError when it is missing, or means nothing."""
    if main.synapses.unit == "vx":
        if given.voxel_nm is None:
            raise SourceError(f"{path}: places are in voxels; give their size: --voxel-nm z,y,x in nm, e.g. 40,4,4")
        return given.voxel_nm
    used = folder is not None and isinstance(folder.spec, SkeletonFolder) and folder.spec.unit == "vx"
    if given.voxel_nm is not None and not used and not main.unit_unsaid:
        where = f"places are in {main.synapses.unit}" if main.synapses.unit else "the list has no places"
        raise SourceError(f"{path}: --voxel-nm is for places in voxels (--unit vx); {where}")
    return UNKNOWN_NM


def choose_columns(
    file: Path, root: Path, *, pre: str | None = None, post: str | None = None, weight: str | None = None,
    synapse: str | None = None, where: Mapping[str, str] | None = None,
) -> Mapped:  # fmt: skip
    """A list with its columns as given, and the others as their names say. Raises SourceError."""
    given = Given(pre=pre, post=post, weight=weight, synapse=synapse, where=where or {})
    return recognise(file, given, named=newproject.as_named(file, root))


def bring(
    root: Path, synapses: SynapseList | None, *, name: str, voxel_nm: NM3 = UNKNOWN_NM,
    annotations: Sequence[AnnotationList] = (), skeletons: SkeletonFolder | None = None,
) -> config.Project:  # fmt: skip
    """Make the project, or let an imported one read another list, or more annotations or skeletons. Runs nothing."""
    if not (root / "params.yaml").exists():
        if synapses is None:
            raise ConfigError(f"{root} is no project yet: import its list of synapses or connections first")
        return newproject.create_imported(
            root, name=name, synapses=synapses, voxel_nm=voxel_nm, stages=STAGES, annotations=tuple(annotations),
            skeletons=skeletons,
        )  # fmt: skip
    if not config.is_imported(root):
        raise ConfigError(f"{root} is a project with raw tiles; import into a folder of its own")
    path = root / "params.yaml"
    text = path.read_text()
    if synapses is not None:
        text = yamltext.put(text, ("dataset", "voxel_nm"), list(voxel_nm), path.name)
        text = yamltext.put(text, ("dataset", "synapses"), paramsfile.said(synapses), path.name)
    if annotations:
        replaced = {(a.file, a.sheet) for a in annotations}
        known = config.parse_yaml(text, path.name)["dataset"].get("annotations") or []
        kept = [a for a in known if (a.get("file"), a.get("sheet")) not in replaced]
        every = [*kept, *(paramsfile.said(a) for a in annotations)]
        text = yamltext.put(text, ("dataset", "annotations"), every, path.name)
    if skeletons is not None:
        text = yamltext.put(text, ("dataset", "skeletons"), paramsfile.said(skeletons), path.name)
    config.load(root, STAGES, text)
    tmp = path.with_suffix(".yaml.tmp")
    tmp.write_text(text)
    tmp.replace(path)
    project = config.load(root, STAGES)
    dvcfile.write(project)
    return project


def take(root: Path, chosen: Import, *, name: str) -> config.Project:
    """`bring` what was chosen."""
    lists = [m.spec for m in chosen.annotations if isinstance(m.spec, AnnotationList)]
    folder = chosen.skeletons.spec if chosen.skeletons else None
    return bring(
        root, chosen.synapses.synapses if chosen.synapses else None, name=name, voxel_nm=chosen.voxel_nm,
        annotations=lists, skeletons=folder if isinstance(folder, SkeletonFolder) else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Validated:
    """What reading everything to its end found; nothing was written."""

    lists: Mapping[str, Report]
    """By file."""
    counts: Mapping[str, int]
    """Neurons, connections, synapses and the like."""


def validate(root: Path, chosen: Import) -> Validated:
    """Read all that was chosen, as the import would. Raises SourceError that names the rows it could not use."""
    reports: dict[str, Report] = {}
    counts: dict[str, int] = {}
    neurons = np.zeros(0, np.uint64)
    if chosen.synapses:
        spec = chosen.synapses.synapses
        report = reports.setdefault(spec.file, Report())
        edges = [_pairs(rows) for rows, _ in read.batches(spec, root, report=report)]
        pairs = pa.concat_tables(edges).group_by(["pre", "post"]).aggregate([])
        neurons = np.unique(np.concatenate([pairs["pre"].to_numpy(), pairs["post"].to_numpy()]))
        counts |= {"neurons with connections": len(neurons), "connections": len(pairs), "synapses": report.synapses}
    for mapped in chosen.annotations:
        if isinstance(mapped.spec, AnnotationList):
            reports[f"{mapped.spec.file} ({mapped.kind})"] = annotated.check(mapped.spec, root)
    if chosen.annotations:
        specs = [m.spec for m in chosen.annotations if isinstance(m.spec, AnnotationList)]
        said = np.unique(read.annotation_rows(specs, root)["neuron"].to_numpy())
        counts["annotated neurons"] = len(said)
        if chosen.synapses:
            counts["annotated neurons without connections"] = int((~np.isin(said, neurons)).sum())
            counts["neurons with connections and no annotation"] = int((~np.isin(neurons, said)).sum())
    if chosen.skeletons and isinstance(chosen.skeletons.spec, SkeletonFolder):
        nodes = read.skeleton_rows(chosen.skeletons.spec, root)
        counts |= {"skeletons": len(pc.unique(nodes["neuron"])), "nodes of skeletons": nodes.num_rows}
    return Validated(reports, counts)


def _pairs(rows: pa.Table) -> pa.Table:
    return rows.select(["pre", "post"]).group_by(["pre", "post"]).aggregate([])


def imported_counts(root: Path) -> dict[str, int]:
    """Rows of the tables that an import made."""
    tables = {
        "neurons": "graph/neuron", "connections": "graph/connection", "rows of the list": "listing/listed_synapse",
        "rows set aside": "listing/rejected_row", "annotations": "annotations/annotation",
        "nodes of skeletons": "skeletons/skeleton_node",
    }  # fmt: skip
    paths = {what: root / "data" / f"{table}.parquet" for what, table in tables.items()}
    return {what: int(pq.read_metadata(p).num_rows) for what, p in paths.items() if p.is_file()}


def make_version(root: Path, message: str, tag: str | None) -> None:
    """Commit what is to be imported, `dvc repro`, commit its digests, and tag that where a tag is wanted."""
    newproject.commit(root, message)
    newproject.repro(root)
    newproject.commit(root, f"Data: {message}")
    if tag:
        newproject.run(root, "git", "tag", tag)


def tags_of(values: Sequence[str]) -> list[str]:
    """Values of a column as git tags; characters that git refuses become '-'."""
    return [
        "".join(c if c.isalnum() or c in "._-" else "-" for c in value).strip(".-") or "version" for value in values
    ]
