"""Compute a few units again, elsewhere, and compare: does the same really come out?

Units are computed into a store of their own; nothing of the project changes. Where it can be, with another number of
workers than the first time, since a result must not depend on it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from connectome_db import runner, tables, volumes
from connectome_db.config import Project
from connectome_db.environment import environment_facts
from connectome_db.errors import ConfigError, ConnectomeError
from connectome_db.prepare import Prepared, core, prepare
from connectome_db.provenance import table_digest
from connectome_db.runner import locked
from connectome_db.spec import AnyStage, Array, Rows, Volume
from connectome_db.store import Record, Store
from connectome_db.unitfiles import ROWS
from connectome_db.versions.trust.checks.provenance import records_of
from connectome_db.versions.trust.checks.tables import parts_of
from connectome_db.versions.trust.howfar import between
from connectome_db.versions.trust.rederive import derive, same_code, scratch
from connectome_db.versions.trust.trees import Tree, Units, locked_outs, open_tree
from connectome_db.versions.trust.verify import unit_count

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OutputAudit:
    """One output of one unit: bit-equal, or how far apart (see `howfar`), and whether that is within tolerance."""

    stage: str
    unit: str
    output: str
    equal: bool
    distance: float
    told: str
    within: bool


@dataclass(frozen=True)
class StageAudit:
    """One stage: its outputs, who computed them this time and the first time, and what is not as it was then.

    `failed` says why nothing could be compared; "" when something was.
    """

    stage: str
    units: int
    outputs: tuple[OutputAudit, ...]
    how: str
    differs: tuple[str, ...] = ()
    failed: str = ""

    @property
    def ok(self) -> bool:
        """True when every output is bit-equal or within tolerance."""
        return not self.failed and all(o.within for o in self.outputs)


def audit(
    project: Project, names: Sequence[str] = (), *, sample: float = 0.01, seed: int = 0, ranks: int | None = None,
    backend: str | None = None, tolerance: float = 0.0, progress: Progress | None = None,
) -> list[StageAudit]:  # fmt: skip
    """Compute a random share of the units of each stage (at least one) again and compare.

    `ranks`: workers; None chooses another number than the first time where it can. `tolerance` bounds the distance of
    `howfar.between`; 0 wants equal bits. Raises ConfigError for an unknown stage, a backend that is not there, or one
    that comes too late because another was loaded.
    """
    _use_backend(backend)
    stages = [project.stage(n) for n in names] or [s for s in project.stages if project.data(s.name).is_dir()]
    outs = locked_outs(project.root)
    out = []
    counts = [max(1, math.ceil(sample * unit_count(project, s))) for s in stages]
    for k, stage in enumerate(stages):
        if progress:
            progress(sum(counts[:k]), sum(counts))
        with locked(project, stage.name, shared=True):
            tree = open_tree(project, stage, outs, hash_tables=False) if project.data(stage.name).is_dir() else None
            if tree is None:
                out.append(_failed(stage, "it has no data: `dvc repro` makes it"))
                continue
            out.append(_Audit(tree, sample, seed, ranks, backend, tolerance).run())
    return out


def _use_backend(backend: str | None) -> None:
    if backend is None:
        return
    if "keras" in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") != backend:
        raise ConfigError(f"backend {backend}: another one is loaded in this process; start a new one")
    os.environ["KERAS_BACKEND"] = backend


def _failed(stage: AnyStage, why: str) -> StageAudit:
    return StageAudit(stage.name, 0, (), "", failed=why)


@dataclass(frozen=True)
class _Audit:
    tree: Tree
    sample: float
    seed: int
    ranks: int | None
    backend: str | None
    tolerance: float

    def run(self) -> StageAudit:
        tree, units = self.tree, self.tree.units
        if tree.record is None or units is None:
            return _failed(tree.stage, "its records are damaged: `connectome verify` says how")
        derived = derive(tree.project, tree.stage, tree.record, units.keys)
        if derived.prepared is None or not derived.keys_fit or not same_code(derived.prepared):
            why = derived.reason or "its code, parameters or inputs are not those it was made with"
            return _failed(tree.stage, f"{why}, so another result would prove nothing: `dvc repro` makes it anew")
        chosen = self._choose(units)
        with scratch(derived.prepared.project) as aside:
            prepared = replace(derived.prepared, project=aside)
            try:
                how = self._compute(prepared, chosen)
            except ConnectomeError as e:
                return _failed(tree.stage, str(e))
            old = records_of(Store(tree.project.store), tree.name, [units.keys[i] for i in chosen])
            new = Store(aside.store).lookup(tree.name, [units.keys[i] for i in chosen])
            found = [a for i in chosen for a in self._compare(prepared, i, old.get(units.keys[i]), new[units.keys[i]])]
        return StageAudit(tree.name, len(chosen), tuple(found), how, self._differs(old))

    def _choose(self, units: Units) -> list[int]:
        rng = np.random.default_rng([self.seed, *self.tree.name.encode()])
        n = max(1, math.ceil(self.sample * len(units)))
        return sorted(rng.choice(len(units), size=n, replace=False).tolist())

    def _compute(self, prepared: Prepared, chosen: Sequence[int]) -> str:
        """Compute units into the store of `prepared`'s project; says with how many workers, then and now.

        In the opposite order, so that what a process carries from unit to unit is not the same as the first time.
        """
        chosen = chosen[::-1]
        first = self._first_run()
        workers, run_id = self._workers(prepared, first, len(chosen)), uuid.uuid4().hex[:16]
        if workers:
            only = prepared.project.store / "only.json"
            only.write_text(json.dumps(list(chosen)))
            runner.launch_mpi(prepared, run_id, workers, only)
            now = f"{workers} MPI ranks"
        else:
            runner.compute_units(prepared, chosen, run_id=run_id, executor="serial", workers=1)
            now = "1 worker"
        return f"{now} (first: {first})"

    def _first_run(self) -> str:
        try:
            run = json.loads((self.tree.project.provenance(self.tree.name) / "run.json").read_text())
            return f"{run['executor']} × {run['workers']}"
        except (OSError, ValueError, KeyError):
            return "unknown"

    def _workers(self, prepared: Prepared, first: str, n: int) -> int:
        """MPI ranks to use, or 0 for this process; ranks read the project from disk, so it must plan the same there."""
        if self.ranks is not None:
            wanted = self.ranks
        else:
            launcher = prepared.project.launch.mpiexec[0]
            there = shutil.which(launcher) or (Path(sys.executable).parent / launcher).exists()
            wanted = 2 if n > 1 and there and first.endswith("× 1") else 0
        if not wanted:
            return 0
        try:
            on_disk = prepare(self.tree.project, prepared.stage).keys == prepared.keys
        except ConnectomeError:
            on_disk = False
        return wanted if on_disk else 0

    def _compare(self, prepared: Prepared, i: int, old: Record | None, new: Record) -> list[OutputAudit]:
        out = []
        title = self.tree.units.title(i) if self.tree.units else ""
        for o in self.tree.stage.outputs:
            wanted, made = self._wanted(i, o, old), new.outputs[o.name]
            if wanted == made.digest:
                out.append(OutputAudit(self.tree.name, title, o.name, True, 0.0, "bit-equal", True))
                continue
            try:
                far = between(o, self._there(i, o), _made(prepared, i, o, made.blob))
                value, told = far.value, far.told
            except ConnectomeError as e:
                value, told = float("inf"), f"not comparable: {e}"
            within = self.tolerance > 0 and value <= self.tolerance
            out.append(OutputAudit(self.tree.name, title, o.name, False, value, told, within))
        return out

    def _wanted(self, i: int, o: Volume | Rows, old: Record | None) -> str | None:
        """The recorded content digest: of parts.parquet, or of the store for tables that are filed by section."""
        parts = parts_of(self.tree, o.name)
        if parts is not None and not (isinstance(o, Rows) and o.part == "section"):
            return str(parts["digest"][i])
        if old is not None:
            return old.outputs[o.name].digest
        return table_digest(self._there(i, o)) if isinstance(o, Rows) else None

    def _there(self, i: int, o: Volume | Rows) -> Any:
        """What data/ has of a unit: voxels or rows."""
        units = self.tree.units
        assert units is not None
        if isinstance(o, Volume):
            found: Array = volumes.read(self.tree.folder / o.name, units.core(i))
            return found
        everything = o.part == "section"
        return tables.read_units(self.tree.folder / f"{o.name}.parquet", None if everything else [int(units.codes[i])])

    def _differs(self, old: Mapping[str, Record]) -> tuple[str, ...]:
        """What of the environment is not as it was when the units were made."""
        out: list[str] = []
        store = Store(self.tree.project.store)
        now = environment_facts()
        for digest in sorted({str(r.execution.get("environment")) for r in old.values()}):
            try:
                out += environment_differences(store.environment(digest), now)
            except (ConnectomeError, ValueError):
                out.append(f"environment {digest} of some units is not in the store")
        if self.backend and self.tree.stage.network:
            out.append(f"backend: {self.backend} now")
        return tuple(dict.fromkeys(out))


def _made(prepared: Prepared, i: int, o: Volume | Rows, blob: str) -> Any:
    """What the unit gave this time: voxels or rows."""
    folder = Store(prepared.project.store).blob(blob)
    if isinstance(o, Rows):
        return tables.read_units(folder / ROWS, None)
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return volumes.decode(prepared.layout(o), core(prepared.plan, i), files)


def environment_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments: "numpy 2.4.6, then 2.3.0"; "cpu ..."."""
    out = [f"{k} {now.get(k)}, then {then.get(k)}" for k in sorted(then.keys() | now.keys())
           if k != "packages" and then.get(k) != now.get(k)]  # fmt: skip
    a, b = then.get("packages", {}), now.get("packages", {})
    changed = [n for n in sorted(a.keys() | b.keys()) if a.get(n) != b.get(n)]
    return out + [f"{n} {b.get(n, 'gone')}, then {a.get(n, 'not there')}" for n in changed]
