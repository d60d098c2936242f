"""What a run would compute, found out without computing: the pipeline is gone through on digests alone.

Stage by stage, every part of every input is *known* (its content will be what data/ or the store has) or unknown (its
unit will be computed). From that follows what becomes of each unit:

    REUSED    it has the key that lies in data/
    STORED    the store has its key
    PERHAPS   it reads something unknown, and is computed unless that turns out equal to what was there
    SURE      the store cannot have its key
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import ids, plans
from connectome_db.config import Project
from connectome_db.environment import environment_facts
from connectome_db.errors import StoreError
from connectome_db.finish import section_parts
from connectome_db.geometry import Box
from connectome_db.inputs import raw_parts, scan_raw
from connectome_db.prepare import Outline, outline, params_digest
from connectome_db.provenance import from_hex
from connectome_db.rawparts import open_list
from connectome_db.spec import LISTS, RAW, AnyStage, Extent, Found, Plan, Rows, Volume
from connectome_db.store import Record, Store
from connectome_db.tables import read_units
from connectome_db.versions.plan import coming, stored
from connectome_db.versions.plan import reasons as why
from connectome_db.versions.plan.coming import Coming
from connectome_db.versions.plan.present import I64, NO_PARTS, Flags, Present, labels_of, read_present

REUSED, STORED, PERHAPS, SURE = range(4)
STATES = ("reused", "from store", "perhaps", "sure")


@dataclass(frozen=True)
class StageAhead:
    """What becomes of the units of one stage.

    `state` int8[N] is one of REUSED, STORED, PERHAPS, SURE; `reasons` says why for the last two. `gone` are the cores
    int64[K, 6] of units that lie in data/ and are no part of the plan. `guessed` names the stage that must run before
    the plan is certain; the units are then those of a volume like the present one.
    """

    stage: str
    plan: Plan
    state: npt.NDArray[np.int8]
    reasons: why.Reasons
    gone: I64
    guessed: str = ""

    def count(self, state: int) -> int:
        """Units of a state."""
        return int((self.state == state).sum())

    @property
    def stale(self) -> I64:
        """Rows of the units that will or may be computed."""
        return np.flatnonzero(self.state >= PERHAPS)

    def within(self, box: Box) -> StageAhead:
        """Only the units whose core touches a box."""
        rows, gone = _touching(self.plan.cores, box), _touching(self.gone, box)
        reasons = self.reasons.only(rows)
        return replace(
            self, plan=plans.only(self.plan, rows), state=self.state[rows], reasons=reasons, gone=self.gone[gone]
        )


@dataclass(frozen=True)
class Foresight:
    """What becomes of every stage that was asked about, in the order of the pipeline.

    `sections` are raw sections with another content than data/ was made of; `unusable` counts tiles that stop a run.
    """

    project: Project
    stages: tuple[StageAhead, ...]
    sections: tuple[int, ...]
    unusable: int

    def within(self, box: Box) -> Foresight:
        """Only the units whose core touches a box (voxels)."""
        return replace(self, stages=tuple(s.within(box) for s in self.stages))


def _touching(boxes: I64, box: Box) -> I64:
    six = np.asarray(box.flat(), dtype=np.int64)
    return np.flatnonzero(((boxes[:, :3] < six[3:]) & (six[:3] < boxes[:, 3:])).all(axis=1))


def foresee(project: Project, names: Sequence[str] = (), *, deep: bool = False) -> Foresight:
    """Look ahead at the stages `names` (all when none is given). Computes no unit and writes nothing but the cache of
    the tiles' digests.

    `deep` also looks for the files of every unit that is to be reused. Raises ConfigError for an unknown stage, and
    whatever would keep a run from starting.
    """
    chosen = {project.stage(n).name for n in names} or {s.name for s in project.stages}
    needed = set(chosen)
    for s in reversed(project.stages):
        if s.name in needed:
            needed |= {i.partition(".")[0] for i in s.inputs}
    look = _Look(project, deep)
    seen = [look.at(s) for s in project.stages if s.name in needed]
    raw = look.parts.get(RAW)
    sections = ids.unpack(raw.codes[raw.moved])[0][:, 0].tolist() if raw is not None else []
    return Foresight(project, tuple(s for s in seen if s.stage in chosen), tuple(sections), look.unusable)


class _Look:
    """Goes through the stages in order; `parts` holds what later stages will find as their inputs."""

    def __init__(self, project: Project, deep: bool) -> None:
        self.project, self.deep = project, deep
        self.store = Store(project.store)
        self.parts: dict[str, Coming] = {}
        self.unusable = 0
        self.read = {i for s in project.stages for i in s.inputs}

    def at(self, stage: AnyStage) -> StageAhead:
        """One stage. Its outputs are entered in `parts`."""
        for name in stage.inputs:
            if name not in self.parts:
                self.parts[name] = self._source(name)
        parts = {n: self.parts[n] for n in stage.inputs}
        extents = {n: Extent(c.codes, c.boxes) for n, c in parts.items()}
        units = _Units(
            outline(self.project, stage, Found(self.project.voxel_nm, extents)),
            parts,
            read_present(self.project, stage.name),
            self.store,
            [o.name for o in stage.outputs if f"{stage.name}.{o.name}" in self.read],
        )
        units.settle(self.deep)
        for o in stage.outputs:
            if o.name in units.content:
                by_section = isinstance(o, Rows) and o.part == "section"
                self.parts[f"{stage.name}.{o.name}"] = units.sections(o) if by_section else units.output(o.name)
        reasons = why.reasons(units.question())
        if stage.inputs == (RAW,) and units.now is not None:
            kept = np.flatnonzero(units.where >= 0)
            self.parts[RAW] = why.settle_raw(self.parts[RAW], units.plan, reasons, kept)
        return StageAhead(stage.name, units.plan, units.state, reasons, units.gone, units.guessed)

    def _source(self, name: str) -> Coming:
        """Raw tiles by section, or an imported list."""
        if name == RAW:
            rows = scan_raw(self.project)
            if not self.project.launch.allow_missing:
                self.unusable = int(pc.sum(pc.not_equal(rows["problem"], "")).as_py() or 0)
            parts = raw_parts(rows)
        elif name in LISTS:
            parts = open_list(self.project, name).parts
        else:
            raise StoreError(f"{name} is read before the stage that makes it")
        present = [read_present(self.project, s.name) for s in self.project.stages if name in s.inputs]
        moved = any(p.record["inputs"].get(name) != parts.merkle for p in present if p is not None)
        return coming.of_parts(parts, moved=moved)


class _Units:
    """The units of one stage while it is found out what becomes of them.

    `where` int64[N] is each unit's row in data/, or -1; `content` has, per output that somebody reads, the digests
    uint8 (N, 32) of the units that are `known`.
    """

    def __init__(
        self, o: Outline, parts: Mapping[str, Coming], now: Present | None, store: Store, outputs: Sequence[str]
    ) -> None:
        self.o, self.plan, self.parts, self.now, self.store = o, o.plan, parts, now, store
        n = len(o.plan)
        self.state = np.full(n, SURE, dtype=np.int8)
        self.where = now.rows(o.plan.codes) if now else np.full(n, -1, dtype=np.int64)
        self.gone = now.cores[~np.isin(now.codes, o.plan.codes)] if now else np.zeros((0, 6), np.int64)
        self.guessed = next((c.guessed for c in parts.values() if c.guessed), "")
        self.doubtful = coming.doubtful(o.plan, parts)
        self.keys = np.zeros((n, 32), dtype=np.uint8)
        self.content = {name: np.zeros((n, 32), dtype=np.uint8) for name in outputs}
        self.lost = np.zeros(n, dtype=bool)
        self.elsewhere = np.zeros(n, dtype=bool)
        self.stored: dict[str, str] = {}
        """Of a `once` unit that the store has: the blob of each output."""

    @property
    def known(self) -> Flags:
        """Units whose content is certain. A lost one is computed again from what it was computed from."""
        return ((self.state <= STORED) | self.lost) & ~self.elsewhere

    def settle(self, deep: bool) -> None:
        """Find the state of every unit."""
        rows = np.flatnonzero(~self.doubtful)
        if len(rows):
            keys = self.o.keys(coming.upstream(self.plan, self.parts, rows), rows)
            self.keys[rows] = from_hex(keys)
        same = ~self.doubtful & (self.where >= 0)
        if self.now is not None:
            same[same] = (self.now.keys[self.where[same]] == self.keys[same]).all(axis=1)
        self.state[self.doubtful] = PERHAPS
        self.state[same] = REUSED
        self._take_content(same)
        here = self._environments() if self.o.project.launch.same_environment else None
        self._look_up(np.flatnonzero(~self.doubtful & ~same), here, deep)
        if self.doubtful.any():
            self._never_made()
        if deep or (self.state != REUSED).any() or len(self.gone):
            self._check_reused(np.flatnonzero(same), here, deep)
        if self.guessed:
            self.state[self.state == SURE] = PERHAPS

    def _take_content(self, same: Flags) -> None:
        """Digests of what units that keep their key have made."""
        for name, digests in self.content.items():
            if self.now is not None and same.any():
                _, _, found = self.now.parts(name)
                if len(found) == len(self.now.codes):  # otherwise it is filed by section: see `sections`
                    digests[same] = found[self.where[same]]

    def _look_up(self, rows: I64, here: set[str] | None, deep: bool) -> None:
        """Find units in the store."""
        for k, record in stored.records(self.store, self.o.stage.name, self.keys[rows]):
            i = int(rows[k])
            if here is not None and record.execution["environment"] not in here:
                self.elsewhere[i] = True
            elif not ((deep or self.plan.kind == "once") and self._damaged(record)):
                self.state[i] = STORED
                for name, digests in self.content.items():
                    digests[i] = np.frombuffer(bytes.fromhex(record.outputs[name].digest), dtype=np.uint8)
                if self.plan.kind == "once":
                    self.stored = {name: out.blob for name, out in record.outputs.items()}

    def _never_made(self) -> None:
        """Of the units that read something unknown, those that were never made with these parameters are sure."""
        rows = np.flatnonzero(self.doubtful)
        made = stored.ever_made(
            self.store, self.o.stage.name, self.plan.codes[rows], self.plan.cores[rows], self.o.variant[rows],
            [(params_digest(p), why.model_id(self.o, p)) for p in self.o.variants],
        )  # fmt: skip
        self.state[rows[~made]] = SURE

    def _check_reused(self, rows: I64, here: set[str] | None, deep: bool) -> None:
        """The stage has to run (or this is `deep`): units in data/ that the store has lost are computed again."""
        name = self.o.stage.name
        there = np.zeros(len(rows), dtype=bool)
        if deep:
            for k, record in stored.records(self.store, name, self.keys[rows]):
                there[k] = not self._damaged(record)
        else:
            there = stored.rows_of(self.keys[rows], stored.all_keys(self.store, name)) >= 0
        self.lost[rows[~there]] = True
        if here is not None:
            made_in = pq.read_table(self.o.project.provenance(name) / "executions.parquet", columns=["environment"])
            labels = labels_of(made_in["environment"])
            foreign = np.asarray([v not in here for v in labels.values])[labels.index]
            self.elsewhere[rows] = foreign[self.where[rows]]
        certain = deep or bool(((self.state == STORED) | (self.state == SURE)).any()) or len(self.gone) > 0
        self.state[self.lost | self.elsewhere] = SURE if certain else PERHAPS

    def _damaged(self, record: Record) -> bool:
        return any(self.store.damage(out.blob, out.files) for out in record.outputs.values())

    def _environments(self) -> set[str]:
        """Names of the environment that this process runs in."""
        names = [p.stem for p in (self.store.root / "environments").glob("*.json")]
        return {n for n in names if self.store.environment(n) == environment_facts()}

    def output(self, name: str) -> Coming:
        """The parts of an output that is filed by unit."""
        plan, known, content = self.plan, self.known, self.content[name]
        fresh = self.where < 0
        moved = ~known | fresh
        if self.now is not None:
            _, _, was = self.now.parts(name)
            if len(was) == len(self.now.codes):
                there = ~fresh
                moved[there] |= (content[there] != was[self.where[there]]).any(axis=1)
            else:
                moved[:] = True
        return Coming(plan.codes, plan.cores, content, known, moved, fresh, self.gone, self.guessed)

    def sections(self, o: Rows | Volume) -> Coming:
        """The parts of an output that a `once` stage files by section."""
        was = self.now.parts(o.name) if self.now is not None else NO_PARTS
        if self.state[0] == STORED and isinstance(o, Rows):
            table = read_units(self.store.blob(self.stored[o.name]) / "rows.parquet", None)
            parts, _ = section_parts(o, table)
            will = parts.codes, parts.boxes, from_hex(parts.digests)
        elif self.known[0]:
            will = was
        else:
            source = next((c for c in self.parts.values() if c.by_section), None)
            return coming.guess_sections(self.o.stage.name, was[:2], source)
        codes, boxes, digests = will
        at = np.searchsorted(was[0], codes)
        at[at == len(was[0])] = 0
        fresh = was[0][at] != codes if len(was[0]) else np.ones(len(codes), bool)
        moved = fresh.copy()
        moved[~fresh] = (was[2][at[~fresh]] != digests[~fresh]).any(axis=1)
        gone = was[1][~np.isin(was[0], codes)]
        return Coming(codes, boxes, digests, np.ones(len(codes), bool), moved, fresh, gone, self.guessed)

    def question(self) -> why.Question:
        """What has to be known to say why units are computed."""
        stale = np.flatnonzero(self.state >= PERHAPS)
        return why.Question(self.o, self.parts, self.now, stale, self.doubtful, self.where, self.lost, self.elsewhere)
