"""Reading what pictures are made of: who it is about, which columns there are, and what stands for which group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.config import read_yaml
from connectome_db.errors import QueryError, nearest
from connectome_db.query.database import Database
from connectome_db.revisions import WORKING_TREE

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
UNTYPED = "(none)"
"""Group of neurons that the annotations say nothing of."""


def about_of(db: Database, *filters: str) -> str:
    """Dataset, version and filters of a picture: "larva · v1 · connections of at least 5 synapses"."""
    return told(project_of(db.project), db.at, *filters)


def project_of(folder: Path) -> Path:
    """The project whose tables lie in `folder`: those of a revision are linked into a folder inside it."""
    return next((p.parent for p in (folder, *folder.parents) if p.name == ".connectome"), folder)


def told(project: Path, version: str | None, *filters: str) -> str:
    """The same for a project's folder; without a version it is the working tree."""
    file = project / "params.yaml"
    dataset = read_yaml(file).get("dataset") if file.is_file() else None
    name = str((dataset or {}).get("name") or project.name)
    return " · ".join([name, version or WORKING_TREE, *(f for f in filters if f)])


def at_least(min_synapses: int) -> str:
    """The filter in words; empty when it leaves nothing out."""
    return f"connections of at least {min_synapses} synapses" if min_synapses > 1 else ""


def refuse_empty(rows: pa.Table, what: str) -> pa.Table:
    """Raises QueryError when there is nothing to draw."""
    if rows.num_rows == 0:
        raise QueryError(f"nothing to draw: there are no {what}. Loosen the filter, or see `connectome tables`")
    return rows


def pick(rows: pa.Table, *names: str) -> str | None:
    """The first of `names` that is a column."""
    return next((n for n in names if n in rows.column_names), None)


def need(rows: pa.Table, picture: str, *names: str) -> str:
    """The first of `names` that is a column. Raises QueryError that names what the rows have."""
    found = pick(rows, *names)
    if found is None:
        wanted = " or ".join(names)
        raise QueryError(f"a {picture} needs a column {wanted}{nearest(names[0], rows.column_names)}")
    return found


def floats(rows: pa.Table, column: str) -> F64:
    """A column as float64[N]; null becomes NaN."""
    values = rows[column].cast(pa.float64(), safe=False)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def texts(rows: pa.Table, column: str) -> list[str]:
    """A column as text; null is UNTYPED. Ids keep every digit."""
    return [UNTYPED if v is None or v == "" else str(v) for v in rows[column].to_pylist()]


def kinds_of(db: Database) -> list[str]:
    """Kinds of annotation that the project has, such as type or class; [] without annotations."""
    if not db.has("annotation"):
        return []
    return [r["kind"] for r in db.fetch("SELECT DISTINCT kind FROM annotation ORDER BY kind")]


TYPE_KINDS = (
    "type",
    "cell_type",
    "celltype",
    "class",
    "merge_class",
    "simple_group",
    "cell_class",
    "group",
    "super_class",
)
"""Kinds of annotation that say what sort of neuron it is, best first."""


FEW = 40
"""Groups that a reader can tell apart."""


def type_kind(db: Database) -> str | None:
    """The kind of annotation that says what sort of neuron each is; None when there is none.

    Of several the first of few enough values that each can be told apart in a picture.
    """
    if not db.has("annotation"):
        return None
    rows = db.fetch("SELECT kind, count(DISTINCT value) AS n FROM annotation GROUP BY kind")
    values = {r["kind"]: r["n"] for r in rows}
    there = [k for k in TYPE_KINDS if k in values]
    return next((k for k in there if 2 <= values[k] <= FEW), there[0] if there else None)


def groups_of(db: Database, kind: str, neurons: U64) -> list[str]:
    """The annotation of each of `neurons` [N] of a kind; of several the first by name.

    Raises QueryError for an unknown kind.
    """
    there = kinds_of(db)
    if kind not in there:
        raise QueryError(f"no annotation of kind {kind!r}{nearest(kind, there)}")
    rows = db.rows(
        "SELECT neuron, min(value) AS value FROM annotation WHERE kind = $kind GROUP BY neuron ORDER BY neuron",
        {"kind": kind},
    )
    known = dict(zip(rows["neuron"].to_pylist(), rows["value"].to_pylist(), strict=True))
    return [known.get(n) or UNTYPED for n in neurons.tolist()]


_NAMES = {
    "annotation": "SELECT neuron, min(value) AS name FROM annotation WHERE kind IN ('name', 'instance')",
    "neuron_name": "SELECT neuron, min(name) AS name FROM neuron_name WHERE name <> neuron::VARCHAR",
}
"""Where names of neurons stand; what the list itself calls them, unless that is the number, is heard last and wins."""


def names_of(db: Database, neurons: Iterable[int]) -> dict[int, str]:
    """What to call each neuron: its name in the source, or its id."""
    asked = list(neurons)
    known: dict[int, str] = {}
    for table, select in _NAMES.items():
        if db.has(table):
            rows = db.rows(f"{select} AND list_contains($ids::UBIGINT[], neuron) GROUP BY neuron", {"ids": asked})
            known |= dict(zip(rows["neuron"].to_pylist(), rows["name"].to_pylist(), strict=True))
    return {n: known.get(n) or str(n) for n in asked}


def shortened(names: Sequence[str], most: int = 22) -> list[str]:
    """Names cut in the middle, so that both ends of a long id are seen."""
    half = (most - 1) // 2
    return [n if len(n) <= most else f"{n[:half]}…{n[-half:]}" for n in names]
