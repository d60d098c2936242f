"""Tables of the raw layer: tiles as they came from the microscope, and how they fit into a section (montage)."""

from __future__ import annotations

from connectome_db.spec import Column, Table

SECTION = Column(name="section", dtype="int32", doc="Section number; its z plane in the volume.")
TILE_NAME = Column(name="tile", dtype="string", doc="Tile name: its path relative to the manifest.")

TILE = Table(
    name="tile",
    doc="One row per usable raw tile, with its digest and what its pixels look like.",
    key=("section", "tile"),
    columns=(
        SECTION,
        TILE_NAME,
        Column(name="sha256", dtype="string", doc="SHA-256 of the file's bytes, as found by ingest."),
        Column(name="stage_y_px", dtype="float64", unit="px", doc="Nominal top edge minus the dataset's origin."),
        Column(name="stage_x_px", dtype="float64", unit="px", doc="Nominal left edge minus the dataset's origin."),
        Column(name="height_px", dtype="int32", unit="px", doc="Rows of pixels."),
        Column(name="width_px", dtype="int32", unit="px", doc="Columns of pixels."),
        Column(name="dtype", dtype="string", doc="Pixel type in the file."),
        Column(name="valid_fraction", dtype="float64", doc="Fraction of pixels that are not black border."),
        Column(name="mean", dtype="float64", unit="grey", doc="Mean grey value of valid pixels."),
        Column(name="std", dtype="float64", unit="grey", doc="Standard deviation of valid pixels."),
        Column(name="saturation", dtype="float64", doc="Fraction of valid pixels at the ends of the grey range."),
        Column(name="sharpness", dtype="float64", doc="Share of image power in the band that focus controls, 0-1."),
        Column(name="noise", dtype="float64", unit="grey", doc="Noise standard deviation (Immerkaer 1996)."),
        Column(name="membrane_contrast", dtype="float64", doc="Dark ridge depth over noise-free spread, 0-1 or more."),
    ),
)

TILE_ISSUE = Table(
    name="tile_issue",
    doc="Tiles of the manifest that could not be used, and why.",
    key=("section", "tile", "problem"),
    columns=(
        SECTION,
        TILE_NAME,
        Column(name="problem", dtype="string", doc="missing, duplicate, truncated, wrong_size or checksum."),
        Column(name="detail", dtype="string", doc="What was wanted and what was found."),
    ),
)

TILE_MATCH = Table(
    name="tile_match",
    doc="Shift measured on each patch of each overlap of two tiles of a section.",
    key=("section", "tile_a", "tile_b", "patch"),
    foreign={"tile_a": "tile.tile", "tile_b": "tile.tile"},
    columns=(
        SECTION,
        Column(name="tile_a", dtype="string", doc="First tile; tile_a < tile_b."),
        Column(name="tile_b", dtype="string", doc="Second tile."),
        Column(name="patch", dtype="int32", doc="Patch number along the overlap."),
        Column(name="a_y_px", dtype="float64", unit="px", doc="Centre of the patch in tile_a, y."),
        Column(name="a_x_px", dtype="float64", unit="px", doc="Centre of the patch in tile_a, x."),
        Column(name="b_y_px", dtype="float64", unit="px", doc="The same tissue in tile_b, y."),
        Column(name="b_x_px", dtype="float64", unit="px", doc="The same tissue in tile_b, x."),
        Column(name="shift_y_px", dtype="float64", unit="px", doc="Measured minus nominal displacement of tile_b, y."),
        Column(name="shift_x_px", dtype="float64", unit="px", doc="Measured minus nominal displacement of tile_b, x."),
        Column(name="peak_ratio", dtype="float64", doc="Correlation peak over the next best peak; 1 is no evidence."),
        Column(name="correlation", dtype="float64", doc="Normalised cross-correlation at the peak, -1 to 1."),
        Column(name="weight", dtype="float64", doc="Weight in the final least squares; 0 is rejected as an outlier."),
        Column(name="residual_px", dtype="float64", unit="px", doc="Distance left after the solve."),
    ),
)

TILE_TRANSFORM = Table(
    name="tile_transform",
    doc="Where each tile lies in its section: y' = yy*y + yx*x + ty, x' = xy*y + xx*x + tx (pixel centres).",
    key=("section", "tile"),
    foreign={"tile": "tile.tile"},
    columns=(
        SECTION,
        TILE_NAME,
        *(Column(name=n, dtype="float64", doc="Linear part, tile to section plane.") for n in ("yy", "yx", "xy", "xx")),
        Column(name="ty", dtype="float64", unit="px", doc="Translation, y."),
        Column(name="tx", dtype="float64", unit="px", doc="Translation, x."),
        Column(name="height_px", dtype="int32", unit="px", doc="Rows of pixels of the tile."),
        Column(name="width_px", dtype="int32", unit="px", doc="Columns of pixels of the tile."),
        Column(
            name="gain", dtype="float64", doc="Grey' = gain * grey / illumination + offset brings it to the target."
        ),
        Column(name="offset", dtype="float64", unit="grey", doc="See gain."),
        Column(name="component", dtype="int32", doc="Tiles linked by matches share a number; 0 is the largest group."),
        Column(
            name="matches", dtype="int32", doc="Accepted patches that hold this tile; 0: placed by the stage alone."
        ),
    ),
)

ILLUMINATION = Table(
    name="illumination",
    doc="Smooth relative illumination over the tile area of a section, on a coarse grid (mean 1).",
    key=("section", "node_y", "node_x"),
    columns=(
        SECTION,
        Column(name="node_y", dtype="int32", doc="Grid row; nodes span the tile from edge to edge."),
        Column(name="node_x", dtype="int32", doc="Grid column."),
        Column(name="gain", dtype="float64", doc="Relative brightness at the node."),
    ),
)
