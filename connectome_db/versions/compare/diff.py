"""What differs between two revisions, and what made it differ.

    unit_change      units added, removed, made anew          why: their records, and what they read
    object_change    objects split, merged, changed ...       why: the evidence at their supervoxels
    synapse_change   synapses gained, lost, repartnered ...   why: their unit, their supervoxels, their neurons
    edge_change      connections gained, lost, stronger ...   why: their synapses
    cause            what the numbers in `causes` mean

Nothing is checked out and nothing is computed again but, where it decides between two causes, the agglomeration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import QueryError, nearest
from connectome_db.query.compare.causes import Attribution, attribute, cause_table, unit_changes
from connectome_db.revisions import Revision
from connectome_db.versions.compare.edges import by_heirs, by_name, compare_edges, neuron_changes
from connectome_db.versions.compare.evidence import Supervoxels, find_evidence, read
from connectome_db.versions.compare.objects import Objects, compare_objects
from connectome_db.versions.compare.synapses import compare_synapses
from connectome_db.versions.identity.history import object_history
from connectome_db.versions.identity.overlaps import supervoxel_overlap
from connectome_db.versions.identity.synapse_match import TOLERANCE_NM

LEVELS = ("units", "objects", "synapses", "edges")
TABLE_OF = {"units": "unit_change", "objects": "object_change", "synapses": "synapse_change", "edges": "edge_change"}
SEGMENTED = ("segment", "overlap", "reconcile", "score", "agglomerate")


@dataclass(frozen=True)
class Bodies:
    """Supervoxels and objects of both revisions, and the voxels that supervoxels share, as the comparison used them."""

    objects: Objects
    supervoxels: tuple[Supervoxels, Supervoxels]
    overlap: pa.Table


@dataclass(frozen=True)
class Diff:
    """Two revisions compared. `tables` holds those that were asked for and could be made, by name."""

    a: Revision
    b: Revision
    why: Attribution = field(repr=False)
    tables: Mapping[str, pa.Table] = field(repr=False)
    notes: tuple[str, ...]
    """What could not be compared, and why."""
    bodies: Bodies | None = field(default=None, repr=False)


def compare(a: Revision, b: Revision, *, only: str | None = None, tolerance_nm: float = TOLERANCE_NM) -> Diff:
    """Compare revision `b` with the earlier `a`.

    `only` (units, objects, synapses or edges) leaves the other tables out. Raises QueryError for another word, and
    RevisionError when a revision's data is not at hand.
    """
    if only is not None and only not in LEVELS:
        raise QueryError(f"--only {only}: wanted one of {', '.join(LEVELS)}{nearest(only, LEVELS)}")
    why = attribute(a.root, b.root)
    tables: dict[str, pa.Table] = {"unit_change": unit_changes(why)}
    notes: list[str] = []
    bodies = None if only == "units" else _rows(a, b, why, tables, notes, tolerance_nm)
    if only is not None:
        wanted = {TABLE_OF[only], "neuron_change" if only == "objects" else ""}
        tables = {name: table for name, table in tables.items() if name in wanted}
    tables["cause"] = _counted(cause_table(why), tables)
    return Diff(a, b, why, tables, tuple(notes), bodies)


def _rows(
    a: Revision, b: Revision, why: Attribution, tables: dict[str, pa.Table], notes: list[str], tolerance_nm: float
) -> Bodies | None:
    """Fill in the tables of objects, synapses and connections, as far as both revisions have what it takes."""
    have = [set(r.stages) for r in (a, b)]
    if not have[0] & {"segment"} and not have[1] & {"segment"}:
        if all("graph" in h for h in have):
            neurons = by_name(a, b)
            tables["neuron_change"] = _with_names(neuron_changes(neurons, why), a, b)
            tables["edge_change"] = _with_names(compare_edges(a, b, neurons, None, why), a, b)
        return None
    if lacking := _lacking(a, b, SEGMENTED, "objects, synapses and connections"):
        notes.append(lacking)
        return None
    sizes = [tuple(float(v) for v in r.record("segment")["voxel_nm"]) for r in (a, b)]
    if sizes[0] != sizes[1]:
        notes.append(f"objects cannot be compared: voxels of {sizes[0]} nm and of {sizes[1]} nm (z, y, x)")
        return None
    overlap = supervoxel_overlap(a, b)
    sides = find_evidence(a, b, overlap, why)
    objects: Objects = compare_objects(a, b, object_history(a, b, overlap), sides, why)
    bodies = Bodies(objects, sides, overlap)
    tables["object_change"] = objects.table
    if lacking := _lacking(a, b, ("synapses", "graph"), "synapses and connections"):
        notes.append(lacking)
        return bodies
    synapses = compare_synapses(a, b, objects, sides, why, tolerance_nm)
    tables["synapse_change"] = synapses.table
    tables["edge_change"] = compare_edges(a, b, by_heirs(objects), synapses, why)
    return bodies


def _lacking(a: Revision, b: Revision, stages: tuple[str, ...], what: str) -> str:
    """Which stages stand in the way of comparing something; "" when none does."""
    missing = [f"{s} ({r.name})" for r in (a, b) for s in stages if s not in r.stages]
    return f"{what} cannot be compared: no data of {', '.join(missing)}" if missing else ""


def _with_names(table: pa.Table, a: Revision, b: Revision) -> pa.Table:
    """Neurons or connections with what the imported lists call their neurons, where they do."""
    names: dict[int, str] = {}
    for r in (a, b):
        if (r.root / "data" / "graph" / "neuron_name.parquet").is_file():
            rows = read(r, "graph", "neuron_name", ["neuron", "name"])
            names |= dict(zip(rows["neuron"].to_pylist(), rows["name"].to_pylist(), strict=True))
    for column, of in (("pre_name", ("pre", "pre_a")), ("post_name", ("post", "post_a")), ("name", ("neuron",))):
        if names and of[0] in table.column_names:
            ids = pc.coalesce(*(table[c] for c in of)).to_pylist()
            table = table.append_column(column, pa.array([names.get(i) for i in ids], pa.string()))
    return table


def _counted(causes: pa.Table, tables: Mapping[str, pa.Table]) -> pa.Table:
    """The table of causes with how many rows of each other table name each."""
    for level, name in (*TABLE_OF.items(), ("neurons", "neuron_change")):
        if name in tables and level != "units":
            named = pc.list_flatten(tables[name]["causes"]).to_numpy()
            counts = np.bincount(named, minlength=causes.num_rows).astype(np.int64)
            causes = causes.append_column(level, pa.array(counts))
    return causes
