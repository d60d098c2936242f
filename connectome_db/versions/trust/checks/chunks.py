"""Chunks: every copy of every chunk of a unit, in the store, in data/ and in DVC's cache."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from connectome_db import volumes
from connectome_db.errors import StoreError
from connectome_db.geometry import Box
from connectome_db.store import Output
from connectome_db.unitfiles import blob_name, unpack_array
from connectome_db.versions.trust.checks.bench import Bench, Difference, Reader, UnitChecked, choose, extra_files, sizes
from connectome_db.versions.trust.findings import OTHERWISE, Place, Problem
from connectome_db.versions.trust.trees import md5, sha256
from connectome_db.volumes import VolumeLayout

PLACES: tuple[Place, ...] = ("blob", "chunk", "cache")


def check_volume(
    bench: Bench, i: int, name: str, known: Output | None, done: UnitChecked, *, deep: bool
) -> list[Difference]:
    """Check a volume output of the `i`-th unit; returns how its record differs from what it should say."""
    layout, core = bench.tree.layouts[name], bench.units.core(i)
    if known and not deep:
        done.problems += sizes(bench, i, name, known, done) or _linked(bench, i, name, known, done)
        return []
    source = Source(bench, i, name, Reader(done))
    digest, out = choose(
        bench, i, name, known, done,
        lambda d: source.decoded(blob_name(d, layout, core), "blob"), lambda: source.decoded("", "chunk"),
    )  # fmt: skip
    if digest is None:
        return out
    blob = blob_name(digest, layout, core)
    if known and known.blob != blob:
        out.append((f"outputs.{name}.blob", blob, known.blob))
    truth = source.truth(digest)
    names = sorted(truth) if truth is not None else source.names(blob, known)
    if known and truth is not None and list(known.files) != [(n, len(truth[n])) for n in names]:
        out.append((f"outputs.{name}.files", f"{len(names)} files of these sizes", "other files or sizes"))
    done.files[name] = [volumes.absolute_name(layout, core, n) for n in names]
    done.problems += _compare(source, blob, names, truth, digest, done)
    return out


def _linked(bench: Bench, i: int, name: str, known: Output, done: UnitChecked) -> list[Problem]:
    """Without reading: does data/ have every chunk, as the store's inode or with its size?"""
    layout, core, out = bench.tree.layouts[name], bench.units.core(i), []
    done.files[name] = [volumes.absolute_name(layout, core, n) for n, _ in known.files]
    for (_, size), absolute in zip(known.files, done.files[name], strict=True):
        path = bench.tree.folder / name / absolute
        try:
            got = os.stat(path).st_size
        except FileNotFoundError:
            out.append(bench.problem(i, "missing chunk", path, "chunk", found="nothing"))
            continue
        if got != size:
            row = bench.problem(i, "damaged chunk", path, "chunk", wanted=f"{size} bytes", found=f"{got} bytes")
            out.append(row)
    return out


@dataclass(frozen=True)
class Source:
    """Where the chunk files of one volume output of one unit are: the store, data/ and DVC's cache."""

    bench: Bench
    i: int
    name: str
    read: Reader

    @property
    def layout(self) -> VolumeLayout:
        """How the volume lies on disk."""
        found: VolumeLayout = self.bench.tree.layouts[self.name]
        return found

    @property
    def core(self) -> Box:
        """The unit's core box."""
        return self.bench.units.core(self.i)

    def absolute(self, local: str) -> str:
        """The path of a chunk file below data/<stage>."""
        return f"{self.name}/{volumes.absolute_name(self.layout, self.core, local)}"

    def places(self, blob: str, local: str) -> list[tuple[Place, Path, str | None]]:
        """Every place of a chunk file: what it is, where, and the MD5 that DVC recorded for it, if any."""
        below = self.absolute(local)
        dvc = self.bench.tree.dvc
        listed = dvc.files.get(below) if dvc else None
        out: list[tuple[Place, Path, str | None]] = [
            ("blob", self.bench.store.blob(blob) / local, listed),
            ("chunk", self.bench.tree.folder / below, listed),
        ]
        cache = dvc.path(below) if dvc else None
        return [*out, ("cache", cache, listed)] if cache else out

    def names(self, blob: str, known: Output | None) -> list[str]:
        """Names of the chunk files that the record lists, or that lie there; only real ones of this unit."""
        folder = self.bench.store.blob(blob)
        listed = [n for n, _ in known.files] if known else []
        there = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
        return [n for n in listed or there if self._is_ours(n)]

    def _is_ours(self, local: str) -> bool:
        try:
            volumes.absolute_name(self.layout, self.core, local)
        except StoreError:
            return False
        return True

    def level0(self, blob: str, place: Place) -> dict[str, bytes]:
        """The chunks of level 0 as one place has them; those left out are background or missing."""
        found = {}
        for local in volumes.chunk_names(self.layout, self.core):
            path = next((p for kind, p, _ in self.places(blob, local) if kind == place), None)
            data = self.read(path) if path else None
            if data is not None:
                found[local] = data
        return found

    def unpack(self, blob: str, place: Place) -> tuple[str, dict[str, bytes]] | None:
        """Content digest and files again of what one place has; None when that cannot be decoded."""
        try:
            return unpack_array(self.layout, self.core, self.level0(blob, place))
        except StoreError:
            return None

    def decoded(self, blob: str, place: Place) -> str | None:
        """Content digest of what one place has."""
        found = self.unpack(blob, place)
        return found[0] if found else None

    def truth(self, digest: str) -> dict[str, bytes] | None:
        """The files of the content with this digest, from whichever place still decodes to it; None from none."""
        blob = blob_name(digest, self.layout, self.core)
        for place in PLACES:
            found = self.unpack(blob, place)
            if found is not None and found[0] == digest:
                return found[1]
        return None


def _reencoded(source: Source, name: str, data: bytes, truth: bytes, done: UnitChecked) -> bool:
    """True when a chunk holds the right voxels in the bytes that another version of the encoder gives them."""
    if source.layout.encoding == "raw" or source.bench.same_encoder(done.made_in):
        return False
    try:
        a, b = (volumes.decode_chunk(source.layout, source.core, name, d) for d in (data, truth))
    except StoreError:
        return False
    done.reencoded |= (same := bool((a == b).all()))
    return same


def _compare(
    source: Source, blob: str, names: Sequence[str], truth: Mapping[str, bytes] | None, digest: str, done: UnitChecked
) -> list[Problem]:
    """Every copy of every chunk against the bytes it should have, or, when none decodes to them, against DVC's MD5."""
    bench, folder, out = source.bench, source.bench.store.blob(blob), []
    say = partial(bench.problem, source.i, output=source.name)
    gone = bool(names) and not folder.is_dir()
    if gone:
        out.append(say("missing unit", folder, "blob", wanted=f"{len(names)} files", found="nothing"))
    level0 = [n for n in names if n.startswith(f"{source.layout.scales[0].key}/")]
    for name in names:
        for place, path, listed in source.places(blob, name):
            if place == "blob" and gone:
                continue
            data, right = source.read(path), truth[name] if truth is not None else None
            wanted = f"sha256 {sha256(right)}" if right is not None else f"md5 {listed}" if listed else ""
            if data is None:
                out.append(say("missing chunk", path, place, wanted=wanted or f"content {digest}", found="nothing"))
                continue
            found = f"md5 {md5(data)}" if right is None and listed else f"sha256 {sha256(data)}"
            found += f", {len(data)} bytes"
            if right is None:  # without a sound copy only a listed MD5, or being alone, tells which chunk it is
                if (listed and md5(data) != listed) or (not listed and level0 == [name]):
                    wanted = wanted or f"content {digest}"
                    out.append(say("damaged chunk", path, place, wanted=wanted, found=found))
            elif data == right or _reencoded(source, name, data, right, done):
                continue
            elif place == "cache" and md5(data) == listed:  # whole, and yet not what it should be: committed so
                row = say(OTHERWISE, bench.folder / source.absolute(name), "lock", wanted=f"md5 {md5(right)}",
                          found=f"md5 {listed} in DVC's list of data/{bench.tree.name}")  # fmt: skip
                out.append(row)
            else:
                pair = (sha256(right), sha256(data))
                out.append(say("damaged chunk", path, place, wanted=wanted, found=found, digests=pair))
    if truth is None and not out:
        which = f"one of {len(level0)} chunks of level 0" if level0 else "no chunk of level 0"
        out.append(say("damaged chunk", folder, "blob", wanted=f"content {digest}", found=which))
    return out + extra_files(bench, source.i, folder, names)
