"""Tables of the wiring layers: synapses as found, and the graph of neurons and connections."""

from __future__ import annotations

from connectome_db.spec import Column, Table

SYNAPSE = Table(
    name="synapse",
    doc="Synapses as detected: one cleft, one presynaptic and one postsynaptic supervoxel.",
    key=("synapse",),
    foreign={"pre_supervoxel": "supervoxel.supervoxel", "post_supervoxel": "supervoxel.supervoxel"},
    columns=(
        Column(name="synapse", dtype="uint64", doc="Synapse id."),
        Column(name="z_vx", dtype="float64", unit="vx", doc="Centroid of the cleft, z."),
        Column(name="y_vx", dtype="float64", unit="vx", doc="Centroid of the cleft, y."),
        Column(name="x_vx", dtype="float64", unit="vx", doc="Centroid of the cleft, x."),
        Column(name="size_vx", dtype="int64", unit="vx", doc="Voxels of the cleft."),
        Column(name="confidence", dtype="float64", doc="Mean cleft probability over the component, 0-1."),
        Column(name="polarity", dtype="float64", doc="Evidence for pre over post, 0 (none) to 1 (certain)."),
        Column(name="pre_supervoxel", dtype="uint64", doc="Presynaptic supervoxel."),
        Column(name="post_supervoxel", dtype="uint64", doc="Postsynaptic supervoxel."),
        *(
            Column(name=f"{side}_{axis}_vx", dtype="float64", unit="vx", doc=f"A voxel of the {side} side, {axis}.")
            for side in ("pre", "post")
            for axis in "zyx"
        ),
    ),
)

LINK = Table(
    name="link",
    doc="Synapses bound to neurons: which connection each synapse belongs to, or why it counts for none.",
    key=("synapse",),
    foreign={"synapse": "synapse.synapse", "pre": "neuron.neuron", "post": "neuron.neuron"},
    columns=(
        Column(name="synapse", dtype="uint64", doc="Synapse id."),
        Column(name="pre", dtype="uint64", doc="Presynaptic neuron (object id)."),
        Column(name="post", dtype="uint64", doc="Postsynaptic neuron (object id)."),
        Column(name="counted", dtype="bool", doc="True: it counts in `connection`."),
        Column(
            name="reason", dtype="string", doc="counted, autapse, duplicate (seen by two blocks), or low confidence."
        ),
        Column(name="duplicate_of", dtype="uint64", nullable=True, doc="The synapse it repeats."),
    ),
)

NEURON = Table(
    name="neuron",
    doc="Objects large enough to be neurites, with their degree.",
    key=("neuron",),
    foreign={"neuron": "object.object"},
    columns=(
        Column(name="neuron", dtype="uint64", doc="Object id."),
        Column(name="size_vx", dtype="int64", unit="vx", doc="Voxels."),
        Column(name="volume_nm3", dtype="float64", unit="nm3", doc="Volume."),
        Column(name="synapses_out", dtype="int64", doc="Counted synapses where it is presynaptic."),
        Column(name="synapses_in", dtype="int64", doc="Counted synapses where it is postsynaptic."),
        Column(name="partners_out", dtype="int64", doc="Distinct postsynaptic partners."),
        Column(name="partners_in", dtype="int64", doc="Distinct presynaptic partners."),
        Column(name="touches_border", dtype="bool", doc="True when it is cut by the border of the volume."),
    ),
)

CONNECTION = Table(
    name="connection",
    doc="Edges of the connectome: ordered pairs of neurons with at least one counted synapse.",
    key=("pre", "post"),
    foreign={"pre": "neuron.neuron", "post": "neuron.neuron"},
    columns=(
        Column(name="pre", dtype="uint64", doc="Presynaptic neuron."),
        Column(name="post", dtype="uint64", doc="Postsynaptic neuron."),
        Column(name="synapses", dtype="int64", doc="Counted synapses."),
        Column(name="size_vx", dtype="int64", unit="vx", doc="Cleft voxels of all of them."),
        Column(name="confidence", dtype="float64", doc="Mean confidence of the synapses."),
        Column(name="weakest_merge", dtype="float64", doc="Lowest merge score in either neuron."),
    ),
)
