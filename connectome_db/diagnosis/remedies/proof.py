"""What a remedy did, unit by unit: the region, what reads from it, and everything else, which must be as it was.

region      the unit's core touches the region (stages that run once have no region)
reach       it lies elsewhere, and reads something that the remedy changed, or was given other parameters
elsewhere   neither: key and content must be those of before
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.config import Project
from connectome_db.geometry import Box
from connectome_db.prepare import overridden
from connectome_db.query.compare.changes import CHANGED, SAME, boxes_of, compare, load_ledgers, positions
from connectome_db.versions.keep.rollbackproof import Before, Codes, computed_in, listed, reads_what_differs


@dataclass(frozen=True)
class StageReach:
    """One stage; numbers of units.

    `region` + `reach` + `elsewhere` are all. Of each, so many have the content of before, byte for byte (`*_same`);
    of those elsewhere all do, or the proof says which do not.
    """

    stage: str
    units: int
    region: int
    region_same: int
    reach: int
    reach_same: int
    elsewhere: int
    elsewhere_same: int


@dataclass(frozen=True)
class Outside:
    """All stages; `wrong` contradicts what a remedy promises."""

    stages: tuple[StageReach, ...]
    wrong: tuple[str, ...]

    @property
    def elsewhere(self) -> int:
        """Units outside the region and its reach."""
        return sum(s.elsewhere for s in self.stages)

    @property
    def identical(self) -> int:
        """Those of them that have key and content of before."""
        return sum(s.elsewhere_same for s in self.stages)


@dataclass(frozen=True)
class Cost:
    """What one run took of one stage: units computed, their seconds, units reused, and who brought it."""

    stage: str
    computed: int
    seconds: float
    reused: int
    source: str


def prove(project: Project, earlier: Before, edited: Mapping[str, Codes], box: Box) -> Outside:
    """Compare all units with those of before; `edited` has the units that were given other parameters, by stage.

    Compared are the key of each unit, which holds all that it depends on, and the digest of the content of each of its
    parts. A unit that neither was edited nor reads a part that differs must have both as before, wherever it lies.
    """
    now = load_ledgers(project.root)
    order = [s.name for s in project.stages if s.name in now]
    since = {s: compare(s, earlier.ledgers.get(s), now[s]) for s in order}
    stages, wrong = [], []
    for stage in order:
        data = now[stage]
        codes = data.units["unit"].to_numpy().astype(np.uint64)
        what = since[stage].what[positions(since[stage].codes, codes)]
        region = overridden(boxes_of(data.units, "core_"), [box])[:, 0] & (data.kind != "once")
        caused = reads_what_differs(data, since) | np.isin(codes, edited.get(stage, codes[:0]))
        reach = caused & ~region
        elsewhere = ~region & ~reach
        same, alike = what == SAME, what != CHANGED
        alike &= np.isin(codes, earlier.ledgers[stage].units["unit"].to_numpy()) if stage in earlier.ledgers else False
        wrong += listed(stage, codes[~caused & ~same], "not as before, though they read nothing that changed")
        gone = since[stage].codes[since[stage].at_b < 0]
        wrong += listed(stage, gone, "gone")
        stages.append(
            StageReach(
                stage=stage,
                units=len(codes),
                region=int(region.sum()),
                region_same=int((region & alike).sum()),
                reach=int(reach.sum()),
                reach_same=int((reach & alike).sum()),
                elsewhere=int(elsewhere.sum()),
                elsewhere_same=int((elsewhere & same).sum()),
            )
        )
    return Outside(tuple(stages), tuple(wrong))


def costs(project: Project, runs: Mapping[str, str], since: str) -> tuple[Cost, ...]:
    """What was spent per stage since `since` (ISO time), when `runs` had made what lay in data/."""
    earlier = Before({}, runs, since, {})
    found = []
    for stage in project.stages:
        computed, source = computed_in(project, stage.name, earlier)
        seconds, stored = 0.0, 0
        if source == "run":
            done = pq.read_table(project.provenance(stage.name) / "executions.parquet")
            fresh = done.filter(pc.invert(pc.field("reused")))
            seconds = float(pc.sum(fresh["seconds"]).as_py() or 0.0)
            stored = _brought(project, stage.name, computed)
        found.append(Cost(stage.name, computed, seconds, stored, source))
    return tuple(found)


def _brought(project: Project, stage: str, computed: int) -> int:
    run = json.loads((project.provenance(stage) / "run.json").read_text(encoding="utf-8"))
    return int(run["units_total"]) - computed
