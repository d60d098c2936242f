"""Tables of the segmentation layers: supervoxels, how blocks fit together, and which supervoxels make an object."""

from __future__ import annotations

from connectome_db.spec import Column, Table


def _box(what: str) -> tuple[Column, ...]:
    return tuple(
        Column(name=f"{axis}{end}_vx", dtype="int32", unit="vx", doc=f"{what}: {word} {axis}{plus}.")
        for end, word, plus in ((0, "lowest", ""), (1, "highest", " plus one"))
        for axis in "zyx"
    )


SUPERVOXEL = Table(
    name="supervoxel",
    doc="Supervoxels: the atoms of the segmentation, written once as voxels.",
    key=("supervoxel",),
    columns=(
        Column(name="supervoxel", dtype="uint64", doc="Supervoxel id."),
        Column(name="size_vx", dtype="int64", unit="vx", doc="Voxels."),
        *_box("Bounding box"),
        Column(name="z_vx", dtype="float64", unit="vx", doc="Centroid, z."),
        Column(name="y_vx", dtype="float64", unit="vx", doc="Centroid, y."),
        Column(name="x_vx", dtype="float64", unit="vx", doc="Centroid, x."),
        Column(name="boundary", dtype="float64", doc="Mean boundary probability over its voxels, 0-1."),
        Column(name="origin", dtype="string", doc="How it was made: the segmentation method."),
    ),
)

APRON = Table(
    name="apron",
    doc="What a block's segmentation says about voxels of its upper neighbours, run-length coded.",
    key=("axis", "start"),
    foreign={"supervoxel": "supervoxel.supervoxel"},
    columns=(
        Column(name="axis", dtype="int32", doc="Side: 0 upper z, 1 upper y, 2 upper x."),
        Column(
            name="start",
            dtype="int64",
            unit="vx",
            doc="First voxel of the run; voxels count with `axis` slowest, then the other two in (z, y, x) order.",
        ),
        Column(name="length", dtype="int64", unit="vx", doc="Voxels of the run."),
        Column(
            name="supervoxel",
            dtype="uint64",
            nullable=True,
            doc="This block's supervoxel there; null where it has none that reaches into the block.",
        ),
    ),
)

OVERLAP = Table(
    name="overlap",
    doc="Supervoxels of two blocks that lie on the same voxels, and whether they are one thing.",
    key=("a", "b"),
    foreign={"a": "supervoxel.supervoxel", "b": "supervoxel.supervoxel"},
    columns=(
        Column(name="a", dtype="uint64", doc="Supervoxel of the lower block."),
        Column(name="b", dtype="uint64", doc="Supervoxel of the upper block."),
        Column(name="overlap_vx", dtype="int64", unit="vx", doc="Voxels that both claim."),
        Column(name="a_vx", dtype="int64", unit="vx", doc="Voxels of a in the slab."),
        Column(name="b_vx", dtype="int64", unit="vx", doc="Voxels of b in the slab."),
        Column(name="score", dtype="float64", doc="Overlap over the smaller of a_vx and b_vx, 0-1."),
        Column(name="iou", dtype="float64", doc="Overlap over union, 0-1."),
        Column(name="accepted", dtype="bool", doc="True: the two are joined by reconcile."),
        Column(name="reason", dtype="string", doc="Why it was accepted or refused."),
    ),
)

FRAGMENT = Table(
    name="fragment",
    doc="Supervoxels joined across block faces; a fragment is named by its lowest supervoxel.",
    key=("supervoxel",),
    foreign={"supervoxel": "supervoxel.supervoxel"},
    columns=(
        Column(name="supervoxel", dtype="uint64", doc="Supervoxel id."),
        Column(name="fragment", dtype="uint64", doc="Lowest supervoxel id of the fragment."),
    ),
)

CONTACT = Table(
    name="contact",
    doc="Scored contacts of neighbouring supervoxels, as seen by one block (pairs recur in several blocks).",
    key=("a", "b"),
    foreign={"a": "supervoxel.supervoxel", "b": "supervoxel.supervoxel"},
    columns=(
        Column(name="a", dtype="uint64", doc="Lower supervoxel id."),
        Column(name="b", dtype="uint64", doc="Higher supervoxel id."),
        Column(name="faces", dtype="int64", doc="Voxel faces shared."),
        Column(name="area_nm2", dtype="float64", unit="nm2", doc="Area of those faces."),
        Column(name="affinity", dtype="float64", doc="Mean affinity over that area, 0-1: the merge score."),
        Column(name="affinity_low", dtype="float64", doc="Lower quartile of the affinity over the faces."),
        Column(name="affinity_high", dtype="float64", doc="Upper quartile of the affinity over the faces."),
        Column(name="z_vx", dtype="float64", unit="vx", doc="Centre of the contact, z."),
        Column(name="y_vx", dtype="float64", unit="vx", doc="Centre of the contact, y."),
        Column(name="x_vx", dtype="float64", unit="vx", doc="Centre of the contact, x."),
    ),
)

MERGE = Table(
    name="merge",
    doc="Every merge of two groups of fragments, in the order it was made.",
    key=("a", "b"),
    columns=(
        Column(name="a", dtype="uint64", doc="Name of the group that keeps its name (the lower)."),
        Column(name="b", dtype="uint64", doc="Name of the group that joins it."),
        Column(name="score", dtype="float64", doc="Mean affinity between the groups then; moved by `resegment`."),
        Column(name="area_nm2", dtype="float64", unit="nm2", doc="Contact area that carries the score."),
        Column(name="rank", dtype="int64", doc="0 for the first merge."),
    ),
)

BORDERLINE = Table(
    name="borderline",
    doc="Pairs of objects left apart whose score came near the threshold: where a proofreader should look first.",
    key=("a", "b"),
    foreign={"a": "object.object", "b": "object.object"},
    columns=(
        Column(name="a", dtype="uint64", doc="Lower object."),
        Column(name="b", dtype="uint64", doc="Higher object."),
        Column(name="score", dtype="float64", doc="Mean affinity between the two; with `resegment`, moved."),
        Column(name="area_nm2", dtype="float64", unit="nm2", doc="Contact area."),
    ),
)

MEMBER = Table(
    name="member",
    doc="Which object each supervoxel belongs to.",
    key=("supervoxel",),
    foreign={"supervoxel": "supervoxel.supervoxel", "object": "object.object"},
    columns=(
        Column(name="supervoxel", dtype="uint64", doc="Supervoxel id."),
        Column(name="fragment", dtype="uint64", doc="Fragment after reconcile."),
        Column(name="object", dtype="uint64", doc="Object after agglomeration: the lowest supervoxel id in it."),
    ),
)

OBJECT = Table(
    name="object",
    doc="Objects: agglomerated supervoxels, named by their lowest supervoxel.",
    key=("object",),
    columns=(
        Column(name="object", dtype="uint64", doc="Object id."),
        Column(name="supervoxels", dtype="int64", doc="Supervoxels in it."),
        Column(name="fragments", dtype="int64", doc="Fragments in it."),
        Column(name="size_vx", dtype="int64", unit="vx", doc="Voxels."),
        Column(name="volume_nm3", dtype="float64", unit="nm3", doc="Volume."),
        *_box("Bounding box"),
        Column(name="weakest_merge", dtype="float64", doc="Lowest score of the merges that made it; 1 if none."),
        Column(name="touches_border", dtype="bool", doc="True when it reaches the border of the volume (cut neurite)."),
    ),
)
