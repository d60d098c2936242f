"""How things of the API show themselves: a project, a lineage, a view, a comparison."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import Console

from connectome_db.api.frames import frame
from connectome_db.errors import QueryError, nearest
from connectome_db.query import trace as traces

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from connectome_db.query.receipts.receipt import Receipt
    from connectome_db.query.trace import Trace
    from connectome_db.viewing.viewer import View
    from connectome_db.viewing.volumeserver import VolumeServer


def table_html(title: str, rows: Mapping[str, object]) -> str:
    """A small table with a title, as notebooks show it."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(str(k))}</th><td style='text-align:left'>{escape(str(v))}</td></tr>"
        for k, v in rows.items()
    )
    return f"<div><b>{escape(title)}</b><table>{body}</table></div>"


@dataclass(frozen=True, repr=False)
class Lineage:
    """What something was made from, step by step. Prints as a tree; `steps` are its objects."""

    root: Trace

    def find(self, kind: str) -> list[Trace]:
        """All steps of a kind (synapse, unit, tile, row, file ...), each once, with their `facts`."""
        return self.root.find(kind)

    def json(self) -> str:
        """The whole tree as JSON; ids are strings."""
        return traces.to_json(self.root)

    def dot(self) -> str:
        """The tree as a Graphviz graph."""
        return traces.to_dot(self.root)

    def __repr__(self) -> str:
        out = io.StringIO()
        # rich finds a notebook around it by itself, and would print there at once, in colours
        Console(file=out, width=120, force_jupyter=False, force_terminal=False, color_system=None).print(
            traces.to_rich(self.root)
        )
        return out.getvalue().rstrip()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


@dataclass(frozen=True)
class Answered:
    """Rows of a query, and the receipt with which anybody can ask it again and compare."""

    rows: Any
    receipt: Receipt = field(repr=False)


@dataclass(frozen=True, repr=False)
class Changes:
    """What differs between two versions: DataFrames by name, such as changes["edge_change"]."""

    before: str
    after: str
    tables: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.tables:
            raise QueryError(f"no table {name!r}{nearest(name, self.tables)}")
        return self.tables[name]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(rows):,}" for name, rows in self.tables.items())
        return f"Changes({self.before} -> {self.after}: {counts})"

    def _repr_html_(self) -> str:
        counts = {name: f"{len(rows):,} rows" for name, rows in self.tables.items()}
        return table_html(f"{self.before} → {self.after}", counts)


class Scene:
    """A view for Neuroglancer: its state as a dict, a link, and a server for the volumes."""

    def __init__(self, view: View) -> None:
        """Serves nothing yet."""
        self._view = view
        self._server: VolumeServer | None = None

    @property
    def base(self) -> str:
        """Where the volumes are, or would be, served."""
        from connectome_db.viewing.viewer import PORT

        return self._server.url if self._server else f"http://127.0.0.1:{PORT}"

    @property
    def state(self) -> dict[str, Any]:
        """Neuroglancer's state; ids are strings."""
        return self._view.state(self.base)

    @property
    def link(self) -> str:
        """A link that shows the state; it needs `serve` (or `connectome view` beside)."""
        return self._view.link(self.base, served=self._server is not None)

    def serve(self, port: int = 0) -> str:
        """Serve the volumes from this process until `close`; returns the link."""
        from connectome_db.viewing.volumeserver import VolumeServer

        if self._server is None:
            self._server = VolumeServer(self._view.folders, port)
            self._server.state = json.dumps(self.state).encode()
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self.link

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __repr__(self) -> str:
        return f"Scene({len(self._view.objects)} objects, {len(self._view.synapses)} synapses)\n{self.link}"


def changes(before: str, after: str, tables: Mapping[str, Any], notes: tuple[str, ...]) -> Changes:
    """A comparison's Arrow tables as DataFrames."""
    return Changes(before, after, {name: frame(rows) for name, rows in tables.items()}, notes)
