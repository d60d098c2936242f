"""Mend one stage: its records, units, chunks, provenance, and what DVC's cache has of them."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from connectome_db import runner
from connectome_db.companions import make_one, names
from connectome_db.config import Project
from connectome_db.errors import ConnectomeError
from connectome_db.finish import executions_table, finish, write_data, write_json
from connectome_db.prepare import Prepared
from connectome_db.runner import Outcome
from connectome_db.spec import Rows
from connectome_db.store import Store
from connectome_db.tables import write_small
from connectome_db.versions.trust.checks.bench import Bench, Values
from connectome_db.versions.trust.checks.provenance import (
    EXECUTIONS,
    Provenance,
    executions,
    open_provenance,
    records_of,
)
from connectome_db.versions.trust.checks.records import as_configured, bad_shards
from connectome_db.versions.trust.checks.tables import check_table, parts_of
from connectome_db.versions.trust.findings import Checked, Problem
from connectome_db.versions.trust.mending.ledgers import mend_ledgers, set_aside
from connectome_db.versions.trust.mending.units import Mended, UnitMender, relink
from connectome_db.versions.trust.rederive import derive, same_code
from connectome_db.versions.trust.trees import (
    Tree,
    committed,
    file_md5,
    listing_path,
    locked_outs,
    md5,
    open_tree,
    relative,
    sha256,
    sound_ledgers,
)


def tree_md5(folder: Path) -> str:
    """The MD5 by which DVC names a folder: that of its list of files and their MD5s."""
    return md5(listing_of(folder))


def listing_of(folder: Path) -> bytes:
    """DVC's list of the files of a folder."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return json.dumps([{"md5": file_md5(folder / f), "relpath": f} for f in files], sort_keys=True).encode()


class StageMender:
    """Mends one stage; call with the stage locked. `tmp` is on the project's file system."""

    def __init__(self, project: Project, name: str, problems: Sequence[Problem], aside: Path, tmp: Path) -> None:
        self.project, self.name, self.problems, self.aside, self.tmp = project, name, problems, aside, tmp
        self.outs = locked_outs(project.root)
        self.done: list[Mended] = []
        self._restored: set[str] = set()

    def mend(self) -> list[Mended]:
        """All of it, in an order in which each step can rely on the ones before."""
        if self._of("stage"):
            return self._assemble()
        self._move("foreign", "shard")
        self._witnessed()
        self._units()
        self._regenerated()
        self._companions()
        self._chunks()
        self._provenance()
        self._cache()
        self._ledgers()
        return self.done

    def _of(self, *places: str) -> list[Problem]:
        return [p for p in self.problems if p.place in places]

    def _path(self, p: Problem) -> Path:
        return self.project.root / p.path  # an absolute path stays what it is

    def _say(self, what: str, how: str, *, failed: bool = False) -> None:
        self.done.append(Mended(self.name, what, how, failed))

    def _tree(self) -> Tree:
        return open_tree(self.project, self.project.stage(self.name), self.outs)

    def _write(self, path: Path, data: bytes) -> None:
        new = self.tmp / uuid.uuid4().hex
        new.write_bytes(data)
        path.parent.mkdir(parents=True, exist_ok=True)
        new.replace(path)

    def _assemble(self) -> list[Mended]:
        """data/ is gone: everything from the store."""
        prepared, outcome = runner.run_units(self.project, self.name)
        finish(prepared, outcome)
        self._say(f"data/{self.name}", f"assembled from the store, {outcome.computed} units computed")
        return self.done

    def _move(self, *places: str) -> None:
        for p in self._of(*places):
            if self._path(p).exists() or self._path(p).is_symlink():
                moved = set_aside(self.project, self._path(p), self.aside)
                self._say(moved.what, moved.how)

    def _small(self) -> list[str]:
        """Records and tables of data/ that are wrong, by name."""
        folder = self.project.data(self.name)
        return sorted({str(self._path(p).relative_to(folder)) for p in self._of("small", "table")})

    def _witnessed(self) -> None:
        """Records and tables that DVC's cache or the ledger still has as they were sealed."""
        tree = self._tree()
        for name in self._small():
            data = tree.witness(name) if tree.vouched(name) is False else None
            if data is not None:
                self._write(tree.folder / name, data)
                self._restored.add(name)
                self._say(f"data/{self.name}/{name}", "taken from a copy with the sealed digest")

    def _bench(self, tree: Tree) -> Bench | None:
        units = tree.units
        if units is None:
            return None
        store = Store(self.project.store)
        wanted: dict[str, Values | list[str]] = {}
        everything = np.ones(len(units), dtype=bool)
        for o in tree.stage.outputs:
            if isinstance(o, Rows) and o.part == "section":
                digest = check_table(tree, units, o, everything).digests[0]
                if digest:
                    wanted[o.name] = [digest]
            elif (parts := parts_of(tree, o.name)) is not None and len(parts) == len(units):
                wanted[o.name] = Values(parts["digest"])
        rows = executions(tree, open_provenance(tree, self.outs), Checked(self.name))
        return Bench(tree, units, store, wanted, {}, rows)

    def _prepared(self, tree: Tree) -> tuple[Prepared | None, str]:
        """The stage planned from its record, or from params.yaml when its record is lost or was edited."""
        why, units = "its record is lost", tree.units
        records = [tree.record, as_configured(tree, tree.record)] if tree.record else [as_configured(tree, None)]
        store = Store(self.project.store)
        for record in records:
            derived = derive(self.project, tree.stage, record, units.keys if units else [])
            why = derived.reason or "its code, parameters or inputs have changed since"
            if derived.prepared is not None and (derived.keys_fit or self._all_stored(store, derived.prepared)):
                return derived.prepared, ""
        return None, why

    def _all_stored(self, store: Store, prepared: Prepared) -> bool:
        return len(records_of(store, self.name, prepared.keys)) == len(prepared.keys)

    def _units(self) -> None:
        """Blobs and records of the store."""
        store = Store(self.project.store)
        wrong = {p.code for p in self._of("key", "blob")}
        tree = self._tree()
        bench = self._bench(tree) if wrong or self._of("shard") else None
        if bench is None:
            if wrong:
                self._say("units", "units.parquet must be repaired first", failed=True)
            return
        indices = [i for i, code in enumerate(bench.units.codes.tolist()) if code in wrong]
        if self._of("shard"):
            there = {k for k, _, _ in store.entries(self.name, bench.units.keys, bad_shards(store, self.name))}
            indices += [i for i, k in enumerate(bench.units.keys) if k not in there and i not in indices]
        prepared, why = self._prepared(tree)
        if prepared is not None and not same_code(prepared):
            prepared, why = None, "the stage's code has changed since"
        self.done += UnitMender(bench, prepared, why).mend(sorted(indices))

    def _regenerated(self) -> None:
        """Records and tables written anew from the store, where no copy was left."""
        tree = self._tree()
        lost = [n for n in self._small() if n not in self._restored]
        if not lost:
            return
        prepared, why = self._prepared(tree)
        if prepared is None:
            self._say(", ".join(lost), f"cannot be written anew: {why}; run `connectome run {self.name}`", failed=True)
            return
        store = Store(self.project.store)
        records = records_of(store, self.name, prepared.keys)
        folder = self.tmp / "data"
        folder.mkdir()
        try:
            write_data(prepared, store, [records[k] for k in prepared.keys], folder, chunks=False)
        except (ConnectomeError, KeyError) as e:
            self._say(", ".join(lost), f"cannot be written anew, its units are not whole: {e}", failed=True)
            return
        seals = {d for one in sound_ledgers(self.project.store, self.name) for d in one.files.values()}
        for name in lost:
            data = (folder / name).read_bytes()
            if seals and sha256(data) not in seals:
                why = "written anew it has other bytes than were sealed (another version of a library?)"
                self._say(f"data/{self.name}/{name}", f"{why}; run `connectome finish {self.name}`", failed=True)
                continue
            self._write(tree.folder / name, data)
            self._say(f"data/{self.name}/{name}", "written anew from the store")

    def _companions(self) -> None:
        """Companions, made anew from the tables of data/."""
        wrong = {p.path for p in self._of("companion")}
        if not wrong:
            return
        tree, folder = self._tree(), self.tmp / "companions"
        made: dict[str, str] = {}
        for o in tree.tables:
            for c in o.companions:
                if wrong & {tree.relative(tree.folder / n) for n in names(o, c)}:
                    folder.mkdir(exist_ok=True)
                    made |= make_one(o, c, tree.folder, folder, self.tmp)
        for name, digest in made.items():
            path = tree.folder / name
            if tree.relative(path) not in wrong:
                continue
            if tree.companions.get(name) not in ("", digest):
                why = "made anew it has another digest than was recorded (another version of a library?)"
                self._say(f"data/{self.name}/{name}", f"{why}; run `connectome finish {self.name}`", failed=True)
                continue
            path.parent.mkdir(exist_ok=True)
            (folder / name).replace(path)
            self._say(f"data/{self.name}/{name}", "made anew from its table, with the recorded digest")

    def _chunks(self) -> None:
        """Chunks of data/, linked from the store; with a damaged blob, those that shared its bytes too."""
        tree = self._tree()
        bench = self._bench(tree)
        if bench is None:
            return
        row_of = {code: i for i, code in enumerate(bench.units.codes.tolist())}
        volumes = {o.name for o in tree.volumes}
        wrong = {(p.code, p.output) for p in self._of("chunk", "blob") if p.output in volumes}
        for code, output in sorted(wrong, key=str):
            if code in row_of and (n := relink(bench, row_of[code], output, self.tmp)):
                self._say(f"data/{self.name}/{output}", f"{n} chunks of {bench.units.title(row_of[code])} linked anew")

    def _provenance(self) -> None:
        wrong = self._of("provenance")
        if not wrong:
            return
        tree = self._tree()
        there = open_provenance(tree, self.outs)
        for name in sorted(n for n in there.expected if there.vouched(n) is False):
            data = there.witness(name)
            data = data if data is not None else self._from_store(tree, there, name)
            if data is None and name in ("run.json", EXECUTIONS):
                self._finish_again(tree, name)
                return
            if data is None:
                why = f"no copy is left; `connectome finish {self.name}` records a run of today in its place"
                self._say(f"provenance/{self.name}/{name}", why, failed=True)
                continue
            self._write(there.folder / name, data)
            self._say(f"provenance/{self.name}/{name}", "written anew, with the sealed digest")

    def _from_store(self, tree: Tree, there: Provenance, name: str) -> bytes | None:
        """executions.parquet or environments.json from the store's records; None when that has another digest."""
        prepared, _ = self._prepared(tree)
        store, new = Store(self.project.store), self.tmp / uuid.uuid4().hex
        try:
            run = json.loads((there.folder / "run.json").read_bytes())
            if prepared is None or name not in (EXECUTIONS, "environments.json"):
                return None
            records = records_of(store, self.name, prepared.keys)
            ordered = [records[k] for k in prepared.keys]
            if name == EXECUTIONS:
                write_small(executions_table(prepared.plan, ordered, run["run_id"]), new)
            else:
                used = sorted({r.execution["environment"] for r in ordered} | {run["environment"]})
                write_json(new, {d: store.environment(d) for d in used})
        except (OSError, ValueError, KeyError, ConnectomeError):
            return None
        data = new.read_bytes()
        return data if there.seal is None or sha256(data) == there.seal.get(name) else None

    def _finish_again(self, tree: Tree, name: str) -> None:
        """No copy of a run's facts is left: finish the stage once more, which records this run in its place."""
        prepared, why = self._prepared(tree)
        if prepared is None:
            self._say(f"provenance/{self.name}/{name}", f"no copy is left, and {why}", failed=True)
            return
        n = len(prepared.plan)
        outcome = Outcome(self.name, uuid.uuid4().hex[:16], n, 0, n, 0.0, runner.now(), "none", 1)
        finish(prepared, outcome)
        how = "no copy was left: the stage was finished again, and this run is recorded in its place"
        self._say(f"provenance/{self.name}/{name}", how)

    def _cache(self) -> None:
        """Objects of DVC's cache, from files of data/ and provenance/ that have their MD5."""
        wrong = {self._path(p) for p in self._of("cache")}
        for out in (f"data/{self.name}", f"provenance/{self.name}"):
            listing, folder = listing_path(self.project.root, self.outs, out), self.project.root / out
            if listing in wrong and listing is not None:
                self._list_anew(out, listing)
            dvc = committed(self.project.root, self.outs, out)
            for name, digest in dvc.files.items() if dvc else ():
                path = dvc.path(name) if dvc else None
                good = folder / name
                if path in wrong and path is not None and good.is_file() and file_md5(good) == digest:
                    self._link(good, path)
                    wrong.discard(path)
            if listing is not None:
                wrong.discard(listing)  # told above
        for path in sorted(wrong):
            why = "no good copy is left here; `dvc fetch` may bring it, and `dvc commit` replaces what was made anew"
            self._say(relative(self.project, path), why, failed=True)

    def _list_anew(self, out: str, listing: Path) -> None:
        """The cache's list of the files of an output, from the folder that it lists."""
        data = listing_of(self.project.root / out)
        fits = md5(data) == self.outs[out].removesuffix(".dir")
        if fits:
            self._write(listing, data)
            listing.chmod(0o444)
        where = relative(self.project, listing)
        self._say(where, "written anew" if fits else f"{out} is not what it lists", failed=not fits)

    def _link(self, good: Path, path: Path) -> None:
        """Replace an object of the cache: by a link when the good file is read-only, as DVC's cache must be."""
        new = self.tmp / uuid.uuid4().hex
        if good.stat().st_mode & 0o222:
            shutil.copyfile(good, new)
            new.chmod(0o444)
        else:
            new.hardlink_to(good)
        path.parent.mkdir(parents=True, exist_ok=True)
        new.replace(path)
        self._say(relative(self.project, path), "replaced with the file that has its MD5")

    def _ledgers(self) -> None:
        wrong = sorted({self._path(p) for p in self._of("ledger")})
        self.done += mend_ledgers(self.project, self.name, wrong, self.aside) if wrong else []
