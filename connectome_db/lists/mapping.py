"""What a file is and what its columns mean, as given, else by their names: to be shown before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import SourceError, nearest
from connectome_db.lists import guess as by_name
from connectome_db.lists import swc
from connectome_db.lists.files import Source, open_source, suffix_of
from connectome_db.lists.matrix import is_matrix, open_matrix
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList, Unit
from connectome_db.lists.values import as_text

Kind = Literal["synapses", "annotations", "skeletons"]
GIVEN, BY_NAME = "given", "by its name"
NO_PLACE = "none"
"""--position none: places are left out although there are some."""
MEANS = {
    "pre": "presynaptic neuron", "post": "postsynaptic neuron", "weight": "synapses of a row",
    "synapse": "own name of the synapse", "size": "size", "confidence": "confidence", "roi": "region",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What somebody said of a file; None: not said."""

    pre: str | None = None
    post: str | None = None
    weight: str | None = None
    synapse: str | None = None
    size: str | None = None
    confidence: str | None = None
    roi: str | None = None
    position: Mapping[str, str] | None = None
    """By axis, or `xyz`; an empty one leaves places out."""
    unit: Unit | None = None
    skeleton_unit: Unit | None = None
    """Of a folder of skeletons; None: `unit`."""
    voxel_nm: tuple[float, float, float] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    neuron: str | None = None
    columns: tuple[str, ...] = ()
    sheet: str | None = None
    names: Path | None = None
    columns_are_pre: bool = False
    mixed_names: bool = False
    set_aside: bool = False
    source: str | None = None
    licence: str | None = None
    citation: str | None = None

    def common(self) -> dict[str, str | bool | None]:
        """What lists of every kind have."""
        flags = {"sheet": self.sheet, "mixed_names": self.mixed_names, "set_aside": self.set_aside}
        return {**flags, **self.origin()}

    def origin(self) -> dict[str, str]:
        """Source, licence and citation as far as said."""
        said = {"source": self.source, "licence": self.licence, "citation": self.citation}
        return {k: v for k, v in said.items() if v}


@dataclass(frozen=True)
class Mapped:
    """A file and what its columns mean, with its first rows to show it by."""

    kind: Kind
    what: str
    """In words: `Parquet, a list of connections`."""
    spec: SynapseList | AnnotationList | SkeletonFolder
    roles: tuple[tuple[str, str, str], ...]
    """(meaning, column, how that is known)."""
    columns: tuple[str, ...] = ()
    head: pa.Table | None = None
    warnings: tuple[str, ...] = ()
    unit_unsaid: bool = False
    """True when there are places in a unit that nobody said."""

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that are not imported."""
        used = {c for _, columns, _ in self.roles for c in (columns, *columns.split(", "))}
        return tuple(c for c in self.columns if c not in used)

    @property
    def synapses(self) -> SynapseList:
        """The list of synapses. Raises SourceError when the file is none."""
        if not isinstance(self.spec, SynapseList):
            raise SourceError(f"{self.what}: wanted a list of synapses or connections, got {self.kind}")
        return self.spec


def recognise(path: Path, given: Given, *, named: str | None = None) -> Mapped:
    """What `path` is: lists of synapses or connections, annotations, skeletons. `named`: how params.yaml names it.

    Raises SourceError when that cannot be told, saying which option tells it.
    """
    file = named or str(path)
    if path.is_dir():
        return skeleton_folder(path, given, file)
    if not path.is_file():
        raise SourceError(f"{path}: no such file or folder")
    if suffix_of(path) == ".npy":
        return _matrix(open_matrix(path, None, given.names), given, file)
    source = open_source(path, given.sheet)
    guessed = by_name.guess(source.columns)
    if given.neuron is None:
        if given.pre or given.post or {"pre", "post"} <= guessed.keys():
            return _synapses(source, given, guessed, file)
        if is_matrix(source):
            return _matrix(open_matrix(path, given.sheet), given, file)
    if given.neuron or by_name.guess_neuron(source.columns):
        return annotation_table(path, given, file)
    side = "post" if "pre" in guessed else "pre"
    raise SourceError(
        f"{path}: which column is the {side}synaptic neuron? None is called so; give --{side} COLUMN "
        f"(or --neuron COLUMN for a table that annotates neurons). Columns: {', '.join(source.columns)}"
    )


def _synapses(source: Source, given: Given, guessed: Mapping[str, str], file: str) -> Mapped:
    chosen = {role: getattr(given, role) or guessed.get(role) for role in MEANS}
    for role in ("pre", "post"):
        if chosen[role] is None:
            raise SourceError(
                f"{source.path}: which column is the {role}synaptic neuron? None is called so; give --{role} COLUMN. "
                f"Columns: {', '.join(source.columns)}"
            )
    taken = {chosen["pre"], chosen["post"]}
    chosen = {r: c if r in {"pre", "post"} or getattr(given, r) or c not in taken else None for r, c in chosen.items()}
    places, unit = by_name.guess_places(source.columns)
    position: dict[str, str] = {str(a): c for a, c in (places if given.position is None else given.position).items()}
    unit = _unit(source.path, position, given.unit)
    source.need([c for c in (*chosen.values(), *position.values(), *given.where) if c])
    spec = SynapseList.model_validate({
        "file": file, "where": dict(given.where), "position": position, "unit": unit if position else None,
        **given.common(), **chosen,
    })  # fmt: skip
    roles = [(MEANS[r], c, GIVEN if getattr(given, r) else BY_NAME) for r, c in chosen.items() if c]
    if position:
        how = GIVEN if given.position is not None else BY_NAME
        axes = sorted(position)
        roles.append((f"place, {', '.join(axes)}", ", ".join(position[a] for a in axes), f"{how}, in {unit or '?'}"))
    return Mapped(
        "synapses", f"{source.what}, {_sort(source.columns, spec)}", spec, tuple(roles), source.columns, source.head(),
        _warnings(source, given), bool(position) and unit is None,
    )  # fmt: skip


def _sort(columns: Sequence[str], spec: SynapseList) -> str:
    plain = {by_name.plain(c) for c in columns}
    if {"bodyid_pre", "bodyid_post"} <= plain:
        return "neuPrint connections"
    if "pre_pt_root_id" in plain:
        return "a CAVE synapse table"
    return "a list of connections" if spec.weight else "a list of synapses"


def _unit(path: Path, position: Mapping[str, str], given: Unit | None) -> Unit | None:
    """The unit of places: as said, or as the names of the columns say. Raises SourceError when these differ."""
    said = {by_name.UNITS.get(by_name.plain(c).rpartition("_")[2]) for c in position.values()}
    named = said.pop() if len(said) == 1 else None
    if given and named and given != named:
        raise SourceError(f"{path}: --unit {given}, but the columns are called {', '.join(position.values())}")
    return given or named


def _warnings(source: Source, given: Given) -> tuple[str, ...]:
    """What would be summed although it may be two things."""
    found = []
    for column in source.columns:
        plain = by_name.plain(column)
        if column in given.where or plain not in (*by_name.KINDS, *by_name.SERIES):
            continue
        values = _values(source, column)
        if plain in by_name.SERIES and 1 < len(values) <= 100:
            found.append(
                f"{column} has {len(values)} values ({', '.join(values[:6])}{', …' if len(values) > 6 else ''}): they "
                f"are summed as one connectome. For a version each: --versions-by {column}; for one: "
                f"--where {column}={values[0]}"
            )
        elif len(values) > 1 and any(by_name.ELECTRICAL.match(v) for v in values):
            other = next((v for v in values if not by_name.ELECTRICAL.match(v)), values[0])
            found.append(
                f"{column} has the kinds {', '.join(values)}: they are summed, electrical synapses with the others. "
                f"For one kind: --where {column}={other}"
            )
    return tuple(found)


def _values(source: Source, column: str) -> list[str]:
    """The different values of a column, sorted."""
    found: set[str] = set()
    for table in source.blocks([column], 1 << 20):
        found |= {str(v) for v in pc.unique(as_text(table[column]).drop_null()).to_pylist()}
    return sorted(found)


def values_of(path: Path, column: str, sheet: str | None = None) -> list[str]:
    """The different values of a column, sorted: the versions of a series. Raises SourceError."""
    source = open_source(path, sheet)
    source.need([column])
    return _values(source, column)


def _matrix(source: Source, given: Given, file: str) -> Mapped:
    pre, post = ("column", "row") if given.columns_are_pre else ("row", "column")
    spec = SynapseList.model_validate({
        "file": file, "matrix": True, "names": str(given.names) if given.names else None, "pre": pre, "post": post,
        "weight": "value", **given.common(),
    })  # fmt: skip
    how = GIVEN if given.columns_are_pre else "the default; --columns-are-pre turns it round"
    roles = ((MEANS["pre"], pre, how), (MEANS["post"], post, how), (MEANS["weight"], "value", "cells that are not 0"))
    return Mapped("synapses", source.what, spec, roles, source.columns, source.head())


def annotation_table(path: Path, given: Given, file: str | None = None) -> Mapped:
    """A table that says something about neurons. Raises SourceError when the column of the neuron cannot be told."""
    graph = suffix_of(path) == ".graphml"
    sheet = given.sheet if not graph else "nodes"
    source = open_source(path, sheet)
    neuron = given.neuron or by_name.guess_neuron(source.columns)
    if neuron is None:
        raise SourceError(
            f"{path}: which column is the neuron? None is called so; give --neuron COLUMN. "
            f"Columns: {', '.join(source.columns)}"
        )
    for column in (neuron, *given.columns):
        if column not in source.columns:
            raise SourceError(f"{path}: no column {column!r}{nearest(column, source.columns)}")
    spec = AnnotationList(
        file=file or str(path), sheet=sheet, neuron=neuron, columns=given.columns, mixed_names=given.mixed_names,
        set_aside=given.set_aside, **given.origin(),
    )  # fmt: skip
    kinds = given.columns or tuple(c for c in source.columns if c != neuron)
    roles = [("neuron", neuron, GIVEN if given.neuron else BY_NAME)]
    roles += [("annotation", c, GIVEN if given.columns else "") for c in kinds]
    return Mapped(
        "annotations", f"{source.what}, annotations of neurons", spec, tuple(roles), source.columns, source.head()
    )


def skeleton_folder(path: Path, given: Given, file: str | None = None) -> Mapped:
    """A folder of skeletons. Raises SourceError when it holds none."""
    said = given.skeleton_unit or given.unit
    unit = said or "nm"
    spec = SkeletonFolder(folder=file or str(path), unit=unit, voxel_nm=given.voxel_nm, **given.origin())
    found = swc.files(SkeletonFolder(folder=str(path), unit=unit), Path())
    roles = (("neuron", "name of the file", "as in SWC"), ("places and radii", "x, y, z, radius", f"in {said or '?'}"))
    what = f"{len(found):,} skeletons in SWC"
    return Mapped("skeletons", what, spec, roles, (), None, (), said is None)
