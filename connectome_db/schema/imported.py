"""Tables of a connectome made elsewhere: the list it came as, and the graph; what the list does not say is null."""

from __future__ import annotations

from dataclasses import replace

from connectome_db.schema.wiring import CONNECTION, LINK, NEURON
from connectome_db.spec import Column, Table

LISTED_SYNAPSE = Table(
    name="listed_synapse",
    doc="Rows of the list that a connectome was imported from, as they stand there.",
    key=("synapse",),
    columns=(
        Column(name="synapse", dtype="uint64", doc="Row of the file, counted from 1 without the header."),
        Column(name="pre_name", dtype="string", doc="Presynaptic neuron, as written."),
        Column(name="post_name", dtype="string", doc="Postsynaptic neuron, as written."),
        Column(name="synapses", dtype="int64", doc="Synapses that the row stands for."),
        Column(name="source_id", dtype="string", nullable=True, doc="The list's own name of the synapse."),
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
IMPORTED_NEURON = _unknown(
    NEURON, frozenset({"neuron", "synapses_out", "synapses_in", "partners_out", "partners_in"}), {}
)
IMPORTED_CONNECTION = _unknown(CONNECTION, frozenset({"pre", "post", "synapses"}), dict(CONNECTION.foreign))
"""Sizes, confidences and merge scores are null: the list does not say them, and nothing is invented."""
