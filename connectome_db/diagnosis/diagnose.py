"""Is a difference real, and if so is it biology or an artefact: the walk from the graph back to the raw tiles.

compare   the wiring in the region and in the reference
walk      every metric of every layer, L5 to L1
facts     what the records say is other there
cause     the earliest layer that is off, if one is
explain   how much of the difference goes with it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from connectome_db.diagnosis import candidates as where
from connectome_db.diagnosis.causes import RULES, Cause, Rules, follows, name_cause
from connectome_db.diagnosis.cells import BoxNm, Measured, load, voxel_nm
from connectome_db.diagnosis.compare import (
    Comparison,
    compare,
    false_discovery,
    sample,
    share_inside,
    whole_sections,
)
from connectome_db.diagnosis.density_columns import columns
from connectome_db.diagnosis.density_scan import sparsest
from connectome_db.diagnosis.density_trend import gradient
from connectome_db.diagnosis.explain import Explained, explained
from connectome_db.diagnosis.facts import Fact, facts
from connectome_db.diagnosis.proposals import Proposal, propose
from connectome_db.diagnosis.resample import sureness
from connectome_db.schema.quality import LEVELS, METRICS

SOUGHT = "connection_density"
"""In this one a gradient is sought."""
WIRING = (SOUGHT, "synapse_density")
"""What a difference of the wiring is sought in, when no metric is asked for; the first that differs is told."""
REAL_P = 0.05
WAYS = 2
"""A difference is sought in two ways when no region is asked for: in the boxes of flags and as a gradient. Flags pay
for both; the test of a gradient keeps within its 5 % as it is (benchmarks/README.md)."""
SURE = ("missing tiles", "damage", "parameters", "model")
"""Causes that need no later layer as a witness: tissue that was not imaged is missing from the wiring whatever else is
measured, and an override is named only where a layer that it decides differs."""
Verdict = Literal["artefact", "biology", "no difference"]


@dataclass(frozen=True)
class Step:
    """One metric of the walk."""

    comparison: Comparison
    q_value: float
    differs: bool
    """The difference is not chance: q at most 0.05."""

    @property
    def level(self) -> str:
        """L1 to L5."""
        return LEVELS[self.comparison.layer]


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one region."""

    region: where.Candidate
    reference: tuple[str, BoxNm | None]
    difference: Comparison | None
    real: bool
    walk: tuple[Step, ...]
    """L5 first."""
    facts: tuple[Fact, ...]
    cause: Cause | None
    confidence: float
    """Share of resamples of the places in which the same cause is named."""
    explained: Explained | None
    verdict: Verdict
    proposals: tuple[Proposal, ...]
    bounds_nm: BoxNm
    sections: tuple[int, int] | None
    """First and last section of the region, where it is a run of whole sections."""
    others: tuple[Diagnosis, ...] = ()
    """Further regions that were looked at and have an artefact too."""


def diagnose(
    root: Path,
    *,
    metric: str | None = None,
    region: str | None = None,
    reference: str = "rest",
    params: Mapping[str, Mapping[str, Any]] | None = None,
    regions: Sequence[tuple[str, BoxNm]] = (),
    rules: Rules = RULES,
) -> Diagnosis:
    """Diagnose one region, or (None) the one that the flags, overrides and records point to most strongly.

    `root` is a project or a revision's folder; `regions` are the named boxes of params.yaml; `params` the parameters by
    stage, for the proposals. Raises QueryError for unknown names and when nothing was measured.
    """
    measured = load(root)
    if metric is not None:
        measured.of(metric)
    compared = ("rest", None) if reference == "rest" else where.named_box(reference, measured.bounds_nm, regions)
    case = _Case(root, measured, metric, compared, params or {}, rules)
    if region is not None:
        name, box = where.named_box(region, measured.bounds_nm, regions)
        return case.look(where.Candidate(name, box, "", "asked for"))
    sparse = case.sparse()
    flagged = where.candidates(root, measured.bounds_nm)
    tried = WAYS * max(1, len(flagged))
    looked = [case.look(c, sparse, tried=tried) for c in [*flagged, *sparse]]
    if not looked:
        return case.look(where.Candidate(None, measured.bounds_nm, "", "no flag, no override: the whole volume"))
    return _strongest(looked)


def _strongest(looked: list[Diagnosis]) -> Diagnosis:
    """The artefact that is off the most, or else the most certain difference; other artefacts beside it."""
    order: dict[Verdict, int] = {"artefact": 0, "biology": 1, "no difference": 2}

    def rank(d: Diagnosis) -> tuple[int, str, float]:
        if d.cause is not None and d.verdict == "artefact":
            # The box of an early layer's flag is that of the cause; where synapses are fewest is only a part of it.
            return order[d.verdict], d.region.level or "L1", -d.cause.strength
        return order[d.verdict], "", d.difference.p_value if d.difference else 1.0

    first, *rest = sorted(looked, key=rank)
    more = [d for d in rest if d.verdict == "artefact" and where.overlap(d.region.box_nm, first.region.box_nm) < 0.1]
    return replace(first, others=tuple(more))


@dataclass(frozen=True)
class _Case:
    """What is the same for all regions of one diagnosis."""

    root: Path
    measured: Measured
    metric: str | None
    reference: tuple[str, BoxNm | None]
    params: Mapping[str, Mapping[str, Any]]
    rules: Rules

    def look(self, candidate: where.Candidate, sparse: Sequence[where.Candidate] = (), tried: int = 1) -> Diagnosis:
        """Diagnose one box of `tried`. `sparse` are boxes with fewer synapses than chance allows.

        Who looks in many places finds a difference in one of them: p-values of the wiring are multiplied (Bonferroni).
        """
        box, bounds, against = candidate.box_nm, self.measured.bounds_nm, self.reference[1]
        found = {
            name: c
            for name, cells in self.measured.cells.items()
            if (c := compare(cells, box, bounds, against)) is not None
        }
        walk = {n: c for n, c in found.items() if n in METRICS}
        q = dict(zip(walk, false_discovery([c.p_value for c in walk.values()]), strict=True))
        steps = tuple(Step(walk[n], q[n], q[n] <= REAL_P) for n in sorted(walk, key=_later_first))
        difference = self._difference(found, tried)
        for other in sparse:
            inside = float(share_inside(np.asarray([other.box_nm]), box)[0])
            c = found.get(SOUGHT)
            if (
                (inside > 0.5 or where.overlap(box, other.box_nm) > 0.3)
                and c is not None
                and c.effect < 0
                and other.p_found is not None
            ):
                difference = replace(c, p_value=other.p_found)
        real = difference is not None and difference.p_value <= REAL_P
        told = tuple(facts(self.root, box))
        runs = whole_sections(box, bounds)
        cause = name_cause(walk, told, runs=runs, rules=self.rules)
        if cause is not None and not (real or cause.name in SURE or self._reaches(steps, cause)):
            cause = None
        sure, why = 0.0, None
        if cause is not None:
            samples = {n: sample(self.measured.cells[n], box, bounds, against) for n in walk}
            sure = sureness(cause, samples, told, runs, self.rules, self._rng(box))
            why = self._explained(difference, cause, box, against) if real else None
        verdict: Verdict = "artefact" if cause else "biology" if real else "no difference"
        todo = propose(candidate.name, box, cause, told, self.params) if verdict != "no difference" else []
        step = voxel_nm(self.root)[0]
        sections = (round(box[0] / step), round(box[3] / step) - 1) if runs else None
        return Diagnosis(
            candidate, self.reference, difference, real, steps, told, cause, sure, why, verdict, tuple(todo), bounds,
            sections,
        )  # fmt: skip

    def sparse(self) -> list[where.Candidate]:
        """The box with the fewest synapses, if they thin out towards a side or a corner beyond chance."""
        cells = self.measured.cells.get(SOUGHT)
        if cells is None or self.metric not in (None, *WIRING):
            return []
        plane = columns(cells, self.measured.bounds_nm)
        if plane is None:
            return []
        p, plane = gradient(plane, self.root, self._rng(self.measured.bounds_nm))
        found = sparsest(plane, self.measured.bounds_nm)
        if found is None or p > REAL_P:
            return []
        says = f"{found.found:.0f} synapses where there is room for {found.expected:.0f}"
        return [where.Candidate(None, found.box_nm, "L5", says, 0.0, p)]

    def _difference(self, found: Mapping[str, Comparison], tried: int) -> Comparison | None:
        """The comparison asked for, or the clearest one of the wiring (with its p-value for having chosen)."""
        if self.metric is not None:
            asked = found.get(self.metric)
            return asked and replace(asked, p_value=min(1.0, asked.p_value * tried))
        there = [found[m] for m in WIRING if m in found]
        if not there:
            return None
        best = min(there, key=lambda c: c.p_value)
        if there[0].p_value <= REAL_P / len(there):
            best = there[0]
        return replace(best, p_value=min(1.0, best.p_value * len(there) * tried))

    def _reaches(self, steps: Sequence[Step], cause: Cause) -> bool:
        """Whether a layer after the cause's is worse too."""
        later = [s for s in steps if s.level > max(LEVELS[cause.layer], "L2")]
        return any(follows(s.comparison, s.q_value, self.rules) for s in later)

    def _explained(
        self, difference: Comparison | None, cause: Cause, box: BoxNm, against: BoxNm | None
    ) -> Explained | None:
        if difference is None or cause.metric not in self.measured.cells:
            return None
        outcome = sample(self.measured.of(difference.metric), box, self.measured.bounds_nm, against)
        return explained(outcome, self.measured.of(cause.metric), self._rng(box))

    def _rng(self, box: BoxNm) -> np.random.Generator:
        """The same draws for the same box, whatever else is looked at."""
        text = ",".join(f"{v:.3f}" for v in box)
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _later_first(name: str) -> tuple[str, int]:
    level = LEVELS[METRICS[name].layer]
    return "".join(chr(255 - ord(c)) for c in level), list(METRICS).index(name)
