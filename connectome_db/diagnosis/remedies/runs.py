"""Make a remedy: edit params.yaml, run what follows from it, and compare with the commit that was there before.

Several tries are run one after the other, in place; the one whose region is most like the reference stays, its units
coming from the store. `undo` brings back the params.yaml of before, and with it every byte of data/.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectome_db import newproject
from connectome_db.config import STATE, Project
from connectome_db.diagnosis.remedies.against_truth import Against, in_and_out
from connectome_db.diagnosis.remedies.proof import Cost, Outside, costs, prove
from connectome_db.diagnosis.remedies.region_metrics import Difference, deficit_of, measure, score
from connectome_db.diagnosis.remedies.remedy import Remedy
from connectome_db.errors import ConfigError, ConnectomeError, RevisionError, RunError
from connectome_db.geometry import Box
from connectome_db.query.compare.changes import SAME, load_ledgers
from connectome_db.query.compare.changes import compare as compare_units
from connectome_db.regional import regions
from connectome_db.revisions import Revision, lock_outs, open_revision
from connectome_db.runner import now
from connectome_db.versions.compare.diff import compare as compare_versions
from connectome_db.versions.keep.rollbackproof import before, edited_units, run_ids

KEPT = f"{STATE}/remedy"
"""Folder with params.yaml as it was before the last remedy, and as the remedy made it."""
Run = Callable[[Path], None]
Truth = Mapping[str, Against]


@dataclass(frozen=True)
class Try:
    """One set of values that was run: what the region is like with it, and what it cost.

    `truth` has `region` and `outside` of a phantom.
    """

    values: Mapping[str, Any]
    found: Mapping[str, Difference]
    costs: tuple[Cost, ...]
    wall_s: float
    truth: Truth | None

    @property
    def score(self) -> float:
        """Distance of the region from the reference; see `remedy_metrics.score`."""
        return score(self.found)

    @property
    def computed(self) -> int:
        """Units computed."""
        return sum(c.computed for c in self.costs)

    @property
    def seconds(self) -> float:
        """Seconds of computing, summed over the units."""
        return sum(c.seconds for c in self.costs)


@dataclass(frozen=True)
class Made:
    """What came of a remedy. `kept` None: no try was better than what was there, which was restored.

    `changes` counts what differs between the commit and now, by table and kind; `synapses_in` those in the region.
    """

    commit: str
    before: Try
    tries: tuple[Try, ...]
    kept: Try | None
    outside: Outside
    changes: Mapping[str, Mapping[str, int]]
    synapses_in: Mapping[str, int]
    wall_s: float

    @property
    def after(self) -> Try:
        """What lies there now."""
        return self.kept or self.before


@dataclass(frozen=True)
class Undone:
    """What an undo did: units computed (0, unless the store has lost some), and units that are not as at the commit."""

    commit: str
    costs: tuple[Cost, ...]
    units: int
    differing: int


def reference(project: Project) -> Revision:
    """The commit that is checked out, when it holds what lies in the project.

    Raises RunError when params.yaml or data/ are not what is committed: then there is nothing to compare with.
    """
    save = "Commit the state before first: dvc repro && git add . && git commit -m 'Before the remedy'"
    try:
        head = open_revision(project.root, "HEAD")
    except RevisionError as e:
        raise RunError(f"no commit to compare with: {e}. {save}") from None
    if head.text(regions.FILE) != regions.read_text(project.root):
        raise RunError(f"params.yaml is not as committed ({_pending(project)}). {save}")
    lock = project.root / "dvc.lock"
    committed = lock_outs(head.text("dvc.lock") or "", "dvc.lock at HEAD")
    if not lock.is_file() or lock_outs(lock.read_text(encoding="utf-8"), "dvc.lock") != committed:
        raise RunError(f"dvc.lock is not as committed. {save}")
    for stage in project.stages:
        path = project.data(stage.name) / "record.json"
        here = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if stage.name not in head.stages or head.record(stage.name) != here:
            raise RunError(
                f"data/{stage.name} is not what HEAD has. Run `dvc repro` (or, after `connectome run`, `dvc commit`), "
                "then git add . && git commit -m 'Before the remedy'"
            )
    return head


def _pending(project: Project) -> str:
    after = project.root / KEPT / "after.yaml"
    if after.is_file() and after.read_bytes() == (project.root / regions.FILE).read_bytes():
        return "a remedy is in it: `connectome remedy --keep` or `--undo`"
    return "`git diff params.yaml` shows how"


def make(tries: Sequence[Remedy], run: Run = newproject.repro, *, truth: bool = False) -> Made:
    """Run one remedy, or several of which the best stays. All are of one project, region and metric.

    Raises RunError when the project is not committed or not up to date, or when a run fails; SourceError when `truth`
    is asked for and there is none.
    """
    first = tries[0]
    project, began = first.project, time.perf_counter()
    head = reference(project)
    earlier = before(project, first.target)
    found = _measure(first)
    deficit_of(found, first.wish.metric)  # said before anything is run
    was = Try({}, found, (), 0.0, _truth(first, truth))
    done = []
    for remedy in tries:
        _write(project, first.change.old, remedy.change.new, str(head.commit), remedy)
        done.append(_run(remedy, run, truth))
    best = _best(was, done)
    final = first.change.old if best is None else tries[best].change.new
    if regions.read_text(project.root) != final:
        _write(project, first.change.old, final, str(head.commit), tries[best or 0])
        _follow(project, run)
    edited = {} if best is None else edited_units(project, tries[best].target)
    outside = prove(project, earlier, edited, first.box)
    changes, inside = _changes(head, first.box)
    kept = None if best is None else done[best]
    if best is None:
        shutil.rmtree(project.root / KEPT)
    spent = time.perf_counter() - began
    return Made(str(head.commit), was, tuple(done), kept, outside, changes, inside, spent)


def _best(was: Try, done: Sequence[Try]) -> int | None:
    """The number of the best try, or None when what was there is as good. A single remedy was asked for, and stays."""
    if len(done) == 1:
        return 0
    scores = [t.score if np.isfinite(t.score) else np.inf for t in done]
    best = int(np.argmin(scores))
    return best if scores[best] < was.score else None


def _measure(remedy: Remedy) -> dict[str, Difference]:
    return measure(remedy.project.root, remedy.box_nm, remedy.wish.reference_nm)


def _truth(remedy: Remedy, wanted: bool) -> Truth | None:
    return in_and_out(remedy.project, remedy.box_nm) if wanted else None


def _run(remedy: Remedy, run: Run, truth: bool) -> Try:
    project = remedy.project
    runs, since, began = run_ids(project), now(), time.perf_counter()
    _follow(project, run)
    wall = time.perf_counter() - began
    return Try(remedy.values, _measure(remedy), costs(project, runs, since), wall, _truth(remedy, truth))


def _follow(project: Project, run: Run) -> None:
    try:
        run(project.root)
    except ConnectomeError as e:
        raise RunError(
            f"{e}\nparams.yaml has the remedy in it: run `dvc repro` again when that is mended, or take it back with "
            "`connectome remedy --undo`"
        ) from None


def _write(project: Project, before_text: str, text: str, commit: str, remedy: Remedy) -> None:
    """Put a text in place of params.yaml, after remembering what was there before the first try."""
    folder = project.root / KEPT
    folder.mkdir(parents=True, exist_ok=True)
    state = {"commit": commit, "region": remedy.wish.region, "values": dict(remedy.values)}
    for name, content in (("before.yaml", before_text), ("after.yaml", text), ("state.json", json.dumps(state))):
        tmp = folder / f"{name}.tmp"
        with tmp.open("w", encoding="utf-8", newline="") as f:
            f.write(content)
        tmp.replace(folder / name)
    current = regions.read_text(project.root)
    regions.apply(regions.Change(project.root / regions.FILE, current, text, ()))


def _changes(head: Revision, box: Box) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Counts by table and kind of what differs from the commit, and of changed synapses in the box."""
    tables = compare_versions(head, open_revision(head.project)).tables
    counts: dict[str, dict[str, int]] = {}
    for name in ("object_change", "synapse_change", "edge_change"):
        if name in tables:
            kinds = tables[name]["kind"].to_pylist()
            counts[name] = {k: kinds.count(k) for k in dict.fromkeys(sorted(kinds))}
    inside: dict[str, int] = {}
    if "synapse_change" in tables:
        rows = tables["synapse_change"]
        places = np.stack([rows[f"{axis}_vx"].to_numpy() for axis in "zyx"], axis=1)
        here = np.all((places >= box.lo) & (places < box.hi), axis=1)
        for kind, hit in zip(rows["kind"].to_pylist(), np.asarray(here).tolist(), strict=True):
            inside[kind] = inside.get(kind, 0) + int(hit)
    return counts, inside


def undo(project: Project, run: Run = newproject.repro) -> Undone:
    """Put back params.yaml as it was before the last remedy, and run. Raises ConfigError when there is none to undo,
    or params.yaml has been edited since."""
    state, texts = _state(project)
    current = regions.read_text(project.root)
    if current not in texts:
        raise ConfigError(
            f"params.yaml was edited after the remedy, and an undo would lose that. What was before is in {KEPT}/"
            f"before.yaml; or take the region's overrides back: connectome regions unset {state['region']} ..."
        )
    runs, since = run_ids(project), now()
    regions.apply(regions.Change(project.root / regions.FILE, current, texts[0], ()))
    run(project.root)
    spent = costs(project, runs, since)
    then, here = load_ledgers(open_revision(project.root, state["commit"]).root), load_ledgers(project.root)
    differing = sum(int((compare_units(s, then.get(s), here[s]).what != SAME).sum()) for s in here)
    shutil.rmtree(project.root / KEPT)
    return Undone(str(state["commit"]), spent, sum(d.units.num_rows for d in here.values()), differing)


def keep(project: Project) -> str:
    """Commit the remedy; returns the message. Raises ConfigError without one, or when params.yaml was edited since."""
    state, texts = _state(project)
    if regions.read_text(project.root) != texts[1]:
        raise ConfigError("params.yaml was edited after the remedy: look at `git diff`, and commit it yourself")
    values = ", ".join(f"{k} = {v}" for k, v in state["values"].items())
    message = f"Remedy {state['region']}: {values}"
    newproject.commit(project.root, message, new_files=False)
    shutil.rmtree(project.root / KEPT)
    return message


def _state(project: Project) -> tuple[dict[str, Any], tuple[str, str]]:
    folder = project.root / KEPT
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        texts = []
        for name in ("before.yaml", "after.yaml"):
            with (folder / name).open(encoding="utf-8", newline="") as f:
                texts.append(f.read())
    except FileNotFoundError:
        raise ConfigError(f"no remedy to keep or to undo in {project.root}") from None
    return state, (texts[0], texts[1])
