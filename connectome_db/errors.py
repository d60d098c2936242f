"""Every error a user can meet. Each message says what was wanted, what came, where, and what to do.

ConnectomeError
├── ConfigError        params.yaml, launch.yaml, a misspelt name
├── SourceError        raw tiles and their manifest
├── StageError         a stage's declaration, code or result is not what was declared
├── StoreError         a stored unit is missing, truncated or altered
│   └── DiskFullError  no space is left
├── RunError           a run cannot start, or some of its units failed
├── RevisionError      a revision is unknown, or its data is not in DVC's cache
└── QueryError         an unknown table, column, query, id; refused SQL
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConnectomeError(Exception):
    """Base of all errors that a user can meet; the CLI prints its text without a traceback."""


class ConfigError(ConnectomeError):
    """A configuration file or a name in it is wrong."""


class SourceError(ConnectomeError):
    """Raw tiles, or the manifest that lists them, are not as declared."""


class StageError(ConnectomeError):
    """A stage's declaration, code or result breaks the contract of `spec.Stage`."""


class StoreError(ConnectomeError):
    """A stored unit is missing or damaged, or the store cannot be written."""


class DiskFullError(StoreError):
    """No space is left; a run stops at once, because every further unit would fail too."""


class RunError(ConnectomeError):
    """A run cannot start, or some of its units failed."""


class RevisionError(ConnectomeError):
    """A revision is unknown to git, has no data, or its data is not in DVC's cache."""


class QueryError(ConnectomeError):
    """A query names something that does not exist, or asks for what is not allowed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown `name`: "; did you mean 'x'? Known: ...", or ". Known: ..." with none near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    return f"{hint} Known: {shown or '(none)'}."
