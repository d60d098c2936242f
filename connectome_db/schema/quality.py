"""Tables of quality: what was measured of each layer and where, and the flags that were raised on it.

The three `quality_*` tables have the same columns and make one view, `quality`. They are apart because they are made
by different units: sections (tiles), blocks (volume) and the whole (graph).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from connectome_db.spec import Column, Table


def _box_nm(what: str) -> tuple[Column, ...]:
    return tuple(
        Column(name=f"{axis}{end}_nm", dtype="float64", unit="nm", doc=f"{what}, {word} {axis}, in the aligned volume.")
        for end, word in ((0, "lowest"), (1, "highest"))
        for axis in "zyx"
    )


_MEASURED = (
    Column(name="layer", dtype="string", doc="Stage whose output was measured."),
    Column(name="metric", dtype="string", doc="What was measured; see the list of metrics."),
    *_box_nm("Box that the value is about"),
    Column(name="value", dtype="float64", doc="The value."),
    Column(name="weight", dtype="float64", doc="How much it rests on: pixels, matches, voxels, contacts or synapses."),
    Column(name="measure", dtype="string", doc="Unit of measure of the value; 1 for a fraction or a ratio."),
)
_PLACE = ("metric", "z0_nm", "y0_nm", "x0_nm")

QUALITY_RAW = Table(
    name="quality_raw",
    doc="Quality of the raw tiles and of their place, by patch of a tile.",
    key=(*_PLACE, "tile"),
    foreign={"tile": "tile.tile"},
    columns=(
        *_MEASURED,
        Column(name="section", dtype="int32", doc="Section number."),
        Column(name="tile", dtype="string", doc="The tile that was measured."),
    ),
)
QUALITY_VOLUME = Table(
    name="quality_volume",
    doc="Quality of the aligned image, the segmentation and the synapses, by cell of the volume.",
    key=_PLACE,
    columns=_MEASURED,
)
QUALITY_GRAPH = Table(
    name="quality_graph",
    doc="Quality of the objects and of the graph, by cell of the volume.",
    key=_PLACE,
    columns=_MEASURED,
)

FLAG = Table(
    name="flag",
    doc="Regions whose quality differs from the rest more than chance and normal variation allow.",
    key=("flag",),
    columns=(
        Column(name="flag", dtype="string", doc="Name: metric/kind/number, the strongest first."),
        Column(name="layer", dtype="string", doc="Stage whose output it is about."),
        Column(name="metric", dtype="string", doc="The metric; see `quality`."),
        Column(name="kind", dtype="string", doc="trend, local, step, section or period."),
        Column(name="severity", dtype="string", doc="info, warning or serious."),
        *_box_nm("Region"),
        Column(name="inside", dtype="float64", doc="Value in the region, in the metric's measure."),
        Column(name="outside", dtype="float64", doc="Value elsewhere."),
        Column(name="effect", dtype="float64", doc="Inside minus outside, in the metric's measure."),
        Column(name="relative", dtype="float64", nullable=True, doc="Effect over outside; null where outside is 0."),
        Column(name="spread", dtype="float64", doc="Effect over the normal spread between cells (robust)."),
        Column(name="measure", dtype="string", doc="Unit of measure."),
        Column(name="p_value", dtype="float64", doc="Of the spatially aware permutation test."),
        Column(name="q_value", dtype="float64", doc="The same after control of the false discovery rate."),
        Column(name="worse", dtype="bool", doc="True: it differs in the direction that costs quality."),
        Column(name="evidence", dtype="string", doc="The finding in words."),
    ),
)

Worse = Literal["low", "high", "either"]


@dataclass(frozen=True)
class Metric:
    """What a metric means, and in which direction it costs quality."""

    name: str
    layer: str
    measure: str
    worse: Worse
    doc: str


_LIST = (
    # L1: the raw tiles (quality_raw; patches of a tile)
    Metric("raw_membrane_contrast", "ingest", "grey", "low", "Depth of dark ridges (membranes), top tenth."),
    Metric("raw_contrast_to_noise", "ingest", "1", "low", "The same over the noise."),
    Metric("raw_sharpness", "ingest", "1", "low", "Share of image power in the band that focus controls."),
    Metric("raw_noise", "ingest", "grey", "high", "Standard deviation of the noise."),
    Metric("raw_mean", "ingest", "grey", "either", "Mean grey value."),
    Metric("raw_spread", "ingest", "grey", "low", "Standard deviation of the grey values, without the noise."),
    Metric("raw_saturation", "ingest", "1", "high", "Fraction of pixels at the ends of the grey range."),
    Metric("raw_charging", "ingest", "grey", "high", "Streaks along the scan lines, beyond what noise makes."),
    # L2: the aligned volume
    Metric("montage_residual", "montage", "px", "high", "Residual of tile matches at the seams of a tile."),
    Metric("montage_peak_ratio", "montage", "1", "low", "Correlation peak of tile matches over the next."),
    Metric("alignment_residual", "align", "px", "high", "Length of the residuals of section matches."),
    Metric("match_correlation", "match", "1", "low", "Correlation at the peak of section matches."),
    Metric("match_peak_ratio", "match", "1", "low", "Correlation peak of section matches over the next."),
    Metric("match_refused", "match", "1", "high", "Fraction of section matches that were refused."),
    Metric("coverage", "render", "1", "low", "Fraction of voxels that some tile covers."),
    Metric("section_continuity", "render", "1", "low", "Correlation of neighbouring sections as rendered."),
    Metric("image_contrast", "render", "grey", "low", "Depth of dark ridges in the rendered image."),
    Metric("damaged", "mask", "1", "high", "Fraction of covered voxels masked as fold, crack, blank or low signal."),
    # L3: segmentation
    Metric("affinity_certainty", "segment", "1", "low", "Mean of |2 a - 1| over the affinities a of tissue."),
    Metric("boundary_fraction", "segment", "1", "either", "Fraction of tissue of a mean affinity below 0.5."),
    Metric(
        "supervoxel_density",
        "segment",
        "um-3",
        "either",
        "Supervoxels per tissue: splits raise it, merges lower it.",
    ),
    Metric("contact_ambiguous", "score", "1", "high", "Share of contact area with affinity from 0.3 to 0.7."),
    # L4: objects and synapses
    Metric(
        "object_density",
        "agglomerate",
        "um-3",
        "either",
        "Objects per tissue: splits raise it, merges lower it.",
    ),
    Metric("object_size", "agglomerate", "log10 um3", "either", "Mean over voxels of the log volume of their object."),
    Metric("orphan_fraction", "agglomerate", "1", "high", "Share of tissue in objects that end inside and are small."),
    Metric("borderline", "agglomerate", "um-3", "high", "Pairs left apart near the threshold, per volume of tissue."),
    Metric("synapse_density", "synapses", "um-3", "low", "Detected synapses per volume of tissue."),
    Metric("synapse_confidence", "synapses", "1", "low", "Mean confidence of the synapses."),
    Metric("synapse_polarity", "synapses", "1", "low", "Mean evidence for the direction of the synapses."),
    Metric("cleft_size", "synapses", "nm3", "low", "Mean volume of the clefts."),
    # L5: the graph
    Metric("connection_density", "graph", "um-3", "low", "Counted synapses per volume of tissue."),
    Metric("uncounted", "graph", "1", "high", "Fraction of synapses that count in no connection."),
    Metric("degree", "graph", "1", "either", "Mean partners (in and out) of the neurons through a cell, by volume."),
    Metric("border_cut", "graph", "1", "either", "Share of tissue in neurons that the volume's border cuts."),
)
METRICS: Mapping[str, Metric] = {m.name: m for m in _LIST}
"""Every metric by name, in the order of the layers."""

LEVELS: Mapping[str, str] = {
    "ingest": "L1", "montage": "L2", "match": "L2", "align": "L2", "render": "L2", "mask": "L2", "segment": "L3",
    "overlap": "L3", "reconcile": "L3", "score": "L3", "agglomerate": "L4", "synapses": "L4", "graph": "L5",
}  # fmt: skip
"""The layer of the connectome (L1 raw tiles to L5 graph) that each stage belongs to."""
