"""The views in which quality reaches synapses and connections: what they show, and what of a cell they take.

Nothing here is made by a stage: DuckDB joins synapses with the `quality_*` tables by place when it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from connectome_db.schema.function import Function
from connectome_db.schema.quality import METRICS, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME
from connectome_db.spec import Column, Table

LOCAL = (
    "raw_membrane_contrast", "raw_contrast_to_noise", "raw_sharpness", "alignment_residual", "section_continuity",
    "affinity_certainty", "contact_ambiguous",
)  # fmt: skip
"""Metrics that make a synapse's quality: each says how well a place can be read, whatever is found there."""

SHOWN = (*LOCAL, "synapse_confidence")
"""Metrics that are shown per synapse. The cell's mean confidence is not part of the quality: a cell holds few synapses,
so it would count the synapse's own confidence twice."""

MEASURED = (QUALITY_RAW, QUALITY_VOLUME, QUALITY_GRAPH)
"""The tables that `quality` gathers."""

QUALITY = Table(
    name="quality",
    doc="Quality of every layer, by place: all that was measured. Gathers quality_raw, quality_volume, quality_graph.",
    key=("unit", "metric", "z0_nm", "y0_nm", "x0_nm", "tile"),
    columns=(
        Column(name="stage", dtype="string", doc="Stage whose output was measured."),
        Column(name="unit", dtype="uint64", doc="Unit (of the stage that measured) that made the row."),
        *(c for c in QUALITY_RAW.columns if c.name in {"metric", "value", "weight", "measure"}),
        *(c for c in QUALITY_RAW.columns if c.name.endswith("_nm")),
        Column(name="tile", dtype="string", nullable=True, doc="The raw tile that was measured; null for a volume."),
    ),
)

METRIC = Table(
    name="metric",
    doc="The metrics of quality: what each means, and in which direction it costs quality.",
    key=("name",),
    columns=(
        Column(name="name", dtype="string", doc="Metric; `quality.metric`."),
        Column(name="layer", dtype="string", doc="Stage whose output it is about."),
        Column(name="level", dtype="string", doc="Layer of the connectome, L1 (raw tiles) to L5 (graph)."),
        Column(name="measure", dtype="string", doc="Unit of measure; 1 for a fraction or a ratio."),
        Column(name="worse", dtype="string", doc="low, high, or either: the side that costs quality."),
        Column(name="doc", dtype="string", doc="What was measured."),
    ),
)


def _local(name: str) -> tuple[Column, Column]:
    metric = METRICS[name]
    unit = "" if metric.measure == "1" else metric.measure
    return (
        Column(name=name, dtype="float64", unit=unit, nullable=True, doc=f"{metric.doc[:-1]}, where the synapse lies."),
        Column(
            name=f"{name}_dev",
            dtype="float64",
            nullable=True,
            doc=f"{name} less the dataset's median, in robust spreads between cells; negative is worse.",
        ),
    )


_QUALITY = "1: no metric is worse than the dataset's median; 0.5: the worst is 4 robust spreads worse."

SYNAPSE_QUALITY = Table(
    name="synapse_quality",
    doc="Quality of the data where each synapse lies, joined by location. Null where nothing was measured.",
    key=("synapse",),
    columns=(
        Column(name="synapse", dtype="uint64", doc="Synapse id."),
        *(Column(name=f"{a}_nm", dtype="float64", unit="nm", doc=f"Centroid of the cleft, {a}.") for a in "zyx"),
        Column(name="quality", dtype="float64", nullable=True, doc=f"Local quality, 0-1. {_QUALITY}"),
        Column(name="worst_metric", dtype="string", nullable=True, doc="The metric that decides the quality."),
        Column(name="worst_dev", dtype="float64", nullable=True, doc="Its deviation; negative is worse."),
        Column(name="flags", dtype="string", nullable=True, doc="Flags whose region holds it, ', ' between."),
        Column(
            name="flagged",
            dtype="bool",
            nullable=True,
            doc="True: one of them costs quality and is a warning or serious.",
        ),
        Column(name="p_true", dtype="float64", doc="Probability that it is true and its partners right."),
        Column(name="p_found", dtype="float64", doc="Probability that a true synapse here is found, partners right."),
        *(column for name in SHOWN for column in _local(name)),
    ),
)

SYNAPSE_FLAG = Table(
    name="synapse_flag",
    doc="Which synapse lies in the region of which flag.",
    key=("synapse", "flag"),
    columns=(
        Column(name="synapse", dtype="uint64", doc="Synapse id."),
        Column(name="flag", dtype="string", doc="Name of the flag."),
        Column(name="counts", dtype="bool", doc="True: the flag costs quality and is a warning or serious."),
    ),
)

_EDGE = (
    Column(name="pre", dtype="uint64", doc="Presynaptic neuron."),
    Column(name="post", dtype="uint64", doc="Postsynaptic neuron."),
)

CONNECTION_QUALITY = Table(
    name="connection_quality",
    doc="Quality of the data where the counted synapses of each connection lie.",
    key=("pre", "post"),
    columns=(
        *_EDGE,
        Column(name="synapses", dtype="int64", doc="Counted synapses."),
        Column(name="measured", dtype="int64", doc="Those whose quality is known."),
        Column(name="quality_mean", dtype="float64", nullable=True, doc="Mean quality of them, 0-1."),
        Column(name="quality_min", dtype="float64", nullable=True, doc="Lowest quality of them."),
        Column(name="worst_metric", dtype="string", nullable=True, doc="The metric that decides the lowest."),
        Column(name="synapses_flagged", dtype="int64", nullable=True, doc="Synapses that are `flagged`."),
        Column(name="flags", dtype="string", nullable=True, doc="Flags that hold one of them, ', ' between."),
    ),
)

QUALITY_MODEL = Table(
    name="quality_model",
    doc="The numbers behind `p_true` and `p_found`, and the phantoms they were fitted on.",
    key=("term",),
    columns=(
        Column(name="term", dtype="string", doc="Name of the number."),
        Column(name="value", dtype="float64", doc="The number."),
        Column(name="doc", dtype="string", doc="What it multiplies, or is."),
    ),
)

VIEWS = (QUALITY, METRIC, SYNAPSE_FLAG, SYNAPSE_QUALITY, CONNECTION_QUALITY, QUALITY_MODEL)
"""All views of quality, in the order in which they are made."""


CONNECTIONS = Function(
    Table(
        name="connections",
        doc="Connections counted from the synapses that meet a condition on quality.",
        key=("pre", "post"),
        columns=(
            *_EDGE,
            Column(name="synapses", dtype="int64", doc="Counted synapses that meet the condition."),
            Column(name="left_out", dtype="int64", doc="Counted synapses that do not."),
            Column(name="size_vx", dtype="int64", unit="vx", doc="Cleft voxels of those that do."),
            Column(name="confidence", dtype="float64", doc="Their mean confidence, 0-1."),
            Column(name="quality_mean", dtype="float64", nullable=True, doc="Their mean quality, 0-1."),
            Column(name="quality_min", dtype="float64", nullable=True, doc="Their lowest quality."),
        ),
    ),
    {"min_quality": "0", "exclude_flagged": "false", "min_synapses": "1"},
)

WEIGHTED_CONNECTIONS = Function(
    Table(
        name="weighted_connections",
        doc="Connections with the number of true synapses to be expected, given confidence and local quality.",
        key=("pre", "post"),
        columns=(
            *_EDGE,
            Column(name="synapses", dtype="int64", doc="Counted synapses."),
            Column(name="measured", dtype="int64", doc="Those whose quality is known; others count as average."),
            Column(name="expected", dtype="float64", doc="Expected number of true ones among them: sum of p_true."),
            Column(
                name="estimate", dtype="float64", doc="True synapses, those missed included: sum of p_true/p_found."
            ),
            Column(name="low", dtype="float64", doc="Lower end of the 95 % interval of the estimate."),
            Column(name="high", dtype="float64", doc="Upper end."),
            Column(name="quality_mean", dtype="float64", nullable=True, doc="Mean quality of its synapses, 0-1."),
        ),
    ),
    {"min_synapses": "1"},
)

FUNCTIONS: Mapping[str, Function] = {f.table.name: f for f in (CONNECTIONS, WEIGHTED_CONNECTIONS)}
"""Functions of quality, by name."""

_AT_PLACE = (*(t.name for t in MEASURED), "flag", "synapse", "stage_record")
READS: Mapping[str, tuple[str, ...]] = {
    "quality": tuple(t.name for t in MEASURED),
    "synapse_flag": ("flag", "synapse", "stage_record"),
    "synapse_quality": _AT_PLACE,
    "connection_quality": (*_AT_PLACE, "link", "connection"),
    "connections": (*_AT_PLACE, "link"),
    "weighted_connections": (*_AT_PLACE, "link"),
}
"""The tables of stages that each of these reads; `metric` and `quality_model` come from the package."""
