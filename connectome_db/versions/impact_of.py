"""What a change of code or of a region may reach: the parts of `impact` that know stages and params.yaml."""

from __future__ import annotations

from collections.abc import Sequence

from connectome_db.codedigest import OUTSIDE, PACKAGE, closure
from connectome_db.errors import ConfigError, QueryError, nearest
from connectome_db.geometry import Box
from connectome_db.prepare import code_roots
from connectome_db.query import impact
from connectome_db.query.database import Database
from connectome_db.query.impact import Impact
from connectome_db.regional.regions import regions_of
from connectome_db.revisions import Revision
from connectome_db.spec import AnyStage


def of_code(db: Database, stages: Sequence[AnyStage], module: str) -> Impact:
    """What depends on a module of the package (`kernels.watershed`) or of a user's own stages, as its code is now."""
    name = module.removeprefix(f"{PACKAGE}.")
    reached = stages_with(stages, name)
    made = [r["stage"] for r in db.fetch("SELECT stage FROM stage_record")]
    found = [s for s in reached if s in made]
    if not found:
        raise QueryError(f"{name} is part of {', '.join(reached)}, and no such stage has data; run `dvc repro`")
    return impact.of_stages(db, found, f"code {name}, part of {', '.join(found)}")


def stages_with(stages: Sequence[AnyStage], module: str) -> list[str]:
    """Stages whose code digest holds a module (dotted, below the package), in order."""
    held: dict[str, set[str]] = {}
    for stage in stages:
        roots, files = code_roots(stage)
        held[stage.name] = {m.name for m in closure(*roots, files=files)}
    if found := [name for name, modules in held.items() if module in modules]:
        return found
    if module in OUTSIDE:
        raise QueryError(f"{module} is outside the code digest of every stage: a change there redoes nothing")
    raise QueryError(f"no stage's code reaches a module {module!r}{nearest(module, set().union(*held.values()))}")


def region_box(db: Database, revision: Revision, name: str) -> Box:
    """A region of the revision's params.yaml, in voxels. Raises ConfigError that names the nearest."""
    known = regions_of(revision.text("params.yaml") or "", db.voxel_nm)
    if name not in known:
        raise ConfigError(f"no region {name!r} in params.yaml{nearest(name, known)}")
    return known[name].box
