"""Is what is on disk what the records say? Every copy of every unit, every record, and the chain between stages.

Three witnesses are compared: the unit store, data/ with its seals, and, where it was committed, DVC's cache. The check
reads and never writes; `repair` mends what it names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from connectome_db.config import Project
from connectome_db.errors import ConfigError
from connectome_db.geometry import Box
from connectome_db.runner import locked
from connectome_db.spec import RAW_INPUTS, AnyStage, Rows
from connectome_db.store import Store
from connectome_db.versions.trust.checks.bench import Bench, Entry, UnitChecked, Values
from connectome_db.versions.trust.checks.bench import Rows as Executions
from connectome_db.versions.trust.checks.companions import check_companions
from connectome_db.versions.trust.checks.provenance import (
    check_cache,
    check_provenance,
    check_raw,
    executions,
    open_provenance,
)
from connectome_db.versions.trust.checks.records import (
    bad_shards,
    check_derivation,
    check_ledgers,
    check_merkles,
    check_seals,
    problem,
)
from connectome_db.versions.trust.checks.store import check_store
from connectome_db.versions.trust.checks.tables import check_table, parts_of
from connectome_db.versions.trust.checks.units import check_unit
from connectome_db.versions.trust.findings import OTHERWISE, Checked, Problem, Report, first_few, swapped
from connectome_db.versions.trust.trees import Tree, Units, locked_outs, open_tree

Progress = Callable[[int, int], None]
"""Called with (units done, units in all)."""
BATCH = 1 << 16
"""Units whose records are held at once."""


@dataclass(frozen=True)
class Options:
    """How thoroughly to look.

    `sample` (of units, 0-1) and `box` (voxels) choose the units that are decoded; the others are checked by size.
    `quick` decodes none. `store`: also what lies in the store and in DVC's cache beyond what data/ holds now.
    """

    quick: bool = False
    sample: float = 1.0
    seed: int = 0
    box: Box | None = None
    store: bool = False
    threads: int = os.cpu_count() or 1

    @property
    def everything(self) -> bool:
        """True when every unit is decoded."""
        return not self.quick and self.sample >= 1 and self.box is None


def verify(
    project: Project, names: Sequence[str] = (), options: Options | None = None, progress: Progress | None = None
) -> Report:
    """Check the named stages (all that have data, when none is named).

    Raises ConfigError for an unknown stage and RunError when a stage is being run.
    """
    options = options or Options()
    if not 0 < options.sample <= 1:
        raise ConfigError(f"sample {options.sample}: wanted a share above 0 and up to 1 (100%)")
    stages = [project.stage(n) for n in names] or list(project.stages)
    outs = locked_outs(project.root)
    total = sum(unit_count(project, s) for s in stages)
    done = 0

    def tell(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    trees: dict[str, Tree] = {}
    checked: list[Checked] = []
    raw_changed = False
    for stage in stages:
        with locked(project, stage.name, shared=True):
            one = _check_stage(project, stage, options, outs, trees, tell, raw_changed=raw_changed)
        raw_changed |= any(p.place == "raw" for p in one.problems)
        checked.append(one)
    extra = check_store(project, stages, outs, [p.path for c in checked for p in c.problems]) if options.store else None
    known = {s.name for s in project.stages}
    others = sorted(p.name for p in (project.root / "data").glob("*/") if p.name not in known)
    notes = [f"data/{', data/'.join(others)}: of no stage, not looked at"] if others and not names else []
    return Report((*checked, extra) if extra else tuple(checked), tuple(notes))


def unit_count(project: Project, stage: AnyStage) -> int:
    """How many units data/<stage> has, for a bar; 0 when that cannot be told."""
    with suppress(Exception):  # a damaged file is reported where it is checked; this is only for the bar
        return int(pq.ParquetFile(project.data(stage.name) / "units.parquet").metadata.num_rows)
    return 0


def _upstream(project: Project, stage: AnyStage, outs: Mapping[str, str], trees: dict[str, Tree]) -> dict[str, Tree]:
    """Trees that a stage reads, opened if they were not checked before."""
    found = {}
    for name in stage.inputs:
        above = name.partition(".")[0]
        if name in RAW_INPUTS or not (project.data(above)).is_dir():
            continue
        if above not in trees:
            trees[above] = open_tree(project, project.stage(above), outs, hash_tables=False)
        found[above] = trees[above]
    return found


def _check_stage(
    project: Project, stage: AnyStage, options: Options, outs: Mapping[str, str], trees: dict[str, Tree],
    tell: Callable[[int], None], *, raw_changed: bool,
) -> Checked:  # fmt: skip
    clock, done = time.perf_counter(), Checked(stage.name)
    if not project.data(stage.name).is_dir():
        done.problems += _no_data(project, stage, outs, done)
        return done
    tree = open_tree(project, stage, outs, hash_tables=options.everything or options.quick)
    trees[stage.name] = tree
    done.notes += tree.notes
    done.problems += check_seals(tree) + check_ledgers(tree)
    done.problems += check_companions(tree, read=options.everything or options.quick)
    there = open_provenance(tree, outs)
    done.problems += check_provenance(tree, there, done)
    if not options.quick:
        done.problems += check_cache(tree, outs, there)
    units = tree.units
    if units is None:
        done.note("no sound copy of units.parquet is left: its units were not checked")
    else:
        done.units = len(units)
        chosen = choose_units(units, options)
        done.decoded = int(chosen.sum())
        sections = None if options.everything else {int(units.cores[i, 0]) for i in np.flatnonzero(chosen)}
        if not options.quick:
            done.problems += check_raw(tree, sections)
        raw_changed |= any(p.place == "raw" for p in done.problems)
        wrong = _check_units(tree, units, chosen, executions(tree, there, done), done, options, tell)
        # Where parts.parquet is at fault, the rows in data/ are not.
        blamed = {(int(units.codes[i]), output) for output, rows in wrong.items() for i in rows}
        done.problems = [p for p in done.problems if p.place != "table" or (p.code, p.output) not in blamed]
        done.problems += check_merkles(tree, {o: [units.title(i) for i in rows] for o, rows in wrong.items()})
    if not options.quick and not any(p.what == "edited record" and p.place == "small" for p in done.problems):
        done.problems += check_derivation(tree, _upstream(project, stage, outs, trees), done, raw_changed=raw_changed)
    done.problems = swapped(_once(done.problems))
    done.seconds = round(time.perf_counter() - clock, 3)
    return done


def _no_data(project: Project, stage: AnyStage, outs: Mapping[str, str], done: Checked) -> list[Problem]:
    """A stage without data/: never run, or lost?"""
    folder = project.data(stage.name)
    if project.provenance(stage.name).is_dir() or f"data/{stage.name}" in outs:
        return [Problem(stage.name, "missing stage", str(folder.relative_to(project.root)), "stage", found="nothing")]
    done.note("not run yet")
    return []


def choose_units(units: Units, options: Options) -> npt.NDArray[np.bool_]:
    """Which units are decoded, bool[N]: at least one of a sample; of a box, those whose core touches it."""
    n = len(units)
    if options.quick:
        return np.zeros(n, dtype=bool)
    chosen: npt.NDArray[np.bool_] = np.ones(n, dtype=bool)
    if options.box is not None:
        six = np.asarray(options.box.flat(), dtype=np.int64)
        # Sections and pairs lie in frames of their own: only their z can be compared with a box of the volume.
        axes = [0] if units.kind in ("sections", "pairs") else [0, 1, 2]
        lo, hi = units.cores[:, :3][:, axes], units.cores[:, 3:][:, axes]
        chosen = np.asarray(((lo < six[3:][axes]) & (six[:3][axes] < hi)).all(axis=1), dtype=bool)
    if options.sample < 1 and chosen.any():
        where = np.flatnonzero(chosen)
        rng = np.random.default_rng([options.seed, *units.kind.encode(), n])
        kept = rng.choice(where, size=max(1, round(options.sample * len(where))), replace=False)
        chosen = np.isin(np.arange(n), kept)
    return chosen


def _check_units(
    tree: Tree, units: Units, chosen: npt.NDArray[np.bool_], rows: Executions | None,
    done: Checked, options: Options, tell: Callable[[int], None],
) -> dict[str, list[int]]:  # fmt: skip
    """Tables first, then all units in threads, then what lies in volumes without belonging to a unit.

    Returns, per output, the units whose digest in parts.parquet is wrong.
    """
    wanted: dict[str, Values | list[str]] = {}
    in_data: dict[str, list[str]] = {}
    sound = (tree.parts is not None and tree.vouched("parts.parquet") is not False) or tree.witness("parts.parquet")
    for o in tree.stage.outputs:
        if isinstance(o, Rows):
            table = check_table(tree, units, o, chosen)
            done.problems += table.problems
            done.files += 1
            done.bytes_read += table.bytes_read
            in_data[o.name] = table.digests
            if o.part == "section":
                if table.digests[0]:
                    wanted[o.name] = table.digests
                continue
        parts = parts_of(tree, o.name)
        if sound and parts is not None and np.array_equal(parts["unit"].to_numpy(), units.codes):
            wanted[o.name] = Values(parts["digest"])
    store = Store(tree.project.store)
    shards = bad_shards(store, tree.name)
    done.problems += [problem(tree, "damaged records", p, "shard", "unit records", "no Parquet") for p in shards]
    bench = Bench(tree, units, store, wanted, in_data, rows)
    wrong: dict[str, list[int]] = {}
    files: set[str] = set()
    found: list[Problem] = []
    known = 0
    for i, entry, one in _walk(bench, shards, chosen, options.threads):
        tell(1)
        known += entry is not None
        done.files += one.count
        done.bytes_read += one.bytes_read
        files.update(f"{output}/{name}" for output, names in one.files.items() for name in names)
        found += one.problems
        for output in one.parts_wrong:
            wrong.setdefault(output, []).append(i)
        _remark(one, done)
    if not known and tree.ledger is None:
        done.note("none of its units is in this store: it was made elsewhere, and only data/ was checked")
        found = [p for p in found if p.place not in ("key", "blob")]
    elif shards:
        found = [p for p in found if p.what != "missing unit" or p.place != "key"]
    done.problems += found + _foreign(tree, files, done)
    return wrong


def _remark(one: UnitChecked, done: Checked) -> None:
    if one.unchecked:
        done.note("some records in the store are from a version without checksums: edits of who and when go unnoticed")
    if one.remade:
        done.note("some units were computed again after this data was made (by another run than provenance/ names)")
    if one.reencoded:
        done.note("some chunks were encoded by another version of compressed_segmentation; their voxels are right")


def _walk(
    bench: Bench, shards: Sequence[Path], chosen: npt.NDArray[np.bool_], threads: int
) -> Iterator[tuple[int, Entry | None, UnitChecked]]:
    """Check every unit in threads (hashing and decoding leave the interpreter's lock); a few wait at a time."""
    n = len(bench.units)
    with ThreadPoolExecutor(threads) as pool:
        waiting: dict[Future[UnitChecked], tuple[int, Entry | None]] = {}
        for start in range(0, n, BATCH):
            lot = range(start, min(start + BATCH, n))
            keys = bench.units.keys[lot.start : lot.stop]
            entries = {k: (text, path) for k, text, path in bench.store.entries(bench.tree.name, keys, shards)}
            for i in lot:
                entry = entries.get(bench.units.keys[i])
                waiting[pool.submit(check_unit, bench, i, entry, deep=bool(chosen[i]))] = (i, entry)
                if len(waiting) >= 4 * threads:
                    yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)


def _finished(
    waiting: dict[Future[UnitChecked], tuple[int, Entry | None]],
) -> Iterator[tuple[int, Entry | None, UnitChecked]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        i, entry = waiting.pop(future)
        yield i, entry, future.result()


def _foreign(tree: Tree, files: set[str], done: Checked) -> list[Problem]:
    """Files below the folders of data/<stage> that belong to no unit."""
    if tree.volumes and not tree.layouts:
        done.note("no sound copy of record.json is left: its volumes were not checked")
        return []
    out = [
        problem(tree, "foreign file", tree.folder / name, "foreign", found="a file of no unit")
        for name in tree.chunk_files()
        if name not in files
    ]
    listed = set(tree.dvc.files) if tree.dvc else files | set(tree.expected)
    if odd := sorted(listed ^ (files | set(tree.expected))):
        where = f"DVC's list of data/{tree.name}"
        out.append(problem(tree, OTHERWISE, tree.folder, "lock", f"its files in {where}", f"not so: {first_few(odd)}"))
    return out


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """One row per file: units with equal content share a blob, and a damaged one is told once."""
    rows: dict[tuple[str, str, str], list[Problem]] = {}
    for p in problems:
        key = (p.path, p.what, p.unit if p.place in ("table", "small", "stale") else "")
        rows.setdefault(key, []).append(p)
    out = []
    for same in rows.values():
        first = min(same, key=lambda p: p.code or 0)
        more = len({p.code for p in same}) - 1
        out.append(replace(first, unit=f"{first.unit} and {more} more") if more else first)
    return out
