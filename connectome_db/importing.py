"""Bring a connectome that was made elsewhere into a project, as one version or as a series of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from ruamel.yaml import YAML

from connectome_db import config, dvcfile, newproject
from connectome_db.errors import ConfigError, SourceError, nearest
from connectome_db.lists.specs import SynapseList
from connectome_db.spec import NM3
from connectome_db.stages.imported import STAGES
from connectome_db.synapselists import guess, read_columns

UNKNOWN_NM: NM3 = (1.0, 1.0, 1.0)
"""A list of edges has no voxels; the project still needs a size for them."""


@dataclass(frozen=True)
class Mapped:
    """Which columns of a list say what, and its columns and number of rows."""

    synapses: SynapseList
    columns: tuple[str, ...]
    rows: int


def choose_columns(
    file: Path, root: Path, *, pre: str | None, post: str | None, weight: str | None, synapse: str | None,
    where: dict[str, str],
) -> Mapped:  # fmt: skip
    """Columns as given, and the others as guessed by name. Raises SourceError when pre or post is not recognised."""
    table = read_columns(file)
    found = guess(table.column_names)
    given = {"pre": pre, "post": post, "weight": weight, "synapse": synapse}
    chosen = {role: value or found.get(role) for role, value in given.items()}
    for role in ("pre", "post"):
        if chosen[role] is None:
            raise SourceError(
                f"{file}: which column is the {role}synaptic neuron? None is called so; give --{role} COLUMN. "
                f"Columns: {', '.join(table.column_names)}"
            )
    for column in [*filter(None, chosen.values()), *where]:
        if column not in table.column_names:
            raise SourceError(f"{file}: no column {column!r}{nearest(column, table.column_names)}")
    listed = SynapseList(
        file=newproject.as_named(file, root), pre=str(chosen["pre"]), post=str(chosen["post"]),
        weight=chosen["weight"], synapse=chosen["synapse"], where=where,
    )  # fmt: skip
    return Mapped(listed, tuple(table.column_names), table.num_rows)


def values_of(file: Path, column: str) -> list[str]:
    """The different values of a column, sorted: the versions of a series."""
    table = read_columns(file)
    if column not in table.column_names:
        raise SourceError(f"{file}: no column {column!r}{nearest(column, table.column_names)}")
    return sorted(str(v) for v in pc.unique(table[column].drop_null()).to_pylist())


def bring(root: Path, synapses: SynapseList, *, name: str) -> config.Project:
    """Make the project, or (when it is an imported one already) let it read another list. Runs nothing."""
    if not (root / "params.yaml").exists():
        return newproject.create_imported(root, name=name, synapses=synapses, voxel_nm=UNKNOWN_NM, stages=STAGES)
    if not config.is_imported(root):
        raise ConfigError(f"{root} is a project with raw tiles; import into a folder of its own")
    yaml = YAML()
    yaml.width = 110
    path = root / "params.yaml"
    document = yaml.load(path.read_text())
    kept = document["dataset"]["synapses"]
    for key, value in synapses.model_dump(mode="json").items():
        kept[key] = value
    sink = io.StringIO()
    yaml.dump(document, sink)
    tmp = path.with_suffix(".yaml.tmp")
    tmp.write_text(sink.getvalue())
    tmp.replace(path)
    project = config.load(root, STAGES)
    dvcfile.write(project)
    return project


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
