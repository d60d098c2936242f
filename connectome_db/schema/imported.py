"""Tables of a connectome made elsewhere: its lists as they came, and the graph; what a list does not say is null."""

from __future__ import annotations

from dataclasses import replace

from connectome_db.schema.wiring import CONNECTION, LINK, NEURON, SYNAPSE
from connectome_db.spec import Column, Table

_NAMED = "Name in the list; null when it is the number itself."

LISTED_SYNAPSE = Table(
    name="listed_synapse",
    doc="Rows of the list that a connectome was imported from.",
    key=("synapse",),
    columns=(
        Column(name="synapse", dtype="uint64", doc="Row of the list, counted from 1 without the header."),
        Column(name="pre", dtype="uint64", doc="Presynaptic neuron: the number in the list, or a digest of the name."),
        Column(name="post", dtype="uint64", doc="Postsynaptic neuron, likewise."),
        Column(name="pre_name", dtype="string", nullable=True, doc=f"Presynaptic neuron. {_NAMED}"),
        Column(name="post_name", dtype="string", nullable=True, doc=f"Postsynaptic neuron. {_NAMED}"),
        Column(name="synapses", dtype="int64", doc="Synapses that the row stands for."),
        Column(name="source_id", dtype="string", nullable=True, doc="The list's own name of the synapse."),
        Column(name="z_vx", dtype="float64", unit="vx", nullable=True, doc="Place, z, in voxels of dataset.voxel_nm."),
        Column(name="y_vx", dtype="float64", unit="vx", nullable=True, doc="Place, y."),
        Column(name="x_vx", dtype="float64", unit="vx", nullable=True, doc="Place, x."),
        Column(name="size", dtype="float64", nullable=True, doc="Size, in the list's own unit."),
        Column(name="confidence", dtype="float64", nullable=True, doc="Confidence, as the list scores it."),
        Column(name="roi", dtype="string", nullable=True, doc="Region (neuropil) that the list names."),
    ),
)

REJECTED_ROW = Table(
    name="rejected_row",
    doc="Rows of the list that could not be used and were set aside by name; without `--set-aside` they are an error.",
    key=("row", "column"),
    columns=(
        Column(name="row", dtype="uint64", doc="Row of the list, counted from 1 without the header."),
        Column(name="column", dtype="string", doc="Column whose value cannot be used."),
        Column(name="value", dtype="string", doc="The value, as written."),
        Column(name="reason", dtype="string", doc="Why it cannot be used."),
    ),
)

LISTED_EDGE = Table(
    name="listed_edge",
    doc="Rows of the list summed by pair of neurons, within each block of rows: what `graph` reads.",
    key=("pre", "post"),
    columns=(
        Column(name="pre", dtype="uint64", doc="Presynaptic neuron."),
        Column(name="post", dtype="uint64", doc="Postsynaptic neuron."),
        Column(name="rows", dtype="int64", doc="Rows of the block."),
        Column(name="synapses", dtype="int64", doc="Synapses that these rows stand for."),
    ),
)

LISTED_NAME = Table(
    name="listed_name",
    doc="Names of neurons that are no numbers, as found in each block of rows.",
    key=("neuron", "name"),
    columns=(
        Column(name="neuron", dtype="uint64", doc="Neuron id: a digest of the name."),
        Column(name="name", dtype="string", doc="Name in the list."),
    ),
)

ANNOTATION = Table(
    name="annotation",
    doc="What lists of neurons say of each: one row per neuron, kind and value.",
    key=("neuron", "kind", "value"),
    foreign={"neuron": "neuron.neuron"},
    columns=(
        Column(name="neuron", dtype="uint64", doc="Neuron id: the number in the list, or a digest of the name."),
        Column(name="kind", dtype="string", doc="Column of the list, e.g. type, class, hemisphere."),
        Column(name="value", dtype="string", doc="What it says there."),
        Column(name="source", dtype="string", doc="File that says so."),
        Column(name="name", dtype="string", nullable=True, doc=f"The neuron. {_NAMED}"),
    ),
)

SKELETON_NODE = Table(
    name="skeleton_node",
    doc="Nodes of the skeletons (SWC) that were imported with the connectome.",
    key=("neuron", "node"),
    foreign={"neuron": "neuron.neuron"},
    columns=(
        Column(name="neuron", dtype="uint64", doc="Neuron id: the number in the file's name, or a digest of the name."),
        Column(name="node", dtype="int64", doc="Number of the node in its file."),
        Column(name="parent", dtype="int64", doc="Number of its parent; -1 for a root."),
        Column(name="kind", dtype="int32", doc="SWC type: 0 undefined, 1 soma, 2 axon, 3 dendrite, others as given."),
        Column(name="z_nm", dtype="float64", unit="nm", doc="Place, z."),
        Column(name="y_nm", dtype="float64", unit="nm", doc="Place, y."),
        Column(name="x_nm", dtype="float64", unit="nm", doc="Place, x."),
        Column(name="radius_nm", dtype="float64", unit="nm", doc="Radius."),
        Column(name="name", dtype="string", nullable=True, doc=f"The neuron. {_NAMED}"),
    ),
)

SKELETON = Table(
    name="skeleton",
    doc="Skeletons that were imported with the connectome.",
    key=("neuron",),
    foreign={"neuron": "neuron.neuron"},
    columns=(
        Column(name="neuron", dtype="uint64", doc="Neuron id."),
        Column(name="nodes", dtype="int64", doc="Nodes."),
        Column(name="cable_nm", dtype="float64", unit="nm", doc="Length of all edges between nodes."),
        Column(name="name", dtype="string", nullable=True, doc=f"The neuron. {_NAMED}"),
    ),
)

NEURON_NAME = Table(
    name="neuron_name",
    doc="What the source calls each neuron.",
    key=("neuron",),
    foreign={"neuron": "neuron.neuron"},
    columns=(
        Column(name="neuron", dtype="uint64", doc="Neuron id: the number in the list, or a digest of the name."),
        Column(name="name", dtype="string", doc="Name in the list."),
    ),
)


def _unknown(table: Table, known: frozenset[str], foreign: dict[str, str]) -> Table:
    columns = tuple(c if c.name in known else replace(c, nullable=True) for c in table.columns)
    return replace(table, columns=columns, foreign=foreign)


IMPORTED_LINK = _unknown(
    LINK,
    frozenset({"synapse", "pre", "post", "counted", "reason"}),
    {"synapse": "listed_synapse.synapse", "pre": "neuron.neuron", "post": "neuron.neuron"},
)
IMPORTED_SYNAPSE = _unknown(SYNAPSE, frozenset({"synapse"}), {"synapse": "listed_synapse.synapse"})
"""Both are views of `listed_synapse`, with the columns that these tables have in a reconstruction."""

IMPORTED_NEURON = _unknown(
    NEURON, frozenset({"neuron", "synapses_out", "synapses_in", "partners_out", "partners_in"}), {}
)
IMPORTED_CONNECTION = _unknown(CONNECTION, frozenset({"pre", "post", "synapses"}), dict(CONNECTION.foreign))
"""Sizes, confidences and merge scores are null: the list does not say them, and nothing is invented."""
