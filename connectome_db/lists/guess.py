"""Which column says what, by the names that the field uses. What is not recognised is left out, never assumed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from connectome_db.lists.specs import Unit

NAMES = {
    "pre": (
        "pre", "pre_pt_root_id", "bodyid_pre", "pre_bodyid", "pre_root_id", "pre_id", "presynaptic", "presynaptic_id",
        "presynaptic_neuron", "pre_neuron", "pre_name", "pre_skid", "pre_skel", "pre_cell", "upstream_bodyid", "source",
        "from", "axon", "axon_id", "axon_no",
    ),
    "post": (
        "post", "post_pt_root_id", "bodyid_post", "post_bodyid", "post_root_id", "post_id", "postsynaptic",
        "postsynaptic_id", "postsynaptic_neuron", "post_neuron", "post_name", "post_skid", "post_skel", "post_cell",
        "downstream_bodyid", "target", "to", "dendrite", "dendrite_id", "dendrite_no",
    ),
    "weight": (
        "weight", "synapses", "count", "n_syn", "syn_count", "n_synapses", "num_synapses", "synapse_count", "nsyn",
    ),
    "synapse": ("synapse", "syn_id", "synapse_id", "connector_id", "syn_no", "id"),
    "size": ("size", "size_vx"),
    "confidence": ("confidence", "conf", "cleft_score", "confidence_pre"),
    "roi": ("roi", "neuropil", "region", "brain_region", "roi_post", "roi_pre"),
    "neuron": (
        "neuron", "neuron_id", "bodyid", "body_id", "pt_root_id", "root_id", "skid", "skeleton_id", "cell_id", "node",
        "id", "neuron_name", "cell",
    ),
}  # fmt: skip
"""Per role, the names that columns have, those preferred first; in lower case, with `_` for blanks."""

PLACES = (
    "ctr_pt_position", "ctr_pt", "ctr", "syn", "synapse", "centroid", "center", "position", "pos", "location", "pre",
    "pre_pt_position", "pre_pt", "post", "post_pt_position", "post_pt",
)  # fmt: skip
"""What columns of places are called, before or after the axis; of several, the first is taken."""
UNITS: dict[str, Unit] = {"nm": "nm", "um": "um", "vx": "vx", "px": "vx", "voxel": "vx", "voxels": "vx"}
KINDS = ("type", "synapse_type", "syn_type", "edge_type", "kind")
ELECTRICAL = re.compile(r"^(electrical|electric|gap|gap[ _-]?junctions?|gj|ej)$", re.IGNORECASE)
SERIES = ("dataset", "version", "stage", "animal", "specimen")

Places = dict[Literal["x", "y", "z", "xyz"], str]


def plain(name: str) -> str:
    """A column's name in lower case, with `_` for blanks, dots and dashes."""
    return re.sub(r"[\s.:\-]+", "_", name.strip().lower())


def guess(columns: Sequence[str]) -> dict[str, str]:
    """Column by role, of the roles `pre`, `post`, `weight`, `synapse`, `size`, `confidence` and `roi`."""
    known = {plain(c): c for c in reversed(columns)}
    found = {role: known[n] for role, names in NAMES.items() if role != "neuron" for n in reversed(names) if n in known}
    if "bodyid" in known and plain(found.get("pre", "")) == "pre":
        found = {
            r: c for r, c in found.items() if r not in {"pre", "post"}
        }  # in neuPrint's table of neurons these are numbers of synapses
    if "pre_pt_root_id" in known and "id" in known:
        found["synapse"] = known["id"]  # the annotation id of CAVE, which other tables of it refer to
    return found


def guess_neuron(columns: Sequence[str]) -> str | None:
    """The column of the neuron in a table of annotations."""
    known = {plain(c): c for c in reversed(columns)}
    return next((known[n] for n in NAMES["neuron"] if n in known), None)


def guess_places(columns: Sequence[str]) -> tuple[Places, Unit | None]:
    """The columns of the place, and their unit where their names say it."""
    whole: dict[str, tuple[Places, Unit | None]] = {}
    by_axis: dict[tuple[str, str], Places] = {}
    for column in columns:
        stem, _, last = plain(column).rpartition("_")
        unit = last if last in UNITS else ""
        name = stem if unit else plain(column)
        if name in PLACES[:1] or name in {"position", "location", "pre_pt_position", "post_pt_position"}:
            whole[name] = ({"xyz": column}, UNITS.get(unit))
        for axis in ("x", "y", "z"):
            for around in (f"_{axis}", f"{axis}_"):
                if around[0] == "_" and (name.endswith(around) or name == axis):
                    by_axis.setdefault((name.removesuffix(axis).rstrip("_"), unit), {})[axis] = column
                elif around[0] != "_" and name.startswith(around):
                    by_axis.setdefault((name.removeprefix(around), unit), {})[axis] = column
    for (stem, unit), places in by_axis.items():
        if len(places) == 3:
            whole.setdefault(stem, (places, UNITS.get(unit)))
    for stem in (*PLACES, ""):
        if stem in whole:
            return whole[stem]
    return {}, None
