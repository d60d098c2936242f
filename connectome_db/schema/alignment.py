"""Tables of the alignment layer: how sections fit onto each other, and what the rendered volume holds."""

from __future__ import annotations

from connectome_db.schema.imaging import SECTION
from connectome_db.spec import Column, Table

_PAIR = (
    Column(name="section_a", dtype="int32", doc="Lower section of the pair."),
    Column(name="section_b", dtype="int32", doc="Upper section of the pair."),
)

PAIR_AFFINE = Table(
    name="pair_affine",
    doc="Coarse map of a pair of sections by features: b = [yy yx; xy xx] a + t, in section planes.",
    key=("section_a", "section_b"),
    columns=(
        *_PAIR,
        *(Column(name=n, dtype="float64", doc="Linear part, plane a to plane b.") for n in ("yy", "yx", "xy", "xx")),
        Column(name="ty", dtype="float64", unit="px", doc="Translation, y."),
        Column(name="tx", dtype="float64", unit="px", doc="Translation, x."),
        Column(name="features", dtype="int32", doc="Feature matches tried."),
        Column(name="inliers", dtype="int32", doc="Feature matches that agree with the map."),
        Column(name="rms_px", dtype="float64", unit="px", doc="Root mean square distance of the inliers."),
        Column(
            name="method",
            dtype="string",
            doc="features, or correlation (a translation, where features failed), or identity (where both failed).",
        ),
        Column(name="accepted", dtype="bool", doc="False: nothing was found and the identity was used instead."),
    ),
)

SECTION_MATCH = Table(
    name="section_match",
    doc="Points of one section found again in another by block matching.",
    key=("section_a", "section_b", "a_y_px", "a_x_px"),
    columns=(
        *_PAIR,
        Column(name="a_y_px", dtype="float64", unit="px", doc="Point in the plane of section_a, y."),
        Column(name="a_x_px", dtype="float64", unit="px", doc="Point in the plane of section_a, x."),
        Column(name="b_y_px", dtype="float64", unit="px", doc="The same tissue in the plane of section_b, y."),
        Column(name="b_x_px", dtype="float64", unit="px", doc="The same tissue in the plane of section_b, x."),
        Column(name="peak_ratio", dtype="float64", doc="Correlation peak over the next best peak."),
        Column(name="correlation", dtype="float64", doc="Normalised cross-correlation at the peak, -1 to 1."),
        Column(name="accepted", dtype="bool", doc="False: refused by the flow's consistency checks."),
    ),
)

SECTION_POSE = Table(
    name="section_pose",
    doc="The affine part of each section's place in the aligned volume: aligned = [yy yx; xy xx] plane + t.",
    key=("section",),
    columns=(
        SECTION,
        *(Column(name=n, dtype="float64", doc="Linear part, plane to aligned.") for n in ("yy", "yx", "xy", "xx")),
        Column(name="ty", dtype="float64", unit="px", doc="Translation, y."),
        Column(name="tx", dtype="float64", unit="px", doc="Translation, x."),
        Column(name="matches", dtype="int32", doc="Section matches that carry weight in the solve."),
        Column(name="residual_px", dtype="float64", unit="px", doc="Median length of their residuals; 0 without any."),
        Column(
            name="placed",
            dtype="string",
            doc="anchor; matches; or neighbours: no chain of matches reaches the anchor, so it was put between them.",
        ),
    ),
)

SECTION_TRANSFORM = Table(
    name="section_transform",
    doc="Map from the aligned volume to each section's plane: mesh nodes, bilinear in between, rounded to 1/16 px.",
    key=("section", "node_y_px", "node_x_px"),
    columns=(
        SECTION,
        Column(name="node_y_px", dtype="int32", unit="px", doc="Node in the aligned volume, y."),
        Column(name="node_x_px", dtype="int32", unit="px", doc="Node in the aligned volume, x."),
        Column(name="source_y_px", dtype="float64", unit="px", doc="Where the node lies in the section's plane, y."),
        Column(name="source_x_px", dtype="float64", unit="px", doc="Where the node lies in the section's plane, x."),
    ),
)

ALIGNMENT_RESIDUAL = Table(
    name="alignment_residual",
    doc="What is left of each accepted section match after the solve, in the aligned volume.",
    key=("section_a", "section_b", "y_px", "x_px"),
    columns=(
        *_PAIR,
        Column(name="y_px", dtype="float64", unit="px", doc="Place in the aligned volume, y."),
        Column(name="x_px", dtype="float64", unit="px", doc="Place in the aligned volume, x."),
        Column(name="residual_y_px", dtype="float64", unit="px", doc="b minus a after alignment, y."),
        Column(name="residual_x_px", dtype="float64", unit="px", doc="b minus a after alignment, x."),
        Column(name="weight", dtype="float64", doc="Weight in the final solve; 0 is rejected as an outlier."),
    ),
)

IMAGE_PLANE = Table(
    name="image_plane",
    doc="What a block of the image holds, per section.",
    key=("section",),
    columns=(
        SECTION,
        Column(name="coverage", dtype="float64", doc="Fraction of the block's pixels that some tile covers."),
        Column(name="mean", dtype="float64", unit="grey", doc="Mean of covered pixels; 0 where none."),
        Column(name="std", dtype="float64", unit="grey", doc="Standard deviation of covered pixels; 0 where none."),
        Column(name="tiles", dtype="int32", doc="Tiles that contribute pixels."),
    ),
)

IMAGE_SOURCE = Table(
    name="image_source",
    doc="Which tiles contribute pixels to which block of the image.",
    key=("section", "tile"),
    foreign={"tile": "tile.tile"},
    columns=(
        SECTION,
        Column(name="tile", dtype="string", doc="Tile name."),
        Column(name="pixels", dtype="int64", unit="px", doc="Pixels of the block this tile contributes most to."),
        Column(name="y0_px", dtype="int32", unit="px", doc="Hull of those pixels in the volume, lowest y."),
        Column(name="x0_px", dtype="int32", unit="px", doc="Lowest x."),
        Column(name="y1_px", dtype="int32", unit="px", doc="Highest y plus one."),
        Column(name="x1_px", dtype="int32", unit="px", doc="Highest x plus one."),
    ),
)

MASK_AREA = Table(
    name="mask_area",
    doc="Voxels of each mask class in a block.",
    key=("mask_class",),
    columns=(
        Column(
            name="mask_class",
            dtype="int32",
            doc="0 tissue, 1 outside, 2 resin, 3 fold, 4 crack, 5 blank, 6 low signal.",
        ),
        Column(name="name", dtype="string", doc="The class's name."),
        Column(name="voxels", dtype="int64", unit="vx", doc="Voxels of the class."),
    ),
)
