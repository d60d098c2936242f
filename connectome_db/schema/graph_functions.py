"""Functions of SQL that go from neurons to their partners: what `connection` holds, found by way of its adjacency."""

from __future__ import annotations

from collections.abc import Mapping

from connectome_db.schema.function import Function
from connectome_db.spec import Column, Table

_SYNAPSES = Column(name="synapses", dtype="int64", doc="Counted synapses of the connection.")


def _partners(name: str, doc: str, side: str, *, value: bool = False) -> Function:
    partner = Column(name="partner", dtype="uint64", doc=f"{side} neuron.")
    return Function(Table(name=name, doc=doc, key=("partner",), columns=(partner, _SYNAPSES)), {"neuron": None}, value)


def _connections(name: str, doc: str, *parameters: str) -> Function:
    ends = (
        Column(name="pre", dtype="uint64", doc="Presynaptic neuron."),
        Column(name="post", dtype="uint64", doc="Postsynaptic neuron."),
    )
    return Function(
        Table(name=name, doc=doc, key=("pre", "post"), columns=(*ends, _SYNAPSES)), dict.fromkeys(parameters)
    )


_GIVEN = (
    _partners("outputs_of", "Neurons that a neuron connects to.", "Postsynaptic"),
    _partners("inputs_of", "Neurons that connect to a neuron.", "Presynaptic"),
    _connections("connections_from", "Connections that leave the neurons of a list.", "neurons"),
    _connections("connections_to", "Connections that arrive at the neurons of a list.", "neurons"),
    _connections(
        "connections_between", "Connections from neurons of one list to those of another.", "sources", "targets"
    ),
    _connections("connections_among", "Connections between neurons of one list.", "neurons"),
    _partners("out_partners", "What outputs_of gives, as one list of structs.", "Postsynaptic", value=True),
    _partners("in_partners", "What inputs_of gives, as one list of structs.", "Presynaptic", value=True),
)

GRAPH_FUNCTIONS: Mapping[str, Function] = {f.name: f for f in _GIVEN}
"""By name. A list names a neuron as often as it likes; ids that no neuron has, and null, give no rows."""
