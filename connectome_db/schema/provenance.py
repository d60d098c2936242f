"""The provenance views: what was run, on what, by which code, as tables that SQL can join with the science.

unit ── unit_read ── part      which unit read which content      (unit_edge is that join)
  └──── execution ── run       who computed it, when, with which commit and environment
stage_record, stage_override, stage_input, stage_output           what a stage's data folder says of itself
"""

from __future__ import annotations

from connectome_db.spec import Column, Table

_STAGE = Column(name="stage", dtype="string", doc="Stage name.")
_UNIT = Column(name="unit", dtype="uint64", doc="Unit code: its place on the lattice of the dataset's origin.")
_BOX = tuple(
    Column(name=f"{axis}{end}", dtype="int64", unit="vx", doc=f"{word} {axis} of the box{plus}.")
    for end, word, plus in ((0, "Lowest", ""), (1, "Highest", ", plus one"))
    for axis in "zyx"
)

UNIT = Table(
    name="unit",
    doc="Units of work: the boxes that one call of a stage's compute writes.",
    key=("stage", "unit"),
    columns=(
        _STAGE,
        _UNIT,
        Column(name="kind", dtype="string", doc="blocks, sections, pairs, faces or once."),
        *(Column(name=axis, dtype="int32", doc=f"Lattice position, {axis}.") for axis in "zyx"),
        Column(name="axis", dtype="int32", doc="Axis of a face: 0 z, 1 y, 2 x."),
        *(
            Column(name=f"core_{axis}{end}", dtype="int64", unit="vx", doc=f"Core box, {word} {axis}{plus}.")
            for end, word, plus in ((0, "lowest", ""), (1, "highest", " plus one"))
            for axis in "zyx"
        ),
        Column(name="unit_key", dtype="string", doc="Key of the result: a digest of everything that went into it."),
        Column(name="params_digest", dtype="string", doc="Digest of the effective parameters."),
        Column(name="model_id", dtype="string", nullable=True, doc="Model that the effective parameters name."),
    ),
)

UNIT_READ = Table(
    name="unit_read",
    doc="Which box of which input each unit reads. An input may appear twice; an empty box reads nothing.",
    key=("stage", "unit", "input"),
    columns=(
        _STAGE,
        _UNIT,
        Column(name="input", dtype="string", doc="What it reads, as stage.output."),
        *_BOX,
    ),
)

PART = Table(
    name="part",
    doc="The content of each output, part by part: its box and the digest of its decoded values.",
    key=("output", "unit"),
    columns=(
        _STAGE,
        Column(name="output", dtype="string", doc="The output, as stage.output."),
        Column(name="unit", dtype="uint64", doc="The part's code: its unit, or its section for section parts."),
        *_BOX,
        Column(name="digest", dtype="string", doc="SHA-256 of the decoded values."),
        Column(name="rows", dtype="int64", doc="Rows of the part; -1 for a volume."),
    ),
)

UNIT_EDGE = Table(
    name="unit_edge",
    doc="Lineage of units: each unit beside each unit whose output it read.",
    key=("stage", "unit", "input", "part"),
    columns=(
        _STAGE,
        _UNIT,
        Column(name="input", dtype="string", doc="What was read, as stage.output."),
        Column(name="upstream_stage", dtype="string", doc="Stage that made it."),
        Column(name="upstream_unit", dtype="uint64", doc="Unit that made it."),
        Column(name="part", dtype="uint64", doc="Code of the part that was read."),
        Column(name="digest", dtype="string", doc="Content digest of that part."),
    ),
)

RUN = Table(
    name="run",
    doc="The run that last finished each stage.",
    key=("stage",),
    columns=(
        _STAGE,
        Column(name="run_id", dtype="string", doc="Run id."),
        Column(name="started", dtype="string", doc="Start, ISO 8601, UTC."),
        Column(name="ended", dtype="string", nullable=True, doc="End, ISO 8601, UTC."),
        Column(name="git_commit", dtype="string", nullable=True, doc="Commit of the project."),
        Column(name="git_dirty", dtype="bool", nullable=True, doc="True: there were changes that no commit holds."),
        Column(name="git_diff_sha256", dtype="string", nullable=True, doc="Digest of those changes."),
        Column(name="git_branch", dtype="string", nullable=True, doc="Branch."),
        Column(name="user", dtype="string", nullable=True, doc="Who ran it."),
        Column(name="host", dtype="string", nullable=True, doc="Where it was started."),
        Column(name="python", dtype="string", nullable=True, doc="Python version."),
        Column(name="executor", dtype="string", nullable=True, doc="serial, mpi, dask or part i/n."),
        Column(name="workers", dtype="int32", nullable=True, doc="Workers."),
        Column(name="units_total", dtype="int64", nullable=True, doc="Units of the stage."),
        Column(name="units_computed", dtype="int64", nullable=True, doc="Units computed by this run."),
        Column(name="units_reused", dtype="int64", nullable=True, doc="Units found in the store."),
        Column(name="facts", dtype="string", doc="All facts of the run, as JSON."),
    ),
)

EXECUTION = Table(
    name="execution",
    doc="How each unit was computed. For a reused unit these are the facts of its original execution.",
    key=("stage", "unit"),
    columns=(
        _STAGE,
        _UNIT,
        Column(name="unit_key", dtype="string", doc="Key of the result."),
        Column(name="run_id", dtype="string", doc="Run that computed it."),
        Column(name="reused", dtype="bool", doc="True: the last run of the stage took it from the store."),
        Column(name="rank", dtype="int32", doc="Worker number."),
        Column(name="seconds", dtype="float64", unit="s", doc="Time to compute it."),
        Column(name="started", dtype="string", doc="Start, ISO 8601, UTC."),
        Column(name="host", dtype="string", doc="Where it was computed."),
        Column(name="git_commit", dtype="string", doc="Commit of the project at that time."),
        Column(name="environment", dtype="string", doc="Digest of the environment."),
        Column(name="git_dirty", dtype="bool", doc="True: there were changes that no commit held."),
        Column(name="user", dtype="string", nullable=True, doc="Who ran it; null for an earlier run."),
    ),
)

ENVIRONMENT = Table(
    name="environment",
    doc="The environments that units were computed in.",
    key=("stage", "environment"),
    columns=(
        _STAGE,
        Column(name="environment", dtype="string", doc="Digest of the facts."),
        Column(name="facts", dtype="string", doc="Operating system, CPU, Python, packages and so on, as JSON."),
    ),
)

STAGE_RECORD = Table(
    name="stage_record",
    doc="What each stage's data folder says of itself.",
    key=("stage",),
    columns=(
        _STAGE,
        Column(name="format", dtype="int64", doc="Format version of keys."),
        Column(name="units", dtype="int64", doc="Units of the stage."),
        Column(name="kind", dtype="string", nullable=True, doc="blocks, sections, pairs, faces or once."),
        Column(name="code_digest", dtype="string", doc="Digest of the stage's code and all it reaches."),
        Column(name="model_id", dtype="string", nullable=True, doc="Model: name@digest of architecture and weights."),
        Column(name="model_digest", dtype="string", nullable=True, doc="Full digest of the model."),
        *(Column(name=f"voxel_{axis}_nm", dtype="float64", unit="nm", doc=f"Voxel size, {axis}.") for axis in "zyx"),
        Column(name="params", dtype="string", doc="Parameters outside all regions, as JSON."),
        Column(name="git_commit", dtype="string", nullable=True, doc="Commit of the project at the last run."),
    ),
)

STAGE_OVERRIDE = Table(
    name="stage_override",
    doc="Parameters that differ in a region, in the order in which they apply.",
    key=("stage", "place"),
    columns=(
        _STAGE,
        Column(name="place", dtype="int32", doc="0 for the first; later ones win."),
        Column(name="region", dtype="string", doc="Name of the region."),
        *_BOX,
        Column(name="params", dtype="string", doc="The parameters that differ, as JSON."),
    ),
)

_DIGEST = Column(name="digest", dtype="string", doc="Merkle digest over all parts.")

STAGE_INPUT = Table(
    name="stage_input",
    doc="Digest of everything a stage could read.",
    key=("stage", "input"),
    columns=(_STAGE, Column(name="input", dtype="string", doc="The input, as stage.output."), _DIGEST),
)

STAGE_OUTPUT = Table(
    name="stage_output",
    doc="Digest of everything a stage made.",
    key=("stage", "output"),
    columns=(_STAGE, Column(name="output", dtype="string", doc="The output, as stage.output."), _DIGEST),
)

PROVENANCE = (
    UNIT,
    UNIT_READ,
    PART,
    UNIT_EDGE,
    RUN,
    EXECUTION,
    ENVIRONMENT,
    STAGE_RECORD,
    STAGE_OVERRIDE,
    STAGE_INPUT,
    STAGE_OUTPUT,
)
"""All provenance views."""
