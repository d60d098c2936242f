"""Places of neurons in the tissue: nodes of skeletons, synapses, boxes of objects. All in nm, (z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.plots import about as read
from connectome_db.query.database import Database

CELLS_ALONG = 120
"""Cells along the longest axis of a density map."""
NO_PLACES = (
    "Where the list of an imported connectome has positions, name their columns to `connectome import`; "
    "in a project made from tiles, run `dvc repro`"
)


@dataclass(frozen=True)
class Skeleton:
    """Lines of a neuron: float64[S, 2, 3], from a node to its parent, nm."""

    neuron: int
    lines: read.F64


def skeletons(db: Database, neurons: Sequence[int]) -> list[Skeleton]:
    """Skeletons of `neurons` that have one."""
    if not db.has("skeleton_node"):
        return []
    rows = db.rows(
        "SELECT a.neuron, a.z_nm, a.y_nm, a.x_nm, b.z_nm AS z1, b.y_nm AS y1, b.x_nm AS x1 FROM skeleton_node a "
        "JOIN skeleton_node b ON b.neuron = a.neuron AND b.node = a.parent "
        "WHERE list_contains($ids::UBIGINT[], a.neuron) ORDER BY a.neuron, a.node",
        {"ids": list(neurons)},
    )
    lines = np.stack([read.floats(rows, c) for c in ("z_nm", "y_nm", "x_nm", "z1", "y1", "x1")], axis=1)
    owner = rows["neuron"].to_numpy()
    return [Skeleton(n, lines[owner == n].reshape(-1, 2, 3)) for n in neurons if (owner == n).any()]


def synapses(db: Database, neurons: Sequence[int]) -> pa.Table:
    """Counted synapses of `neurons` that have a place: pre, post, z_nm, y_nm, x_nm."""
    if not db.has("link", "synapse"):
        return _nowhere()
    where = ", ".join(f"{sql} AS {a}_nm" for a, sql in zip("zyx", _nm(db), strict=True))
    return db.rows(
        f"SELECT l.pre, l.post, {where} FROM link l JOIN synapse s USING (synapse) "
        "WHERE l.counted AND s.z_vx IS NOT NULL AND s.y_vx IS NOT NULL AND s.x_vx IS NOT NULL AND "
        "(list_contains($ids::UBIGINT[], l.pre) OR list_contains($ids::UBIGINT[], l.post)) ORDER BY synapse",
        {"ids": list(neurons)},
    )


def _nm(db: Database) -> tuple[str, str, str]:
    """SQL for the place of a synapse `s` in nm. A voxel counts from its middle; a list says the place itself."""
    half = 0.5 if db.has("object") else 0.0
    z, y, x = (f"(s.{a}_vx + {half}) * {size}" for a, size in zip("zyx", db.voxel_nm, strict=True))
    return z, y, x


def _nowhere() -> pa.Table:
    ids = {n: pa.array([], pa.uint64()) for n in ("pre", "post")}
    return pa.table(ids | {f"{a}_nm": pa.array([], pa.float64()) for a in "zyx"})


def boxes(db: Database, neurons: Sequence[int]) -> dict[int, read.F64]:
    """Bounding boxes of objects, float64[2, 3] nm each; {} in an imported project."""
    if not db.has("object"):
        return {}
    columns = [f"{a}{end}_vx" for end in (0, 1) for a in "zyx"]
    if not set(columns) <= {c.name for c in db.tables["object"].columns}:
        return {}
    rows = db.rows(
        f"SELECT object, {', '.join(columns)} FROM object WHERE list_contains($ids::UBIGINT[], object)",
        {"ids": list(neurons)},
    )
    corners = np.stack([read.floats(rows, c) for c in columns], axis=1).reshape(-1, 2, 3) * np.asarray(db.voxel_nm)
    return dict(zip(rows["object"].to_pylist(), corners, strict=True))


def refuse_unknown(db: Database, neurons: Sequence[int]) -> None:
    """Raises QueryError that names ids which are no neuron."""
    known = db.rows("SELECT neuron FROM neuron WHERE list_contains($ids::UBIGINT[], neuron)", {"ids": list(neurons)})
    missing = [str(n) for n in neurons if n not in set(known["neuron"].to_pylist())]
    if missing:
        raise QueryError(f'no neuron {", ".join(missing[:5])}; `connectome sql "SELECT neuron FROM neuron"` lists them')


def ids_of(db: Database, words: Sequence[str]) -> list[int]:
    """Ids of neurons given as ids or as names. Raises QueryError that names the nearest name."""
    names = [w for w in words if not w.isdigit()]
    known: dict[str, int] = {}
    if names and db.has("neuron_name"):
        rows = db.rows("SELECT neuron, name FROM neuron_name WHERE list_contains($names, name)", {"names": names})
        known = dict(zip(rows["name"].to_pylist(), rows["neuron"].to_pylist(), strict=True))
    for word in names:
        if word not in known:
            every = db.fetch("SELECT name FROM neuron_name") if db.has("neuron_name") else []
            raise QueryError(f"no neuron is called {word!r}{nearest(word, [r['name'] for r in every])}")
    return [known[w] if w in known else int(w) for w in words]


def cells(db: Database, *, cell_nm: float | None = None) -> pa.Table:
    """Synapses per cell of the tissue: z_nm, y_nm, x_nm (middle of the cell), synapses. Counted in SQL, however many.

    Raises QueryError when no synapse has a place.
    """
    if not db.has("link", "synapse"):
        raise QueryError(f"nothing to draw: no synapse has a place. {NO_PLACES}")
    where = ", ".join(f"{sql} AS {a}" for a, sql in zip("zyx", _nm(db), strict=True))
    places = (
        f"SELECT {where} FROM link l JOIN synapse s USING (synapse) "
        "WHERE l.counted AND s.z_vx IS NOT NULL AND s.y_vx IS NOT NULL AND s.x_vx IS NOT NULL"
    )
    ends = db.fetch(
        f"SELECT count(*) n, min(z) z0, max(z) z1, min(y) y0, max(y) y1, min(x) x0, max(x) x1 FROM ({places})"
    )[0]
    if not ends["n"]:
        raise QueryError(f"nothing to draw: no synapse has a place. {NO_PLACES}")
    longest = max(ends[f"{a}1"] - ends[f"{a}0"] for a in "zyx")
    # As many cells that those of a map would hold a few synapses each, were they spread evenly.
    along = min(CELLS_ALONG, max(8.0, (ends["n"] / 4) ** 0.5))
    size = cell_nm or max(1.0, longest / along)
    middle = ", ".join(f"(floor({a} / $size) + 0.5) * $size AS {a}_nm" for a in "zyx")
    return db.rows(
        f"SELECT {middle}, count(*)::BIGINT AS synapses FROM ({places}) GROUP BY ALL ORDER BY ALL", {"size": size}
    )
