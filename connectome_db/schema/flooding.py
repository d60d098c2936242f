"""Tables of flood-filling: what became of every seed, which bodies came of it, and what was never tried."""

from __future__ import annotations

from connectome_db.spec import Column, Table

_DIRECTION = Column(
    name="direction", dtype="string", doc='Order of the seeds: "forward" in raster order, "backward" from the end.'
)


def _place(prefix: str, what: str, *, nullable: bool = False) -> tuple[Column, ...]:
    return tuple(
        Column(name=f"{prefix}{axis}_vx", dtype="int32", unit="vx", doc=f"{what}, {axis}.", nullable=nullable)
        for axis in "zyx"
    )


def _count(name: str, doc: str, unit: str = "") -> Column:
    return Column(name=name, dtype="int64", doc=doc, unit=unit)


FLOOD_BODY = Table(
    name="flood_body",
    doc="Bodies that flood-filling made, as far as they lie in the block, and the seeds that they grew from.",
    key=("body",),
    columns=(
        Column(name="body", dtype="uint64", doc="Body id, in the block's core; named by its first voxel there."),
        _count("size_vx", "Voxels in the block's core.", "vx"),
        _count("read_vx", "Voxels in all that the block read.", "vx"),
        *_place("seed_", "Seed it grew from"),
        *_place("second_seed_", "With consensus: seed of the other filling; null without", nullable=True),
    ),
)

FLOOD_OBJECT = Table(
    name="flood_object",
    doc="What became of every seed at which the network was asked, kept or not.",
    key=("direction", "seed_z_vx", "seed_y_vx", "seed_x_vx"),
    columns=(
        _DIRECTION,
        *_place("seed_", "Seed"),
        _count("moves", "Windows in which the network was asked."),
        _count("voxels", "Voxels of its own in all that the block read; 0 if the seed was given up.", "vx"),
        Column(
            name="reason",
            dtype="string",
            doc='Why it stopped: "complete" no move was left, "limit" flood.max_moves, "weak" the seed fell below the '
            'move threshold, "hopeless" flood.probe_moves, "small" complete but below flood.min_body_vx.',
        ),
        _count("overlap_vx", "Voxels that it claimed and an earlier object has.", "vx"),
        _count("low", "Moves not made as the voxel had fallen below the move threshold by then."),
        _count("border", "Moves not made as the window would have left the image."),
        _count("no_tissue", "Moves not made as there is no tissue."),
        _count("taken", "Moves not made as an earlier object is there."),
    ),
)

FLOOD_OVERLAP = Table(
    name="flood_overlap",
    doc="Voxels that an object claimed while an earlier one had them: where the two may be one body.",
    key=("direction", "seed_z_vx", "seed_y_vx", "seed_x_vx", "other_z_vx", "other_y_vx", "other_x_vx"),
    columns=(
        _DIRECTION,
        *_place("seed_", "Seed of the later object"),
        *_place("other_", "Seed of the earlier object"),
        _count("overlap_vx", "Voxels that both claimed.", "vx"),
    ),
)

FLOOD_SKIP = Table(
    name="flood_skip",
    doc="Seeds at which the network was never asked, by reason.",
    key=("direction", "reason"),
    columns=(
        _DIRECTION,
        Column(
            name="reason",
            dtype="string",
            doc='"border" the window would leave the image, "no_tissue", "taken" inside an earlier object, "close" '
            "next to one.",
        ),
        _count("seeds", "Seeds."),
    ),
)

FLOOD_APRON = Table(
    name="flood_apron",
    doc="What a block's filling says about voxels of its upper neighbours, run-length coded like `apron`.",
    key=("axis", "start"),
    foreign={"body": "flood_body.body"},
    columns=(
        Column(name="axis", dtype="int32", doc="Side: 0 upper z, 1 upper y, 2 upper x."),
        Column(name="start", dtype="int64", unit="vx", doc="First voxel of the run; counted as in `apron`."),
        Column(name="length", dtype="int64", unit="vx", doc="Voxels of the run."),
        Column(
            name="body",
            dtype="uint64",
            nullable=True,
            doc="This block's body there; null where it has none that reaches into the block.",
        ),
    ),
)

SUPERVOXEL_BODY = Table(
    name="supervoxel_body",
    doc="Which bodies became which supervoxels. A supervoxel is one body, grown, unless segment.fill is mutex: then it "
    "may have parts of several, and a body may lie in several.",
    key=("supervoxel", "body"),
    foreign={"supervoxel": "supervoxel.supervoxel", "body": "flood_body.body"},
    columns=(
        Column(name="supervoxel", dtype="uint64", doc="Supervoxel id."),
        Column(name="body", dtype="uint64", doc="Body id."),
        _count("voxels", "Voxels of the block's core that have both.", "vx"),
    ),
)


def _refilled(side: str) -> tuple[Column, ...]:
    other = "b" if side == "a" else "a"
    return (
        _count(f"{side}_vx", f"Voxels of the fragment of {side} around the contact.", "vx"),
        *_place(f"{side}_seed_", f"Seed in the fragment of {side}; null if no window fits there", nullable=True),
        _count(f"{side}_moves", "Windows of the fillings from there, those of earlier seeds included."),
        Column(name=f"{side}_own", dtype="float64", doc=f"Share of the fragment of {side} that the filling has, 0-1."),
        Column(name=f"{side}_other", dtype="float64", doc=f"Share of the fragment of {other} that it has, 0-1."),
    )


RESEGMENTATION = Table(
    name="resegmentation",
    doc="Fragments in contact, filled once more from each side (decision points), as seen by one block.",
    key=("a", "b"),
    foreign={"a": "supervoxel.supervoxel", "b": "supervoxel.supervoxel"},
    columns=(
        Column(name="a", dtype="uint64", doc="Lower supervoxel of the largest contact of the two fragments."),
        Column(name="b", dtype="uint64", doc="Higher supervoxel of that contact."),
        *_place("", "Middle of that contact"),
        *_refilled("a"),
        *_refilled("b"),
        Column(name="iou", dtype="float64", doc="Voxels that both fillings have over those that any has, 0-1."),
    ),
)
