"""What checking a project found: one row per file that is not what the records say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Place = Literal[
    "raw", "stage", "small", "chunk", "table", "provenance", "key", "shard", "blob", "ledger", "cache", "foreign",
    "stale", "lock", "spare", "environment", "companion",
]  # fmt: skip
"""Where the wrong file lies, which decides what repairs it."""

REPAIRS: dict[Place, str] = {
    "raw": "put the recorded file back (raw tiles are never written here), or take the new one with `dvc repro`",
    "stage": "--repair assembles it from the store; so does `dvc checkout`, where it was committed",
    "small": "--repair writes it anew from the store",
    "chunk": "--repair links it from the store",
    "table": "--repair writes it anew from the store",
    "provenance": "--repair takes it from DVC's cache or the store's records",
    "key": "--repair writes it anew from the unit's provenance, or computes the unit again",
    "shard": "--repair sets it aside and writes its records anew",
    "blob": "--repair takes it from data/ or DVC's cache where they are whole, or computes the unit again",
    "ledger": "--repair sets it aside and seals the checked tree anew",
    "cache": "--repair replaces it with the file that has the recorded digest",
    "foreign": "--repair moves it to .connectome/foreign/",
    "stale": "run the stage: `dvc repro`",
    "lock": "DVC was told of it while it was damaged: repair, then `dvc commit`",
    "spare": "--repair drops it; it is computed again when a version needs it",
    "environment": "--repair takes it from provenance/",
    "companion": "--repair makes it anew from its table",
}


OTHERWISE = "committed otherwise"
"""What DVC was told while it was damaged."""


@dataclass(frozen=True)
class Problem:
    """One file that is not what the records say.

    `unit` and `code` are title and code of the unit it belongs to ("" and None for a whole stage), `key` its key where
    data/ does not hold it; `path` is relative to the project. `digests` are (wanted, found) where both are known, by
    which swapped files are recognised.
    """

    stage: str
    what: str
    path: str
    place: Place
    wanted: str = ""
    found: str = ""
    unit: str = ""
    code: int | None = None
    output: str = ""
    key: str = ""
    digests: tuple[str, str] | None = field(default=None, compare=False)

    @property
    def repair(self) -> str:
        """What repairs it."""
        return REPAIRS[self.place]

    def row(self) -> dict[str, Any]:
        """For JSON: the code as text, since it does not fit a double."""
        shown = asdict(self) | {"code": None if self.code is None else str(self.code), "repair": self.repair}
        return {k: v for k, v in shown.items() if k != "digests"}


@dataclass
class Checked:
    """One stage as checked: problems, remarks that are no problem, and how much was looked at."""

    stage: str
    units: int = 0
    decoded: int = 0
    files: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Report:
    """All that was checked."""

    stages: tuple[Checked, ...]
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[Problem]:
        """All problems, in pipeline order."""
        return [p for s in self.stages for p in s.problems]

    @property
    def ok(self) -> bool:
        """True when everything is what the records say."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        stages = [
            {k: getattr(s, k) for k in ("stage", "units", "decoded", "files", "bytes_read", "seconds", "notes")}
            for s in self.stages
        ]
        return {
            "ok": self.ok,
            "problems": [p.row() for p in self.problems],
            "notes": list(self.notes),
            "stages": stages,
        }


def swapped(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems; where two files of one place hold each other's bytes, they are called swapped."""
    wants = {(p.place, p.digests[0]): p for p in problems if p.digests}
    out = []
    for p in problems:
        other = wants.get((p.place, p.digests[1])) if p.digests else None
        if p.digests and other is not None and other.digests == (p.digests[1], p.digests[0]) and other.path != p.path:
            p = replace(p, what="swapped files", found=f"the content of {other.path}")  # noqa: PLW2901
        out.append(p)
    return out


def short(text: str) -> str:
    """Text with digests cut to 12 digits, for a table on a screen."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,52}\b", r"\1…", text)


def first_few(names: Iterable[str], n: int = 3) -> str:
    """'a, b, c and 4 more'."""
    all_names = list(names)
    more = f" and {len(all_names) - n} more" if len(all_names) > n else ""
    return ", ".join(all_names[:n]) + more
