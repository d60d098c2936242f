"""What `finish` assembled, remembered in the store: which units each tree named, and the digests of its small files.

    ledgers/<stage>/<name>/units.parquet            the units and their keys: what garbage collection must know
    ledgers/<stage>/<name>/seal.json                SHA-256 of every file of data/<stage> that is not a chunk
    ledgers/<stage>/<name>/provenance-<run>.json    the same for provenance/<stage>, per run that finished this tree,
                                                    with a checksum

A ledger is named by its seal, so finishing equal data again adds nothing. `verify` compares what lies in a project with
the seal; `gc` finds what a revision needs even when DVC's cache no longer has that revision.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectome_db.errors import StoreError

CHECK = "check"
"""In the seal of a run, the digest of the rest."""


@dataclass(frozen=True)
class Ledger:
    """One tree that was assembled for a stage: its folder in the store and the digests of its small files."""

    folder: Path
    files: Mapping[str, str]

    @property
    def units(self) -> Path:
        """The table of its units and their keys."""
        return self.folder / "units.parquet"

    @property
    def sealed(self) -> bool:
        """False when the seal was altered: a ledger is named by it."""
        return self.folder.name == _name(self.files)

    @property
    def whole(self) -> bool:
        """False when the seal or the table of units was altered."""
        units = hashlib.sha256(self.units.read_bytes()).hexdigest() if self.units.is_file() else ""
        return self.sealed and units == self.files.get("units.parquet")

    @property
    def runs(self) -> list[str]:
        """Runs that finished this tree."""
        return sorted(p.stem.removeprefix("provenance-") for p in self.folder.glob("provenance-*.json"))

    def provenance(self, run_id: str) -> Mapping[str, str] | None:
        """Digests of the files of provenance/<stage> that a run wrote; None when it wrote none for this tree."""
        path = self.provenance_seal(run_id)
        return {n: d for n, d in _read(path).items() if n != CHECK} if path.is_file() else None

    def provenance_seal(self, run_id: str) -> Path:
        """The file that has them."""
        return self.folder / f"provenance-{run_id}.json"

    def provenance_whole(self, run_id: str) -> bool:
        """False when that file was altered. Those of earlier versions have no checksum and are taken as they are."""
        try:
            found = dict(_read(self.provenance_seal(run_id)))
        except StoreError:
            return False
        check = found.pop(CHECK, None)
        return check in (None, _digest(found))


def small_paths(folder: Path) -> list[Path]:
    """Every file directly in a stage's folder, the `info` of its volumes, and its arrays; chunks are left out."""
    beside = (p for pattern in ("*/info", "*/*.npy") for p in sorted(folder.glob(pattern)))
    return [*(p for p in sorted(folder.iterdir()) if p.is_file()), *beside]


def small_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each of `small_paths`, by name."""
    return {str(p.relative_to(folder)): _file_digest(p) for p in small_paths(folder)}


def _file_digest(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write(store: Path, stage: str, data: Path, provenance: Path, run_id: str) -> Ledger:
    """Enter a tree that is about to become data/<stage>, and its provenance."""
    files = small_files(data)
    ledger = Ledger(store / "ledgers" / stage / _name(files), files)
    ledger.folder.mkdir(parents=True, exist_ok=True)
    if not (ledger.folder / "seal.json").exists():
        _write(ledger.units, (data / "units.parquet").read_bytes())
        _write(ledger.folder / "seal.json", _text(files))  # last: a ledger without a seal was not finished
    sealed = small_files(provenance)
    _write(ledger.provenance_seal(run_id), _text({**sealed, CHECK: _digest(sealed)}))
    return ledger


def all_ledgers(store: Path, stage: str) -> list[Ledger]:
    """Every tree that was assembled for a stage, by name. Raises StoreError for a damaged seal."""
    return [read_ledger(folder) for folder in folders(store, stage)]


def folders(store: Path, stage: str) -> list[Path]:
    """Folders of all ledgers of a stage, by name."""
    return sorted(path.parent for path in (store / "ledgers" / stage).glob("*/seal.json"))


def read_ledger(folder: Path) -> Ledger:
    """The ledger in a folder. Raises StoreError for a damaged seal."""
    return Ledger(folder, _read(folder / "seal.json"))


def name_of(data: Path) -> str:
    """The name that the ledger of a folder data/<stage> has."""
    return _name(small_files(data))


def _name(files: Mapping[str, str]) -> str:
    return _digest(files)[:32]


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(_text(files)).hexdigest()


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"


def _read(path: Path) -> Mapping[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(found, dict) and all(isinstance(v, str) for v in found.values())):
            raise ValueError("wanted file names and digests")
    except (OSError, ValueError) as e:
        raise StoreError(f"{path}: a ledger of the store cannot be read ({e}); remove its folder") from e
    return {str(name): str(value) for name, value in found.items()}


def _write(path: Path, data: bytes) -> None:
    tmp = path.with_name(f"tmp-{uuid.uuid4().hex}")
    with tmp.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    tmp.replace(path)
